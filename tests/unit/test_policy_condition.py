"""Three-valued conditions keep their docstring's promise."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.errors import MalformedPolicyError
from gateway.policy.condition import Condition, OneOf, Truth, Value, compile_condition, value_of
from gateway.policy.source import Keyed, node_at, read
from gateway.policy.vocabulary import FACTS


def condition(text: str) -> Condition:
    """Return the condition that the keys `when` and `unless` of *text* spell."""
    node = read(text, "p.yaml")
    return compile_condition(node_at(node, "when"), node_at(node, "unless"), "p.yaml")


@pytest.mark.parametrize(
    ("text", "known", "truth"),
    [
        ("when: {}", {}, True),
        ("when: {competes: true}", {}, None),
        ("when: {competes: true}", {"competes": True}, True),
        ("when: {competes: true}", {"competes": False}, False),
        ("when: {competes: [true, false]}", {}, None),
        ("when: {purpose: train}", {"purpose": "train.sft"}, True),
        ("when: {purpose: train}", {"purpose": "train"}, True),
        ("when: {purpose: train.sft}", {"purpose": "train"}, False),
        ("when: {purpose: train}", {"purpose": "inference"}, False),
        ("when: {purpose: [train, data]}", {"purpose": "publish.dataset"}, True),
        ("when: {competes: true, audience: internal}", {"competes": False}, False),
        ("when: {competes: true, audience: internal}", {"competes": True}, None),
        ("when: {generative: true}", {"student-kind": "chat"}, True),
        ("when: {generative: true}", {"student-kind": "classifier"}, False),
        ("when: {generative: false}", {"student-kind": "classifier"}, True),
        ("when: {generative: true}", {}, None),
        ("when: {agreement: any}", {"agreement": "none"}, False),
        ("when: {agreement: any}", {"agreement": "a-7"}, True),
        ("when: {agreement: none}", {"agreement": "none"}, True),
        ("when: {model: [m-1, m-2]}", {"model": "m-2"}, True),
        ("when: {features: tools}", {"features": frozenset({"tools", "n"})}, True),
        ("when: {features: [tools, images]}", {"features": frozenset({"n"})}, False),
        ("when: {features: tools}", {}, None),
        (
            "when: {reasoning-kind: elicited}",
            {"reasoning-kind": OneOf(frozenset({"none"}))},
            False,
        ),
        (
            "when: {reasoning-kind: visible}",
            {"reasoning-kind": OneOf(frozenset({"visible", "none"}))},
            None,
        ),
        (
            "when: {reasoning-kind: [visible, none]}",
            {"reasoning-kind": OneOf(frozenset({"visible", "none"}))},
            True,
        ),
        ("when: {model: any}", {"model": OneOf(frozenset({"a", "none"}))}, None),
        ("when: {}\nunless: {competes: false}", {}, None),
        ("when: {}\nunless: {competes: false}", {"competes": False}, False),
        ("when: {}\nunless: {competes: false}", {"competes": True}, True),
        ("unless: [{competes: false}, {audience: internal}]", {"audience": "internal"}, False),
        ("unless: [{competes: false}, {audience: internal}]", {"audience": "public"}, None),
        ("unless: {competes: false, audience: internal}", {"audience": "public"}, True),
        (
            "when: {competes: true}\nunless: {audience: internal}",
            {"audience": "internal"},
            False,
        ),
    ],
)
def test_truth_follows_kleene(text: str, known: Mapping[str, Value], truth: Truth) -> None:
    """What is unknown stays unknown unless the other parts decide."""
    assert condition(text).truth(known) is truth


def test_missing_names_only_what_leaves_it_open() -> None:
    """The facts of settled parts, and of exceptions that are out, are not asked for."""
    asked = condition(
        "when: {purpose: train, competes: true}\n"
        "unless: [{student-kind: classifier, audience: internal}, {commercial: false}]"
    )

    assert {"competes", "commercial"} == asked.missing(
        {"purpose": "train.sft", "student-kind": "chat"}
    )
    assert {"purpose", "competes", "student-kind", "audience", "commercial"} == asked.facts()


def test_generative_is_missing_as_student_kind() -> None:
    """What follows from another fact is asked for by the name that a caller can declare."""
    assert {"student-kind"} == condition("when: {generative: true}").missing({})


def test_what_is_left_once_a_fact_is_known() -> None:
    """Given a fact, the rest of the condition decides as the whole did."""
    asked = condition(
        "when: {purpose: train, competes: true}\n"
        "unless: [{purpose: train.sft, audience: internal}, {purpose: verify}]"
    )

    left = asked.given("purpose", "train.sft")

    assert left is not None
    assert {"competes", "audience"} == left.facts()
    assert asked.given("purpose", "inference") is None
    assert condition("unless: {purpose: train}").given("purpose", "train.sft") is None


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("when: {compets: true}", 1, "unknown fact `compets`", "did you mean `competes`?"),
        ("when: {zzz: true}", 1, "unknown fact `zzz`", "known facts: purpose"),
        ("when:\n  audience: interal", 2, "`audience` can't be `interal`", "`internal`?"),
        ("when:\n  audience:\n    - internal\n    - 7", 4, "`audience` can't be `7`", "one of"),
        ("when: {competes: maybe}", 1, "`competes` can't be `maybe`", "true, false"),
        ("when: {competes: no}", 1, "`competes` can't be `no`", ""),
        ("when: {purpose: train.sfd}", 1, "`purpose` can't be `train.sfd`", "`train.sft`?"),
        ("when: [purpose]", 1, "a condition must be a mapping", ""),
        ("when: train", 1, "a condition must be a mapping", ""),
        ("when: {purpose: {a: b}}", 1, "`purpose` takes a word or a list of words", ""),
        ("when: {purpose: []}", 1, "`purpose` takes a word or a list of words", ""),
        ("when: {purpose: [[train]]}", 1, "`purpose` takes words", ""),
        ("when: {purpose: }", 1, "`purpose` takes words", ""),
        ("when: {model: [any, m-1]}", 1, "`any` stands alone", ""),
        ("unless:\n  - {}", 2, "an empty exception", "leave `unless` out"),
        ("unless: {}", 1, "an empty exception", ""),
    ],
)
def test_a_word_outside_the_vocabulary_is_an_error(
    text: str, line: int, message: str, hint: str
) -> None:
    """Unknown facts and words are refused with their line and the nearest right one."""
    with pytest.raises(MalformedPolicyError) as caught:
        condition(text)

    assert line == caught.value.line
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_values_of_cases_are_read_by_their_fact() -> None:
    """A case gives one word, a set of words, or yes and no, as the fact has it."""
    node = read(
        "features: [tools, n]\ncompetes: true\nmodel: m\naudience: [internal]\nempty: []",
        "c.yaml",
    )
    assert isinstance(node, Keyed)
    entries = node.entries

    assert frozenset({"tools", "n"}) == value_of(FACTS["features"], entries["features"], "c")
    assert frozenset() == value_of(FACTS["features"], entries["empty"], "c")
    assert value_of(FACTS["competes"], entries["competes"], "c") is True
    assert value_of(FACTS["model"], entries["model"], "c") == "m"
    with pytest.raises(MalformedPolicyError, match="`audience` takes one value"):
        value_of(FACTS["audience"], entries["audience"], "c")


def test_covering_tests_are_known() -> None:
    """A test covers another of the same fact if whatever fits that one fits it too."""
    anything, nothing, two, one = (
        condition(f"when: {{model: {words}}}").when[0]
        for words in ("any", "none", "[a, b]", "a")
    )

    assert two.covers(one)
    assert not one.covers(two)
    assert anything.covers(anything)
    assert anything.covers(two)
    assert not anything.covers(nothing)
    assert not two.covers(anything)
