"""Conditions and facts of every kind, for laws about all of them."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable

from hypothesis import strategies as st

from gateway.policy.condition import (
    AllOf,
    AnyOf,
    Between,
    Condition,
    During,
    Measured,
    OneOf,
    StartsWith,
    Test,
    Value,
)

MONTHS = ("2024-06", "2026-01", "2026-02")
AUDIENCES = ("internal", "affiliates", "public")
NOTICES = ("display", "attribution", "flow-down")
TEXTS = ("none", "nut", "nut-2", "NUT-2", "elm")
DAYS = tuple(dt.date(2026, 1, 1) + dt.timedelta(days=days) for days in range(5))


def any_of(fact: str, words: Iterable[str]) -> st.SearchStrategy[Test]:
    """Return tests for some of *words*, or for none of them."""
    return st.builds(
        AnyOf,
        fact=st.just(fact),
        allowed=st.frozensets(st.sampled_from(list(words)), min_size=1),
        negated=st.booleans(),
        line=st.just(1),
    )


def between(fact: str) -> st.SearchStrategy[Test]:
    """Return tests for a number; either bound may be missing, and so may the month."""
    bounds = st.none() | st.integers(0, 6)
    months = st.none() | st.sampled_from(MONTHS)
    return st.builds(
        Between, fact=st.just(fact), low=bounds, high=bounds, at=months, line=st.just(1)
    )


def during(fact: str) -> st.SearchStrategy[Test]:
    """Return tests for a day; either end may be missing."""
    ends = st.none() | st.sampled_from(DAYS)
    return st.builds(During, fact=st.just(fact), first=ends, last=ends, line=st.just(1))


TESTS: dict[str, st.SearchStrategy[Test]] = {
    "audience": any_of("audience", AUDIENCES),
    "base-model": any_of("base-model", TEXTS)
    | st.sampled_from(["n", "nut", "nut-2", "e"]).map(
        lambda start: StartsWith("base-model", start, 1)
    ),
    "competes": st.frozensets(st.booleans(), min_size=1).map(
        lambda allowed: AnyOf("competes", frozenset(allowed), negated=False, line=1)
    ),
    "notices": any_of("notices", NOTICES)
    | st.frozensets(st.sampled_from(NOTICES), min_size=1).map(
        lambda words: AllOf("notices", words, 1)
    ),
    "monthly-users": between("monthly-users"),
    "generated-on": during("generated-on"),
}
"""Tests of every kind, by the fact they ask for."""

NUMBERS = st.integers(0, 7)
MEASURED = st.dictionaries(st.sampled_from(MONTHS), NUMBERS).map(
    lambda months: Measured(tuple(sorted(months.items())))
)
VALUES: dict[str, st.SearchStrategy[Value]] = {
    "audience": st.sampled_from(AUDIENCES)
    | st.frozensets(st.sampled_from(AUDIENCES), min_size=1).map(OneOf),
    "base-model": st.sampled_from(TEXTS)
    | st.frozensets(st.sampled_from(TEXTS), min_size=1).map(OneOf),
    "competes": st.booleans(),
    "notices": st.frozensets(st.sampled_from(NOTICES)),
    "monthly-users": NUMBERS | MEASURED,
    "generated-on": st.sampled_from(DAYS),
}
"""Values of every kind, by the fact that has them."""

EVERY_VALUE: dict[str, tuple[Value, ...]] = {
    "audience": AUDIENCES,
    "base-model": TEXTS,
    "competes": (True, False),
    "notices": tuple(
        frozenset(held)
        for count in range(len(NOTICES) + 1)
        for held in itertools.combinations(NOTICES, count)
    ),
    "monthly-users": (
        *range(8),
        *(
            Measured(tuple((month, 5 * at) for at, month in enumerate(months)))
            for count in range(len(MONTHS) + 1)
            for months in itertools.combinations(MONTHS, count)
        ),
    ),
    "generated-on": DAYS,
}
"""All that a fact of the small world can be, or enough of it to lie on every side."""

ANY_TEST = st.sampled_from(sorted(TESTS)).flatmap(lambda fact: TESTS[fact])
CONDITIONS = st.builds(
    Condition,
    when=st.lists(ANY_TEST, max_size=2).map(tuple),
    unless=st.lists(st.lists(ANY_TEST, min_size=1, max_size=2).map(tuple), max_size=1).map(
        tuple
    ),
)
KNOWN = st.fixed_dictionaries({}, optional=VALUES)
"""Facts of which some are known, and some of those in part."""

EVERYTHING = st.fixed_dictionaries(VALUES)
"""Facts of which each is known, be it in part."""


def completed(known: dict[str, Value], rest: dict[str, Value]) -> dict[str, Value]:
    """Return *known* with what is open filled in from *rest*, and in part by the first word."""
    return {name: _settled(value) for name, value in {**rest, **known}.items()}


def _settled(value: Value) -> Value:
    match value:
        case OneOf(values=values):
            return min(values)
        case Measured(months=months):
            # A later month would be news; what is filled in is what was measured earlier.
            newest = months[-1][0] if months else MONTHS[-1]
            return Measured(
                tuple((month, value.at(month) or 0) for month in MONTHS if month <= newest)
            )
        case _:
            return value
