"""Verify evidence offline: statements, bundles and manifests against a trust file.

This is the only verifier; commands and gates call it. It needs no network, no settings, no
ledger and no policies. A function that returns has checked everything its docstring says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from gateway.canonical import sha256_hex
from gateway.errors import (
    BadDigestError,
    BadProofError,
    BadSignatureError,
    MalformedReceiptError,
)
from gateway.ident import Sha256
from gateway.receipt.authority import Authority
from gateway.receipt.bundle import Included, parse_bundle
from gateway.receipt.envelope import open_envelope, signed_by
from gateway.receipt.keys import PublicKey, Trust, parse_trust, trusted_keys
from gateway.receipt.model import KeyAuthorization, Manifest, Statement, Subject
from gateway.receipt.sigstore import TRUST_NAME, open_manifest
from gateway.receipt.statement import is_opening, read_leaf, read_payload
from gateway.tlog.checkpoint import Checkpoint, parse_checkpoint
from gateway.tlog.cosignature import Cosigned, check_quorum
from gateway.tlog.merkle import leaf_hash, verify_inclusion
from gateway.tlog.note import open_note, parse_note
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
    cosigned: tuple[Cosigned, ...] = ()
    """Which of the trusted witnesses cosigned the checkpoint, and when."""


def verify_leaf(leaf: bytes, index: int, authority: Authority) -> Statement:
    """Return the statement in *leaf* after checking that a key good at *index* signed it.

    Which key may sign which kind, and where, *authority* says. An opening carries no
    signature: only a checkpoint that covers it makes it evidence.

    Raises:
        EvidenceError: it is malformed, or not signed by a key that may sign it there.
    """
    statement, _ = signed_statement(leaf, index, authority)
    return statement


def signed_statement(
    leaf: bytes, index: int, authority: Authority
) -> tuple[Statement, str | None]:
    """Return the statement in *leaf* and the key that signed it, checked; see `verify_leaf`.

    Raises:
        EvidenceError: it is malformed, or not signed by a key that may sign it there.
    """
    if is_opening(leaf):
        return read_leaf(leaf), None
    envelope = open_envelope(leaf)
    statement = read_payload(envelope.payload)
    return statement, authority.signer_of(envelope, statement, index).keyid


def verify_bundle(encoded: bytes, trust: Trust, passed: Passed = _quietly) -> Verified:
    """Check a bundle whole: checkpoint, authorisation, signature and inclusion.

    *passed* is told of each. What a key's later revocation says is known here from the trust
    file alone; a fold over the whole log knows more.

    Raises:
        EvidenceError: something in it does not verify; the message names what.
    """
    bundle = parse_bundle(encoded)
    authority = Authority(trust)
    checkpoint = read_checkpoint(bundle.proof.checkpoint, trust)
    passed("checkpoint", f"size {checkpoint.size} of {checkpoint.origin}")
    cosigned = _cosigned(bundle.proof.checkpoint, trust)
    if cosigned:
        passed("witnesses", f"{len(cosigned)} cosigned it; {trust.quorum} are asked for")
    index, authorization, keyid = bundle.proof.index, bundle.authorization, None
    if authorization is not None:
        keyid = _admit(authorization, checkpoint, authority)
        passed("authorised", f"receipt key {keyid[:16]}… at leaf {authorization.index}")
    statement, by = signed_statement(bundle.leaf, index, authority)
    if authorization is not None and by != keyid:
        raise BadSignatureError("the bundle authorises another key than the one that signed")
    passed("signature", _signature_line(by, authority))
    _include(bundle.leaf, index, bundle.proof.hashes, checkpoint)
    passed("inclusion", f"leaf {index}")
    return Verified(
        statement=statement,
        keyid=by,
        index=index,
        checkpoint=checkpoint,
        leaf=bundle.leaf,
        cosigned=cosigned,
    )


def verify_manifest(
    encoded: bytes, trust: Trust, index: int | None = None
) -> tuple[dict[str, Any], Sha256]:
    """Return a manifest's statement and payload digest after checking its signature.

    *index* is the manifest's leaf, where it is known. Without it a key that ended may have
    signed it at any time: that is taken, unless the key is known to be in the wrong hands.
    Not checked: the files it names, and that it is a leaf of the log.

    Raises:
        EvidenceError: it is malformed, or not signed by a key trusted for manifests.
    """
    leaf, hinted = open_manifest(encoded)
    keys = trusted_keys(trust)
    if hinted not in keys.manifest:
        raise BadSignatureError(f"the key {hinted[:16]}… is not trusted for manifests")
    if index is not None:
        Authority(trust).manifest_key(hinted, index)
    elif hinted in keys.revoked:
        raise BadSignatureError(
            f"the key {hinted[:16]}… is in the wrong hands since leaf {keys.revoked[hinted]}",
            hint="give the manifest's bundle, which shows its place in the log",
        )
    envelope = open_envelope(leaf)
    signed_by(envelope, {hinted: keys.manifest[hinted].key})
    manifest = read_payload(envelope.payload)
    if not isinstance(manifest, Manifest):
        raise MalformedReceiptError("the statement is not a manifest")
    return manifest.statement, manifest.payload_sha256


def verify_trust(trust_file: bytes, signature: bytes, root: PublicKey) -> tuple[Trust, str]:
    """Return the trust in *trust_file*, and when *root* signed it, after checking that it did.

    Whoever has the root's public key from the operator's own hand needs to take no trust file
    on faith.

    Raises:
        EvidenceError: the file is malformed, is not the one that was signed, or was signed by
            another key.
    """
    leaf, hinted = open_manifest(signature)
    if hinted != root.keyid:
        raise BadSignatureError(
            f"the trust file is signed by {hinted[:16]}…, not by the root {root.keyid[:16]}…"
        )
    envelope = open_envelope(leaf)
    signed_by(envelope, {root.keyid: root})
    trust = parse_trust(trust_file)
    if root.keyid in trusted_keys(trust).manifest:
        raise BadSignatureError(
            f"the root {root.keyid[:16]}… has a second role: it is a manifest key of the file",
            hint="a root that signs anything else is no root; ask the operator for another",
        )
    try:
        said = msgspec.json.decode(envelope.payload, type=_TrustStatement)
    except msgspec.MsgspecError as broken:
        raise MalformedReceiptError("the signature is of something else") from broken
    if said.subject != (Subject(name=TRUST_NAME, digest={"sha256": sha256_hex(trust_file)}),):
        raise BadDigestError(
            "the trust file is not the one that the root signed",
            hint="take `trust.json` and `trust.sigstore.json` from the same place, together",
        )
    if said.predicate.origin != trust.origin:
        raise MalformedReceiptError("the signature names another log")
    return trust, said.predicate.at


class _TrustPredicate(msgspec.Struct, forbid_unknown_fields=True):
    at: str
    origin: str


class _TrustStatement(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: tuple[Subject, ...]
    predicate_type: Literal["https://tos-gateway.example/trust/v2"] = msgspec.field(
        name="predicateType"
    )
    predicate: _TrustPredicate


def document_keys(trust: Trust) -> Mapping[str, PublicKey]:
    """Return the manifest keys that may vouch for a document which is no leaf, by keyid.

    Nothing shows when such a document was signed: a key in the wrong hands vouches for none.
    """
    keys = trusted_keys(trust)
    return {keyid: one.key for keyid, one in keys.manifest.items() if keyid not in keys.revoked}


def verify_inclusion_of(leaf: bytes, proof: InclusionProof, trust: Trust) -> Checkpoint:
    """Return the checkpoint of *proof* after checking it and that *leaf* is under it.

    Raises:
        EvidenceError: the checkpoint is not the trusted log's, or does not cover the leaf.
    """
    checkpoint = verify_checkpoint(proof.checkpoint, trust)
    _include(leaf, proof.index, proof.hashes, checkpoint)
    return checkpoint


def verify_checkpoint(note: str, trust: Trust) -> Checkpoint:
    """Return the checkpoint in the signed *note* after checking its signatures.

    Raises:
        EvidenceError: it is malformed, not signed by the trusted log or one that it continues,
            or cosigned by fewer witnesses than the trust file asks for.
    """
    checkpoint = read_checkpoint(note, trust)
    _cosigned(note, trust)
    return checkpoint


def read_checkpoint(note: str, trust: Trust) -> Checkpoint:
    """Return the checkpoint in the signed *note* after checking the log's own signature.

    That is enough for what an operator has published himself; whoever must rely on it asks
    for witnesses too (`verify_checkpoint`).

    Raises:
        EvidenceError: it is malformed, or not signed by the trusted log or one that it
            continues.
    """
    keys = trusted_keys(trust)
    checkpoint = parse_checkpoint(parse_note(note)[0])
    if checkpoint.origin == trust.origin:
        open_note(note, [keys.log])
        return checkpoint
    frozen = keys.frozen.get(checkpoint.origin)
    if frozen is None:
        raise BadProofError(
            f"the checkpoint is of `{checkpoint.origin}`, not of `{trust.origin}`"
        )
    if not frozen.trusted:
        raise BadSignatureError(
            f"the key of `{checkpoint.origin}` was in the wrong hands; nothing by it counts",
            hint=f"ask the operator for the same under a checkpoint of `{trust.origin}`",
        )
    open_note(note, [frozen.verifier])
    if checkpoint.size > frozen.size or (
        checkpoint.size == frozen.size and checkpoint.root != frozen.root
    ):
        raise BadProofError(
            f"`{checkpoint.origin}` was frozen at {frozen.size} leaves; the checkpoint says"
            f" {checkpoint.size}, or another root"
        )
    return checkpoint


def _cosigned(note: str, trust: Trust) -> tuple[Cosigned, ...]:
    return check_quorum(note, trusted_keys(trust).witnesses, trust.quorum)


def _admit(included: Included, checkpoint: Checkpoint, authority: Authority) -> str:
    """Fold the authorisation that a bundle carries; return the key that it is of."""
    said, by = signed_statement(included.leaf, included.index, authority)
    if not isinstance(said, KeyAuthorization) or said.role != "receipt":
        raise MalformedReceiptError("the bundle's authorisation is not of a receipt key")
    _include(included.leaf, included.index, included.hashes, checkpoint)
    authority.admit(included.index, said, by)
    return said.keyid


def _include(leaf: bytes, index: int, hashes: Sequence[bytes], checkpoint: Checkpoint) -> None:
    verify_inclusion(leaf_hash(leaf), index, checkpoint.size, hashes, checkpoint.root)


def _signature_line(keyid: str | None, authority: Authority) -> str:
    life = None if keyid is None else authority.life(keyid)
    if life is None:
        return "none of its own: an opening is covered by the checkpoint"
    return f"{life.role} key {life.keyid[:16]}…"
