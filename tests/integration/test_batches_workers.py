"""Batches of principals who share a provider's key, through several workers at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from gateway.ident import item_id
from gateway.receipt.model import Receipt
from gateway.receipt.statement import read_leaf
from tests.support.batches import chat_line, exchange_of, jsonl
from tests.support.proxy import Gateway
from tests.support.sharing import Got, Sharer, form, new_shared_gateway, sharer
from tests.support.stub.server import StubServer
from tests.support.workers import kill, leaves_of, start

WORKERS: Final = 2
LINES: Final = 600


@pytest.fixture(scope="module")
def gateway(
    stub: tuple[StubServer, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway of several workers with managed keys."""
    running = new_shared_gateway(
        tmp_path_factory.mktemp("batch-workers"), stub[1], f"workers: {WORKERS}\n"
    )
    try:
        start(running, WORKERS)
        yield running
    finally:
        kill(running)


@pytest.fixture(scope="module")
def ada(gateway: Gateway) -> Sharer:
    """Return who hands in."""
    return sharer(gateway, "ada")


@pytest.fixture(scope="module")
def bob(gateway: Gateway) -> Sharer:
    """Return somebody else of the same project."""
    return sharer(gateway, "bob")


def hand_in(who: Sharer, content: bytes, **headers: str) -> Got:
    """Send a batch's file."""
    kind, body = form(purpose="batch", file=("a.jsonl", content))
    headers |= {"content-type": kind}
    return who.ask("POST", "openai", "/v1/files", body, headers=headers)


def begin(who: Sharer, file: str) -> Got:
    """Begin a batch of that file."""
    asked = {
        "input_file_id": file,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    return who.ask("POST", "openai", "/v1/batches", asked)


def looked_at(who: Sharer, batch: str) -> Any:
    """Look at a batch until it has ended."""
    who.ask("GET", "openai", f"/v1/batches/{batch}")
    return who.ask("GET", "openai", f"/v1/batches/{batch}").json


def items_of(gateway: Gateway, of: str) -> list[Receipt]:
    """Return the receipts of items of an exchange."""
    return [
        one
        for one in map(read_leaf, leaves_of(gateway))
        if isinstance(one, Receipt) and one.item is not None and one.item.of == of
    ]


def test_results_fetched_through_all_workers_are_sealed_once(
    gateway: Gateway, ada: Sharer
) -> None:
    """However many workers hand one file of results out at once, each line has one receipt."""
    file = hand_in(ada, jsonl(chat_line(number) for number in range(LINES))).json["id"]
    begun = begin(ada, file)
    output = looked_at(ada, begun.json["id"])["output_file_id"]
    path = f"/v1/files/{output}/content"
    with ThreadPoolExecutor(8) as pool:
        # The system chooses the worker of each connection: of so many, both have some.
        fetched = list(pool.map(lambda _: ada.ask("GET", "openai", path), range(32)))

    of = exchange_of(begun.headers)
    items = items_of(gateway, of)
    assert {200} == {one.status for one in fetched}
    assert 1 == len({one.body for one in fetched})
    assert LINES == fetched[0].body.count(b"\n")
    assert sorted(item_id(of, number) for number in range(LINES)) == sorted(
        one.exchange for one in items
    )
    exchanges = {one.headers["x-gateway-exchange"] for one in fetched}
    downloads = {
        statement.writer.instance
        for statement in map(read_leaf, leaves_of(gateway))
        if isinstance(statement, Receipt) and statement.exchange in exchanges
    }
    assert WORKERS == len(downloads)
    assert 0 == gateway.command("ledger", "fsck").returncode


def test_a_batch_is_for_who_handed_it_in(gateway: Gateway, ada: Sharer, bob: Sharer) -> None:
    """Report, file, batch and results of one principal are not there for another."""
    handed = hand_in(ada, jsonl(chat_line(number) for number in range(3)))
    begun = begin(ada, handed.json["id"])
    batch = looked_at(ada, begun.json["id"])
    report = f"/-/batches/{handed.headers['x-gateway-exchange']}/lines"

    def read(who: Sharer) -> tuple[int, bytes]:
        status, _, body = gateway.get(report, {"authorization": f"Bearer {who.key}"})
        return status, body

    status, body = read(ada)
    assert 200 == status
    assert [0, 1, 2] == [json.loads(line)["number"] for line in body.splitlines()]
    assert 404 == read(bob)[0]
    assert 401 == gateway.get(report)[0]
    for path in (
        f"/v1/files/{handed.json['id']}",
        f"/v1/files/{handed.json['id']}/content",
        f"/v1/batches/{batch['id']}",
        f"/v1/files/{batch['output_file_id']}/content",
    ):
        assert (404, 200) == (
            bob.ask("GET", "openai", path).status,
            ada.ask("GET", "openai", path).status,
        )
    assert begin(bob, handed.json["id"]).status in (400, 404)
    assert 3 == len(items_of(gateway, begun.headers["x-gateway-exchange"]))


def test_an_auditor_reads_every_report(gateway: Gateway, ada: Sharer) -> None:
    """A key with the role sees what was found of the lines of others."""
    handed = hand_in(ada, jsonl([chat_line(0)]))
    made = gateway.command(
        "key", "new", "--principal", "eve", "--project", "audit", "--role", "auditor"
    )
    report = f"/-/batches/{handed.headers['x-gateway-exchange']}/lines"
    told = {"authorization": f"Bearer {made.stdout.strip().splitlines()[-1]}"}

    assert 200 == gateway.get(report, told)[0]
