"""What workers and the sequencer's process say to each other over a unix socket.

A frame is a length (4 bytes, big-endian), a kind (1), the number of the question it asks or
answers (8; 0 where there is none), and content. Both ends are processes of one release on one
machine; anybody else is turned away at the door.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from gateway.errors import (
    ExchangeClosedError,
    GatewayError,
    LedgerDamagedError,
    LedgerUncertainError,
    LedgerUnwellError,
    OperatorError,
)
from gateway.ledger.counts import Counts
from gateway.limits import FRAME_BYTES_MAX


class Ask(enum.IntEnum):
    """What a worker says."""

    HELLO = 1
    APPEND = 2
    INTEGRATED = 3
    CHECKPOINT = 4
    REFRESH = 5
    COUNTS = 6


class Tell(enum.IntEnum):
    """What the hub says."""

    WELCOME = 65
    PLACED = 66
    REFUSED = 67
    NOTE = 68
    REFRESHED = 69
    WHOLE = 70
    FOREIGN = 71
    ADOPT = 72
    STATE = 73


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Who a worker is, and what it knows."""

    release: str
    name: str
    """As its openings name their writer."""
    seen: int
    """How many leaves its register has folded."""
    doubtful: tuple[str, ...] = ()
    """Exchanges whose opening it asked for and never heard of."""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """An error as it crosses a socket."""

    kind: str
    message: str
    hint: str
    code: str


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How the ledger is; said again and again, so that silence means something."""

    trouble: Refused | None
    checkpointed_at_ms: int
    alarm: str
    """Why newer policies could not be put in force; empty if all is well."""


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """What all processes have counted together."""

    counts: Counts
    workers: int
    silent: int
    """Workers that have not been heard of for a while; what they last counted is in."""


_HEAD: Final = struct.Struct(">IBQ")
_BARE: Final = _HEAD.size - 4
_INDEX: Final = struct.Struct(">Q")
_PACK: Final = msgspec.msgpack.Encoder()

_KINDS: Final[dict[str, type[GatewayError]]] = {
    kind.__name__: kind
    for kind in (
        LedgerUnwellError,
        LedgerUncertainError,
        LedgerDamagedError,
        ExchangeClosedError,
        OperatorError,
    )
}


def frame(kind: int, number: int, content: bytes = b"") -> bytes:
    """Return one frame."""
    return _HEAD.pack(_BARE + len(content), kind, number) + content


def packed(kind: int, number: int, content: object) -> bytes:
    """Return one frame whose content is a structure."""
    return frame(kind, number, _PACK.encode(content))


def index_bytes(index: int) -> bytes:
    """Return *index* as a frame carries it."""
    return _INDEX.pack(index)


def index_of(content: bytes) -> int:
    """Return the index that *content* begins with."""
    return int(_INDEX.unpack_from(content)[0])


def placed_leaf(content: bytes) -> tuple[int, bytes]:
    """Return index and leaf."""
    return index_of(content), content[_INDEX.size :]


def refused_of(error: GatewayError) -> Refused:
    """Return *error* as it is sent."""
    kind = next(
        (one.__name__ for one in type(error).__mro__ if one.__name__ in _KINDS),
        OperatorError.__name__,
    )
    return Refused(kind=kind, message=error.message, hint=error.hint, code=error.problem)


def error_of(refused: Refused) -> GatewayError:
    """Return the error that was sent."""
    kind = _KINDS.get(refused.kind, OperatorError)
    return kind(refused.message, hint=refused.hint, code=refused.code)


class Frames:
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield kind, number and content of each frame that is whole now.

        Raises:
            ValueError: what arrives is no frame.
        """
        waiting = self._waiting
        waiting += data
        at, end = 0, len(waiting)
        try:
            while end - at >= _HEAD.size:
                length, kind, number = _HEAD.unpack_from(waiting, at)
                if not _BARE <= length <= FRAME_BYTES_MAX:
                    raise ValueError(f"a frame of {length} bytes")
                if end - at < 4 + length:
                    break
                content = bytes(waiting[at + _HEAD.size : at + 4 + length])
                at += 4 + length
                yield kind, number, content
        finally:
            del waiting[:at]
