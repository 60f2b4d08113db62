"""Laws of the decision."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.condition import Value
from gateway.policy.decide import SILENCE, Decision, Facts, decide
from gateway.policy.model import Clause, Effect
from tests.support.policies import DAY, clause, policy_of

DOMAIN: dict[str, tuple[str | bool, ...]] = {
    "purpose": ("inference", "train.sft"),
    "competes": (True, False),
    "audience": ("internal", "customers", "public"),
}
"""A small world whose every completion can be looked at."""

SUBSETS = {
    name: [
        frozenset(some)
        for count in range(1, len(values) + 1)
        for some in itertools.combinations(values, count)
    ]
    for name, values in DOMAIN.items()
}
CONDITIONS = [
    {name: some for name, some in zip(DOMAIN, chosen, strict=True) if some is not None}
    for chosen in itertools.product(*([None, *SUBSETS[name]] for name in DOMAIN))
]
"""Every conjunction over the small world."""

clauses = st.lists(
    st.builds(
        clause,
        clause_id=st.sampled_from("abcdef"),
        effect=st.sampled_from(Effect),
        when=st.sampled_from(CONDITIONS),
        unless=st.lists(st.sampled_from(CONDITIONS[1:]), max_size=2),
        obligations=st.sampled_from([(), (), ("disclose-ai",), ("keep-ai-label",)]),
    ),
    max_size=4,
)
facts = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in DOMAIN.items()}
)


def ruled(known: dict[str, Value], some: list[Clause]) -> Decision:
    """Return the decision under one policy of *some* clauses."""
    return decide(Facts(known), [policy_of(some)], DAY)


def completions(known: dict[str, Value]) -> Iterator[dict[str, Value]]:
    """Yield *known* with every unknown fact filled in, in every way."""
    unknown = [name for name in DOMAIN if name not in known]
    for values in itertools.product(*(DOMAIN[name] for name in unknown)):
        yield {**known, **dict(zip(unknown, values, strict=True))}


@given(facts, clauses, st.randoms())
def test_order_does_not_matter(
    known: dict[str, Value], some: list[Clause], rng: Random
) -> None:
    """Shuffling a policy's clauses changes nothing in the effect, duties or missing facts."""
    shuffled = list(some)
    rng.shuffle(shuffled)

    one, other = ruled(known, some), ruled(known, shuffled)

    assert (one.effect, one.obligations, one.missing) == (
        other.effect,
        other.obligations,
        other.missing,
    )
    assert sorted(r.clause for r in one.reasons) == sorted(r.clause for r in other.reasons)


@given(facts, clauses)
def test_saying_it_twice_changes_nothing(known: dict[str, Value], some: list[Clause]) -> None:
    """A clause that stands twice counts once."""
    assert ruled(known, some).effect is ruled(known, some + some).effect


@given(facts, clauses, clauses)
def test_more_clauses_never_loosen(
    known: dict[str, Value], few: list[Clause], more: list[Clause]
) -> None:
    """Adding clauses to a policy that already speaks can only tighten it."""
    if any(one.condition.truth(known) is True for one in few):
        assert ruled(known, few).effect <= ruled(known, few + more).effect


@given(facts, clauses)
def test_an_unknown_never_permits(known: dict[str, Value], some: list[Clause]) -> None:
    """What is permitted stays permitted whatever the unknown facts turn out to be."""
    if ruled(known, some).effect is Effect.PERMIT:
        assert {Effect.PERMIT} == {ruled(full, some).effect for full in completions(known)}


@given(facts, clauses)
def test_what_is_forbidden_stays_forbidden(known: dict[str, Value], some: list[Clause]) -> None:
    """Filling in facts never loosens a forbid: it did not rest on what was unknown."""
    if ruled(known, some).effect is Effect.FORBID:
        assert {Effect.FORBID} == {ruled(full, some).effect for full in completions(known)}


@given(facts, clauses)
def test_a_hold_without_missing_facts_is_a_clause_of_its_own(
    known: dict[str, Value], some: list[Clause]
) -> None:
    """A hold either names missing facts or rests on a hold that speaks."""
    decision = ruled(known, some)
    if decision.effect is Effect.HOLD and not decision.missing:
        assert all(reason.effect is Effect.HOLD for reason in decision.reasons)


@given(facts, clauses)
def test_facts_that_are_not_missing_can_be_left_out(
    known: dict[str, Value], some: list[Clause]
) -> None:
    """Once every missing fact is filled in, nothing is missing that was not asked before."""
    decision = ruled(known, some)
    asked_for = {fact for one in some for fact in one.condition.facts()}

    assert set(decision.missing) <= asked_for - known.keys()
    for full in completions(known):
        assert ruled(full, some).missing == ()


@given(facts, clauses)
def test_silence_is_forbid(known: dict[str, Value], some: list[Clause]) -> None:
    """Where every clause is false, the answer is forbid, and silence is the reason."""
    if all(one.condition.truth(known) is False for one in some):
        decision = ruled(known, some)

        assert decision.effect is Effect.FORBID
        assert [reason.clause for reason in decision.reasons] == [SILENCE]


@given(facts, clauses)
def test_every_ruling_has_a_reason(known: dict[str, Value], some: list[Clause]) -> None:
    """No effect comes from nowhere, and reasons stand in order."""
    decision = ruled(known, some)
    names = [(reason.policy, reason.clause) for reason in decision.reasons]

    assert names
    assert names == sorted(names)


@given(facts, st.lists(clauses, min_size=1, max_size=3))
def test_layers_are_a_maximum(known: dict[str, Value], layers: list[list[Clause]]) -> None:
    """Over several policies the effect is the largest that any of them gives alone."""
    policies = [policy_of(some, f"p{index}") for index, some in enumerate(layers)]

    together = decide(Facts(known), policies, DAY)

    assert together.effect is max(ruled(known, some).effect for some in layers)
    assert together.effect is decide(Facts(known), policies[::-1], DAY).effect


@given(facts, clauses)
def test_asking_by_purpose_is_asking_all(known: dict[str, Value], some: list[Clause]) -> None:
    """What is left of a clause once the purpose is known decides as the whole clause does."""
    policy = policy_of(some)
    left = {id(one): rest for one, rest in policy.about(known.get("purpose"))}

    for one in policy.clauses:
        whole = one.condition.truth(known)
        assert whole is (left[id(one)].truth(known) if id(one) in left else False)


@given(facts, clauses)
def test_duties_only_shrink_as_facts_come_in(
    known: dict[str, Value], some: list[Clause]
) -> None:
    """An obligation that might be due is due: more knowledge adds none."""
    before = set(ruled(known, some).obligations)

    for full in completions(known):
        assert set(ruled(full, some).obligations) <= before
