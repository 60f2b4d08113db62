"""Verify evidence offline: statements, bundles and manifests against a trust file.

This is the only verifier; commands and gates call it. It needs no network, no settings, no
ledger and no policies. A function that returns has checked everything its docstring says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.errors import BadProofError, BadSignatureError, MalformedReceiptError
from gateway.ident import Sha256
from gateway.receipt.bundle import parse_bundle
from gateway.receipt.envelope import open_envelope, signed_by
from gateway.receipt.keys import Trust, trusted_keys
from gateway.receipt.model import Manifest, Statement
from gateway.receipt.sigstore import open_manifest
from gateway.receipt.statement import is_opening, read_leaf, read_payload
from gateway.tlog.checkpoint import Checkpoint, parse_checkpoint
from gateway.tlog.merkle import leaf_hash, verify_inclusion
from gateway.tlog.note import open_note
from gateway.tlog.proof import InclusionProof

Passed = Callable[[str, str], None]
"""Is told of each check that passed: its name, and what was found."""


def _quietly(check: str, found: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A leaf whose signature and place in the log were checked."""

    statement: Statement
    keyid: str | None
    """The key that signed it; an opening has none, the checkpoint is its signature."""
    index: int
    checkpoint: Checkpoint
    leaf: bytes


def verify_leaf(leaf: bytes, trust: Trust) -> Statement:
    """Return the statement in *leaf* after checking that a key of the right role signed it.

    An opening carries no signature: only a checkpoint that covers it makes it evidence.

    Raises:
        EvidenceError: it is malformed, or not signed by a key trusted for its kind.
    """
    statement, _ = signed_statement(leaf, trust)
    return statement


def verify_bundle(encoded: bytes, trust: Trust, passed: Passed = _quietly) -> Verified:
    """Check a bundle whole: signature, checkpoint and inclusion; tell *passed* of each.

    Raises:
        EvidenceError: something in it does not verify; the message names what.
    """
    bundle = parse_bundle(encoded)
    statement, keyid = signed_statement(bundle.leaf, trust)
    passed("signature", _signature_line(statement, keyid))
    checkpoint = verify_checkpoint(bundle.proof.checkpoint, trust)
    passed("checkpoint", f"size {checkpoint.size} of {checkpoint.origin}")
    verify_inclusion(
        leaf_hash(bundle.leaf),
        bundle.proof.index,
        checkpoint.size,
        bundle.proof.hashes,
        checkpoint.root,
    )
    passed("inclusion", f"leaf {bundle.proof.index}")
    return Verified(
        statement=statement,
        keyid=keyid,
        index=bundle.proof.index,
        checkpoint=checkpoint,
        leaf=bundle.leaf,
    )


def verify_manifest(encoded: bytes, trust: Trust) -> tuple[dict[str, Any], Sha256]:
    """Return a manifest's statement and payload digest after checking its signature.

    Not checked: the files it names, and that it is a leaf of the log.

    Raises:
        EvidenceError: it is malformed, or not signed by a key trusted for manifests.
    """
    leaf, hinted = open_manifest(encoded)
    keys = trusted_keys(trust).manifest
    if hinted not in keys:
        raise BadSignatureError(f"the key {hinted[:16]}… is not trusted for manifests")
    envelope = open_envelope(leaf)
    signed_by(envelope, {hinted: keys[hinted]})
    manifest = read_payload(envelope.payload)
    if not isinstance(manifest, Manifest):
        raise MalformedReceiptError("the statement is not a manifest")
    return manifest.statement, manifest.payload_sha256


def verify_inclusion_of(leaf: bytes, proof: InclusionProof, trust: Trust) -> Checkpoint:
    """Return the checkpoint of *proof* after checking it and that *leaf* is under it.

    Raises:
        EvidenceError: the checkpoint is not the trusted log's, or does not cover the leaf.
    """
    checkpoint = verify_checkpoint(proof.checkpoint, trust)
    verify_inclusion(
        leaf_hash(leaf), proof.index, checkpoint.size, proof.hashes, checkpoint.root
    )
    return checkpoint


def verify_checkpoint(note: str, trust: Trust) -> Checkpoint:
    """Return the checkpoint in the signed *note* after checking its signature and origin.

    Raises:
        EvidenceError: it is malformed, of another log, or not signed by the trusted log.
    """
    checkpoint = parse_checkpoint(open_note(note, [trusted_keys(trust).log]))
    if checkpoint.origin != trust.origin:
        raise BadProofError(
            f"the checkpoint is of `{checkpoint.origin}`, not of `{trust.origin}`"
        )
    return checkpoint


def signed_statement(leaf: bytes, trust: Trust) -> tuple[Statement, str | None]:
    """Return the statement in *leaf* and the key that signed it, checked; see `verify_leaf`.

    Raises:
        EvidenceError: it is malformed, or not signed by a key trusted for its kind.
    """
    if is_opening(leaf):
        return read_leaf(leaf), None
    envelope = open_envelope(leaf)
    keys = trusted_keys(trust)
    # Manifests don't name their key, all others do: each form has one role's keys to fit.
    unnamed = envelope.signatures[0].keyid is None
    key = signed_by(envelope, keys.manifest if unnamed else keys.receipt)
    statement = read_payload(envelope.payload)
    if isinstance(statement, Manifest) is not unnamed:
        raise BadSignatureError(f"the key {key.keyid[:16]}… may not sign such a statement")
    return statement, key.keyid


def _signature_line(statement: Statement, keyid: str | None) -> str:
    if keyid is None:
        return "none of its own: an opening is covered by the checkpoint"
    role = "manifest" if isinstance(statement, Manifest) else "receipt"
    return f"{role} key {keyid[:16]}…"
