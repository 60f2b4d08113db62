"""One side of a connection that speaks another protocol from here on (HTTP/1.1 `Upgrade`).

The caller's side is made at the door, the provider's at the dock; whoever made it hands the
connection over with `transport.set_protocol(duplex)`, or passes its own callbacks on. Bytes are
never looked at here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.limits import DUPLEX_CLOSE_S_MAX, RELAY_BYTES_AHEAD_MAX, UNREAD_S_MAX


class Duplex(asyncio.Protocol):
    """Reads and writes bytes, at most `limits.RELAY_BYTES_AHEAD_MAX` ahead of whoever reads.

    One task reads and one writes at a time; they may be different ones.
    """

    def __init__(self, transport: asyncio.Transport, begun: bytes = b"") -> None:
        """Take over *transport*; *begun* is what came over it already, behind the head."""
        self._transport = transport
        self._parts = [begun] if begun else []
        self._ahead = len(begun)
        self._paused = False
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._closing: asyncio.TimerHandle | None = None
        self.gone = transport.is_closing()
        """The connection has ended; what came before can still be read."""
        self.when_gone: Callable[[], None] | None = None
        """Called once, at the moment that it is gone."""

    @property
    def is_open(self) -> bool:
        """Whether what is written now goes out."""
        return not (self.gone or self._ended or self._transport.is_closing())

    async def read(self) -> bytes:
        """Return the bytes that have arrived, waiting for some; `b""`: no more will come."""
        while not self._parts:
            if self._ended or self.gone:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunk = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._ahead = 0
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return chunk

    async def write(self, data: bytes) -> bool:
        """Send *data*, waiting while the other side is slow; tell whether it went out."""
        if self.gone or self._transport.is_closing():
            return False
        self._transport.write(data)
        if not self._writable.is_set():
            try:
                async with asyncio.timeout(UNREAD_S_MAX):
                    await self._writable.wait()
            except TimeoutError:
                self.abort()
        return True

    def close(self, last: bytes = b"") -> None:
        """End the connection once *last*, and what was written, has gone out; soon anyhow."""
        if self._closing is None and not self._transport.is_closing():
            if last:
                self._transport.write(last)
            loop = asyncio.get_running_loop()
            self._closing = loop.call_later(DUPLEX_CLOSE_S_MAX, self._transport.abort)
            self._transport.close()
        self._end()

    def abort(self) -> None:
        """Cut the connection now; what was not sent is dropped."""
        self._transport.abort()
        self._end()

    def _end(self) -> None:
        """Note that no more will be read, and wake whoever waits."""
        self._ended = True
        self._writable.set()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _leave(self) -> None:
        if not self.gone:
            self.gone = True
            tell, self.when_gone = self.when_gone, None
            if tell is not None:
                tell()
        self._end()

    # -- asyncio's callbacks --------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Keep bytes until they are read; stop the sender where too many wait."""
        if self._ended:
            return
        self._parts.append(data)
        self._ahead += len(data)
        if self._ahead > RELAY_BYTES_AHEAD_MAX and not self._paused:
            self._paused = True
            if not self._transport.is_closing():
                self._transport.pause_reading()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def eof_received(self) -> bool:
        """Take the other side's end for the end of both directions."""
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        self._leave()

    def pause_writing(self) -> None:
        """Let writers wait until the other side has taken some of what was written."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self._writable.set()
