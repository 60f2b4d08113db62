"""Anthropic's batches through the gateway, with the SDK: judged and sealed one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import anthropic
import pytest

from tests.support.batches import (
    TRAINING,
    batching_gateway,
    exchange_of,
    leaves,
    message_request,
    report_of,
    root_over,
    written,
)
from tests.support.proxy import Gateway
from tests.support.stub.server import StubServer

FORBIDDEN: Final[dict[str, Any]] = {
    "tools": [{"name": "t", "input_schema": {"type": "object"}}],
}
"""What the small policy of Anthropic's forbids in a request."""


@pytest.fixture
def server(stub: tuple[StubServer, str], request: pytest.FixtureRequest) -> StubServer:
    """Return the stub, with nothing kept and nothing generated."""
    stub[0].begin(request.node.name)
    return stub[0]


@pytest.fixture(scope="module")
def running(
    stub: tuple[StubServer, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway for all of them."""
    folder = tmp_path_factory.mktemp("batches")
    with batching_gateway(folder, stub[1], forbids={"anthropic": "tools"}) as gateway:
        yield gateway


@pytest.fixture
def gateway(running: Gateway, server: StubServer) -> Gateway:
    """Return the gateway."""
    return running


@pytest.fixture
def since(gateway: Gateway) -> int:
    """Return how many leaves there were before the test."""
    return leaves(gateway)


@pytest.fixture
def sdk(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    """Return an SDK that asks through the gateway."""
    with anthropic.Anthropic(
        api_key="sk-caller", base_url=gateway.anthropic(), max_retries=0
    ) as one:
        yield one


def begin(sdk: anthropic.Anthropic, requests: list[Any], **headers: str) -> Any:
    """Hand requests in; return the raw answer."""
    return sdk.messages.batches.with_raw_response.create(
        requests=requests, extra_headers=headers
    )


def ended(sdk: anthropic.Anthropic, name: str) -> Any:
    """Look at a batch until it has ended."""
    sdk.messages.batches.retrieve(name)
    return sdk.messages.batches.retrieve(name)


def test_each_request_has_a_receipt(
    sdk: anthropic.Anthropic, gateway: Gateway, server: StubServer, since: int
) -> None:
    """Every line of the results is an item of the exchange that handed the requests in."""
    raw = begin(
        sdk,
        [message_request(0), message_request(1), message_request(2, "expire this")],
        **{"x-intended-use": TRAINING},
    )
    batch = ended(sdk, raw.parse().id)
    told = [sdk.messages.batches.results(batch.id) for _ in range(2)]
    results: list[list[Any]] = [[line.to_dict() for line in lines] for lines in told]
    found = written(gateway, since)
    handed = exchange_of(raw.headers)
    report = report_of(gateway, handed)
    (receipt,) = [one for one in found.receipts if one.exchange == handed]
    usage = {
        one["custom_id"]: one["result"]["message"]["usage"]["output_tokens"]
        for one in results[0]
        if one["result"]["type"] == "succeeded"
    }

    found.check_items(count=3)
    assert results[0] == results[1]
    assert batch.results_url.startswith(gateway.url)
    assert receipt.lines is not None
    assert [3, 3, root_over(report)] == [
        receipt.lines.count,
        receipt.lines.forwarded,
        receipt.lines.root,
    ]
    for item in found.items:
        assert item.item is not None
        assert (handed, None) == (item.item.of, item.item.input)
        name = item.item.custom_id or ""
        if name in usage:
            assert item.usage is not None
            assert ("chat", 200, usage[name]) == (
                item.operation,
                item.provider.status,
                item.usage.output_tokens,
            )
            assert item.outputs[0].row is not None
        else:
            assert ("provider-failed", "expired", ()) == (item.ended, item.error, item.outputs)


def test_a_forbidden_request_keeps_all_at_home(
    sdk: anthropic.Anthropic, gateway: Gateway, server: StubServer, since: int
) -> None:
    """Nothing leaves where one request is not permitted."""
    with pytest.raises(anthropic.PermissionDeniedError) as refused:
        begin(sdk, [message_request(0), message_request(1, **FORBIDDEN)])

    (refusal,) = written(gateway, since).refusals
    assert [] == server.received
    assert "line 2: forbid by anthropic:not-this-one" in str(refused.value)
    assert refusal.lines is not None
    assert root_over(report_of(gateway, refusal.exchange)) == refusal.lines.root


@pytest.mark.parametrize("bad", [[0], [2], [1], [0, 1], [0, 2], [1, 2]], ids=str)
def test_only_bad_requests_are_dropped(
    sdk: anthropic.Anthropic, server: StubServer, bad: list[int]
) -> None:
    """The others leave, in a document that is as it was but for the array."""
    asked = [
        message_request(number, **(FORBIDDEN if number in bad else {})) for number in range(3)
    ]
    begin(sdk, asked, **{"x-gateway-lines": "drop"})
    (received,) = server.received
    left = [f"line-{number}" for number in range(3) if number not in bad]

    assert left == [one["custom_id"] for one in json.loads(received.body)["requests"]]
    assert [str(len(received.body))] == received.header("content-length")


@pytest.mark.parametrize(
    "body",
    [
        b'{"requests":[]}',
        b'{"requests":[],"requests":[]}',
        b'{"requests":{}}',
        b'{"requests":[{"custom_id":"a"}]}',
        b"[]",
        b"",
        b'{"requests":[{"custom_id":"a","params":{}}',
    ],
)
def test_what_is_no_batch_is_refused(
    sdk: anthropic.Anthropic, gateway: Gateway, server: StubServer, since: int, body: bytes
) -> None:
    """A document without an array of requests, or with two, never leaves."""
    with pytest.raises(anthropic.BadRequestError) as refused:
        sdk.post("/v1/messages/batches", content=body, cast_to=object)

    assert "batch.refused" in str(refused.value)
    assert [] == server.received
    assert [] == written(gateway, since).openings
