"""Three-valued conditions keep their docstring's promise."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import pytest

from gateway.errors import MalformedPolicyError
from gateway.policy.condition import Measured, OneOf, Truth, Value, value_of
from gateway.policy.source import Keyed, read
from gateway.policy.vocabulary import FACTS, REGIONS
from tests.support.policies import condition

NEW = dt.date(2026, 11, 22)
USERS = Measured((("2024-05", 900), ("2024-06", 700), ("2026-01", 500)))


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
        ("when: {purpose: [train, publish]}", {"purpose": "publish.dataset"}, True),
        ("when: {competes: true, audience: internal}", {"competes": False}, False),
        ("when: {competes: true, audience: internal}", {"competes": True}, None),
        ("when: {generative: true}", {"student-kind": "chat"}, True),
        ("when: {generative: true}", {"student-kind": "classifier"}, False),
        ("when: {generative: false}", {"student-kind": "classifier"}, True),
        ("when: {generative: true}", {}, None),
        ("when: {purpose: train}", {"purpose": "provider-fine-tune"}, False),
        ("when: {purpose: {not: train}}", {"purpose": "train.sft"}, False),
        ("when: {purpose: {not: train}}", {"purpose": "verify"}, True),
        ("when: {purpose: {not: train}}", {}, None),
        ("when: {generated-for: train}", {"generated-for": "train.sft"}, True),
        ("when: {base-model: any}", {"base-model": "none"}, False),
        ("when: {base-model: any}", {"base-model": "b-7"}, True),
        ("when: {base-model: any}", {}, None),
        ("when: {base-model: none}", {"base-model": "none"}, True),
        ("when: {base-model: {not: [a, b]}}", {"base-model": "b"}, False),
        ("when: {base-model: {not: [a, b]}}", {"base-model": "c"}, True),
        ("when: {base-model: {starts: LLama}}", {"base-model": "llama-3"}, True),
        ("when: {base-model: {starts: llama}}", {"base-model": "Llama-3"}, True),
        ("when: {base-model: {starts: llama}}", {"base-model": "my-llama"}, False),
        ("when: {base-model: {starts: n}}", {"base-model": "none"}, False),
        ("when: {base-model: {starts: llama}}", {}, None),
        ("when: {audience: {not: [public, customers]}}", {"audience": "public"}, False),
        ("when: {audience: {not: [public, customers]}}", {"audience": "internal"}, True),
        ("when: {audience: {not: public}}", {}, None),
        ("when: {jurisdiction: EU}", {"jurisdiction": "DE"}, True),
        ("when: {jurisdiction: EU}", {"jurisdiction": "NO"}, False),
        ("when: {jurisdiction: EEA}", {"jurisdiction": "NO"}, True),
        ("when: {jurisdiction: [US, EU]}", {"jurisdiction": "US"}, True),
        ("when: {jurisdiction: {not: [CN, EU]}}", {"jurisdiction": "FR"}, False),
        ("when: {jurisdiction: {not: [CN, EU]}}", {"jurisdiction": "GB"}, True),
        ("when: {jurisdiction: EU}", {}, None),
        ("when: {monthly-users: {over: 700}}", {"monthly-users": 700}, False),
        ("when: {monthly-users: {over: 700}}", {"monthly-users": 701}, True),
        ("when: {monthly-users: {at-least: 700}}", {"monthly-users": 700}, True),
        ("when: {monthly-users: {at-least: 700}}", {"monthly-users": 699}, False),
        ("when: {monthly-users: {under: 700}}", {"monthly-users": 700}, False),
        ("when: {monthly-users: {under: 700}}", {"monthly-users": 699}, True),
        ("when: {monthly-users: {at-most: 700}}", {"monthly-users": 700}, True),
        ("when: {monthly-users: {at-most: 700}}", {"monthly-users": 701}, False),
        ("when: {monthly-users: {over: 1, under: 3}}", {"monthly-users": 2}, True),
        ("when: {monthly-users: {over: 1, at-least: 5}}", {"monthly-users": 4}, False),
        ("when: {monthly-users: {under: 9, at-most: 5}}", {"monthly-users": 6}, False),
        ("when: {monthly-users: 7}", {"monthly-users": 7}, True),
        ("when: {monthly-users: 7}", {"monthly-users": 8}, False),
        ("when: {monthly-users: {over: 700}}", {}, None),
        ("when: {monthly-users: {over: 600}}", {"monthly-users": USERS}, False),
        ("when: {monthly-users: {over: 600, at: 2024-06}}", {"monthly-users": USERS}, True),
        ("when: {monthly-users: {over: 600, at: 2025-06}}", {"monthly-users": USERS}, None),
        ("when: {monthly-users: {over: 600, at: 2025-06}}", {"monthly-users": 601}, True),
        ("when: {monthly-users: {over: 600}}", {"monthly-users": Measured(())}, None),
        ("when: {generated-on: {from: 2026-11-22}}", {"generated-on": NEW}, True),
        ("when: {generated-on: {from: 2026-11-23}}", {"generated-on": NEW}, False),
        ("when: {generated-on: {until: 2026-11-22}}", {"generated-on": NEW}, True),
        ("when: {generated-on: {until: 2026-11-21}}", {"generated-on": NEW}, False),
        ("when: {generated-on: 2026-11-22}", {"generated-on": NEW}, True),
        ("when: {generated-on: 2026-11-21}", {"generated-on": NEW}, False),
        ("when: {generated-on: {until: 2026-11-21}}", {}, None),
        ("when: {notices: {all: [display, attribution]}}", {}, None),
        (
            "when: {notices: {all: [display, attribution]}}",
            {"notices": frozenset({"display"})},
            False,
        ),
        (
            "when: {notices: {all: [display]}}",
            {"notices": frozenset({"display", "attribution"})},
            True,
        ),
        ("when: {notices: {not: display}}", {"notices": frozenset({"display"})}, False),
        ("when: {notices: {not: display}}", {"notices": frozenset()}, True),
        ("when: {modality: [image, audio]}", {"modality": frozenset({"text"})}, False),
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
        (
            "when: {reasoning-kind: {not: elicited}}",
            {"reasoning-kind": OneOf(frozenset({"none", "visible"}))},
            True,
        ),
        ("when: {model: any}", {"model": OneOf(frozenset({"a", "none"}))}, None),
        ("when: {model: {starts: a}}", {"model": OneOf(frozenset({"a", "b"}))}, None),
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
        ("when: {purpose: {a: b}}", 1, "`purpose` can't be compared by `a`", "`{not: …}`"),
        ("when: {agreement: any}", 1, "unknown fact `agreement`", ""),
        ("when: {competes: {not: true}}", 1, "`competes` can't be compared by `not`", "a list"),
        ("when: {audience: {all: internal}}", 1, "can't be compared by `all`", "`{not: …}`"),
        ("when: {audience: {starts: int}}", 1, "can't be compared by `starts`", "not"),
        ("when: {model: {starts: a, not: b}}", 1, "compared by `starts, not`", "starts"),
        ("when: {model: {starts: [a, b]}}", 1, "more or less than one beginning", "starts"),
        ("when: {model: {starts: ''}}", 1, "more or less than one beginning", "starts"),
        ("when: {model: {}}", 1, "`model` is compared with nothing", ""),
        ("when: {model: {not: any}}", 1, "`any` stands alone", ""),
        ("when: {notices: []}", 1, "`notices` is compared with nothing", ""),
        ("when: {notices: {all: []}}", 1, "`notices` is compared with nothing", ""),
        ("when: {notices: {not: []}}", 1, "`notices` is compared with nothing", ""),
        ("when: {notices: {all: [licence]}}", 1, "`notices` can't be `licence`", "-copy"),
        ("when: {jurisdiction: de}", 1, "`jurisdiction` can't be `de`", "EU, EEA"),
        ("when: {jurisdiction: Germany}", 1, "`jurisdiction` can't be `Germany`", "ISO 3166"),
        ("when: {jurisdiction: XX}", 1, "`jurisdiction` can't be `XX`", "ISO 3166"),
        ("when: {jurisdiction: UK}", 1, "`jurisdiction` can't be `UK`", "`GB`"),
        ("when: {monthly-users: many}", 1, "`monthly-users` takes a whole number", "unquoted"),
        ("when: {monthly-users: -1}", 1, "`monthly-users` takes a whole number", ""),
        ('when: {monthly-users: "7"}', 1, "`monthly-users` takes a whole number", ""),
        ("when: {monthly-users: 1.5}", 1, "`monthly-users` takes a whole number", ""),
        ("when: {monthly-users: {over: 7e8}}", 1, "takes a whole number", ""),
        ("when: {monthly-users: [1]}", 1, "nothing that can be compared", "over: 700000000"),
        ("when: {monthly-users: {}}", 1, "nothing that can be compared", ""),
        ("when: {monthly-users: {more: 1}}", 1, "can't be compared by `more`", "write"),
        ("when: {monthly-users: {at-lest: 1}}", 1, "compared by `at-lest`", "`at-least`?"),
        ("when: {monthly-users: {at: 2024-06}}", 1, "compared with nothing", ""),
        ("when: {monthly-users: {over: 1, at: june}}", 1, "`june` is not a month", "YYYY-MM"),
        ("when: {monthly-users: {over: 1, at: 2024-13}}", 1, "not a month", "YYYY-MM"),
        ("when: {monthly-users: {over: 1, at: 2024-06-01}}", 1, "not a month", "YYYY-MM"),
        ("when: {monthly-users: {over: 1, at: {}}}", 1, "`` is not a month", "YYYY-MM"),
        ("when: {monthly-users: {over: 9, under: 10}}", 1, "no number fits", ""),
        ("when: {generated-on: yesterday}", 1, "`generated-on` takes a day", "YYYY-MM-DD"),
        ("when: {generated-on: 2026-02-30}", 1, "`generated-on` takes a day", ""),
        ("when: {generated-on: 2026-W01-1}", 1, "`generated-on` takes a day", ""),
        ("when: {generated-on: {from: 2026-W01-1}}", 1, "`generated-on` takes a day", ""),
        ("when: {generated-on: {form: 2026-01-01}}", 1, "compared by `form`", "`from`?"),
        ("when: {generated-on: {}}", 1, "nothing that can be compared", "from: 2026-01-01"),
        (
            "when: {generated-on: {from: 2026-01-02, until: 2026-01-01}}",
            1,
            "no day fits `generated-on`",
            "",
        ),
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


VALUES = """\
features: [tools, n]
competes: true
model: m
jurisdiction: DE
monthly-users: 40000
revenue-annual: {2026-01: 2, 2024-06: 1}
generated-on: 2026-11-22
notices: []
"""


def test_values_of_cases_are_read_by_their_fact() -> None:
    """A case gives a word, a set, yes or no, a number, months or a day, as the fact has it."""
    node = read(VALUES, "c.yaml")
    assert isinstance(node, Keyed)

    values = {name: value_of(FACTS[name], one, "c") for name, one in node.entries.items()}

    assert values == {
        "features": frozenset({"tools", "n"}),
        "competes": True,
        "model": "m",
        "jurisdiction": "DE",
        "monthly-users": 40000,
        "revenue-annual": Measured((("2024-06", 1), ("2026-01", 2))),
        "generated-on": NEW,
        "notices": frozenset(),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("audience: [internal]", "`audience` takes one value"),
        ("audience: []", "`audience` takes a word or a list of words"),
        ("audience: nobody", "`audience` can't be `nobody`"),
        ("jurisdiction: EU", "`EU` is no country"),
        ("jurisdiction: EEA", "`EEA` is no country"),
        ("monthly-users: {}", "`monthly-users` takes a whole number"),
        ("monthly-users: {june: 1}", "`june` is not a month"),
        ("monthly-users: {2024-06: many}", "`monthly-users` takes a whole number"),
        ("monthly-users: true", "`monthly-users` takes a whole number"),
        ("generated-on: today", "`generated-on` takes a day"),
        ("generated-on: [2026-01-01]", "`generated-on` takes a day"),
        ("notices: licence", "`notices` can't be `licence`"),
        ("competes: 1", "`competes` can't be `1`"),
    ],
)
def test_a_value_that_a_fact_cannot_have_is_an_error(text: str, message: str) -> None:
    """What stands in a case is held to the vocabulary like a condition."""
    node = read(text, "c.yaml")
    assert isinstance(node, Keyed)
    ((name, child),) = node.entries.items()

    with pytest.raises(MalformedPolicyError) as caught:
        value_of(FACTS[name], child, "c.yaml")

    assert message in caught.value.message
    assert (caught.value.file, caught.value.line) == ("c.yaml", 1)


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("{model: [a, b]}", "{model: a}", True),
        ("{model: a}", "{model: [a, b]}", False),
        ("{model: any}", "{model: any}", True),
        ("{model: any}", "{model: [a, b]}", True),
        ("{model: any}", "{model: none}", False),
        ("{model: [a, b]}", "{model: any}", False),
        ("{model: any}", "{model: {starts: a}}", True),
        ("{model: {starts: a}}", "{model: {starts: ab}}", True),
        ("{model: {starts: ab}}", "{model: {starts: a}}", False),
        ("{model: {starts: a}}", "{model: [ab, AC]}", True),
        ("{model: {starts: a}}", "{model: [ab, b]}", False),
        ("{model: {starts: n}}", "{model: none}", False),
        ("{model: {not: a}}", "{model: {not: [a, b]}}", True),
        ("{model: {not: [a, b]}}", "{model: {not: a}}", False),
        ("{audience: {not: public}}", "{audience: internal}", True),
        ("{audience: {not: public}}", "{audience: [internal, public]}", False),
        ("{notices: [display, attribution]}", "{notices: display}", True),
        ("{notices: {not: display}}", "{notices: attribution}", False),
        ("{notices: {all: [display]}}", "{notices: {all: [display, attribution]}}", True),
        ("{notices: {all: [display, attribution]}}", "{notices: {all: [display]}}", False),
        ("{notices: display}", "{notices: {all: [display, attribution]}}", True),
        ("{notices: {all: [display]}}", "{notices: display}", True),
        ("{notices: {all: [display]}}", "{notices: [display, attribution]}", False),
        ("{monthly-users: {over: 5}}", "{monthly-users: {over: 6}}", True),
        ("{monthly-users: {over: 6}}", "{monthly-users: {over: 5}}", False),
        ("{monthly-users: {over: 5}}", "{monthly-users: 6}", True),
        ("{monthly-users: {under: 5}}", "{monthly-users: {over: 5}}", False),
        ("{monthly-users: {over: 5, at: 2024-06}}", "{monthly-users: {over: 6}}", False),
        ("{generated-on: {from: 2026-01-01}}", "{generated-on: 2026-01-02}", True),
        ("{generated-on: {until: 2026-01-01}}", "{generated-on: 2026-01-02}", False),
        ("{jurisdiction: EEA}", "{jurisdiction: EU}", True),
    ],
)
def test_covering_tests_are_known(wide: str, narrow: str, covers: bool) -> None:  # noqa: FBT001
    """A test covers another of the same fact if whatever fits that one fits it too."""
    one, other = (condition(f"when: {text}").when[0] for text in (wide, narrow))

    assert one.covers(other) is covers


def test_regions_are_countries_that_stand_for_themselves() -> None:
    """A region is another word for its members; the larger holds the smaller."""
    assert len(REGIONS["EU"]) == 27
    assert REGIONS["EU"] < REGIONS["EEA"]
