"""The vocabulary is closed, explained, and the same in code and on paper."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from gateway.intent.country import COUNTRIES
from gateway.intent.declare import LISTS, YES_NO
from gateway.intent.model import (
    GENERATIVE,
    Audience,
    Automation,
    IntendedUse,
    Notice,
    StudentKind,
    Visibility,
)
from gateway.intent.purpose import PURPOSES
from gateway.policy.condition import value_of
from gateway.policy.obligation import OBLIGATIONS
from gateway.policy.source import node_at, plain, read
from gateway.policy.vocabulary import FACTS, REGIONS, Fact, is_plain_use, vocabulary_yaml
from gateway.provider.model import Operation


def test_words_are_those_of_the_types() -> None:
    """The words of declarations and requests are in the vocabulary, and no others."""
    assert list(FACTS["purpose"].words) == list(PURPOSES)
    assert list(FACTS["student-kind"].words) == list(get_args(StudentKind))
    assert list(FACTS["audience"].words) == list(get_args(Audience))
    assert list(FACTS["visibility"].words) == list(get_args(Visibility))
    assert list(FACTS["automation"].words) == list(get_args(Automation))
    assert list(FACTS["notices"].words) == list(get_args(Notice)) == list(LISTS["notices"])
    assert set(FACTS["operation"].words) == {operation.value for operation in Operation}


def test_every_declared_fact_is_a_key_of_the_declaration() -> None:
    """What a caller is asked to declare, it can declare."""
    keys = {field.encode_name for field in msgspec.structs.fields(IntendedUse)}
    declared = {fact.name for fact in FACTS.values() if fact.origin == "declared"}

    assert declared <= keys
    assert keys - declared == {"agreement"}


def test_kinds_of_facts_are_kinds_of_keys() -> None:
    """What a declaration writes as yes or no, or as a list, a condition asks so."""
    declared = [fact for fact in FACTS.values() if fact.origin == "declared"]

    assert {fact.name for fact in declared if fact.kind == "yes-no"} == YES_NO
    assert {fact.name for fact in declared if fact.kind == "words"} == LISTS.keys()


@pytest.mark.parametrize("fact", [f for f in FACTS.values() if f.presumed is not None])
def test_what_is_presumed_is_a_value_of_its_fact(fact: Fact) -> None:
    """A presumption could have been registered as it stands."""
    text = str(fact.presumed).lower() if isinstance(fact.presumed, bool) else fact.presumed
    node = node_at(read(f"{fact.name}: {text}", "v.yaml"), fact.name)

    assert node is not None
    assert value_of(fact, node, "v.yaml") == fact.presumed
    assert fact.origin == "registered"


def test_words_have_meanings_in_plain_text() -> None:
    """Every fact and word says what it means, in one line without a full stop."""
    meanings = [fact.meaning for fact in FACTS.values()]
    meanings += [meaning for fact in FACTS.values() for meaning in fact.words.values()]

    assert [one for one in meanings if not one or "\n" in one or one.endswith(".")] == []


def test_regions_hold_countries() -> None:
    """A region is no country, and its members are."""
    assert COUNTRIES.isdisjoint(REGIONS)
    assert all(members <= COUNTRIES for members in REGIONS.values())
    assert len(COUNTRIES) == 249


def test_plain_use_is_inference_and_evaluation() -> None:
    """Nothing is trained or passed on in plain use."""
    plain_uses = [purpose for purpose in PURPOSES if is_plain_use(purpose)]

    assert plain_uses == [
        "inference",
        "evaluate",
        "evaluate.internal",
        "evaluate.benchmark",
        "evaluate.red-team",
    ]
    assert not is_plain_use(None)


def test_generative_kinds_say_so() -> None:
    """The words of a student's kind tell which are generative."""
    said = {
        kind for kind, meaning in FACTS["student-kind"].words.items() if "generative" in meaning
    }

    assert said == set(GENERATIVE)


def test_the_written_vocabulary_reads_as_the_table() -> None:
    """The YAML for people holds every fact, word and obligation."""
    written = plain(read(vocabulary_yaml(), "vocabulary.yaml"))

    assert list(written["facts"]) == list(FACTS)
    assert list(written["obligations"]) == list(OBLIGATIONS)
    for name, fact in FACTS.items():
        assert written["facts"][name].get("words", {}) == dict(fact.words)
        assert written["facts"][name]["meaning"] == fact.meaning
