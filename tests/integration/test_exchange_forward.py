"""Laws of the dock, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from gateway.errors import (
    CallerGoneError,
    ProviderBrokeOffError,
    ProviderUnreachableError,
    SettingError,
)
from gateway.exchange.forward import (
    Departure,
    Forwarder,
    Origin,
    Outgoing,
    ProviderResponse,
    origin_of,
)
from gateway.exchange.states import Permitted

PERMITTED = cast(Permitted, None)  # The dock only carries it: the type is the ticket.


class Leaving:
    """A caller that can hang up."""

    def __init__(self) -> None:
        self.gone = False
        self._heeded = asyncio.Event()
        self._when_gone: Callable[[], None] | None = None

    @property
    def when_gone(self) -> Callable[[], None] | None:
        """Return whom to tell."""
        return self._when_gone

    @when_gone.setter
    def when_gone(self, tell: Callable[[], None] | None) -> None:
        self._when_gone = tell
        if tell is not None:
            self._heeded.set()

    async def heeded(self) -> None:
        """Wait until somebody wants to be told."""
        await self._heeded.wait()


@pytest.fixture
async def forwarder() -> AsyncIterator[Forwarder]:
    """Return a dock that is closed after the test."""
    dock = Forwarder()
    yield dock
    dock.close()
    await asyncio.sleep(0)


@asynccontextmanager
async def serving(
    answers: dict[bytes, bytes], connections: list[int] | None = None
) -> AsyncIterator[Origin]:
    """Listen with a server that gives each path its bytes, and others nothing at all."""
    open_connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if connections is not None:
            connections.append(1)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1]
                writer.write(answers.get(path, b""))
                await writer.drain()
                if b"eof" in path:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_connections.add(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield origin_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        server.close()
        for task in open_connections:
            task.cancel()
        await asyncio.gather(*open_connections, return_exceptions=True)


async def ask(
    forwarder: Forwarder, origin: Origin, path: bytes, departure: Departure | None = None
) -> ProviderResponse:
    """Ask for *path*."""
    outgoing = Outgoing(method=b"GET", target=path, headers=[], body=None)
    return await forwarder.forward(PERMITTED, origin, outgoing, departure)


async def whole(response: ProviderResponse) -> bytes:
    """Return the whole body."""
    parts = []
    while chunk := await response.read():
        parts.append(chunk)
    return b"".join(parts)


SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nX-Twice: 1\r\nX-Twice: 2\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n"
)


@pytest.mark.parametrize("answer", [SIZED, CHUNKED, b"HTTP/1.1 200 OK\r\n\r\nhello"])
async def test_every_framing_is_read_to_its_end(forwarder: Forwarder, answer: bytes) -> None:
    """A length, chunks, or the connection's end each end a body."""
    async with serving({b"/eof": answer}) as origin:
        response = await ask(forwarder, origin, b"/eof")

        assert await whole(response) == b"hello"


async def test_repeated_headers_and_interim_answers_keep_their_place(
    forwarder: Forwarder,
) -> None:
    """Both lines of a repeated header come through; an early 1xx is passed over."""
    async with serving({b"/": CHUNKED}) as origin:
        response = await ask(forwarder, origin, b"/")

        assert list(response.headers)[:2] == [(b"X-Twice", b"1"), (b"X-Twice", b"2")]
        assert response.status == 200


async def test_a_clean_connection_is_used_again(forwarder: Forwarder) -> None:
    """Two exchanges, one after the other, need one connection."""
    connections: list[int] = []
    async with serving({b"/": SIZED}, connections) as origin:
        for _ in range(3):
            await whole(await ask(forwarder, origin, b"/"))

        assert len(connections) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"",
    ],
)
async def test_an_answer_that_breaks_off_is_never_whole(
    forwarder: Forwarder, answer: bytes
) -> None:
    """A body short of its own length, or a head short of its end, is an error."""
    async with serving({b"/eof": answer}) as origin:
        with pytest.raises(ProviderBrokeOffError):
            await whole(await ask(forwarder, origin, b"/eof"))


async def test_an_answer_to_no_question_is_not_taken(forwarder: Forwarder) -> None:
    """Bytes that come after a whole answer don't become the next one."""
    connections: list[int] = []
    async with serving({b"/": SIZED + SIZED}, connections) as origin:
        for _ in range(3):
            assert b"hello" == await whole(await ask(forwarder, origin, b"/"))

    assert 3 == len(connections)


@asynccontextmanager
async def answering_early(answer: bytes, *, reads_on: bool) -> AsyncIterator[Origin]:
    """Listen with a server that answers a head at once, then half-closes or stands still."""
    done = asyncio.Event()
    served: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if reads_on:
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                while await reader.read(65_536):
                    pass
        else:
            await done.wait()
        writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield origin_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        done.set()
        server.close()
        await asyncio.gather(*served, return_exceptions=True)


async def upload(forwarder: Forwarder, origin: Origin) -> ProviderResponse:
    """Send a body without end to *origin*."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65_536

    outgoing = Outgoing(method=b"POST", target=b"/", headers=[], body=endless())
    return await asyncio.wait_for(forwarder.forward(PERMITTED, origin, outgoing), 10)


async def test_an_early_answer_ends_an_upload_that_nobody_reads(forwarder: Forwarder) -> None:
    """A provider that answers and reads no further is heard, though the body stands still."""
    async with answering_early(SIZED, reads_on=False) as origin:
        assert b"hello" == await whole(await upload(forwarder, origin))


async def test_an_early_answer_that_breaks_off_is_not_whole(forwarder: Forwarder) -> None:
    """Cutting an upload short does not make a short answer a whole one."""
    cut = b"HTTP/1.1 413 No\r\ncontent-length: 50\r\n\r\nhello"
    async with answering_early(cut, reads_on=True) as origin:
        with pytest.raises(ProviderBrokeOffError):
            await whole(await upload(forwarder, origin))


async def test_nobody_listening_is_unreachable(forwarder: Forwarder) -> None:
    """Where nobody listens nothing was asked, and the error says so."""
    async with serving({}) as origin:
        pass
    with pytest.raises(ProviderUnreachableError):
        await ask(forwarder, origin, b"/")


async def test_a_caller_that_hangs_up_cuts_its_provider_off(forwarder: Forwarder) -> None:
    """The moment the caller goes, the waiting exchange ends."""
    async with serving({}) as origin:
        leaving = Leaving()
        asking = asyncio.ensure_future(ask(forwarder, origin, b"/", leaving))
        await leaving.heeded()
        leaving.gone = True
        (leaving.when_gone or pytest.fail)()

        with pytest.raises(CallerGoneError):
            await asking


async def test_a_caller_that_hangs_up_after_its_answer_cuts_nobody_else_off(
    forwarder: Forwarder,
) -> None:
    """A connection that went on to another exchange no longer heeds the first caller."""
    answers = {b"/": SIZED}
    async with serving(answers) as origin:
        first, second = Leaving(), Leaving()
        await whole(await ask(forwarder, origin, b"/", first))
        asking = asyncio.ensure_future(ask(forwarder, origin, b"/", second))
        await second.heeded()
        if first.when_gone is not None:
            first.when_gone()

        assert await whole(await asking) == b"hello"


@pytest.mark.parametrize("url", ["", "ftp://a", "http://", "http://a:x", "https://a?b=c", "a"])
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    """A base URL is absolute, http or https, without a query."""
    with pytest.raises(SettingError):
        origin_of(url)
