"""Answers that come later: the first whole one that is fetched has the receipt, once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from gateway.ident import ExchangeId, item_id
from tests.support.caller import Caller
from tests.support.provider import Script
from tests.support.proxy import Gateway
from tests.support.sharing import Sharer, shared_gateway, sharer
from tests.support.stub.server import StubServer

TRAINING = (
    "purpose=train.sft, student=s, student-kind=classifier, audience=internal, competes=?0"
)


@pytest.fixture(scope="module")
def shared(
    stub: tuple[StubServer, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway with managed keys."""
    with shared_gateway(tmp_path_factory.mktemp("later"), stub[1]) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def ada(shared: Gateway) -> Sharer:
    """Return a principal."""
    return sharer(shared, "ada")


@pytest.fixture
def client(shared: Gateway, ada: Sharer) -> Iterator[openai.OpenAI]:
    """Return the official SDK, pointed at the gateway."""
    with openai.OpenAI(base_url=shared.openai(), api_key=ada.key, max_retries=0) as client:
        yield client


def receipt(ada: Sharer, exchange: str) -> dict[str, Any] | None:
    """Return the predicate of the statement that closed *exchange*, or `None`."""
    status, _, body = ada.gateway.get(
        f"/-/receipts/{exchange}", {"authorization": f"Bearer {ada.key}"}
    )
    if status == 404:
        return None
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)["predicate"]
    return found


def item_of(ada: Sharer, exchange: str) -> dict[str, Any] | None:
    """Return the receipt of the one item of *exchange*, or `None`."""
    return receipt(ada, item_id(ExchangeId(exchange), 0))


def begun(client: openai.OpenAI, **more: Any) -> tuple[str, Response]:
    """Ask in the background; return the exchange and the response as it is then."""
    raw = client.responses.with_raw_response.create(
        model="gpt-5", input="hello there", background=True, **more
    )
    return raw.headers["x-gateway-exchange"], raw.parse()


def polled(client: openai.OpenAI, name: str, **more: Any) -> tuple[list[str], Response]:
    """Poll until it is done; return the exchanges, and the response."""
    exchanges = []
    for _ in range(10):
        raw = client.responses.with_raw_response.retrieve(name, **more)
        exchanges.append(raw.headers["x-gateway-exchange"])
        response = raw.parse()
        if response.status not in {"queued", "in_progress"}:
            return exchanges, response
    raise AssertionError("never done")


def test_a_background_response_has_its_receipt_when_it_is_fetched(
    client: openai.OpenAI, ada: Sharer
) -> None:
    """The item has units and usage, the exchange that asked and the fetches have none."""
    exchange, response = begun(client)
    assert "queued" == response.status
    assert item_of(ada, exchange) is None

    fetches, done = polled(client, response.id)
    item = item_of(ada, exchange)

    assert len(fetches) > 1
    assert item is not None
    assert {"of": exchange, "number": 0, "fetched": fetches[-1]} == item["item"]
    assert "chat" == item["operation"]
    assert ["text"] == [unit["kind"] for unit in item["outputs"]]
    assert done.usage is not None
    assert done.usage.output_tokens == item["usage"]["outputTokens"]
    for one in [exchange, *fetches]:
        told = receipt(ada, one)
        assert told is not None
        assert ([], None) == (told.get("outputs", []), told.get("usage"))
    last = receipt(ada, fetches[-1])
    assert last is not None
    assert ("retrieval", None) == (last["operation"], last.get("item"))


def test_a_response_fetched_again_has_no_second_receipt(
    client: openai.OpenAI, ada: Sharer
) -> None:
    """Whoever fetches again gets the bytes, and the ledger has one item."""
    exchange, response = begun(client)
    fetches, _ = polled(client, response.id)
    first = item_of(ada, exchange)
    polled(client, response.id)
    polled(client, response.id)

    assert first is not None
    assert first == item_of(ada, exchange)
    assert first["item"]["fetched"] == fetches[-1]
    leaves = ada.gateway.command("receipt", "list", "--limit", "1000").stdout
    assert 1 == leaves.count(item_id(ExchangeId(exchange), 0))


def test_a_response_that_came_whole_has_no_item(client: openai.OpenAI, ada: Sharer) -> None:
    """What was delivered in the first place has its receipt already."""
    raw = client.responses.with_raw_response.create(model="gpt-5", input="hello there")
    exchange, response = raw.headers["x-gateway-exchange"], raw.parse()
    fetches, _ = polled(client, response.id)

    assert item_of(ada, exchange) is None
    told = receipt(ada, fetches[-1])
    assert told is not None
    assert ([], None) == (told.get("outputs", []), told.get("usage"))


def test_a_stream_that_is_taken_up_again_is_an_item(client: openai.OpenAI, ada: Sharer) -> None:
    """A background stream that its caller left is whole once it is read on from any place."""
    body = {"model": "gpt-5", "input": "hello there", "background": True, "stream": True}
    with Caller(ada.gateway.port) as caller:
        answer = caller.ask(
            "POST",
            "/openai/v1/responses",
            (
                ("authorization", f"Bearer {ada.key}"),
                ("content-type", "application/json"),
                *Script(stall_after=2500).header().items(),
            ),
            json.dumps(body).encode(),
            until_bytes=400,
        )
        exchange = answer.values("x-gateway-exchange")[0]
        name = answer.body.partition(b'"id":"')[2].partition(b'"')[0].decode()

    # Its receipt may not be there yet.
    events = list(client.responses.retrieve(name, stream=True, starting_after=2))
    item, broken = item_of(ada, exchange), receipt(ada, exchange)
    until = time.monotonic() + 60
    while broken is None:
        assert time.monotonic() < until, ada.gateway.log()
        time.sleep(0.02)
        broken = receipt(ada, exchange)

    assert "cut-short-by-caller" == broken["ended"]
    assert "response.completed" == events[-1].type
    assert item is not None
    assert ["text"] == [unit["kind"] for unit in item["outputs"]]


def test_a_cancelled_response_has_its_item(client: openai.OpenAI, ada: Sharer) -> None:
    """Cancelling is the end of what was asked, and says so."""
    exchange, response = begun(client)
    client.responses.cancel(response.id)
    item = item_of(ada, exchange)

    assert item is not None
    assert ["cancelled"] == item["finishReasons"]


def test_the_originals_use_counts(client: openai.OpenAI, ada: Sharer) -> None:
    """Who fetches under another use than was declared changes nothing in what it was for."""
    exchange, response = begun(client)
    polled(client, response.id, extra_headers={"x-intended-use": "purpose=evaluate"})
    item = item_of(ada, exchange)

    assert item is not None
    assert "inference" == item["declared"]["use"]["purpose"]


def test_usage_is_counted_once(client: openai.OpenAI, ada: Sharer) -> None:
    """However often an answer is fetched, its tokens are those of one answer."""

    def tokens() -> float:
        text = ada.gateway.get("/-/metrics")[2].decode()
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith('gateway_tokens_total{direction="output",provider="openai"}')
        )

    before = tokens()
    _, response = begun(client)
    _, done = polled(client, response.id)
    polled(client, response.id)

    assert done.usage is not None
    assert before + done.usage.output_tokens == tokens()


def test_a_deleted_response_stays_its_owners(
    client: openai.OpenAI, shared: Gateway, ada: Sharer
) -> None:
    """The provider says that it is gone to its owner, the gateway says it to anybody else."""
    response = client.responses.create(model="gpt-5", input="hello there")
    client.responses.delete(response.id)
    bob = sharer(shared, "bob")

    assert ada.ask("GET", "openai", f"/v1/responses/{response.id}").problem is None
    other = bob.ask("GET", "openai", f"/v1/responses/{response.id}")
    assert (404, "resource.unknown") == (other.status, other.problem)


def test_a_later_answer_may_be_learned_from(
    client: openai.OpenAI, shared: Gateway, ada: Sharer
) -> None:
    """Under the original's declaration it has a row, of the original's request."""
    words = ("--project", "search", "--owner", "ada", *TRAINING.split(", "))
    declaration = shared.command("use", "declare", *words).stdout.split()[0]
    exchange, response = begun(client, extra_headers={"x-intended-use": declaration})
    polled(client, response.id)
    client.responses.create(model="gpt-5", input="hello there")
    item = item_of(ada, exchange)
    done = shared.command("dataset", "build", "later", "--for", declaration)
    folder = shared.data / "datasets" / "later"

    assert item is not None
    assert item["outputs"][0]["row"]
    assert 0 == done.returncode, done.stdout + done.stderr
    (row,) = (folder / "rows.jsonl").read_text().splitlines()
    assert "hello there" in row
    assert 0 == shared.command("verify", str(folder)).returncode
