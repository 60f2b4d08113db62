"""Laws of three-valued conditions, for tests of every kind and values of every kind."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from hypothesis import given
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
    Value,
)
from gateway.policy.condition import (
    Test as Asks,
)
from gateway.policy.vocabulary import REGIONS
from tests.support.policies import condition

MONTHS = ("2024-06", "2026-01", "2026-02")
AUDIENCES = ("internal", "affiliates", "public")
NOTICES = ("display", "attribution", "flow-down")
TEXTS = ("none", "nut", "nut-2", "NUT-2", "elm")
DAYS = tuple(dt.date(2026, 1, 1) + dt.timedelta(days=days) for days in range(5))


def any_of(fact: str, words: Iterable[str]) -> st.SearchStrategy[Asks]:
    """Return tests for some of *words*, or for none of them."""
    return st.builds(
        AnyOf,
        fact=st.just(fact),
        allowed=st.frozensets(st.sampled_from(list(words)), min_size=1),
        negated=st.booleans(),
        line=st.just(1),
    )


def between(fact: str) -> st.SearchStrategy[Asks]:
    """Return tests for a number; either bound may be missing, and so may the month."""
    bounds = st.none() | st.integers(0, 6)
    months = st.none() | st.sampled_from(MONTHS)
    return st.builds(
        Between, fact=st.just(fact), low=bounds, high=bounds, at=months, line=st.just(1)
    )


def during(fact: str) -> st.SearchStrategy[Asks]:
    """Return tests for a day; either end may be missing."""
    ends = st.none() | st.sampled_from(DAYS)
    return st.builds(During, fact=st.just(fact), first=ends, last=ends, line=st.just(1))


TESTS: dict[str, st.SearchStrategy[Asks]] = {
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

numbers = st.integers(0, 7)
measured = st.dictionaries(st.sampled_from(MONTHS), numbers).map(
    lambda months: Measured(tuple(sorted(months.items())))
)
VALUES: dict[str, st.SearchStrategy[Value]] = {
    "audience": st.sampled_from(AUDIENCES)
    | st.frozensets(st.sampled_from(AUDIENCES), min_size=1).map(OneOf),
    "base-model": st.sampled_from(TEXTS)
    | st.frozensets(st.sampled_from(TEXTS), min_size=1).map(OneOf),
    "competes": st.booleans(),
    "notices": st.frozensets(st.sampled_from(NOTICES)),
    "monthly-users": numbers | measured,
    "generated-on": st.sampled_from(DAYS),
}
"""Values of every kind, by the fact that has them."""

tests = st.sampled_from(sorted(TESTS)).flatmap(lambda fact: TESTS[fact])
conditions = st.builds(
    Condition,
    when=st.lists(tests, max_size=3).map(tuple),
    unless=st.lists(st.lists(tests, min_size=1, max_size=2).map(tuple), max_size=2).map(tuple),
)
known = st.fixed_dictionaries({}, optional=VALUES)
everything = st.fixed_dictionaries(VALUES)
pairs = st.sampled_from(sorted(TESTS)).flatmap(
    lambda fact: st.tuples(TESTS[fact], TESTS[fact], VALUES[fact])
)


@given(pairs)
def test_covering_is_sound(pair: tuple[Asks, Asks, Value]) -> None:
    """If one test covers another, whatever fits the other fits the one."""
    wide, narrow, value = pair
    if wide.covers(narrow) and narrow.truth({narrow.fact: value}) is True:
        assert wide.truth({wide.fact: value}) is True


@given(tests)
def test_every_test_covers_itself(test: Asks) -> None:
    """Covering is reflexive; a set of none of several words is no exception."""
    assert test.covers(test)


@given(conditions, known, st.sampled_from(sorted(VALUES)))
def test_given_agrees_with_truth(asked: Condition, facts: dict[str, Value], fact: str) -> None:
    """What is left to ask once a fact is known decides as the whole condition does."""
    if fact in facts:
        left = asked.given(fact, facts[fact])

        assert asked.truth(facts) is (False if left is None else left.truth(facts))


@given(conditions, known, everything)
def test_what_is_decided_stays_decided(
    asked: Condition, facts: dict[str, Value], rest: dict[str, Value]
) -> None:
    """No fact that comes in later changes a condition that is true or false already."""
    decided = asked.truth(facts)
    if decided is not None:
        assert decided is asked.truth({**rest, **facts})


@given(conditions, known)
def test_only_what_is_open_is_missing(asked: Condition, facts: dict[str, Value]) -> None:
    """A condition that is unknown says for want of what, and asks for nothing else."""
    missing = asked.missing(facts)

    assert missing <= asked.facts()
    if asked.truth(facts) is None:
        assert missing
    for fact in missing & facts.keys():
        # A fact that is there and still missing is known only in part.
        assert isinstance(facts[fact], OneOf | Measured)


@given(conditions, everything)
def test_exceptions_only_silence(asked: Condition, facts: dict[str, Value]) -> None:
    """Without its exceptions a condition is true wherever it was true with them."""
    if asked.truth(facts) is True:
        assert Condition(when=asked.when, unless=()).truth(facts) is True


@given(pairs)
def test_not_is_the_opposite(pair: tuple[Asks, Asks, Value]) -> None:
    """None of some words is true where one of them is false, and unknown where it is."""
    test, _, value = pair
    if isinstance(test, AnyOf):
        opposite = AnyOf(test.fact, test.allowed, negated=not test.negated, line=1)
        truth = test.truth({test.fact: value})

        assert opposite.truth({test.fact: value}) is (None if truth is None else not truth)


@given(tests, st.data())
def test_one_of_several_values_is_what_they_agree_on(test: Asks, data: st.DataObject) -> None:
    """A value that is one of several fits if each of them does, and not if none does."""
    if test.fact in ("audience", "base-model"):
        value = data.draw(VALUES[test.fact])
        each = value.values if isinstance(value, OneOf) else {str(value)}
        truths = {test.truth({test.fact: one}) for one in each}

        assert test.truth({test.fact: value}) is (truths.pop() if len(truths) == 1 else None)


@given(st.sampled_from(sorted(REGIONS)), st.sampled_from(sorted(REGIONS["EEA"] | {"US", "GB"})))
def test_a_region_is_its_members(region: str, country: str) -> None:
    """A condition on a region fits its members and nobody else."""
    asked = condition(f"when: {{jurisdiction: {region}}}")

    assert asked.truth({"jurisdiction": country}) is (country in REGIONS[region])


@given(st.none() | st.sampled_from(MONTHS), numbers | measured)
def test_a_number_counts_in_its_month(month: str | None, value: int | Measured) -> None:
    """What was measured in another month says nothing; without a month the newest counts."""
    number = value.at(month) if isinstance(value, Measured) else value
    truth = Between("monthly-users", 3, None, month, 1).truth({"monthly-users": value})

    assert truth is (None if number is None else number >= 3)
