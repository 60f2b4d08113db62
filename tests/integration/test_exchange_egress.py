"""Laws of the way out: whose certificates count, and what a proxy gets to see."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from gateway.errors import ProviderUnreachableError, SettingError
from gateway.exchange.egress import Egress, OutgoingProxy, outgoing_proxy, trust_of
from gateway.exchange.forward import Forwarder, Origin, Outgoing, ProviderResponse, origin_of
from gateway.exchange.states import Permitted
from tests.support.certificates import Certified, certified

PERMITTED = cast(Permitted, None)  # The dock only carries it: the type is the ticket.
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


@dataclass(slots=True)
class Seen:
    """What a server saw."""

    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0


@asynccontextmanager
async def listening(
    tls: ssl.SSLContext | None = None, *, status: bytes | None = None
) -> AsyncIterator[Seen]:
    """Answer every request; as a proxy, lead CONNECT where it asks for, or say *status*."""
    seen = Seen()
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    writer.write(data)
        finally:
            writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await answer(reader, writer)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                seen.heads.append(head)
                if status is not None:
                    writer.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)
                elif head.startswith(b"CONNECT "):
                    host, _, port = head.split()[1].decode().rpartition(":")
                    far_reader, far_writer = await asyncio.open_connection(host, int(port))
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
                else:
                    writer.write(ANSWER)
        finally:
            writer.transport.abort()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def dock(trust: ssl.SSLContext | None = None, **way: object) -> AsyncIterator[Forwarder]:
    """Return a dock that is closed after the test."""
    made = Forwarder(trust, Egress(**way))  # type: ignore[arg-type]  # handed through
    yield made
    made.close()
    await asyncio.sleep(0)


async def ask(forwarder: Forwarder, origin: Origin) -> ProviderResponse:
    """Ask for `/v1/x?y=%2F`."""
    outgoing = Outgoing(method=b"GET", target=b"/v1/x?y=%2F", headers=[], body=None)
    response = await forwarder.forward(PERMITTED, origin, outgoing)
    while await response.read():
        pass
    return response


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    """Return an authority, and a certificate by it."""
    return certified(tmp_path_factory.mktemp("house"))


async def test_a_certificate_is_verified(house: Certified) -> None:
    """Without its authority nothing is asked of a server, and one line says why."""
    async with listening(house.listening()) as seen, dock() as forwarder:
        with pytest.raises(ProviderUnreachableError) as caught:
            await ask(forwarder, origin_of(f"https://127.0.0.1:{seen.port}"))

    assert [] == seen.heads
    assert "is not trusted: " in str(caught.value)
    assert "ca_bundle" in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_bundle_of_authorities_is_trusted(house: Certified) -> None:
    """With its authority the server is asked, over one connection as long as it lives."""
    trust = trust_of(str(house.authority), "upstream.ca_bundle")
    async with listening(house.listening()) as seen, dock(trust) as forwarder:
        for _ in range(3):
            await ask(forwarder, origin_of(f"https://127.0.0.1:{seen.port}"))

    assert (1, 3) == (seen.connections, len(seen.heads))


async def test_one_providers_authority_is_no_others(house: Certified, tmp_path: Path) -> None:
    """Connections made on one authority's word are not used where another's is asked for."""
    mine = trust_of(str(house.authority), "providers.x.ca_bundle")
    other = trust_of(str(certified(tmp_path / "other").authority), "providers.y.ca_bundle")
    async with listening(house.listening()) as seen, dock() as forwarder:
        base = f"https://127.0.0.1:{seen.port}"
        await ask(forwarder, origin_of(base, mine))
        for trust in (other, None):
            with pytest.raises(ProviderUnreachableError):
                await ask(forwarder, origin_of(base, trust))


async def test_a_name_that_is_not_in_the_certificate_is_refused(house: Certified) -> None:
    """Who is dialled must be who answers."""
    trust = trust_of(str(house.authority), "upstream.ca_bundle")
    async with listening(house.listening()) as seen, dock(trust) as forwarder:
        with pytest.raises(ProviderUnreachableError, match=r"127\.0\.0\.2"):
            await ask(forwarder, origin_of(f"https://127.0.0.2:{seen.port}"))


async def test_a_server_that_speaks_no_tls_is_told_of() -> None:
    """Plain HTTP behind https:// is one clear line."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with (
        await asyncio.start_server(refuse, "127.0.0.1", 0) as server,
        dock() as forwarder,
    ):
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ProviderUnreachableError, match="no TLS with"):
            await ask(forwarder, origin_of(f"https://127.0.0.1:{port}"))


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff\x00"])
def test_a_bundle_that_is_none_is_a_setting_to_correct(
    tmp_path: Path, content: bytes | None
) -> None:
    """A file that is missing, empty or something else names its setting."""
    file = tmp_path / "bundle.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingError, match=r"providers\.x\.ca_bundle"):
        trust_of(str(file), "providers.x.ca_bundle")


async def test_https_goes_through_a_tunnel(house: Certified) -> None:
    """A proxy is asked for a tunnel with the password it wants, and sees nothing inside."""
    trust = trust_of(str(house.authority), "upstream.ca_bundle")
    async with listening(house.listening()) as seen, listening() as between:
        # The proxy resolves names itself; here it is a name that stands for this machine.
        proxy = outgoing_proxy(f"http://me:pass%3Aword@127.0.0.1:{between.port}")
        forwarder = Forwarder(trust, _Around(proxy))
        for _ in range(2):
            await ask(forwarder, origin_of(f"https://127.0.0.1:{seen.port}"))
        forwarder.close()

    assert 1 == between.connections
    (head,) = between.heads
    assert head.startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % seen.port)
    assert b"authorization: Basic " + base64.b64encode(b"me:pass:word") in head
    assert 2 == len(seen.heads)
    assert all(b"proxy-authorization" not in head for head in seen.heads)


class _Around(Egress):
    """A way out that goes through its proxy even on this machine."""

    def __init__(self, proxy: OutgoingProxy) -> None:
        super().__init__(proxy)
        self._around = proxy

    def proxy_for(self, host: str) -> OutgoingProxy | None:
        """Return the proxy, whatever the host."""
        return self._around


async def test_a_tunnel_hides_no_stranger(house: Certified) -> None:
    """Whoever answers behind a proxy must show a certificate that counts."""
    async with listening(house.listening()) as seen, listening() as between:
        forwarder = Forwarder(None, _Around(outgoing_proxy(f"http://127.0.0.1:{between.port}")))
        with pytest.raises(ProviderUnreachableError, match="not trusted"):
            await ask(forwarder, origin_of(f"https://127.0.0.1:{seen.port}"))

    assert [] == seen.heads


async def test_http_goes_in_absolute_form() -> None:
    """A plain provider behind a proxy is asked for by its whole address."""
    async with listening() as between:
        proxy = outgoing_proxy(f"http://me@127.0.0.1:{between.port}/")
        async with dock(proxy=proxy) as forwarder:
            await ask(forwarder, origin_of("http://models.example:8000/base"))

    (head,) = between.heads
    assert head.startswith(b"GET http://models.example:8000/base/v1/x?y=%2F HTTP/1.1\r\n")
    assert b"\r\nhost: models.example:8000\r\n" in head
    assert b"\r\nproxy-authorization: Basic bWU6\r\n" in head


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://models.example", b"407 Proxy Authentication Required"),
        ("https://models.example", b"407 Proxy Authentication Required"),
        ("https://models.example", b"403 Forbidden"),
        ("https://models.example", b"nonsense"),
    ],
)
async def test_a_proxy_that_refuses_is_told_of(url: str, status: bytes) -> None:
    """What a proxy says is no provider's answer: the operator is told in one line."""
    async with listening(status=status) as between:
        proxy = outgoing_proxy(f"http://me:secret@127.0.0.1:{between.port}")
        async with dock(proxy=proxy) as forwarder:
            with pytest.raises(ProviderUnreachableError) as caught:
                await ask(forwarder, origin_of(url))

    assert f"127.0.0.1:{between.port}" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "direct"),
    [
        ("models.example", True),
        ("eu.models.example", True),
        ("EU.Models.Example.", True),
        ("badmodels.example", False),
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("localhost", True),
        ("127.0.0.9", True),
        ("::1", True),
        ("fd00::1", True),
        ("api.openai.com", False),
    ],
)
def test_exceptions_are_reached_without_the_proxy(host: str, *, direct: bool) -> None:
    """Names cover what is below them, networks their addresses; this machine is always near."""
    way = Egress(
        outgoing_proxy("http://proxy.example:3128"),
        (".models.example", "10.0.0.0/8", "[fd00::1]"),
    )

    assert (way.proxy_for(host) is None) == direct


def test_a_star_excepts_everything() -> None:
    """`*` switches the proxy off."""
    assert Egress(outgoing_proxy("http://p:1"), ("*",)).proxy_for("api.openai.com") is None


@pytest.mark.parametrize("exception", ["", "http://a", "a:80", "a b", "10.0.0.0/99"])
def test_an_exception_that_is_no_host_is_refused(exception: str) -> None:
    """An exception that could never match is a setting to correct."""
    with pytest.raises(SettingError, match="no_proxy"):
        Egress(outgoing_proxy("http://p:1"), (exception,))


@pytest.mark.parametrize(
    "url", ["", "proxy:3128", "https://p", "socks5://p", "http://", "http://p:x", "http://p/a"]
)
def test_a_proxy_that_is_none_is_refused(url: str) -> None:
    """Only http proxies are spoken to, and the message shows no part of the URL."""
    with pytest.raises(SettingError, match="not the URL of an HTTP proxy") as caught:
        outgoing_proxy(url)

    assert "proxy:3128" not in str(caught.value)
