"""The door's framing: whatever HTTP a caller and a provider speak, the answer is the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.app.running import Gateway
from gateway.limits import BODY_BYTES_MAX, MIB
from tests.support.caller import Answer, Caller, Headers
from tests.support.house import (
    CHAT,
    STREAM_END,
    STREAM_HEAD,
    Act,
    RawProvider,
    Step,
    completion,
    events,
    eventually,
    framed,
    gateway_in,
    sized,
    streamed,
)

TARGET = "/open/v1/chat/completions"
JSON: Headers = (("content-type", "application/json"),)
BODY = json.dumps(CHAT).encode()
STREAM = json.dumps(CHAT | {"stream": True}).encode()


@pytest.fixture
async def provider() -> AsyncIterator[RawProvider]:
    """Return a provider on a plain socket."""
    async with RawProvider().listening() as listening:
        listening.steps = [sized(completion("good day"))]
        yield listening


@pytest.fixture
async def gateway(tmp_path: Path, provider: RawProvider) -> AsyncIterator[Gateway]:
    """Return a gateway in this process, before that provider."""
    async with gateway_in(tmp_path, provider.url) as running:
        yield running


async def say(gateway: Gateway, wire: bytes, *, head_only: bool = False) -> Answer:
    """Send bytes as they are; return the first answer to them."""

    def talk() -> Answer:
        with Caller(gateway.port) as caller:
            caller.send(wire)
            return caller.read(head_only=head_only)

    return await asyncio.to_thread(talk)


async def ask(
    gateway: Gateway,
    method: str = "POST",
    target: str = TARGET,
    headers: Headers = JSON,
    body: bytes = BODY,
) -> Answer:
    """Ask over a connection of its own."""

    def talk() -> Answer:
        with Caller(gateway.port) as caller:
            return caller.ask(method, target, headers, body)

    return await asyncio.to_thread(talk)


def http10(body: bytes, *headers: bytes) -> bytes:
    """Return a request as HTTP/1.0."""
    lines = [b"POST %b HTTP/1.0" % TARGET.encode(), b"content-type: application/json"]
    lines += [b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def test_an_old_caller_gets_a_stream_to_the_connections_end(
    gateway: Gateway, provider: RawProvider
) -> None:
    """HTTP/1.0 knows no chunks: the body ends with the connection."""
    provider.steps = streamed("good", " day")
    answer = await say(gateway, http10(STREAM))

    assert answer.wire.endswith(b"".join(events("good", " day")))
    assert answer.header("transfer-encoding") is None
    assert "close" == answer.header("connection")


async def test_an_old_caller_sees_a_broken_stream(
    gateway: Gateway, provider: RawProvider
) -> None:
    """Where the connection's end is the body's, a break is a reset and no clean end."""
    provider.steps = [*streamed("good", " day")[:4], Act.CLOSE]

    def talk() -> bool:
        with Caller(gateway.port) as caller:
            caller.send(http10(STREAM))
            try:
                while caller._socket.recv(1 << 16):
                    pass
            except ConnectionResetError:
                return True
            return False

    assert await asyncio.to_thread(talk)


async def test_an_old_caller_may_stay(gateway: Gateway) -> None:
    """HTTP/1.0 with keep-alive is told so, and can ask again."""

    def talk() -> list[str | None]:
        with Caller(gateway.port) as caller:
            kept = []
            for _ in range(2):
                caller.send(http10(BODY, b"connection: keep-alive"))
                kept.append(caller.read().header("connection"))
            return kept

    assert ["keep-alive", "keep-alive"] == await asyncio.to_thread(talk)


async def test_one_connection_carries_many_exchanges(
    gateway: Gateway, provider: RawProvider
) -> None:
    """A caller that stays asks again and again, whole answers, errors and streams in turn."""

    def talk() -> list[tuple[int, bool]]:
        seen = []
        with Caller(gateway.port) as caller:
            for target, body in (
                (TARGET, BODY),
                ("/nowhere/v1", BODY),
                (TARGET, b"{"),
                (TARGET, BODY),
                ("/-/health", b""),
                (TARGET, BODY),
            ):
                method = "GET" if target == "/-/health" else "POST"
                answer = caller.ask(method, target, JSON, body)
                seen.append((answer.status, answer.whole))
        return seen

    assert [(200, True), (404, True), (400, True), (200, True), (200, True), (200, True)] == (
        await asyncio.to_thread(talk)
    )
    assert 1 == provider.dialled


async def test_requests_sent_ahead_are_answered_in_order(
    gateway: Gateway, provider: RawProvider
) -> None:
    """A caller that does not wait for its answers gets them one after the other, whole."""
    wire = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (
        TARGET.encode(),
        len(BODY),
    )

    def talk() -> list[bytes]:
        with Caller(gateway.port) as caller:
            caller.send((wire + BODY) * 3)
            caller._socket.settimeout(30)
            got = b""
            while got.count(b"good day") < 3:
                got += caller._socket.recv(1 << 16)
            return got.split(b"HTTP/1.1 200")[1:]

    assert 3 == len(await asyncio.to_thread(talk))
    assert 3 == len(provider.received)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\nx-a: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-a: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-a: 1\r\n\r\n0\r\n\r\n",
    ],
    ids=["204", "304", "empty", "empty-chunked"],
)
async def test_an_answer_without_a_body_has_none(
    answer: bytes, gateway: Gateway, provider: RawProvider
) -> None:
    """No content stays no content, and the connection can be used again."""
    provider.steps = [answer]

    def talk() -> list[Answer]:
        with Caller(gateway.port) as caller:
            return [caller.ask("GET", "/open/v1/models/x") for _ in range(2)]

    for got in await asyncio.to_thread(talk):
        assert (b"", True, "1") == (got.body, got.whole, got.header("x-a"))
        assert int(answer[9:12]) == got.status


async def test_a_head_has_the_headers_and_no_body(
    gateway: Gateway, provider: RawProvider
) -> None:
    """HEAD goes up as HEAD; its length is that of the body which does not come."""
    provider.steps = [b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\nx-a: 1\r\n\r\n"]
    answer = await ask(gateway, "HEAD", "/open/v1/files/f/content", (), b"")

    assert (200, "1234", b"") == (answer.status, answer.header("content-length"), answer.body)
    assert provider.received[0].startswith(b"HEAD /v1/files/f/content HTTP/1.1\r\n")


async def test_a_body_to_the_connections_end_is_framed_for_the_caller(
    gateway: Gateway, provider: RawProvider
) -> None:
    """A body that ends with its provider's connection has an end of its own for the caller."""
    provider.steps = [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"]
    provider.steps += [completion("good day"), Act.CLOSE]
    answer = await ask(gateway)

    assert (200, completion("good day"), True) == (answer.status, answer.body, answer.whole)


async def test_headers_of_one_connection_stay_on_it(
    gateway: Gateway, provider: RawProvider
) -> None:
    """Hop-by-hop headers, those that `connection` names, and ours don't go through."""
    provider.steps = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x-hop, keep-alive\r\n",
        b"x-hop: 1\r\nkeep-alive: timeout=5\r\nx-twice: 1\r\nx-twice: 2\r\n",
        b"server: them\r\n\r\n{}",
    ]
    headers = (
        *JSON,
        ("connection", "X-Mine"),
        ("x-mine", "1"),
        ("te", "trailers, deflate"),
        ("proxy-authorization", "Basic x"),
        ("x-intended-use", "purpose=inference"),
        ("X-Gateway-Anything", "1"),
        ("x-Other", "Kept"),
    )
    answer = await ask(gateway, headers=headers)
    up = provider.received[0].partition(b"\r\n\r\n")[0].lower()

    assert ["1", "2"] == answer.values("x-twice")
    assert "them" == answer.header("server")
    assert answer.header("x-hop") is None
    assert answer.header("keep-alive") is None
    assert b"x-other: kept" in up
    assert b"\r\nconnection: te\r\nte: trailers\r\n" in up  # its own, for trailers pass
    for gone in (
        b"x-mine",
        b"deflate",
        b"proxy-auth",
        b"x-intended",
        b"x-gateway",
        b"gateway.ex",
    ):
        assert gone not in up


async def test_a_body_that_waits_for_leave_gets_it(
    gateway: Gateway, provider: RawProvider
) -> None:
    """`Expect: 100-continue` is answered by the gateway, and is not passed on."""

    def talk() -> tuple[bytes, Answer]:
        with Caller(gateway.port) as caller:
            headers = (*JSON, ("expect", "100-continue"), ("content-length", str(len(BODY))))
            caller.send_request("POST", TARGET, headers)
            leave = caller._socket.recv(25)
            caller.send(BODY)
            return leave, caller.read()

    leave, answer = await asyncio.to_thread(talk)

    assert b"HTTP/1.1 100 Continue\r\n\r\n" == leave
    assert (200, completion("good day")) == (answer.status, answer.body)
    assert b"expect" not in provider.received[0].lower()


async def test_a_body_nobody_wants_is_not_asked_for(
    gateway: Gateway, provider: RawProvider
) -> None:
    """A caller that waits for leave and is refused never has to send its body."""
    headers = (*JSON, ("expect", "100-continue"), ("content-length", "1000000"))
    answer = await ask(gateway, target="/nowhere/v1/x", headers=headers, body=b"")

    assert 404 == answer.status
    assert 0 == provider.dialled


async def test_a_chunked_upload_goes_through(gateway: Gateway, provider: RawProvider) -> None:
    """A body without a length that need not be read passes on in chunks."""
    provider.steps = [sized(b"{}")]
    wire = (
        b"POST /open/v1/files HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    )
    answer = await say(gateway, wire)
    head, _, body = provider.received[0].partition(b"\r\n\r\n")

    assert 200 == answer.status
    assert b"transfer-encoding: chunked" in head
    assert b"content-length" not in head
    assert b"abcdefg" == b"".join(body.split(b"\r\n")[1::2])


@pytest.mark.parametrize(
    "target",
    ["/open/v1/a%2Fb?x=%20&y=a+b", "/open/v1/../v1//x", "/open/v1/%E2%82%AC?", "/open//x;p=1"],
)
async def test_paths_go_up_as_they_came(
    target: str, gateway: Gateway, provider: RawProvider
) -> None:
    """Percent-encoding, dots, slashes and queries are nobody's business here."""
    provider.steps = [sized(b"{}")]
    await ask(gateway, "GET", target, (), b"")

    assert provider.received[0].split(b" ")[1] == target.removeprefix("/open").encode()


SLOW: list[Step] = [STREAM_HEAD, *[framed(b": " + b"x" * 65_000 + b"\n\n")] * 64, STREAM_END]


async def test_a_slow_caller_gets_it_all(gateway: Gateway, provider: RawProvider) -> None:
    """A caller that reads slowly slows the provider down, and loses nothing."""
    provider.steps = SLOW
    answer = await ask(gateway, body=STREAM)

    assert answer.whole
    assert 64 * 65_004 == len(answer.body)


async def test_a_provider_that_speaks_of_an_upgrade_is_cut_off(
    gateway: Gateway, provider: RawProvider
) -> None:
    """Nobody asked to switch protocols, so an answer that does is a bad gateway."""
    provider.steps = [b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"]
    answer = await ask(gateway)

    assert 502 == answer.status


HEAD = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" % TARGET.encode()
SECOND = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (
    TARGET.encode(),
    len(BODY),
    BODY,
)
HOSTILE: dict[str, tuple[int, bytes]] = {
    "two lengths": (400, b"content-length: 5\r\ncontent-length: 0\r\n\r\n"),
    "one length twice": (400, b"content-length: 5\r\nContent-Length: 5\r\n\r\n"),
    "a list of lengths": (400, b"content-length: 5, 5\r\n\r\n"),
    "a signed length": (400, b"content-length: +5\r\n\r\n"),
    "length and chunks": (
        400,
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "chunks and length": (
        400,
        b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    ),
    "another coding": (400, b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "a hidden coding": (400, b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    "a blank before the colon": (400, b"content-length : 5\r\n\r\n"),
    "a folded line": (400, b"x-a: 1\r\n content-length: 5\r\n\r\n"),
    "a bare LF": (400, b"x-a: 1\ncontent-length: 5\r\n\r\n"),
    "a bare CR": (400, b"x-a: 1\rcontent-length: 5\r\n\r\n"),
    "a NUL": (400, b"x-a: 1\x00\r\n\r\n"),
    "a second host": (400, b"host: y\r\n\r\n"),
    "wide": (431, b"x-a: " + b"v" * 70_000 + b"\r\n\r\n"),
    "many": (431, b"x: 1\r\n" * 300 + b"\r\n"),
    "a miracle": (417, b"expect: miracles\r\n\r\n"),
    "no chunk": (400, b"transfer-encoding: chunked\r\n\r\nxyz\r\n"),
    "a chunk too many": (413, b"transfer-encoding: chunked\r\n\r\nfffffffffff\r\n"),
    "a chunk that is longer": (400, b"transfer-encoding: chunked\r\n\r\n1\r\nab\r\n"),
    "a length behind": (
        400,
        b"transfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 5\r\n\r\n",
    ),
}


@pytest.mark.parametrize(("status", "lines"), HOSTILE.values(), ids=HOSTILE)
async def test_a_request_with_two_meanings_is_none(
    status: int, lines: bytes, gateway: Gateway, provider: RawProvider
) -> None:
    """Hostile framing is one line of JSON and the end; nothing behind it is a request."""

    def talk() -> tuple[Answer, bytes]:
        with Caller(gateway.port) as caller:
            caller.send(HEAD + lines + SECOND)
            answer = caller.read()
            return answer, caller._socket.recv(1 << 16)

    answer, after = await asyncio.to_thread(talk)
    said = json.loads(answer.body)

    assert (status, True, b"") == (answer.status, answer.whole, after)
    assert "close" == answer.header("connection")
    assert (said.get("code") or said["error"]["code"]) == answer.header("x-gateway-problem")
    assert b"\n" not in answer.body
    assert [] == provider.received


async def test_an_upload_whose_framing_breaks_is_told_so(
    gateway: Gateway, provider: RawProvider
) -> None:
    """A body that breaks off in the middle of being passed on is a 400, and on record."""
    wire = b"POST /open/v1/files HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = await say(gateway, wire + framed(bytes(100_000)) + b"\nGET / HTTP/1.1\r\n")
    await eventually(lambda: gateway.hall.count == 0)

    assert (400, True) == (answer.status, answer.whole)
    assert "request.malformed" == answer.header("x-gateway-problem")
    assert [] == provider.received
    # The receipt key's authorisation, the library's activation, the opening, the receipt.
    assert gateway.installation.reader.size() == 4


@pytest.mark.parametrize(
    ("status", "first"),
    [
        (400, b"GET http://127.0.0.1/open/v1/models HTTP/1.1"),
        (405, b"CONNECT api.example:443 HTTP/1.1"),
        (405, b"TRACE /open/v1/models HTTP/1.1"),
        (400, b"OPTIONS * HTTP/1.1"),
        (400, b"PRI * HTTP/2.0"),
        (400, b"GET /open/v1/models"),
        (400, b"GET /open/v1/models HTTP/0.9"),
        (400, b"GET /open/v1/mod els HTTP/1.1"),
        (400, b"\x16\x03\x01\x02\x00"),
        (414, b"GET /open/" + b"a" * 40_000 + b" HTTP/1.1"),
    ],
    ids=[
        "absolute",
        "tunnel",
        "trace",
        "star",
        "h2",
        "0.9",
        "0.9 said",
        "blank",
        "tls",
        "long",
    ],
)
async def test_a_first_line_that_is_none_is_told_so(
    status: int, first: bytes, gateway: Gateway, provider: RawProvider
) -> None:
    """What asks for a tunnel, another protocol or another server is refused, as JSON."""
    answer = await say(gateway, first + b"\r\nhost: x\r\n\r\n")

    assert (status, True) == (answer.status, answer.whole)
    assert "application/problem+json" == answer.header("content-type")
    assert json.loads(answer.body)["next_step"]
    assert [] == provider.received


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PATCH", "DELETE", "PUT"])
async def test_every_method_goes_up_as_it_is(
    method: str, gateway: Gateway, provider: RawProvider
) -> None:
    """Methods of APIs pass, with a body where one was sent."""
    provider.steps = [sized(b"" if method == "HEAD" else b"{}")]
    body = b"" if method == "HEAD" else b"abc"
    answer = await ask(gateway, method, "/open/v1/files/f", (), body)

    assert 200 == answer.status
    assert provider.received[0].startswith(f"{method} /v1/files/f HTTP/1.1\r\n".encode())
    assert provider.received[0].endswith(body)


@pytest.mark.parametrize("target", ["/open/v1/files", TARGET], ids=["passed on", "held"])
async def test_trailers_pass_both_ways(
    target: str, gateway: Gateway, provider: RawProvider
) -> None:
    """Fields behind a chunked body come out behind it, theirs and ours left out."""
    provider.steps = [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n",
        b"2\r\nok\r\n0\r\nX-Sum: 7\r\nx-sum: 8\r\n\r\n",
    ]
    wire = b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % (
        target.encode()
    )
    behind = b"0\r\nX-Check: abc\r\nX-Gateway-Key: k\r\nConnection: y\r\n\r\n"

    def talk() -> bytes:
        with Caller(gateway.port) as caller:
            caller.send(wire + framed(BODY) + behind)
            got = b""
            while not got.endswith(b"\r\n\r\n") or b"\r\n0\r\n" not in got:
                got += caller._socket.recv(1 << 16)
            return got

    got = await asyncio.to_thread(talk)

    assert got.endswith(b"2\r\nok\r\n0\r\nX-Sum: 7\r\nx-sum: 8\r\n\r\n")
    assert provider.received[0].endswith(framed(BODY) + b"0\r\nX-Check: abc\r\n\r\n")


async def test_an_odd_reason_and_status_come_through(
    gateway: Gateway, provider: RawProvider
) -> None:
    """A status that no table knows, and words that no table has, are the provider's to say."""
    provider.steps = [b"HTTP/1.1 529 Over \xe2\x9a\xa0 loaded\r\ncontent-length: 2\r\n\r\n{}"]
    answer = await ask(gateway)

    assert (529, b"Over \xe2\x9a\xa0 loaded") == (answer.status, answer.reason)


async def test_an_upload_without_end_is_told_so(
    gateway: Gateway, provider: RawProvider
) -> None:
    """A body that is passed on and grows beyond every limit is a 413, and on record."""
    wire = b"POST /open/v1/files HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    part = framed(bytes(16 * MIB))
    provider.swallows = True

    def talk() -> Answer:
        with Caller(gateway.port) as caller:
            caller.send(wire)
            try:
                for _ in range(BODY_BYTES_MAX // (16 * MIB) + 2):
                    caller.send(part)
            except ConnectionError:
                pass
            return caller.read()

    answer = await asyncio.to_thread(talk)
    await eventually(lambda: gateway.hall.count == 0)

    assert 413 == answer.status
    # The receipt key's authorisation, the library's activation, the opening, the receipt.
    assert gateway.installation.reader.size() == 4
