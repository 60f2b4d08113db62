"""What every store promises, asked of each: a SQLite file and a PostgreSQL database."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg
import pytest

from gateway.errors import LedgerDamagedError, LedgerMissingError, LedgerUnwellError
from gateway.ledger.custody.fsck import KeepsFrontiers, fsck
from gateway.ledger.reading.subtrees import Subtrees
from gateway.store import sqlite
from gateway.store.index.index import Index
from gateway.store.ports import LedgerStore, TileStore
from gateway.store.postgres.ledger import PostgresLedger
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.merkle import Frontier, leaf_hash, root_of
from tests.support.evidence import ORIGIN, TRUST, an_authority
from tests.support.postgres import Server
from tests.support.store import exchanges


class Store(LedgerStore, TileStore, KeepsFrontiers, Protocol):
    """All that the rooms above ask of a store."""

    origin: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """Somewhere a ledger of one kind is."""

    create: Callable[[str], Store]
    open: Callable[[], Store]
    spoil: Callable[[str], object]
    """Runs SQL behind the ledger's back; leaves stand in `{leaves}`."""


def in_a_file(folder: Path) -> Place:
    """Return a place for a SQLite ledger."""
    path = folder / "ledger.db"

    def spoil(query: str) -> None:
        with contextlib.closing(sqlite.connect(path)) as connection:
            connection.execute(query.format(leaves="leaf"))

    return Place(
        create=lambda origin: SqliteLedger.create(path, origin),
        open=lambda: SqliteLedger(path),
        spoil=spoil,
    )


def in_a_database(server: Server) -> Place:
    """Return a place for a PostgreSQL ledger."""
    url = server.new_place()

    def spoil(query: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(query.format(leaves="entry").encode())

    return Place(
        create=lambda origin: PostgresLedger.create(url, origin),
        open=lambda: PostgresLedger(url),
        spoil=spoil,
    )


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a place for a ledger, of each kind in turn."""
    if request.param == "sqlite":
        return in_a_file(tmp_path)
    return in_a_database(request.getfixturevalue("server"))


@pytest.fixture
def ledger(place: Place) -> Iterator[Store]:
    """Return an empty ledger."""
    with contextlib.closing(place.create(ORIGIN)) as one:
        yield one


def some(count: int, first: int = 0) -> list[bytes]:
    """Return leaves that differ, some of them long."""
    return [
        b"leaf %d " % number + bytes(number * 37 % 3_000)
        for number in range(first, first + count)
    ]


def root_in(ledger: LedgerStore) -> bytes:
    """Return the root that the head folds to."""
    head = ledger.head()
    return Frontier(head.size, head.frontier).root()


def test_leaves_come_back_in_order(ledger: Store) -> None:
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


def test_the_longest_leaf_fits(ledger: Store) -> None:
    """A leaf as long as the format allows is kept like any other, and so is an empty one."""
    leaves = [bytes(65_535), b"", bytes(range(256)) * 255]
    ledger.append(leaves)

    assert leaves == list(ledger.leaves(0, 3))


def test_it_goes_on_after_a_restart(ledger: Store, place: Place) -> None:
    """A ledger opened anew continues where it ended, under the same origin."""
    ledger.append(some(5))
    ledger.close()

    with contextlib.closing(place.open()) as again:
        assert again.origin == ORIGIN
        assert again.append(some(1, 5)).first == 5
        assert some(6) == list(again.leaves(0, 6))


def test_two_writers_share_one_order(ledger: Store, place: Place) -> None:
    """Two that append in turn leave no gap and agree on the root."""
    with contextlib.closing(place.open()) as other:
        firsts = [
            (ledger if turn % 2 else other).append(some(turn + 1, turn * 10)).first
            for turn in range(6)
        ]

    assert firsts == [0, 1, 3, 6, 10, 15]
    leaves = list(ledger.leaves(0, 21))
    assert root_of(map(leaf_hash, leaves)) == root_in(ledger)


def test_a_ledger_is_made_once(ledger: Store, place: Place) -> None:
    """Making a ledger where one is refuses and leaves it as it was."""
    ledger.append(some(3))

    with pytest.raises(LedgerDamagedError, match="already"):
        place.create("o.example/other")

    assert ledger.head().size == 3


def test_a_missing_ledger_is_never_made(place: Place) -> None:
    """Opening a place that holds nothing says so and makes nothing."""
    for _ in range(2):
        with pytest.raises(LedgerMissingError, match="no ledger"):
            place.open()


def test_every_commit_keeps_its_frontier(ledger: Store) -> None:
    """The frontier stands with the last leaf of each commit, and with no other."""
    leaves = some(40)
    for first, stop in ((0, 1), (1, 8), (8, 40)):
        ledger.append(leaves[first:stop])

    kept = ledger.frontiers(0, 40)

    assert sorted(kept) == [1, 8, 40]
    for size, frontier in kept.items():
        root = root_of(map(leaf_hash, leaves[:size]))
        assert Frontier(size, frontier).root() == root


def test_a_gap_is_damage(ledger: Store, place: Place) -> None:
    """Reading over a leaf that is not there is damage, not a shorter list."""
    ledger.append(some(9))
    place.spoil("DELETE FROM {leaves} WHERE seq = 4")

    with pytest.raises(LedgerDamagedError, match="no leaf 4"):
        list(ledger.leaves(0, 9))
    with pytest.raises(LedgerDamagedError, match="no leaf 9"):
        list(ledger.leaves(5, 12))


def test_a_ledger_that_lost_leaves_takes_none(ledger: Store, place: Place) -> None:
    """What was durable and is gone is noticed before anything takes its place."""
    ledger.append(some(5))
    place.spoil("DELETE FROM {leaves} WHERE seq >= 3")

    with pytest.raises(LedgerDamagedError):
        ledger.append(some(1, 5))


def test_a_frontier_that_is_none_is_damage(ledger: Store, place: Place) -> None:
    """A ledger whose last frontier is none is not opened."""
    ledger.append(some(5))
    place.spoil("UPDATE {leaves} SET frontier = leaf WHERE seq = 4")

    with pytest.raises(LedgerDamagedError), contextlib.closing(place.open()) as other:
        other.head()


def test_an_older_checkpoint_does_not_replace_a_newer(ledger: Store) -> None:
    """The newest checkpoint is kept, whatever the order in which they come."""
    assert ledger.checkpoint() is None
    for size in (3, 9, 5):
        ledger.publish(size, f"note of {size}")

    assert ledger.checkpoint() == "note of 9"


def test_tiles_are_those_of_the_leaves(ledger: Store) -> None:
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


def test_a_tile_begun_by_others_is_left_out(ledger: Store, place: Place) -> None:
    """Who has not seen a tile's first leaves keeps none, rather than a wrong one."""
    ledger.append(some(100))
    with contextlib.closing(place.open()) as other:
        other.append(some(500, 100))
        other.publish(600, "note")
        leaves = [leaf_hash(leaf) for leaf in other.leaves(0, 600)]

    assert ledger.tile(0, 0) is None
    assert b"".join(leaves[256:512]) == ledger.tile(0, 1)


def test_missing_tiles_are_made_and_kept(ledger: Store, place: Place) -> None:
    """A proof over a ledger without tiles makes those that it needs, and they are right."""
    leaves = some(700)
    with contextlib.closing(place.open()) as other:
        other.append(leaves)

    assert Subtrees(ledger).root(0, 700) == root_of(map(leaf_hash, leaves))
    assert sorted(ledger.tile_roots(0, 0, 4)) == [0, 1]
    ledger.keep_tile(0, 0, bytes(8192))
    assert Subtrees(ledger).root(0, 256) == root_of(map(leaf_hash, leaves[:256]))


def test_it_is_checked_and_indexed_like_any_other(ledger: Store, tmp_path: Path) -> None:
    """The check of the whole ledger and the index of its leaves need nothing else."""
    leaves = exchanges(150)
    for first in range(0, 300, 70):
        ledger.append(leaves[first : first + 70])

    with contextlib.closing(Index(tmp_path / "index.db")) as index:
        assert index.catch_up(ledger) == 300
        report = fsck(ledger, TRUST, index=index, authority=an_authority())

    assert [str(finding) for finding in report.findings] == []
    assert report.kinds == {"opening": 150, "receipt": 150}


def test_a_closed_ledger_says_so(place: Place) -> None:
    """Calls after closing are errors of ours."""
    ledger = place.create(ORIGIN)
    ledger.close()

    for call in (ledger.head, ledger.checkpoint, lambda: ledger.publish(1, "note")):
        with pytest.raises(LedgerUnwellError, match="closed"):
            call()
