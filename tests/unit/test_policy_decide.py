"""The decision keeps its docstring's promise."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import msgspec
import pytest

from gateway.intent.model import INFERENCE, IntendedUse
from gateway.policy.condition import OneOf, Value
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
from tests.support.policies import DAY, HEAD, acme, clause, policy_of, written

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


def test_a_policy_that_nobody_wrote_forbids() -> None:
    """What should bind and is not there leaves nothing allowed, and is named."""
    free = policy_of([clause("free", Effect.PERMIT, {})])

    decision = decide(Facts({"purpose": "inference"}), [free], DAY, absent=["host", "acme"])

    assert decision.effect is Effect.FORBID
    assert [(r.policy, r.clause) for r in decision.reasons] == [
        ("acme", NO_POLICY),
        ("host", NO_POLICY),
    ]


LAW = policy_of(
    [clause("label", Effect.HOLD, {"purpose": ["train.sft"]}, obligations=["keep-ai-label"])],
    "law",
    kind="overlay",
)
FREE = policy_of([clause("free", Effect.PERMIT, {})], "free")


@pytest.mark.parametrize(
    ("purpose", "day", "effect", "reasons", "obligations"),
    [
        ("train.sft", DAY, "hold", ["label"], ["keep-ai-label"]),
        ("inference", DAY, "permit", ["free"], []),
        ("train.sft", dt.date(2026, 1, 1), "permit", ["free"], []),
    ],
)
def test_an_overlay_only_adds(
    purpose: str, day: dt.date, effect: str, reasons: list[str], obligations: list[str]
) -> None:
    """A law speaks beside the terms; its silence permits, and so do the days before it."""
    law = replace(LAW, in_force_from=dt.date(2026, 6, 1))

    decision = decide(Facts({"purpose": purpose}), [FREE, law], day)

    assert effect == decision.effect.word
    assert reasons == [reason.clause for reason in decision.reasons]
    assert obligations == list(decision.obligations)


def test_an_overlay_that_is_not_in_force_is_no_policy() -> None:
    """Before a law's first day, and with nobody's terms in force, nothing is allowed."""
    decision = decide(Facts({"purpose": "inference"}), [LAW], dt.date(1999, 1, 1))

    assert (decision.effect, decision.reasons[0].clause) == (Effect.FORBID, NO_POLICY)


RIVAL: dict[str, Value] = {"purpose": "train.sft", "competes": True, "audience": "internal"}


def test_an_agreement_lifts_what_it_names() -> None:
    """The bar that it names permits, and the reason says whose leave it is."""
    decision = decide(Facts(RIVAL), [acme()], DAY, lifted={("acme", "no-rivals"): "a-7"})

    assert decision.effect is Effect.PERMIT
    assert [(r.clause, r.agreement) for r in decision.reasons] == [
        ("may-train", ""),
        ("no-rivals", "a-7"),
    ]
    assert "The agreement `a-7` lifts this clause" in decision.reasons[1].because


@pytest.mark.parametrize(
    "lifted", [{}, {("acme", "may-train"): "a-7"}, {("other", "no-rivals"): "a-7"}]
)
def test_an_agreement_lifts_nothing_else(lifted: dict[tuple[str, str], str]) -> None:
    """Another clause's or another policy's agreement leaves the bar where it is."""
    decision = decide(Facts(RIVAL), [acme()], DAY, lifted=lifted)

    assert decision.effect is Effect.FORBID
    assert [(r.clause, r.agreement) for r in decision.reasons] == [("no-rivals", "")]


def test_a_permit_that_was_not_read_can_t_be_lifted() -> None:
    """An agreement lifts bars and holds; it does not make a reading of what nobody read."""
    unread = acme(HEAD + written("", citation='{document: acme-faq, section: "1"}'))

    decision = decide(
        Facts({"purpose": "train.sft"}), [unread], DAY, lifted={("acme", "one"): "a-7"}
    )

    assert decision.effect is Effect.HOLD
    assert decision.reasons[0].agreement == ""


def test_a_lifted_clause_that_is_open_still_asks() -> None:
    """A bar that might not even speak leaves the ruling to the other clauses."""
    decision = decide(
        Facts({"purpose": "train.sft"}), [acme()], DAY, lifted={("acme", "no-rivals"): "a-7"}
    )

    assert decision.effect is Effect.HOLD
    assert "audience" in decision.missing


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


def test_a_policy_whose_terms_changed_holds_before_its_review_day() -> None:
    """Once it is known that the terms are others, permits for training hold and say why."""
    stale = replace(acme(), stale="Acme Terms changed in section 3.")
    facts: dict[str, Value] = {"audience": "internal", "competes": False}

    train = decide(Facts({**facts, "purpose": "train.sft"}), [stale], DAY)
    plain = decide(Facts({**facts, "purpose": "inference"}), [stale], DAY)

    assert (train.effect, plain.effect) == (Effect.HOLD, Effect.PERMIT)
    assert "Acme Terms changed in section 3." in train.reasons[0].because


@pytest.mark.parametrize(
    ("document", "effect"),
    [("acme-terms", "permit"), ("acme-faq", "hold"), ("acme-order", "hold")],
)
def test_only_what_was_read_in_the_original_permits(document: str, effect: str) -> None:
    """A permit that cites a document nobody read in the original ends in hold, and says so."""
    policy = acme(HEAD + written("", citation=f'{{document: {document}, section: "1"}}'))

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
        "generated-for": "train.sft",
        "provider": "acme",
        "operation": "chat",
        "model": "acme-1",
        "streaming": False,
        "features": frozenset(),
        "modality": frozenset({"text"}),
        "reasoning-kind": "none",
        "account-tier": "paid",
        "restricted-ownership": 0,
        "region-supported": True,
    } == dict(facts)
    assert len(facts) == len(list(facts))


def test_everything_that_is_declared_is_known() -> None:
    """Each key of a declaration that is a fact comes through, days as days, lists as sets."""
    use = IntendedUse(
        purpose="evaluate.benchmark",
        student="s",
        imitates_teacher=True,
        competes_basis="a memo",
        competes_assessed_by="J. Doe",
        competes_assessed_on="2026-11-01",
        similar=False,
        visibility="weights",
        commercial=True,
        research=False,
        notices=("display", "flow-down"),
        automation="batch",
        promotes_competitor=False,
        replication_info=True,
        base_model="b",
        jurisdiction="DE",
        agreement="a letter",
    )

    facts = facts_of(use, CALL)

    assert facts["competes-assessed-on"] == dt.date(2026, 11, 1)
    assert facts["notices"] == frozenset({"display", "flow-down"})
    said = {**facts, "competes-assessed-on": "2026-11-01", "notices": ("display", "flow-down")}
    for name, value in msgspec.to_builtins(use).items():
        # What a declaration says of an agreement lifts nothing, so no clause can ask for it.
        assert said.get(name) == (None if name == "agreement" else value)


def test_a_day_that_is_none_stays_unknown() -> None:
    """A statement of somebody else's software may name a day in its own way."""
    use = IntendedUse(purpose="train.sft", competes_assessed_on="last week")

    assert "competes-assessed-on" not in facts_of(use, CALL)


@pytest.mark.parametrize(
    ("purpose", "users"),
    [
        ("inference", 0),
        ("evaluate.benchmark", 0),
        ("train.sft", None),
        ("verify", None),
        ("publish.dataset", None),
        ("provider-fine-tune", None),
    ],
)
def test_size_is_presumed_in_plain_use_only(purpose: str, users: int | None) -> None:
    """Nobody has to register how large it is to ask and measure; to train, somebody does."""
    facts = facts_of(IntendedUse(purpose=purpose), CALL)

    assert users == facts.get("monthly-users")
    assert (facts["restricted-ownership"], facts["region-supported"]) == (0, True)


def test_what_is_registered_goes_before_what_is_presumed() -> None:
    """A statement about the organisation replaces every presumption."""
    facts = facts_of(INFERENCE, CALL, monthly_users=7, region_supported=False)

    assert (facts["monthly-users"], facts["region-supported"]) == (7, False)


def test_an_output_that_is_used_otherwise_keeps_what_it_was_made_for() -> None:
    """A later use has a purpose of its own."""
    use = IntendedUse(purpose="train.sft")

    assert facts_of(use, CALL)["generated-for"] == "train.sft"
    assert facts_of(use, CALL, generated_for="inference")["generated-for"] == "inference"


def test_a_voice_is_sound() -> None:
    """A request for speech is answered with sound beside the text."""
    call = msgspec.structs.replace(CALL, features=frozenset({"voice"}))

    assert facts_of(INFERENCE, call)["modality"] == frozenset({"text", "audio"})


def test_reasoning_is_elicited_only_where_signs_were_seen() -> None:
    """A request that asks for reasoning may show it, but does not draw it out by that."""
    call = ProviderCall(
        provider="acme", operation=Operation.CHAT, features=frozenset({"reasoning"})
    )

    asked = facts_of(INFERENCE, call)["reasoning-kind"]

    assert asked == OneOf(frozenset({"none", "summary", "visible"}))
    assert facts_of(INFERENCE, call, reasoning_kind="elicited")["reasoning-kind"] == "elicited"


def test_an_opaque_call_shows_nothing() -> None:
    """Of what can't be read, neither stream nor features nor modality are known."""
    facts = facts_of(INFERENCE, ProviderCall(provider="acme", operation=Operation.OPAQUE))

    assert not {"streaming", "features", "modality", "model"} & set(facts)


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
