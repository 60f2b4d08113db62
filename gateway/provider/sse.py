"""Splits a stream of server-sent events as its bytes arrive, and knows where each one lies.

The grammar is WHATWG's: lines end in LF, CR or CRLF, a blank line ends an event, a colon
begins a comment. Events tile the stream: each begins where the one before it ends. Every byte
is looked at a constant number of times, however the stream is cut into chunks.
"""

from __future__ import annotations

import re
from typing import Final

from gateway import limits

_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = rb"(?:\r\n|\n|\r(?=[^\n]))"
_BLANK_LINE: Final = re.compile(_LINE_END + _LINE_END)
"""A CR counts only once its successor is known: it may be the first half of a CRLF."""

_SEAM_BYTES: Final = 3
"""A blank line is at most four bytes, so it begins at most three before the newest chunk."""


Event = tuple[int, int, bytes | None]
"""Where an event begins and ends, and its data: `None` where it holds none, only comments.

A bare tuple, because one is made for every event of every stream.
"""

_CR: Final = 13
_LF: Final = 10
"""As numbers, because finding a number in bytes is four times as fast as finding a byte."""


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
        begin = self._begin
        if _CR in chunk:
            if chunk.startswith(b"data: ") and chunk.endswith(b"\r\n\r\n"):
                # Google's shape: one event of one line.
                data = chunk[6:-4]
                one = _CR not in data and _LF not in data
                if one and len(chunk) <= self._event_bytes_max:
                    self._begin = end = begin + len(chunk)
                    return [(begin, end, data or None)]
            return self._split_any(chunk)
        if chunk.startswith(b"data: ") and chunk.endswith(b"\n\n"):
            # By far the most frequent chunk: one event of one line.
            data = chunk[6:-2]
            if _LF not in data and len(chunk) <= self._event_bytes_max:
                self._begin = end = begin + len(chunk)
                return [(begin, end, data or None)]
        *blocks, rest = chunk.split(b"\n\n")
        events: list[Event] = []
        for block in blocks:
            end = begin + len(block) + 2
            if block.startswith(b"data: ") and _LF not in block:
                events.append((begin, end, block[6:] or None))
            else:
                events.append((begin, end, _data_of(block, first=not begin)))
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
        return self._begin, end, _data_of(block, first=not self._begin)

    def _split_any(self, chunk: bytes) -> list[Event]:
        """Return the complete events of *chunk*, whatever ends its lines."""
        events: list[Event] = []
        at = 0
        base = self._begin
        for blank in _BLANK_LINE.finditer(chunk):
            data = _data_of(chunk[at : blank.start()], first=not base + at)
            events.append((base + at, base + blank.end(), data))
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
        for count, (begin, end, _) in enumerate(events):
            if end - begin > self._event_bytes_max:
                self.overflown = True
                return events[:count]
        return events


def _data_of(block: bytes, *, first: bool) -> bytes | None:
    """Return the joined data lines of *block*, or `None` if it says nothing."""
    if first:
        block = block.removeprefix(_BOM)
    if _CR in block:
        block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    elif block.startswith(b"event: "):
        # Anthropic's shape: one line that names the event, one that holds its data.
        line = block[block.find(b"\n") + 1 :]
        if line.startswith(b"data: ") and _LF not in line:
            return line[6:] or None
    said = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            said.append(value.removeprefix(b" "))
    return b"\n".join(said) or None
