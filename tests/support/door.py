"""A door without a house: real connections, and a host that remembers and echoes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.errors import CallerError, MalformedRequestError
from gateway.proxy.connection import Connection
from gateway.proxy.framing import RawHeader
from gateway.proxy.knock import Knock
from gateway.proxy.problem import status_of
from gateway.proxy.reply import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request as it reached the host, whole."""

    method: str
    target: str
    headers: tuple[RawHeader, ...]
    body: bytes
    trailers: tuple[RawHeader, ...] = ()


class EchoHost:
    """Answers every request with its body; keeps what it saw, and what broke."""

    def __init__(self) -> None:
        self.closing = False
        self.bytes_held = 0
        self.seen: list[Seen] = []
        self.refused: list[str] = []
        self.broken: list[str] = []
        self.connections: set[Connection] = set()
        self.when_knocked: Callable[[Knock, Reply], Awaitable[None]] = self.echo

    def arrived(self, connection: Connection) -> bool:
        """Let everybody in."""
        self.connections.add(connection)
        return True

    def left(self, connection: Connection) -> None:
        """Forget a connection."""
        self.connections.discard(connection)

    def refusal(self, error: MalformedRequestError) -> bytes:
        """Return an answer that names the code."""
        self.refused.append(error.problem)
        body = error.problem.encode()
        return b"HTTP/1.1 %d No\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
            status_of(error),
            len(body),
            body,
        )

    async def knocked(self, knock: Knock, connection: Connection) -> None:
        """Answer one request."""
        reply = Reply(knock, connection)
        try:
            await self.when_knocked(knock, reply)
        except CallerError as error:
            self.broken.append(error.problem)
            if reply.gone:
                reply.break_off()
            else:
                await reply.answer(status_of(error), b"No", (), b"")
        finally:
            reply.leave()

    async def echo(self, knock: Knock, reply: Reply) -> None:
        """Send back what came."""
        body = b"".join([chunk async for chunk in knock.chunks()])
        self.seen.append(
            Seen(
                method=knock.method,
                target=knock.raw_path,
                headers=tuple(line.raw for line in knock.lines),
                body=body,
                trailers=tuple(line.raw for line in knock.trailers),
            )
        )
        await reply.answer(200, b"OK", (), body)


class Wire:
    """A caller's end of a connection, with the loop's own calls."""

    def __init__(self, end: socket.socket, begun_s: float) -> None:
        self._end = end
        self.begun_s = begun_s
        """By the loop's clock, before the door could know of it."""

    async def send(self, content: bytes) -> None:
        """Send bytes; silent once the door has closed."""
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(self._end, content)

    def say_no_more(self) -> None:
        """End the sending side."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_WR)

    async def receive(self, *, until: bytes | None = None) -> bytes:
        """Return what comes until the end, a reset, or until *until* was seen."""
        got = b""
        with contextlib.suppress(ConnectionError):
            while until is None or until not in got:
                part = await asyncio.get_running_loop().sock_recv(self._end, 1 << 16)
                if not part:
                    break
                got += part
        return got

    def hang_up(self) -> None:
        """Close."""
        self._end.close()


@asynccontextmanager
async def connected(host: EchoHost) -> AsyncIterator[Wire]:
    """Connect a caller with *host*, over loopback."""
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    server = await loop.create_server(lambda: Connection(host, loop), "127.0.0.1", 0)
    end = socket.socket()
    end.settimeout(0)
    try:
        await loop.sock_connect(end, server.sockets[0].getsockname())
        yield Wire(end, begun_s)
    finally:
        end.close()
        server.close()
        for connection in list(host.connections):
            connection.cut()


async def talk(host: EchoHost, *pieces: bytes) -> bytes:
    """Send *pieces* one after the other, then end; return all that comes back."""
    async with connected(host) as wire:
        for piece in pieces:
            await wire.send(piece)
            await asyncio.sleep(0)
        wire.say_no_more()
        return await wire.receive()
