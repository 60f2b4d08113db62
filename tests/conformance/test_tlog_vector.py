"""The whole vector of a foreign generator: leaf, proof, checkpoint, in its exact bytes.

Its log was accepted by the Go implementations of note, tlog and proof; nothing of it was made
with this package.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.errors import BadProofError, BadSignatureError
from gateway.receipt.envelope import open_envelope, pae, verify_envelope
from gateway.receipt.keys import parse_public_pem
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.merkle import leaf_hash, verify_inclusion
from gateway.tlog.note import open_note, parse_note, parse_vkey
from gateway.tlog.proof import format_proof, parse_proof

FOLDER = Path(__file__).parent / "vectors" / "receipt_597"
LEAF = (FOLDER / "leaf.json").read_bytes()
PROOF_TEXT = (FOLDER / "597.tlog-proof").read_text(encoding="utf-8")
KEYS = json.loads((FOLDER / "keys.json").read_bytes())
PROOF = parse_proof(PROOF_TEXT)
LOG = parse_vkey(KEYS["logVkey"])
RECEIPT_KEY = parse_public_pem(
    f"-----BEGIN PUBLIC KEY-----\n{KEYS['receiptKeySpki']}\n-----END PUBLIC KEY-----\n"
)


def test_the_vector_is_untouched() -> None:
    """The frozen leaf has the length that its generator gave it."""
    assert len(LEAF) == 2244


def test_the_leaf_has_its_hash() -> None:
    """The leaf hash is that of the generator."""
    assert leaf_hash(LEAF).hex() == KEYS["leafHash"]


def test_the_leaf_is_under_the_root() -> None:
    """The proof leads from the leaf to the root of the signed checkpoint."""
    checkpoint = parse_checkpoint(open_note(PROOF.checkpoint, [LOG]))

    verify_inclusion(leaf_hash(LEAF), 597, checkpoint.size, PROOF.hashes, checkpoint.root)
    assert (checkpoint.origin, checkpoint.size) == (LOG.name, 700)
    with pytest.raises(BadProofError):
        verify_inclusion(leaf_hash(LEAF), 596, checkpoint.size, PROOF.hashes, checkpoint.root)


def test_the_proof_is_written_as_it_was_read() -> None:
    """Reading and writing the proof gives its exact bytes."""
    assert format_proof(PROOF) == PROOF_TEXT
    assert PROOF.index == 597


def test_the_witness_is_carried() -> None:
    """The cosignature of the witness stays in the note, and its text is what both signed."""
    text, signatures = parse_note(PROOF.checkpoint)

    assert [name for name, _ in signatures] == [LOG.name, "witness.example/w1"]
    assert text.startswith(f"{LOG.name}\n700\n")


def test_the_witness_signed_its_cosignature() -> None:
    """The cosignature verifies under the witness's key as the standard writes it."""
    text, signatures = parse_note(PROOF.checkpoint)
    cosignature = signatures[1][1][4:]
    when, signature = int.from_bytes(cosignature[:8], "big"), cosignature[8:]
    key = base64.b64decode(KEYS["witnessVkey"].split("+", 2)[2])

    assert key[0] == 0x04
    Ed25519PublicKey.from_public_bytes(key[1:]).verify(
        signature, f"cosignature/v1\ntime {when}\n{text}".encode()
    )


def test_a_witness_key_is_not_a_log_key() -> None:
    """A cosignature key is not taken for the key of a log."""
    with pytest.raises(BadProofError):
        parse_vkey(KEYS["witnessVkey"])


def test_the_envelope_is_signed() -> None:
    """The receipt's signature verifies under the published key, by its key id."""
    payload = verify_envelope(LEAF, {RECEIPT_KEY.keyid: RECEIPT_KEY})
    envelope = open_envelope(LEAF)

    assert envelope.signatures[0].keyid == RECEIPT_KEY.keyid
    RECEIPT_KEY.verify(envelope.signatures[0].sig, pae("application/vnd.in-toto+json", payload))
    with pytest.raises(BadSignatureError):
        RECEIPT_KEY.verify(envelope.signatures[0].sig, payload)


def test_the_output_is_named_by_its_digest() -> None:
    """The statement's subject `output/0` is the digest of the answer's text."""
    subjects = json.loads(open_envelope(LEAF).payload)["subject"]
    digest = hashlib.sha256(KEYS["output"].encode()).hexdigest()

    assert {"name": "output/0", "digest": {"sha256": digest}} in subjects
    assert digest == KEYS["outputSha256"]
