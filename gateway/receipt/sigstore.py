"""Manifests as Sigstore bundles v0.3, which cosign and sigstore-js verify; trust files too.

The envelope inside carries one signature without a key's name; the bundle's hint names it. The
bare envelope is also a leaf of the ledger.
"""

from __future__ import annotations

import binascii
from typing import Any, Final, Literal

import msgspec

from gateway.canonical import canonical_json, sha256_hex
from gateway.errors import MalformedReceiptError
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.receipt.envelope import Signer, open_envelope, seal_unnamed
from gateway.receipt.model import PREDICATES, STATEMENT_TYPE
from gateway.receipt.statement import read_payload
from gateway.tlog.text import shown

TRUST_TYPE: Final = PREDICATES + "trust/v2"
TRUST_NAME: Final = "trust.json"

SIGSTORE_BUNDLE_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"

_MIDDLE: Final = (
    b',"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",'
    b'"verificationMaterial":{"publicKey":{"hint":"'
)


def write_manifest(statement: dict[str, Any], signer: Signer) -> tuple[bytes, bytes]:
    """Return *statement*, signed, as a Sigstore bundle, and the envelope that is its leaf.

    Raises:
        MalformedReceiptError: it is not an in-toto Statement of a manifest, or is too long.
    """
    payload = canonical_json(statement)
    read_payload(payload)
    leaf = seal_unnamed(payload, signer)
    return wrap_leaf(leaf, signer.keyid), leaf


def write_trust_signature(trust_file: bytes, origin: str, at: str, root: Signer) -> bytes:
    """Return the Sigstore bundle by which the root key vouches for *trust_file* as it is."""
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": TRUST_NAME, "digest": {"sha256": sha256_hex(trust_file)}}],
        "predicateType": TRUST_TYPE,
        "predicate": {"at": at, "origin": origin},
    }
    return wrap_leaf(seal_unnamed(canonical_json(statement), root), root.keyid)


def wrap_leaf(leaf: bytes, keyid: str) -> bytes:
    """Return the Sigstore bundle of the envelope *leaf* signed by the key *keyid*."""
    return b"%b%b%b%b%b" % (
        b'{"dsseEnvelope":',
        leaf,
        _MIDDLE,
        binascii.b2a_base64(bytes.fromhex(keyid), newline=False),
        b'"},"tlogEntries":[]}}',
    )


def open_manifest(bundle: bytes) -> tuple[bytes, str]:
    """Return the envelope in the Sigstore *bundle* and the keyid it hints at, unverified.

    Raises:
        MalformedReceiptError: it is not a bundle as the gateway writes them.
    """
    if len(bundle) > BUNDLE_BYTES_MAX:
        raise MalformedReceiptError(f"a manifest is at most {BUNDLE_BYTES_MAX} bytes")
    try:
        wire = _DECODER.decode(bundle)
        hint = wire.verification_material.public_key.hint
        keyid = binascii.a2b_base64(hint, strict_mode=True).hex()
    except (msgspec.MsgspecError, ValueError, RecursionError) as broken:
        raise MalformedReceiptError(f"not a manifest: {shown(broken)}") from broken
    leaf = bytes(wire.dsse_envelope)
    if wrap_leaf(leaf, keyid) != bundle:
        raise MalformedReceiptError("the manifest is not written in the canonical form")
    if open_envelope(leaf).signatures[0].keyid is not None:
        raise MalformedReceiptError("the envelope of a manifest must not name its key")
    return leaf, keyid


class _PublicKey(msgspec.Struct, forbid_unknown_fields=True):
    hint: str


class _Material(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    public_key: _PublicKey
    tlog_entries: list[msgspec.Raw]


class _SigstoreBundle(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    dsse_envelope: msgspec.Raw
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    verification_material: _Material


_DECODER: Final = msgspec.json.Decoder(_SigstoreBundle)
