"""A resource that one worker's caller had made is known in every other worker at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.ident import ExchangeId, item_id
from gateway.receipt.model import Receipt
from gateway.receipt.statement import read_leaf
from tests.support.sharing import Got, Sharer, new_shared_gateway, sharer
from tests.support.stub.server import StubServer
from tests.support.workers import kill, leaves_of, start

WORKERS = 3


@pytest.fixture(scope="module")
def callers(
    stub: tuple[StubServer, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Sharer, Sharer]]:
    """Run a gateway of several workers for two principals."""
    folder: Path = tmp_path_factory.mktemp("workers")
    gateway = new_shared_gateway(folder, stub[1], f"workers: {WORKERS}\n")
    try:
        start(gateway, WORKERS)
        yield sharer(gateway, "ada"), sharer(gateway, "bob")
    finally:
        kill(gateway)


def writers(sharer_: Sharer, got: list[Got]) -> set[str]:
    """Return the workers that wrote the receipts of answers."""
    found = set()
    for one in got:
        exchange = one.headers["x-gateway-exchange"]
        key = {"authorization": f"Bearer {sharer_.key}"}
        told = json.loads(sharer_.gateway.get(f"/-/receipts/{exchange}", key)[2])
        found.add(told["predicate"]["writer"]["instance"])
    return found


def test_every_worker_knows_it_at_once(callers: tuple[Sharer, Sharer]) -> None:
    """Whichever worker is asked next, the owner reaches it and nobody else does."""
    ada, bob = callers
    answers = []
    for number in range(24):
        body = {"model": "gpt-5", "input": f"hello {number}"}
        made = ada.ask("POST", "openai", "/v1/responses", body)
        assert 200 == made.status, made.body
        path = f"/v1/responses/{made.json['id']}"
        # Each is a connection of its own, and the system gives it to some worker.
        found = ada.ask("GET", "openai", path)
        answers += [made, found]

        assert 200 == found.status
        assert 404 == bob.ask("GET", "openai", path).status

    assert len(writers(ada, answers)) == WORKERS


def test_many_fetch_one_later_answer(callers: tuple[Sharer, Sharer]) -> None:
    """However many workers are asked for it at the same time, it has one receipt."""
    ada, _ = callers
    asked = {"model": "gpt-5", "input": "hello there", "background": True}
    made = ada.ask("POST", "openai", "/v1/responses", asked)
    path = f"/v1/responses/{made.json['id']}"
    ada.ask("GET", "openai", path)
    with ThreadPoolExecutor(12) as pool:
        fetched = list(pool.map(lambda _: ada.ask("GET", "openai", path), range(24)))

    assert {200} == {one.status for one in fetched}
    assert {"completed"} == {one.json["status"] for one in fetched}
    exchange = ExchangeId(made.headers["x-gateway-exchange"])
    items = [
        statement
        for statement in map(read_leaf, leaves_of(ada.gateway))
        if isinstance(statement, Receipt) and statement.item is not None
    ]
    assert [item_id(exchange, 0)] == [one.exchange for one in items]
