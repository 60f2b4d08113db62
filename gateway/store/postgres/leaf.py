"""What a replica must know of a leaf before it hands it in: its id, and whom it concerns."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.clock import SystemClock
from gateway.errors import MalformedReceiptError
from gateway.ident import ExchangeId, is_exchange_id, random_bytes
from gateway.receipt.envelope import open_envelope
from gateway.receipt.model import ABANDONMENT_TYPE, RECEIPT_TYPE, REFUSAL_TYPE, Opening
from gateway.receipt.statement import is_opening, read_leaf
from gateway.tlog.merkle import leaf_hash

_CROCKFORD: Final = {
    sign: value for value, sign in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
}
_ID_BITS: Final = 128
_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """A leaf as it is handed in."""

    id: uuid.UUID
    leaf: bytes
    hash: bytes
    relevant: bool = True
    """It can change what other replicas rule: all but exchanges can."""
    abandons: bool = False
    """It closes an exchange that nobody finished; any other closing statement will do."""


class _About(msgspec.Struct):
    exchange: ExchangeId | None = None


class _Closing(msgspec.Struct):
    kind: str = msgspec.field(name="predicateType")
    predicate: _About


_CLOSING: Final = msgspec.json.Decoder(_Closing)
_CLOSES: Final = frozenset({RECEIPT_TYPE, REFUSAL_TYPE, ABANDONMENT_TYPE})


def handed(leaf: bytes) -> Handed:
    """Return *leaf* as it is handed in, under an id of its own.

    What closes an exchange goes by the id of the exchange, whoever writes it: so it is closed
    once, even where a replica that was taken for dead comes back.
    """
    hashed = leaf_hash(leaf)
    if is_opening(leaf):
        return Handed(id=new_id(), leaf=leaf, hash=hashed, relevant=not _opens(leaf))
    try:
        closing = _CLOSING.decode(open_envelope(leaf).payload)
    except (MalformedReceiptError, msgspec.MsgspecError, ValueError, RecursionError):
        return Handed(id=new_id(), leaf=leaf, hash=hashed)
    exchange = closing.predicate.exchange
    if closing.kind not in _CLOSES or exchange is None or not is_exchange_id(exchange):
        return Handed(id=new_id(), leaf=leaf, hash=hashed)
    return Handed(
        id=id_of(exchange),
        leaf=leaf,
        hash=hashed,
        relevant=False,
        abandons=closing.kind == ABANDONMENT_TYPE,
    )


def new_id() -> uuid.UUID:
    """Return a fresh id that sorts after those of earlier milliseconds."""
    return uuid.UUID(bytes=_CLOCK.now_ms().to_bytes(6, "big") + random_bytes(10))


def id_of(exchange: ExchangeId) -> uuid.UUID:
    """Return the id of whatever closes *exchange*: the 128 bits that it spells."""
    value = 0
    for sign in exchange[2:]:
        value = value << 5 | _CROCKFORD[sign]
    return uuid.UUID(int=value & (1 << _ID_BITS) - 1)


def _opens(leaf: bytes) -> bool:
    """Tell whether what is no envelope is an opening; otherwise nobody knows what it says."""
    try:
        return isinstance(read_leaf(leaf), Opening)
    except MalformedReceiptError:
        return False
