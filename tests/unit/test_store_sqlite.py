"""Laws of the embedded ledger."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from gateway.errors import LedgerDamagedError, LedgerMissingError, LedgerUnwellError
from gateway.store import sqlite
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.merkle import Frontier, leaf_hash, root_of
from gateway.tlog.tile import TILE_WIDTH
from tests.support.store import brittle_disk


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    """Return an empty ledger."""
    with contextlib.closing(SqliteLedger.create(tmp_path / "ledger.db", "o.example/x")) as one:
        yield one


def some(count: int, first: int = 0) -> list[bytes]:
    """Return leaves that differ."""
    return [
        b"leaf %d " % number + bytes(number % 700) for number in range(first, first + count)
    ]


def root_in(ledger: SqliteLedger) -> bytes:
    """Return the root that the head folds to."""
    head = ledger.head()
    return Frontier(head.size, head.frontier).root()


def test_leaves_come_back_in_order(ledger: SqliteLedger) -> None:
    """Whatever the sizes of the groups, leaves keep their order and the head their root."""
    leaves: list[bytes] = []
    for count in (1, 2, 300, 1, 255, 256, 257, 1):
        fresh = some(count, len(leaves))
        appended = ledger.append(fresh)

        assert len(leaves) == appended.first
        leaves += fresh
        assert len(leaves) == appended.head.size
        assert ledger.head() == appended.head

    assert leaves == list(ledger.leaves(0, len(leaves)))
    assert leaves[7:9] == list(ledger.leaves(7, 9))
    assert root_of(map(leaf_hash, leaves)) == root_in(ledger)


def test_it_goes_on_after_a_restart(ledger: SqliteLedger) -> None:
    """A ledger opened anew continues where it ended, under the same origin."""
    ledger.append(some(5))
    ledger.close()

    with contextlib.closing(SqliteLedger(ledger.path)) as again:
        assert again.origin == "o.example/x"
        assert again.append(some(1, 5)).first == 5
        assert some(6) == list(again.leaves(0, 6))


def test_two_writers_share_one_order(ledger: SqliteLedger) -> None:
    """Two connections that append in turn leave no gap and agree on the root."""
    with contextlib.closing(SqliteLedger(ledger.path)) as other:
        firsts = [
            (ledger if turn % 2 else other).append(some(turn + 1, turn * 10)).first
            for turn in range(6)
        ]

    assert firsts == [0, 1, 3, 6, 10, 15]
    leaves = list(ledger.leaves(0, 21))
    assert root_of(map(leaf_hash, leaves)) == root_in(ledger)


def test_a_ledger_is_made_once(ledger: SqliteLedger) -> None:
    """Making a ledger where one is refuses and leaves it as it was."""
    ledger.append(some(3))

    with pytest.raises(LedgerDamagedError, match="already there"):
        SqliteLedger.create(ledger.path, "o.example/other")

    assert ledger.head().size == 3
    assert sorted(path.name for path in ledger.path.parent.iterdir()) == [
        "ledger.db",
        "ledger.db-shm",
        "ledger.db-wal",
    ]


def test_a_missing_ledger_is_never_made(tmp_path: Path) -> None:
    """Opening a path that holds nothing says so and makes nothing."""
    with pytest.raises(LedgerMissingError, match="no ledger at"):
        SqliteLedger(tmp_path / "ledger.db")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a database, only text\n" * 400])
def test_another_file_is_no_ledger(tmp_path: Path, content: bytes) -> None:
    """A file that is empty or something else is named, and stays as it was."""
    path = tmp_path / "ledger.db"
    path.write_bytes(content)

    with pytest.raises(LedgerDamagedError, match=r"ledger\.db"):
        SqliteLedger(path)

    assert content == path.read_bytes()


def test_another_database_is_no_ledger(tmp_path: Path) -> None:
    """A SQLite file of another kind is not taken for a ledger."""
    path = tmp_path / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE leaf (seq, leaf, frontier)")

    with pytest.raises(LedgerDamagedError, match="is not a ledger"):
        SqliteLedger(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_ledger_cut_short_is_refused(ledger: SqliteLedger, share: float) -> None:
    """A truncated file is damage, and the line says who must do what."""
    ledger.append(some(900))
    ledger.close()
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(LedgerDamagedError, match="cut short") as raised:
        SqliteLedger(ledger.path)

    assert "the operator must" in raised.value.hint


def test_another_origin_is_refused(ledger: SqliteLedger) -> None:
    """A ledger is not opened under the name of another."""
    with pytest.raises(LedgerDamagedError, match=r"o\.example/x"):
        SqliteLedger(ledger.path, origin="o.example/y")


def test_a_newer_format_is_refused(ledger: SqliteLedger) -> None:
    """A file of a later format is left to the release that knows it."""
    ledger._writing.pragma("user_version", 99)

    with pytest.raises(LedgerDamagedError, match="version 99"):
        SqliteLedger(ledger.path)


@pytest.mark.parametrize("count", [1, 40])
def test_a_full_disk_adds_nothing_and_heals(tmp_path: Path, count: int) -> None:
    """While the disk is full nothing is added; once there is room the next append succeeds."""
    with brittle_disk() as disk:
        ledger = SqliteLedger.create(tmp_path / "ledger.db", "o.example/x")
        ledger.append(some(3))

        disk.full = True
        for _ in range(2):
            with pytest.raises(LedgerUnwellError, match="disk is full"):
                ledger.append(some(count, 3))
        assert ledger.head().size == 3
        disk.full = False

        assert ledger.append(some(count, 3)).first == 3
        assert some(3 + count) == list(ledger.leaves(0, 3 + count))
        assert root_of(map(leaf_hash, some(3 + count))) == root_in(ledger)
        ledger.close()


def test_a_failed_sync_is_final(tmp_path: Path) -> None:
    """After a sync that failed no append is tried again; a restart reads the truth."""
    with brittle_disk() as disk:
        ledger = SqliteLedger.create(tmp_path / "ledger.db", "o.example/x")
        ledger.append(some(3))

        disk.sync_fails = True
        with pytest.raises(LedgerDamagedError):
            ledger.append(some(1, 3))
        disk.sync_fails = False
        with pytest.raises(LedgerDamagedError):
            ledger.append(some(1, 3))

        ledger.close()
        again = SqliteLedger(ledger.path)
        size = again.head().size
        assert size in (3, 4)
        assert some(size) == list(again.leaves(0, size))
        again.close()


def test_a_busy_file_adds_nothing(ledger: SqliteLedger) -> None:
    """Where another process holds the file for too long, nothing is added."""
    ledger._writing.set_busy_timeout(10)
    with contextlib.closing(sqlite.connect(ledger.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnwellError, match="another process"):
            ledger.append(some(1))
        other.execute("ROLLBACK")

    assert ledger.append(some(1)).first == 0


def test_leaves_that_vanish_are_damage(ledger: SqliteLedger) -> None:
    """Where the file lost leaves under a running writer, nothing more is added."""
    ledger.append(some(5))
    ledger.append(some(2, 5))
    with contextlib.closing(sqlite.connect(ledger.path)) as other:
        other.execute("DELETE FROM leaf WHERE seq >= 5")

    for _ in range(2):
        with pytest.raises(LedgerDamagedError, match="gone or other"):
            ledger.append(some(1, 7))

    assert ledger.head().size == 5


def test_an_edited_tip_is_damage(ledger: SqliteLedger) -> None:
    """Where the newest commit is no longer the one we know, nothing is put on top of it."""
    ledger.append(some(5))
    with contextlib.closing(sqlite.connect(ledger.path)) as other:
        other.execute("UPDATE leaf SET frontier = zeroblob(64) WHERE seq = 4")
        with pytest.raises(LedgerDamagedError):
            ledger.append(some(1, 5))

    assert ledger.head().size == 5


def test_a_gap_is_damage(ledger: SqliteLedger) -> None:
    """Reading over a leaf that is not there is damage, not a shorter list."""
    ledger.append(some(9))
    with contextlib.closing(sqlite.connect(ledger.path)) as other:
        other.execute("DELETE FROM leaf WHERE seq = 4")

    with pytest.raises(LedgerDamagedError, match="no leaf 4"):
        list(ledger.leaves(0, 9))
    with pytest.raises(LedgerDamagedError, match="no leaf 9"):
        list(ledger.leaves(5, 12))


def test_an_older_checkpoint_does_not_replace_a_newer(ledger: SqliteLedger) -> None:
    """The newest checkpoint is kept, whatever the order in which they come."""
    assert ledger.checkpoint() is None
    for size in (3, 9, 5):
        ledger.publish(size, f"note of {size}")

    assert ledger.checkpoint() == "note of 9"


def test_tiles_are_those_of_the_leaves(ledger: SqliteLedger) -> None:
    """Full tiles put aside while appending hold the hashes of their leaves."""
    leaves = some(1000)
    for first in range(0, 1000, 77):
        ledger.append(leaves[first : first + 77])
    ledger.publish(1000, "note")

    hashes = [leaf_hash(leaf) for leaf in leaves]
    assert sorted(ledger.tile_roots(0, 0, 4)) == [0, 1, 2]
    for number in range(3):
        expected = hashes[256 * number : 256 * (number + 1)]
        assert b"".join(expected) == ledger.tile(0, number)
        assert {number: root_of(expected)} == ledger.tile_roots(0, number, number + 1)
    assert ledger.tile(0, 3) is None


def test_a_tile_begun_by_others_is_left_out(ledger: SqliteLedger) -> None:
    """Who has not seen a tile's first leaves keeps none, rather than a wrong one."""
    ledger.append(some(100))
    with contextlib.closing(SqliteLedger(ledger.path)) as other:
        other.append(some(500, 100))
        other.publish(600, "note")
        leaves = [leaf_hash(leaf) for leaf in other.leaves(0, 600)]

    assert ledger.tile(0, 0) is None
    assert b"".join(leaves[256:512]) == ledger.tile(0, 1)


def test_the_log_beside_the_file_stays_small(ledger: SqliteLedger) -> None:
    """However long it runs, the write-ahead log is copied back and starts over."""
    log = ledger.path.with_name("ledger.db-wal")
    leaf, written = bytes(60_000), 0

    # How far it grows before that is up to the disk and to when the other thread has its turn.
    while written < max(54_000_000, 3 * log.stat().st_size):
        ledger.append([leaf, leaf])
        written += 2 * len(leaf)
        assert written < 1_000_000_000, "it does not start over"

    assert ledger.path.stat().st_size > written // 3


def test_who_reads_while_it_is_closed_is_told(tmp_path: Path) -> None:
    """Closing waits for whoever is reading; who comes later is told, and nothing else fails."""
    told: list[Exception] = []

    def read(one: SqliteLedger) -> None:
        try:
            while True:
                assert 100 == len(list(one.leaves(0, 100)))
                one.keep_tile(0, 0, bytes(32 * TILE_WIDTH))
        except LedgerUnwellError as closed:
            told.append(closed)

    ledger = SqliteLedger.create(tmp_path / "ledger.db", "o.example/x")
    ledger.append([bytes(200_000)] * 100)
    for _ in range(25):
        readers = [threading.Thread(target=read, args=(ledger,)) for _ in range(4)]
        for reader in readers:
            reader.start()
        list(ledger.leaves(0, 100))
        ledger.close()
        for reader in readers:
            reader.join()
        ledger = SqliteLedger(ledger.path)
    ledger.close()

    assert 100 == len(told)
    assert all("closed" in str(one) for one in told)


def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    """Calls after closing are errors of ours."""
    ledger = SqliteLedger.create(tmp_path / "ledger.db", "o.example/x")
    ledger.close()

    for call in (ledger.head, ledger.checkpoint, lambda: ledger.publish(1, "note")):
        with pytest.raises(LedgerUnwellError, match="closed"):
            call()


def test_only_apsw_with_the_repaired_log_will_do() -> None:
    """The SQLite in use is one without the WAL-reset bug."""
    assert tuple(map(int, apsw.sqlite_lib_version().split("."))) >= (3, 51, 3)


def test_a_ledger_that_another_process_writes_can_only_be_read(ledger: SqliteLedger) -> None:
    """Opened for reading alone it shows every leaf, and adds neither leaf nor tile."""
    ledger.append([b"%d" % number for number in range(TILE_WIDTH)])
    with contextlib.closing(SqliteLedger(ledger.path, writes=False)) as beside:
        with pytest.raises(LedgerUnwellError):
            beside.append([b"x"])
        beside.keep_tile(0, 0, b"".join(leaf_hash(leaf) for leaf in beside.leaves(0, 256)))
        ledger.append([b"more"])
        seen = list(beside.leaves(0, beside.head().size))

    assert TILE_WIDTH + 1 == len(seen)
    assert b"more" == seen[-1]
    assert ledger.tile(0, 0) is None
