"""The dock: the one place that dials a provider.

A lean HTTP/1.1 client over asyncio and llhttp (RFC 9112): bytes in and out unchanged,
keep-alive connections, no redirects, no cookies, no decoding, no retries, TLS verified.
It dials only with a `Permitted` in hand.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

import httptools
import msgspec

from gateway.errors import (
    CallerGoneError,
    ProviderBrokeOffError,
    ProviderTimeoutError,
    ProviderUnreachableError,
    SettingError,
)
from gateway.exchange.states import Permitted
from gateway.limits import (
    ANSWER_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    HEADER_BYTES_MAX,
    IDLE_CONNECTION_S_MAX,
    IDLE_CONNECTIONS_MAX,
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
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 section 7.6.1, and what proxies have learnt to drop beside it."""

_BODILESS: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a provider listens: the part of its base URL that a connection belongs to."""

    host: str
    port: int
    tls: bool
    path: bytes
    """The base URL's own path, without a slash at its end."""
    host_header: bytes


def origin_of(base_url: str) -> Origin:
    """Return the origin of *base_url*.

    Raises:
        SettingError: it is not an absolute http or https URL.
    """
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError as exc:
        raise SettingError(f"base_url is not a URL: `{base_url}`") from exc
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise SettingError(
            f"base_url is not an absolute http or https URL: `{base_url}`",
            hint="write it like `https://api.example.com`",
        )
    tls = parts.scheme == "https"
    return Origin(
        host=parts.hostname,
        port=port or (443 if tls else 80),
        tls=tls,
        path=parts.path.rstrip("/").encode(),
        host_header=parts.netloc.rpartition("@")[2].encode(),
    )


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it goes out: the target and headers are the caller's own bytes."""

    method: bytes
    target: bytes
    """Path and query, percent-encoding untouched, the origin's path in front."""
    headers: RawHeaders
    """End-to-end headers only, without Host, Content-Length and Transfer-Encoding."""
    body: bytes | AsyncIterator[bytes] | None
    length: int | None = None
    """Bytes of a body that is passed on as it comes; `None`: chunked."""


class Departure(Protocol):
    """Tells when the caller has hung up."""

    gone: bool
    when_gone: Callable[[], None] | None
    """Called once, at the moment it hangs up."""


class Forwarder:
    """Keeps connections to providers and asks over them."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls or ssl.create_default_context()
        # OWNED BY: forward() and _Connection; one event loop, so no lock.
        self._idle: dict[tuple[str, int, bool], list[_Connection]] = {}

    async def forward(
        self,
        permitted: Permitted,
        origin: Origin,
        outgoing: Outgoing,
        departure: Departure | None = None,
    ) -> ProviderResponse:
        """Ask; return when the head of the provider's answer is here.

        Where *departure* is given, a caller that hangs up cuts the provider off at once, here
        and in every later `read()`.

        Raises:
            CallerGoneError: the caller hung up.
            ProviderUnreachableError: no connection; nothing was asked.
            ProviderTimeoutError: it stayed silent.
            ProviderBrokeOffError: it went away, or spoke no HTTP, before a whole head.
        """
        connection = await self._connection(origin)
        if departure is not None:
            if departure.gone:
                self._give_back(origin, connection)
                raise CallerGoneError("the caller hung up before the provider was asked")
            connection.heed(departure)
        return await connection.ask(origin, outgoing)

    def _give_back(self, origin: Origin, connection: _Connection) -> None:
        self._idle[origin.host, origin.port, origin.tls].append(connection)

    async def _connection(self, origin: Origin) -> _Connection:
        key = (origin.host, origin.port, origin.tls)
        idle = self._idle.setdefault(key, [])
        loop = asyncio.get_running_loop()
        while idle:
            connection = idle.pop()
            if connection.usable(loop.time()):
                return connection
            connection.close()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop, idle),
                    origin.host,
                    origin.port,
                    ssl=self._tls if origin.tls else None,
                )
        except TimeoutError as exc:
            raise ProviderUnreachableError(
                f"no connection to {origin.host}:{origin.port} in {CONNECT_TIMEOUT_S:.0f} s"
            ) from exc
        except OSError as exc:
            raise ProviderUnreachableError(
                f"no connection to {origin.host}:{origin.port}: {exc.strerror or exc}",
                hint="check the provider's base_url, its certificate, and the network",
            ) from exc
        return connection

    def close(self) -> None:
        """Let go of every idle connection."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
            idle.clear()


class ProviderResponse:
    """The answer to one request, read as it arrives; *headers* are the end-to-end ones."""

    __slots__ = ("_connection", "_known", "headers", "reason", "status")

    def __init__(
        self,
        connection: _Connection,
        status: int,
        reason: bytes,
        headers: RawHeaders,
        known: Mapping[bytes, bytes],
    ) -> None:
        self._connection = connection
        self.status = status
        self.reason = reason
        self.headers = headers
        self._known = known

    def header(self, name: bytes) -> str | None:
        """Return the first header of that lower-case *name*, or `None`."""
        value = self._known.get(name)
        return None if value is None else value.decode("latin-1")

    async def read(self) -> bytes:
        """Return the bytes that have arrived, waiting for some; `b""` is the whole end.

        Raises:
            CallerGoneError: the caller hung up.
            ProviderTimeoutError: it stayed silent.
            ProviderBrokeOffError: it ended before its own length, or broke the framing.
        """
        return await self._connection.read()

    def abandon(self) -> None:
        """Hang up on the provider; what stops a generation is the closed connection."""
        self._connection.close()


class _Connection(asyncio.Protocol):
    """One connection: one request at a time, then back among the idle ones."""

    def __init__(self, loop: asyncio.AbstractEventLoop, idle: list[_Connection]) -> None:
        self._loop = loop
        self._idle = idle
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._idle_since = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._departure: Departure | None = None
        self._last_heard = 0.0
        self._reset(head=False)

    # -- one exchange ---------------------------------------------------------------------

    def _reset(self, *, head: bool) -> None:
        self._asked = False
        self._is_head = head
        self._headers: list[tuple[bytes, bytes]] = []
        self._known: dict[bytes, bytes] = {}
        self._named = b""
        self._header_bytes = 0
        self._reason = b""
        self._status = 0
        self._framed = False
        self._keep_alive = False
        self._surplus = False
        self._head_done = False
        self._whole = False
        self._parts: list[bytes] = []
        self._ahead = 0
        self._paused = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def usable(self, now_s: float) -> bool:
        """Tell whether another request may go out over this connection."""
        transport = self._transport
        return (
            transport is not None
            and not transport.is_closing()
            and self._failure is None
            and now_s - self._idle_since < IDLE_CONNECTION_S_MAX
        )

    async def ask(self, origin: Origin, outgoing: Outgoing) -> ProviderResponse:
        """Send *outgoing*; return when the head of its answer is here."""
        self._reset(head=outgoing.method == b"HEAD")
        self._asked = True
        self._arm()
        body = outgoing.body
        lines = [
            b"%b %b%b HTTP/1.1\r\nhost: %b\r\n"
            % (outgoing.method, origin.path, outgoing.target, origin.host_header)
        ]
        lines += [b"%b: %b\r\n" % header for header in outgoing.headers]
        if isinstance(body, bytes):
            lines.append(b"content-length: %d\r\n\r\n" % len(body))
            lines.append(body)
        elif body is None:
            lines.append(b"\r\n")
        elif outgoing.length is not None:
            lines.append(b"content-length: %d\r\n\r\n" % outgoing.length)
        else:
            lines.append(b"transfer-encoding: chunked\r\n\r\n")
        self._write(b"".join(lines))
        if body is not None and not isinstance(body, bytes):
            await self._send(body, chunked=outgoing.length is None)
        while not self._head_done:
            self._raise_failure()
            await self._wait()
        return ProviderResponse(
            self, self._status, self._reason, self._end_to_end(), self._known
        )

    def _end_to_end(self) -> RawHeaders:
        """Return the headers less those that `Connection` names as this connection's own."""
        if not self._named:
            return self._headers
        named = {part.strip().lower() for part in self._named.split(b",")}
        if named <= {b"", b"keep-alive", b"close"}:
            return self._headers
        return [header for header in self._headers if header[0].lower() not in named]

    async def _send(self, body: AsyncIterator[bytes], *, chunked: bool) -> None:
        try:
            async for piece in body:
                if not piece:
                    continue
                if self._head_done or self._failure is not None:
                    # The provider has answered early; the rest is not wanted, and without it
                    # the connection carries nothing else.
                    self._keep_alive = False
                    return
                self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                self._last_heard = self._loop.time()
                await self._writable.wait()
        except BaseException:
            # The caller's body broke off: what the provider has is not a whole request.
            self.close()
            raise
        if chunked:
            self._write(b"0\r\n\r\n")

    async def read(self) -> bytes:
        """Return what has arrived; see `ProviderResponse.read`."""
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
                self._retire()
                return b""
            self._raise_failure()
            await self._wait()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self.close()
            raise self._failure

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
        if reusable and len(self._idle) < IDLE_CONNECTIONS_MAX:
            self._idle_since = self._loop.time()
            self._idle.append(self)
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
            self.close()

    def close(self) -> None:
        """Close the connection now; unsent bytes are dropped."""
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
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # it is one, by construction

    def data_received(self, data: bytes) -> None:
        """Feed llhttp; nonsense ends the exchange."""
        if not self._asked:
            self.close()  # nobody asked: an answer before its question is smuggled
            return
        self._last_heard = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(ProviderBrokeOffError("it switched protocols, which was not asked for"))
        except httptools.HttpParserError as exc:
            if not (self._whole and not self._framed):
                self.fail(ProviderBrokeOffError(f"it broke the HTTP framing: {exc}"))
        if self._ahead > RELAY_BYTES_AHEAD_MAX and not self._paused:
            self._paused = True
            if self._transport is not None:
                self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Let the transport close; `connection_lost` tells what it meant."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell a whole end (RFC 9112 section 6.3, close-delimited) from one that is cut."""
        self._transport = None
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
        if not self._whole:
            self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header as it came; trailers, after the head, are dropped."""
        if self._head_done:
            return
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > 4 * HEADER_BYTES_MAX:
            self.fail(ProviderBrokeOffError("its headers are over the limit"))
            return
        lowered = name.lower()
        if lowered in HOP_BY_HOP:
            if lowered == b"connection":
                self._named += b"," + value
            elif lowered == b"transfer-encoding":
                self._framed = True
            return
        self._headers.append((name, value))
        self._known.setdefault(lowered, value)
        if lowered == b"content-length":
            self._framed = True

    def on_headers_complete(self) -> None:
        """Take the head; an interim one (1xx) is passed over."""
        status = self._parser.get_status_code()
        if self._surplus or 100 <= status < 200:
            return
        self._status = status
        self._head_done = True
        self._writable.set()
        self._keep_alive = self._parser.should_keep_alive()
        if self._is_head or status in _BODILESS:
            self._framed = True
            self._whole = True

    def on_body(self, body: bytes) -> None:
        """Keep body bytes until they are read."""
        if self._is_head or self._surplus:
            return
        self._parts.append(body)
        self._ahead += len(body)

    def on_message_complete(self) -> None:
        """Take the end of an answer, or forget an interim one."""
        if self._head_done:
            self._whole = True
        else:
            self._headers = []
            self._known = {}
            self._reason = b""
            self._framed = False
