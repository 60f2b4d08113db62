"""Python's tools for supply chains and trees accept what we write, and nothing bent.

They are `securesystemslib` (the DSSE code behind in-toto and TUF), `in-toto-attestation`,
`pymerkle`, and `openssl` on the command line.
"""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf.json_format import ParseDict
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from pymerkle import (
    InclusionProof,
    InmemoryTree,
    InvalidProof,
    verify_consistency,
    verify_inclusion,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # its documented home

from gateway.receipt.keys import Ed25519Signer, PublicKey, generate_pem
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import write_statement
from gateway.tlog.merkle import inclusion_proof, leaf_hash, root_of
from tests.support.evidence import (
    EVERY,
    KEY_AUTHORIZATION,
    LOG_SUCCESSION,
    MANIFEST_SIGNER,
    RECEIPT,
    RECEIPT_SIGNER,
    SUBJECTS,
    a_manifest,
)
from tests.support.foreign import flipped, places
from tests.support.tools import needed

RECEIPT_LEAF = write_statement(RECEIPT, SUBJECTS, RECEIPT_SIGNER)
AUTHORIZATION_LEAF = write_statement(KEY_AUTHORIZATION, (), MANIFEST_SIGNER)
MANIFEST_LEAF = write_manifest(a_manifest(), MANIFEST_SIGNER)[1]
SIGNED: dict[str, tuple[bytes, PublicKey]] = {
    "receipt": (RECEIPT_LEAF, RECEIPT_SIGNER.public),
    "authorisation": (AUTHORIZATION_LEAF, MANIFEST_SIGNER.public),
    "manifest": (MANIFEST_LEAF, MANIFEST_SIGNER.public),
}
OTHER = Ed25519Signer(generate_pem("ed25519")).public


# -- DSSE -----------------------------------------------------------------------------------


def payload_by_securesystemslib(leaf: bytes, key: PublicKey) -> bytes:
    """Return the payload of *leaf* after the foreign verifier has accepted *key* for it.

    It wants each signature to name its key; a manifest's is named by the bundle around it.
    """
    envelope = json.loads(leaf)
    for signature in envelope["signatures"]:
        signature.setdefault("keyid", key.keyid)
    trusted = SSlibKey.from_crypto(load_pem_public_key(key.pem.encode()), keyid=key.keyid)
    read = Envelope.from_dict(envelope)
    accepted = read.verify([trusted], 1)

    assert [key.keyid] == list(accepted)
    payload: bytes = read.payload
    return payload


@pytest.mark.parametrize("kind", SIGNED)
def test_an_envelope_is_accepted(kind: str) -> None:
    """Ed25519 or P-256, named or not: the foreign library finds the key's signature good."""
    leaf, key = SIGNED[kind]

    assert base64.b64decode(json.loads(leaf)["payload"]) == payload_by_securesystemslib(
        leaf, key
    )


@pytest.mark.parametrize("kind", SIGNED)
def test_an_envelope_of_another_key_is_rejected(kind: str) -> None:
    """A key that did not sign it is not accepted for it."""
    leaf, key = SIGNED[kind]
    others = {MANIFEST_SIGNER.public, RECEIPT_SIGNER.public, OTHER} - {key}
    for other in others:
        with pytest.raises(VerificationError):
            payload_by_securesystemslib(leaf, other)


@pytest.mark.parametrize("kind", SIGNED)
@pytest.mark.parametrize("part", ["payload", "sig"])
def test_a_changed_byte_of_an_envelope_is_rejected(kind: str, part: str) -> None:
    """Whichever byte of payload or signature is changed, the signature is no longer good."""
    leaf, key = SIGNED[kind]
    envelope = json.loads(leaf)
    holder = envelope if part == "payload" else envelope["signatures"][0]
    right = base64.b64decode(holder[part])
    for at in places(len(right), 100):
        holder[part] = base64.b64encode(flipped(right, at)).decode()
        with pytest.raises(VerificationError):
            payload_by_securesystemslib(json.dumps(envelope).encode(), key)


@pytest.mark.parametrize("kind", SIGNED)
def test_another_type_or_a_truncated_payload_is_rejected(kind: str) -> None:
    """The type is signed too, and so is every byte to the last."""
    leaf, key = SIGNED[kind]
    envelope = json.loads(leaf)
    payload = base64.b64decode(envelope["payload"])
    bent: list[dict[str, Any]] = [
        {"payloadType": "application/json"},
        {"payload": base64.b64encode(payload[:-1]).decode()},
        {"payload": base64.b64encode(payload + b" ").decode()},
        {"signatures": []},
    ]
    for change in bent:
        with pytest.raises(VerificationError):
            payload_by_securesystemslib(json.dumps(envelope | change).encode(), key)


# -- in-toto --------------------------------------------------------------------------------


def statements() -> list[Any]:
    """Return the payload of a statement of every kind, as JSON."""
    leaves = [write_statement(one, SUBJECTS, _signer(one)) for one in EVERY]
    return [json.loads(base64.b64decode(json.loads(leaf)["payload"])) for leaf in leaves]


def _signer(predicate: object) -> Any:
    by_manifest_key = isinstance(predicate, type(KEY_AUTHORIZATION) | type(LOG_SUCCESSION))
    return MANIFEST_SIGNER if by_manifest_key else RECEIPT_SIGNER


@pytest.mark.parametrize(
    "statement", [*statements(), a_manifest()], ids=lambda s: s["predicateType"]
)
def test_a_statement_is_in_totos(statement: dict[str, Any]) -> None:
    """in-toto's own schema reads every kind of statement, and finds it valid."""
    read = ParseDict(statement, statement_pb2.Statement())

    Statement.copy_from_pb(read).validate()
    assert statement["predicateType"] == read.predicate_type
    assert len(statement["subject"]) == len(read.subject)


def test_what_is_no_statement_is_rejected() -> None:
    """Without subject, digest, type or predicate the schema's own check says no."""
    bent: list[dict[str, Any]] = [
        {"subject": []},
        {"subject": [{"name": "x"}]},
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": ""},
        {"predicate": {}},
    ]
    for change in bent:
        read = ParseDict(a_manifest() | change, statement_pb2.Statement())
        with pytest.raises(ValueError, match=r"."):
            Statement.copy_from_pb(read).validate()


# -- trees ----------------------------------------------------------------------------------

LEAVES = [b"leaf %d" % number for number in range(300)]
HASHES = [leaf_hash(leaf) for leaf in LEAVES]


def subtree(first: int, stop: int) -> bytes:
    """Return the root of a part of the log."""
    return root_of(HASHES[first:stop])


@pytest.fixture(scope="module")
def tree() -> InmemoryTree:
    """Return the foreign tree of the same leaves."""
    tree = InmemoryTree(algorithm="sha256")
    tree.append_entries(LEAVES)
    return tree


def test_every_root_is_the_foreign_trees(tree: InmemoryTree) -> None:
    """At each size both come to the same root."""
    for size in range(1, len(LEAVES) + 1):
        assert tree.get_root(size) == subtree(0, size)


def in_their_form(index: int, size: int, rule: list[int], path: list[bytes]) -> Any:
    """Return a foreign proof that holds *path*; places are counted from one there."""
    return InclusionProof(
        algorithm="sha256", security=True, size=size, index=index + 1, rule=rule, path=path
    )


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 255, 256, 257, 300])
def test_our_inclusion_proofs_are_accepted(size: int, tree: InmemoryTree) -> None:
    """Our hashes, put into the foreign proof, lead the foreign code to our root."""
    for index in {0, 1 % size, size // 2, size - 1}:
        theirs = tree.prove_inclusion(index + 1, size)
        ours = inclusion_proof(index, size, subtree)
        proof = in_their_form(index, size, theirs.rule, [HASHES[index], *ours])

        assert theirs.path == proof.path
        verify_inclusion(HASHES[index], subtree(0, size), proof, index + 1, size)


def test_bent_inclusion_proofs_are_rejected(tree: InmemoryTree) -> None:
    """Another place, another leaf, another hash, another root: each is refused."""
    index, size = 100, 300
    rule = tree.prove_inclusion(index + 1, size).rule
    path = [HASHES[index], *inclusion_proof(index, size, subtree)]
    root = subtree(0, size)

    def check(
        path: list[bytes] = path,
        place: int = index,
        base: bytes = HASHES[index],
        top: bytes = root,
    ) -> None:
        proof = in_their_form(place, size, rule, path)
        verify_inclusion(base, top, proof, place + 1, size)

    check()
    bent: list[dict[str, Any]] = [
        {"place": 99},
        {"place": 101},
        {"place": 300},
        {"base": HASHES[101]},
        {"top": subtree(0, 299)},
        {"path": path[:-1]},
        {"path": [*path, path[1]]},
        {"path": [path[0], path[2], path[1], *path[3:]]},
        *[
            {"path": [*path[:at], flipped(path[at], 31), *path[at + 1 :]]}
            for at in range(len(path))
        ],
    ]
    for change in bent:
        with pytest.raises(InvalidProof):
            check(**change)


def test_growth_is_the_same_to_both(tree: InmemoryTree) -> None:
    """Between our roots the foreign tree shows its growth, and none between others.

    It writes consistency proofs in a form of its own; Go's code reads ours.
    """
    for old, size in ((1, 2), (1, 300), (128, 256), (255, 257), (299, 300)):
        proof = tree.prove_consistency(old, size)

        verify_consistency(subtree(0, old), subtree(0, size), proof, old, size)
        for bent in ((subtree(1, old + 1), subtree(0, size)), (subtree(0, old), HASHES[7])):
            with pytest.raises(InvalidProof):
                verify_consistency(*bent, proof, old, size)


# -- openssl --------------------------------------------------------------------------------


def test_openssl_verifies_a_manifest(tmp_path: Path) -> None:
    """One command checks the signature over DSSE's bytes, and refuses it over others."""
    openssl = needed("openssl")
    envelope = json.loads(MANIFEST_LEAF)
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    (tmp_path / "key.pem").write_text(MANIFEST_SIGNER.public.pem)
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    said = []
    for content in (signed, flipped(signed, 40), signed[:-1], payload):
        (tmp_path / "signed").write_bytes(content)
        words = ["dgst", "-sha256", "-verify", "key.pem", "-signature", "sig", "signed"]
        done = subprocess.run(
            [openssl, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        said.append((done.returncode, done.stdout.strip()))

    assert (0, "Verified OK") == said[0]
    assert {1} == {code for code, _ in said[1:]}
    assert "Verified OK" not in {text for _, text in said[1:]}
