"""Laws of the part of a tree that a dataset's receipts touch."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dataset.manifest import tile_file
from gateway.dataset.verification.tree import TilesWriter, Tree, edge_of, levels_of
from gateway.errors import BadProofError
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import HASH_BYTES, leaf_hash, root_of
from gateway.tlog.tile import TILE_WIDTH, Tile

HASHES = [leaf_hash(b"leaf %d" % number) for number in range(70_000)]
SIZES = (1, 2, 255, 256, 257, 511, 512, 700, 65_535, 65_536, 65_537, 66_049)


def level_of(level: int, size: int) -> list[bytes]:
    """Return the hashes of a level, made one by one."""
    hashes = HASHES[:size]
    for _ in range(level):
        whole = len(hashes) // TILE_WIDTH * TILE_WIDTH
        hashes = [root_of(hashes[at : at + TILE_WIDTH]) for at in range(0, whole, TILE_WIDTH)]
    return hashes


LEVELS = {size: [level_of(level, size) for level in range(levels_of(size))] for size in SIZES}


def written(folder: Path, size: int, touched: list[int]) -> Checkpoint:
    """Write what *touched* leaves need of a log of *size*; return its checkpoint."""
    parts: dict[int, bytes] = dict.fromkeys(range(levels_of(size)), b"")

    def read(tile: Tile) -> bytes:
        first = tile.index * TILE_WIDTH
        return b"".join(LEVELS[size][tile.level][first : first + tile.width])

    def write(level: int, hashes: bytes) -> None:
        parts[level] += hashes

    writer = TilesWriter(size, read, write)
    for index in touched:
        writer.touch(index)
    writer.finish()
    for level, content in parts.items():
        path = folder / tile_file(level)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Checkpoint("log.example", size, root_of(HASHES[:size]))


def hashes_at(folder: Path, checkpoint: Checkpoint, touched: list[int]) -> list[bytes]:
    """Return the hash at each of *touched*, as the files show them; all of each was read."""
    found = []
    with contextlib.closing(Tree(folder, checkpoint)) as tree:
        for index in touched:
            place = index % TILE_WIDTH * HASH_BYTES
            found.append(tree.tile(index // TILE_WIDTH)[place : place + HASH_BYTES])
        assert tree.ends == tree.offsets(checkpoint.size)
    return found


@given(size=st.sampled_from(SIZES), data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_touched_leaf_is_shown(
    tmp_path_factory: pytest.TempPathFactory, size: int, data: st.DataObject
) -> None:
    """Whichever leaves are touched in a log of whatever size, their hashes come back."""
    touched = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=20)))
    folder = tmp_path_factory.mktemp("tree")

    checkpoint = written(folder, size, touched)

    assert [HASHES[index] for index in touched] == hashes_at(folder, checkpoint, touched)


@given(size=st.sampled_from(SIZES), data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_changed_hash_is_refused(
    tmp_path_factory: pytest.TempPathFactory, size: int, data: st.DataObject
) -> None:
    """Every byte of every tile counts: with one changed, nothing more is shown."""
    touched = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=5)))
    folder = tmp_path_factory.mktemp("tree")
    checkpoint = written(folder, size, touched)
    path = folder / tile_file(data.draw(st.integers(0, levels_of(size) - 1)))
    content = bytearray(path.read_bytes())
    if not content:
        return
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1
    path.write_bytes(content)

    with pytest.raises(BadProofError, match="evidence/tiles/"):
        hashes_at(folder, checkpoint, touched)


def test_a_walk_can_begin_anywhere(tmp_path: Path) -> None:
    """Who begins at a later leaf finds its tiles where the writer said they would stand."""
    size, touched = 65_537, [3, 300, 301, 40_000, 65_535, 65_536]
    offsets = {}
    writer = TilesWriter(
        size,
        lambda tile: b"".join(
            LEVELS[size][tile.level][
                tile.index * TILE_WIDTH : tile.index * TILE_WIDTH + tile.width
            ]
        ),
        lambda level, hashes: None,
    )
    for index in touched:
        offsets[index] = writer.offsets(index)
        writer.touch(index)
    checkpoint = written(tmp_path, size, touched)

    for index in touched:
        tree = Tree(tmp_path, checkpoint)
        tree.seek(offsets[index])
        place = index % TILE_WIDTH * HASH_BYTES
        assert HASHES[index] == tree.tile(index // TILE_WIDTH)[place : place + HASH_BYTES]
        tree.close()


def test_a_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    """Tiles that end too early are told before anything is read from them."""
    checkpoint = written(tmp_path, 257, [5])
    (tmp_path / tile_file(0)).write_bytes(bytes(31))

    with pytest.raises(BadProofError, match="evidence/tiles/0: it is too short"):
        Tree(tmp_path, checkpoint)


@pytest.mark.parametrize(
    ("size", "levels"), [(1, 1), (255, 1), (256, 2), (65_535, 2), (65_536, 3), (2**24, 4)]
)
def test_a_log_has_a_level_for_each_power(size: int, levels: int) -> None:
    """A level begins as soon as one tile of the level below is full."""
    assert levels == levels_of(size)
    assert size >> 8 * (levels - 1)
    assert Tile(0, *divmod(size, TILE_WIDTH)) == edge_of(0, size)
