"""Rulings are told in sentences that a caller and a lawyer can act on."""

from __future__ import annotations

import datetime as dt
import json

from gateway.policy.decide import Facts
from gateway.policy.explain import Explanation, explain
from tests.support.policies import DAY, HEAD, acme


def told(**facts: str | bool) -> Explanation:
    """Return the explanation of a use under the small policy."""
    known = {name.replace("_", "-"): value for name, value in facts.items()}
    return explain(Facts(known), [acme()], DAY)


def test_a_permitted_use_names_its_clause_and_its_duties() -> None:
    """A permit says why, where that stands, and what rides along."""
    explanation = told(purpose="inference")

    assert explanation.sentences() == (
        "The terms permit this use.",
        "acme / may-use: Plain use is fine. (Acme Terms (effective 2026-01-01), 1)",
        "Obligation `disclose-ai`: Tell the people who read the output that an AI made it.",
    )
    assert explanation.next_step() == ""


def test_a_forbidden_use_says_what_would_change_it() -> None:
    """A forbid names the clause, its own change, and each single fact that would loosen it."""
    explanation = told(
        purpose="train.sft", competes=True, audience="internal", agreement="none"
    )

    assert explanation.sentences() == (
        "The terms forbid this use.",
        "acme / no-rivals: Rivals are barred. (Acme Terms (effective 2026-01-01), 2)",
        "What would change it: A student that does not compete.",
        "If `competes` were `false`, it would be permitted.",
        "With a written permission registered, it would be permitted.",
    )
    assert explanation.next_step() == "A student that does not compete."


def test_a_held_use_names_what_is_not_known() -> None:
    """A hold for want of facts asks for them, and says what each answer would lead to."""
    explanation = told(purpose="train.sft", audience="internal", agreement="none")

    assert "What is not known: `competes`." in explanation.sentences()
    assert "If `competes` were `true`, it would be forbidden." in explanation.sentences()
    assert "If `competes` were `false`, it would be permitted." in explanation.sentences()
    assert explanation.next_step() == (
        "Declare `competes`, or ask legal to rule on the declaration."
    )


def test_a_hold_that_only_legal_ends_says_so() -> None:
    """Where nothing is missing, the next step is a declaration and a verdict."""
    policy = acme(
        HEAD
        + """\
  - id: ask
    effect: hold
    when: {base-model: any}
    citation: {document: acme-terms, section: "1"}
    because: Legal looks.
    change: Another base.
"""
    )

    explanation = explain(Facts({"base-model": "b"}), [policy], DAY)

    assert explanation.next_step().startswith("Register the use as a declaration")
    assert explanation.changes == ()


def test_a_text_that_must_be_named_is_asked_for_by_name() -> None:
    """A text fact has no list to try; that it is named can matter."""
    policy = acme(
        HEAD
        + """\
  - id: basis
    effect: permit
    when: {competes-basis: any}
    citation: {document: acme-terms, section: "1"}
    because: Somebody looked.
    change: Nobody did.
"""
    )

    explanation = explain(Facts({"purpose": "train.sft"}), [policy], DAY)

    assert "With `competes-basis` declared, it would be permitted." in explanation.sentences()


def test_no_policy_is_told_without_a_citation() -> None:
    """Where nothing applies, the sentence says whom to ask."""
    explanation = explain(Facts({"purpose": "inference"}), [], DAY)

    assert explanation.sentences()[1].startswith("no-policy: No policy for this provider")
    assert explanation.next_step() == "Ask legal to write a policy for this provider."


def test_the_explanation_is_json_with_stable_keys() -> None:
    """Machines get the same as people, under names that stay."""
    explanation = told(purpose="train.sft", audience="internal", agreement="none")

    said = json.loads(json.dumps(explanation.as_json()))

    assert list(said) == [
        "effect",
        "day",
        "reasons",
        "missing",
        "obligations",
        "changes",
        "policies",
        "next",
        "sentences",
    ]
    assert said["effect"] == "hold"
    assert said["day"] == "2026-11-22"
    assert said["reasons"][0] == {
        "policy": "acme",
        "clause": "no-rivals",
        "effect": "forbid",
        "because": "Rivals are barred.",
        "citation": "Acme Terms (effective 2026-01-01), 2",
        "missing": ["competes"],
        "change": "A student that does not compete.",
    }
    assert {"facts": {"competes": "true"}, "effect": "forbid"} in said["changes"]


def test_an_undecided_clause_says_what_it_depends_on() -> None:
    """A reason that is only possible names the facts that would settle it."""
    sentences = told(purpose="train.sft", audience="internal", agreement="none").sentences()

    assert any("It depends on `competes`." in sentence for sentence in sentences)


def test_changes_are_tried_even_where_the_purpose_is_unknown() -> None:
    """Without a purpose, every clause's facts are tried."""
    assert told(audience="internal").decision.effect.word == "hold"


SEVERAL = (
    HEAD
    + """\
  - id: several
    effect: permit
    when: {competes: false, competes-basis: any, audience: [internal, affiliates]}
    citation: {document: acme-terms, section: "1"}
    because: All of it is known.
    change: Anything less.
"""
)


def test_several_missing_facts_are_filled_in_together() -> None:
    """Where no single fact suffices, one way of declaring them all is shown."""
    explanation = explain(Facts({"purpose": "train.sft"}), [acme(SEVERAL)], DAY)

    assert explanation.sentences()[-1] == (
        "If `audience` were `internal`, if `competes` were `false`,"
        " with `competes-basis` declared: it would be permitted."
    )
    assert explanation.next_step().startswith(
        "Declare `audience`, `competes`, `competes-basis`,"
    )


def test_words_that_lead_to_the_same_are_told_together() -> None:
    """One sentence names every word of a fact that has the same outcome."""
    facts = Facts({"competes": False, "competes-basis": "a memo"})

    sentences = explain(facts, [acme(SEVERAL)], DAY).sentences()

    assert "If `audience` were `internal` or `affiliates`, it would be permitted." in sentences
    assert "If `audience` were `customers` or `public`, it would be forbidden." in sentences


def test_a_permit_s_own_change_is_not_told_as_a_way_out() -> None:
    """What would tighten a permit is no advice to somebody who is held."""
    facts = Facts({"competes": False, "competes-basis": "a memo"})

    sentences = explain(facts, [acme(SEVERAL)], DAY).sentences()

    assert not [one for one in sentences if "Anything less" in one]


def test_a_stale_permit_tells_legal_to_review() -> None:
    """Past the review day, what would change a hold is the review."""
    facts = Facts({"purpose": "train.sft", "audience": "internal", "competes": False})

    explanation = explain(facts, [acme()], dt.date(2027, 1, 2))

    assert "What would change it: Legal reviews the policy." in explanation.sentences()


def test_a_fact_that_the_gateway_knows_is_not_asked_of_the_caller() -> None:
    """Only what can be declared is tried."""
    policy = acme(SEVERAL.replace("competes-basis: any", "account-tier: paid"))

    explanation = explain(Facts({"competes": False, "audience": "internal"}), [policy], DAY)

    assert explanation.decision.missing == ("account-tier",)
    assert explanation.next_step().startswith("Register the use")
    assert explanation.changes == ()
