"""The schema for editors fits every file that loads and refuses what does not."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from gateway.errors import MalformedPolicyError
from gateway.intent.purpose import PURPOSES
from gateway.policy.condition import compile_condition, value_of
from gateway.policy.obligation import OBLIGATIONS
from gateway.policy.schema import library_schema, schema_json
from gateway.policy.source import node_at, plain, read
from gateway.policy.vocabulary import FACTS
from gateway.store.policies import builtin_policies, read_policy_files
from tests.support.rulings import ACME, LICENCE, MODELS, STANDARD, TERMS
from tests.support.schema import Schema, faults, fits

CASE = """\
use: {purpose: train.sft, student-kind: chat, competes: false, notices: [display]}
call: {operation: chat, model: m, features: [tools], modality: [text]}
facts: {account-tier: paid, monthly-users: {2026-01: 5}, region-supported: true}
lifted: [no-rivals]
on: 2026-11-22
expect: {effect: hold, reasons: [a], obligations: [disclose-ai], missing: [competes]}
note: A case.
"""


@cache
def schema() -> Schema:
    """Return the schema."""
    return library_schema()


def spelt(text: str) -> Any:
    """Return *text* as the strict reader sees it."""
    return plain(read(text, "x.yaml"))


def is_valid(text: str) -> bool:
    """Tell whether the file *text* is valid."""
    return fits(schema(), spelt(text), schema())


def defined(name: str, text: str) -> bool:
    """Tell whether *text* fits a part of the schema."""
    return fits({"$ref": f"#/$defs/{name}"}, spelt(text), schema())


@cache
def library_files() -> dict[str, str]:
    """Return every YAML file of the library that people write, patterns included."""
    files = read_policy_files(builtin_policies())
    return {
        name: text
        for name, text in files.items()
        if name.endswith(".yaml") and name != "vocabulary.yaml"
    }


def test_the_schema_on_paper_is_fresh() -> None:
    """`policies/schema.json` is what `gateway policy schema` prints."""
    text = (builtin_policies() / "schema.json").read_text(encoding="utf-8")

    assert text == schema_json()
    assert json.loads(text) == schema()


def test_every_file_of_the_library_is_valid() -> None:
    """What loads has no red line in an editor."""
    unfit = [name for name, text in library_files().items() if not is_valid(text)]

    assert unfit == []
    assert len(library_files()) > 100


def test_no_mutated_file_of_the_library_is_valid() -> None:
    """A file with a key too many, or without one that is required, fits no more."""
    unnoticed = []
    for name, text in library_files().items():
        if "/cases/permit-" in name or "/cases/hold-" in name:
            continue  # Each folder has cases of other names, and all are alike.
        for number, mutant in enumerate(mutants(spelt(text))):
            if fits(schema(), mutant, schema()):
                unnoticed.append((name, number))

    assert unnoticed == []


def mutants(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield *document* with one mistake each."""
    yield {**document, "extra": "x"}
    required = {"policy", "clauses", "documents", "models", "uses", "use", "expect", "on"}
    for key in document.keys() & required:
        yield {one: value for one, value in document.items() if one != key}
        yield {**document, key: 3.5}
    for path, key, value in _wrong(document):
        mutant = copy.deepcopy(document)
        there: Any = mutant
        for step in path:
            there = there[step]
        there[key] = value
        yield mutant


def _wrong(document: dict[str, Any]) -> Iterator[tuple[list[Any], str, object]]:
    if "clauses" in document:
        yield ["clauses", 0], "effect", "alow"
        yield ["clauses", 0], "when", {"purpose": "traning"}
        yield ["clauses", 0], "when", {"no-such-fact": "x"}
        yield ["clauses", 0], "obligations", ["no-such-duty"]
        yield ["clauses", 0], "binds", ["everybody"]
        yield [], "review_by", "soon"
    if "documents" in document:
        yield ["documents", 0], "confidence", "certain"
        yield ["documents", 0], "efective", "2026-01-01"
    if "models" in document:
        yield ["models", 0], "terms", "mit"
    if "use" in document:
        yield ["use"], "purpose", "traning"
        yield ["use"], "student-kind", "robot"
        yield ["expect"], "effect", "allow"
        yield [], "facts", {"account-tier": "gold"}
        yield [], "call", {"features": ["levitation"]}
    if "uses" in document:
        yield ["uses", 0], "use", {"audience": "nobody"}
    if "rows" in document:
        yield ["rows", 0], "facts", {"access-route": "tunnel"}
        yield ["rows", 0], "purposes", {"train": "traning"}


@pytest.mark.parametrize("text", [ACME, LICENCE, TERMS, MODELS, STANDARD, CASE])
def test_each_sort_of_file_is_told_by_its_keys(text: str) -> None:
    """Exactly one of the five sorts fits."""
    fitting = [one["$ref"] for one in schema()["oneOf"] if fits(one, spelt(text), schema())]

    assert len(fitting) == 1


CONDITIONS = [
    "purpose: train",
    "purpose: [train.sft, verify]",
    "purpose: {not: [train]}",
    "purpose: traning",
    "purpose: []",
    "purpose: {starts: train}",
    "student: any",
    "student: none",
    "student: [a, b]",
    "student: {not: any}",
    "student: {not: [a, none]}",
    "student: {starts: llama}",
    'student: {starts: ""}',
    "student: {starts: [a]}",
    "student: 7",
    "student: {starts: a, not: b}",
    "student-kind: chat",
    "student-kind: {not: chat}",
    "student-kind: robot",
    "student-kind: {all: [chat]}",
    "competes: true",
    "competes: [true, false]",
    "competes: maybe",
    "competes: {not: true}",
    "generative: false",
    "jurisdiction: DE",
    "jurisdiction: [EU, CH]",
    "jurisdiction: {not: EEA}",
    "jurisdiction: UK",
    "jurisdiction: de",
    "features: tools",
    "features: {all: [tools, code]}",
    "features: {not: tools}",
    "features: []",
    "features: {all: []}",
    "features: {any: [tools]}",
    "monthly-users: 5",
    "monthly-users: {over: 5}",
    "monthly-users: {over: 5, at: 2026-01}",
    "monthly-users: {at-least: 5, under: 9}",
    "monthly-users: {at: 2026-01}",
    "monthly-users: {at: 2026-13, over: 1}",
    "monthly-users: {above: 5}",
    "monthly-users: {}",
    "monthly-users: -5",
    "monthly-users: many",
    "generated-on: 2026-01-01",
    "generated-on: {from: 2026-01-01}",
    "generated-on: {from: 2026-01-01, until: 2026-02-01}",
    "generated-on: {}",
    "generated-on: {since: 2026-01-01}",
    "generated-on: today",
    "agreement: any",
    "purpose: {}",
    "purpose:",
]


@pytest.mark.parametrize("text", CONDITIONS)
def test_a_condition_fits_if_it_compiles(text: str) -> None:
    """Schema and compiler agree on every kind of fact and comparison."""
    try:
        compile_condition(read(text, "x.yaml"), None, "x.yaml")
        compiles = True
    except MalformedPolicyError:
        compiles = False

    assert defined("Condition", text) is compiles


@pytest.mark.parametrize(
    "text",
    [
        "account-tier: paid",
        "account-tier: [paid]",
        "account-tier: gold",
        "purpose: train",
        "purpose: traning",
        "model: m",
        "model: [m]",
        "competes: false",
        "competes: perhaps",
        "headquarters: DE",
        "headquarters: EU",
        "features: [tools]",
        "features: tools",
        "features: []",
        "features: [tolls]",
        "monthly-users: 7",
        "monthly-users: {2026-01: 7, 2026-02: 8}",
        "monthly-users: {January: 7}",
        "monthly-users: {2026-01: many}",
        "generated-on: 2026-11-01",
        "generated-on: yesterday",
    ],
)
def test_a_stated_fact_fits_if_it_is_read(text: str) -> None:
    """Schema and reader agree on what a case may state."""
    name = text.partition(":")[0]
    node = node_at(read(text, "x.yaml"), name)
    assert node is not None
    try:
        value_of(FACTS[name], node, "x.yaml")
        is_read = True
    except MalformedPolicyError:
        is_read = False

    assert defined("Facts", text) is is_read


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("{a: disclose-ai}", True),
        ("{a: {name-prefix: Llama}}", True),
        ("{a: {delete-by-days: 30}}", True),
        ("{a: name-prefix}", False),
        ("{a: {disclose-ai: x}}", False),
        ("{a: {delete-by-days: 0}}", False),
        ("{a: {delete-by-days: soon}}", False),
        ('{a: {attribute: "one, two"}}', False),
        ("{a: {name-prefix: x, attribute: y}}", False),
        ("{a: no-such-duty}", False),
    ],
)
def test_an_obligation_takes_what_it_takes(text: str, *, valid: bool) -> None:
    """An obligation has its value, and one that takes none has none."""
    part = {"$ref": "#/$defs/Obligation"}

    assert fits(part, spelt(text)["a"], schema()) is valid


def test_editors_say_what_words_mean() -> None:
    """Purposes, facts, their words and obligations carry the vocabulary's sentences."""
    text = schema_json()

    said = [*PURPOSES.values(), *(one.sentence for one in OBLIGATIONS.values())]
    for fact in FACTS.values():
        said += [fact.meaning, *fact.words.values()]
    for sentence in said:
        assert json.dumps(sentence, ensure_ascii=False) in text


def test_yes_and_no_may_be_spelt_as_editors_read_them() -> None:
    """`true` is a yes whether it comes as a word or as a truth value."""
    for yes in (True, "true"):
        assert fits({"$ref": "#/$defs/Condition"}, {"competes": yes}, schema())
    assert not fits({"$ref": "#/$defs/Condition"}, {"competes": 1}, schema())


def test_a_template_tells_editors_where_the_schema_lies() -> None:
    """Whoever copies the pattern gets completion."""
    first = library_files()["_template/policy.yaml"].splitlines()[0]

    assert first == "# yaml-language-server: $schema=../schema.json"


def test_an_unknown_keyword_is_no_pass() -> None:
    """The checker of these tests refuses what it doesn't know."""
    with pytest.raises(KeyError):
        list(faults({"maxProperties": 1}, {"a": 1}, schema()))
    assert not fits({"maxLength": 1}, "ab", schema())
