"""Cuts the bytes of one direction of a WebSocket (RFC 6455) where its messages end.

The bytes stay as they came; a message's content is read beside them, unmasked and inflated
(RFC 7692). So a whole message can be looked at before its bytes go on.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gateway.limits import MESSAGE_BYTES_MAX

_FIN: Final = 0x80
_RSV1: Final = 0x40
_RSV: Final = 0x70
_MASK: Final = 0x80
_CONTINUATION: Final = 0
_DATA: Final = frozenset({1, 2})
_CLOSE: Final = 8
_CONTROL: Final = frozenset({8, 9, 10})
_CONTROL_BYTES_MAX: Final = 125
_TAIL: Final = b"\x00\x00\xff\xff"
NO_CODE: Final = 1005
"""What a close frame without a code stands for."""


class BrokenFrameError(ValueError):
    """Bytes that are no frames, or frames in an order that they may not have."""


class LongMessageError(ValueError):
    """A message over `limits.MESSAGE_BYTES_MAX`, as it came or inflated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some bytes as they came, ending where a message ends, or between two messages."""

    raw: bytes
    content: bytes | None = None
    """The message that ends with it; `None`: only frames that steer the connection."""
    closing: int | None = None
    """The code of a close frame in it."""


class Inflation:
    """Undoes permessage-deflate for one direction."""

    def __init__(self, *, keeps_context: bool) -> None:
        self._keeps_context = keeps_context
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)

    def inflate(self, content: bytes) -> bytes:
        """Return what a message stands for.

        Raises:
            BrokenFrameError: it does not inflate.
            LongMessageError: to more than may be held.
        """
        if not self._keeps_context:
            self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            plain = self._stream.decompress(content + _TAIL, MESSAGE_BYTES_MAX + 1)
        except zlib.error as exc:
            raise BrokenFrameError("a message that does not inflate") from exc
        if len(plain) > MESSAGE_BYTES_MAX or self._stream.unconsumed_tail:
            raise LongMessageError
        if self._stream.eof:
            # The sender ended the stream with its message, and begins another.
            self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        return plain


class Messages:
    """The messages of one direction; *masked*: those of the side that connected."""

    def __init__(self, *, masked: bool, inflation: Inflation | None) -> None:
        self._masked = masked
        self._inflation = inflation
        self._held = bytearray()
        self._at = 0
        """How much of what is held was read."""
        self._begun: int | None = None
        """The first byte of the message under way."""
        self._parts: list[bytes] = []
        self._size = 0

    def let_go(self) -> bytes:
        """Return the bytes that waited for the end of their message; no more is read."""
        held = bytes(self._held)
        self._held.clear()
        return held

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Take the next bytes; yield the pieces that are complete with them.

        Raises:
            BrokenFrameError: nobody can tell where the next message begins.
            LongMessageError: a message is too long to be held; from there on none is read.
        """
        self._held += data
        while (piece := self._next()) is not None:
            yield piece

    def _next(self) -> Piece | None:
        """Return the next piece, if all of it is here."""
        while (frame := self._frame()) is not None:
            first, content = frame
            opcode = first & 15
            if opcode in _CONTROL:
                if opcode == _CLOSE:
                    return self._cut(closing=_code_of(content))
                if self._begun is None:
                    return self._cut()
                continue
            self._take(first, opcode, content)
            if first & _FIN:
                whole = b"".join(self._parts)
                begun, self._begun = self._begun, None
                self._parts.clear()
                self._size = 0
                if begun is not None and begun & _RSV1 and self._inflation is not None:
                    whole = self._inflation.inflate(whole)
                return self._cut(content=whole)
        return None

    def _take(self, first: int, opcode: int, content: bytes) -> None:
        """Take a frame of a message."""
        if opcode == _CONTINUATION:
            if self._begun is None or first & _RSV:
                raise BrokenFrameError("a continuation of nothing")
        elif opcode in _DATA:
            reserved = first & _RSV
            if self._begun is not None:
                raise BrokenFrameError("a message inside another")
            if reserved and (reserved != _RSV1 or self._inflation is None):
                raise BrokenFrameError("a frame of an extension that was not agreed on")
            self._begun = first
        else:
            raise BrokenFrameError("a frame of an unknown kind")
        self._parts.append(content)
        self._size += len(content)

    def _frame(self) -> tuple[int, bytes] | None:
        """Return the next frame's first byte and its content, if all of it is here."""
        held, at = self._held, self._at
        if len(held) < at + 2:
            return None
        first, second = held[at], held[at + 1]
        size, at = second & 127, at + 2
        if bool(second & _MASK) != self._masked:
            raise BrokenFrameError("a frame that is masked where it must not be, or is not")
        if first & 15 in _CONTROL and (
            size > _CONTROL_BYTES_MAX or not first & _FIN or first & _RSV
        ):
            raise BrokenFrameError("a control frame that is none")
        if size > _CONTROL_BYTES_MAX:
            wide = 2 if size == 126 else 8
            if len(held) < at + wide:
                return None
            size, at = int.from_bytes(held[at : at + wide], "big"), at + wide
            if size < (126 if wide == 2 else 1 << 16):
                raise BrokenFrameError("a length written longer than it is")
        if self._size + size > MESSAGE_BYTES_MAX:
            raise LongMessageError
        mask = b""
        if self._masked:
            mask, at = bytes(held[at : at + 4]), at + 4
        if len(held) < at + size:
            return None
        content = bytes(held[at : at + size])
        self._at = at + size
        return first, _unmasked(content, mask) if self._masked else content

    def _cut(self, content: bytes | None = None, closing: int | None = None) -> Piece:
        raw = bytes(self._held[: self._at])
        del self._held[: self._at]
        self._at = 0
        return Piece(raw=raw, content=content, closing=closing)


def close_frame(code: int, reason: str, mask: bytes = b"") -> bytes:
    """Return a close frame, under the four bytes *mask* where the connecting side sends it."""
    content = code.to_bytes(2, "big") + _short(reason)
    second = len(content) | (_MASK if mask else 0)
    return (
        bytes((_FIN | _CLOSE, second)) + mask + (_unmasked(content, mask) if mask else content)
    )


def _short(reason: str) -> bytes:
    """Return as much of *reason* as a close frame holds."""
    return reason.encode()[: _CONTROL_BYTES_MAX - 2].decode("utf-8", "ignore").encode()


def _unmasked(content: bytes, mask: bytes) -> bytes:
    size = len(content)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(content, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def _code_of(content: bytes) -> int:
    return int.from_bytes(content[:2], "big") if len(content) >= 2 else NO_CODE
