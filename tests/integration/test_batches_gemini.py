"""Gemini's batches through the gateway, with the SDK: inline, and by files."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from google import genai
from google.genai import errors, types

from tests.support.batches import (
    TRAINING,
    batching_gateway,
    leaves,
    report_of,
    root_over,
    written,
)
from tests.support.proxy import Gateway
from tests.support.stub.server import StubServer

MODEL: Final = "gemini-2.5-flash"


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
    with batching_gateway(folder, stub[1], forbids={"gemini": "tools"}) as gateway:
        yield gateway


@pytest.fixture
def gateway(running: Gateway, server: StubServer) -> Gateway:
    """Return the gateway."""
    return running


@pytest.fixture
def since(gateway: Gateway) -> int:
    """Return how many leaves there were before the test."""
    return leaves(gateway)


def client(gateway: Gateway, **headers: str) -> genai.Client:
    """Return an SDK that asks through *gateway*."""
    options = types.HttpOptions(base_url=f"{gateway.url}/gemini", headers=headers)
    return genai.Client(api_key="key-caller", http_options=options)


def asking(number: int, *, forbidden: bool = False) -> types.InlinedRequest:
    """Return an inline request."""
    tools = [types.Tool(function_declarations=[types.FunctionDeclaration(name="t")])]
    given: list[Any] = [*tools]
    config = types.GenerateContentConfig(tools=given) if forbidden else None
    return types.InlinedRequest(
        contents=f"What is the square of {number}?",
        metadata={"key": f"line-{number}"},
        config=config,
    )


def in_file(number: int) -> dict[str, Any]:
    """Return a line of a file."""
    said = [{"role": "user", "parts": [{"text": f"What is the square of {number}?"}]}]
    return {"key": f"line-{number}", "request": {"contents": said}}


def ended(sdk: genai.Client, name: str | None) -> Any:
    """Look at a batch until it has ended."""
    assert name is not None
    sdk.batches.get(name=name)
    return sdk.batches.get(name=name)


def test_each_inline_request_has_a_receipt(
    gateway: Gateway, server: StubServer, since: int
) -> None:
    """Every answer that a batch holds itself is an item, once, however often it is read."""
    sdk = client(gateway, **{"x-intended-use": TRAINING})
    begun = sdk.batches.create(model=MODEL, src=[asking(number) for number in range(3)])
    told = ended(sdk, begun.name)
    again = ended(sdk, begun.name)
    found = written(gateway, since)
    receipt = found.of("batch")
    report = report_of(gateway, receipt.exchange)

    found.check_items(count=3)
    assert told == again
    assert 3 == len(told.dest.inlined_responses)
    assert receipt.lines is not None
    assert [3, 3, root_over(report)] == [
        receipt.lines.count,
        receipt.lines.forwarded,
        receipt.lines.root,
    ]
    for item in found.items:
        assert item.item is not None
        answer = told.dest.inlined_responses[item.item.number].response
        assert f"line-{item.item.number}" == item.item.custom_id
        assert (receipt.exchange, None) == (item.item.of, item.item.input)
        assert ("chat", MODEL, "train.sft") == (
            item.operation,
            item.model.requested,
            item.declared.use.purpose,
        )
        assert item.usage is not None
        assert answer.usage_metadata.candidates_token_count == item.usage.output_tokens
        assert item.outputs[0].row is not None


def test_dropped_requests_leave_the_others_tied(
    gateway: Gateway, server: StubServer, since: int
) -> None:
    """An answer is tied to the request it answers, though others before it stayed."""
    sdk = client(gateway, **{"x-gateway-lines": "drop"})
    asked: list[Any] = [asking(number, forbidden=number in {0, 2}) for number in range(4)]
    begun = sdk.batches.create(model=MODEL, src=asked)
    ended(sdk, begun.name)
    found = written(gateway, since)

    found.check_items(count=2)
    assert [1, 3] == [one.item.number for one in found.items if one.item]
    assert ["line-1", "line-3"] == [one.item.custom_id for one in found.items if one.item]


def test_a_forbidden_request_keeps_all_at_home(
    gateway: Gateway, server: StubServer, since: int
) -> None:
    """Nothing leaves where one request is not permitted."""
    sdk = client(gateway)
    with pytest.raises(errors.ClientError) as refused:
        sdk.batches.create(model=MODEL, src=[asking(0), asking(1, forbidden=True)])

    assert 403 == refused.value.code
    assert "line 2: forbid by gemini:not-this-one" in str(refused.value)
    assert [] == server.received
    assert 1 == len(written(gateway, since).refusals)


def test_each_line_of_a_file_has_a_receipt(
    gateway: Gateway, server: StubServer, since: int, tmp_path: Path
) -> None:
    """Lines of an uploaded file are judged, and lines of the result file are items."""
    sdk = client(gateway, **{"x-intended-use": TRAINING})
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(in_file(number)) + "\n" for number in range(4)))
    file = sdk.files.upload(file=str(path), config=types.UploadFileConfig(mime_type="jsonl"))
    begun = sdk.batches.create(model=MODEL, src=file.name or "")
    batch = ended(sdk, begun.name)
    results = sdk.files.download(file=batch.dest.file_name)
    sdk.files.download(file=batch.dest.file_name)
    found = written(gateway, since)
    (handed,) = [one for one in found.receipts if one.lines is not None]
    begin = found.of("batch")

    found.check_items(count=4)
    assert 4 == len(results.splitlines())
    assert "train.sft" == handed.declared.use.purpose
    for item in found.items:
        assert item.item is not None
        assert (begin.exchange, handed.exchange) == (item.item.of, item.item.input)
        assert ("chat", MODEL) == (item.operation, item.model.requested)
        assert item.outputs[0].row is not None


def test_a_file_in_pieces_leaves_as_one(
    gateway: Gateway, server: StubServer, since: int
) -> None:
    """Pieces of an upload wait for the last, and all leave together once they were judged."""
    content = b"".join(json.dumps(in_file(number)).encode() + b"\n" for number in range(40))
    common = {"x-goog-upload-header-content-type": "application/jsonl"}
    start = _post(
        gateway,
        "/gemini/upload/v1beta/files",
        b"{}",
        {
            **common,
            "x-goog-api-key": "key-caller",
            "x-goog-upload-protocol": "resumable",
            "x-goog-upload-command": "start",
        },
    )
    where = start[1]["x-goog-upload-url"].partition(gateway.url)[2]
    got = []
    for at, stop in ((0, 1000), (1000, 2500), (2500, len(content))):
        command = "upload, finalize" if stop == len(content) else "upload"
        told = {"x-goog-upload-command": command, "x-goog-upload-offset": str(at)}
        got.append(_post(gateway, where, content[at:stop], {**common, **told}))
    received = server.received[1:]

    assert [200, 200, 200] == [status for status, _, _ in got]
    assert "active" == got[0][1]["x-goog-upload-status"]
    assert [content] == [one.body for one in received]
    assert json.loads(got[2][2])["file"]["name"]
    (handed,) = [one for one in written(gateway, since).receipts if one.lines is not None]
    assert handed.lines is not None
    assert 40 == handed.lines.count


def test_a_file_that_nobody_judged_begins_no_batch(
    gateway: Gateway, server: StubServer, since: int, tmp_path: Path
) -> None:
    """A batch of a file that was uploaded as something else is refused."""
    sdk = client(gateway)
    path = tmp_path / "lines.txt"
    path.write_text(json.dumps(in_file(0)) + "\n")
    file = sdk.files.upload(
        file=str(path), config=types.UploadFileConfig(mime_type="text/plain")
    )

    with pytest.raises(errors.ClientError) as refused:
        sdk.batches.create(model=MODEL, src=file.name or "")

    assert "nobody judged" in str(refused.value)


def _post(
    gateway: Gateway, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=120)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, told, answer.read()
    finally:
        connection.close()
