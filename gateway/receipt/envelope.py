"""The DSSE envelope: a payload, its type, and one signature over both.

There is one way to write an envelope, and only that way is read: the leaf of the ledger is
these exact bytes. Statements of the gateway name their key; manifests, which also travel as
Sigstore bundles, don't (`sigstore.py`).
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Protocol

import msgspec

from gateway.errors import BadSignatureError, MalformedReceiptError
from gateway.limits import LEAF_BYTES_MAX
from gateway.receipt.keys import PublicKey
from gateway.receipt.model import PAYLOAD_TYPE
from gateway.tlog.text import shown

_PAE_START: Final = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} ".encode()
_HEAD: Final = b'{"payload":"'
_MIDDLE: Final = f'","payloadType":"{PAYLOAD_TYPE}","signatures":[{{'.encode()


class Signer(Protocol):
    """What can sign a statement."""

    @property
    def keyid(self) -> str:
        """SHA-256 of the public key's SubjectPublicKeyInfo DER, in hex."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the signature over *message*."""
        ...


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of an envelope; *keyid* is absent where something else names the key."""

    keyid: str | None
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """What an envelope holds; nothing about it is verified."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that a signature covers (DSSE's pre-authentication encoding)."""
    named = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(named), named, len(payload), payload)


def seal_statement(payload: bytes, signer: Signer) -> bytes:
    """Return the envelope of *payload*, signed, naming its key; these bytes are the leaf.

    Raises:
        MalformedReceiptError: the envelope would be longer than a leaf can be.
    """
    sig = signer.sign(b"%b%d %b" % (_PAE_START, len(payload), payload))
    return _write(payload, b'"keyid":"%b",' % signer.keyid.encode(), sig)


def seal_unnamed(payload: bytes, signer: Signer) -> bytes:
    """Return the envelope of *payload*, signed, without naming its key.

    Raises:
        MalformedReceiptError: the envelope would be longer than a leaf can be.
    """
    sig = signer.sign(b"%b%d %b" % (_PAE_START, len(payload), payload))
    return _write(payload, b"", sig)


def open_envelope(leaf: bytes) -> Envelope:
    """Return what *leaf* holds; its signature stays unverified.

    Raises:
        MalformedReceiptError: it is not an envelope as the gateway writes them.
    """
    if len(leaf) > LEAF_BYTES_MAX:
        raise MalformedReceiptError(f"an envelope is at most {LEAF_BYTES_MAX} bytes")
    try:
        wire = _DECODER.decode(leaf)
    except (msgspec.MsgspecError, ValueError, RecursionError) as broken:
        raise MalformedReceiptError(f"not an envelope: {shown(broken)}") from broken
    payload, sig, keyid = wire.payload, wire.signatures[0].sig, wire.signatures[0].keyid
    named = b"" if keyid is None else b'"keyid":"%b",' % keyid.encode()
    # One spelling only: blanks, another order, a key twice or spare bits in base64 end here.
    if _write(payload, named, sig) != leaf:
        raise MalformedReceiptError("the envelope is not written in the canonical form")
    return Envelope(payload, wire.payload_type, (Signature(keyid, sig),))


def verify_envelope(leaf: bytes, keys: Mapping[str, PublicKey]) -> bytes:
    """Return the payload of *leaf* after checking that one of *keys* signed it.

    Raises:
        MalformedReceiptError: it is not an envelope.
        BadSignatureError: its key is not among *keys*, or its signature does not verify.
    """
    envelope = open_envelope(leaf)
    signed_by(envelope, keys)
    return envelope.payload


def signed_by(envelope: Envelope, keys: Mapping[str, PublicKey]) -> PublicKey:
    """Return the one of *keys* that signed *envelope*.

    Raises:
        BadSignatureError: its key is not among *keys*, or its signature does not verify.
    """
    message = pae(envelope.payload_type, envelope.payload)
    keyid, sig = envelope.signatures[0].keyid, envelope.signatures[0].sig
    if keyid is not None:
        key = keys.get(keyid)
        if key is None:
            raise BadSignatureError(f"the key {keyid[:16]}… is not trusted for this statement")
        key.verify(sig, message)
        return key
    for key in keys.values():
        try:
            key.verify(sig, message)
        except BadSignatureError:
            continue
        return key
    raise BadSignatureError("the statement is signed by no trusted key")


def _write(payload: bytes, named: bytes, sig: bytes) -> bytes:
    leaf = b'%b%b%b%b"sig":"%b"}]}' % (
        _HEAD,
        binascii.b2a_base64(payload, newline=False),
        _MIDDLE,
        named,
        binascii.b2a_base64(sig, newline=False),
    )
    if len(leaf) > LEAF_BYTES_MAX:
        raise MalformedReceiptError(
            f"the statement makes a leaf of {len(leaf)} bytes; {LEAF_BYTES_MAX} is the most",
            hint="name long things by digest",
            code="receipt.too_large",
        )
    return leaf


_KeyId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _Signature(msgspec.Struct, forbid_unknown_fields=True):
    sig: bytes
    keyid: _KeyId | None = None


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    payload: bytes
    payload_type: Literal["application/vnd.in-toto+json"] = msgspec.field(name="payloadType")
    signatures: Annotated[list[_Signature], msgspec.Meta(min_length=1, max_length=1)]


_DECODER: Final = msgspec.json.Decoder(_Envelope)
