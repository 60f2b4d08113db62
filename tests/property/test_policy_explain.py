"""Laws of explanations: whatever they say would change a ruling does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.condition import Value
from gateway.policy.decide import Facts, decide
from gateway.policy.explain import explain
from gateway.policy.model import Clause, Effect
from tests.support.conditions import CONDITIONS, KNOWN
from tests.support.policies import DAY, clause_of, policy_of

clauses = st.lists(
    st.builds(
        clause_of,
        clause_id=st.sampled_from("abcdef"),
        effect=st.sampled_from(Effect),
        condition=CONDITIONS,
    ),
    max_size=4,
    unique_by=lambda one: one.id,
)


@given(KNOWN, clauses)
def test_every_change_leads_where_it_says(known: dict[str, Value], some: list[Clause]) -> None:
    """With the facts supposed and the clauses lifted, the ruling is the one that is told."""
    policies, facts = [policy_of(some)], Facts(known)
    explanation = explain(facts, policies, DAY)

    for change in explanation.changes:
        supposed = facts
        for one in change.facts:
            supposed = supposed.with_fact(one.fact, one.value)
        lifted = dict.fromkeys(change.lifts, "a-7")
        again = decide(supposed, policies, DAY, lifted=lifted)
        assert again.effect is change.effect
        assert again.effect is not explanation.decision.effect


@given(KNOWN, clauses)
def test_every_clause_that_is_near_would_speak(
    known: dict[str, Value], some: list[Clause]
) -> None:
    """A clause that is one fact away speaks once that fact is as supposed, and not before."""
    facts = Facts(known)
    for near in explain(facts, [policy_of(some)], DAY).near:
        assert near.clause.condition.truth(facts) is not True
        for way in near.ways:
            for one in way:
                assert near.clause.condition.truth(facts.with_fact(one.fact, one.value)) is True


@given(KNOWN, clauses)
def test_every_sentence_is_one(known: dict[str, Value], some: list[Clause]) -> None:
    """Each sentence begins like one, ends like one, and is one line."""
    explanation = explain(Facts(known), [policy_of(some)], DAY)

    for sentence in explanation.sentences():
        assert sentence.isprintable()
        assert sentence.endswith((".", ")"))
    assert explanation.as_json()["sentences"] == list(explanation.sentences())


@given(KNOWN, clauses)
def test_a_change_is_no_news_of_what_is_known(
    known: dict[str, Value], some: list[Clause]
) -> None:
    """What is supposed differs from what is known."""
    for change in explain(Facts(known), [policy_of(some)], DAY).changes:
        for one in change.facts:
            assert one.value != known.get(one.fact)
