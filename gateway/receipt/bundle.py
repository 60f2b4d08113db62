"""Bundles: a leaf, its inclusion proof and the checkpoint, in one file that needs no server."""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from gateway.errors import BadProofError, MalformedReceiptError
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.tlog.proof import InclusionProof, format_proof, parse_proof
from gateway.tlog.text import format_base64, shown

BUNDLE_TYPE: Final = "application/vnd.tos-gateway.bundle.v1+json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A leaf and what shows that it is in the log."""

    leaf: bytes
    proof: InclusionProof


def format_bundle(bundle: Bundle) -> bytes:
    """Return *bundle* as canonical JSON."""
    return msgspec.json.encode(
        _Bundle(
            leaf=format_base64(bundle.leaf),
            media_type=BUNDLE_TYPE,
            proof=format_proof(bundle.proof),
        )
    )


def parse_bundle(encoded: bytes) -> Bundle:
    """Return the bundle that *encoded* spells; nothing about it is verified.

    Raises:
        MalformedReceiptError: it spells none, or not in the one way to write it.
    """
    if len(encoded) > BUNDLE_BYTES_MAX:
        raise MalformedReceiptError(f"a bundle is at most {BUNDLE_BYTES_MAX} bytes")
    try:
        wire = _DECODER.decode(encoded)
        leaf = binascii.a2b_base64(wire.leaf, strict_mode=True)
        bundle = Bundle(leaf, parse_proof(wire.proof))
    except BadProofError as broken:
        raise MalformedReceiptError(f"not a bundle: {broken.message}") from broken
    except (msgspec.MsgspecError, ValueError, RecursionError) as broken:
        raise MalformedReceiptError(f"not a bundle: {shown(broken)}") from broken
    if format_bundle(bundle) != encoded:
        raise MalformedReceiptError("the bundle is not written in the canonical form")
    return bundle


class _Bundle(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    leaf: str
    media_type: Literal["application/vnd.tos-gateway.bundle.v1+json"]
    proof: str


_DECODER: Final = msgspec.json.Decoder(_Bundle)
