"""What a replica must know of a leaf before it hands it in: its id, and whom it concerns."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.clock import SystemClock
from gateway.errors import MalformedReceiptError
from gateway.ident import ExchangeId, is_exchange_id, random_bytes
from gateway.receipt.envelope import open_envelope
from gateway.receipt.model import (
    ABANDONMENT_TYPE,
    KEY_AUTHORIZATION_TYPE,
    RECEIPT_TYPE,
    REFUSAL_TYPE,
    Opening,
)
from gateway.receipt.statement import is_opening, read_leaf
from gateway.tlog.merkle import leaf_hash

_CROCKFORD: Final = {
    sign: value for value, sign in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
}
_ID_BITS: Final = 128
_UUID_DIGITS: Final = 32
_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """A leaf as it is handed in."""

    id: uuid.UUID
    leaf: bytes
    hash: bytes
    relevant: bool = True
    """It can change what other replicas rule: all but exchanges can."""
    closes: bool = False
    """It closes an exchange, which others may have closed."""


class _About(msgspec.Struct):
    exchange: ExchangeId | None = None
    keyid: str | None = None


class _Said(msgspec.Struct):
    kind: str = msgspec.field(name="predicateType")
    predicate: _About


_SAID: Final = msgspec.json.Decoder(_Said)
_KEYID: Final = re.compile(r"[0-9a-f]{64}")
_CLOSES: Final = frozenset({RECEIPT_TYPE, REFUSAL_TYPE, ABANDONMENT_TYPE})


def handed(leaf: bytes) -> Handed:
    """Return *leaf* as it is handed in, under an id of its own.

    What closes an exchange goes by the id of the exchange, whoever writes it: so it is closed
    once, even where a replica that was taken for dead comes back. What authorises a key goes by
    the id of the key.
    """
    hashed = leaf_hash(leaf)
    if is_opening(leaf):
        return Handed(id=new_id(), leaf=leaf, hash=hashed, relevant=not _opens(leaf))
    try:
        said = _SAID.decode(open_envelope(leaf).payload)
    except (MalformedReceiptError, msgspec.MsgspecError, ValueError, RecursionError):
        return Handed(id=new_id(), leaf=leaf, hash=hashed)
    match said.predicate:
        case _About(exchange=str() as exchange) if said.kind in _CLOSES:
            return Handed(
                id=id_of(exchange) if is_exchange_id(exchange) else new_id(),
                leaf=leaf,
                hash=hashed,
                relevant=False,
                closes=True,
            )
        case _About(keyid=str() as keyid) if said.kind == KEY_AUTHORIZATION_TYPE:
            known = uuid.UUID(hex=keyid[:_UUID_DIGITS]) if _KEYID.fullmatch(keyid) else new_id()
            return Handed(id=known, leaf=leaf, hash=hashed)
        case _:
            return Handed(id=new_id(), leaf=leaf, hash=hashed)


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
