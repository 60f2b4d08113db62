"""One connection to a provider: a request out, its answer in, then idle or closed.

HTTP/1.1 over asyncio and llhttp (RFC 9112), strictly: what breaks the framing breaks the answer
off, and an end that its own framing does not show is none.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Protocol

import httptools

from gateway.errors import (
    CallerError,
    CallerGoneError,
    ProviderBrokeOffError,
    ProviderTimeoutError,
)
from gateway.exchange.duplex import Duplex
from gateway.limits import (
    ANSWER_TIMEOUT_S,
    HEADER_BYTES_MAX,
    RELAY_BYTES_AHEAD_MAX,
)

RawHeaders = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 section 7.6.1, and what proxies have learnt to drop beside it."""

_HEAD_BYTES_MAX: Final = 4 * HEADER_BYTES_MAX
_BODILESS: Final = frozenset({204, 304})
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_FRESH_S: Final = 0.001
"""A connection that was read from so lately is not looked at again: that is a system call."""


class Departure(Protocol):
    """Tells when the caller has hung up."""

    gone: bool
    when_gone: Callable[[], None] | None
    """Called once, at the moment it hangs up."""


class Connection(asyncio.Protocol):
    """One request at a time; *retired* takes back a connection that both sides left clean."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, retired: Callable[[Connection], None]
    ) -> None:
        self._loop = loop
        self._retired = retired
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.idle_since = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._departure: Departure | None = None
        self._last_heard = 0.0
        self._reset(head=False, protocol=None)

    # -- one exchange ---------------------------------------------------------------------

    def _reset(self, *, head: bool, protocol: bytes | None) -> None:
        self._asked = False
        self._is_head = head
        self._protocol = protocol
        self.duplex: Duplex | None = None
        """The connection itself, once the provider has switched to what was asked for."""
        self._came: list[tuple[bytes, bytes]] = []
        self._headers: list[tuple[bytes, bytes]] = []
        self._known: dict[bytes, bytes] = {}
        self._trailers: list[tuple[bytes, bytes]] = []
        self._named = b""
        self._switched = b""
        self._header_bytes = 0
        self._head_bytes = 0
        self._sender: asyncio.Task[None] | None = None
        self.reason = b""
        self.status = 0
        self._framed = False
        self._chunked = False
        self._keep_alive = False
        self._surplus = False
        self._head_done = False
        self._whole = False
        self._parts: list[bytes] = []
        self._ahead = 0
        self._paused = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def usable(self, now_s: float, idle_s_max: float) -> bool:
        """Tell whether another request may go out over this connection.

        One that was idle for *idle_s_max* may not. One that has bytes to read, or an end, may
        not either: nobody asked for them.
        """
        transport = self._transport
        idle_s = now_s - self.idle_since
        return (
            transport is not None
            and not transport.is_closing()
            and self._failure is None
            and idle_s < idle_s_max
            and (idle_s < _FRESH_S or self._poll is None or not self._poll.poll(0))
        )

    async def ask(
        self,
        head: bytes,
        body: AsyncIterator[bytes] | None = None,
        *,
        chunked: bool = False,
        trailers: Callable[[], RawHeaders] | None = None,
        is_head: bool = False,
        protocol: bytes | None = None,
    ) -> None:
        """Send *head* (with the body, where that is at hand); return when the answer's is here.

        A *body* goes on its way beside the answer; one that the provider answers early with
        anything but success goes no further. *trailers* are asked for at its end.
        """
        self._reset(head=is_head, protocol=protocol)
        self._asked = True
        self._arm()
        self._write(head)
        if body is not None:
            sending = self._send(body, trailers, chunked=chunked)
            self._sender = self._loop.create_task(sending, name="request-body")
            self._sender.add_done_callback(self._sent)
        try:
            while not self._head_done:
                await self._raise_failure()
                await self._wait()
            if self._sender is not None and self.status >= 300:
                await self._stop_sending()
        except BaseException:
            self.close()
            raise

    def end_to_end(self) -> RawHeaders:
        """Return the headers less those that `Connection` names as this connection's own."""
        if not self._named:
            return self._headers
        named = {part.strip().lower() for part in self._named.split(b",")}
        if named <= {b"", b"keep-alive", b"close", b"upgrade"}:
            return self._headers
        return [header for header in self._headers if header[0].lower() not in named]

    @property
    def known(self) -> Mapping[bytes, bytes]:
        """The first header of each name, in lower case; of content encodings, all of them."""
        return self._known

    @property
    def trailers(self) -> RawHeaders:
        """The fields that came behind a chunked body, once its end was read."""
        return self._trailers

    async def _send(
        self,
        body: AsyncIterator[bytes],
        trailers: Callable[[], RawHeaders] | None,
        *,
        chunked: bool,
    ) -> None:
        """Send *body* until its end, or until nobody wants the rest."""
        async for piece in body:
            if not piece:
                continue
            if self._failure is not None:
                return
            self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            self._last_heard = self._loop.time()
            await self._writable.wait()
        if chunked:
            fields = trailers() if trailers is not None else ()
            lines = [b"%b: %b\r\n" % field for field in fields]
            self._write(b"0\r\n%b\r\n" % b"".join(lines))
        self._sender = None

    def _sent(self, sender: asyncio.Task[None]) -> None:
        """Take note where the body broke off: what the provider has is not a whole request."""
        exc = None if sender.cancelled() else sender.exception()
        if sender is not self._sender:
            return
        if isinstance(exc, CallerError) and self._head_done:
            exc = CallerGoneError(exc.message)
        if isinstance(exc, Exception):
            # Whoever waits for the answer raises it.
            self.fail(exc)
            self._hang_up()

    async def _stop_sending(self) -> None:
        """Send no more of the body; without it the connection carries nothing else."""
        sender, self._sender = self._sender, None
        if sender is not None:
            self._keep_alive = False
            sender.cancel()
            await asyncio.wait([sender])

    async def read(self) -> bytes:
        """Return what has arrived, waiting for some; `b""` is the whole end."""
        while True:
            if self._parts:
                chunk = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                self._parts.clear()
                self._ahead = 0
                if self._paused and self._transport is not None:
                    self._paused = False
                    self._transport.resume_reading()
                return chunk
            if self._whole:
                if self._sender is not None:
                    await self._stop_sending()
                self._retire()
                return b""
            if self._failure is not None:
                await self._raise_failure()
            self._waiter = waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                self._waiter = None

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _raise_failure(self) -> None:
        if self._failure is not None:
            self._hang_up()
            await self._stop_sending()
            self.close()
            # An error keeps the frames that it goes through, and they would keep it: it is
            # let go here, so that both are freed now and not by the collector.
            failure = self._failure
            self._failure = ProviderBrokeOffError("the answer has broken off before")
            try:
                raise failure
            finally:
                del failure

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def heed(self, departure: Departure) -> None:
        """Hang up when this exchange's caller does."""
        self._departure = departure
        departure.when_gone = self._cut_short

    def _unheed(self) -> None:
        # From here on the connection may serve another caller's exchange.
        if self._departure is not None:
            self._departure.when_gone = None
            self._departure = None

    def _retire(self) -> None:
        """Go back among the idle connections if both sides left it clean."""
        self._unheed()
        reusable = (
            self._framed
            and not self._is_head
            and self._failure is None
            and self._transport is not None
            and not self._transport.is_closing()
            and self._keep_alive
        )
        self._asked = False
        if reusable:
            self.idle_since = self._loop.time()
            self._retired(self)
        else:
            self.close()

    def fail(self, failure: Exception) -> None:
        """Note why this exchange can't go on, and wake whoever waits."""
        if self._failure is None and not self._whole:
            self._failure = failure
        # A body that the provider reads no further must not keep us from telling.
        self._writable.set()
        self._wake()

    def _cut_short(self) -> None:
        """Hang up on the provider because the caller did."""
        if self._asked and not self._whole:
            self.fail(CallerGoneError("the caller hung up"))
            self._hang_up()

    def close(self) -> None:
        """Close the connection now; unsent bytes are dropped."""
        if self._sender is not None:
            self._sender.cancel()
            self._sender = None
        self._hang_up()

    def _hang_up(self) -> None:
        self._disarm()
        self._unheed()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # -- silence --------------------------------------------------------------------------

    def _arm(self) -> None:
        self._last_heard = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(ANSWER_TIMEOUT_S, self._listen)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _listen(self) -> None:
        self._timer = None
        if not self._asked:
            return
        left_s = self._last_heard + ANSWER_TIMEOUT_S - self._loop.time()
        if self._paused:
            # We are the ones who don't listen: a slow caller is not the provider's silence.
            left_s = ANSWER_TIMEOUT_S
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._listen)
        else:
            self.fail(ProviderTimeoutError(f"nothing came for {ANSWER_TIMEOUT_S:.0f} s"))

    # -- asyncio's callbacks --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and a way to ask the system what has come over it."""
        self._transport = transport  # type: ignore[assignment]  # it is one, by construction
        connection = transport.get_extra_info("socket")
        if connection is not None:
            self._poll = select.poll()
            self._poll.register(connection.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Feed llhttp; nonsense ends the exchange."""
        if not self._asked:
            self.close()  # nobody asked: an answer before its question is smuggled
            return
        if self._failure is not None:
            # More may be read before whoever waits comes to hear of it: nothing is made of it.
            self._hang_up()
            return
        self._last_heard = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._switch(data[exc.args[0] :])
        except httptools.HttpParserError as exc:
            if not (self._whole and not self._framed):
                self.fail(ProviderBrokeOffError(f"it broke the HTTP framing: {exc}"))
        if not self._head_done:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES_MAX:
                self.fail(ProviderBrokeOffError("its headers are over the limit"))
        if self._ahead > RELAY_BYTES_AHEAD_MAX and not self._paused:
            self._paused = True
            if self._transport is not None:
                self._transport.pause_reading()
        self._wake()

    def _switch(self, begun: bytes) -> None:
        """Hand the connection over to the protocol that was asked for, and no other."""
        if self._protocol is None or self._switched.strip().lower() != self._protocol.lower():
            self.fail(ProviderBrokeOffError("it switched protocols, which was not asked for"))
            return
        if self._transport is None or self._failure is not None:
            return
        self._disarm()
        self._unheed()
        transport, self._transport = self._transport, None
        self.status = self._parser.get_status_code()
        self.duplex = Duplex(transport, begun)
        transport.set_protocol(self.duplex)
        self._head_done = True
        self._asked = False

    def eof_received(self) -> bool:
        """Let the transport close; `connection_lost` tells what it meant."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell a whole end (RFC 9112 section 6.3, close-delimited) from one that is cut."""
        self._transport = None
        self._poll = None
        self._writable.set()
        if not self._asked or self._whole:
            return
        if exc is None and self._head_done and not self._framed and self._failure is None:
            self._whole = True
            self._wake()
            return
        self.fail(ProviderBrokeOffError("it closed the connection before its answer was whole"))

    def pause_writing(self) -> None:
        """Stop sending a body until the provider has taken some of it."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Go on sending."""
        self._writable.set()

    # -- llhttp's callbacks ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Refuse an answer that nobody asked for, right behind the one that somebody did."""
        if self._whole:
            self._surplus = True
            self._keep_alive = False

    def on_status(self, status: bytes) -> None:
        """Keep the reason phrase as it came."""
        if not self._whole and self._failure is None:
            self.reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header as it came; after the head it is a trailer."""
        if self._failure is not None:
            return
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > _HEAD_BYTES_MAX:
            self.fail(ProviderBrokeOffError("its headers are over the limit"))
        elif not self._head_done:
            self._came.append((name, value))
        elif not self._whole and name.lower() not in HOP_BY_HOP:
            self._trailers.append((name, value))

    def _sort(self) -> None:
        """Sort the headers that came: those for the caller, and those for this connection."""
        kept, known = self._headers, self._known
        for header in self._came:
            name, value = header
            lowered = name.lower()
            if lowered in HOP_BY_HOP:
                self._take(lowered, value)
                continue
            kept.append(header)
            first = known.setdefault(lowered, value)
            if first is not value and lowered == b"content-encoding":
                known[lowered] = first + b", " + value
        self._came.clear()
        if b"content-length" in known:
            self._framed = True

    def _take(self, lowered: bytes, value: bytes) -> None:
        """Take what a header says about this connection."""
        if lowered == b"connection":
            self._named += b"," + value
        elif lowered == b"upgrade":
            self._switched = value
        elif lowered == b"transfer-encoding":
            if self._chunked or value.strip().lower() != b"chunked":
                # A coding that we take off would have to be undone as well.
                self.fail(ProviderBrokeOffError("it sent an unknown transfer-encoding"))
            self._framed = self._chunked = True

    def on_headers_complete(self) -> None:
        """Take the head; an interim one (1xx) is passed over."""
        self._sort()
        parser = self._parser
        status = parser.get_status_code()
        if self._surplus or self._failure is not None or 100 <= status < 200:
            return
        version = parser.get_http_version()
        if version not in _VERSIONS or (self._chunked and version == "1.0"):
            self.fail(ProviderBrokeOffError(f"it answered in HTTP/{version}, framed otherwise"))
            return
        self.status = status
        self._head_done = True
        self._keep_alive = parser.should_keep_alive()
        if self._is_head or status in _BODILESS:
            self._framed = True
            self._whole = True

    def on_body(self, body: bytes) -> None:
        """Keep body bytes until they are read."""
        if self._is_head or self._surplus or self._failure is not None:
            return
        self._parts.append(body)
        self._ahead += len(body)

    def on_message_complete(self) -> None:
        """Take the end of an answer, or forget an interim one."""
        if self._failure is not None:
            return
        if self._head_done:
            self._whole = True
        elif self._parser.get_status_code() != 101:
            self._headers = []
            self._known = {}
            self._named = self._switched = self.reason = b""
            self._framed = self._chunked = False
