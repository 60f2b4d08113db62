"""Bad input gets one line that says who must do what, and leaves nothing half written."""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections.abc import Iterator

import pytest

from gateway.limits import BODY_BYTES_HELD_MAX, DECLARATION_BYTES_MAX
from gateway.receipt.model import Opening
from tests.support.caller import Answer, Caller, Headers
from tests.support.ledger import Written
from tests.support.provider import FakeProvider
from tests.support.proxy import Gateway

OPENAI: Headers = (("authorization", "Bearer sk-1"), ("content-type", "application/json"))
ANTHROPIC: Headers = (*OPENAI, ("anthropic-version", "2026-10-21"))
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
TARGET = "/openai/v1/chat/completions"


@pytest.fixture(autouse=True)
def _nothing_lost(gateway: Gateway, provider: FakeProvider) -> Iterator[None]:
    """After each test no opening stands alone, none without cause, and the door still works."""
    written = Written(gateway.data)
    yield
    written.until(lambda now: not now.unclosed())
    assert len(provider.received) == len(written.statements(Opening))
    assert 200 == asked(gateway).status


def asked(
    gateway: Gateway, target: str = TARGET, headers: Headers = OPENAI, body: bytes = CHAT
) -> Answer:
    """Return the answer to one request."""
    with Caller(gateway.port) as caller:
        return caller.ask("POST", target, headers, body)


def told(answer: Answer) -> tuple[str, str]:
    """Return code and sentence of an answer of the gateway's own, whatever its shape."""
    body = json.loads(answer.body)
    error = body.get("error", body)
    sentence = error.get("message") or error["detail"]
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    return error["code"], sentence


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[1]", b"\xff\xfe", b'{"model": "m"', b"{}" * 2, b"[" * 100_000],
    ids=["empty", "open", "null", "list", "not-utf8", "cut", "two", "deep"],
)
@pytest.mark.parametrize(
    ("target", "headers"),
    [(TARGET, OPENAI), ("/anthropic/v1/messages", ANTHROPIC)],
    ids=["openai", "anthropic"],
)
def test_malformed_json(
    target: str, headers: Headers, body: bytes, gateway: Gateway, provider: FakeProvider
) -> None:
    """A body that can't be read where it must be is refused before anything is opened."""
    answer = asked(gateway, target, headers, body)

    assert 400 == answer.status
    assert "body.malformed" == told(answer)[0]
    assert [] == provider.received


@pytest.mark.parametrize(
    ("use", "code"),
    [
        ("purpose", "declaration.malformed"),
        ("purpose=", "declaration.malformed"),
        ("purpose=conquest", "declaration.malformed"),
        ("purpose=train.sft, pupil=x", "declaration.malformed"),
        ("purpose=train.sft, competes=maybe", "declaration.malformed"),
        ("purpose=train.sft, purpose=inference", "declaration.malformed"),
        ("caf\xe9", "declaration.malformed"),
        ("use-123", "declaration.malformed"),
        ("purpose=" + "x" * DECLARATION_BYTES_MAX, "declaration.malformed"),
        ("use-0123456789abcdef0123", "declaration.unknown"),
    ],
)
def test_a_use_that_cant_be_read(
    use: str, code: str, gateway: Gateway, provider: FakeProvider
) -> None:
    """An unparsable or unknown intended use is refused; nothing is asked under a guess."""
    answer = asked(gateway, headers=(*OPENAI, ("x-intended-use", use)))

    assert 400 == answer.status
    assert code == told(answer)[0]
    assert [] == provider.received


def test_a_use_that_is_said_twice(gateway: Gateway, provider: FakeProvider) -> None:
    """Of two declared uses neither is taken: which one was meant is for the caller to say."""
    twice = (("x-intended-use", "purpose=inference"), ("x-intended-use", "purpose=train.sft"))
    answer = asked(gateway, headers=(*OPENAI, *twice))

    assert 400 == answer.status
    assert "declaration.malformed" == told(answer)[0]
    assert [] == provider.received


@pytest.mark.parametrize("target", ["/", "/nowhere", "/no-such/v1/chat/completions", "/openai"])
def test_an_unknown_provider(target: str, gateway: Gateway) -> None:
    """A path that leads to no provider is a 404 that says how paths begin."""
    answer = asked(gateway, target)

    assert 404 == answer.status
    assert "route.unknown" == told(answer)[0]


@pytest.mark.parametrize(
    "target", ["/-/receipts/x-NOPE", "/-/receipts/x-01M8148RPQNPW664TDJF672M1P/bundle", "/-/no"]
)
def test_an_unknown_receipt(target: str, gateway: Gateway) -> None:
    """What is not there is a problem document, not an empty answer."""
    status, headers, body = gateway.get(target)

    assert 404 == status
    assert "application/problem+json" == headers["content-type"]
    assert "thing.unknown" == json.loads(body)["code"]


def test_a_length_that_promises_too_much(gateway: Gateway, provider: FakeProvider) -> None:
    """A caller that goes before its body is whole is not asked for, and not opened."""
    with Caller(gateway.port) as caller:
        headers = (*OPENAI, ("content-length", str(len(CHAT) + 100)))
        caller.send_request("POST", TARGET, headers, CHAT)

    assert [] == provider.received


@pytest.mark.parametrize("length", ["-1", "abc", "1, 2", "99999999999999999999999"])
def test_a_length_that_is_no_number(
    length: str, gateway: Gateway, provider: FakeProvider
) -> None:
    """A content-length that can't be read is a 400, and the connection is closed."""
    answer = asked(gateway, headers=(*OPENAI, ("content-length", length)))

    assert answer.status in {400, 413}
    assert [] == provider.received


def test_two_lengths_are_refused(gateway: Gateway, provider: FakeProvider) -> None:
    """Length and chunks at once are how requests are smuggled; they are refused."""
    headers = (*OPENAI, ("content-length", "5"), ("transfer-encoding", "chunked"))
    answer = asked(gateway, headers=headers, body=b"0\r\n\r\n")

    assert 400 == answer.status
    assert [] == provider.received


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_body_over_the_limit(
    declared: bool,  # noqa: FBT001 - pytest passes it by name
    gateway: Gateway,
    provider: FakeProvider,
) -> None:
    """A body that must be held and is larger than the named limit is a 413."""
    size = BODY_BYTES_HELD_MAX + 1
    framing = ("content-length", str(size)) if declared else ("transfer-encoding", "chunked")
    with Caller(gateway.port) as caller:
        caller.send_request("POST", TARGET, (*OPENAI, framing))
        if not declared:
            caller.send(b"%x\r\n" % size)
        # Like any client it reads its answer once there is one, which is not kept for ever.
        for _ in range(0, size, 1 << 20):
            if select.select([caller._socket], [], [], 0)[0]:
                break
            caller.send(bytes(1 << 20))
        answer = caller.read()

    assert 413 == answer.status
    assert "body.too_large" == told(answer)[0]
    assert [] == provider.received


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["blank", "short", "version", "tls", "header", "long"],
)
def test_what_is_not_http(wire: bytes, gateway: Gateway, provider: FakeProvider) -> None:
    """Bytes that are no request get a 400 or a closed connection, and harm nobody else."""
    with Caller(gateway.port) as caller:
        with contextlib.suppress(OSError):
            caller.send(wire)
            # Where the end of a head is still waited for, it does not come.
            caller._socket.shutdown(socket.SHUT_WR)
        answer = caller.read()

    assert answer.status in {0, 400, 414, 431, 505}
    assert [] == provider.received


def test_headers_within_the_documented_budget_pass(
    gateway: Gateway, provider: FakeProvider
) -> None:
    """Sixty KiB of headers pass, as OpenAI documents; a megabyte does not."""
    wide = (*OPENAI, *((f"x-wide-{n}", "v" * 6000) for n in range(10)))
    assert 200 == asked(gateway, headers=wide).status

    answer = asked(gateway, headers=(*OPENAI, ("x-wide", "v" * 1_000_000)))
    assert answer.status in {400, 431}
    assert 1 == len(provider.received)
