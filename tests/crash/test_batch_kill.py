"""A gateway is killed in the middle of batches; no line is lost, and none is sealed twice."""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from gateway.receipt.model import Abandonment, Opening, Receipt, Refusal
from tests.support.batches import (
    batching_gateway,
    chat_line,
    jsonl,
    report_of,
    written,
)
from tests.support.proxy import Gateway
from tests.support.stub.server import StubServer, stub_server

pytestmark = pytest.mark.crash

LINES = 400
KILLS = 8


@pytest.fixture
def stub() -> Iterator[tuple[StubServer, str]]:
    """Run a stub of one's own."""
    with stub_server() as running:
        yield running


@pytest.fixture
def gateway(stub: tuple[StubServer, str], tmp_path: Path) -> Iterator[Gateway]:
    """Run a gateway before it."""
    with batching_gateway(tmp_path, stub[1]) as running:
        yield running


def client(gateway: Gateway) -> openai.OpenAI:
    """Return an SDK that asks through *gateway*, once."""
    return openai.OpenAI(api_key="sk-caller", base_url=gateway.openai(), max_retries=0)


def killed_after(gateway: Gateway, after_s: float) -> threading.Thread:
    """Kill *gateway* that much later, whatever it does."""

    def kill() -> None:
        time.sleep(after_s)
        gateway.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def again(gateway: Gateway) -> None:
    """Start *gateway*; nothing that was put aside may have outlived it."""
    spool = gateway.data / "spool"

    assert not spool.exists() or not list(spool.iterdir())
    gateway.start()


def check(gateway: Gateway) -> None:
    """Insist that each opening has one end, and that the ledger is clean."""
    statements = written(gateway).statements
    openings = [one.exchange for one in statements if isinstance(one, Opening)]
    ends = [
        one.exchange
        for one in statements
        if isinstance(one, Abandonment | Refusal)
        or (isinstance(one, Receipt) and one.item is None)
    ]

    assert sorted(openings) == sorted(set(ends))
    assert len(ends) == len(set(ends))
    assert 0 == gateway.command("ledger", "fsck").returncode


def test_a_body_that_was_put_aside_is_gone(gateway: Gateway) -> None:
    """Killed while a batch comes in, nothing of it is left, and nothing was asked."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    connection.putrequest("POST", "/openai/v1/files")
    connection.putheader("authorization", "Bearer sk-caller")
    connection.putheader("content-type", "multipart/form-data; boundary=xyz")
    connection.putheader("content-length", "10000000")
    connection.endheaders()
    head = b'--xyz\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    part = b'--xyz\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    connection.send(
        head + part + jsonl(chat_line(number) for number in range(20_000))[:3_000_000]
    )
    time.sleep(0.5)
    gateway.kill()
    connection.close()
    again(gateway)

    assert [] == written(gateway).openings
    check(gateway)


def test_uploads_survive_or_never_were(gateway: Gateway, stub: tuple[StubServer, str]) -> None:
    """Killed at any moment of an upload: it is on record, or the provider never saw it."""
    chance = random.Random(7)
    content = jsonl(chat_line(number) for number in range(LINES))
    for _ in range(KILLS):
        before = len(stub[0].received)
        killer = killed_after(gateway, chance.uniform(0.0, 0.5))
        with contextlib.suppress(openai.APIError), client(gateway) as sdk:
            sdk.files.create(file=("a.jsonl", content), purpose="batch")
        killer.join()
        again(gateway)
        opened = [one for one in written(gateway).openings if one.operation == "file"]

        assert len(opened) >= sum(1 for _ in stub[0].received[before:])
    check(gateway)


def test_results_are_sealed_once_however_often_it_dies(
    gateway: Gateway, stub: tuple[StubServer, str]
) -> None:
    """Killed while results are fetched, again and again: each line has one receipt at the end.

    What a caller got of a line whole has its receipt, whatever came then.
    """
    chance = random.Random(11)
    with client(gateway) as sdk:
        file = sdk.files.create(
            file=("a.jsonl", jsonl(chat_line(number) for number in range(LINES))),
            purpose="batch",
        )
        begun = sdk.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        sdk.batches.retrieve(begun.id)
        output = sdk.batches.retrieve(begun.id).output_file_id
    for _ in range(KILLS):
        killer = killed_after(gateway, chance.uniform(0.0, 0.4))
        got = fetched(gateway, f"/openai/v1/files/{output}/content")
        killer.join()
        sealed = {one.item.custom_id for one in written(gateway).items if one.item}
        whole = {line.split(b'"custom_id":"')[1].split(b'"')[0].decode() for line in got}

        assert whole <= sealed
        again(gateway)
    last = fetched(gateway, f"/openai/v1/files/{output}/content")

    assert LINES == len(last)
    written(gateway).check_items(count=LINES)
    handed = next(one for one in written(gateway).receipts if one.lines is not None)
    assert LINES == len(report_of(gateway, handed.exchange))
    check(gateway)


def fetched(gateway: Gateway, path: str) -> list[bytes]:
    """Return the whole lines that came before the end, or the break."""
    got = b""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path, headers={"authorization": "Bearer sk-caller"})
        answer = connection.getresponse()
        while piece := answer.read1(1000):
            got += piece
    connection.close()
    lines = got.split(b"\n")
    return [line for line in lines[:-1] if line.startswith(b'{"id":"batch_req')]
