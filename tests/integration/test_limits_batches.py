"""Keys and limits bind every line of a batch, when it is handed in and when it begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import openai
import pytest

from tests.support.proxy import Gateway, running_gateway
from tests.support.stub.server import StubServer

pytestmark = pytest.mark.usefixtures("one_day")

ENDPOINT: Final = "/v1/chat/completions"
PRICES: Final = """\
currency: EUR
as_of: 2026-11-22
models:
  - {provider: openai, model: stub-large*, input: 1, output: 1}
"""
LIMITS: Final = """\
prices: prices.yaml
limits:
  - {project: few, requests: {day: 10}}
  - {project: short, tokens: {day: 5000}}
  - {project: money, money: {day: 1}}
  - {project: dear, money: {day: 1}}
"""


@pytest.fixture
def server(stub: tuple[StubServer, str], request: pytest.FixtureRequest) -> StubServer:
    """Return the stub, with nothing kept and nothing generated."""
    stub[0].begin(request.node.name)
    return stub[0]


@pytest.fixture(scope="module")
def gateway(
    stub: tuple[StubServer, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway with limits."""
    folder = tmp_path_factory.mktemp("limited-batches")
    (folder / "prices.yaml").write_text(PRICES)
    with running_gateway(
        folder, stub[1], keys="managed", names=("openai",), more=LIMITS
    ) as running:
        yield running


def sdk_of(gateway: Gateway, project: str, *words: str) -> openai.OpenAI:
    """Return an SDK with a new key of *project*."""
    done = gateway.command("key", "new", "--principal", "ada", "--project", project, *words)
    assert done.returncode == 0, done.stderr
    return openai.OpenAI(api_key=done.stdout.strip(), base_url=gateway.openai(), max_retries=0)


def line(number: int, model: str = "stub-large", **more: Any) -> dict[str, Any]:
    """Return one line."""
    body = {"model": model, "messages": [{"role": "user", "content": f"say {number}"}]}
    return {
        "custom_id": f"line-{number}",
        "method": "POST",
        "url": ENDPOINT,
        "body": body | more,
    }


def hand_in(sdk: openai.OpenAI, *lines: dict[str, Any], **headers: str) -> Any:
    """Send a batch's file."""
    content = b"".join(json.dumps(one).encode() + b"\n" for one in lines)
    return sdk.files.create(
        file=("lines.jsonl", content), purpose="batch", extra_headers=headers
    )


def begin(sdk: openai.OpenAI, file: str) -> Any:
    """Begin a batch of that file."""
    return sdk.batches.create(input_file_id=file, endpoint=ENDPOINT, completion_window="24h")


def used(gateway: Gateway, project: str) -> dict[str, Any]:
    """Return what is used of the limits of *project*."""
    done = gateway.command("limit", "show", "--json", "--project", project)
    rows = [json.loads(one) for one in done.stdout.splitlines()]
    return {row["measure"]: row["used"] for row in rows}


def begun(server: StubServer) -> int:
    """Return how many batches the provider was asked to begin."""
    return sum(
        one.method == "POST" and one.target.endswith("/batches") for one in server.received
    )


def test_every_line_counts_as_a_request_each_time_it_begins(
    gateway: Gateway, server: StubServer
) -> None:
    """A batch of four is five requests with its own; begun again it is so again."""
    sdk = sdk_of(gateway, "few")
    file = hand_in(sdk, *(line(number) for number in range(4))).id
    assert {"requests": 1} == used(gateway, "few")
    begin(sdk, file)

    assert {"requests": 6} == used(gateway, "few")
    with pytest.raises(openai.RateLimitError) as caught:
        begin(sdk, file)
    assert "limit.reached" == caught.value.code
    assert 1 == begun(server)
    assert {"requests": 6} == used(gateway, "few")


def test_what_lines_may_come_to_is_held(gateway: Gateway, server: StubServer) -> None:
    """Tokens of all lines are held before a batch begins, until results say what came."""
    sdk = sdk_of(gateway, "short")
    file = hand_in(sdk, *(line(number, max_tokens=100) for number in range(10))).id
    batch = begin(sdk, file)
    held = used(gateway, "short")["tokens"]

    assert 1000 < held < 3500
    endless = hand_in(sdk, line(1)).id
    with pytest.raises(openai.RateLimitError):
        begin(sdk, endless)
    assert held == used(gateway, "short")["tokens"]
    assert 1 == begun(server)
    sdk.batches.retrieve(batch.id)
    done = sdk.batches.retrieve(batch.id)
    fetched = [sdk.files.content(done.output_file_id or "").text for _ in range(3)]
    results = fetched[0].splitlines()
    told = [json.loads(one)["response"]["body"]["usage"]["total_tokens"] for one in results]
    assert 10 == len(told)
    assert sum(told) <= used(gateway, "short")["tokens"] < sum(told) + 10


def test_a_line_without_a_price_keeps_a_batch_from_beginning(
    gateway: Gateway, server: StubServer
) -> None:
    """Where money is limited each model of a batch needs a price."""
    sdk = sdk_of(gateway, "money")
    priced = hand_in(sdk, line(1, max_tokens=50)).id
    begin(sdk, priced)
    strange = hand_in(sdk, line(1, max_tokens=50), line(2, "stub-small", max_tokens=50)).id
    with pytest.raises(openai.PermissionDeniedError) as caught:
        begin(sdk, strange)

    assert "price.missing" == caught.value.code
    assert 1 == begun(server)
    assert 0 < float(used(gateway, "money")["money"]) < 0.001


def test_what_lines_may_cost_is_held(gateway: Gateway, server: StubServer) -> None:
    """A batch that may cost more than is left never begins; what began is paid as it came."""
    sdk = sdk_of(gateway, "dear")
    dear = hand_in(sdk, *(line(number, max_tokens=200_000) for number in range(6))).id
    with pytest.raises(openai.RateLimitError) as caught:
        begin(sdk, dear)
    assert "limit.reached" == caught.value.code
    assert 0 == begun(server)
    assert 0 == float(used(gateway, "dear")["money"])
    batch = begin(sdk, hand_in(sdk, *(line(at, max_tokens=50_000) for at in range(6))).id)
    held = float(used(gateway, "dear")["money"])
    sdk.batches.retrieve(batch.id)
    done = sdk.batches.retrieve(batch.id)
    paid, results = [], list[str]()
    for _ in range(2):
        results = sdk.files.content(done.output_file_id or "").text.splitlines()
        paid.append(float(used(gateway, "dear")["money"]))
    tokens = sum(
        json.loads(one)["response"]["body"]["usage"]["total_tokens"] for one in results
    )

    assert 0.3 <= held < 1
    assert paid[0] == paid[1]
    assert tokens / 1e6 <= paid[0] < tokens / 1e6 + 0.0001


def test_a_line_that_the_key_is_not_for_does_not_leave(
    gateway: Gateway, server: StubServer
) -> None:
    """A key for some models hands in no line for another, and begins none that others did."""
    wide, narrow = sdk_of(gateway, "free"), sdk_of(gateway, "free", "--model", "stub-l*")
    lines = line(1), line(2, "stub-small")
    with pytest.raises(openai.APIStatusError) as caught:
        hand_in(narrow, *lines)
    assert caught.value.status_code in (400, 403)
    assert "stub-small" in str(caught.value)
    assert [] == server.received
    file = hand_in(wide, *lines).id
    with pytest.raises(openai.PermissionDeniedError) as other:
        begin(narrow, file)

    assert "key.not_allowed" == other.value.code
    assert 0 == begun(server)
    begin(wide, file)
    begin(narrow, hand_in(narrow, *lines, **{"x-gateway-lines": "drop"}).id)
    assert 2 == begun(server)
