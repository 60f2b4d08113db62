"""Splits a stream of server-sent events as its bytes arrive, and knows where each one lies.

The grammar is WHATWG's: lines end in LF, CR or CRLF, a blank line ends an event, a colon
begins a comment. Events tile the stream: each begins where the one before it ends. Every byte
is looked at a constant number of times, however the stream is cut into chunks.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from gateway import limits

_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = rb"(?:\r\n|\n|\r(?=[^\n]))"
_BLANK_LINE: Final = re.compile(_LINE_END + _LINE_END)
"""A CR counts only once its successor is known: it may be the first half of a CRLF."""

_SEAM_BYTES: Final = 3
"""A blank line is at most four bytes, so it begins at most three before the newest chunk."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event; *data* is `None` where a block holds only comments or no data.

    A struct of msgspec and positional, because one is made for every event of every stream.
    """

    begin: int
    end: int
    data: bytes | None


class EventSplitter:
    """Cuts one stream into events; *overflown* once an event passed its bound."""

    def __init__(self, event_bytes_max: int = limits.SSE_EVENT_BYTES_MAX) -> None:
        self.overflown = False
        self._event_bytes_max = event_bytes_max
        self._begin = 0
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._seam = b""

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes; return the events that are complete with them."""
        if self._rest:
            if _BLANK_LINE.search(self._seam + chunk) is None:
                self._hold(chunk)
                return []
            chunk = b"".join((*self._rest, chunk))
            self._rest = []
            self._rest_bytes = 0
        if b"\r" in chunk:
            return self._split_any(chunk)
        *blocks, rest = chunk.split(b"\n\n")
        events = []
        begin = self._begin
        for block in blocks:
            end = begin + len(block) + 2
            if block.startswith(b"data: ") and b"\n" not in block:
                events.append(Event(begin, end, block[6:] or None))
            else:
                events.append(Event(begin, end, _data_of(block, first=not begin)))
            begin = end
        self._begin = begin
        if rest:
            self._hold(rest)
        return events if len(chunk) <= self._event_bytes_max else self._bounded(events)

    def finish(self) -> Event | None:
        """Return what came after the last blank line, as the SDKs read it; once, at the end."""
        if not self._rest or self.overflown:
            return None
        block = b"".join(self._rest)
        end = self._begin + len(block)
        return Event(self._begin, end, _data_of(block, first=not self._begin))

    def _split_any(self, chunk: bytes) -> list[Event]:
        """Return the complete events of *chunk*, whatever ends its lines."""
        events = []
        at = 0
        base = self._begin
        for blank in _BLANK_LINE.finditer(chunk):
            data = _data_of(chunk[at : blank.start()], first=not base + at)
            events.append(Event(base + at, base + blank.end(), data))
            at = blank.end()
        self._begin = base + at
        if at < len(chunk):
            self._hold(chunk[at:])
        return events if len(chunk) <= self._event_bytes_max else self._bounded(events)

    def _hold(self, piece: bytes) -> None:
        """Keep *piece* of an event that is not complete."""
        self._rest.append(piece)
        self._rest_bytes += len(piece)
        self._seam = (self._seam + piece if len(self._rest) > 1 else piece)[-_SEAM_BYTES:]
        if self._rest_bytes > self._event_bytes_max:
            self.overflown = True

    def _bounded(self, events: list[Event]) -> list[Event]:
        """Return the events before the first that is too large."""
        for count, event in enumerate(events):
            if event.end - event.begin > self._event_bytes_max:
                self.overflown = True
                return events[:count]
        return events


def _data_of(block: bytes, *, first: bool) -> bytes | None:
    """Return the joined data lines of *block*, or `None` if it says nothing."""
    if first:
        block = block.removeprefix(_BOM)
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    said = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            said.append(value.removeprefix(b" "))
    return b"\n".join(said) or None
