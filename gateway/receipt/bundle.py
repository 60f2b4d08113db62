"""Bundles: a leaf and all that shows it to be evidence, in one file that needs no server.

That is its inclusion proof with the checkpoint and, where a receipt key signed it, the leaf
that authorised that key, with its inclusion under the same checkpoint.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from gateway.errors import BadProofError, MalformedReceiptError
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.tlog.proof import HASHES_MAX, InclusionProof, format_proof, parse_proof
from gateway.tlog.text import format_base64, parse_hash, shown

BUNDLE_TYPE: Final = "application/vnd.tos-gateway.bundle.v2+json"


@dataclass(frozen=True, slots=True)
class Included:
    """A leaf and its way up to the root of a checkpoint that stands elsewhere."""

    leaf: bytes
    index: int
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A leaf and what shows that it is in the log, signed by a key that might."""

    leaf: bytes
    proof: InclusionProof
    authorization: Included | None = None
    """The authorisation of the receipt key that signed it."""


def format_bundle(bundle: Bundle) -> bytes:
    """Return *bundle* as canonical JSON."""
    return msgspec.json.encode(
        _Bundle(
            authorization=None
            if bundle.authorization is None
            else _Included(
                hashes=[format_base64(one) for one in bundle.authorization.hashes],
                index=bundle.authorization.index,
                leaf=format_base64(bundle.authorization.leaf),
            ),
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
        bundle = Bundle(leaf, parse_proof(wire.proof), _included(wire.authorization))
    except BadProofError as broken:
        raise MalformedReceiptError(f"not a bundle: {broken.message}") from broken
    except (msgspec.MsgspecError, ValueError, RecursionError) as broken:
        raise MalformedReceiptError(f"not a bundle: {shown(broken)}") from broken
    if format_bundle(bundle) != encoded:
        raise MalformedReceiptError("the bundle is not written in the canonical form")
    return bundle


def _included(wire: _Included | None) -> Included | None:
    if wire is None:
        return None
    if len(wire.hashes) > HASHES_MAX:
        raise BadProofError(f"a proof has at most {HASHES_MAX} hashes")
    return Included(
        leaf=binascii.a2b_base64(wire.leaf, strict_mode=True),
        index=wire.index,
        hashes=tuple(parse_hash(one, "a hash of the authorisation") for one in wire.hashes),
    )


class _Included(msgspec.Struct, forbid_unknown_fields=True):
    hashes: list[str]
    index: Annotated[int, msgspec.Meta(ge=0)]
    leaf: str


class _Bundle(
    msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"
):
    authorization: _Included | None = None
    leaf: str
    media_type: Literal["application/vnd.tos-gateway.bundle.v2+json"]
    proof: str


_DECODER: Final = msgspec.json.Decoder(_Bundle)
