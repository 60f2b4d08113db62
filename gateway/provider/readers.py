"""What the readers of all dialects share: how much may go out, and when to give up reading.

A reader never raises on what a provider sends. Where it can't follow, the answer is opaque from
there on: everything but the newest chunk may go out, and nothing of it is ever trainable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from gateway import limits
from gateway.ident import Sha256
from gateway.provider.encoding import UNREADABLE as UNDECODED
from gateway.provider.model import Answer, Unit, UnitKind
from gateway.provider.sse import Event, EventSplitter


class NonsenseError(ValueError):
    """A provider's bytes that are not what their format says; the answer turns opaque."""


UNREADABLE: Final = (NonsenseError, msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Whatever decoding a provider's bytes can raise."""


class OpaqueReader:
    """Reads nothing; holds back the newest chunk, so that the end waits for the receipt."""

    def __init__(self) -> None:
        self._bytes = 0
        self._released = 0

    def feed(self, chunk: bytes) -> int:
        """Take the next bytes; return how many came before them."""
        if chunk:
            self._released = self._bytes
            self._bytes += len(chunk)
        return self._released

    def finish(self) -> Answer:
        """Return that nothing was read."""
        return Answer(readable=False, whole=False)


class BodyReader:
    """Digests a body that is one unit of output, whatever its size; holds the newest chunk."""

    def __init__(self, kind: UnitKind) -> None:
        self._kind = kind
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        self._released = 0
        self._damaged = False

    def feed(self, chunk: bytes) -> int:
        """Take the next bytes; return how many came before them."""
        if chunk:
            # What can't be decoded any further says so by these bytes.
            self._damaged = self._damaged or chunk.startswith(UNDECODED)
            self._sha256.update(chunk)
            self._released = self._bytes
            self._bytes += len(chunk)
        return self._released

    def finish(self) -> Answer:
        """Return the one unit that came; whether all of it did, its transport tells."""
        if self._damaged:
            return Answer(readable=False, whole=False)
        unit = Unit(
            kind=self._kind,
            index=0,
            bytes=self._bytes,
            sha256=Sha256(self._sha256.hexdigest()),
        )
        return Answer(readable=True, whole=True, units=(unit,) if self._bytes else ())


class WholeReader:
    """Holds a body until its end and reads it then; one that is too large turns opaque."""

    def __init__(
        self,
        read: Callable[[bytes], Answer],
        body_bytes_max: int = limits.BODY_BYTES_HELD_MAX,
    ) -> None:
        self._read = read
        self._body_bytes_max = body_bytes_max
        self._bytes = 0
        self._released = 0
        self._pieces: list[bytes] | None = []

    def feed(self, chunk: bytes) -> int:
        """Take the next bytes; return 0 as long as the body is held."""
        before = self._bytes
        self._bytes += len(chunk)
        if self._pieces is not None:
            self._pieces.append(chunk)
            if self._bytes > self._body_bytes_max:
                self._pieces = None
        if self._pieces is None and chunk:
            self._released = before
        return self._released

    def finish(self) -> Answer:
        """Return what the body says, or that it could not be read."""
        if self._pieces is None:
            return Answer(readable=False, whole=False)
        try:
            return self._read(b"".join(self._pieces))
        except UNREADABLE:
            return Answer(readable=False, whole=False)


class Listener(Protocol):
    """Makes sense of the events of one dialect's stream."""

    def hear(self, data: bytes) -> bool:
        """Take one event's data; tell whether it carries content.

        Raises one of `UNREADABLE`, and then has taken in nothing of it.
        """
        ...

    @property
    def ending(self) -> bool:
        """Whether the answer's end, or a mark of it, was heard."""
        ...

    def answer(self) -> Answer:
        """Return what was heard so far.

        Raises one of `UNREADABLE`: the whole of it can't be read.
        """
        ...


class Splitter(Protocol):
    """Cuts a stream into events."""

    @property
    def overflown(self) -> bool:
        """Whether it can't any more."""
        ...

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes; return the events that are complete with them."""
        ...

    def finish(self) -> Event | None:
        """Return what came after the last complete event, where it can be read."""
        ...


class StreamReader:
    """Reads the events of a stream; holds back the newest with content, and what follows."""

    def __init__(
        self,
        listener: Listener,
        stream_bytes_max: int = limits.BODY_BYTES_HELD_MAX,
        splitter: Splitter | None = None,
    ) -> None:
        self._listener = listener
        self._stream_bytes_max = stream_bytes_max
        self._splitter: Splitter = EventSplitter() if splitter is None else splitter
        self._bytes = 0
        self._released = 0
        self._content = False
        self._opaque = False

    def feed(self, chunk: bytes) -> int:
        """Take the next bytes; return where the newest content event begins.

        Before the first content event: where the last complete event ends. Without any: where
        the first mark of the answer's end begins.
        """
        before = self._bytes
        self._bytes += len(chunk)
        if not self._opaque:
            self._opaque = (
                not self._hear(self._splitter.feed(chunk)) or self._splitter.overflown
            )
        if self._opaque and chunk:
            self._released = max(self._released, before)
        return self._released

    def finish(self) -> Answer:
        """Return what was heard; an event cut off before its blank line counts if it parses."""
        if not self._opaque and (last := self._splitter.finish()) is not None:
            self._hear([last])
        try:
            answer = self._listener.answer()
        except UNREADABLE:
            return Answer(readable=False, whole=False)
        if self._opaque:
            return msgspec.structs.replace(
                answer, readable=False, whole=False, choices=(), units=()
            )
        return answer

    def _hear(self, events: list[Event]) -> bool:
        """Take in *events* and move what may go out; tell whether all could be read."""
        for begin, end, data in events:
            if end > self._stream_bytes_max:
                return False
            try:
                if data is not None and self._listener.hear(data):
                    self._content = True
                    self._released = begin
                elif not self._content:
                    # An answer without content must not show its end unsealed either.
                    self._content = self._listener.ending
                    self._released = begin if self._content else end
            except UNREADABLE:
                return False
        return True
