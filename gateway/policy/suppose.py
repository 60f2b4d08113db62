"""What a fact might be instead: the values that conditions tell apart, and how to say them.

A closed list of words is tried whole. Of texts, numbers, days, places and sets, one value is
tried on each side of every border that some condition draws. They are suppositions, to rule
again with; none of them is advice to declare what is not true.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.intent.country import COUNTRIES
from gateway.intent.purpose import PURPOSES, covers
from gateway.policy.condition import (
    AllOf,
    AnyOf,
    Between,
    Condition,
    During,
    Measured,
    StartsWith,
    Test,
    Value,
)
from gateway.policy.vocabulary import ANY, FACTS, NONE, REGIONS, Fact

_SUPPOSED: Final = "(supposed)"
"""A text that nobody named; only that it is none of those in a condition can matter."""

_TEXTS_MAX: Final = 4
"""How many of the texts that one condition lists are tried."""

_DAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Supposition:
    """One fact with another value than it has."""

    fact: str
    value: Value
    word: str
    """The value as machines read it."""
    told: str = ""
    """What stands behind `if`; where it is empty, the word stands for itself."""
    instead_of: str = ""
    """The word that the fact has now, if it is one."""

    def sentence(self) -> str:
        """Return what stands behind `if`."""
        return sentence_of([self])


def sentence_of(same_fact: Sequence[Supposition]) -> str:
    """Return what stands behind `if` for several values of one fact."""
    words = [one.word for one in same_fact if not one.told]
    first = same_fact[0]
    parts = list(dict.fromkeys(one.told for one in same_fact if one.told))
    if words:
        instead = f" instead of `{first.instead_of}`" if first.instead_of else ""
        parts.insert(0, f"`{first.fact}` were {listed(words, 'or')}{instead}")
    # The subject is said once.
    rest = [part.removeprefix(f"`{first.fact}` were ") for part in parts[1:]]
    return " or ".join([*parts[:1], *rest])


def listed(words: Sequence[str], last: str) -> str:
    """Return *words* in backticks as people list them, with *last* before the last."""
    quoted = [f"`{word}`" for word in words]
    return f" {last} ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def suppositions(
    conditions: Iterable[Condition], known: Mapping[str, Value]
) -> dict[str, tuple[Supposition, ...]]:
    """Return what each fact that *conditions* ask for might be instead, in the facts' order."""
    asked: dict[str, list[Test]] = {}
    for condition in conditions:
        for tests in (condition.when, *condition.unless):
            for test in tests:
                asked.setdefault(test.fact, []).append(test)
    return {
        name: tuple(_different(_values(fact, asked[name], known.get(name)), known.get(name)))
        for name, fact in FACTS.items()
        if name in asked
    }


def _different(found: Iterable[Supposition], current: Value | None) -> Iterator[Supposition]:
    seen: list[Value] = []
    for one in found:
        if one.value != current and one.value not in seen:
            seen.append(one.value)
            yield one


def _values(fact: Fact, tests: Sequence[Test], current: Value | None) -> Iterator[Supposition]:
    match fact.kind:
        case "word":
            yield from (_word(fact, word, current) for word in fact.words)
        case "yes-no":
            yield from (_word(fact, value, current) for value in (True, False))
        case "purpose":
            yield from _purposes(fact, tests, current)
        case "country":
            for test in tests:
                yield from _countries(fact, test, tests)
        case _:
            for test in tests:
                match test:
                    case AnyOf() if fact.kind == "words":
                        yield from _some_of(fact, test, current)
                    case AnyOf():
                        yield from _texts(fact, test, current)
                    case AllOf():
                        yield from _all_of(fact, test, current)
                    case StartsWith():
                        yield from _beginnings(fact, test, current)
                    case Between():
                        yield from _numbers(fact, test, current)
                    case During():
                        yield from _days(fact, test)
                    case _:
                        pass


def _word(fact: Fact, value: Value, current: Value | None) -> Supposition:
    return Supposition(
        fact=fact.name, value=value, word=_shown(value), instead_of=_shown(current)
    )


def _shown(value: Value | None) -> str:
    """Return the word that *value* is; nothing if it is no word."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else ""


def _purposes(
    fact: Fact, tests: Sequence[Test], current: Value | None
) -> Iterator[Supposition]:
    """Yield the purposes that conditions name, without those that stand below another."""
    for test in tests:
        allowed = {str(word) for word in test.allowed} if isinstance(test, AnyOf) else set()
        for word in PURPOSES:
            if word in allowed and not any(covers(above, word) for above in allowed - {word}):
                yield _word(fact, word, current)


def _countries(fact: Fact, test: Test, tests: Sequence[Test]) -> Iterator[Supposition]:
    if not isinstance(test, AnyOf):
        return
    named = {str(word) for word in test.allowed}
    elsewhere = COUNTRIES.difference(*(one.allowed for one in tests if isinstance(one, AnyOf)))
    words = _places(named)
    one_of = f"one of {words}" if len(named) > 1 else words
    yield Supposition(
        fact=fact.name,
        value=min(named),
        word=words.replace("`", ""),
        told=f"`{fact.name}` were {one_of}",
    )
    if elsewhere:
        yield Supposition(
            fact=fact.name,
            value=min(elsewhere),
            word=f"not {words.replace('`', '')}",
            told=f"`{fact.name}` were {'none of' if len(named) > 1 else 'not'} {words}",
        )


def _places(countries: set[str]) -> str:
    """Return *countries* with the largest region among them by its name."""
    for region in ("EEA", "EU"):
        if REGIONS[region] <= countries:
            return listed([region, *sorted(countries - REGIONS[region])], "and")
    return listed(sorted(countries), "and")


def _texts(fact: Fact, test: AnyOf, current: Value | None) -> Iterator[Supposition]:
    words = sorted(str(word) for word in test.allowed)
    if words == [NONE]:
        if current is None or current == NONE:
            yield Supposition(
                fact=fact.name, value=_SUPPOSED, word=ANY, told=f"`{fact.name}` were named"
            )
        if current is None:
            yield Supposition(
                fact=fact.name, value=NONE, word=NONE, told=f"`{fact.name}` were `none`"
            )
        return
    for word in words[:_TEXTS_MAX]:
        yield _word(fact, word, current)
    if current is None or current in test.allowed:
        yield Supposition(
            fact=fact.name,
            value=_SUPPOSED,
            word=f"not {', '.join(words)}",
            told=f"`{fact.name}` were another than {listed(words, 'or')}",
        )


def _beginnings(fact: Fact, test: StartsWith, current: Value | None) -> Iterator[Supposition]:
    begins = isinstance(current, str) and test.fits(current)
    if not begins:
        yield Supposition(
            fact=fact.name,
            value=test.start,
            word=f"{test.start}…",
            told=f"`{fact.name}` began with `{test.start}`",
        )
    if begins or current is None:
        yield Supposition(
            fact=fact.name,
            value=_SUPPOSED,
            word=f"not {test.start}…",
            told=f"`{fact.name}` did not begin with `{test.start}`",
        )


def _some_of(fact: Fact, test: AnyOf, current: Value | None) -> Iterator[Supposition]:
    held = current if isinstance(current, frozenset) else frozenset()
    words = sorted(str(word) for word in test.allowed)
    for word in words:
        if word not in held:
            yield _holding(fact, {word}, held, current)
    if current is None or not held.isdisjoint(words):
        yield Supposition(
            fact=fact.name,
            value=held.difference(words),
            word=f"without {', '.join(words)}",
            told=f"`{fact.name}` did not hold {listed(words, 'or')}",
        )


def _all_of(fact: Fact, test: AllOf, current: Value | None) -> Iterator[Supposition]:
    held = current if isinstance(current, frozenset) else frozenset()
    if test.words - held:
        yield _holding(fact, test.words - held, held, current)
    elif test.words:
        lost = min(test.words)
        yield Supposition(
            fact=fact.name,
            value=held - {lost},
            word=f"without {lost}",
            told=f"`{fact.name}` did not hold `{lost}`",
        )


def _holding(
    fact: Fact, words: Iterable[str], held: frozenset[str], current: Value | None
) -> Supposition:
    more = sorted(words)
    as_well = " as well" if held else ""
    return Supposition(
        fact=fact.name,
        value=held.union(more),
        word=f"with {', '.join(more)}" if current is not None else ", ".join(more),
        told=f"`{fact.name}` held {listed(more, 'and')}{as_well}",
    )


def _numbers(fact: Fact, test: Between, current: Value | None) -> Iterator[Supposition]:
    """Yield a number inside the bounds, and one beyond each of them."""
    inside = test.low if test.low is not None else test.high
    if inside is None:
        return
    yield _number(fact, test.at, current, inside, _range(test))
    if test.low:
        yield _number(fact, test.at, current, test.low - 1, f"{test.low - 1} or less")
    if test.high is not None:
        yield _number(fact, test.at, current, test.high + 1, f"more than {test.high}")


def _range(test: Between) -> str:
    match test.low, test.high:
        case None | 0, high:
            return f"{high} or less"
        case int(low), None:
            return f"more than {low - 1}"
        case low, high:
            return f"{low}" if low == high else f"from {low} to {high}"


def _number(
    fact: Fact, at: str | None, current: Value | None, number: int, told: str
) -> Supposition:
    value: Value = number
    if isinstance(current, Measured):
        months = dict(current.months)
        months[at or (max(months) if months else "0000-00")] = number
        value = Measured(tuple(sorted(months.items())))
    elif current is None and at:
        value = Measured(((at, number),))
    when = f" ({at})" if at else ""
    return Supposition(
        fact=fact.name,
        value=value,
        word=f"{told}{when}",
        told=f"`{fact.name}`{when} were {told}",
    )


def _days(fact: Fact, test: During) -> Iterator[Supposition]:
    """Yield a day inside the interval, and one beyond each of its ends."""
    first, last = test.first, test.last
    if first is not None and last is not None:
        told = f"{first}" if first == last else f"from {first} to {last}"
        yield _day(fact, first, told)
    elif first is not None:
        yield _day(fact, first, f"{first} or later")
    elif last is not None:
        yield _day(fact, last, f"{last} or earlier")
    if first is not None and first > dt.date.min:
        yield _day(fact, first - _DAY, f"before {first}")
    if last is not None and last < dt.date.max:
        yield _day(fact, last + _DAY, f"after {last}")


def _day(fact: Fact, day: dt.date, told: str) -> Supposition:
    return Supposition(fact=fact.name, value=day, word=told, told=f"`{fact.name}` were {told}")
