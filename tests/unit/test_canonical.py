"""One way to write a value, and digests that depend on nothing else."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.canonical import (
    canonical_json,
    digest_of,
    keyed_sha256,
    salted_sha256,
    sha256_hex,
)

texts = st.text()
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_is_written_reads_back(value: Any) -> None:
    """The canonical form is JSON of the same value, and its own canonical form."""
    written = canonical_json(value)

    assert value == json.loads(written)
    assert written == canonical_json(json.loads(written))


@given(st.dictionaries(texts, st.integers(-9, 9), max_size=6), st.randoms())
def test_the_order_of_keys_does_not_matter(value: dict[str, int], rng: Any) -> None:
    """Equal values have equal digests, however they were put together."""
    items = list(value.items())
    rng.shuffle(items)

    assert digest_of(value) == digest_of(dict(items))


def test_the_form_has_no_blanks_and_plain_utf8() -> None:
    """Keys are sorted, nothing is escaped that need not be."""
    assert b'{"a":"\xc3\xa9","b":[1,true,null]}' == canonical_json(
        {"b": [1, True, None], "a": "é"}
    )


@pytest.mark.parametrize("value", [{1}, {"a": b"bytes"}, {1: 2}, object(), "\ud800"])
def test_what_json_has_no_form_for_is_refused(value: object) -> None:
    """Nothing is written that would read back as something else."""
    with pytest.raises(TypeError):
        canonical_json(value)


@given(st.binary(), st.binary())
def test_digests_are_those_that_others_compute(key: bytes, content: bytes) -> None:
    """SHA-256, salted SHA-256 and HMAC-SHA256 equal the standard library's."""
    assert hashlib.sha256(content).hexdigest() == sha256_hex(content)
    assert hashlib.sha256(key + content).hexdigest() == salted_sha256(key, content)
    assert hmac.new(key, content, "sha256").hexdigest() == keyed_sha256(key, content)


@given(values)
def test_a_digest_is_of_the_canonical_form(value: Any) -> None:
    """The digest of a value is that of its bytes."""
    assert sha256_hex(canonical_json(value)) == digest_of(value)
