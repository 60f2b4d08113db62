"""Connections cut at every message, the commit among them: nothing twice, nothing lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import LedgerUnwellError
from gateway.store.postgres.ledger import PostgresLedger
from gateway.tlog.merkle import Frontier, leaf_hash, root_of
from tests.support.cutter import Cutter, When, cutting
from tests.support.evidence import ORIGIN
from tests.support.postgres import Server
from tests.support.replica import replica_of

pytestmark = pytest.mark.postgres


@pytest.fixture
def cutter(server: Server) -> Iterator[Cutter]:
    """Return what stands before the server."""
    with cutting(server.port) as one:
        yield one


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_append_survives_a_cut_anywhere(
    server: Server, url: str, cutter: Cutter, when: When
) -> None:
    """Wherever an append's connection is cut, the leaves are there once, and it says where."""
    PostgresLedger.create(url, ORIGIN).close()
    leaves: list[bytes] = []
    with contextlib.closing(PostgresLedger(server.by_way_of(url, cutter.port))) as ledger:
        ledger.append([b"begin"])
        leaves.append(b"begin")
        cuts = 0
        while True:
            fresh = [b"%d %d" % (cuts, at) for at in range(3)]
            cutter.cut(cuts, when)
            first = ledger.append(fresh).first
            assert first == len(leaves)
            leaves += fresh
            assert list(ledger.leaves(0, len(leaves))) == leaves
            head = ledger.head()
            assert Frontier(head.size, head.frontier).root() == root_of(map(leaf_hash, leaves))
            if cutter.armed:
                break  # The append was over before: every message of it has been cut.
            cuts += 1

    # Seven, where what is sent without waiting for an answer does not come as one.
    assert cuts >= 5


@pytest.mark.crash
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_replica_survives_a_cut_anywhere(
    server: Server, url: str, cutter: Cutter, when: When, tmp_path: Path
) -> None:
    """Wherever handing in and sequencing is cut, an acknowledged leaf is there once.

    A leaf that was refused is not there at all.
    """
    ledger = PostgresLedger.create(url, ORIGIN)
    promised: dict[int, bytes] = {}
    refused: list[bytes] = []
    with contextlib.closing(PostgresLedger(server.by_way_of(url, cutter.port))) as cut:
        replica = replica_of(cut, tmp_path, "a")
        replica.append_and_wait(b"begin")
        cuts = 0
        while True:
            leaf = b"leaf %d" % cuts
            # So that taking over is cut, too.
            replica.let_go()
            cutter.cut(cuts, when)
            try:
                promised[replica.append_and_wait(leaf).index] = leaf
            except LedgerUnwellError:
                refused.append(leaf)
            if cutter.armed:
                break
            cuts += 1

    leaves = list(ledger.leaves(0, ledger.head().size))
    ledger.close()
    assert all(leaves[index] == leaf for index, leaf in promised.items())
    assert len(set(leaves)) == len(leaves)
    assert not set(refused) & set(leaves)
    assert cuts >= 15
    assert len(promised) > len(refused)
