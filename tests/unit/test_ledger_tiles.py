"""Laws of the log as tiles, read one by one and written as a folder."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import apsw
import pytest

from gateway.errors import LedgerDamagedError, NotFoundError, SettingError
from gateway.ledger.reading.subtrees import Subtrees
from gateway.ledger.reading.tiles import Tiles
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.checkpoint import Checkpoint, format_checkpoint
from gateway.tlog.merkle import leaf_hash, root_of
from gateway.tlog.note import sign_note
from gateway.tlog.tile import ENTRIES, Tile, decode_entries, encode_entries
from tests.support.evidence import LOG_SIGNER, ORIGIN, a_note

SIZE = 700
LEAVES = [b"leaf %d" % number for number in range(SIZE)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteLedger]:
    """Return a store of 700 leaves, 600 of which are published."""
    store = SqliteLedger.create(tmp_path / "ledger.db", ORIGIN)
    store.append(LEAVES)
    store.publish(600, a_note(LEAVES[:600]))
    yield store
    store.close()


@pytest.fixture
def tiles(store: SqliteLedger) -> Tiles:
    """Return the tiles of the store."""
    return Tiles(store, Subtrees(store))


def hashes_of(leaves: list[bytes]) -> bytes:
    """Return the hashes of *leaves*, joined."""
    return b"".join(map(leaf_hash, leaves))


def files(folder: Path) -> dict[str, str]:
    """Return each file below *folder* and its digest."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("tile", "expected"),
    [
        (Tile(0, 0), hashes_of(LEAVES[:256])),
        (Tile(0, 1), hashes_of(LEAVES[256:512])),
        (Tile(0, 1, 7), hashes_of(LEAVES[256:263])),
        (Tile(0, 2, 88), hashes_of(LEAVES[512:600])),
        (
            Tile(1, 0, 2),
            root_of(map(leaf_hash, LEAVES[:256])) + root_of(map(leaf_hash, LEAVES[256:512])),
        ),
        (Tile(1, 0, 1), root_of(map(leaf_hash, LEAVES[:256]))),
        (Tile(ENTRIES, 1), encode_entries(LEAVES[256:512])),
        (Tile(ENTRIES, 2, 88), encode_entries(LEAVES[512:600])),
    ],
)
def test_a_tile_holds_what_its_path_says(tile: Tile, expected: bytes, tiles: Tiles) -> None:
    """Hashes of leaves, roots of full tiles, or leaves, as many as asked for."""
    assert expected == tiles.read(tile)


@pytest.mark.parametrize(
    "tile",
    [
        Tile(0, 2),
        Tile(0, 2, 89),
        Tile(0, 3, 1),
        Tile(1, 0, 3),
        Tile(1, 0),
        Tile(2, 0, 1),
        Tile(7, 0, 1),
        Tile(ENTRIES, 2, 89),
        Tile(ENTRIES, 10**15),
    ],
)
def test_nothing_beyond_the_checkpoint_is_read(tile: Tile, tiles: Tiles) -> None:
    """What is durable and not yet under a published checkpoint is not there."""
    with pytest.raises(NotFoundError):
        tiles.read(tile)


def test_what_is_published_later_is_read_then(store: SqliteLedger, tiles: Tiles) -> None:
    """A newer checkpoint brings newer tiles."""
    with pytest.raises(NotFoundError):
        tiles.read(Tile(0, 2, 188))
    store.publish(SIZE, a_note(LEAVES))

    assert hashes_of(LEAVES[512:]) == tiles.read(Tile(0, 2, 188))


def test_an_unpublished_log_has_no_tiles(tmp_path: Path) -> None:
    """Before the first checkpoint there is nothing."""
    store = SqliteLedger.create(tmp_path / "ledger.db", ORIGIN)
    store.append(LEAVES)

    with pytest.raises(NotFoundError):
        Tiles(store, Subtrees(store)).read(Tile(0, 0))


def test_a_folder_holds_the_log(tmp_path: Path, tiles: Tiles) -> None:
    """Each tile stands at its path, and the checkpoint beside them."""
    told: list[tuple[int, int]] = []
    done = tiles.export(tmp_path / "log", a_note(LEAVES[:600]), lambda *said: told.append(said))
    found = files(tmp_path / "log")

    assert (600, 7, 7) == (done.size, done.tiles, done.added)
    assert {
        "checkpoint",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/88",
        "tile/1/000.p/2",
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/88",
    } == set(found)
    bundle = (tmp_path / "log/tile/entries/002.p/88").read_bytes()
    assert LEAVES[512:600] == decode_entries(bundle)
    assert [(count, 7) for count in range(1, 8)] == told


def test_a_second_run_only_adds(tmp_path: Path, tiles: Tiles) -> None:
    """Whoever holds an older checkpoint still finds every tile that it needs."""
    folder = tmp_path / "log"
    tiles.export(folder, a_note(LEAVES[:600]))
    before = files(folder)
    again = tiles.export(folder, a_note(LEAVES[:600]))
    grown = tiles.export(folder, a_note(LEAVES))
    after = files(folder)

    assert (0, 2) == (again.added, grown.added)
    assert {"checkpoint"} == {name for name in before if after[name] != before[name]}
    assert {"tile/0/002.p/188", "tile/entries/002.p/188"} == set(after) - set(before)


def test_hashes_alone_can_be_written(tmp_path: Path, tiles: Tiles) -> None:
    """A folder for everyone holds no leaf."""
    done = tiles.export(tmp_path / "log", a_note(LEAVES), entries=False)

    assert 4 == done.tiles
    assert not (tmp_path / "log/tile/entries").exists()


def test_an_empty_log_is_a_checkpoint(tmp_path: Path) -> None:
    """A log without leaves has no tiles."""
    store = SqliteLedger.create(tmp_path / "ledger.db", ORIGIN)
    done = Tiles(store, Subtrees(store)).export(tmp_path / "log", a_note([]))

    assert {"checkpoint"} == set(files(tmp_path / "log"))
    assert 0 == done.tiles


def test_a_folder_of_another_log_is_left_alone(tmp_path: Path, tiles: Tiles) -> None:
    """A folder belongs to one log for ever."""
    other = format_checkpoint(Checkpoint("other.example", 1, bytes(32)))
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "checkpoint").write_text(sign_note(other, [LOG_SIGNER]))

    with pytest.raises(SettingError, match="holds the log"):
        tiles.export(folder, a_note(LEAVES))
    assert {"checkpoint"} == set(files(folder))


def test_a_folder_that_is_no_log_is_left_alone(tmp_path: Path, tiles: Tiles) -> None:
    """What is called checkpoint and is none is not written over."""
    (tmp_path / "checkpoint").write_text("my notes")

    with pytest.raises(SettingError, match="is not a checkpoint"):
        tiles.export(tmp_path, a_note(LEAVES))


def test_an_older_ledger_does_not_follow_a_newer_folder(tmp_path: Path, tiles: Tiles) -> None:
    """A ledger that was put back is found out by what it once exported."""
    tiles.export(tmp_path / "log", a_note(LEAVES))

    with pytest.raises(LedgerDamagedError, match="is older than"):
        tiles.export(tmp_path / "log", a_note(LEAVES[:600]))


def test_another_history_does_not_follow_a_folder(tmp_path: Path, tiles: Tiles) -> None:
    """A ledger whose beginning is another than the folder's is damaged."""
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "checkpoint").write_text(a_note([b"other", *LEAVES[1:600]]))

    with pytest.raises(LedgerDamagedError, match="are not those of"):
        tiles.export(folder, a_note(LEAVES))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE leaf SET leaf = x'00' WHERE seq = 3", "tile/entries/000"),
        ("UPDATE leaf SET leaf = x'00' WHERE seq = 699", "don't lead to the root"),
        ("UPDATE tile SET root = zeroblob(32) WHERE number = 1", "tile/0/001"),
        ("UPDATE tile SET hashes = zeroblob(8192) WHERE number = 1", "tile/entries/001"),
    ],
)
def test_what_is_not_under_the_checkpoint_is_not_exported(
    change: str, what: str, tmp_path: Path, tiles: Tiles, store: SqliteLedger
) -> None:
    """A leaf or a tile that was changed ends the export before the checkpoint is written."""
    note = a_note(LEAVES)
    store.publish(SIZE, note)
    tiles.read(Tile(1, 0, 2))
    connection = apsw.Connection(str(store.path))
    connection.execute(change)
    connection.close()

    with pytest.raises(LedgerDamagedError, match=what):
        Tiles(store, Subtrees(store)).export(tmp_path / "log", note)
    assert not (tmp_path / "log/checkpoint").exists()


def test_a_folder_that_cannot_be_written_is_the_operators(tmp_path: Path, tiles: Tiles) -> None:
    """The error names the file and what to do."""
    (tmp_path / "log").write_text("in the way")

    with pytest.raises(SettingError, match="can't be"):
        tiles.export(tmp_path / "log", a_note(LEAVES))
