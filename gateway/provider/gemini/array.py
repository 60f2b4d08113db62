"""Finds the elements of a JSON array as its bytes arrive, and knows where each one lies.

Elements are objects and tile the stream: each begins where the one before it ends, with the
comma between them. Every byte is looked at a constant number of times, however the stream is
cut into chunks. An object that stands alone is read as an array of it: errors may come so.
"""

from __future__ import annotations

import re
from typing import Final

from gateway import limits
from gateway.provider.sse import Event

_NOT_A_BRACE: Final = rb'(?:[^"{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+'
_NO_BRACE: Final = re.compile(_NOT_A_BRACE, re.DOTALL)
"""What stands before the next brace, whole texts included; nothing is ever tried twice."""

_BRACE: Final = re.compile(_NOT_A_BRACE + rb"[{}]", re.DOTALL)
_INSIDE: Final = re.compile(rb'["\\]')
_BETWEEN: Final = re.compile(rb"[ \t\r\n]*")
_OPENING: Final = ord("{")
_BACKSLASH: Final = b"\\"
_AFTER: Final = {b"[": b"{]", b",": b"{", b"]": b""}
"""What may follow a sign between elements."""


class ArraySplitter:
    """Cuts one array into its elements; *overflown* once one is too large, or it is none."""

    def __init__(self, element_bytes_max: int = limits.SSE_EVENT_BYTES_MAX) -> None:
        self.overflown = False
        self._element_bytes_max = element_bytes_max
        self._chunk_at = 0
        self._begin = 0
        self._expected = b"[{"
        """What may come next between elements."""
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._pieces: list[bytes] = []
        self._bytes = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes; return the elements that are complete with them."""
        events: list[Event] = []
        at = 0
        while at < len(chunk) and not self.overflown:
            if not self._depth:
                at = self._find(chunk, at)
                continue
            end = self._scan(chunk, at)
            self._pieces.append(chunk[at:end])
            self._bytes += end - at
            if self._bytes > self._element_bytes_max:
                self.overflown = True
            elif not self._depth:
                events.append((self._begin, self._chunk_at + end, b"".join(self._pieces)))
                self._begin = self._chunk_at + end
                self._pieces, self._bytes = [], 0
            at = end
        self._chunk_at += len(chunk)
        return events

    def finish(self) -> Event | None:
        """Return nothing: an element that was broken off says nothing."""
        return None

    def _find(self, chunk: bytes, at: int) -> int:
        """Return where the next element begins in *chunk* from *at* on, or its end."""
        blank = _BETWEEN.match(chunk, at)
        at = blank.end() if blank is not None else at
        sign = chunk[at : at + 1]
        if not sign:
            return at
        if sign not in self._expected:
            self.overflown = True
        elif sign == b"{":
            # Outside of any array it is the only one.
            self._expected = b",]" if b"[" not in self._expected else b""
            self._pieces, self._bytes, self._depth = [sign], 1, 1
        else:
            self._expected = _AFTER[sign]
        return at + 1

    def _scan(self, chunk: bytes, at: int) -> int:
        """Return where the element ends in *chunk* from *at* on, or the end of the chunk."""
        while at < len(chunk):
            if self._in_string:
                at = self._skip_string(chunk, at)
                continue
            brace = _BRACE.match(chunk, at)
            if brace is None:
                at = self._skip_rest(chunk, at)
                continue
            at = brace.end()
            self._depth += 1 if chunk[at - 1] == _OPENING else -1
            if not self._depth:
                return at
        return at

    def _skip_rest(self, chunk: bytes, at: int) -> int:
        """Skip what holds no brace: to the end, or into a text that does not end here."""
        skipped = _NO_BRACE.match(chunk, at)
        at = at if skipped is None else skipped.end()
        self._in_string = at < len(chunk)
        return at + 1

    def _skip_string(self, chunk: bytes, at: int) -> int:
        """Skip a text that began in an earlier chunk, or that goes on in the next."""
        if self._escaped:
            self._escaped = False
            return at + 1
        found = _INSIDE.search(chunk, at)
        if found is None:
            return len(chunk)
        self._escaped = found[0] == _BACKSLASH
        self._in_string = self._escaped
        return found.end()
