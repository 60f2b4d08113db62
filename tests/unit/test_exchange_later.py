"""Which exchanges an answer may still come for, and what they had asked."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.exchange.forward import origin_of
from gateway.exchange.later import call_again, is_waiting
from gateway.exchange.providers import Provider
from gateway.ident import ExchangeId
from gateway.provider.catalogue import dialect_named
from gateway.receipt.model import ItemFacts, ProviderFacts, Receipt, UsageFacts
from tests.support.evidence import RECEIPT

PROVIDER = Provider(
    id="openai",
    dialect=dialect_named("openai"),
    origin=origin_of("https://api.example/base"),
    base_url="https://api.example/base",
    layers=(),
)
ASKED = {"model": "m", "input": "hello", "background": True}


def receipt(**changed: Any) -> Receipt:
    """Return the receipt of an exchange whose answer is still being made."""
    bare: dict[str, Any] = {"outputs": (), "usage": None, "finish_reasons": ()}
    return msgspec.structs.replace(RECEIPT, **bare | changed)


@pytest.mark.parametrize(
    ("changed", "waits"),
    [
        ({}, True),
        ({"operation": "image"}, True),
        ({"operation": "opaque"}, True),
        ({"ended": "cut-short-by-caller", "outputs": RECEIPT.outputs}, True),
        ({"ended": "cut-short-by-provider"}, True),
        ({"outputs": RECEIPT.outputs}, False),
        ({"usage": UsageFacts(output_tokens=3)}, False),
        ({"error": "server_error"}, False),
        ({"operation": "retrieval"}, False),
        ({"operation": "batch"}, False),
        ({"operation": "file"}, False),
        ({"item": ItemFacts(of=ExchangeId("x-01JD0000000000000000000597"), number=1)}, False),
    ],
)
def test_an_answer_is_waited_for_until_it_has_come_whole(
    changed: dict[str, Any], *, waits: bool
) -> None:
    """Where units or a count came with a whole answer nothing more will come, nor of errors."""
    assert waits == is_waiting(receipt(**changed))


@pytest.mark.parametrize(
    "endpoint",
    [
        "POST https://api.example/base/v1/responses",
        "POST https://elsewhere.example/v1/responses",
    ],
    ids=["here", "at another address"],
)
def test_what_was_asked_is_read_again(endpoint: str) -> None:
    """From the request that was kept, by the route that it took then."""
    facts = ProviderFacts(name="openai", endpoint=endpoint, status=200)
    call = call_again(receipt(provider=facts), json.dumps(ASKED).encode(), PROVIDER)

    assert ("chat", "m", ASKED) == (call.operation, call.model, call.body)
    assert call.found is not None
    assert "/responses" == call.found.route.path


@pytest.mark.parametrize("request_", [None, b"", b"no json", b"{}"])
def test_without_its_request_the_receipt_says_what_was_asked(request_: bytes | None) -> None:
    """What nobody kept, or can read, has no words, and so no row."""
    facts = ProviderFacts(
        name="openai", endpoint="POST https://api.example/base/v1/x", status=200
    )
    call = call_again(receipt(provider=facts), request_, PROVIDER)

    assert ("openai", "chat", "m", None) == (
        call.provider,
        call.operation,
        call.model,
        call.body,
    )
