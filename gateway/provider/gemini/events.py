"""Splits Google's events, and finds the error that may stand among them as bare JSON."""

from __future__ import annotations

from gateway import limits
from gateway.provider.sse import Event, EventSplitter


class GoogleSplitter:
    """Cuts one stream into events; what is no event but an object is one by itself."""

    def __init__(self, event_bytes_max: int = limits.SSE_EVENT_BYTES_MAX) -> None:
        self._splitter = EventSplitter(event_bytes_max)
        self._begin = 0
        self._pieces: list[bytes] = []
        """What came since the last event ended."""

    @property
    def overflown(self) -> bool:
        """Whether an event passed its bound."""
        return self._splitter.overflown

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes; return the events that are complete with them."""
        events = self._splitter.feed(chunk)
        self._pieces.append(chunk)
        if not events:
            return events
        raw = b"".join(self._pieces)
        found = [self._event(event, raw) for event in events]
        end = events[-1][1]
        rest = raw[end - self._begin :]
        self._pieces = [rest] if rest else []
        self._begin = end
        return found

    def finish(self) -> Event | None:
        """Return what came after the last blank line; once, at the end."""
        last = self._splitter.finish()
        return last if last is None else self._event(last, b"".join(self._pieces))

    def _event(self, event: Event, raw: bytes) -> Event:
        begin, end, data = event
        if data is None:
            said = raw[begin - self._begin : end - self._begin].strip()
            data = said if said.startswith(b"{") else None
        return begin, end, data
