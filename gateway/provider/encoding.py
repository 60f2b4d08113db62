"""Undoes a content-encoding beside the relay, so that an answer can be read as it passes.

The bytes that go to the caller stay as they came. A decoder never raises: from where it can't
follow (an encoding it does not know, damage, more than may be held) it hands on bytes that no
reader can take for an answer, and the answer turns opaque.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import brotli
import zstandard

from gateway import limits

UNREADABLE: Final = b"\n\ndata: \xff\n\n"
"""Ends whatever event was under way with one that no dialect reads, and spoils any JSON."""

_ZSTD_SLICE_BYTES: Final = 256
"""Four bytes of zstd can stand for 128 KiB, and its decoder knows no bound on what comes out;
so little is fed at a time that one slice yields at most 8 MiB."""

_BROTLI_BYTES_AT_ONCE: Final = 1 * limits.MIB
"""Four bytes of brotli can stand for megabytes; its decoder stops soon after so much."""

_IN_A_ROW_MAX: Final = 3
"""Encodings of one body, one inside the other; more of them are somebody's joke."""

_ZSTD_WINDOW_BYTES_MAX: Final = 8 * limits.MIB
"""RFC 9659 allows no larger window for `Content-Encoding: zstd`."""


class Decoder(Protocol):
    """Undoes one content-encoding."""

    def decode(self, chunk: bytes) -> bytes:
        """Take the next bytes as they came; return what they decode to, maybe nothing yet."""
        ...


def decoder_for(
    content_encoding: str | None, bytes_max: int | None = limits.BODY_BYTES_HELD_MAX
) -> Decoder | None:
    """Return what undoes *content_encoding*, or `None` where there is nothing to undo.

    It follows up to *bytes_max* decoded bytes; where there is no such bound, what one chunk
    decodes to still has one.

    Encodings stand in the order in which they were applied (RFC 9110 section 8.4), so the last
    is undone first. One that is not known here makes the answer unreadable.
    """
    if not content_encoding:
        return None
    named = [name.strip().lower() for name in content_encoding.split(",")]
    named = [name for name in named if name not in {"", "identity"}]
    if not named:
        return None
    if len(named) > _IN_A_ROW_MAX or not set(named) <= set(_CODECS):
        return _Unknown()
    codecs = [_CODECS[name]() for name in reversed(named)]
    return _Bounded(codecs[0] if len(codecs) == 1 else _InARow(codecs), bytes_max)


class _DamageError(ValueError):
    """Bytes that don't decode."""


class _Codec(Protocol):
    def decode(self, chunk: bytes, bytes_max: int) -> bytes:
        """Return what *chunk* decodes to, cut off soon after *bytes_max*.

        Raises `_DamageError`.
        """
        ...


class _Unknown:
    """Makes an answer unreadable from its first byte."""

    def __init__(self) -> None:
        self._told = False

    def decode(self, chunk: bytes) -> bytes:
        if self._told:
            return chunk
        self._told = True
        return UNREADABLE + chunk


class _Bounded:
    """Decodes until damage or the bound; makes the answer unreadable from there on."""

    def __init__(self, codec: _Codec, bytes_max: int | None) -> None:
        self._codec = codec
        self._left = limits.BODY_BYTES_HELD_MAX if bytes_max is None else bytes_max
        self._endless = bytes_max is None
        self._unknown: _Unknown | None = None

    def decode(self, chunk: bytes) -> bytes:
        if self._unknown is not None:
            return self._unknown.decode(chunk)
        try:
            plain = self._codec.decode(chunk, self._left)
        except _DamageError:
            self._unknown = _Unknown()
            return self._unknown.decode(chunk)
        left = self._left - len(plain)
        if not self._endless:
            self._left = left
        if left < 0:
            self._unknown = _Unknown()
            return self._unknown.decode(chunk)
        return plain


class _InARow:
    """Undoes several encodings, the outermost first."""

    def __init__(self, codecs: Sequence[_Codec]) -> None:
        self._codecs = codecs

    def decode(self, chunk: bytes, bytes_max: int) -> bytes:
        for codec in self._codecs:
            # An inner encoding is larger than what it stands for at most by its frame.
            chunk = codec.decode(chunk, bytes_max)
            if len(chunk) > bytes_max:
                raise _DamageError
        return chunk


class _Gzip:
    """Undoes gzip (RFC 1952), members one after another."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def decode(self, chunk: bytes, bytes_max: int) -> bytes:
        out = []
        size = 0
        while chunk:
            if self._member.eof:
                self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            plain = _inflate(self._member, chunk, bytes_max - size)
            out.append(plain)
            size += len(plain)
            if size > bytes_max:
                break
            chunk = self._member.unused_data if self._member.eof else b""
        return b"".join(out)


class _Deflate:
    """Undoes deflate: zlib's format as RFC 9110 says, or raw as some servers send it."""

    def __init__(self) -> None:
        self._head = b""
        self._stream: zlib._Decompress | None = None

    def decode(self, chunk: bytes, bytes_max: int) -> bytes:
        if self._stream is None:
            self._head += chunk
            if len(self._head) < 2:
                return b""
            chunk = self._head
            is_zlib = chunk[0] & 15 == 8 and int.from_bytes(chunk[:2], "big") % 31 == 0
            self._stream = zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)
        return _inflate(self._stream, chunk, bytes_max)


class _Brotli:
    """Undoes brotli (RFC 7932): one stream, and nothing behind it."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    def decode(self, chunk: bytes, bytes_max: int) -> bytes:
        out = []
        size = 0
        stream = self._stream
        try:
            while chunk or not stream.can_accept_more_data():
                if chunk and stream.is_finished():
                    raise _DamageError
                plain = stream.process(chunk, output_buffer_limit=_BROTLI_BYTES_AT_ONCE)
                chunk = b""
                out.append(plain)
                size += len(plain)
                if size > bytes_max:
                    break
        except brotli.error as exc:
            raise _DamageError from exc
        return b"".join(out)


class _Zstd:
    """Undoes zstd (RFC 8878), frames one after another."""

    def __init__(self) -> None:
        frames = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX)
        self._frames = frames.decompressobj(read_across_frames=True)

    def decode(self, chunk: bytes, bytes_max: int) -> bytes:
        out = []
        size = 0
        try:
            for at in range(0, len(chunk), _ZSTD_SLICE_BYTES):
                plain = self._frames.decompress(chunk[at : at + _ZSTD_SLICE_BYTES])
                out.append(plain)
                size += len(plain)
                if size > bytes_max:
                    break
        except zstandard.ZstdError as exc:
            raise _DamageError from exc
        return b"".join(out)


_CODECS: Final[Mapping[str, Callable[[], _Codec]]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstd,
}


def _inflate(stream: zlib._Decompress, chunk: bytes, bytes_max: int) -> bytes:
    """Return what *chunk* inflates to, at most one byte over *bytes_max*.

    Raises:
        _DamageError: it does not inflate.
    """
    try:
        return stream.decompress(chunk, bytes_max + 1)
    except zlib.error as exc:
        raise _DamageError from exc
