"""Limits: at most so many requests, tokens or units of money in a window of the calendar.

All amounts are whole numbers; money is counted in millionths of its unit. Windows are those of
UTC: a minute begins at second 0, a month on its first day.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal, get_args

import msgspec

from gateway.limits import AMOUNT_MAX, MATCHED_CHARS_MAX

Measure = Literal["requests", "tokens", "money"]
"""What is counted."""

Window = Literal["minute", "hour", "day", "month"]
"""For how long."""

Scope = Literal["key", "project", "declaration"]
"""Of whom: each gateway key, project or declaration has counters of its own."""

MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)
WINDOWS: Final[tuple[Window, ...]] = get_args(Window)
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

MICRO: Final = 1_000_000
_WIDTHS: Final = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
_DECEMBER: Final = 12
_MONEY: Final = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?")
_WRITTEN: Final = re.compile(r"([a-z]+/[a-z]+)=([0-9.]{1,24})")
_SCOPES: Final[dict[str, Scope]] = {scope: scope for scope in SCOPES}
_WHAT: Final[dict[str, tuple[Measure, Window]]] = {
    f"{measure}/{window}": (measure, window) for measure in MEASURES for window in WINDOWS
}


class Limit(msgspec.Struct, frozen=True, order=True):
    """At most *amount* of *measure* in each *window*."""

    measure: Measure
    window: Window
    amount: int

    def __str__(self) -> str:
        """Return it as it is written for a key: `tokens/day=2000000`."""
        return f"{self.measure}/{self.window}={shown(self.measure, self.amount)}"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Limits for each of those whose name fits *names*."""

    scope: Scope
    names: str
    """A name, or several: `*` stands for any characters, `?` for one."""
    limits: tuple[Limit, ...]


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """A limit as it binds one key, project or declaration."""

    scope: Scope
    name: str
    limit: Limit

    @property
    def counter(self) -> str:
        """The name of what counts for it; a limit that changes goes on with the same count."""
        return counter_name(self.scope, self.name, self.limit.measure, self.limit.window)

    def __str__(self) -> str:
        """Return it for people: `2000000 tokens a day for project search`."""
        limit = self.limit
        amount = shown(limit.measure, limit.amount)
        return f"{amount} {limit.measure} a {limit.window} for {self.scope} {self.name}"


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be added to one counter, if it then holds no more than *at_most*."""

    counter: str
    window: Window
    amount: int
    at_most: int


class Full(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing was added to any counter, for one of them would hold too much."""

    place: int
    """Which of the charges that were to be made."""
    used: int
    """What the counter holds."""
    frees_ms: int
    """In how many milliseconds its window ends."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be added to one counter, or taken off, while the window of *start* lasts."""

    counter: str
    start: int
    """When the window began, in milliseconds."""
    amount: int


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What a counter holds now."""

    counter: str
    used: int
    start: int
    end: int


def span(window: Window, now_ms: int) -> tuple[int, int]:
    """Return when the window that holds *now_ms* began, and when the next one does."""
    width = _WIDTHS.get(window)
    if width is not None:
        start = now_ms - now_ms % width
        return start, start + width
    return _month(now_ms // _WIDTHS["day"])


@functools.lru_cache(maxsize=8)
def _month(day: int) -> tuple[int, int]:
    """Return when the month that holds the *day* since 1970 began, and when the next does."""
    now = dt.datetime.fromtimestamp(day * 86_400, dt.UTC)
    first = dt.datetime(now.year, now.month, 1, tzinfo=dt.UTC)
    after = (
        first.replace(year=now.year + 1, month=1)
        if now.month == _DECEMBER
        else first.replace(month=now.month + 1)
    )
    return int(first.timestamp()) * 1000, int(after.timestamp()) * 1000


def counter_name(scope: Scope, name: str, measure: Measure, window: Window) -> str:
    """Return the name of the counter of *measure* in *window* for who is called *name*."""
    return f"{scope} {name} {measure}/{window}"


def parse_counter(counter: str) -> tuple[Scope, str, Measure, Window] | None:
    """Return what `counter_name` was given, or `None` where it was not given that."""
    scope, _, rest = counter.partition(" ")
    name, _, what = rest.rpartition(" ")
    if scope not in _SCOPES or what not in _WHAT or not name:
        return None
    return _SCOPES[scope], name, *_WHAT[what]


def fits(names: str, name: str) -> bool:
    """Tell whether *name* is one of *names*: `*` stands for any characters, `?` for one."""
    return len(name) <= MATCHED_CHARS_MAX and _compiled(names).fullmatch(name) is not None


def bounds_of(
    rules: Iterable[Rule], own: Sequence[Limit], names: Iterable[tuple[Scope, str]]
) -> tuple[Bound, ...]:
    """Return every limit that binds whoever bears *names*; *own* are those of the key itself.

    Where several limit the same, the lowest counts.
    """
    lowest: dict[str, Bound] = {}
    known = list(names)
    found = [
        Bound(scope=scope, name=name, limit=limit)
        for scope, name in known
        for rule in rules
        if rule.scope == scope and fits(rule.names, name)
        for limit in rule.limits
    ]
    found += [
        Bound(scope="key", name=name, limit=limit)
        for scope, name in known
        if scope == "key"
        for limit in own
    ]
    for bound in found:
        other = lowest.get(bound.counter)
        if other is None or bound.limit.amount < other.limit.amount:
            lowest[bound.counter] = bound
    return tuple(lowest[counter] for counter in sorted(lowest))


def parse_limit(text: str) -> Limit | None:
    """Return the limit that *text* writes (`requests/minute=60`), or `None`."""
    found = _WRITTEN.fullmatch(text)
    if found is None or found[1] not in _WHAT:
        return None
    measure, window = _WHAT[found[1]]
    amount = amount_of(measure, found[2])
    return None if amount is None else Limit(measure, window, amount)


def amount_of(measure: Measure, written: str | int) -> int | None:
    """Return the amount that is *written*, or `None`: no such number, or too large a one."""
    if measure == "money":
        return micros(written)
    text = str(written)
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(AMOUNT_MAX)):
        return None
    return int(text) if int(text) <= AMOUNT_MAX else None


def micros(written: str | int) -> int | None:
    """Return an amount of money (`12`, `0.075`) in millionths, or `None` if it is none."""
    found = _MONEY.fullmatch(str(written))
    if found is None:
        return None
    amount = int(found[1]) * MICRO + int((found[2] or "").ljust(6, "0"))
    return amount if amount <= AMOUNT_MAX else None


def shown(measure: Measure, amount: int) -> str:
    """Return *amount* for people; money with its decimals."""
    if measure != "money":
        return str(amount)
    whole, rest = divmod(abs(amount), MICRO)
    decimals = f"{rest:06}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount < 0 else ''}{whole}.{decimals}"


@functools.lru_cache(maxsize=1024)
def _compiled(names: str) -> re.Pattern[str]:
    signs = {"*": ".*", "?": "."}
    return re.compile("".join(signs.get(sign) or re.escape(sign) for sign in names), re.DOTALL)
