"""Moving a ledger from a file to PostgreSQL keeps every index, root, text and key."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import LedgerDamagedError
from gateway.ledger.custody.migrate import copy_leaves
from gateway.store import sqlite
from gateway.store.postgres.ledger import PostgresLedger
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.checkpoint import Checkpoint, parse_checkpoint
from gateway.tlog.merkle import Frontier, leaf_hash
from gateway.tlog.note import parse_note
from tests.support.caller import Caller
from tests.support.evidence import ORIGIN
from tests.support.postgres import Server
from tests.support.provider import FakeProvider, fake_provider
from tests.support.proxy import Gateway, running_gateway
from tests.support.workers import CHAT, TRAINING, chat

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def provider_and_url() -> Iterator[tuple[FakeProvider, str]]:
    """Run a provider of our own: others forget what theirs received."""
    with fake_provider() as running_:
        yield running_


def leaves_in(count: int) -> list[bytes]:
    """Return leaves that differ."""
    return [b"leaf %d" % at for at in range(count)]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[SqliteLedger]:
    """Return a ledger in a file."""
    with contextlib.closing(SqliteLedger.create(tmp_path / "ledger.db", ORIGIN)) as ledger:
        leaves = leaves_in(3000)
        for first in (0, 1, 700, 2999):
            stop = {0: 1, 1: 700, 700: 2999, 2999: 3000}[first]
            ledger.append(leaves[first:stop])
        yield ledger


@pytest.fixture
def target(url: str) -> Iterator[PostgresLedger]:
    """Return an empty ledger in a database."""
    with contextlib.closing(PostgresLedger.create(url, ORIGIN)) as ledger:
        yield ledger


def nothing(done: int, total: int) -> None:
    """Show no progress."""


def root_of(ledger: SqliteLedger | PostgresLedger) -> bytes:
    """Return the root of the whole ledger."""
    head = ledger.head()
    return Frontier(head.size, head.frontier).root()


def test_every_leaf_keeps_its_place(source: SqliteLedger, target: PostgresLedger) -> None:
    """After copying both have the same leaves, the same roots; a second time adds nothing."""
    for found in (0, 3000):
        copied = copy_leaves(source, target, (), nothing)

        assert (copied.size, copied.found) == (3000, found)
        assert copied.root == root_of(source) == root_of(target)
        assert list(target.leaves(0, 3000)) == leaves_in(3000)


@pytest.mark.parametrize("there", [1, 1023, 1024, 1025, 2999])
def test_it_goes_on_where_it_was(
    source: SqliteLedger, target: PostgresLedger, there: int
) -> None:
    """What was copied before a crash is compared, and the rest is added."""
    target.append(leaves_in(there))

    copied = copy_leaves(source, target, (), nothing)

    assert copied.found == there
    assert list(target.leaves(0, 3000)) == leaves_in(3000)


def test_another_ledgers_leaves_are_refused(
    source: SqliteLedger, target: PostgresLedger
) -> None:
    """A target that is not a beginning of the source stays as it is."""
    target.append([*leaves_in(5)[:4], b"other"])

    with pytest.raises(LedgerDamagedError, match="other leaves"):
        copy_leaves(source, target, (), nothing)

    assert target.head().size == 5


def test_a_longer_ledger_is_refused(source: SqliteLedger, target: PostgresLedger) -> None:
    """A target that has more leaves than the source stays as it is."""
    target.append(leaves_in(3001))

    with pytest.raises(LedgerDamagedError, match="more than the 3000 here"):
        copy_leaves(source, target, (), nothing)

    assert target.head().size == 3001


def test_a_damaged_source_is_not_moved(source: SqliteLedger, target: PostgresLedger) -> None:
    """A leaf that was edited is noticed by the frontier of its commit."""
    with contextlib.closing(sqlite.connect(source.path)) as connection:
        connection.execute("UPDATE leaf SET leaf = CAST('edited' AS BLOB) WHERE seq = 2100")

    with pytest.raises(LedgerDamagedError, match="another frontier"):
        copy_leaves(source, target, (), nothing)


def test_a_published_checkpoint_that_differs_stops_it(
    source: SqliteLedger, target: PostgresLedger
) -> None:
    """What was published must be what is moved: other roots and larger sizes are refused."""
    for checkpoint, match in (
        (Checkpoint(ORIGIN, 500, bytes(32)), "another root"),
        (Checkpoint(ORIGIN, 3001, bytes(32)), "covers 3001 leaves"),
    ):
        with pytest.raises(LedgerDamagedError, match=match):
            copy_leaves(source, target, (("a checkpoint", checkpoint),), nothing)


def ask(gateway: Gateway) -> str:
    """Ask for something that is kept, and return the exchange."""
    with Caller(gateway.port) as caller:
        answer = caller.ask("POST", CHAT, TRAINING, chat("hello"))
    assert answer.status == 200, answer.body
    return answer.values("x-gateway-exchange")[0]


def test_a_gateway_goes_on_in_the_database(
    server: Server, provider_and_url: tuple[FakeProvider, str], tmp_path: Path
) -> None:
    """Bundles from before verify after; the ledger, its index and its texts are in order."""
    place = server.new_place()
    with running_gateway(tmp_path / "a", provider_and_url[1]) as gateway:
        exchanges = [ask(gateway) for _ in range(3)]
        bundle = gateway.get(f"/-/receipts/{exchanges[0]}/bundle")[2]
        note = gateway.get("/-/log/checkpoint")[2].decode()
        served = gateway.command("ledger", "migrate", "--to", place)
        assert served.returncode == 3
        assert "gateway.running" in served.stderr
        assert gateway.stop() == 0
        kept = shutil.copytree(gateway.data, tmp_path / "kept")

        moved = gateway.command("ledger", "migrate", "--to", place)
        assert moved.returncode == 0, moved.stdout + moved.stderr
        assert f"next: set `ledger: {place}`" in moved.stdout
        for words in (("ledger", "fsck"), ("ledger", "migrate", "--to", place)):
            refused = gateway.command(*words)
            assert refused.returncode == 3
            assert "goes on in PostgreSQL" in refused.stderr

        gateway.settings_file.write_text(f"{gateway.settings}ledger: {place}\n")
        checked = gateway.command("ledger", "fsck")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        gateway.start()
        assert gateway.receipt(exchanges[1])["predicate"]["exchange"] == exchanges[1]
        exchanges.append(ask(gateway))
        later = gateway.get(f"/-/receipts/{exchanges[-1]}/bundle")[2]
        trust = str(gateway.data / "trust.json")
        for name, content in (("before", bundle), ("after", later)):
            file = gateway.folder / f"{name}.json"
            file.write_bytes(content)
            verified = gateway.command("verify", str(file), "--trust", trust)
            assert verified.returncode == 0, verified.stdout + verified.stderr
        gateway.stop()
        assert gateway.command("ledger", "fsck").returncode == 0

    with (
        contextlib.closing(SqliteLedger(kept / "ledger.db")) as old,
        contextlib.closing(PostgresLedger(place)) as new,
    ):
        size = old.head().size
        assert list(new.leaves(0, size)) == list(old.leaves(0, size))
        for ledger in (old, new):
            grown = Frontier()
            checkpoint = parse_checkpoint(parse_note(note)[0])
            for leaf in ledger.leaves(0, checkpoint.size):
                grown.push(leaf_hash(leaf))
            assert grown.root() == checkpoint.root
