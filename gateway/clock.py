"""The only place where time comes in.

Everything above takes a `Clock`; the pure floors take the day itself.
"""

from __future__ import annotations

import datetime as dt
import functools
import time
from typing import Final, Protocol

_DAY_MS: Final = 86_400_000


class Clock(Protocol):
    """What tells the time."""

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()


class FrozenClock:
    """A clock that stands until it is told to move; for tests and replays."""

    def __init__(self, now_ms: int = 1_795_000_000_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """Return the instant it stands at."""
        return self._now_ms

    def monotonic_s(self) -> float:
        """Return the same instant in seconds."""
        return self._now_ms / 1000

    def move_ms(self, by_ms: int) -> None:
        """Move the hands *by_ms* milliseconds, back as well as forward."""
        self._now_ms += by_ms


@functools.lru_cache(maxsize=64)
def rfc3339(at_ms: int) -> str:
    """Return *at_ms* as `2026-11-22T04:30:00.123Z` (RFC 3339, UTC, milliseconds)."""
    second, rest_ms = divmod(at_ms, 1000)
    return f"{_to_the_second(second)}.{rest_ms:03d}Z"


@functools.lru_cache(maxsize=4)
def _to_the_second(at_s: int) -> str:
    # Most calls are about the same second as the one before.
    return f"{dt.datetime.fromtimestamp(at_s, tz=dt.UTC):%Y-%m-%dT%H:%M:%S}"


def day_of(at_ms: int) -> dt.date:
    """Return the UTC day that holds *at_ms*."""
    return _day(at_ms // _DAY_MS)


@functools.lru_cache(maxsize=4)
def _day(days: int) -> dt.date:
    return dt.datetime.fromtimestamp(days * _DAY_MS // 1000, tz=dt.UTC).date()
