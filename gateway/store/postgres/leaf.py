"""What a replica must know of a leaf before it hands it in: its name, and whom it concerns."""

from __future__ import annotations

import uuid
from typing import Final

from gateway.clock import SystemClock
from gateway.errors import MalformedReceiptError
from gateway.ident import ExchangeId, random_bytes
from gateway.receipt.model import Abandonment, Opening, Receipt, Refusal
from gateway.receipt.statement import is_opening, read_leaf

_CROCKFORD: Final = {
    sign: value for value, sign in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
}
_ID_BITS: Final = 128
_CLOCK: Final = SystemClock()


def new_id() -> uuid.UUID:
    """Return a fresh id that sorts after those of earlier milliseconds."""
    return uuid.UUID(bytes=_CLOCK.now_ms().to_bytes(6, "big") + random_bytes(10))


def id_of(exchange: ExchangeId) -> uuid.UUID:
    """Return the id of whatever closes *exchange*: there is one, so it is closed once."""
    value = 0
    for sign in exchange[2:]:
        value = value << 5 | _CROCKFORD[sign]
    return uuid.UUID(int=value & (1 << _ID_BITS) - 1)


def placing_of(leaf: bytes) -> tuple[uuid.UUID, bool]:
    """Return the id under which *leaf* is handed in, and whether it concerns other replicas."""
    if is_opening(leaf):
        return new_id(), _is_nothing(leaf)
    try:
        statement = read_leaf(leaf)
    except MalformedReceiptError:
        return new_id(), True
    match statement:
        case Receipt() | Refusal() | Abandonment():
            return id_of(statement.exchange), False
        case _:
            return new_id(), True


def is_relevant(leaf: bytes) -> bool:
    """Tell whether *leaf* can change what other replicas rule: all but exchanges can."""
    return placing_of(leaf)[1]


def _is_nothing(leaf: bytes) -> bool:
    """Tell whether what is no envelope is no opening either; nobody knows what it says then."""
    try:
        return not isinstance(read_leaf(leaf), Opening)
    except MalformedReceiptError:
        return True
