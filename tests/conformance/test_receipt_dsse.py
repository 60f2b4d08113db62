"""What we write is verified by code that shares nothing with the package but `cryptography`.

It follows the DSSE protocol and Sigstore's bundle by their published descriptions.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from gateway.receipt.bundle import format_bundle
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import write_statement
from gateway.tlog.tile import encode_entries
from tests.support.evidence import (
    LOG_SIGNER,
    MANIFEST_SIGNER,
    OUTPUT,
    RECEIPT,
    RECEIPT_SIGNER,
    SUBJECTS,
    TRUST,
    a_bundle,
    a_manifest,
)

LEAF = write_statement(RECEIPT, SUBJECTS, RECEIPT_SIGNER)


def signed_bytes(envelope: dict[str, Any]) -> bytes:
    """Return what DSSE signs: `DSSEv1`, and each of type and body behind its length."""
    body = base64.standard_b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    parts = (b"DSSEv1", str(len(kind)).encode(), kind, str(len(body)).encode(), body)
    return b" ".join(parts)


def spki_sha256(pem: str) -> bytes:
    """Return the SHA-256 of the key inside *pem*, as DER."""
    inner = "".join(pem.splitlines()[1:-1])
    return hashlib.sha256(base64.standard_b64decode(inner)).digest()


def test_a_receipt_is_plain_dsse() -> None:
    """A stranger's verifier accepts the receipt and refuses it once bent."""
    envelope = json.loads(LEAF)
    (signature,) = envelope["signatures"]
    key = serialization.load_pem_public_key(RECEIPT_SIGNER.public.pem.encode())
    assert isinstance(key, ed25519.Ed25519PublicKey)

    assert signature["keyid"] == spki_sha256(RECEIPT_SIGNER.public.pem).hex()
    key.verify(base64.standard_b64decode(signature["sig"]), signed_bytes(envelope))
    envelope["payloadType"] = "text/plain"
    with pytest.raises(InvalidSignature):
        key.verify(base64.standard_b64decode(signature["sig"]), signed_bytes(envelope))


def test_a_receipt_is_an_in_toto_statement() -> None:
    """The payload has the four members of in-toto's Statement v1 and names the output."""
    statement = json.loads(base64.standard_b64decode(json.loads(LEAF)["payload"]))
    digest = hashlib.sha256(OUTPUT).hexdigest()

    assert set(statement) == {"_type", "subject", "predicateType", "predicate"}
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert {"name": "output/0", "digest": {"sha256": digest}} in statement["subject"]
    assert statement["predicate"]["declared"]["use"]["student-kind"] == "extractor"


def test_a_manifest_is_a_sigstore_bundle() -> None:
    """A stranger's verifier accepts the manifest by its hint and its one signature."""
    encoded, leaf = write_manifest(a_manifest(), MANIFEST_SIGNER)
    bundle = json.loads(encoded)
    envelope = bundle["dsseEnvelope"]
    hint = base64.standard_b64decode(bundle["verificationMaterial"]["publicKey"]["hint"])
    key = serialization.load_pem_public_key(TRUST.manifest_keys[0].key.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)

    assert hint == spki_sha256(TRUST.manifest_keys[0].key)
    assert envelope == json.loads(leaf)
    key.verify(
        base64.standard_b64decode(envelope["signatures"][0]["sig"]),
        signed_bytes(envelope),
        ec.ECDSA(hashes.SHA256()),
    )


def test_a_checkpoint_is_a_signed_note() -> None:
    """A stranger's verifier accepts the checkpoint in a bundle under the vkey."""
    proof = json.loads(format_bundle(a_bundle(LEAF)))["proof"]
    text, line = proof.split("\n\n")[1] + "\n", proof.split("\n\n")[2]
    dash, name, encoded = line.rstrip("\n").split(" ")
    _, key_id, encoded_key = LOG_SIGNER.vkey.split("+", 2)
    raw, signature = base64.b64decode(encoded_key), base64.b64decode(encoded)
    named = name.encode() + b"\n" + raw

    assert (dash, name, raw[0]) == ("—", TRUST.origin, 1)
    assert signature[:4].hex() == key_id == hashlib.sha256(named).hexdigest()[:8]
    ed25519.Ed25519PublicKey.from_public_bytes(raw[1:]).verify(signature[4:], text.encode())


def root_by_hand(index: int, size: int, leaf_hash: bytes, path: list[bytes]) -> bytes:
    """Return the root that *path* leads to, from the top down as RFC 6962 defines the tree."""
    if size == 1:
        assert path == []
        return leaf_hash
    left = 1 << (size - 1).bit_length() - 1
    *below, beside = path
    if index < left:
        pair = root_by_hand(index, left, leaf_hash, below) + beside
    else:
        pair = beside + root_by_hand(index - left, size - left, leaf_hash, below)
    return hashlib.sha256(b"\x01" + pair).digest()


def test_a_bundle_leads_to_the_root_by_hand() -> None:
    """A stranger's arithmetic leads from the leaf in a bundle to the root in its checkpoint."""
    bundle = json.loads(format_bundle(a_bundle(LEAF)))
    head, checkpoint, _ = bundle["proof"].split("\n\n")
    kind, index, *path = head.split("\n")
    origin, size, root = checkpoint.split("\n")
    leaf = base64.standard_b64decode(bundle["leaf"])
    leaf_hash = hashlib.sha256(b"\x00" + leaf).digest()
    hashes_up = [base64.standard_b64decode(one) for one in path]
    found = root_by_hand(int(index.split()[1]), int(size), leaf_hash, hashes_up)

    assert (kind, origin, leaf) == ("c2sp.org/tlog-proof@v1", TRUST.origin, LEAF)
    assert found == base64.standard_b64decode(root)


def test_entries_stand_behind_their_length() -> None:
    """An entry bundle is each leaf behind a 16-bit big-endian length."""
    assert encode_entries([b"ab", b""]) == struct.pack(">H2sH", 2, b"ab", 0)
