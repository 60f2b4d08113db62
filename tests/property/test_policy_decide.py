"""Laws of the decision, for policies with conditions of every kind."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from random import Random
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.condition import Value
from gateway.policy.decide import NO_POLICY, SILENCE, Decision, Facts, Lifted, decide
from gateway.policy.model import Clause, Effect, Kind, Policy
from tests.support.conditions import CONDITIONS, EVERYTHING, KNOWN, completed
from tests.support.policies import DAY, clause, clause_of, policy_of

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
SMALL_CONDITIONS = [
    {name: some for name, some in zip(DOMAIN, chosen, strict=True) if some is not None}
    for chosen in itertools.product(*([None, *SUBSETS[name]] for name in DOMAIN))
]
"""Every conjunction over the small world."""

duties = st.sampled_from([(), (), (), ("disclose-ai",), ("keep-ai-label",)])
small_clauses = st.lists(
    st.builds(
        clause,
        clause_id=st.sampled_from("abcdef"),
        effect=st.sampled_from(Effect),
        when=st.sampled_from(SMALL_CONDITIONS),
        unless=st.lists(st.sampled_from(SMALL_CONDITIONS[1:]), max_size=2),
        obligations=duties,
    ),
    max_size=4,
    unique_by=lambda one: one.id,
)
small_facts = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in DOMAIN.items()}
)
clauses = st.lists(
    st.builds(
        clause_of,
        clause_id=st.sampled_from("abcdef"),
        effect=st.sampled_from(Effect),
        condition=CONDITIONS,
        obligations=duties,
    ),
    max_size=4,
    unique_by=lambda one: one.id,
)
purposes = st.sampled_from(["inference", "train.sft", "publish.dataset", "gardening", None])
facts = st.builds(
    lambda known, purpose: known | ({"purpose": purpose} if purpose else {}), KNOWN, purposes
)
kinds = st.sampled_from(get_args(Kind))
freed = st.frozensets(st.sampled_from("abcdef"), max_size=3)


def ruled(
    known: Mapping[str, Value], some: list[Clause], lifted: Collection[str] = ()
) -> Decision:
    """Return the decision under one policy of *some* clauses."""
    return decide(Facts(known), [policy_of(some)], DAY, lifted=agreed(lifted))


def agreed(lifted: Collection[str], policy: str = "made") -> Lifted:
    """Return what an agreement about *policy* lifts."""
    return {(policy, name): "a-7" for name in lifted}


def completions(known: Mapping[str, Value]) -> Iterator[dict[str, Value]]:
    """Yield *known* with every unknown fact of the small world filled in, in every way."""
    unknown = [name for name in DOMAIN if name not in known]
    for values in itertools.product(*(DOMAIN[name] for name in unknown)):
        yield {**known, **dict(zip(unknown, values, strict=True))}


def told(decision: Decision) -> tuple[object, ...]:
    """Return what a decision comes to, whatever the sentences."""
    reasons = [(r.policy, r.clause, r.effect, r.missing, r.agreement) for r in decision.reasons]
    return decision.effect, sorted(reasons), decision.obligations, decision.missing


def by_definition(
    known: Mapping[str, Value], policy: Policy, lifted: Collection[str]
) -> Effect:
    """Return the effect as the module's first lines define it, by trying everything."""
    silent = Effect.PERMIT if policy.kind == "overlay" else Effect.FORBID
    effects = {
        one.id: Effect.PERMIT if one.id in lifted else one.binding for one in policy.clauses
    }
    truths = {one.id: one.condition.truth(known) for one in policy.clauses}
    certain = [effects[name] for name, truth in truths.items() if truth is True]
    open_ones = [effects[name] for name, truth in truths.items() if truth is None]
    outcomes = {
        max([*certain, *some], default=silent)
        for count in range(len(open_ones) + 1)
        for some in itertools.combinations(open_ones, count)
    }
    return outcomes.pop() if len(outcomes) == 1 else Effect.HOLD


@given(facts, clauses, freed, kinds)
def test_the_effect_is_the_one_that_is_defined(
    known: dict[str, Value], some: list[Clause], lifted: frozenset[str], kind: Kind
) -> None:
    """Hold where completions of what is open disagree, and else what all of them come to."""
    policy = replace(policy_of(some), kind=kind)
    base = policy_of([clause("free", Effect.PERMIT, {})], "base")
    bars = {one.id for one in some if one.effect is not Effect.PERMIT}

    decision = decide(Facts(known), [policy, base], DAY, lifted=agreed(lifted))

    assert decision.effect is by_definition(known, policy, lifted & bars)


@given(facts, clauses, st.randoms())
def test_order_does_not_matter(
    known: dict[str, Value], some: list[Clause], rng: Random
) -> None:
    """Shuffling a policy's clauses changes nothing."""
    shuffled = list(some)
    rng.shuffle(shuffled)

    assert told(ruled(known, some)) == told(ruled(known, shuffled))


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


@given(facts, st.lists(clauses, min_size=1, max_size=2), clauses, kinds)
def test_another_policy_never_loosens(
    known: dict[str, Value], layers: list[list[Clause]], more: list[Clause], kind: Kind
) -> None:
    """One more policy, of a law or a licence or a provider, can only tighten."""
    policies = [policy_of(some, f"p{index}") for index, some in enumerate(layers)]
    one_more = policy_of(more, "more", kind=kind)

    before = decide(Facts(known), policies, DAY)
    after = decide(Facts(known), [*policies, one_more], DAY)

    assert before.effect <= after.effect
    assert set(before.obligations) <= set(after.obligations)


@given(facts, clauses, EVERYTHING)
def test_an_unknown_never_permits(
    known: dict[str, Value], some: list[Clause], rest: dict[str, Value]
) -> None:
    """What is permitted, and what is forbidden, stays so whatever comes to be known."""
    before = ruled(known, some).effect
    after = ruled(completed(known, rest), some).effect

    assert before is Effect.HOLD or after is before


@given(facts, clauses, freed, EVERYTHING)
def test_lifting_makes_no_promise_that_facts_can_break(
    known: dict[str, Value], some: list[Clause], lifted: frozenset[str], rest: dict[str, Value]
) -> None:
    """Under an agreement, too, a permit is one whatever comes to be known."""
    before = ruled(known, some, lifted).effect
    after = ruled(completed(known, rest), some, lifted).effect

    assert before is Effect.HOLD or after is before


@given(small_facts, small_clauses)
def test_a_hold_is_where_completions_disagree_or_all_hold(
    known: dict[str, Value], some: list[Clause]
) -> None:
    """In a world small enough to look at all of it, nothing else than doubt or a hold holds."""
    decision = ruled(known, some)
    after = {ruled(full, some).effect for full in completions(known)}

    if decision.effect is not Effect.HOLD:
        assert after == {decision.effect}
    if not decision.missing:
        assert after == {decision.effect}


@given(facts, clauses)
def test_a_hold_without_missing_facts_is_a_clause_of_its_own(
    known: dict[str, Value], some: list[Clause]
) -> None:
    """A hold either names missing facts or rests on a hold that speaks."""
    decision = ruled(known, some)
    if decision.effect is Effect.HOLD and not decision.missing:
        assert all(reason.effect is Effect.HOLD for reason in decision.reasons)


@given(small_facts, small_clauses)
def test_nothing_is_missing_once_all_is_known(
    known: dict[str, Value], some: list[Clause]
) -> None:
    """Only facts that some clause asks for and nobody knows are missing."""
    decision = ruled(known, some)
    asked_for = {fact for one in some for fact in one.condition.facts()}

    assert set(decision.missing) <= asked_for - known.keys()
    for full in completions(known):
        assert ruled(full, some).missing == ()


@given(facts, clauses)
def test_silence_is_forbid(known: dict[str, Value], some: list[Clause]) -> None:
    """Where every clause is false, the answer is forbid, and silence is the reason."""
    silent = [one for one in some if one.condition.truth(known) is False]

    decision = ruled(known, silent)

    assert decision.effect is Effect.FORBID
    assert [reason.clause for reason in decision.reasons] == [SILENCE]


@given(facts, clauses, clauses)
def test_an_overlay_that_is_silent_changes_nothing(
    known: dict[str, Value], some: list[Clause], more: list[Clause]
) -> None:
    """A law that says nothing of a use neither permits nor forbids it."""
    silent = [one for one in more if one.condition.truth(known) is False]
    overlay = policy_of(silent, "law", kind="overlay")

    with_it = decide(Facts(known), [policy_of(some), overlay], DAY)

    assert told(with_it) == told(ruled(known, some))


@given(facts, clauses)
def test_every_ruling_has_a_reason(known: dict[str, Value], some: list[Clause]) -> None:
    """No effect comes from nowhere, and reasons stand in order."""
    decision = ruled(known, some)
    names = [(reason.policy, reason.clause) for reason in decision.reasons]

    assert names
    assert names == sorted(names)


@given(facts, st.lists(clauses, min_size=1, max_size=3), st.sets(st.sampled_from("xyz")))
def test_layers_are_a_maximum(
    known: dict[str, Value], layers: list[list[Clause]], absent: set[str]
) -> None:
    """Over several policies the effect is the largest that any gives alone; none is forbid."""
    policies = [policy_of(some, f"p{index}") for index, some in enumerate(layers)]

    together = decide(Facts(known), policies, DAY, absent=absent)

    alone = [ruled(known, some).effect for some in layers]
    assert together.effect is max([*alone, *(Effect.FORBID for _ in absent)])
    assert told(together) == told(decide(Facts(known), policies[::-1], DAY, absent=absent))
    assert absent <= {r.policy for r in together.reasons if r.clause == NO_POLICY}


@given(facts, clauses)
def test_asking_by_purpose_is_asking_all(known: dict[str, Value], some: list[Clause]) -> None:
    """What is left of a clause once the purpose is known decides as the whole clause does."""
    policy = policy_of(some)
    left = {one.id: rest for one, rest in policy.about(known.get("purpose"))}

    for one in policy.clauses:
        whole = one.condition.truth(known)
        assert whole is (left[one.id].truth(known) if one.id in left else False)


@given(facts, clauses, EVERYTHING)
def test_duties_only_shrink_as_facts_come_in(
    known: dict[str, Value], some: list[Clause], rest: dict[str, Value]
) -> None:
    """An obligation that might be due is due: more knowledge adds none."""
    before = set(ruled(known, some).obligations)

    assert set(ruled(completed(known, rest), some).obligations) <= before


@given(facts, clauses, freed)
def test_lifting_is_as_if_the_clause_permitted(
    known: dict[str, Value], some: list[Clause], lifted: frozenset[str]
) -> None:
    """A lifted bar or hold counts as a permit that speaks where it spoke, and nothing else."""
    written = [
        replace(one, effect=Effect.PERMIT, binding=Effect.PERMIT)
        if one.id in lifted and one.effect is not Effect.PERMIT
        else one
        for one in some
    ]

    with_it, as_if = ruled(known, some, lifted), ruled(known, written)

    assert with_it.effect is as_if.effect
    assert with_it.missing == as_if.missing
    assert [r.clause for r in with_it.reasons] == [r.clause for r in as_if.reasons]


@given(facts, clauses, freed)
def test_lifting_what_does_not_speak_changes_nothing(
    known: dict[str, Value], some: list[Clause], lifted: frozenset[str]
) -> None:
    """An agreement about clauses that are false of a use, or of another policy, is no help."""
    idle = {one.id for one in some if one.condition.truth(known) is False} & lifted

    assert told(ruled(known, some)) == told(ruled(known, some, idle))
    elsewhere = decide(
        Facts(known), [policy_of(some)], DAY, lifted=agreed(lifted, policy="other")
    )
    assert told(ruled(known, some)) == told(elsewhere)


@given(facts, clauses, freed)
def test_lifting_leaves_every_other_bar(
    known: dict[str, Value], some: list[Clause], lifted: frozenset[str]
) -> None:
    """A forbid that speaks and is not named still forbids, and is still a reason."""
    others = {
        one.id
        for one in some
        if one.condition.truth(known) is True
        and one.effect is Effect.FORBID
        and one.id not in lifted
    }
    decision = ruled(known, some, lifted)

    if others:
        assert decision.effect is Effect.FORBID
        assert {reason.clause for reason in decision.reasons} == others


@given(facts, clauses, freed)
def test_only_lifted_clauses_name_the_agreement(
    known: dict[str, Value], some: list[Clause], lifted: frozenset[str]
) -> None:
    """A reason names an agreement if its clause was lifted, and then it permits."""
    bars = {one.id for one in some if one.effect is not Effect.PERMIT}
    for reason in ruled(known, some, lifted).reasons:
        assert reason.agreement == ("a-7" if reason.clause in lifted & bars else "")
        assert not reason.agreement or reason.effect is Effect.PERMIT


@given(facts, clauses, st.sampled_from(["", "The terms changed."]))
def test_a_stale_policy_only_holds_what_it_permitted(
    known: dict[str, Value], some: list[Clause], why: str
) -> None:
    """Staleness turns permits for training into holds, leaves bars, and spares plain use."""
    fresh = policy_of(some)
    yesterday = DAY - dt.timedelta(days=1)
    stale = replace(fresh, stale=why, review_by=fresh.review_by if why else yesterday)
    before, after = (decide(Facts(known), [policy], DAY) for policy in (fresh, stale))

    if known.get("purpose") == "inference":
        assert told(before) == told(after)
    elif before.effect is Effect.PERMIT:
        assert after.effect is Effect.HOLD
    else:
        assert before.effect <= after.effect or after.effect is Effect.HOLD
