"""A loopback provider with a script for each request: it stalls, lies, breaks off, or swamps.

The script comes in the header `x-fake-script` (JSON), which a gateway passes on like any header
that it doesn't know, or is set for all requests in `FakeProvider.script`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from gateway.demo.provider import Generation, Reply, StubProvider
from tests.support.aside import aside

SCRIPT_HEADER = "x-fake-script"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What goes differently from an ordinary answer; the default is that nothing does."""

    status: int | None = None
    """Answer with this status and an error object of the caller's wire format."""
    stall_after: int | None = None
    """Send so many bytes of the body, then wait for `FakeProvider.release`."""
    break_after: int | None = None
    """Send so many bytes of the body, then abort the connection."""
    error_after: int | None = None
    """Send so many pieces of a stream, then an error event, then end cleanly."""
    end_after: int | None = None
    """Send so many pieces of a stream, then end the body cleanly, as if that were all."""
    slow_first_byte: bool = False
    """Send nothing, not even the head, before `FakeProvider.release`."""
    content_length: int | None = None
    """Announce this length, whatever the body's own is, and close."""
    gzip: bool = False
    """Encode the answer."""
    chunk_bytes: int | None = None
    """Write pieces of this size instead of whole events."""
    body_bytes: int | None = None
    """Answer with so many bytes of `application/octet-stream`."""
    close: bool = False
    """Close the connection after a whole answer."""
    insert: str | None = None
    """Words put between the first and the second piece of a stream, as they are."""
    no_content_length: bool = False
    """Send a body that is no stream in chunks."""
    retry_after: str | None = None
    """With an error, say when to come again."""

    def header(self) -> dict[str, str]:
        """Return the request header that asks for this script."""
        said = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }
        return {SCRIPT_HEADER: json.dumps(said)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request as it reached the provider."""

    method: str
    target: str
    """Path and query, percent-encoding as it came."""
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    generation: Generation | None
    """What it led to; `None` where nothing was generated."""

    def header(self, name: str) -> list[str]:
        """Return the values of the header *name* in the order in which they came."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == wanted]


class FakeProvider(StubProvider):
    """A stub provider that follows scripts and remembers what it received."""

    def __init__(self, *, numbered: bool = False) -> None:
        super().__init__(numbered=numbered)
        self.script = Script()
        self.received: list[Received] = []
        self.hung_up = threading.Event()
        """Set when a caller went away before its answer was whole."""
        self.stalled = threading.Event()
        """Set when an answer has come to where its script stalls it."""
        self.under_way = 0
        """Requests that are being answered; one whose caller has gone ends a while later."""
        self._released = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, and return the base URL."""
        self._loop = asyncio.get_running_loop()
        return await super().start(host, port)

    async def stop(self) -> None:
        """Let go of what is stalled, close every connection and stop listening."""
        self._released.set()
        await super().stop()

    def release(self) -> None:
        """Let every answer that is stalled go on; later ones stall again. From any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._released.set)

    def wait_until_idle(self, *, within_s: float = 120) -> None:
        """Return once nothing is being answered, so that nothing of before comes later."""
        until = time.monotonic() + within_s
        while self.under_way:
            assert time.monotonic() < until, f"{self.under_way} requests are being answered"
            time.sleep(0.005)

    def forget(self) -> None:
        """Forget what was received and generated so far."""
        self.received.clear()
        self.generations.clear()
        self.hung_up.clear()
        self.stalled.clear()
        self.script = Script()

    async def _stall(self) -> None:
        self._released.clear()
        self.stalled.set()
        await self._released.wait()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one request as its script says."""
        self.under_way += 1
        try:
            return await self._serve(request)
        finally:
            self.under_way -= 1

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        script = self._script_of(request)
        before = len(self.generations)
        reply = self._scripted(request, body, script)
        self.received.append(
            Received(
                method=request.method,
                target=request.raw_path,
                headers=request.raw_headers,
                body=body,
                generation=self.generations[before] if len(self.generations) > before else None,
            )
        )
        try:
            return await self._follow(request, reply, script)
        except (asyncio.CancelledError, ConnectionError):
            self.hung_up.set()
            raise

    def _script_of(self, request: web.Request) -> Script:
        said = request.headers.get(SCRIPT_HEADER)
        return self.script if said is None else Script(**json.loads(said))

    def _scripted(self, request: web.Request, body: bytes, script: Script) -> Reply:
        """Return what is sent before the script's timing and breaks are applied."""
        if script.status is not None:
            return self._failing(request, script.status)
        if request.path.startswith("/echo"):
            return self._echo(request, body, script)
        reply = self.reply_to(request, body)
        if script.body_bytes is not None:
            reply = dataclasses.replace(
                reply,
                content_type="application/octet-stream",
                streaming=False,
                pieces=tuple(_filler(script.body_bytes)),
            )
        pieces = reply.pieces
        if script.insert is not None:
            pieces = (pieces[0], script.insert.encode(), *pieces[1:])
        if script.error_after is not None:
            pieces = (*pieces[: script.error_after], self._error_event(request))
        if script.end_after is not None:
            pieces = pieces[: script.end_after]
        if script.gzip:
            pieces = (gzip.compress(b"".join(pieces), mtime=0),)
            reply = dataclasses.replace(
                reply, headers={**reply.headers, "content-encoding": "gzip"}
            )
        if script.chunk_bytes is not None:
            pieces = tuple(_pieces_of(b"".join(pieces), script.chunk_bytes))
        return dataclasses.replace(reply, pieces=pieces)

    async def _follow(
        self, request: web.Request, reply: Reply, script: Script
    ) -> web.StreamResponse:
        """Send *reply* with the stalls, lies and breaks of *script*."""
        if script.slow_first_byte:
            await self._stall()
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        response.headers["content-type"] = reply.content_type
        if script.content_length is not None:
            response.content_length = script.content_length
            response.force_close()
        elif not (reply.streaming or script.no_content_length):
            response.content_length = sum(map(len, reply.pieces))
        if script.close:
            response.force_close()
        await response.prepare(request)
        if request.method == "HEAD" or reply.status in {204, 304}:
            return response
        sent = 0
        for piece in _stopping_at(reply.pieces, script.stall_after, script.break_after):
            await response.write(piece)
            sent += len(piece)
            if reply.generation is not None:
                reply.generation.bytes_sent = sent
            if sent == script.break_after:
                return _break_off(request, response)
            if sent == script.stall_after:
                await self._stall()
            await asyncio.sleep(0)
        if script.content_length is not None:
            return _break_off(request, response)
        await response.write_eof()
        if reply.generation is not None:
            reply.generation.whole = True
        return response

    def _error_event(self, request: web.Request) -> bytes:
        return _error_event(request)

    def _failing(self, request: web.Request, status: int) -> Reply:
        told: dict[str, Any] = {"error": {"message": "scripted", "type": "scripted_error"}}
        if "anthropic-version" in request.headers:
            told = {"type": "error", **told, "request_id": "req_scripted"}
        headers = {"x-request-id": "req_scripted", "x-should-retry": "false"}
        if (wait := self._script_of(request).retry_after) is not None:
            headers["retry-after"] = wait
        return Reply(
            status=status,
            content_type="application/json",
            headers=headers,
            pieces=(json.dumps(told).encode(),),
        )

    def _echo(self, request: web.Request, body: bytes, script: Script) -> Reply:
        """Return the request's own body, for any method and any content."""
        status = int(request.query.get("status", "200"))
        headers = CIMultiDict(
            [
                ("x-echo-target", request.raw_path),
                ("x-repeated", "first"),
                ("x-repeated", "second"),
                ("set-cookie", "a=1; Path=/"),
                ("set-cookie", "b=2; Path=/"),
            ]
        )
        if script.gzip:
            headers["content-encoding"] = "gzip"
            body = gzip.compress(body, mtime=0)
        return Reply(
            status=status,
            content_type=request.headers.get("content-type", "application/octet-stream"),
            headers=headers,
            pieces=tuple(_pieces_of(body, script.chunk_bytes or max(len(body), 1))),
        )


@contextmanager
def fake_provider(*, numbered: bool = False) -> Iterator[tuple[FakeProvider, str]]:
    """Run a fake provider on a thread of its own; yield it and its base URL."""
    provider = FakeProvider(numbered=numbered)
    with aside(provider.start, provider.stop) as url:
        yield provider, url


def _break_off(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return response


def _stopping_at(pieces: tuple[bytes, ...], *stops: int | None) -> Iterator[bytes]:
    """Yield *pieces*, cut so that each of *stops* is the end of a piece (0: an empty one)."""
    marks = sorted(stop for stop in stops if stop is not None)
    if 0 in marks:
        yield b""
    sent = 0
    for piece in pieces:
        left = piece
        for mark in marks:
            if sent < mark < sent + len(left):
                yield left[: mark - sent]
                left = left[mark - sent :]
                sent = mark
        yield left
        sent += len(left)


def _filler(count: int) -> Iterator[bytes]:
    block = bytes(range(256)) * 256
    for _ in range(count // len(block)):
        yield block
    if count % len(block):
        yield block[: count % len(block)]


def _pieces_of(body: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


def _error_event(request: web.Request) -> bytes:
    if request.path == "/v1/messages":
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "scripted"}}
        return b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"
    said = {
        "error": {"message": "scripted", "type": "server_error", "param": None, "code": None}
    }
    return b"data: " + json.dumps(said).encode() + b"\n\n"
