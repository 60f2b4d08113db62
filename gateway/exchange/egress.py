"""The way out: whose certificates are trusted, and which proxy leads to providers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit

from gateway.errors import ProviderUnreachableError, SettingError
from gateway.limits import CONNECT_TIMEOUT_S, HEADER_BYTES_MAX

Made = TypeVar("Made", bound=asyncio.Protocol)

_LOOPBACK: Final = ("localhost", "127.0.0.0/8", "::1/128")
"""What is on this machine is never reached through a proxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingProxy:
    """An HTTP proxy that connections to providers go through."""

    host: str
    port: int
    authorization: bytes | None = field(default=None, repr=False)
    """The value of `Proxy-Authorization`."""


def outgoing_proxy(url: str) -> OutgoingProxy:
    """Return the proxy at *url*, `http://[name:password@]host[:port]`.

    Raises:
        SettingError: it is none; the message does not show it, for it may hold a password.
    """
    problem = SettingError(
        "`upstream.proxy` is not the URL of an HTTP proxy",
        hint="write it like `http://proxy.example.com:3128`; https:// and socks are not spoken",
    )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise problem from None
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise problem
    authorization = None
    if parts.username is not None:
        said = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = b"Basic " + base64.b64encode(said.encode())
    return OutgoingProxy(host=parts.hostname, port=port or 80, authorization=authorization)


def trust_of(ca_bundle: str | None, key: str) -> ssl.SSLContext:
    """Return what trusts the authorities in the PEM file *ca_bundle*, or the system's.

    Raises:
        SettingError: the file, which the setting *key* names, can't be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca_bundle)
    except (OSError, binascii.Error) as exc:
        said = (isinstance(exc, OSError) and exc.strerror) or "not PEM"
        raise SettingError(
            f"`{key}` names certificates that can't be read: {said}",
            hint="it is a PEM file of the authorities to trust",
        ) from exc
    context.set_alpn_protocols(["http/1.1"])
    return context


class Egress:
    """Opens connections: straight, or through the proxy where *no_proxy* has no exception."""

    def __init__(
        self, proxy: OutgoingProxy | None = None, no_proxy: tuple[str, ...] = ()
    ) -> None:
        """Take the proxy, and the hosts that are reached without it.

        Raises:
            SettingError: an exception is neither a name, an address nor a network.
        """
        self._proxy = proxy
        self._names: list[str] = []
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._all_direct = proxy is None
        for exception in (*_LOOPBACK, *no_proxy):
            self._except(exception.strip().lower().strip("[]"))

    def _except(self, exception: str) -> None:
        if exception == "*":
            self._all_direct = True
            return
        try:
            self._networks.append(ipaddress.ip_network(exception, strict=False))
        except ValueError:
            name = exception.removeprefix("*").strip(".")
            if not name or not name.isprintable() or set(name) & set("/:@* "):
                raise SettingError(
                    f"`upstream.no_proxy` holds what is no host: `{exception[:80]}`",
                    hint="write names like `models.example.com`, addresses, networks, or `*`",
                ) from None
            self._names.append(name)

    def proxy_for(self, host: str) -> OutgoingProxy | None:
        """Return the proxy that *host* is reached through, or `None`.

        A name among the exceptions stands for itself and everything below it.
        """
        if self._all_direct:
            return None
        host = host.lower().rstrip(".")
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            direct = any(host == name or host.endswith("." + name) for name in self._names)
        else:
            direct = any(address in network for network in self._networks)
        return None if direct else self._proxy

    async def connect(
        self, make: Callable[[], Made], host: str, port: int, trust: ssl.SSLContext | None
    ) -> Made:
        """Return what *make* made, connected to *host*; with *trust*, over TLS.

        Raises:
            ProviderUnreachableError: no connection; one line says why.
        """
        proxy = self.proxy_for(host)
        loop = asyncio.get_running_loop()
        at = f"{host}:{port}"
        if proxy is not None:
            at += f" through the proxy {proxy.host}:{proxy.port}"
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if proxy is None:
                    return (await loop.create_connection(make, host, port, ssl=trust))[1]
                if trust is None:
                    return (await loop.create_connection(make, proxy.host, proxy.port))[1]
                return await _tunnel(loop, proxy, make, host, port, trust)
        except TimeoutError as exc:
            raise ProviderUnreachableError(
                f"no connection to {at} in {CONNECT_TIMEOUT_S:.0f} s"
            ) from exc
        except ssl.SSLCertVerificationError as exc:
            raise ProviderUnreachableError(
                f"the certificate of {host}:{port} is not trusted: {exc.verify_message}",
                hint="where its authority is your own, name it in `ca_bundle`",
            ) from exc
        except ssl.SSLError as exc:
            raise ProviderUnreachableError(
                f"no TLS with {at}: {exc.reason or 'it broke off'}",
                hint="check that the provider's base_url speaks TLS",
            ) from exc
        except OSError as exc:
            raise ProviderUnreachableError(
                f"no connection to {at}: {exc.strerror or exc}",
                hint="check the provider's base_url, `upstream`, and the network",
            ) from exc


async def _tunnel(
    loop: asyncio.AbstractEventLoop,
    proxy: OutgoingProxy,
    make: Callable[[], Made],
    host: str,
    port: int,
    trust: ssl.SSLContext,
) -> Made:
    """Connect through *proxy* by CONNECT (RFC 9110 section 9.3.6), and speak TLS inside."""
    opened: asyncio.Future[int] = loop.create_future()
    transport, _ = await loop.create_connection(lambda: _Tunnel(opened), proxy.host, proxy.port)
    try:
        target = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()
        lines = [b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n" % (target, target)]
        if proxy.authorization is not None:
            lines.append(b"proxy-authorization: %b\r\n" % proxy.authorization)
        transport.write(b"".join(lines) + b"\r\n")
        status = await opened
        made = make()
        inside = None
        if status // 100 == 2:
            inside = await loop.start_tls(transport, made, trust, server_hostname=host)
    except BaseException:
        transport.abort()
        raise
    if inside is None:
        transport.abort()
        raise ProviderUnreachableError(
            f"the proxy {proxy.host}:{proxy.port} did not connect to {host}:{port}: it"
            f" answered {status or 'with no HTTP'}",
            hint="check the name and password in `upstream.proxy`"
            if status == 407
            else "ask whoever runs the proxy to let the provider through",
        )
    made.connection_made(inside)
    return made


class _Tunnel(asyncio.Protocol):
    """Waits for a proxy's answer to CONNECT: its status, or 0 where it is no answer."""

    def __init__(self, opened: asyncio.Future[int]) -> None:
        self._opened = opened
        self._said = b""

    def data_received(self, data: bytes) -> None:
        """Read until the head's end; bytes behind it are not the provider's yet."""
        self._said += data
        head, end, rest = self._said.partition(b"\r\n\r\n")
        if self._opened.done() or (not end and len(self._said) <= HEADER_BYTES_MAX):
            return
        words = head.split(b"\r\n")[0].split(b" ")
        is_http = end and not rest and words[0] in {b"HTTP/1.1", b"HTTP/1.0"}
        number = words[1] if is_http and len(words) > 1 else b""
        self._opened.set_result(int(number) if number.isdigit() and len(number) == 3 else 0)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take an end before the answer for none."""
        if not self._opened.done():
            self._opened.set_result(0)
