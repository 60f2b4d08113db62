"""Addresses in answers lead through the gateway, and nothing else of the answers differs."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.support.provider import Script
from tests.support.proxy import PROVIDER_SECRET, Gateway
from tests.support.sharing import Sharer, shared_gateway, sharer
from tests.support.stub.server import StubServer

BATCH: dict[str, Any] = {
    "requests": [
        {
            "custom_id": "one",
            "params": {
                "model": "claude-sonnet-4-5",
                "max_tokens": 50,
                "messages": [{"role": "user", "content": "hello"}],
            },
        }
    ]
}


@pytest.fixture(scope="module")
def shared(
    stub: tuple[StubServer, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway with managed keys."""
    with shared_gateway(tmp_path_factory.mktemp("addresses"), stub[1]) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def ada(shared: Gateway) -> Sharer:
    """Return a principal."""
    return sharer(shared, "ada")


def receipt(ada: Sharer, exchange: str) -> dict[str, Any]:
    """Return the statement that closed *exchange*."""
    status, _, body = ada.gateway.get(
        f"/-/receipts/{exchange}", {"authorization": f"Bearer {ada.key}"}
    )
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def test_results_come_through_the_gateway(
    shared: Gateway, ada: Sharer, stub: tuple[StubServer, str]
) -> None:
    """The SDK follows `results_url`, and no gateway key reaches the provider."""
    stub[0].begin("addresses")
    with anthropic.Anthropic(
        base_url=shared.anthropic(), api_key=ada.key, max_retries=0
    ) as client:
        batch = client.messages.batches.create(requests=BATCH["requests"])
        while batch.processing_status != "ended":
            batch = client.messages.batches.retrieve(batch.id)
        results = list(client.messages.batches.results(batch.id))

    path = f"/anthropic/v1/messages/batches/{batch.id}/results"
    assert f"{shared.url}{path}" == batch.results_url
    assert ["one"] == [result.custom_id for result in results]
    for received in stub[0].received:
        assert ada.key not in str(received.headers)
        assert [PROVIDER_SECRET] == received.header("x-api-key")


@pytest.mark.parametrize("script", [Script(), Script(gzip=True)], ids=["plain", "gzip"])
def test_only_the_addresss_bytes_change(
    script: Script, ada: Sharer, stub: tuple[StubServer, str]
) -> None:
    """The receipt has both digests, of what the provider sent and of what was passed on."""
    made = ada.ask("POST", "anthropic", "/v1/messages/batches", BATCH).json
    for _ in range(5):
        ada.ask("GET", "anthropic", f"/v1/messages/batches/{made['id']}")

    got = ada.ask(
        "GET",
        "anthropic",
        f"/v1/messages/batches/{made['id']}",
        headers={"accept-encoding": "gzip", **script.header()},
    )
    told = receipt(ada, got.headers["x-gateway-exchange"])
    rewritten = told["predicate"]["rewritten"]
    (body,) = [one for one in told["subject"] if one["name"] == "response.body"]

    theirs = got.body.replace(f"{ada.gateway.url}/anthropic".encode(), stub[1].encode())
    assert theirs != got.body
    sent = gzip.compress(theirs, mtime=0) if script.gzip else theirs
    assert {"sha256": hashlib.sha256(sent).hexdigest(), "bytes": len(sent)} == rewritten
    assert hashlib.sha256(got.body).hexdigest() == body["digest"]["sha256"]
    assert len(got.body) == told["predicate"]["responseBytes"]
    assert "content-encoding" not in got.headers
    assert str(len(got.body)) == got.headers["content-length"]


def test_a_provider_is_asked_for_what_can_be_changed(
    ada: Sharer, stub: tuple[StubServer, str]
) -> None:
    """A list is asked for without an encoding; anything else as its caller would have it."""
    stub[0].begin("encodings")
    said = {"accept-encoding": "gzip, br"}
    ada.ask("GET", "anthropic", "/v1/files", headers=said)
    ada.ask("GET", "anthropic", "/v1/models", headers=said)

    asked = [one.header("accept-encoding") for one in stub[0].received]
    assert [["identity"], ["gzip, br"]] == asked
