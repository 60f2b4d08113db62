"""The caller's side of one exchange: bytes to its socket, and whether it is still there.

aiohttp reads requests and keeps connections; the answer's bytes are written here, as they came
from the provider, so that nothing is added, reordered or re-encoded on the way.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
from collections.abc import Callable
from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest

from gateway.exchange.forward import HOP_BY_HOP, RawHeaders
from gateway.exchange.states import Permitted

_BODILESS: Final = frozenset({204, 304})
_OURS: Final = b"x-gateway-"
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class Knock(BaseRequest):
    """A request that tells its reply when the connection is lost."""

    reply: Reply | None = None

    def _cancel(self, exc: BaseException) -> None:
        super()._cancel(exc)
        if self.reply is not None:
            self.reply.lose()


class Reply(web.StreamResponse):
    """The answer to one `Knock`; implements the walk's `Caller`."""

    def __init__(self, knock: Knock) -> None:
        super().__init__()
        self._knock = knock
        self._transport = knock.transport
        self.gone = self._transport is None or self._transport.is_closing()
        self.when_gone: Callable[[], None] | None = None
        self._head_sent = False
        self._head = b""
        self._joins = False
        self._chunked = False
        self._framed = False
        self._bodiless = False
        self._ended = False
        self._stays = knock.keep_alive
        knock.reply = self

    # -- the walk's Caller ----------------------------------------------------------------

    def lose(self) -> None:
        """Note that the connection is gone, and tell whoever wants to know."""
        self.gone = True
        tell, self.when_gone = self.when_gone, None
        if tell is not None:
            tell()

    def headers_for(self, permitted: Permitted, headers: RawHeaders) -> RawHeaders:
        """Return the provider's end-to-end headers with ours added."""
        exchange = (b"x-gateway-exchange", permitted.asked.exchange.encode())
        return [*headers, exchange, *permitted.headers]

    def head(self, status: int, reason: bytes, headers: RawHeaders, *, sized: bool) -> None:
        """Send the head; a body without a declared length goes out in chunks."""
        if self._head_sent:
            return
        self._head_sent = True
        self._set_status(status, None)
        knock = self._knock
        ending = b"\r\n"
        self._bodiless = knock.method == "HEAD" or status in _BODILESS
        if not sized and not self._bodiless:
            if knock.version >= HttpVersion11:
                self._chunked = True
                ending = b"transfer-encoding: chunked\r\n\r\n"
            else:
                self._stays = False
        if not self._stays:
            ending = b"connection: close\r\n" + ending
        elif knock.version == HttpVersion10:
            ending = b"connection: keep-alive\r\n" + ending
        self._framed = sized or self._chunked
        lines = [b"%b: %b\r\n" % header for header in headers]
        self._head = b"HTTP/1.1 %d %b\r\n%b%b" % (status, reason, b"".join(lines), ending)
        if not self._joins:
            self._send(b"")

    async def pass_on(self, chunk: bytes) -> None:
        """Send body bytes, waiting while the caller is slow; silent once it has gone."""
        if not chunk or self._bodiless:
            return
        self._send(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)
        if self.gone:
            return
        try:
            await self._knock.writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            if not self.gone:
                self.lose()

    # -- the door -------------------------------------------------------------------------

    async def finish(
        self, status: int, reason: bytes, headers: RawHeaders, body: bytes, *, sized: bool
    ) -> None:
        """Send what is left: the head if it has not gone, *body*, and the end."""
        if not self._head_sent and not sized:
            bodiless = status in _BODILESS or self._knock.method == "HEAD"
            if not bodiless:
                headers = [*headers, (b"content-length", b"%d" % len(body))]
                sized = True
        self._joins = True
        self.head(status, reason, headers, sized=sized)
        await self.pass_on(body)
        self.end()

    def end(self) -> None:
        """Send the end of a chunked body."""
        if self._chunked and not self._ended:
            self._send(b"0\r\n\r\n")
        elif self._head:
            self._send(b"")
        self._ended = True

    def break_off(self) -> None:
        """Cut the connection, so that the caller sees a broken answer and never a clean end."""
        self._stays = False
        self._ended = True
        if self._transport is None:
            return
        if self._framed:
            # What was written still goes out; the missing end shows that it is not all.
            self._transport.close()
        else:
            # The connection's end would be the body's: reset it, so that it is none.
            connection = self._transport.get_extra_info("socket")
            if connection is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._transport.abort()

    def proceed(self) -> None:
        """Tell a caller that waits for it to send its body (`Expect: 100-continue`)."""
        self._send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _send(self, content: bytes) -> None:
        if self._head:
            # A head whose body is at hand goes out with it.
            content, self._head = self._head + content, b""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(content)
        else:
            self.gone = True

    # -- aiohttp's side -------------------------------------------------------------------

    @property
    def keep_alive(self) -> bool | None:
        """Tell aiohttp whether the connection may carry another request."""
        return self._stays

    @property
    def prepared(self) -> bool:
        """Tell aiohttp that there is nothing for it to prepare."""
        return self._head_sent

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Do nothing: heads are written by `head`."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """End an answer that has not been ended: that is a bug, so break it off."""
        if not self._ended:
            self.break_off()


@functools.lru_cache(maxsize=8)
def _unwanted(dropped: frozenset[bytes]) -> frozenset[bytes]:
    return HOP_BY_HOP | dropped


def end_to_end(headers: RawHeaders, dropped: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    """Return *headers* without ours, those *dropped*, and those of one connection only."""
    unwanted = _unwanted(dropped)
    kept: list[tuple[bytes, bytes]] = []
    named: set[bytes] = set()
    for header in headers:
        lowered = header[0].lower()
        if lowered not in unwanted:
            if not lowered.startswith(_OURS):
                kept.append(header)
        elif lowered == b"connection":
            named.update(part.strip().lower() for part in header[1].split(b","))
    named -= {b"keep-alive", b"close"}
    return [one for one in kept if one[0].lower() not in named] if named else kept
