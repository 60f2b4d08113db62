"""What was generated and what was written down are the same, however an exchange ends."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass

import pytest

from gateway.receipt.model import Ended, Opening, Receipt
from tests.support.caller import Caller, Headers
from tests.support.ledger import Written, answer_digests
from tests.support.provider import FakeProvider, Script
from tests.support.proxy import Gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One kind of request."""

    target: str
    body: bytes
    headers: Headers = ()


def _chat(*, stream: bool) -> bytes:
    asked = {
        "model": "stub-large",
        "stream": stream,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "What is a ledger, and who keeps it?"}],
    }
    return json.dumps(asked).encode()


OPENAI: Headers = (("authorization", "Bearer sk-1"), ("content-type", "application/json"))
ANTHROPIC: Headers = (*OPENAI, ("anthropic-version", "2026-10-21"))
ASKED = {
    "chat": Asking(
        target="/openai/v1/chat/completions", body=_chat(stream=False), headers=OPENAI
    ),
    "chat-stream": Asking(
        target="/openai/v1/chat/completions", body=_chat(stream=True), headers=OPENAI
    ),
    "messages": Asking(
        target="/anthropic/v1/messages", body=_chat(stream=False), headers=ANTHROPIC
    ),
    "messages-stream": Asking(
        target="/anthropic/v1/messages", body=_chat(stream=True), headers=ANTHROPIC
    ),
    "opaque": Asking(
        target="/openai/v1/embeddings",
        body=b'{"model": "stub-small", "input": ["a", "b", "c"]}',
        headers=OPENAI,
    ),
}


@pytest.fixture
def written(gateway: Gateway) -> Written:
    """Return what is written from now on."""
    return Written(gateway.data)


def conserved(written: Written, provider: FakeProvider, ended: Ended) -> Receipt:
    """Check that each generation has its receipt and opening, and return the one receipt."""
    receipts = written.receipts(len(provider.received))

    assert len(provider.received) == len(receipts) == 1
    assert len(provider.generations) <= len(receipts)
    assert [r.exchange for r in receipts] == [
        opening.exchange for opening in written.statements(Opening)
    ]
    assert ended == receipts[0].ended
    return receipts[0]


def scripted(asking: Asking, script: Script) -> Headers:
    """Return the headers that ask for *script*."""
    return (*asking.headers, *script.header().items())


@pytest.mark.parametrize("asking", ASKED.values(), ids=ASKED)
def test_a_whole_answer_has_its_receipt(
    asking: Asking, gateway: Gateway, provider: FakeProvider, written: Written
) -> None:
    """A generation that ends well has one receipt, over the bytes that the caller has."""
    with Caller(gateway.port) as caller:
        answer = caller.ask("POST", asking.target, asking.headers, asking.body)
    receipt = conserved(written, provider, "complete")

    assert answer.whole
    assert provider.generations[0].whole
    assert provider.generations[0].request_id == receipt.provider.request_id
    assert len(answer.body) == receipt.response_bytes


@pytest.mark.parametrize("asking", ASKED.values(), ids=ASKED)
def test_the_receipt_is_written_before_the_end(
    asking: Asking, gateway: Gateway, provider: FakeProvider, written: Written
) -> None:
    """When the caller has the last byte, the receipt is already durable."""
    with Caller(gateway.port) as caller:
        answer = caller.ask("POST", asking.target, asking.headers, asking.body)
        digests = answer_digests(written.leaves())

    assert answer.header("x-gateway-exchange") in digests


@pytest.mark.parametrize("status", [400, 429, 500, 529])
@pytest.mark.parametrize("asking", ASKED.values(), ids=ASKED)
def test_an_error_of_the_provider_has_its_receipt(
    asking: Asking, status: int, gateway: Gateway, provider: FakeProvider, written: Written
) -> None:
    """A provider that answers with an error leaves a receipt and no generation."""
    with Caller(gateway.port) as caller:
        answer = caller.ask(
            "POST", asking.target, scripted(asking, Script(status=status)), asking.body
        )
    receipt = conserved(written, provider, "complete")

    assert status == answer.status == receipt.provider.status
    assert [] == provider.generations
    assert () == receipt.outputs


@pytest.mark.parametrize("count", [0, 1, 150, 500], ids=lambda n: f"after-{n}")
@pytest.mark.parametrize("asking", ASKED.values(), ids=ASKED)
def test_a_provider_that_breaks_off_looks_broken(
    asking: Asking, count: int, gateway: Gateway, provider: FakeProvider, written: Written
) -> None:
    """An answer that breaks off is never given a clean end, and its receipt says so."""
    script = Script(break_after=min(count, 100) if asking is ASKED["opaque"] else count)
    with Caller(gateway.port) as caller:
        answer = caller.ask("POST", asking.target, scripted(asking, script), asking.body)
    receipt = conserved(written, provider, "cut-short-by-provider")

    assert not answer.whole or answer.status == 502
    assert receipt.error is not None


@pytest.mark.parametrize("asking", ASKED.values(), ids=ASKED)
def test_a_provider_that_lies_about_its_length_looks_broken(
    asking: Asking, gateway: Gateway, provider: FakeProvider, written: Written
) -> None:
    """A body shorter than it was announced is a broken answer."""
    headers = scripted(asking, Script(content_length=1_000_000))
    with Caller(gateway.port) as caller:
        answer = caller.ask("POST", asking.target, headers, asking.body)
    conserved(written, provider, "cut-short-by-provider")

    assert not answer.whole or answer.status == 502


@pytest.mark.parametrize("asking", ["chat-stream", "messages-stream"])
def test_a_stream_that_ends_too_early_is_not_whole(
    asking: str, gateway: Gateway, provider: FakeProvider, written: Written
) -> None:
    """A stream whose HTTP ends cleanly but without the format's own end was cut short."""
    headers = scripted(ASKED[asking], Script(end_after=5))
    with Caller(gateway.port) as caller:
        caller.ask("POST", ASKED[asking].target, headers, ASKED[asking].body)

    conserved(written, provider, "cut-short-by-provider")


@pytest.mark.parametrize("count", [1, 200, 800], ids=lambda n: f"after-{n}")
@pytest.mark.parametrize("asking", ["chat-stream", "messages-stream"])
def test_a_caller_that_hangs_up_on_a_stream_has_a_receipt(
    asking: str, count: int, gateway: Gateway, provider: FakeProvider, written: Written
) -> None:
    """A hang-up at any byte cuts the provider off and is on the receipt."""
    headers = scripted(ASKED[asking], Script(stall_after=1400))
    with Caller(gateway.port) as caller:
        caller.send_request("POST", ASKED[asking].target, headers, ASKED[asking].body)
        caller.read(until_bytes=count)
    receipt = conserved(written, provider, "cut-short-by-caller")

    assert provider.hung_up.wait(60)
    assert receipt.response_bytes <= 1400
    assert not provider.generations[0].whole


@pytest.mark.parametrize("script", [Script(slow_first_byte=True), Script(stall_after=100)])
@pytest.mark.parametrize("asking", ASKED.values(), ids=ASKED)
def test_a_caller_that_gives_up_waiting_has_a_receipt(
    asking: Asking,
    script: Script,
    gateway: Gateway,
    provider: FakeProvider,
    written: Written,
) -> None:
    """A caller that goes while it still waits has its provider hung up on, which stalls on."""
    with Caller(gateway.port) as caller:
        caller.send_request("POST", asking.target, scripted(asking, script), asking.body)
        assert provider.stalled.wait(60)

    assert provider.hung_up.wait(60)
    conserved(written, provider, "cut-short-by-caller")


def test_who_hangs_up_ends_nobody_elses_exchange(
    gateway: Gateway, provider: FakeProvider, written: Written
) -> None:
    """A caller that leaves with its answer in hand doesn't break the next one's exchange."""
    asking = ASKED["chat"]
    count, callers = 60, 4
    wholes: list[bool] = []

    def ask() -> None:
        for _ in range(count):
            with Caller(gateway.port) as caller:
                answer = caller.ask("POST", asking.target, asking.headers, asking.body)
            wholes.append(answer.whole and answer.status == 200)

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    receipts = written.receipts(count * callers)

    assert [True] * count * callers == wholes
    assert {"complete"} == {receipt.ended for receipt in receipts}
    assert len(provider.generations) == len(receipts)


def test_a_provider_that_is_not_there_has_its_receipt(
    gateway: Gateway, provider: FakeProvider, written: Written
) -> None:
    """An exchange whose provider can't be reached is opened and closed all the same."""
    with Caller(gateway.port) as caller:
        answer = caller.ask("POST", "/nobody/v1/chat/completions", OPENAI, _chat(stream=False))
    (receipt,) = written.receipts(1)

    assert 502 == answer.status
    assert b"provider.unreachable" in answer.body
    assert "provider-failed" == receipt.ended
    assert receipt.provider.status is None
