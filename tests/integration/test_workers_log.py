"""The log of a gateway with several workers: any of them serves all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.receipt.keys import parse_trust
from gateway.receipt.verify import verify_checkpoint
from gateway.tlog.tile import format_path, tiles_of
from tests.support.foreign import build_go_verifier
from tests.support.provider import fake_provider
from tests.support.proxy import Gateway
from tests.support.workers import CHAT, OPENAI, chat, one_to_each, running

# Two tests that each wait for several processes to start.
WORKERS = 2


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Run a gateway with two workers that has answered a few times."""
    with (
        fake_provider() as (_, url),
        running(tmp_path_factory.mktemp("w"), url, WORKERS) as gateway,
    ):
        with one_to_each(gateway, WORKERS) as callers:
            for caller in callers.values():
                for _ in range(3):
                    assert 200 == caller.ask("POST", CHAT, OPENAI, chat("hello")).status
        yield gateway


def test_a_client_reads_the_log_from_all_workers(house: Gateway, tmp_path: Path) -> None:
    """Checkpoint from one, tiles from the other: together they are the log."""
    trust = parse_trust((house.data / "trust.json").read_bytes())
    folder = tmp_path / "mirror"
    with one_to_each(house, WORKERS) as callers:
        first, second = callers.values()
        note = first.ask("GET", "/-/log/checkpoint").body
        size = verify_checkpoint(note.decode(), trust).size
        for tile in tiles_of(size):
            answer = second.ask("GET", f"/-/log/{format_path(tile)}")
            assert 200 == answer.status
            path = folder / format_path(tile)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(answer.body)
    (folder / "checkpoint").write_bytes(note)

    # Each exchange has two leaves, and each worker's key one.
    assert size >= 2 * 3 * WORKERS + WORKERS
    build_go_verifier(tmp_path).accepts("folder", trust.log, folder)


def test_the_log_is_exported_while_it_is_served(house: Gateway, tmp_path: Path) -> None:
    """A command beside the running gateway writes the same log."""
    done = house.command("ledger", "export", str(tmp_path / "log"))
    key = json.loads((house.data / "trust.json").read_bytes())["log"]

    assert 0 == done.returncode, done.stdout + done.stderr
    build_go_verifier(tmp_path).accepts("folder", key, tmp_path / "log")
