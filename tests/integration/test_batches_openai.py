"""OpenAI's batches through the gateway, with the SDK: judged and sealed line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx2
import openai
import pytest

from gateway.ident import item_id
from tests.support.batches import (
    FORBIDDEN,
    TRAINING,
    batching_gateway,
    chat_line,
    exchange_of,
    jsonl,
    leaves,
    report_of,
    root_over,
    written,
)
from tests.support.provider import Script
from tests.support.proxy import Gateway
from tests.support.stub.server import StubServer

ENDPOINT: Final = "/v1/chat/completions"
USE: Final = {"x-intended-use": TRAINING}
DROP: Final = {"x-gateway-lines": "drop"}


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
    with batching_gateway(tmp_path_factory.mktemp("batches"), stub[1]) as gateway:
        yield gateway


@pytest.fixture
def gateway(running: Gateway, server: StubServer) -> Gateway:
    """Return the gateway."""
    return running


@pytest.fixture
def since(gateway: Gateway) -> int:
    """Return how many leaves there were before the test."""
    return leaves(gateway)


def client(gateway: Gateway) -> openai.OpenAI:
    """Return an SDK that asks through *gateway*."""
    return openai.OpenAI(api_key="sk-caller", base_url=gateway.openai(), max_retries=0)


def hand_in(sdk: openai.OpenAI, content: bytes, **headers: str) -> Any:
    """Send a batch's file; return the raw answer."""
    return sdk.files.with_raw_response.create(
        file=("lines.jsonl", content), purpose="batch", extra_headers=headers
    )


def outcome(sdk: openai.OpenAI, file: str, **more: Any) -> Any:
    """Begin a batch, and look at it until it has ended."""
    begun = sdk.batches.create(
        input_file_id=file, endpoint=ENDPOINT, completion_window="24h", **more
    )
    sdk.batches.retrieve(begun.id)
    return sdk.batches.retrieve(begun.id)


def test_each_line_has_a_receipt(gateway: Gateway, server: StubServer, since: int) -> None:
    """Every line of the results is an item of the exchange that began the batch."""
    sdk = client(gateway)
    content = jsonl(chat_line(number) for number in range(7))
    raw = hand_in(sdk, content, **USE)
    batch = outcome(sdk, raw.parse().id)
    results = sdk.files.content(batch.output_file_id).content
    found = written(gateway, since)
    handed = found.of("file")
    (begun,) = [one for one in found.receipts if one.made and one.made[0].kind == "batch"][:1]
    lines = {json.loads(line)["custom_id"]: line for line in results.splitlines()}

    found.check_items(count=7)
    assert content in server.received[0].body
    assert ("7", "7") == (
        raw.headers["x-gateway-lines-judged"],
        raw.headers["x-gateway-lines-forwarded"],
    )
    assert handed.exchange == exchange_of(raw.headers)
    assert handed.lines is not None
    report = report_of(gateway, handed.exchange)
    assert [7, 7, root_over(report)] == [
        handed.lines.count,
        handed.lines.forwarded,
        handed.lines.root,
    ]
    for receipt in found.items:
        item = receipt.item
        assert item is not None
        told = json.loads(lines[f"line-{item.number}"])
        assert (begun.exchange, handed.exchange) == (item.of, item.input)
        assert f"line-{item.number}" == item.custom_id
        assert (told["response"]["status_code"], told["response"]["request_id"]) == (
            receipt.provider.status,
            receipt.provider.request_id,
        )
        assert ("chat", "stub-large", "train.sft", True) == (
            receipt.operation,
            receipt.model.requested,
            receipt.declared.use.purpose,
            receipt.readable,
        )
        assert receipt.usage is not None
        assert told["response"]["body"]["usage"]["total_tokens"] == (
            (receipt.usage.input_tokens or 0) + (receipt.usage.output_tokens or 0)
        )
        (unit,) = receipt.outputs
        assert unit.row is not None


def test_results_are_sealed_once(gateway: Gateway, server: StubServer, since: int) -> None:
    """However often, and however many at once, fetch results: each line has one receipt."""
    sdk = client(gateway)
    file = hand_in(sdk, jsonl(chat_line(number) for number in range(300))).parse().id
    output = outcome(sdk, file).output_file_id

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: client(gateway).files.content(output).content, range(8)))

    assert 1 == len(set(got))
    written(gateway, since).check_items(count=300)
    assert 0 == gateway.command("ledger", "fsck").returncode


def test_a_line_that_is_forbidden_keeps_all_at_home(
    gateway: Gateway, server: StubServer, since: int
) -> None:
    """Nothing leaves where one line is not permitted; the refusal names it and is on record."""
    sdk = client(gateway)
    lines = [chat_line(0), chat_line(1, **FORBIDDEN), chat_line(2)]

    with pytest.raises(openai.PermissionDeniedError) as refused:
        hand_in(sdk, jsonl(lines))

    found = written(gateway, since)
    (refusal,) = found.refusals
    report = report_of(gateway, refusal.exchange)
    told: Any = refused.value.body
    assert [] == server.received
    assert "batch.refused" == refused.value.code
    assert "line 2: forbid by openai:not-this-one" in told["message"]
    assert ["permit", "forbid", "permit"] == [one["effect"] for one in report]
    assert ["openai:not-this-one"] == report[1]["reasons"]
    assert [] == found.openings
    assert refusal.lines is not None
    assert root_over(report) == refusal.lines.root


def test_only_bad_lines_are_dropped(gateway: Gateway, server: StubServer, since: int) -> None:
    """Where the caller says so, the file leaves without the lines that may not, else whole."""
    sdk = client(gateway)
    good = [
        b'{"custom_id":"a", "method":"POST","url":"/v1/completions", "body": {"model":"m"}}\r\n'
    ]
    good.append(b"\n")
    good.append(jsonl([chat_line(5)])[:-1])
    bad = [
        jsonl([chat_line(1, **FORBIDDEN)]),
        b"no json\n",
        jsonl([chat_line(1) | {"custom_id": "a"}]),
    ]
    raw = hand_in(sdk, bad[0] + good[0] + bad[1] + good[1] + bad[2] + good[2], **DROP)
    report = report_of(gateway, exchange_of(raw.headers))
    (received,) = server.received

    assert b"".join(good) + b"\r\n--" in received.body
    assert b"logprobs" not in received.body
    assert [str(len(received.body))] == received.header("content-length")
    assert ("5", "2") == (
        raw.headers["x-gateway-lines-judged"],
        raw.headers["x-gateway-lines-forwarded"],
    )
    assert [False, True, False, False, True] == [one["forwarded"] for one in report]
    assert [0, 1, 2, 4, 5] == [one["number"] for one in report]
    assert ["line.malformed", "line.repeated"] == [
        one["code"] for one in report if "code" in one
    ]


@pytest.mark.parametrize("mode", ["refuse", "drop"])
def test_nothing_that_can_be_read_is_refused(
    gateway: Gateway, server: StubServer, mode: str
) -> None:
    """A file without one good line never leaves, whatever the caller says."""
    sdk = client(gateway)

    with pytest.raises(openai.BadRequestError) as refused:
        hand_in(sdk, b"words\n[1]\n", **{"x-gateway-lines": mode})

    assert "batch.refused" == refused.value.code
    assert [] == server.received
    assert "/lines" in refused.value.message


def test_lines_that_expired_are_recorded(
    gateway: Gateway, server: StubServer, since: int
) -> None:
    """What was never answered is an item with its error, and without units."""
    sdk = client(gateway)
    file = hand_in(sdk, jsonl(chat_line(number) for number in range(6))).parse().id
    batch = outcome(sdk, file, metadata={"expire": "1"})
    sdk.files.content(batch.output_file_id)
    sdk.files.content(batch.error_file_id)
    found = written(gateway, since)
    late = [one for one in found.items if one.ended != "complete"]

    found.check_items(count=6)
    assert 3 == len(late)
    assert {("provider-failed", "batch_expired", None, ())} == {
        (one.ended, one.error, one.provider.status, one.outputs) for one in late
    }


def test_a_file_that_nobody_judged_begins_no_batch(
    gateway: Gateway, server: StubServer, since: int
) -> None:
    """A batch of a file that was not handed in here, or as something else, is refused."""
    sdk = client(gateway)
    other = sdk.files.create(file=("a.jsonl", jsonl([chat_line(1)])), purpose="assistants")

    for name in ("file-elsewhere", other.id):
        with pytest.raises(openai.BadRequestError) as refused:
            sdk.batches.create(input_file_id=name, endpoint=ENDPOINT, completion_window="24h")
        assert "batch.unjudged" == refused.value.code


def test_a_batch_is_for_what_its_file_was(
    gateway: Gateway, server: StubServer, since: int
) -> None:
    """A batch is under the declaration of its file; another one is refused."""
    sdk = client(gateway)
    file = hand_in(sdk, jsonl([chat_line(1)]), **USE).parse().id

    with pytest.raises(openai.BadRequestError) as refused:
        outcome(sdk, file, extra_headers={"x-intended-use": "purpose=inference"})

    assert "batch.declared_otherwise" == refused.value.code
    outcome(sdk, file)
    begun = [one for one in written(gateway, since).receipts if one.operation == "batch"]
    assert "train.sft" == begun[0].declared.use.purpose


def test_parts_are_refused(gateway: Gateway, server: StubServer, since: int) -> None:
    """A batch in parts, no one of which is a line, never begins; other uploads do."""
    sdk = client(gateway)
    asked: dict[str, Any] = {"bytes": 3, "filename": "a", "mime_type": "text/plain"}

    with pytest.raises(openai.BadRequestError) as refused:
        sdk.uploads.create(**asked, purpose="batch")

    assert "batch.in_parts" == refused.value.code
    assert [] == server.received
    assert sdk.uploads.create(**asked, purpose="assistants").id


def test_a_part_of_the_results_is_all_of_them(
    gateway: Gateway, server: StubServer, since: int
) -> None:
    """Who asks for a range of results gets the whole, so that no line passes unseen."""
    sdk = client(gateway)
    file = hand_in(sdk, jsonl(chat_line(number) for number in range(3))).parse().id
    output = outcome(sdk, file).output_file_id
    got = sdk.files.content(output, extra_headers={"range": "bytes=10-20"}).content

    assert 3 == len(got.splitlines())
    assert [] == server.received[-1].header("range")
    written(gateway, since).check_items(count=3)


def test_one_file_may_begin_many_batches(
    gateway: Gateway, server: StubServer, since: int
) -> None:
    """Each batch of a file has items of its own, tied to the same lines."""
    sdk = client(gateway)
    file = hand_in(sdk, jsonl(chat_line(number) for number in range(2))).parse().id
    for _ in range(2):
        sdk.files.content(outcome(sdk, file).output_file_id)
    found = written(gateway, since)
    named = [one.item for one in found.items if one.item is not None]

    found.check_items(count=4)
    assert 2 == len({item.of for item in named})
    assert 1 == len({item.input for item in named})
    assert {item_id(item.of, item.number) for item in named} == {
        one.exchange for one in found.items
    }


def test_what_answers_nothing_passes_unread(
    gateway: Gateway, server: StubServer, since: int
) -> None:
    """Lines that belong to no request pass byte for byte, as one unit that nobody read."""
    sdk = client(gateway)
    file = hand_in(sdk, jsonl(chat_line(number) for number in range(2))).parse().id
    output = outcome(sdk, file).output_file_id
    strange = (
        b'{"custom_id":"nobody","response":null}\n\n'
        b'{"custom_id":"line-1","response":null}\nwords without an end'
    )
    contents = server.stubs["openai"].world.contents
    contents[output] += strange
    got = sdk.files.content(output).content
    found = written(gateway, since)
    fetch = found.of("retrieval")
    unread = strange.replace(b"\n", b"")

    assert contents[output] == got
    found.check_items(count=2)
    assert [("other", len(unread))] == [(unit.kind, unit.bytes) for unit in fetch.outputs]
    assert not fetch.readable


def test_results_in_an_encoding_are_read_beside(
    gateway: Gateway, server: StubServer, since: int
) -> None:
    """Results that come packed pass packed, and each line has its receipt all the same."""
    sdk = client(gateway)
    file = hand_in(sdk, jsonl(chat_line(number) for number in range(700))).parse().id
    output = outcome(sdk, file).output_file_id
    got = sdk.files.content(output, extra_headers=Script(gzip=True).header()).content

    assert server.stubs["openai"].world.contents[output] == got
    written(gateway, since).check_items(count=700)


def test_a_download_that_breaks_off_is_gone_on_with(
    gateway: Gateway, server: StubServer, since: int
) -> None:
    """What came whole before a break is sealed; the next download seals the rest."""
    sdk = client(gateway)
    file = hand_in(sdk, jsonl(chat_line(number) for number in range(600))).parse().id
    output = outcome(sdk, file).output_file_id
    size = len(server.stubs["openai"].world.contents[output])
    broken = Script(break_after=size * 3 // 4).header()
    with pytest.raises((openai.APIError, httpx2.RemoteProtocolError)):
        _ = sdk.files.content(output, extra_headers=broken).content
    gateway.wait_until_idle()
    before = len(written(gateway, since).items)
    sdk.files.content(output)

    assert 0 < before < 600
    written(gateway, since).check_items(count=600)
