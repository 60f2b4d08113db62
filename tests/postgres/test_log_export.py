"""The log in PostgreSQL is cut into the very files that the vectors name."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from gateway.ledger.reading.subtrees import Subtrees
from gateway.ledger.reading.tiles import Tiles
from gateway.store.postgres.ledger import PostgresLedger
from gateway.tlog.tile import parse_path
from tests.conformance.test_vectors import leaves, vectors
from tests.support.evidence import LOG_SIGNER, a_note
from tests.support.postgres import Server

pytestmark = pytest.mark.postgres

SIZE = 700


def test_an_exported_log_is_the_same_from_either_store(server: Server, tmp_path: Path) -> None:
    """Paths and bytes are those of the standard, whatever the leaves are kept in."""
    store = PostgresLedger.create(server.new_place(), LOG_SIGNER.name)
    store.append(leaves(SIZE))
    note = a_note(leaves(SIZE))
    store.publish(SIZE, note)
    tiles = Tiles(store, Subtrees(store))
    tiles.export(tmp_path / "log", note)
    found = {
        str(path.relative_to(tmp_path / "log")): sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "log/tile").rglob("*")
        if path.is_file()
    }
    served = {path: sha256(tiles.read(parse_path(path))).hexdigest() for path in found}
    store.close()

    assert vectors("tiles")["logs"][str(SIZE)] == found
    assert found == served
