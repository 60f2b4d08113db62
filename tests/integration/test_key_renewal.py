"""Laws of receipt keys while a gateway runs: renewed under load, asked to, or killed."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.app.installation import Installation, open_sourced
from gateway.app.receipt_key import renew_receipt_key
from gateway.app.running import Gateway
from gateway.ident import ExchangeId
from gateway.ledger.custody.fsck import fsck
from gateway.log import build_logger
from gateway.receipt.authority import KeyLife
from gateway.receipt.verify import verify_bundle
from gateway.settings import load
from gateway.store.sqlite import SqliteLedger
from tests.support.caller import Answer, Caller, Headers
from tests.support.house import CHAT, RawProvider, completion, eventually, gateway_in, sized
from tests.support.provider import FakeProvider
from tests.support.proxy import Gateway as Process
from tests.support.proxy import new_gateway

TARGET = "/open/v1/chat/completions"
JSON: Headers = (("content-type", "application/json"), ("authorization", "Bearer sk-1"))
LOG = build_logger("error", io.StringIO())


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Return a gateway in this process, before a provider on a plain socket."""
    async with RawProvider().listening() as provider:
        provider.steps = [sized(completion("good day"))]
        async with gateway_in(tmp_path, provider.url) as running:
            yield running


async def ask(gateway: Gateway) -> Answer:
    """Ask over a connection of its own."""

    def talk() -> Answer:
        with Caller(gateway.port) as caller:
            return caller.ask("POST", TARGET, JSON, json.dumps(CHAT).encode())

    return await asyncio.to_thread(talk)


def receipt_keys(house: Installation) -> list[KeyLife]:
    """Return what the ledger says of receipt keys."""
    lives = house.reader.authority(house.keyring.trust).lives
    return [life for life in lives if life.role == "receipt"]


async def test_keys_change_under_load(gateway: Gateway) -> None:
    """However often the key is renewed while exchanges end, each has evidence that verifies."""
    house = gateway.installation
    asked: list[ExchangeId] = []
    claims, done = house.keyring.claims, asyncio.Event()

    async def keep_asking() -> None:
        while not done.is_set():
            answer = await ask(gateway)
            assert answer.status == 200
            asked.append(ExchangeId(answer.header("x-gateway-exchange") or ""))

    asking = [asyncio.ensure_future(keep_asking()) for _ in range(4)]
    for _ in range(5):
        held = house.keyring.process.held
        assert held is not None
        claims.ask_for_another(held.signer.keyid)
        assert await renew_receipt_key(house, LOG)
        answered = len(asked)
        await eventually(lambda: len(asked) >= answered + 2)  # noqa: B023  asked at once
    done.set()
    await asyncio.gather(*asking)
    note = await asyncio.to_thread(house.sequencer.checkpoint_now)

    assert len(asked) >= 10
    for exchange in asked:
        verify_bundle(house.reader.bundle(exchange, note), house.keyring.trust)
    lives = receipt_keys(house)
    assert [life.reason for life in lives] == ["superseded"] * 5 + [None]
    report = await asyncio.to_thread(fsck, house.store, house.keyring.trust)
    assert [] == [str(one) for one in report.findings]


@pytest.fixture
def process(tmp_path: Path, provider: FakeProvider, provider_url: str) -> Iterator[Process]:
    """Return a gateway's process, not started."""
    made = new_gateway(tmp_path, provider_url)
    yield made
    made.kill()


@contextlib.contextmanager
def opened(process: Process) -> Iterator[Installation]:
    """Open a gateway's installation beside it, for reading."""
    house = open_sourced(load(process.settings_file, environment={}))
    try:
        yield house
    finally:
        house.close()


def test_a_running_gateway_takes_another_key_when_asked(process: Process) -> None:
    """`key rotate receipt` waits until the key is another, and the old one has ended."""
    process.start()
    done = process.command("key", "rotate", "receipt")
    assert done.returncode == 0, done.stderr
    assert "1 processes took another key" in done.stdout
    with opened(process) as house:
        old, new = receipt_keys(house)
        assert (old.reason, new.until) == ("superseded", None)
        revoke = ("key", "revoke", old.keyid, "--because", "stolen", "--since", "2")
        assert process.command(*revoke).returncode == 0
        assert process.command("key", "revoke", new.keyid, "--because", "lost").returncode == 3
        assert process.command("key", "rotate", "manifest").returncode == 3
    process.stop()
    with opened(process) as house:
        assert [life.reason for life in receipt_keys(house)] == ["stolen", "process-ended"]
    check(process)


def test_a_key_whose_gateway_was_killed_ends_at_the_next_start(process: Process) -> None:
    """Who was killed can't say that its key has ended; its successor does."""
    process.start()
    process.kill()
    with opened(process) as house:
        (life,) = receipt_keys(house)
        assert life.until is None
    process.start()
    process.stop()
    with opened(process) as house:
        assert {life.reason for life in receipt_keys(house)} == {"process-ended"}
    assert not list((process.data / "signing").iterdir())
    check(process)


def check(process: Process) -> None:
    """Check every leaf of a stopped gateway."""
    with opened(process) as house:
        trust = house.keyring.trust
    with contextlib.closing(SqliteLedger(process.data / "ledger.db")) as store:
        assert [] == [str(one) for one in fsck(store, trust).findings]
