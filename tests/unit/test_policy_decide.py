"""The decision keeps its docstring's promise."""

from __future__ import annotations

import datetime as dt

import pytest

from gateway.intent.model import INFERENCE, IntendedUse
from gateway.policy.condition import OneOf
from gateway.policy.decide import (
    NO_POLICY,
    SILENCE,
    UNKNOWN_OBLIGATION,
    Facts,
    decide,
    facts_of,
)
from gateway.policy.model import Effect
from gateway.provider.model import Operation, ProviderCall
from tests.support.policies import DAY, HEAD, acme, clause, policy_of

PERMIT = clause("yes", Effect.PERMIT, {"purpose": ["train.sft"], "competes": [False]})
HOLD = clause("ask", Effect.HOLD, {"purpose": ["train.sft"], "audience": ["public"]})
FORBID = clause("no", Effect.FORBID, {"purpose": ["train.sft"], "commercial": [True]})
CALL = ProviderCall(provider="acme", operation=Operation.CHAT, model="acme-1")


@pytest.mark.parametrize(
    ("facts", "effect", "reasons", "missing"),
    [
        (
            {"competes": False, "audience": "internal", "commercial": False},
            "permit",
            ["yes"],
            [],
        ),
        ({"competes": False, "audience": "public", "commercial": False}, "hold", ["ask"], []),
        ({"competes": False, "audience": "public", "commercial": True}, "forbid", ["no"], []),
        (
            {"competes": True, "audience": "internal", "commercial": False},
            "forbid",
            [SILENCE],
            [],
        ),
        ({"audience": "internal", "commercial": False}, "hold", ["yes"], ["competes"]),
        ({"competes": False, "audience": "internal"}, "hold", ["no"], ["commercial"]),
        ({"competes": False, "commercial": False}, "hold", ["ask"], ["audience"]),
        ({"audience": "public"}, "hold", ["ask", "no"], ["commercial"]),
        ({"audience": "public", "commercial": False}, "hold", ["ask"], []),
        ({"competes": True, "audience": "internal"}, "forbid", [SILENCE], []),
        ({"commercial": True}, "forbid", ["no"], []),
        ({}, "hold", ["ask", "no", "yes"], ["audience", "commercial", "competes"]),
    ],
)
def test_what_is_unknown_holds_only_where_it_matters(
    facts: dict[str, str | bool], effect: str, reasons: list[str], missing: list[str]
) -> None:
    """The effect is that of every completion, or hold where completions disagree."""
    known = Facts({"purpose": "train.sft", **facts})

    decision = decide(known, [policy_of([PERMIT, HOLD, FORBID])], DAY)

    assert effect == decision.effect.word
    assert reasons == [reason.clause for reason in decision.reasons]
    assert missing == list(decision.missing)


def test_silence_is_forbid() -> None:
    """A use that no clause speaks to is forbidden, and says so."""
    decision = decide(Facts({"purpose": "inference"}), [policy_of([PERMIT])], DAY)

    assert (decision.effect, decision.reasons[0].clause) == (Effect.FORBID, SILENCE)


@pytest.mark.parametrize("day", [dt.date(2025, 12, 31), dt.date(1999, 1, 1)])
def test_no_policy_in_force_is_forbid(day: dt.date) -> None:
    """Before its first day a policy does not bind, and without one nothing is allowed."""
    decision = decide(Facts({"purpose": "inference"}), [acme()], day)

    assert (decision.effect, decision.reasons[0].clause) == (Effect.FORBID, NO_POLICY)
    assert decision.reasons[0].policy == "acme"


def test_no_policies_at_all_is_forbid() -> None:
    """An empty list of policies is not vacuously permitted."""
    decision = decide(Facts({"purpose": "inference"}), [], DAY)

    assert (decision.effect, decision.reasons[0].clause) == (Effect.FORBID, NO_POLICY)
    assert decision.policies == ()


def test_layers_take_the_maximum_and_name_their_policy() -> None:
    """Over several policies the strictest wins, and each reason says whose it is."""
    facts = Facts({"purpose": "inference"})
    easy = policy_of([clause("free", Effect.PERMIT, {})], "easy")
    strict = policy_of([clause("bar", Effect.FORBID, {})], "strict")

    decision = decide(facts, [easy, strict], DAY)

    assert decision.effect is Effect.FORBID
    assert [(r.policy, r.clause) for r in decision.reasons] == [("strict", "bar")]
    assert [pin.policy for pin in decision.policies] == ["easy", "strict"]


def test_equal_layers_all_give_their_reasons() -> None:
    """Policies that agree on the winning effect are all named."""
    one, two = (policy_of([clause("free", Effect.PERMIT, {})], name) for name in ("a", "b"))

    decision = decide(Facts({"purpose": "inference"}), [two, one], DAY)

    assert [(r.policy, r.clause) for r in decision.reasons] == [("a", "free"), ("b", "free")]


def test_a_layer_that_is_not_in_force_forbids() -> None:
    """A policy that was to apply and does not bind that day leaves nothing allowed."""
    free = policy_of([clause("free", Effect.PERMIT, {})])

    decision = decide(Facts({"purpose": "inference"}), [free, acme()], dt.date(2025, 6, 1))

    assert decision.effect is Effect.FORBID
    assert [(r.policy, r.clause) for r in decision.reasons] == [("acme", NO_POLICY)]


def test_an_unknown_obligation_forbids() -> None:
    """What nobody can discharge is not permitted, even if the clause is only undecided."""
    strange = clause("odd", Effect.PERMIT, {"audience": ["public"]}, obligations=["sing"])

    decision = decide(Facts({"purpose": "inference"}), [policy_of([strange])], DAY)

    assert (decision.effect, decision.reasons[0].clause) == (Effect.FORBID, UNKNOWN_OBLIGATION)
    assert "`sing`" in decision.reasons[0].because


def test_obligations_of_all_speaking_clauses_ride_along() -> None:
    """Obligations come from every clause that speaks or might, in alphabetical order."""
    free = clause("free", Effect.PERMIT, {}, obligations=["no-human-claim", "disclose-ai"])
    maybe = clause(
        "maybe", Effect.PERMIT, {"commercial": [True]}, obligations=["keep-ai-label"]
    )
    other = clause("other", Effect.PERMIT, {"purpose": ["train"]}, obligations=["disclose-ai"])

    decision = decide(Facts({"purpose": "inference"}), [policy_of([free, maybe, other])], DAY)

    assert decision.effect is Effect.PERMIT
    assert decision.obligations == ("disclose-ai", "keep-ai-label", "no-human-claim")


@pytest.mark.parametrize(
    ("purpose", "day", "effect"),
    [
        ("train.sft", dt.date(2027, 1, 1), Effect.PERMIT),
        ("train.sft", dt.date(2027, 1, 2), Effect.HOLD),
        ("inference", dt.date(2027, 1, 2), Effect.PERMIT),
        ("evaluate.benchmark", dt.date(2027, 1, 2), Effect.PERMIT),
    ],
)
def test_permits_for_training_hold_after_the_review_day(
    purpose: str, day: dt.date, effect: Effect
) -> None:
    """A policy past its review day still serves plain use, and holds training."""
    decision = decide(
        Facts({"purpose": purpose, "audience": "internal", "competes": False}), [acme()], day
    )

    assert decision.effect is effect
    assert ("reviewed by" in decision.reasons[0].because) is (effect is Effect.HOLD)


@pytest.mark.parametrize(
    ("document", "effect"),
    [("acme-terms", "permit"), ("acme-faq", "hold"), ("acme-order", "hold")],
)
def test_only_what_was_read_in_the_original_permits(document: str, effect: str) -> None:
    """A permit that cites a document nobody read in the original ends in hold, and says so."""
    policy = acme(
        HEAD
        + f"""\
  - id: may-use
    effect: permit
    citation: {{document: {document}, section: "1"}}
    because: Plain use is fine.
    change: Other terms.
"""
    )

    decision = decide(Facts({"purpose": "inference"}), [policy], DAY)

    assert effect == decision.effect.word
    assert ("was not read" in decision.reasons[0].because) is (effect == "hold")


def test_a_decision_pins_its_policies_by_digest() -> None:
    """What was ruled under can be told later, byte by byte, and on which day."""
    policy = acme()

    decision = decide(Facts({"purpose": "inference"}), [policy], DAY)

    pin = decision.policies[0]
    assert ("acme", 1, policy.sha256) == (pin.policy, pin.version, pin.sha256)
    assert decision.day == DAY
    assert decision.reasons[0].source == "Acme Terms (effective 2026-01-01), 1"


def test_facts_come_from_the_use_and_the_call() -> None:
    """What is declared or shown is known, and nothing else is."""
    use = IntendedUse(
        purpose="train.sft", student_kind="chat", competes=False, audience="public"
    )

    facts = facts_of(use, CALL, account_tier="paid", jurisdiction=None)

    assert {
        "purpose": "train.sft",
        "student-kind": "chat",
        "competes": False,
        "audience": "public",
        "agreement": "none",
        "provider": "acme",
        "operation": "chat",
        "model": "acme-1",
        "streaming": False,
        "features": frozenset(),
        "reasoning-kind": "none",
        "account-tier": "paid",
    } == dict(facts)
    assert len(facts) == len(list(facts))


def test_reasoning_is_elicited_only_where_signs_were_seen() -> None:
    """A request that asks for reasoning may show it, but does not draw it out by that."""
    call = ProviderCall(
        provider="acme", operation=Operation.CHAT, features=frozenset({"reasoning"})
    )

    asked = facts_of(INFERENCE, call)["reasoning-kind"]

    assert asked == OneOf(frozenset({"none", "summary", "visible"}))
    assert facts_of(INFERENCE, call, reasoning_kind="elicited")["reasoning-kind"] == "elicited"


def test_an_opaque_call_shows_nothing() -> None:
    """Of what can't be read, neither stream nor features are known."""
    facts = facts_of(INFERENCE, ProviderCall(provider="acme", operation=Operation.OPAQUE))

    assert not {"streaming", "features", "model"} & set(facts)


def test_a_fact_outside_the_vocabulary_is_a_bug() -> None:
    """Facts have names from the closed list only."""
    with pytest.raises(AssertionError, match="no such facts"):
        Facts({"mood": "good"})


def test_facts_are_values() -> None:
    """Equal facts are equal and hash alike; a filled-in fact leaves the old ones alone."""
    facts = Facts({"purpose": "inference"})

    more = facts.with_fact("competes", value=True)

    assert facts == Facts({"purpose": "inference"})
    assert hash(facts) == hash(Facts({"purpose": "inference"}))
    assert ("competes" in more, "competes" in facts) == (True, False)
