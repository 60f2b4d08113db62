"""Laws of the verifier."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import msgspec
import pytest

from gateway.canonical import canonical_json
from gateway.errors import (
    BadProofError,
    BadSignatureError,
    EvidenceError,
    MalformedReceiptError,
)
from gateway.receipt.bundle import format_bundle
from gateway.receipt.envelope import seal_statement, seal_unnamed, verify_envelope
from gateway.receipt.keys import Ed25519Signer, LogSigner, P256Signer, generate_pem
from gateway.receipt.model import Manifest
from gateway.receipt.sigstore import wrap_leaf, write_manifest
from gateway.receipt.statement import write_opening, write_statement
from gateway.receipt.verify import (
    verify_bundle,
    verify_checkpoint,
    verify_inclusion_of,
    verify_leaf,
    verify_manifest,
)
from gateway.tlog.note import sign_note
from tests.support.evidence import (
    AUTHORITY,
    AUTHORIZATION,
    LOG_SIGNER,
    MANIFEST_SIGNER,
    OPENING,
    ORIGIN,
    RECEIPT,
    RECEIPT_SIGNER,
    SUBJECTS,
    TRUST,
    a_bundle,
    a_manifest,
    a_note,
)

LEAF = write_statement(RECEIPT, SUBJECTS, RECEIPT_SIGNER)
BUNDLE = a_bundle(LEAF, authorization=AUTHORIZATION)
MANIFEST, MANIFEST_LEAF = write_manifest(a_manifest(), MANIFEST_SIGNER)


def test_a_good_bundle_verifies() -> None:
    """A bundle gives its statement, its place and the checkpoint that covers it."""
    told: list[str] = []
    verified = verify_bundle(format_bundle(BUNDLE), TRUST, lambda check, _: told.append(check))

    assert verified.statement == RECEIPT
    assert (verified.index, verified.checkpoint.size, verified.leaf) == (5, 11, LEAF)
    assert verified.keyid == RECEIPT_SIGNER.keyid
    assert told == ["checkpoint", "authorised", "signature", "inclusion"]


def test_an_opening_is_evidence_under_a_checkpoint() -> None:
    """An opening has no signature; inclusion under a signed checkpoint stands for it."""
    opened = verify_bundle(format_bundle(a_bundle(write_opening(OPENING))), TRUST)

    assert opened.statement == OPENING
    assert opened.keyid is None


def test_a_manifest_verifies_as_a_file_and_as_a_leaf() -> None:
    """The Sigstore bundle and the leaf give the same manifest."""
    told: list[str] = []
    statement, payload_sha256 = verify_manifest(MANIFEST, TRUST)
    encoded = format_bundle(a_bundle(MANIFEST_LEAF))
    leaf = verify_bundle(encoded, TRUST, lambda _, found: told.append(found)).statement

    assert statement == a_manifest()
    assert isinstance(leaf, Manifest)
    assert leaf.payload_sha256 == payload_sha256
    assert told[1].startswith("manifest key")


def test_roles_are_not_exchanged() -> None:
    """A receipt key signs no manifest and a manifest key no receipt."""
    payload = canonical_json(a_manifest())
    as_receipt = write_statement(RECEIPT, SUBJECTS, MANIFEST_SIGNER)
    as_manifest = seal_statement(payload, RECEIPT_SIGNER)
    unnamed_receipt = seal_unnamed(payload, RECEIPT_SIGNER)

    for leaf in (as_receipt, as_manifest, unnamed_receipt):
        with pytest.raises(BadSignatureError):
            verify_leaf(leaf, 0, AUTHORITY)


def test_a_trusted_key_signs_only_its_form() -> None:
    """A manifest key's signature under a receipt's payload makes no receipt."""
    payload = verify_leaf_payload(LEAF)

    with pytest.raises(BadSignatureError):
        verify_leaf(seal_unnamed(payload, MANIFEST_SIGNER), 0, AUTHORITY)
    with pytest.raises(MalformedReceiptError):
        verify_manifest(
            wrap_leaf(seal_unnamed(payload, MANIFEST_SIGNER), MANIFEST_SIGNER.keyid), TRUST
        )


def verify_leaf_payload(leaf: bytes) -> bytes:
    """Return the payload of *leaf*, checked under the receipt key."""
    return verify_envelope(leaf, {RECEIPT_SIGNER.keyid: RECEIPT_SIGNER.public})


def test_strangers_are_not_believed() -> None:
    """Keys outside the trust file verify nothing, under whatever hint."""
    receipt = write_statement(RECEIPT, SUBJECTS, Ed25519Signer(generate_pem("ed25519")))
    stranger = P256Signer(generate_pem("p256"))
    _, leaf = write_manifest(a_manifest(), stranger)

    with pytest.raises(BadSignatureError):
        verify_leaf(receipt, 0, AUTHORITY)
    with pytest.raises(BadSignatureError):
        verify_leaf(leaf, 0, AUTHORITY)
    with pytest.raises(BadSignatureError):
        verify_manifest(wrap_leaf(leaf, stranger.keyid), TRUST)
    with pytest.raises(BadSignatureError):
        verify_manifest(wrap_leaf(leaf, MANIFEST_SIGNER.keyid), TRUST)


def test_another_log_is_not_believed() -> None:
    """A checkpoint by another key, or of another origin, covers nothing."""
    other_key = LogSigner(generate_pem("ed25519"), ORIGIN)
    other_name = LogSigner(generate_pem("ed25519"), "other.example/log")

    for signer in (other_key, other_name):
        with pytest.raises(EvidenceError, match=r"of `other|no signature by"):
            verify_checkpoint(a_note([b"leaf"], signer), TRUST)


def test_a_key_does_not_vouch_for_another_origin() -> None:
    """A note signed by the log's key but naming another origin is refused."""
    note = sign_note(f"other.example/log\n1\n{'A' * 43}=\n", [LOG_SIGNER])
    with pytest.raises(BadProofError):
        verify_checkpoint(note, TRUST)


def test_a_leaf_is_included_where_it_is_alone() -> None:
    """A proof for one leaf or index shows nothing about another."""
    assert verify_inclusion_of(LEAF, BUNDLE.proof, TRUST).size == 11
    with pytest.raises(BadProofError):
        verify_inclusion_of(LEAF + b" ", BUNDLE.proof, TRUST)
    with pytest.raises(BadProofError):
        verify_inclusion_of(LEAF, replace(BUNDLE.proof, index=6), TRUST)


def test_a_signed_leaf_outside_the_log_fails() -> None:
    """A good signature alone makes no good bundle."""
    other = write_statement(
        msgspec.structs.replace(RECEIPT, opening=9), SUBJECTS, RECEIPT_SIGNER
    )

    with pytest.raises(BadProofError):
        verify_bundle(format_bundle(replace(BUNDLE, leaf=other)), TRUST)


MASKS = (0x01, 0x20, 0x80)


def bent(content: bytes, at: int, mask: int) -> bytes:
    """Return *content* with some bits of one byte turned."""
    return content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]


@pytest.mark.parametrize("mask", MASKS)
def test_no_byte_of_a_leaf_can_change(mask: int) -> None:
    """A leaf with any one byte changed does not verify."""
    for leaf in (LEAF, MANIFEST_LEAF):
        for at in range(len(leaf)):
            with pytest.raises(EvidenceError):
                verify_leaf(bent(leaf, at, mask), 0, AUTHORITY)


@pytest.mark.parametrize("mask", MASKS)
def test_no_byte_of_a_bundle_can_change(mask: int) -> None:
    """A bundle with any one byte changed does not verify: leaf, proof or checkpoint."""
    encoded = format_bundle(BUNDLE)
    for at in range(len(encoded)):
        with pytest.raises(EvidenceError):
            verify_bundle(bent(encoded, at, mask), TRUST)


@pytest.mark.parametrize("mask", MASKS)
def test_no_byte_of_a_manifest_can_change(mask: int) -> None:
    """A manifest with any one byte changed does not verify."""
    for at in range(len(MANIFEST)):
        with pytest.raises(EvidenceError):
            verify_manifest(bent(MANIFEST, at, mask), TRUST)


@pytest.mark.parametrize("mask", MASKS)
def test_no_byte_of_a_checkpoint_can_change(mask: int) -> None:
    """A signed note with any one byte changed does not open."""
    note = BUNDLE.proof.checkpoint.encode()
    for at in range(len(note)):
        with pytest.raises(EvidenceError):
            verify_checkpoint(bent(note, at, mask).decode("utf-8", "surrogateescape"), TRUST)


def test_the_verifier_loads_no_server() -> None:
    """Importing the verifier loads no server, store, settings or policy engine."""
    heavy = "{'aiohttp', 'apsw', 'yaml', 'structlog', 'sqlite_utils', 'asyncio'}"
    rooms = "('gateway.policy', 'gateway.store', 'gateway.proxy', 'gateway.settings')"
    program = (
        "import sys, gateway.receipt.verify\n"
        f"print([m for m in sys.modules if m in {heavy} or m.startswith({rooms})])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert found.stdout == "[]\n"
