"""Rulings are told in sentences that a caller and a lawyer can act on."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from gateway.policy.condition import Measured, Value
from gateway.policy.decide import Facts
from gateway.policy.explain import Explanation, explain
from gateway.policy.model import Effect
from tests.support.policies import DAY, HEAD, acme, clause, policy_of, written


def told(**facts: str | bool) -> Explanation:
    """Return the explanation of a use under the small policy."""
    known: dict[str, Value] = {name.replace("_", "-"): value for name, value in facts.items()}
    return explain(Facts(known), [acme()], DAY)


def of(policy: str, **facts: Value) -> Explanation:
    """Return the explanation of a use under a policy of these clauses."""
    known = {name.replace("_", "-"): value for name, value in facts.items()}
    return explain(Facts(known), [acme(HEAD + policy)], DAY)


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
    """A forbid names the clause, its own change, and each single fact or leave that loosens."""
    explanation = told(purpose="train.sft", competes=True, audience="internal")

    assert explanation.sentences() == (
        "The terms forbid this use.",
        "acme / no-rivals: Rivals are barred. (Acme Terms (effective 2026-01-01), 2)",
        "What would change it: A student that does not compete.",
        "If `competes` were `false` instead of `true`, it would be permitted.",
        "With a written permission registered that lifts `no-rivals`, it would be permitted.",
    )
    assert explanation.next_step() == "A student that does not compete."


def test_a_held_use_names_what_is_not_known_and_who_knows_it() -> None:
    """A hold for want of facts asks for them, and says what each answer would lead to."""
    explanation = told(purpose="train.sft", audience="internal")

    sentences = explanation.sentences()
    assert (
        "Not known: `competes` (the student, or what it serves, competes with the provider);"
        " the declaration would say it."
    ) in sentences
    assert "If `competes` were `true`, it would be forbidden." in sentences
    assert "If `competes` were `false`, it would be permitted." in sentences
    assert explanation.next_step() == (
        "Declare `competes`, or ask legal to rule on the declaration."
    )


@pytest.mark.parametrize(
    ("condition", "told_of", "step"),
    [
        (
            "when: {account-tier: paid}",
            "; the gateway's operator or its own signs would say it.",
            "Register the use as a declaration",
        ),
        (
            "when: {monthly-users: {at-most: 700000000, at: 2024-06}}",
            "; the organisation would register it (`gateway organisation register`).",
            "Have `monthly-users` registered for the organisation",
        ),
        (
            "when: {streaming: true}",
            "; the request itself would show it.",
            "Register the use as a declaration",
        ),
    ],
)
def test_who_knows_a_missing_fact_is_told(condition: str, told_of: str, step: str) -> None:
    """What the caller can't declare is not asked of the caller."""
    explanation = of(written(condition), purpose="train.sft")

    assert any(sentence.endswith(told_of) for sentence in explanation.sentences())
    assert explanation.next_step().startswith(step)


def test_a_hold_that_only_legal_ends_says_so() -> None:
    """Where nothing is missing, the next step is a declaration and a verdict."""
    explanation = of(written("when: {base-model: any}", effect="hold"), base_model="b")

    assert explanation.next_step().startswith("Register the use as a declaration")


@pytest.mark.parametrize(
    ("condition", "facts", "sentence"),
    [
        (
            "when: {competes-basis: any}",
            {},
            "If `competes-basis` were named, it would be permitted.",
        ),
        (
            "when: {audience: [internal, affiliates]}",
            {"audience": "public"},
            (
                "If `audience` were `internal` or `affiliates` instead of `public`,"
                " it would be permitted."
            ),
        ),
        (
            "when: {monthly-users: {at-most: 700000000, at: 2024-06}}",
            {"monthly-users": 800000000},
            "If `monthly-users` (2024-06) were 700000000 or less, it would be permitted.",
        ),
        (
            "when: {monthly-users: {at-most: 7}}",
            {"monthly-users": Measured((("2024-06", 7), ("2026-01", 8)))},
            "If `monthly-users` were 7 or less, it would be permitted.",
        ),
        (
            "when: {revenue-annual: {over: 20, under: 30}}",
            {"revenue-annual": 1},
            "If `revenue-annual` were from 21 to 29, it would be permitted.",
        ),
        (
            "unless: {monthly-users: {over: 700000000}}",
            {"monthly-users": 800000000},
            "If `monthly-users` were 700000000 or less, it would be permitted.",
        ),
        (
            "when: {restricted-ownership: {over: 50}}",
            {"restricted-ownership": 0},
            "If `restricted-ownership` were more than 50, it would be permitted.",
        ),
        (
            "when: {notices: {all: [licence-copy, display]}}",
            {"notices": frozenset({"flow-down"})},
            "If `notices` held `display` and `licence-copy` as well, it would be permitted.",
        ),
        (
            "when: {features: {not: [voice, images]}}",
            {"features": frozenset({"voice"})},
            "If `features` did not hold `images` or `voice`, it would be permitted.",
        ),
        (
            "when: {generated-on: {from: 2026-06-01}}",
            {"generated-on": dt.date(2026, 1, 1)},
            "If `generated-on` were 2026-06-01 or later, it would be permitted.",
        ),
        (
            "unless: {generated-on: {from: 2026-06-01, until: 2026-06-30}}",
            {"generated-on": dt.date(2026, 6, 5)},
            (
                "If `generated-on` were before 2026-06-01 or after 2026-06-30,"
                " it would be permitted."
            ),
        ),
        (
            "unless: {notices: {all: [display, flow-down]}}",
            {"notices": frozenset({"display", "flow-down"})},
            "If `notices` did not hold `display`, it would be permitted.",
        ),
        (
            "when: {generated-on: 2026-06-05}",
            {"generated-on": dt.date(2026, 6, 6)},
            "If `generated-on` were 2026-06-05, it would be permitted.",
        ),
        (
            "when: {generated-on: {until: 2026-06-05}}",
            {"generated-on": dt.date(2026, 6, 6)},
            "If `generated-on` were 2026-06-05 or earlier, it would be permitted.",
        ),
        (
            "when: {monthly-users: 7}",
            {"monthly-users": 8},
            "If `monthly-users` were 7, it would be permitted.",
        ),
        (
            "when: {base-model: none}",
            {},
            "If `base-model` were `none`, it would be permitted.",
        ),
        (
            "when: {student: {not: [a, b]}}",
            {},
            "If `student` were another than `a` or `b`, it would be permitted.",
        ),
        (
            "unless: {jurisdiction: CN}",
            {"jurisdiction": "CN"},
            "If `jurisdiction` were not `CN`, it would be permitted.",
        ),
        (
            "when: {jurisdiction: [EU, US]}",
            {"jurisdiction": "CN"},
            "If `jurisdiction` were one of `EU` and `US`, it would be permitted.",
        ),
        (
            "when: {jurisdiction: {not: [CN, RU]}}",
            {"jurisdiction": "CN"},
            "If `jurisdiction` were none of `CN` and `RU`, it would be permitted.",
        ),
        (
            "when: {student: {starts: llama}}",
            {"student": "parser"},
            "If `student` began with `llama`, it would be permitted.",
        ),
        (
            "when: {model: {not: [m-1]}}",
            {"model": "m-1"},
            "If `model` were another than `m-1`, it would be permitted.",
        ),
        (
            "when: {generated-for: train}",
            {"generated-for": "inference"},
            "If `generated-for` were `train` instead of `inference`, it would be permitted.",
        ),
    ],
)
def test_what_would_permit_is_said_for_every_kind_of_fact(
    condition: str, facts: dict[str, Value], sentence: str
) -> None:
    """Words, numbers, days, sets, places and texts each have their own sentence."""
    explanation = of(written(condition), **facts)

    assert explanation.decision.effect is not Effect.PERMIT
    assert sentence in explanation.sentences()


def test_no_policy_is_told_without_a_citation() -> None:
    """Where nothing applies, the sentence says whom to ask."""
    explanation = explain(Facts({"purpose": "inference"}), [], DAY)

    assert explanation.sentences()[1].startswith("no-policy: No policy for this provider")
    assert explanation.next_step() == "Ask legal to write a policy for this provider."


def test_a_policy_that_nobody_wrote_is_named() -> None:
    """What should bind and is absent forbids, and no fact or leave is offered against it."""
    explanation = explain(Facts({"purpose": "inference"}), [acme()], DAY, absent=["host"])

    assert explanation.sentences()[1].startswith("host / no-policy:")
    assert explanation.changes == ()


def test_the_explanation_is_json_with_stable_keys() -> None:
    """Machines get the same as people, under names that stay."""
    explanation = told(purpose="train.sft", audience="internal")

    said = json.loads(json.dumps(explanation.as_json()))

    assert list(said) == [
        "effect",
        "day",
        "reasons",
        "near",
        "missing",
        "unknown",
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
    assert said["unknown"] == [
        {
            "fact": "competes",
            "meaning": "the student, or what it serves, competes with the provider",
            "known_from": "declared",
        }
    ]
    assert {"facts": {"competes": "true"}, "lifts": [], "effect": "forbid"} in said["changes"]
    assert {"facts": {}, "lifts": ["acme:no-rivals"], "effect": "permit"} in said["changes"]


def test_an_undecided_clause_says_what_it_depends_on() -> None:
    """A reason that is only possible names the facts that would settle it."""
    sentences = told(purpose="train.sft", audience="internal").sentences()

    assert any("It depends on `competes`." in sentence for sentence in sentences)


def test_clauses_one_fact_away_are_told_with_what_they_would_do() -> None:
    """Whoever is permitted learns where the border lies."""
    explanation = told(purpose="train.sft", competes=False, audience="internal")

    assert explanation.decision.effect is Effect.PERMIT
    assert explanation.changes == ()
    assert explanation.sentences()[-1] == (
        "One fact away: acme / no-rivals would forbid if `competes` were `true` instead of"
        " `false`."
    )
    assert explanation.as_json()["near"] == [
        {
            "policy": "acme",
            "clause": "no-rivals",
            "effect": "forbid",
            "because": "Rivals are barred.",
            "citation": "Acme Terms (effective 2026-01-01), 2",
            "if": {"competes": ["true"]},
        }
    ]


def test_a_clause_two_facts_away_is_not_told() -> None:
    """What is far off is no help."""
    some = [
        clause("free", Effect.PERMIT, {}),
        clause("far", Effect.FORBID, {"competes": [True], "audience": ["public"]}),
    ]
    facts = Facts({"competes": False, "audience": "internal"})

    assert explain(facts, [policy_of(some)], DAY).near == ()


def test_changes_are_tried_even_where_the_purpose_is_unknown() -> None:
    """Without a purpose, every clause's facts are tried, but no other purpose is."""
    explanation = told(audience="internal")

    assert explanation.decision.effect is Effect.HOLD
    assert {fact.fact for change in explanation.changes for fact in change.facts} <= {
        "competes",
        "audience",
    }


SEVERAL = written("when: {competes: false, competes-basis: any, audience: [internal, public]}")


def test_several_missing_facts_are_filled_in_together() -> None:
    """Where no single fact suffices, one way of filling in all of them is shown."""
    explanation = of(SEVERAL, purpose="train.sft")

    assert (
        "If `audience` were `internal`, `competes` were `false` and `competes-basis` were"
        " named, it would be permitted."
    ) in explanation.sentences()
    assert explanation.next_step().startswith(
        "Declare `audience`, `competes` and `competes-basis`,"
    )


def test_words_that_lead_to_the_same_are_told_together() -> None:
    """One sentence names every word of a fact that has the same outcome."""
    sentences = of(SEVERAL, competes=False, competes_basis="a memo").sentences()

    assert "If `audience` were `internal` or `public`, it would be permitted." in sentences
    assert "If `audience` were `affiliates` or `customers`, it would be forbidden." in sentences


def test_two_facts_are_tried_where_one_is_not_enough() -> None:
    """A way out that takes two facts at once is found, its words told together."""
    sentences = of(SEVERAL, competes=True, competes_basis="a memo", audience="customers")

    assert (
        "If `competes` were `false` instead of `true` and `audience` were `internal` instead"
        " of `customers`, it would be permitted."
    ) in sentences.sentences()


def test_two_facts_that_do_no_more_than_one_are_not_told() -> None:
    """A way out that takes two facts is told only where it leads further than one does."""
    some = written("when: {competes: false}", id="ask", effect="hold")
    some += written("when: {audience: internal}", id="far", effect="forbid")

    changes = of(some, competes=True, audience="public").changes

    assert [len(change.facts) for change in changes if change.facts] == [1]


def test_several_bars_are_lifted_together() -> None:
    """Where one permission is not enough, the one that would be is said, with its policies."""
    bars = [clause("one", Effect.FORBID, {}), clause("two", Effect.FORBID, {})]
    policies = [policy_of(bars, "acme"), policy_of([clause("free", Effect.PERMIT, {})], "elm")]

    explanation = explain(Facts({"purpose": "train.sft"}), policies, DAY)

    assert (
        "With a written permission registered that lifts `acme / one` and `acme / two`,"
        " it would be permitted."
    ) in explanation.sentences()


def test_what_an_agreement_lifts_is_said() -> None:
    """Under an agreement the reason names it, and nothing more is to be lifted."""
    facts = Facts({"purpose": "train.sft", "competes": True, "audience": "internal"})

    explanation = explain(facts, [acme()], DAY, lifted={("acme", "no-rivals"): "a-7"})

    assert explanation.decision.effect is Effect.PERMIT
    assert any("The agreement `a-7` lifts" in sentence for sentence in explanation.sentences())
    assert [change for change in explanation.changes if change.lifts] == []


def test_a_permit_s_own_change_is_not_told_as_a_way_out() -> None:
    """What would tighten a permit is no advice to somebody who is held."""
    policy = written("when: {competes: false, audience: internal}", change="Anything less.")

    assert not [one for one in of(policy, competes=False).sentences() if "Anything" in one]


def test_a_stale_permit_tells_legal_to_review() -> None:
    """Past the review day, what would change a hold is the review."""
    facts = Facts({"purpose": "train.sft", "audience": "internal", "competes": False})

    explanation = explain(facts, [acme()], dt.date(2027, 1, 2))

    assert "What would change it: Legal reviews the policy." in explanation.sentences()


def test_a_policy_of_many_facts_is_explained_within_bounds() -> None:
    """However many facts are missing, the tries end, and what is likely is tried first."""
    policy = written(
        "when: {competes: false, competes-basis: any, competes-assessed-by: any,"
        " audience: public, visibility: weights, student-kind: image, commercial: true,"
        " automation: batch, similar: false, research: true, jurisdiction: EU,"
        " notices: {all: [display, flow-down]}, base-model: {starts: elm}}"
    )

    explanation = of(policy, purpose="train.sft")

    assert [change.effect for change in explanation.changes if len(change.facts) == 13] == [
        Effect.PERMIT
    ]
