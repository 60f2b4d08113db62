"""Laws of asking many conditions at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.compiled import Conditions
from gateway.policy.condition import Condition, Value
from tests.support.conditions import CONDITIONS, KNOWN

conditions = st.lists(CONDITIONS, max_size=6)


@given(conditions, KNOWN)
def test_asking_all_at_once_is_asking_each(
    some: list[Condition], known: dict[str, Value]
) -> None:
    """A clause speaks, is undecided or is false at once as it would be alone."""
    speaking, undecided, _ = Conditions(some).ask(known)

    for place, condition in enumerate(some):
        truth = condition.truth(known)
        assert (truth is True) is bool(speaking >> place & 1)
        assert (truth is None) is bool(undecided >> place & 1)
    assert (speaking | undecided) >> len(some) == 0


@given(conditions, KNOWN)
def test_what_is_missing_is_what_each_would_name(
    some: list[Condition], known: dict[str, Value]
) -> None:
    """The facts that leave an undecided clause unknown are those that it names alone."""
    compiled = Conditions(some)

    _, undecided, doubts = compiled.ask(known)

    for place, condition in enumerate(some):
        if undecided >> place & 1:
            missing = compiled.missing(place, doubts)
            assert missing == tuple(sorted(condition.missing(known)))


@given(conditions, KNOWN, KNOWN)
def test_asking_leaves_nothing_behind(
    some: list[Condition], known: dict[str, Value], before: dict[str, Value]
) -> None:
    """What was asked before changes no answer."""
    compiled, fresh = Conditions(some), Conditions(some)
    compiled.ask(before)

    assert compiled.ask(known) == fresh.ask(known)
