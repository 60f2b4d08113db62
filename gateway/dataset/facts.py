"""Of a usage receipt, read the fields that decide; what many receipts share stays unread.

Receipts of one kind of call say most things in the same bytes. Whoever reads many of them reads
one of each kind whole, and of the others what differs.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.errors import MalformedReceiptError
from gateway.receipt.model import PAYLOAD_TYPE, RECEIPT_TYPE

Shared = tuple[object, ...]
"""What receipts of one kind of call have in common, as it is written."""


class CallerFacts(msgspec.Struct, frozen=True):
    """Who asked."""

    project: str


class ProviderFacts(msgspec.Struct, frozen=True, rename="camel"):
    """Who was asked."""

    name: str
    route: str | None = None
    account_tier: str | None = None


class CommitmentFacts(msgspec.Struct, frozen=True):
    """What commits to a row."""

    value: str


class OutputFacts(msgspec.Struct, frozen=True):
    """One choice of an answer, and what commits to its rows."""

    choice: int
    row: CommitmentFacts | None = None
    reasoned: CommitmentFacts | None = None


class UsageFacts(msgspec.Struct, frozen=True, rename="camel"):
    """How many tokens were read and written."""

    input_tokens: int | None = None
    output_tokens: int | None = None


class Facts(msgspec.Struct, frozen=True):
    """The fields of a receipt that decide; what many share stays as it is written."""

    exchange: str
    caller: CallerFacts
    declared: msgspec.Raw
    ruling: msgspec.Raw
    provider: ProviderFacts
    model: msgspec.Raw
    operation: str
    streaming: bool
    readable: bool
    ended: str
    received: str
    outputs: tuple[OutputFacts, ...] = ()
    features: tuple[str, ...] = ()
    usage: UsageFacts | None = None

    @property
    def shared(self) -> Shared:
        """Return what tells one kind of call from another."""
        return (
            bytes(self.declared),
            bytes(self.ruling),
            bytes(self.model),
            self.provider,
            self.operation,
            self.streaming,
            self.features,
        )


def read_facts(leaf: bytes) -> tuple[Facts, str, bytes] | None:
    """Return the facts of the receipt in *leaf*, the key it names, and its payload.

    Of a leaf that is no receipt, `None`.

    Raises:
        MalformedReceiptError: it is no signed statement, or no receipt that can be read.
    """
    try:
        envelope = _ENVELOPE.decode(leaf)
        try:
            payload = _PAYLOAD.decode(envelope.payload)
        except msgspec.ValidationError:
            if _KIND.decode(envelope.payload).predicate_type != RECEIPT_TYPE:
                return None
            raise
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise MalformedReceiptError(f"not a usage receipt: {exc}") from exc
    if payload.predicate_type != RECEIPT_TYPE:
        return None
    (signature,) = envelope.signatures
    if envelope.payload_type != PAYLOAD_TYPE or signature.keyid is None:
        raise MalformedReceiptError("not a usage receipt")
    return payload.predicate, signature.keyid, envelope.payload


def read_answer(leaf: bytes) -> Facts | None:
    """Return the facts of the receipt in *leaf*, or `None` where it is none; see `read_facts`.

    Raises:
        MalformedReceiptError: it is no signed statement, or no receipt that can be read.
    """
    read = read_facts(leaf) if named_key(leaf) is not None else None
    return None if read is None else read[0]


def named_key(leaf: bytes) -> str | None:
    """Return the key that the envelope in *leaf* names, which was read whole before.

    Raises:
        MalformedReceiptError: it is no envelope.
    """
    try:
        (signature,) = _SIGNED.decode(leaf).signatures
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise MalformedReceiptError(f"not an envelope: {exc}") from exc
    return signature.keyid


class _Signature(msgspec.Struct, frozen=True):
    keyid: str | None = None


class _Signed(msgspec.Struct, frozen=True):
    signatures: tuple[_Signature]


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    payload: bytes
    payload_type: str
    signatures: tuple[_Signature]


class _Kind(msgspec.Struct, frozen=True, rename="camel"):
    predicate_type: str


class _Payload(msgspec.Struct, frozen=True, rename="camel"):
    predicate: Facts
    predicate_type: str


_SIGNED: Final = msgspec.json.Decoder(_Signed)
_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_KIND: Final = msgspec.json.Decoder(_Kind)
_PAYLOAD: Final = msgspec.json.Decoder(_Payload)
