"""Laws of limits, windows and amounts."""

from __future__ import annotations

import datetime as dt

import pytest

from gateway.budget.model import (
    MEASURES,
    SCOPES,
    WINDOWS,
    Bound,
    Limit,
    Rule,
    Window,
    amount_of,
    bounds_of,
    counter_name,
    fits,
    micros,
    parse_counter,
    parse_limit,
    shown,
    span,
)

NOW = dt.datetime(2026, 12, 31, 23, 59, 59, 999_000, dt.UTC)
NOW_MS = int(NOW.timestamp() * 1000)


@pytest.mark.parametrize(
    ("window", "start", "end"),
    [
        ("minute", "2026-12-31T23:59:00", "2027-01-01T00:00:00"),
        ("hour", "2026-12-31T23:00:00", "2027-01-01T00:00:00"),
        ("day", "2026-12-31T00:00:00", "2027-01-01T00:00:00"),
        ("month", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
    ],
)
def test_windows_are_those_of_the_calendar(window: Window, start: str, end: str) -> None:
    """The last instant of a year belongs to that year's last minute, hour, day and month."""
    expected = [
        int(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()) * 1000
        for text in (start, end)
    ]

    assert expected == list(span(window, NOW_MS))
    assert expected[1] == span(window, NOW_MS + 1)[0]


def test_a_month_in_the_middle_of_a_year_ends_where_the_next_begins() -> None:
    """February of a leap year has twenty-nine days."""
    start, end = span("month", int(dt.datetime(2028, 2, 10, tzinfo=dt.UTC).timestamp()) * 1000)

    assert 29 * 86_400_000 == end - start


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("0", 0),
        ("12", 12_000_000),
        (13, 13_000_000),
        ("0.075", 75_000),
        ("2.50", 2_500_000),
        ("0.000001", 1),
        ("0.0000001", None),
        ("-1", None),
        ("1e3", None),
        ("1_000", None),
        ("+5", None),
        ("٣", None),
        ("", None),
        (".5", None),
        ("1.", None),
        ("1000000000", 10**15),
        ("1000000001", None),
    ],
)
def test_money_is_read_exactly_or_not_at_all(written: str | int, expected: int | None) -> None:
    """Up to six decimals are whole millionths; whatever else is no amount."""
    assert expected == micros(written)


@pytest.mark.parametrize("written", ["", "-1", "1.5", "1_0", "٣", str(10**15 + 1), "9" * 400])
def test_counts_are_whole_numbers(written: str) -> None:
    """A count of requests or tokens is a whole number of bounded size."""
    assert amount_of("tokens", written) is None


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("requests/minute=60", Limit("requests", "minute", 60)),
        ("tokens/day=2000000", Limit("tokens", "day", 2_000_000)),
        ("money/month=12.5", Limit("money", "month", 12_500_000)),
        ("money/month=12.50", Limit("money", "month", 12_500_000)),
        ("requests/minute=0", Limit("requests", "minute", 0)),
        ("requests/second=1", None),
        ("words/day=1", None),
        ("requests/minute", None),
        ("requests/minute=", None),
        ("requests/minute=1.5", None),
        (" requests/minute=1", None),
    ],
)
def test_limits_are_written_in_one_way(text: str, limit: Limit | None) -> None:
    """What is read is written back the same, and nothing else is read."""
    assert limit == parse_limit(text)
    if limit is not None:
        assert limit == parse_limit(str(limit))


def test_counters_are_told_apart() -> None:
    """Every counter's name says whose it is and what it counts, and nobody else's does."""
    names = {
        counter_name(scope, "a b", measure, window): (scope, "a b", measure, window)
        for scope in SCOPES
        for measure in MEASURES
        for window in WINDOWS
    }

    assert len(SCOPES) * len(MEASURES) * len(WINDOWS) == len(names)
    assert names == {name: parse_counter(name) for name in names}
    for text in ("", "key", "key x", "key x y/z", "else x tokens/day", "key  tokens/day"):
        assert parse_counter(text) is None


@pytest.mark.parametrize(
    ("names", "name", "does"),
    [
        ("*", "", True),
        ("*", "anything/at:all", True),
        ("gpt-4*", "gpt-4o", True),
        ("gpt-4*", "chatgpt-4o", False),
        ("gpt-?", "gpt-4", True),
        ("gpt-?", "gpt-4o", False),
        ("a.b", "axb", False),
        ("[ab]", "a", False),
        ("*", "\n", True),
        ("*", "x" * 257, False),
        ("x", "X", False),
    ],
)
def test_globs_know_two_signs(names: str, name: str, *, does: bool) -> None:
    """A star stands for any characters, a question mark for one, all else for itself."""
    assert does is fits(names, name)


def test_the_lowest_limit_of_several_binds() -> None:
    """Rules of the settings and the key's own limits count together, each counter once."""
    rules = (
        Rule(scope="project", names="*", limits=(Limit("requests", "day", 100),)),
        Rule(scope="project", names="s*", limits=(Limit("requests", "day", 10),)),
        Rule(scope="project", names="search", limits=(Limit("requests", "day", 50),)),
        Rule(scope="key", names="key-2", limits=(Limit("tokens", "day", 5),)),
        Rule(scope="key", names="*", limits=(Limit("money", "month", 7),)),
    )
    own = (Limit("money", "month", 6), Limit("tokens", "minute", 1))
    bounds = bounds_of(rules, own, [("key", "key-1"), ("project", "search")])

    assert [
        Bound(scope="key", name="key-1", limit=Limit("money", "month", 6)),
        Bound(scope="key", name="key-1", limit=Limit("tokens", "minute", 1)),
        Bound(scope="project", name="search", limit=Limit("requests", "day", 10)),
    ] == list(bounds)
    assert () == bounds_of((), (), [("key", "key-1")])
    assert "0.000006 money a month for key key-1" == str(bounds[0])


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0.00"),
        (1, "0.000001"),
        (1_500_000, "1.50"),
        (75_000, "0.075"),
        (-1_500_000, "-1.50"),
    ],
)
def test_money_is_shown_with_its_decimals(amount: int, text: str) -> None:
    """Two decimals at least, and as many as there are."""
    assert text == shown("money", amount)
    assert str(amount) == shown("tokens", amount)
