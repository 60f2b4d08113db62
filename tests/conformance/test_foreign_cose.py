"""SCITT's own Python tools (`scitt-cose`) accept our COSE receipts, and nothing bent.

They were written against RFC 9942 by others, with CBOR and arithmetic of their own.
"""

from __future__ import annotations

import base64
import sys
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from scitt_cose import ReceiptResult, verify_receipt

from gateway.errors import BadProofError, MissingPieceError
from gateway.receipt.cose import write_cose
from gateway.receipt.keys import Ed25519Signer, LogSigner, generate_pem
from gateway.tlog.proof import InclusionProof
from tests.conformance.test_vectors import leaves, vectors
from tests.support.evidence import ORIGIN, a_note, a_proof
from tests.support.foreign import flipped

PEM = generate_pem("ed25519")
LOG = LogSigner(PEM, ORIGIN)
KEY = Ed25519Signer(PEM).public.pem
LEAVES = [b"leaf %d" % number for number in range(600)]
INDEX = 300
RECEIPT = write_cose(LEAVES[INDEX], a_proof(LEAVES, INDEX), LOG)


def asked(receipt: bytes, leaf: bytes = LEAVES[INDEX], key: str = KEY) -> ReceiptResult:
    """Return what the foreign verifier says."""
    return verify_receipt(receipt, leaf_entry_hex=leaf.hex(), log_public_key_pem=key)


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 600])
def test_a_receipt_is_accepted(size: int) -> None:
    """The first, a middle and the last leaf of a log are found, at their place."""
    for index in {0, size // 2, size - 1}:
        receipt = write_cose(LEAVES[index], a_proof(LEAVES[:size], index), LOG)
        result = asked(receipt, LEAVES[index])

        assert (True, size, index) == (result.ok, result.tree_size, result.leaf_index)


def test_a_receipt_says_only_what_it_should() -> None:
    """Algorithm and structure are protected, the proof is not, and the root is left out."""
    tag = cbor2.loads(RECEIPT)
    protected, unprotected, payload, signature = tag.value

    assert 18 == tag.tag
    assert {1: -8, 395: 1} == dict(cbor2.loads(protected))
    assert bytes.fromhex("a2012719018b01") == protected
    assert [396] == list(unprotected)
    assert [-1] == list(unprotected[396])
    assert (None, 64) == (payload, len(signature))
    size, index, path = cbor2.loads(unprotected[396][-1][0])
    assert (600, 300, list(a_proof(LEAVES, INDEX).hashes)) == (size, index, list(path))


def test_a_receipt_is_written_in_one_way() -> None:
    """CBOR's deterministic encoding: two writers write the same bytes."""
    assert RECEIPT == write_cose(LEAVES[INDEX], a_proof(LEAVES, INDEX), LOG)
    assert RECEIPT == cbor2.dumps(cbor2.loads(RECEIPT), canonical=True)


def test_every_changed_byte_is_rejected() -> None:
    """Whichever byte is changed, it is no receipt for this leaf: but for size and index.

    Those two the format leaves unsigned; see `test_size_and_index_are_not_signed`.
    """
    size_and_index = cbor2.dumps([600, 300])[1:]
    first = RECEIPT.index(size_and_index)
    unsigned = range(first, first + len(size_and_index))
    for at in range(len(RECEIPT)):
        for bit in (1, 128):
            result = asked(flipped(RECEIPT, at, bit))

            assert not result.ok or (at in unsigned and asked(RECEIPT).root == result.root), at


def test_every_shortened_receipt_is_rejected() -> None:
    """A receipt that was cut off, or has something behind it, is none."""
    for stop in range(len(RECEIPT)):
        assert not asked(RECEIPT[:stop]).ok
    assert not asked(RECEIPT + b"\x00").ok


@pytest.mark.parametrize(
    "leaf", [LEAVES[INDEX][:-1], LEAVES[INDEX] + b" ", LEAVES[INDEX + 1], b""]
)
def test_another_leaf_is_rejected(leaf: bytes) -> None:
    """A receipt is for one leaf, byte for byte."""
    assert not asked(RECEIPT, leaf).ok


def test_another_key_is_rejected() -> None:
    """Only the log's own key signs its receipts."""
    other = generate_pem("ed25519")

    assert not asked(RECEIPT, key=Ed25519Signer(other).public.pem).ok
    assert not asked(
        write_cose(LEAVES[INDEX], a_proof(LEAVES, INDEX), LogSigner(other, ORIGIN))
    ).ok


def rebuilt(**changed: Any) -> bytes:
    """Return the receipt with parts of it changed."""
    tag = cbor2.loads(RECEIPT)
    protected, unprotected, payload, signature = tag.value
    size, index, path = cbor2.loads(unprotected[396][-1][0])
    proof = cbor2.dumps(
        [
            changed.get("size", size),
            changed.get("index", index),
            changed.get("path", lambda path: path)(list(path)),
        ],
        canonical=True,
    )
    headers = {1: -8, 395: 1} | changed.get("protected", {})
    value = [
        cbor2.dumps(headers, canonical=True) if "protected" in changed else protected,
        {396: {-1: [proof]}},
        changed.get("payload", payload),
        signature,
    ]
    return cbor2.dumps(cbor2.CBORTag(18, value), canonical=True)


def test_nothing_rebuilt_is_the_receipt_itself() -> None:
    """The mutations below begin from the receipt as it is."""
    assert RECEIPT == rebuilt()


@pytest.mark.parametrize(
    "changed",
    [
        {"index": 299},
        {"index": 301},
        {"index": 600},
        {"size": 300},
        {"size": 0},
        {"path": lambda path: path[1:]},
        {"path": lambda path: path[:-1]},
        {"path": lambda path: [path[1], path[0], *path[2:]]},
        {"path": lambda path: [*path, path[0]]},
        {"protected": {1: -7}},
        {"protected": {395: 2}},
        {"protected": {2: [395]}},
        {"payload": bytes(32)},
    ],
)
def test_a_bent_proof_is_rejected(changed: dict[str, Any]) -> None:
    """Another place, another path, another algorithm: each leads elsewhere."""
    bent = rebuilt(**changed)

    assert RECEIPT != bent
    assert not asked(bent).ok


def test_size_and_index_are_not_signed() -> None:
    """What a COSE receipt can't show, as `docs/formats/cose.md` says: only the root is signed.

    The last leaf of three and the last of two may have the same path to the same root.
    """
    leaves = LEAVES[:3]
    proof = a_proof(leaves, 2)
    receipt = write_cose(leaves[2], proof, LOG)
    tag = cbor2.loads(receipt)
    protected, _, _, signature = tag.value
    other = cbor2.dumps([2, 1, list(proof.hashes)], canonical=True)
    bent = cbor2.dumps(
        cbor2.CBORTag(18, [protected, {396: {-1: [other]}}, None, signature]), canonical=True
    )

    assert (3, 2) == (asked(receipt, leaves[2]).tree_size, asked(receipt, leaves[2]).leaf_index)
    assert asked(bent, leaves[2]).ok


def test_a_root_that_does_not_hold_the_leaf_is_never_signed() -> None:
    """The log signs only roots it has published, and only where the leaf is under them."""
    proof = a_proof(LEAVES, INDEX)
    elsewhere = InclusionProof(proof.index, proof.hashes, a_note(LEAVES[:599]))

    with pytest.raises(BadProofError):
        write_cose(LEAVES[INDEX], elsewhere, LOG)
    with pytest.raises(BadProofError):
        write_cose(LEAVES[INDEX + 1], proof, LOG)


def test_without_cbor2_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named where it is missing."""
    monkeypatch.setitem(sys.modules, "cbor2", None)

    with pytest.raises(MissingPieceError, match="cbor2") as missing:
        write_cose(LEAVES[INDEX], a_proof(LEAVES, INDEX), LOG)
    assert "tos-gateway[cose]" in missing.value.hint


def test_the_key_in_a_trust_file_verifies_it() -> None:
    """The public key inside a log's verifier key is the one that signs its COSE receipts."""
    raw = base64.b64decode(LOG.vkey.split("+", 2)[2])[1:]
    key = Ed25519PublicKey.from_public_bytes(raw)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    assert asked(RECEIPT, key=pem).ok


def test_the_vectors_are_accepted() -> None:
    """What the vectors' own generator writes, the foreign verifier takes as well."""
    said = vectors("cose")
    for one in said["receipts"]:
        leaf = leaves(one["index"] + 1)[-1]
        result = asked(bytes.fromhex(one["bytes"]), leaf, said["logKey"]["public"])

        assert (True, one["size"], one["index"]) == (
            result.ok,
            result.tree_size,
            result.leaf_index,
        )
