"""Bytes and headers pass as they are; only the documented ones are added or removed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.support.caller import Answer, Caller, Headers
from tests.support.provider import FakeProvider, Script
from tests.support.proxy import Gateway

OPENAI: Headers = (("authorization", "Bearer sk-1"), ("content-type", "application/json"))
CHAT = json.dumps(
    {"model": "m", "messages": [{"role": "user", "content": "Which way?"}]}
).encode()
STREAM = CHAT.replace(b'"model"', b'"stream": true, "model"')
PER_CONNECTION = ("date", "connection", "transfer-encoding", "keep-alive")


def both(
    gateway: Gateway,
    provider_url: str,
    method: str,
    target: str,
    headers: Headers = OPENAI,
    body: bytes = b"",
) -> tuple[Answer, Answer]:
    """Return the answers to the same request, direct and through the gateway."""
    with Caller(int(provider_url.rpartition(":")[2])) as caller:
        direct = caller.ask(method, target, headers, body)
    with Caller(gateway.port) as caller:
        through = caller.ask(method, "/openai" + target, headers, body)
    return direct, through


def assert_same(direct: Answer, through: Answer) -> None:
    """Check that two answers differ in nothing but what one connection is about."""
    assert (direct.status, direct.reason) == (through.status, through.reason)
    assert direct.body == through.body
    assert direct.whole
    assert through.whole
    expected = direct.multiset(without=PER_CONNECTION)
    assert expected == through.multiset(without=PER_CONNECTION)
    for name in ("date", "server"):
        assert 1 >= len(through.values(name))


@pytest.mark.parametrize(
    "script",
    [
        Script(),
        Script(gzip=True),
        Script(chunk_bytes=1),
        Script(chunk_bytes=7, gzip=True),
        Script(close=True),
        Script(status=500),
        Script(insert=": a comment\n\ndata: not json\r\n\r\nevent: odd\nid: 7\n\n"),
        Script(insert="data: {\n\n\n\n:\nretry: 5\n\nno colon at all\n\n"),
    ],
    ids=lambda script: "-".join(script.header()["x-fake-script"].split('"')[1::2]) or "plain",
)
@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
def test_an_answer_passes_as_it_is(
    body: bytes, script: Script, gateway: Gateway, provider_url: str
) -> None:
    """Status, headers and body of a chat answer are the provider's, however it sends them."""
    headers = (*OPENAI, *script.header().items())
    direct, through = both(gateway, provider_url, "POST", "/v1/chat/completions", headers, body)

    assert_same(direct, through)


def test_a_body_without_a_length_passes(gateway: Gateway, provider_url: str) -> None:
    """A body in chunks stays one, also where all of it is there before its head goes out."""
    headers = (*OPENAI, *Script(no_content_length=True).header().items())
    direct, through = both(gateway, provider_url, "POST", "/v1/chat/completions", headers, CHAT)

    assert_same(direct, through)
    assert not through.values("content-length")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PATCH", "PUT", "POST"])
def test_every_method_passes(
    method: str, gateway: Gateway, provider: FakeProvider, provider_url: str
) -> None:
    """Any method reaches the provider as it is, with the body it has, or none."""
    body = b"some bytes" if method in {"PATCH", "PUT", "POST"} else b""
    headers = (("authorization", "Bearer sk-1"),)
    direct, through = both(gateway, provider_url, method, "/echo/thing", headers, body)
    one, other = provider.received

    assert_same(direct, through)
    assert (one.method, one.target, one.body) == (other.method, other.target, other.body)


@pytest.mark.parametrize(
    "target",
    [
        "/echo/models%2Fgpt%20x:generate",
        "/echo/a//b/./c/../d?x=1&x=2&y[]=%5B%5D&z=a+b%20c",
        "/echo/%E6%97%A5%e6%9c%ac?q=%00%7e~!$&'()*,;=:@",
        "/echo?",
        "/echo/?only=query?and=another",
    ],
)
def test_paths_pass_as_they_are(
    target: str, gateway: Gateway, provider: FakeProvider, provider_url: str
) -> None:
    """Percent-encoding, dots, double slashes and queries are nobody's to tidy."""
    both(gateway, provider_url, "GET", target)
    one, other = provider.received

    assert target == one.target == other.target


def test_headers_reach_the_provider_as_they_are(
    gateway: Gateway, provider: FakeProvider, provider_url: str
) -> None:
    """Unknown and repeated headers pass in order; none is added; hop-by-hop ones stay."""
    headers = (
        ("Authorization", "Bearer sk-1"),
        ("X-Twice", "first"),
        ("x-twice", "second"),
        ("X-Empty", ""),
        ("Accept-Encoding", "gzip, br;q=0.5, zstd"),
        ("Cookie", "a=1; b=2"),
        ("User-Agent", "odd/1.0 (x; y)"),
        ("x-long", "v" * 20_000),
        ("TE", "trailers"),
        ("Connection", "keep-alive, X-Only-Here"),
        ("X-Only-Here", "1"),
    )
    both(gateway, provider_url, "GET", "/echo/headers", headers)
    one, other = (
        [(name.lower(), value) for name, value in request.headers if name.lower() != b"host"]
        for request in provider.received
    )
    hop = {b"te", b"connection", b"x-only-here"}

    assert [pair for pair in one if pair[0] not in hop] == other[:-2]
    # Trailers pass, so the next connection is told the same, in words of its own.
    assert [(b"connection", b"TE"), (b"te", b"trailers")] == other[-2:]


def test_repeated_answer_headers_stay_apart(gateway: Gateway, provider_url: str) -> None:
    """Cookies and other repeated headers come back as often as they were sent."""
    _, through = both(gateway, provider_url, "GET", "/echo/headers")

    assert ["a=1; Path=/", "b=2; Path=/"] == through.values("set-cookie")
    assert ["first", "second"] == through.values("x-repeated")


@pytest.mark.parametrize("status", [204, 301, 304, 404, 418])
def test_odd_statuses_pass(status: int, gateway: Gateway, provider_url: str) -> None:
    """Redirects are not followed and answers without a body have none."""
    direct, through = both(gateway, provider_url, "GET", f"/echo/x?status={status}")

    assert_same(direct, through)


def test_request_bytes_pass_as_they_are(
    gateway: Gateway, provider: FakeProvider, provider_url: str
) -> None:
    """Big integers, escapes and blanks of a body reach the provider as they were sent."""
    body = (
        b'{ "model":"m",\t"messages":[{"role":"user","content":"\\u00e9\\/ \xc3\xa9"}],'
        b'"seed":123456789012345678901234567890,"temperature":1.0,"user":"a"}\n '
    )
    both(gateway, provider_url, "POST", "/v1/chat/completions", OPENAI, body)

    assert [body, body] == [request.body for request in provider.received]


@pytest.mark.parametrize("target", ["/v1/chat/completions", "/echo/upload"])
def test_chunked_requests_pass(target: str, gateway: Gateway, provider: FakeProvider) -> None:
    """A body that comes in chunks reaches the provider whole."""
    pieces = [CHAT[:7], CHAT[7:8], CHAT[8:]]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    headers = (*OPENAI, ("transfer-encoding", "chunked"))
    with Caller(gateway.port) as caller:
        answer = caller.ask("POST", "/openai" + target, headers, body)

    assert 200 == answer.status
    assert CHAT == provider.received[0].body


@pytest.mark.parametrize("target", ["/v1/chat/completions", "/echo/upload"])
def test_a_caller_that_waits_is_told_to_go_on(
    target: str, gateway: Gateway, provider: FakeProvider
) -> None:
    """`Expect: 100-continue` is answered at once, and the exchange goes on."""
    headers = (*OPENAI, ("expect", "100-continue"), ("content-length", str(len(CHAT))))
    with Caller(gateway.port) as caller:
        caller.send_request("POST", "/openai" + target, headers)
        told = caller.read(head_only=True)
        caller.send(CHAT)
        answer = caller.read()

    assert told.wire.startswith(b"HTTP/1.1 100 ")
    assert 200 == answer.status
    assert CHAT == provider.received[0].body


def test_twenty_megabytes_pass_both_ways(gateway: Gateway, provider: FakeProvider) -> None:
    """A body of 20 MB, like a request with images, passes there and back."""
    body = CHAT[:-1] + b', "padding": "' + b"x" * 20_000_000 + b'"}'
    with Caller(gateway.port) as caller:
        read = caller.ask("POST", "/openai/v1/chat/completions", OPENAI, body)
        echoed = caller.ask("POST", "/openai/echo/large", OPENAI, body)

    assert (200, 200) == (read.status, echoed.status)
    assert hashlib.sha256(body).digest() == hashlib.sha256(provider.received[0].body).digest()
    assert hashlib.sha256(body).digest() == hashlib.sha256(echoed.body).digest()


def test_a_large_answer_passes(gateway: Gateway, provider: FakeProvider) -> None:
    """A download of 50 MB passes whole."""
    headers = (*OPENAI, *Script(body_bytes=50_000_000).header().items())
    body = b'{"model": "m", "input": "x"}'
    with Caller(gateway.port) as caller:
        answer = caller.ask("POST", "/openai/v1/embeddings", headers, body)

    assert answer.whole
    assert 50_000_000 == len(answer.body)


def test_events_arrive_as_they_are_made(gateway: Gateway, provider: FakeProvider) -> None:
    """What a stalled stream has said so far is with the caller, but for the newest event."""
    headers = (*OPENAI, *Script(stall_after=1500).header().items())
    with Caller(gateway.port) as caller:
        caller.send_request("POST", "/openai/v1/chat/completions", headers, STREAM)
        assert provider.stalled.wait(60)
        early = caller.read(until_bytes=800)
        already = early.whole, early.body[:6]
        provider.release()
        rest = caller.read_on(early)

    assert (False, b"data: ") == already
    assert rest.whole
    assert rest.body.endswith(b"data: [DONE]\n\n")


def test_connections_are_kept(gateway: Gateway) -> None:
    """Several requests, read and not read, go over one connection."""
    with Caller(gateway.port) as caller:
        answers = [
            caller.ask("POST", "/openai/v1/chat/completions", OPENAI, CHAT),
            caller.ask("GET", "/openai/v1/models", OPENAI),
            caller.ask("POST", "/openai/v1/chat/completions", OPENAI, STREAM),
            caller.ask("GET", "/-/health"),
        ]

    assert [200] * 4 == [answer.status for answer in answers]


def test_many_streams_at_once(gateway: Gateway, provider: FakeProvider) -> None:
    """A hundred and fifty stalled streams don't keep the next caller waiting."""
    headers = (*OPENAI, *Script(stall_after=1000).header().items())
    callers = [Caller(gateway.port) for _ in range(150)]
    try:
        for caller in callers:
            caller.send_request("POST", "/openai/v1/chat/completions", headers, STREAM)
        for caller in callers:
            assert caller.read(until_bytes=1).body
        with Caller(gateway.port) as another:
            answer = another.ask("POST", "/openai/v1/chat/completions", OPENAI, CHAT)
        assert gateway.process is not None
        threads = list(Path(f"/proc/{gateway.process.pid}/task").iterdir())
    finally:
        for caller in callers:
            caller.hang_up()

    assert 200 == answer.status
    # Nobody is waited for in a thread of its own.
    assert len(threads) < len(callers)
