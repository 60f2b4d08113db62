"""An agreement lifts exactly what it names, inside all of its limits and outside none."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.intent.model import IntendedUse
from gateway.intent.purpose import PURPOSES
from gateway.policy.agreement import Agreement, lifted_by
from gateway.policy.decide import decide, facts_of
from gateway.policy.model import Effect
from gateway.provider.model import Operation, ProviderCall
from tests.support.policies import clause, policy_of

FIRST = dt.date(2026, 1, 1)
NAMES = ("a", "b", "c")

days = st.integers(0, 20).map(lambda number: FIRST + dt.timedelta(days=number))
some_names = st.frozensets(st.sampled_from(NAMES), max_size=2)
purposes = st.sampled_from(sorted(PURPOSES))
agreements = st.builds(
    Agreement,
    id=st.sampled_from(["order-1", "order-2", "order-3"]),
    policy=st.sampled_from(["made", "other"]),
    lifts=st.frozensets(st.sampled_from("abcdef"), max_size=3),
    purposes=st.lists(purposes, max_size=2).map(tuple),
    starts=days,
    expires=days,
    projects=some_names,
    students=some_names,
    models=some_names,
)
uses = st.builds(
    IntendedUse, purpose=purposes, student=st.none() | st.sampled_from([*NAMES, "A", "a "])
)
projects = st.sampled_from([*NAMES, "A", ""])
models = st.none() | st.sampled_from([*NAMES, "A", " a", ""])


def covers_by_definition(
    one: Agreement, use: IntendedUse, project: str, model: str | None, on: dt.date
) -> bool:
    """Return what the terms of an agreement promise, limit by limit."""
    above = {use.purpose}
    while "." in min(above, key=len):
        above.add(min(above, key=len).rpartition(".")[0])
    limits = [(one.projects, project), (one.students, use.student), (one.models, model)]
    return (
        one.starts <= on <= one.expires
        and bool(above & {*one.purposes})
        and all(not limit or said in limit for limit, said in limits)
    )


@given(agreement=agreements, use=uses, project=projects, model=models, on=days)
def test_a_scope_is_the_meeting_of_all_its_limits(
    agreement: Agreement, use: IntendedUse, project: str, model: str | None, on: dt.date
) -> None:
    """Outside any one of them nothing is covered, and what nobody said meets none."""
    assert agreement.covers(use, project=project, model=model, on=on) is covers_by_definition(
        agreement, use, project, model, on
    )


@given(agreement=agreements, use=uses, project=projects, model=models, on=days)
def test_a_narrower_agreement_covers_no_more(
    agreement: Agreement, use: IntendedUse, project: str, model: str | None, on: dt.date
) -> None:
    """One more limit, or a shorter term, never lets anything in."""
    assume(not agreement.covers(use, project=project, model=model, on=on))
    day = dt.timedelta(days=1)
    for narrower in (
        replace(agreement, projects=agreement.projects or frozenset("a")),
        replace(agreement, students=agreement.students or frozenset("a")),
        replace(agreement, models=agreement.models or frozenset("a")),
        replace(agreement, purposes=agreement.purposes[1:]),
        replace(agreement, starts=agreement.starts + day),
        replace(agreement, expires=agreement.expires - day),
    ):
        assert not narrower.covers(use, project=project, model=model, on=on)


@given(
    some=st.lists(agreements, max_size=4),
    use=uses,
    project=projects,
    model=models,
    on=days,
    data=st.data(),
)
def test_what_is_lifted_is_named_by_an_agreement_that_covers_the_use(
    some: list[Agreement],
    use: IntendedUse,
    project: str,
    model: str | None,
    on: dt.date,
    data: st.DataObject,
) -> None:
    """Each clause by its own policy; in any order, however often an agreement is listed."""
    shuffled = data.draw(st.permutations(some + some[:1]))
    lifted = lifted_by(shuffled, use, project=project, model=model, on=on)
    expected = {
        (one.policy, name)
        for one in some
        if covers_by_definition(one, use, project, model, on)
        for name in one.lifts
    }

    assert expected == lifted.keys()
    assert lifted == lifted_by(some, use, project=project, model=model, on=on)
    for (policy, name), agreement in lifted.items():
        assert any(
            one.id == agreement and one.policy == policy and name in one.lifts
            for one in some
            if covers_by_definition(one, use, project, model, on)
        )


@given(
    effects=st.lists(st.sampled_from(Effect), min_size=1, max_size=4),
    named=st.frozensets(st.sampled_from("abcdef"), max_size=4),
    policy=st.sampled_from(["made", "other"]),
)
def test_lifting_leaves_every_other_clause_as_it_was(
    effects: list[Effect], named: frozenset[str], policy: str
) -> None:
    """What is left of the bars and holds that speak is what the ruling comes to."""
    use = IntendedUse(purpose="train.sft")
    clauses = [
        clause(clause_id=name, effect=effect, when={}, unless=[], obligations=())
        for name, effect in zip("abcdef", effects, strict=False)
    ]
    agreement = Agreement(
        id="order-1",
        policy=policy,
        lifts=named,
        purposes=("train",),
        starts=FIRST,
        expires=FIRST,
    )
    lifted = lifted_by([agreement], use, project="p", model=None, on=FIRST)
    facts = facts_of(use, ProviderCall(provider="x", operation=Operation.CHAT))
    decision = decide(facts, [policy_of(clauses)], FIRST, lifted=lifted)
    left = [one.effect for one in clauses if policy != "made" or one.id not in named]

    assert decision.effect is max(left, default=Effect.PERMIT)
    for reason in decision.reasons:
        assert bool(reason.agreement) is (
            policy == "made"
            and reason.clause in named
            and effects["abcdef".index(reason.clause)] is not Effect.PERMIT
        )
