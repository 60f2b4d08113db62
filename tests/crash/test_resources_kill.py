"""What was made in an exchange that a crash cut off belongs to nobody."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from gateway.receipt.model import Abandonment, Opening, Receipt
from gateway.receipt.statement import read_leaf
from tests.support.provider import Script
from tests.support.sharing import new_shared_gateway, sharer
from tests.support.stub.server import stub_server
from tests.support.workers import leaves_of

pytestmark = pytest.mark.crash


def test_what_no_receipt_tells_of_is_nobodys(tmp_path: Path) -> None:
    """The provider has it, the gateway died before its receipt: 404 for all, and on record."""
    with stub_server() as (stub, url):
        gateway = new_shared_gateway(tmp_path / "gateway", url)
        gateway.start()
        try:
            ada, bob = sharer(gateway, "ada"), sharer(gateway, "bob")
            asked = {"model": "gpt-5", "input": "hello there"}

            def ask() -> None:
                with pytest.raises((OSError, ConnectionError)):
                    ada.ask(
                        "POST",
                        "openai",
                        "/v1/responses",
                        asked,
                        headers=Script(stall_after=20).header(),
                    )

            asking = threading.Thread(target=ask)
            asking.start()
            assert stub.stalled.wait(60)
            gateway.kill()
            asking.join(60)
            stub.release()
            (made,) = stub.stubs["openai"].world.all("response")
            gateway.start()
            before = len(stub.received)

            path = f"/v1/responses/{made['id']}"
            for who in (ada, bob):
                got = who.ask("GET", "openai", path)
                assert (404, "resource.unknown") == (got.status, got.problem)
            assert len(stub.received) == before
            statements = list(map(read_leaf, leaves_of(gateway)))
        finally:
            gateway.kill()

    opened = [one.exchange for one in statements if isinstance(one, Opening)]
    abandoned = [one.exchange for one in statements if isinstance(one, Abandonment)]
    assert opened == abandoned
    assert not any(isinstance(one, Receipt) for one in statements)


def test_an_item_that_was_not_sealed_is_sealed_at_the_next_fetch(tmp_path: Path) -> None:
    """Killed while a later answer comes: nothing of it went out, and nothing is lost."""
    with stub_server() as (stub, url):
        gateway = new_shared_gateway(tmp_path / "gateway", url)
        gateway.start()
        try:
            ada = sharer(gateway, "ada")
            asked = {"model": "gpt-5", "input": "hello there", "background": True}
            made = ada.ask("POST", "openai", "/v1/responses", asked)
            path = f"/v1/responses/{made.json['id']}"
            ada.ask("GET", "openai", path)
            seen: list[bytes] = []

            def fetch() -> None:
                headers = Script(stall_after=200).header()
                with pytest.raises((OSError, ConnectionError)):
                    seen.append(ada.ask("GET", "openai", path, headers=headers).body)

            fetching = threading.Thread(target=fetch)
            fetching.start()
            assert stub.stalled.wait(60)
            gateway.kill()
            fetching.join(60)
            stub.release()
            gateway.start()
            whole = ada.ask("GET", "openai", path)
            again = ada.ask("GET", "openai", path)
            statements = list(map(read_leaf, leaves_of(gateway)))
        finally:
            gateway.kill()

    assert [] == seen
    assert "completed" == json.loads(whole.body)["status"]
    assert whole.body == again.body
    items = [one for one in statements if isinstance(one, Receipt) and one.item is not None]
    assert [made.headers["x-gateway-exchange"]] == [one.item.of for one in items if one.item]
