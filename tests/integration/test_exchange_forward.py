"""Laws of the dock, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from gateway.errors import (
    BodyTooLargeError,
    CallerGoneError,
    ProviderBrokeOffError,
    ProviderUnreachableError,
    SettingError,
)
from gateway.exchange.duplex import Duplex
from gateway.exchange.forward import (
    Departure,
    Forwarder,
    Origin,
    Outgoing,
    ProviderResponse,
    Upgraded,
    origin_of,
)
from gateway.exchange.states import Permitted
from gateway.limits import MIB

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
    return await asyncio.wait_for(forwarder.forward(PERMITTED, origin, outgoing), 30)


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


CUT = {
    "two lengths": b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "a list of lengths": b"content-length: 5, 5\r\n\r\nhello",
    "a length and chunks": b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "a signed length": b"content-length: +5\r\n\r\nhello",
    "a coding that nobody undoes": b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks in no chunks": b"transfer-encoding: identity\r\n\r\nhello",
    "chunks twice": b"transfer-encoding: chunked\r\n" * 2 + b"\r\n5\r\nhello\r\n0\r\n\r\n",
    "a bare line feed": b"content-length: 5\nx: y\r\n\r\nhello",
    "a folded line": b"x: y\r\n z\r\ncontent-length: 5\r\n\r\nhello",
    "a space before a colon": b"x : y\r\ncontent-length: 5\r\n\r\nhello",
    "a zero byte": b"x: a\x00b\r\ncontent-length: 5\r\n\r\nhello",
    "a bare carriage return": b"x: a\rb\r\ncontent-length: 5\r\n\r\nhello",
    "a chunk with bare line feeds": b"transfer-encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    "a chunk that is too long": b"transfer-encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
    "a chunk without a size": b"transfer-encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
    "a chunk beyond counting": b"transfer-encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\nx",
    "headers without end": b"x: y\r\n" * 200_000,
    "one header without end": b"x: " + b"y" * 1_000_000,
    "a late length": b"transfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 5\r\n\r\n",
    "trailers without end": b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 200_000,
}


@pytest.mark.parametrize("kind", sorted(CUT))
async def test_what_could_be_read_in_two_ways_is_broken_off(
    forwarder: Forwarder, kind: str
) -> None:
    """A framing that another reader might take otherwise never ends cleanly."""
    async with serving({b"/": b"HTTP/1.1 200 OK\r\n" + CUT[kind]}) as origin:
        with pytest.raises(ProviderBrokeOffError):
            await whole(await asyncio.wait_for(ask(forwarder, origin, b"/"), 30))


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 20_000,
    ],
)
async def test_a_head_that_answers_nothing_is_broken_off(
    forwarder: Forwarder, head: bytes
) -> None:
    """Another protocol's answer, or interim ones without end, are none."""
    async with serving({b"/": head}) as origin:
        with pytest.raises(ProviderBrokeOffError):
            await asyncio.wait_for(ask(forwarder, origin, b"/"), 30)


async def test_trailers_come_behind_the_body(forwarder: Forwarder) -> None:
    """Fields behind a chunked body are kept in order, but for those that frame."""
    answer = (
        b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\n"
        b"X-Sum: 1\r\nKeep-Alive: 1\r\nX-Sum: 2\r\n\r\n"
    )
    async with serving({b"/": answer, b"/next": SIZED}) as origin:
        response = await ask(forwarder, origin, b"/")
        assert b"hello" == await whole(response)
        await whole(await ask(forwarder, origin, b"/next"))

    assert [(b"X-Sum", b"1"), (b"X-Sum", b"2")] == list(response.trailers)
    assert (b"trailer", b"x-sum") in response.headers


async def test_all_content_encodings_are_told(forwarder: Forwarder) -> None:
    """Encodings on several lines are one list."""
    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nContent-Encoding: br\r\n"
        b"content-length: 0\r\n\r\n"
    )
    async with serving({b"/": answer}) as origin:
        response = await ask(forwarder, origin, b"/")

    assert "gzip, br" == response.header(b"content-encoding")


class Listening:
    """A server that keeps what it gets, and does with each connection what a test says."""

    def __init__(
        self, does: Callable[[Listening, asyncio.StreamReader, asyncio.StreamWriter], Any]
    ) -> None:
        self.got: list[bytes] = []
        self.connections = 0
        self._does = does
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await self._does(self, reader, writer)
        finally:
            writer.transport.abort()

    @asynccontextmanager
    async def at(self) -> AsyncIterator[Origin]:
        """Yield where it listens."""

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._tasks.add(asyncio.ensure_future(self._serve(reader, writer)))

        server = await asyncio.start_server(begin, "127.0.0.1", 0)
        try:
            yield origin_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


async def _answers_once(
    server: Listening, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer one request, and close the connection when the next one comes."""
    server.got.append(await reader.readuntil(b"\r\n\r\n"))
    writer.write(SIZED)
    server.got.append(await reader.readuntil(b"\r\n\r\n"))


async def test_what_was_written_is_never_sent_again(forwarder: Forwarder) -> None:
    """A provider that closes an idle connection at the next request has broken it off."""
    server = Listening(_answers_once)
    async with server.at() as origin:
        await whole(await ask(forwarder, origin, b"/first"))
        with pytest.raises(ProviderBrokeOffError):
            await ask(forwarder, origin, b"/second")

    assert (1, 2) == (server.connections, len(server.got))


async def _hangs_up(
    server: Listening, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    server.got.append(await reader.readuntil(b"\r\n\r\n"))
    writer.write(SIZED)


async def test_a_connection_that_is_closed_before_it_is_used_is_replaced(
    forwarder: Forwarder,
) -> None:
    """An idle connection with an end to read carries nothing, however late we hear of it."""
    server = Listening(_hangs_up)
    async with server.at() as origin:
        for _ in range(20):
            assert b"hello" == await whole(await ask(forwarder, origin, b"/"))
            # Nothing else runs meanwhile: the loop has not looked at the end that comes here.
            time.sleep(0.005)  # noqa: ASYNC251
            ((idle,),) = forwarder._idle.values()
            assert idle._poll is not None
            assert idle._poll.poll(60_000)

    assert (20, 20) == (server.connections, len(server.got))


async def test_idle_connections_are_let_go() -> None:
    """What nobody uses is closed after a while, though the provider would keep it."""
    dock = Forwarder(idle_s_max=0.05)
    closed = asyncio.Event()

    async def answer(
        server: Listening, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await _hangs_up(server, reader, writer)
        assert b"" == await reader.read(1)
        closed.set()

    server = Listening(answer)
    async with server.at() as origin:
        await whole(await ask(dock, origin, b"/"))
        await asyncio.wait_for(closed.wait(), 30)
    dock.close()


async def _echoes(
    server: Listening, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer at once, and send the body back as it comes."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while (size := int(await reader.readuntil(b"\r\n"), 16)) > 0:
        piece = await reader.readexactly(size + 2)
        server.got.append(piece)
        writer.write(b"%x\r\n%b" % (size, piece))
    server.got.append(await reader.readuntil(b"\r\n\r\n"))
    writer.write(b"0\r\n\r\n")


async def test_both_directions_run_beside_each_other(forwarder: Forwarder) -> None:
    """A provider that begins to answer before the body's end gets the rest, and trailers."""
    asked = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await asked.wait()
        yield b"two"

    outgoing = Outgoing(
        method=b"POST",
        target=b"/",
        headers=[],
        body=body(),
        trailers=lambda: [(b"x-sum", b"1"), (b"x-sum", b"2")],
    )
    server = Listening(_echoes)
    async with server.at() as origin:
        response = await forwarder.forward(PERMITTED, origin, outgoing)
        assert b"one" == await response.read()
        asked.set()
        assert b"two" == await whole(response)

    assert b"x-sum: 1\r\nx-sum: 2\r\n\r\n" == server.got[-1]


async def test_a_body_that_breaks_off_late_breaks_the_answer_off(forwarder: Forwarder) -> None:
    """A caller that goes in the middle of its body leaves no answer that looks whole."""
    asked = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await asked.wait()
        raise BodyTooLargeError("more than passes")

    outgoing = Outgoing(method=b"POST", target=b"/", headers=[], body=body())
    server = Listening(_echoes)
    async with server.at() as origin:
        response = await forwarder.forward(PERMITTED, origin, outgoing)
        assert b"one" == await response.read()
        asked.set()
        with pytest.raises(CallerGoneError):
            await whole(response)


async def test_a_body_that_breaks_off_early_says_why(forwarder: Forwarder) -> None:
    """Before any answer, what is wrong with the body is what the caller hears."""

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        raise BodyTooLargeError("more than passes")

    outgoing = Outgoing(method=b"POST", target=b"/", headers=[], body=body())
    async with serving({}) as origin:
        with pytest.raises(BodyTooLargeError):
            await forwarder.forward(PERMITTED, origin, outgoing)


# -- switching protocols ------------------------------------------------------------------

SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: abc\r\n\r\n"
)


async def _switches(
    server: Listening, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    server.got.append(await reader.readuntil(b"\r\n\r\n"))
    writer.write(SWITCH + b"first")
    while data := await reader.read(65_536):
        writer.write(data.upper())


async def upgrade(
    forwarder: Forwarder, origin: Origin, departure: Departure | None = None
) -> ProviderResponse | Upgraded:
    """Ask for a WebSocket."""
    headers = [(b"sec-websocket-key", b"x")]
    outgoing = Outgoing(
        method=b"GET", target=b"/", headers=headers, body=None, protocol=b"websocket"
    )
    return await forwarder.upgrade(PERMITTED, origin, outgoing, departure)


async def test_a_switched_connection_carries_bytes_both_ways(forwarder: Forwarder) -> None:
    """What comes with the head is read first; from there on bytes are only bytes."""
    server = Listening(_switches)
    async with server.at() as origin:
        switched = await upgrade(forwarder, origin)
        assert isinstance(switched, Upgraded)
        duplex = switched.duplex
        assert b"first" == await duplex.read()
        await duplex.write(b"HTTP/1.1 200 OK\r\n\r\nabc")
        assert b"HTTP/1.1 200 OK\r\n\r\nABC" == await duplex.read()
        duplex.close()

    assert [(b"Sec-WebSocket-Accept", b"abc")] == list(switched.headers)
    assert b"\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n" in server.got[0]


async def test_a_provider_that_does_not_switch_is_answered_as_ever(
    forwarder: Forwarder,
) -> None:
    """A refusal is an ordinary answer, over a connection that can be used again."""
    connections: list[int] = []
    answer = b"HTTP/1.1 401 No\r\ncontent-length: 5\r\n\r\nhello"
    async with serving({b"/": answer}, connections) as origin:
        for _ in range(2):
            response = await upgrade(forwarder, origin)
            assert isinstance(response, ProviderResponse)
            assert (401, b"hello") == (response.status, await whole(response))

    assert [1] == connections


async def test_a_slow_reader_slows_the_sender(forwarder: Forwarder) -> None:
    """What nobody reads does not pile up: the sender is kept waiting, both ways."""
    sent = 0

    async def swamps(
        _: Listening, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        while True:
            writer.write(bytes(65_536))
            sent += 65_536
            await writer.drain()

    async with Listening(swamps).at() as origin:
        switched = await upgrade(forwarder, origin)
        assert isinstance(switched, Upgraded)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        assert before < 64 * MIB
        writing = asyncio.ensure_future(_write_on(switched.duplex))
        await asyncio.sleep(0.2)
        assert not writing.done()
        got = 0
        while got < 64 * MIB:
            got += len(await switched.duplex.read())
        switched.duplex.abort()
        await asyncio.wait_for(writing, 30)

    assert sent > before


async def _write_on(duplex: Duplex) -> None:
    while not duplex.gone:
        await duplex.write(bytes(65_536))


async def test_either_end_is_told_when_the_other_goes(forwarder: Forwarder) -> None:
    """The moment the provider ends it, whoever reads, writes or waits hears of it."""

    async def goes(
        server: Listening, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await _hangs_up_after_switch(reader, writer)

    async with Listening(goes).at() as origin:
        switched = await upgrade(forwarder, origin)
        assert isinstance(switched, Upgraded)
        told: list[bool] = []
        switched.duplex.when_gone = lambda: told.append(True)
        assert b"last" == await asyncio.wait_for(switched.duplex.read(), 30)
        assert b"" == await asyncio.wait_for(switched.duplex.read(), 30)
        await switched.duplex.write(b"nobody")

    assert (True, [True]) == (switched.duplex.gone, told)


async def _hangs_up_after_switch(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(SWITCH + b"last")
    writer.close()
    await writer.wait_closed()


async def test_a_caller_that_goes_cuts_off_the_switch(forwarder: Forwarder) -> None:
    """A caller that hangs up before the provider has switched ends the waiting."""
    async with serving({}) as origin:
        leaving = Leaving()
        asking = asyncio.ensure_future(upgrade(forwarder, origin, leaving))
        await leaving.heeded()
        leaving.gone = True
        (leaving.when_gone or pytest.fail)()
        with pytest.raises(CallerGoneError):
            await asking
