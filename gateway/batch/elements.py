"""The elements of one array in a JSON document, one by one, without holding the document.

Where elements begin and end is found by brackets and strings alone; each is read by whoever
takes it. What stands around the array is kept, and read at the end as a document whose array
is empty, so that both together are JSON exactly if the whole is.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

from gateway.batch.pieces import Piece
from gateway.limits import ENVELOPE_BYTES_MAX, JSON_DEPTH_MAX, LINE_BYTES_MAX

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_STRING: Final = re.compile(rb'"(?>[^"\\]++|\\.)*+"', re.DOTALL)
_PLAIN: Final = re.compile(rb'(?>[^{}\[\]"]++|"(?>[^"\\]++|\\.)*+")*+', re.DOTALL)
"""All that is neither a bracket nor the beginning of a string that has not ended."""
_OUTSIDE: Final = re.compile(rb'[^{}\[\]",:]++')
_SCALAR: Final = re.compile(rb"[^,\[\]{}]++")


class NoArrayError(ValueError):
    """A document that is no JSON, has no such array, or could be read in two ways."""


class MissingArrayError(NoArrayError):
    """A document without the array, which may say more; *document* is all of it."""

    def __init__(self, message: str, document: dict[str, Any]) -> None:
        super().__init__(message)
        self.document = document


class Elements:
    """The elements of the array to which the names of *path* lead, and what is around it."""

    def __init__(self, chunks: AsyncIterator[bytes], path: Sequence[frozenset[str]]) -> None:
        self._chunks = chunks
        self._scan = _Scan(path)
        self.around: dict[str, Any] = {}
        """The document with an empty array, once all elements have come."""

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Yield the elements.

        Raises:
            NoArrayError: there is no such array, or the document is no JSON object.
        """
        scan = self._scan
        async for chunk in self._chunks:
            for piece in scan.feed(chunk):
                yield piece
        for piece in scan.feed(b"", last=True):
            yield piece
        self.around = scan.finish()


class _Scan:
    """Where a document stands as its bytes come."""

    def __init__(self, path: Sequence[frozenset[str]]) -> None:
        self._path = path
        self._buffer = bytearray()
        self._at = 0
        """Where the buffer begins in the document."""
        self._last = False
        self._envelope = bytearray()
        self._stack: list[str | None] = []
        """Of each object that is open, the name whose value is under way; of arrays `None`."""
        self._arrays: list[bool] = []
        self._name: str | None = None
        self._inside = False
        self._found = False
        # Inside the array:
        self._wants = "first"
        self._number = 0
        self._ended_at = 0
        """Where the last element ended, or the first may begin."""
        self._begin: int | None = None
        """Where the element under way begins."""
        self._depth = 0
        self._seen = 0
        """How far the element under way was looked through, in the buffer."""
        self._too_long = False

    def feed(self, chunk: bytes, *, last: bool = False) -> Iterator[Piece]:
        """Take the next bytes; yield the elements that have ended.

        Raises:
            NoArrayError: they go on as no document with such an array does.
        """
        self._buffer += chunk
        self._last = last
        while True:
            if not self._inside:
                if not self._outside():
                    return
                continue
            piece = self._step()
            if piece is None:
                return
            if piece is not _ON:
                yield piece

    def finish(self) -> dict[str, Any]:
        """Take the end; return the document, its array empty.

        Raises:
            NoArrayError: the document is no JSON, or has no such array.
        """
        if self._inside:
            raise NoArrayError("the array has no end")
        try:
            told = json.loads(self._envelope + self._buffer, object_pairs_hook=_once)
        except RecursionError as wrong:
            raise NoArrayError("it is nested too deep") from wrong
        except ValueError as wrong:
            raise NoArrayError(str(wrong).partition(":")[0]) from wrong
        if not isinstance(told, dict):
            raise NoArrayError("it is no object")
        if not self._found:
            names = ".".join(max(names) for names in self._path)
            raise MissingArrayError(f"it has no array `{names}`", told)
        return told

    # -- around the array -----------------------------------------------------------------

    def _outside(self) -> bool:
        """Go on by one token; tell whether there was one."""
        buffer = self._buffer
        if not buffer:
            return False
        sign = bytes(buffer[0:1])
        if sign == b'"':
            string = _STRING.match(buffer)
            if string is None:
                self._check_envelope(len(buffer))
                return False
            self._string(bytes(string[0]))
            self._keep(string.end())
            return True
        if sign in b"{[":
            return self._open(sign)
        if sign in b"}]":
            if not self._stack:
                raise NoArrayError("a bracket closes nothing")
            self._stack.pop()
            self._arrays.pop()
            self._name = None
        elif sign == b":" and self._stack and not self._arrays[-1]:
            self._stack[-1] = self._name
        elif sign == b",":
            self._name = None
        else:
            plain = _OUTSIDE.match(buffer)
            self._keep(1 if plain is None else plain.end())
            return True
        self._keep(1)
        return True

    def _open(self, sign: bytes) -> bool:
        if len(self._stack) >= JSON_DEPTH_MAX:
            raise NoArrayError("it is nested too deep")
        if sign == b"[" and self._leads_here():
            if self._found:
                raise NoArrayError("it has the array twice")
            self._found = self._inside = True
            self._skip(1)
            self._envelope += b"["
            self._wants, self._ended_at = "first", self._at
            return True
        self._stack.append(None)
        self._arrays.append(sign == b"[")
        self._name = None
        self._keep(1)
        return True

    def _leads_here(self) -> bool:
        return (
            len(self._stack) == len(self._path)
            and not any(self._arrays)
            and all(name in names for name, names in zip(self._stack, self._path, strict=True))
        )

    def _string(self, token: bytes) -> None:
        if self._stack and not self._arrays[-1]:
            try:
                self._name = json.loads(token)
            except ValueError as wrong:
                raise NoArrayError("a name is no string") from wrong

    def _keep(self, count: int) -> None:
        self._check_envelope(count)
        self._envelope += self._buffer[:count]
        self._skip(count)

    def _check_envelope(self, more: int) -> None:
        if len(self._envelope) + more > ENVELOPE_BYTES_MAX:
            raise NoArrayError("too much stands around the array")

    def _skip(self, count: int) -> None:
        del self._buffer[:count]
        self._at += count

    # -- in the array ---------------------------------------------------------------------

    def _step(self) -> Piece | None:
        """Go on by one thing; `None`: more must come first."""
        if self._begin is not None:
            return self._go_through(self._begin)
        space = _SPACE.match(self._buffer)
        self._skip(0 if space is None else space.end())
        if not self._buffer:
            return None
        sign = bytes(self._buffer[0:1])
        if sign == b"]" and self._wants != "element":
            self._envelope += b"]"
            self._skip(1)
            self._inside = False
            self._name = None
            return _ON
        if sign == b"," and self._wants == "separator":
            self._skip(1)
            self._wants = "element"
            return _ON
        if self._wants == "separator" or sign in b",]}:":
            raise NoArrayError("the array's elements are not divided by commas")
        self._begin, self._seen, self._depth = self._at, 0, 0
        return _ON

    def _go_through(self, begin: int) -> Piece | None:
        """Look for the end of the element under way."""
        end = self._end()
        if end is None:
            if len(self._buffer) > LINE_BYTES_MAX:
                if self._seen == 0:
                    raise NoArrayError("a string of it is too long")
                self._too_long = True
                self._skip(self._seen)
                self._seen = 0
            return None
        content = None
        if not self._too_long and end <= LINE_BYTES_MAX:
            # A number may stand before blanks.
            content = bytes(self._buffer[:end]).rstrip(b" \t\r\n")
        self._skip(end)
        piece = Piece(self._number, self._ended_at, self._at, content, begin)
        if self._number == 0:
            piece = Piece(0, begin, self._at, content, begin)
        self._number, self._ended_at, self._begin = self._number + 1, self._at, None
        self._too_long, self._wants = False, "separator"
        return piece

    def _end(self) -> int | None:
        """Return where the element under way ends in the buffer, or `None`."""
        buffer = self._buffer
        while True:
            if self._depth == 0 and self._seen == 0 and not self._too_long:
                first = bytes(buffer[0:1])
                if first == b'"':
                    string = _STRING.match(buffer)
                    return None if string is None else string.end()
                if first not in b"{[":
                    scalar = _SCALAR.match(buffer)
                    end = 0 if scalar is None else scalar.end()
                    return None if end == len(buffer) and not self._last else max(end, 1)
            plain = _PLAIN.match(buffer, self._seen)
            self._seen = self._seen if plain is None else plain.end()
            sign = bytes(buffer[self._seen : self._seen + 1])
            if sign in {b"", b'"'}:
                return None
            self._seen += 1
            self._depth += 1 if sign in b"{[" else -1
            if self._depth == 0:
                return self._seen


_ON: Final = Piece(-1, 0, 0, None)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of *pairs*, each name of which stands there once."""
    told = dict(pairs)
    if len(told) != len(pairs):
        raise NoArrayError("a name stands there twice")
    return told
