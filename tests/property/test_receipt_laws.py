"""Envelopes, statements and bundles, for guests nobody thought of."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.canonical import canonical_json
from gateway.errors import EvidenceError, KeyUnreadableError, MalformedReceiptError
from gateway.receipt.bundle import Bundle, Included, format_bundle, parse_bundle
from gateway.receipt.envelope import open_envelope, seal_statement, verify_envelope
from gateway.receipt.keys import Ed25519Signer, parse_public_pem, parse_trust
from gateway.receipt.model import Subject, Verdict
from gateway.receipt.sigstore import open_manifest
from gateway.receipt.statement import read_leaf, read_payload, write_opening, write_statement
from gateway.receipt.verify import verify_bundle, verify_leaf, verify_manifest
from gateway.tlog.proof import InclusionProof
from tests.support.evidence import AUTHORITY, OPENING, RECEIPT_SIGNER, SUBJECTS, TRUST, WRITER

KEYS = {RECEIPT_SIGNER.keyid: RECEIPT_SIGNER.public}
words = st.text(st.characters(codec="utf-8"), max_size=40)


@given(st.binary(max_size=2000))
def test_any_payload_is_sealed_and_opened(payload: bytes) -> None:
    """An envelope gives back exactly the bytes that were sealed."""
    leaf = seal_statement(payload, RECEIPT_SIGNER)

    assert verify_envelope(leaf, KEYS) == payload
    assert json.loads(leaf)["payloadType"] == "application/vnd.in-toto+json"


@given(words, words, words)
def test_any_words_are_read_as_written(by: str, reason: str, name: str) -> None:
    """What people write is stated canonically and read back, whatever it holds."""
    verdict = Verdict(approved=False, by=by, reason=reason, at="t", writer=WRITER)
    subject = Subject(name=name, digest={"sha256": "a" * 64})
    leaf = write_statement(verdict, [subject], RECEIPT_SIGNER)
    payload = open_envelope(leaf).payload

    assert verify_leaf(leaf, 0, AUTHORITY) == verdict
    assert payload == canonical_json(msgspec.json.decode(payload))


@given(words, words)
def test_any_opening_is_read_as_written(principal: str, project: str) -> None:
    """An opening gives back the names that were put into it."""
    opening = msgspec.structs.replace(OPENING, principal=principal, project=project)
    leaf = write_opening(opening)

    assert read_leaf(leaf) == opening
    assert leaf == canonical_json(msgspec.json.decode(leaf))


included = st.builds(
    Included, st.binary(max_size=300), st.integers(0, 2**63 - 1), st.just((bytes(32),))
)


@given(st.binary(max_size=300), st.integers(0, 2**63 - 1), words, st.none() | included)
def test_any_bundle_is_read_as_written(
    leaf: bytes, index: int, note: str, authorization: Included | None
) -> None:
    """A bundle gives back its leaf, its proof and its authorisation."""
    bundle = Bundle(leaf, InclusionProof(index, (bytes(32),), note), authorization)

    assert parse_bundle(format_bundle(bundle)) == bundle


def bundle_verified(encoded: bytes) -> object:
    """Return what *encoded* shows under the test's keys."""
    return verify_bundle(encoded, TRUST)


def manifest_verified(encoded: bytes) -> object:
    """Return what *encoded* states under the test's keys."""
    return verify_manifest(encoded, TRUST)


PARSERS: list[Callable[[bytes], Any]] = [
    open_envelope,
    read_leaf,
    read_payload,
    open_manifest,
    parse_bundle,
    parse_trust,
    bundle_verified,
    manifest_verified,
]
VERDICT = Verdict(approved=True, by="a", reason="b", at="t", writer=WRITER)
LEAF = write_statement(VERDICT, SUBJECTS, RECEIPT_SIGNER)
STATEMENT = json.loads(open_envelope(LEAF).payload)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), words),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)
    ),
    max_leaves=8,
)
near = st.dictionaries(
    st.sampled_from(
        [
            "payload",
            "payloadType",
            "signatures",
            "leaf",
            "mediaType",
            "proof",
            "authorization",
            "_type",
            "predicate",
        ]
    ),
    values,
).map(lambda one: json.dumps(one).encode())
changed = st.tuples(st.sampled_from(sorted(STATEMENT)), values).map(
    lambda pair: json.dumps({**STATEMENT, pair[0]: pair[1]}, separators=(",", ":")).encode()
)
anything = st.one_of(
    st.binary(max_size=200), values.map(lambda v: json.dumps(v).encode()), near, changed
)


@pytest.mark.parametrize("parse", PARSERS)
@given(encoded=anything)
def test_any_bytes_are_a_value_or_an_error(
    parse: Callable[[bytes], Any], encoded: bytes
) -> None:
    """Whatever comes in, a parser returns a value or raises one line of its own."""
    try:
        parse(encoded)
    except EvidenceError as bad:
        line = str(bad)
    else:
        return
    assert "\n" not in line


@given(st.one_of(st.binary(), st.text().map(lambda t: t.encode("utf-8", "replace"))))
def test_any_bytes_are_a_key_or_an_error(pem: bytes) -> None:
    """Whatever stands in a key file, it is a key or an error for who must act."""
    with pytest.raises(KeyUnreadableError):
        Ed25519Signer(pem)
    with pytest.raises(MalformedReceiptError):
        parse_public_pem(pem.decode("latin-1"))
