"""Laws of three-valued conditions, for tests of every kind and values of every kind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.condition import (
    AnyOf,
    Between,
    Condition,
    Measured,
    OneOf,
    Value,
)
from gateway.policy.condition import Test as Asks
from gateway.policy.vocabulary import REGIONS
from tests.support.conditions import (
    ANY_TEST,
    CONDITIONS,
    EVERY_VALUE,
    EVERYTHING,
    KNOWN,
    MEASURED,
    MONTHS,
    NUMBERS,
    TESTS,
    VALUES,
)
from tests.support.policies import condition

pairs = st.sampled_from(sorted(TESTS)).flatmap(
    lambda fact: st.tuples(TESTS[fact], TESTS[fact], VALUES[fact])
)


@given(pairs)
def test_covering_is_sound(pair: tuple[Asks, Asks, Value]) -> None:
    """If one test covers another, whatever fits the other fits the one."""
    wide, narrow, value = pair
    if wide.covers(narrow):
        for one in (value, *EVERY_VALUE[wide.fact]):
            if narrow.truth({narrow.fact: one}) is True:
                assert wide.truth({wide.fact: one}) is True


@given(ANY_TEST)
def test_every_test_covers_itself(test: Asks) -> None:
    """Covering is reflexive; a set of none of several words is no exception."""
    assert test.covers(test)


@given(CONDITIONS, KNOWN, st.sampled_from(sorted(VALUES)))
def test_given_agrees_with_truth(asked: Condition, facts: dict[str, Value], fact: str) -> None:
    """What is left to ask once a fact is known decides as the whole condition does."""
    if fact in facts:
        left = asked.given(fact, facts[fact])

        assert asked.truth(facts) is (False if left is None else left.truth(facts))


@given(CONDITIONS, KNOWN, EVERYTHING)
def test_what_is_decided_stays_decided(
    asked: Condition, facts: dict[str, Value], rest: dict[str, Value]
) -> None:
    """No fact that comes in later changes a condition that is true or false already."""
    decided = asked.truth(facts)
    if decided is not None:
        assert decided is asked.truth({**rest, **facts})


@given(CONDITIONS, KNOWN)
def test_only_what_is_open_is_missing(asked: Condition, facts: dict[str, Value]) -> None:
    """A condition that is unknown says for want of what, and asks for nothing else."""
    missing = asked.missing(facts)

    assert missing <= asked.facts()
    if asked.truth(facts) is None:
        assert missing
    for fact in missing & facts.keys():
        # A fact that is there and still missing is known only in part.
        assert isinstance(facts[fact], OneOf | Measured)


@given(CONDITIONS, EVERYTHING)
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


@given(ANY_TEST, st.data())
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


@given(st.none() | st.sampled_from(MONTHS), NUMBERS | MEASURED)
def test_a_number_counts_in_its_month(month: str | None, value: int | Measured) -> None:
    """What was measured in another month says nothing; without a month the newest counts."""
    number = value.at(month) if isinstance(value, Measured) else value
    truth = Between("monthly-users", 3, None, month, 1).truth({"monthly-users": value})

    assert truth is (None if number is None else number >= 3)
