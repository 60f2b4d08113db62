"""The dock: the one place that dials a provider.

A lean HTTP/1.1 client: bytes in and out unchanged, keep-alive connections, no redirects, no
cookies, no decoding, TLS verified. It dials only with a `Permitted` in hand, and asks once: a
connection that turns out to be closed before anything was written is replaced, but no request
is ever sent a second time.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from gateway.errors import CallerGoneError, ProviderUnreachableError, SettingError
from gateway.exchange.connection import HOP_BY_HOP, Connection, Departure, RawHeaders
from gateway.exchange.duplex import Duplex
from gateway.exchange.egress import Egress, OutgoingProxy, trust_of
from gateway.exchange.states import Permitted
from gateway.limits import IDLE_CONNECTION_S_MAX, IDLE_CONNECTIONS_MAX
from gateway.log import Logger

__all__ = [
    "HOP_BY_HOP",
    "Departure",
    "Forwarder",
    "Origin",
    "Outgoing",
    "ProviderResponse",
    "RawHeaders",
    "Upgraded",
    "origin_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a provider listens: the part of its base URL that a connection belongs to."""

    host: str
    port: int
    tls: bool
    path: bytes
    """The base URL's own path, without a slash at its end."""
    host_header: bytes
    trust: ssl.SSLContext | None = field(default=None, repr=False)
    """Whom to believe who it is; `None`: whoever the others are believed by."""


def origin_of(base_url: str, trust: ssl.SSLContext | None = None) -> Origin:
    """Return the origin of *base_url*.

    Raises:
        SettingError: it is not an absolute http or https URL.
    """
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError as exc:
        raise SettingError("base_url is not a URL") from exc
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise SettingError(
            f"base_url is not an absolute http or https URL: `{base_url}`",
            hint="write it like `https://api.example.com`",
        )
    if "@" in parts.netloc:
        # Receipts and messages name the address.
        raise SettingError(
            f"base_url of {parts.hostname} holds a name or a password",
            hint="write it without, and name the secret in `credential`",
        )
    tls = parts.scheme == "https"
    return Origin(
        host=parts.hostname,
        port=port or (443 if tls else 80),
        tls=tls,
        path=parts.path.rstrip("/").encode(),
        host_header=parts.netloc.encode(),
        trust=trust,
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
    trailers: Callable[[], RawHeaders] | None = None
    """Gives, once a chunked body has ended, the fields that came behind it."""
    takes_trailers: bool = False
    """The caller said `TE: trailers`."""
    protocol: bytes | None = None
    """What to switch to (`websocket`), for `Forwarder.upgrade`."""


class Forwarder:
    """Keeps connections to providers and asks over them."""

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        egress: Egress | None = None,
        log: Logger | None = None,
        idle_s_max: float = IDLE_CONNECTION_S_MAX,
    ) -> None:
        self._idle_s_max = idle_s_max
        self._tls = tls or trust_of(None, "upstream.ca_bundle")
        self._egress = egress or Egress()
        self._log = log
        # OWNED BY: this class and Connection; one event loop, so no lock.
        self._idle: dict[tuple[object, ...], list[Connection]] = {}
        self._reaper: asyncio.TimerHandle | None = None

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
        return ProviderResponse(await self._asked(permitted, origin, outgoing, departure))

    async def upgrade(
        self,
        permitted: Permitted,
        origin: Origin,
        outgoing: Outgoing,
        departure: Departure | None = None,
    ) -> ProviderResponse | Upgraded:
        """Ask to switch to the protocol that *outgoing* names; return what the provider says.

        Raises what `forward` does.
        """
        connection = await self._asked(permitted, origin, outgoing, departure)
        if connection.duplex is None:
            return ProviderResponse(connection)
        return Upgraded(
            status=connection.status,
            reason=connection.reason,
            headers=connection.end_to_end(),
            duplex=connection.duplex,
        )

    async def _asked(
        self,
        permitted: Permitted,
        origin: Origin,
        outgoing: Outgoing,
        departure: Departure | None,
    ) -> Connection:
        try:
            return await self._ask(origin, outgoing, departure)
        except ProviderUnreachableError as error:
            if self._log is not None:
                provider = permitted.asked.call.provider
                self._log.warning("provider.unreachable", provider=provider, why=str(error))
            raise

    async def _ask(
        self, origin: Origin, outgoing: Outgoing, departure: Departure | None
    ) -> Connection:
        connection = await self._connection(origin)
        if departure is not None:
            if departure.gone:
                self._idle_at(origin).append(connection)
                raise CallerGoneError("the caller hung up before the provider was asked")
            connection.heed(departure)
        proxy = None if origin.tls else self._egress.proxy_for(origin.host)
        body = outgoing.body
        await connection.ask(
            _head(origin, outgoing, proxy),
            None if isinstance(body, bytes) else body,
            chunked=outgoing.length is None,
            trailers=outgoing.trailers,
            is_head=outgoing.method == b"HEAD",
            protocol=outgoing.protocol,
        )
        if proxy is not None and connection.status == 407:
            connection.close()
            raise ProviderUnreachableError(
                f"the proxy {proxy.host}:{proxy.port} let nothing pass: it answered 407",
                hint="check the name and password in `upstream.proxy`",
            )
        return connection

    # -- the pool -------------------------------------------------------------------------

    def _idle_at(self, origin: Origin) -> list[Connection]:
        """Return the idle connections that may be used for *origin*."""
        key = (origin.host, origin.port, origin.tls, origin.trust)
        return self._idle.setdefault(key, [])

    async def _connection(self, origin: Origin) -> Connection:
        idle = self._idle_at(origin)
        loop = asyncio.get_running_loop()
        while idle:
            connection = idle.pop()
            if connection.usable(loop.time(), self._idle_s_max):
                return connection
            connection.close()

        def retire(connection: Connection) -> None:
            if len(idle) >= IDLE_CONNECTIONS_MAX:
                connection.close()
                return
            idle.append(connection)
            if self._reaper is None:
                self._reaper = loop.call_later(self._idle_s_max, self._reap)

        return await self._egress.connect(
            lambda: Connection(loop, retire),
            origin.host,
            origin.port,
            (origin.trust or self._tls) if origin.tls else None,
        )

    def _reap(self) -> None:
        """Close what has been idle for too long."""
        loop = asyncio.get_running_loop()
        now_s, left = loop.time(), 0
        for idle in self._idle.values():
            candidates, idle[:] = list(idle), []
            for connection in candidates:
                if connection.usable(now_s, self._idle_s_max):
                    idle.append(connection)
                else:
                    connection.close()
            left += len(idle)
        self._reaper = loop.call_later(self._idle_s_max, self._reap) if left else None

    def close(self) -> None:
        """Let go of every idle connection."""
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
            idle.clear()


def _head(origin: Origin, outgoing: Outgoing, proxy: OutgoingProxy | None) -> bytes:
    """Return the request's head, and its body where that is at hand."""
    target = origin.path + outgoing.target
    if proxy is not None:
        target = b"http://" + origin.host_header + target
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (outgoing.method, target, origin.host_header)]
    lines += [b"%b: %b\r\n" % header for header in outgoing.headers]
    if proxy is not None and proxy.authorization is not None:
        lines.append(b"proxy-authorization: %b\r\n" % proxy.authorization)
    if outgoing.protocol is not None:
        lines.append(b"connection: Upgrade\r\nupgrade: %b\r\n" % outgoing.protocol)
    elif outgoing.takes_trailers:
        lines.append(b"connection: TE\r\nte: trailers\r\n")
    body = outgoing.body
    if isinstance(body, bytes):
        lines.append(b"content-length: %d\r\n\r\n" % len(body))
        lines.append(body)
    elif body is None:
        lines.append(b"\r\n")
    elif outgoing.length is not None:
        lines.append(b"content-length: %d\r\n\r\n" % outgoing.length)
    else:
        lines.append(b"transfer-encoding: chunked\r\n\r\n")
    return b"".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgraded:
    """The provider has switched protocols; from here on *duplex* is the connection."""

    status: int
    reason: bytes
    headers: RawHeaders
    """The end-to-end ones: without `Connection` and `Upgrade`."""
    duplex: Duplex


class ProviderResponse:
    """The answer to one request, read as it arrives; *headers* are the end-to-end ones."""

    __slots__ = ("_connection", "_known", "headers", "reason", "status", "trailers")

    def __init__(self, connection: Connection) -> None:
        # The connection may serve another exchange once this answer is read to its end.
        self._connection = connection
        self._known = connection.known
        self.status = connection.status
        self.reason = connection.reason
        self.headers = connection.end_to_end()
        self.trailers = connection.trailers
        """The fields behind a chunked body; none before its end was read."""

    def header(self, name: bytes) -> str | None:
        """Return the first header of that lower-case *name*, or `None`.

        Of content encodings, all that were named.
        """
        value = self._known.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def sized(self) -> bool:
        """Whether the head declares how long the body is."""
        return b"content-length" in self._known

    def read(self) -> Awaitable[bytes]:
        """Return the bytes that have arrived, waiting for some; `b""` is the whole end.

        Raises:
            CallerGoneError: the caller hung up.
            ProviderTimeoutError: it stayed silent.
            ProviderBrokeOffError: it ended before its own length, or broke the framing.
        """
        return self._connection.read()

    def abandon(self) -> None:
        """Hang up on the provider; what stops a generation is the closed connection."""
        self._connection.close()
