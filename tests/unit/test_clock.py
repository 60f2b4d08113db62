"""Time as we write it, and clocks that stand."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import FrozenClock, SystemClock, day_of, rfc3339

instants = st.integers(0, 253_402_300_799_999)


@given(instants)
def test_a_stamp_is_the_instant_in_utc(at_ms: int) -> None:
    """What is written reads back as the same millisecond."""
    read = dt.datetime.strptime(rfc3339(at_ms), "%Y-%m-%dT%H:%M:%S.%f%z")

    assert at_ms == round(read.timestamp() * 1000)
    assert len("2026-11-22T04:30:00.123Z") == len(rfc3339(at_ms))


@given(instants, instants)
def test_stamps_sort_as_their_instants(first: int, second: int) -> None:
    """Comparing stamps as text compares instants."""
    assert (first <= second) is (rfc3339(first) <= rfc3339(second))


@given(instants)
def test_a_day_is_the_one_on_the_stamp(at_ms: int) -> None:
    """The day of an instant is the UTC day, to its last millisecond."""
    assert day_of(at_ms).isoformat() == rfc3339(at_ms)[:10]


def test_a_frozen_clock_moves_when_it_is_told() -> None:
    """A frozen clock stands, and goes forward and back on command."""
    clock = FrozenClock(1_000)
    clock.move_ms(500)
    assert (1_500, 1.5) == (clock.now_ms(), clock.monotonic_s())
    clock.move_ms(-1_000)

    assert 500 == clock.now_ms()


def test_the_systems_clock_goes_on() -> None:
    """The machine's clock tells this century, and its other hand never goes back."""
    clock = SystemClock()
    first = clock.monotonic_s()

    assert 2025 < day_of(clock.now_ms()).year < 2200
    assert first <= clock.monotonic_s()
