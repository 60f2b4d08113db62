"""The vocabulary is closed, explained, and the same in code and on paper."""

from __future__ import annotations

from typing import get_args

import msgspec

from gateway.intent.model import GENERATIVE, Audience, IntendedUse, StudentKind, Visibility
from gateway.intent.purpose import PURPOSES
from gateway.policy.obligation import OBLIGATIONS
from gateway.policy.source import plain, read
from gateway.policy.vocabulary import FACTS, vocabulary_yaml
from gateway.provider.model import Operation


def test_words_are_those_of_the_types() -> None:
    """The words of declarations and requests are in the vocabulary, and no others."""
    assert list(FACTS["purpose"].words) == list(PURPOSES)
    assert list(FACTS["student-kind"].words) == list(get_args(StudentKind))
    assert list(FACTS["audience"].words) == list(get_args(Audience))
    assert list(FACTS["visibility"].words) == list(get_args(Visibility))
    assert set(FACTS["operation"].words) == {operation.value for operation in Operation}


def test_every_declared_fact_is_a_key_of_the_declaration() -> None:
    """What a caller is asked to declare, it can declare."""
    keys = {field.encode_name for field in msgspec.structs.fields(IntendedUse)}
    declared = {fact.name for fact in FACTS.values() if fact.origin == "declared"}

    assert declared <= keys
    assert keys - declared == {"student"}


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
