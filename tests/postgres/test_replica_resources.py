"""A resource that one replica's caller had made is known in every other replica at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.ident import ExchangeId, item_id
from gateway.receipt.model import Receipt
from gateway.receipt.statement import read_leaf
from tests.postgres.test_gateways import leaves_of
from tests.support.postgres import Server
from tests.support.replicas import new_replicas, running
from tests.support.sharing import Sharer, sharer
from tests.support.stub.server import stub_server

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def place(server: Server) -> str:
    """Return where the database of all tests here is."""
    return server.new_place()


@pytest.fixture(scope="module")
def callers(
    place: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Sharer, Sharer, list[int]]]:
    """Run two replicas for two principals; yield those, and the replicas' ports."""
    folder = tmp_path_factory.mktemp("replicas")
    with stub_server() as (_, url):
        replicas = new_replicas(folder, url, place, 2, keys="managed")
        with running(replicas) as both:
            ada, bob = sharer(both[0], "ada"), sharer(both[0], "bob")
            yield ada, bob, [one.port for one in both]


def test_every_replica_knows_it_at_once(
    callers: tuple[Sharer, Sharer, list[int]],
) -> None:
    """Whichever replica is asked next, the owner reaches it and nobody else does."""
    ada, bob, ports = callers
    for number in range(6):
        here, there = ports[number % 2], ports[1 - number % 2]
        body = {"model": "gpt-5", "input": f"hello {number}"}
        made = ada.ask("POST", "openai", "/v1/responses", body, port=here)
        assert 200 == made.status, made.body
        path = f"/v1/responses/{made.json['id']}"

        assert 200 == ada.ask("GET", "openai", path, port=there).status
        assert 404 == bob.ask("GET", "openai", path, port=there).status
        assert 404 == bob.ask("GET", "openai", path, port=here).status


def test_many_fetch_one_later_answer(
    callers: tuple[Sharer, Sharer, list[int]], place: str
) -> None:
    """However many replicas are asked for it at the same time, it has one receipt."""
    ada, _, ports = callers
    asked = {"model": "gpt-5", "input": "hello there", "background": True}
    made = ada.ask("POST", "openai", "/v1/responses", asked, port=ports[0])
    path = f"/v1/responses/{made.json['id']}"
    ada.ask("GET", "openai", path, port=ports[1])
    with ThreadPoolExecutor(8) as pool:
        fetched = list(
            pool.map(lambda at: ada.ask("GET", "openai", path, port=ports[at % 2]), range(16))
        )

    assert {200} == {one.status for one in fetched}
    exchange = ExchangeId(made.headers["x-gateway-exchange"])
    items = [
        statement
        for statement in map(read_leaf, leaves_of(place))
        if isinstance(statement, Receipt) and statement.item is not None
    ]
    assert [item_id(exchange, 0)] == [one.exchange for one in items]
