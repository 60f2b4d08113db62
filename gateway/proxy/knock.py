"""A request at the door: its head as it came, and its body as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from gateway.proxy.framing import Head, Line


class Sender(Protocol):
    """The connection that a request comes over."""

    transport: asyncio.Transport

    def proceed(self) -> None:
        """Tell the caller that its body is wanted, if it waits for that."""
        ...

    def read_on(self) -> None:
        """Read more of the body, if reading was stopped."""
        ...

    def hold(self, count: int) -> None:
        """Count bytes of the body that are held until it is answered.

        Raises:
            DoorFullError: all bodies together are over the limit.
        """
        ...


class Knock:
    """One request; its head is whole, and its body is read by at most one reader, once."""

    __slots__ = (
        "_waiter",
        "ahead",
        "begun_s",
        "body_bytes",
        "body_exists",
        "content_length",
        "ended",
        "failure",
        "headers",
        "is_chunked",
        "is_old",
        "lines",
        "method",
        "parts",
        "raw_path",
        "reading",
        "sender",
        "stays",
        "trailers",
        "waited_s",
    )

    def __init__(self, head: Head, sender: Sender) -> None:
        self.sender = sender
        self.method = head.method
        self.raw_path = head.target
        """Path and query, percent-encoding as it came."""
        self.headers = head.headers
        self.lines = head.lines
        """The headers as they came, in order."""
        self.is_old = head.is_old
        self.stays = head.stays
        self.content_length = head.length
        """As declared; `None` where the body comes in chunks, or there is none."""
        self.is_chunked = head.chunked
        self.body_exists = head.chunked or bool(head.length)
        self.trailers: list[Line] = []
        """What stands behind the last chunk, once the body has ended."""
        # OWNED BY: the connection at the tail, chunks() at the head.
        self.parts: list[bytes] = []
        self.ahead = 0
        """Bytes in *parts*."""
        self.body_bytes = 0
        """Bytes of the body that have come."""
        self.ended = not self.body_exists
        self.failure: Exception | None = None
        self.begun_s: float | None = None
        """Since when the caller is waited for; `None` while it is not."""
        self.waited_s = 0.0
        """How long it was waited for before."""
        self.reading = False
        """Somebody takes the body as it comes."""
        self._waiter: asyncio.Future[None] | None = None

    @property
    def transport(self) -> asyncio.Transport:
        """The connection's transport."""
        return self.sender.transport

    def whole(self) -> bytes | None:
        """Return the body if all of it is here, else `None`; each byte is given out once."""
        if not self.ended or self.failure is not None:
            return None
        return self._take()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body's bytes as they come.

        Raises:
            CallerGoneError: the caller hung up before its body was whole.
            MalformedRequestError: it broke the framing, or was too slow.
        """
        self.reading = True
        try:
            while self.parts or not self.ended:
                if self.parts:
                    yield self._take()
                elif self.failure is not None:
                    raise self.failure
                else:
                    await self._wait()
        finally:
            self.reading = False

    async def _wait(self) -> None:
        self.sender.proceed()
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self.begun_s = loop.time()
        self.sender.read_on()
        try:
            await self._waiter
        finally:
            self._waiter = None
            if self.begun_s is not None:
                self.waited_s += loop.time() - self.begun_s
                self.begun_s = None

    def _take(self) -> bytes:
        parts = self.parts
        chunk = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.ahead = 0
        self.sender.read_on()
        return chunk

    # -- the connection's side ------------------------------------------------------------

    def feed(self, part: bytes) -> None:
        """Keep bytes of the body until they are read."""
        self.parts.append(part)
        self.ahead += len(part)
        self.body_bytes += len(part)

    def end(self) -> None:
        """Note that the body is whole."""
        self.ended = True
        self.wake()

    def fail(self, failure: Exception) -> None:
        """Note that the body will never be whole."""
        if not self.ended and self.failure is None:
            self.failure = failure
            self.wake()

    def drop(self) -> None:
        """Forget what nobody will read."""
        self.parts.clear()
        self.ahead = 0

    def wake(self) -> None:
        """Wake who waits for the body."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
