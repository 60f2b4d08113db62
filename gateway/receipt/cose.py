"""Write a COSE receipt (RFC 9942): the proof that a leaf is in the log, for SCITT's tools.

It is a second form of what a bundle says, over the same tree and signed by the same log; the
bundle says more (`docs/formats/cose.md`). Not here: reading one, which is for others' tools.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.errors import MissingPieceError
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.merkle import leaf_hash, verify_inclusion
from gateway.tlog.note import NoteSigner, parse_note
from gateway.tlog.proof import InclusionProof

_COSE_SIGN1: Final = 18
_ALGORITHM, _EDDSA = 1, -8
_STRUCTURE, _RFC9162_SHA256 = 395, 1
_PROOFS, _INCLUSION = 396, -1


def write_cose(leaf: bytes, proof: InclusionProof, signer: NoteSigner) -> bytes:
    """Return the COSE receipt of *leaf*, signed by the log over the root that *proof* leads to.

    The checkpoint in *proof* must have been published: whoever signs another root for its log
    has told two histories.

    Raises:
        BadProofError: *leaf* is not where *proof* says, under the checkpoint it carries.
        MissingPieceError: `cbor2` is not installed.
    """
    checkpoint = parse_checkpoint(parse_note(proof.checkpoint)[0])
    verify_inclusion(
        leaf_hash(leaf), proof.index, checkpoint.size, proof.hashes, checkpoint.root
    )
    cbor = _cbor2()
    protected = _encode(cbor, {_ALGORITHM: _EDDSA, _STRUCTURE: _RFC9162_SHA256})
    path = _encode(cbor, [checkpoint.size, proof.index, list(proof.hashes)])
    # What is signed begins with 0x84, as no text does: it is never taken for a checkpoint.
    signed = _encode(cbor, ["Signature1", protected, b"", checkpoint.root])
    signature = signer.sign(signed)
    unprotected = {_PROOFS: {_INCLUSION: [path]}}
    return _encode(cbor, cbor.CBORTag(_COSE_SIGN1, [protected, unprotected, None, signature]))


def _encode(cbor: Any, value: Any) -> bytes:
    """Return *value* in CBOR's deterministic encoding."""
    encoded: bytes = cbor.dumps(value, canonical=True)
    return encoded


def _cbor2() -> Any:
    try:
        import cbor2  # noqa: PLC0415  an extra that few need
    except ImportError as absent:
        raise MissingPieceError(
            "a COSE receipt needs `cbor2`, which is not installed",
            hint="install the extra: `pip install 'tos-gateway[cose]'`",
        ) from absent
    return cbor2
