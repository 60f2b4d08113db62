"""Laws of tiles."""

from __future__ import annotations

import pytest

from gateway.errors import BadProofError
from gateway.tlog.tile import (
    ENTRIES,
    Tile,
    decode_entries,
    encode_entries,
    format_path,
    parse_path,
    tiles_of,
    width_in,
)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(ENTRIES, 0), "tile/entries/000"),
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(0, 1000), "tile/0/x001/000"),
        (Tile(1, 7, 3), "tile/1/007.p/3"),
        (Tile(ENTRIES, 273, 112), "tile/entries/273.p/112"),
    ],
)
def test_a_tile_has_one_path(tile: Tile, path: str) -> None:
    """Groups of three digits, all but the last behind an x; a partial tile says how full."""
    assert path == format_path(tile)
    assert tile == parse_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/0",
        "tile/8/000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/01",
        "tile/0/../000",
        "/tile/0/000",
        "tile/0/000\n",
        "tile/0/٠٠٠",
    ],
)
def test_what_is_no_path_is_refused(path: str) -> None:
    """A path that departs from its one form names no tile."""
    with pytest.raises(BadProofError):
        parse_path(path)


def test_a_log_of_70000_leaves_is_cut_as_the_standard_says() -> None:
    """A log has full tiles and at most one partial tile on each level."""
    tiles = list(tiles_of(70_000))
    levels = [[t for t in tiles if t.level == level] for level in (ENTRIES, 0, 1, 2)]

    assert [len(level) for level in levels] == [274, 274, 2, 1]
    assert [level[-1].width for level in levels] == [112, 112, 17, 1]
    assert len(tiles) == 551


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 2), (256, 3), (257, 5)])
def test_small_logs_have_few_tiles(size: int, count: int) -> None:
    """A level has no tile before it has a full tile below it."""
    assert count == len(list(tiles_of(size)))


def test_there_is_no_log_of_a_negative_size() -> None:
    """A size that no tree has gives an error, not tiles."""
    with pytest.raises(BadProofError):
        list(tiles_of(-1))


def test_entries_are_read_back() -> None:
    """An entry bundle gives back its leaves, the empty and the longest too."""
    leaves = [b"", b"a", bytes(65_535)]

    assert leaves == decode_entries(encode_entries(leaves))


@pytest.mark.parametrize("leaves", [[bytes(65_536)], [b""] * 257])
def test_what_does_not_fit_is_not_encoded(leaves: list[bytes]) -> None:
    """A bundle holds at most 256 leaves, each below 65,536 bytes."""
    with pytest.raises(BadProofError):
        encode_entries(leaves)


@pytest.mark.parametrize("encoded", [b"\x00", b"\x00\x02a", bytes(2 * 257)])
def test_what_is_no_entry_bundle_is_refused(encoded: bytes) -> None:
    """Bytes that end within a leaf, or hold too many, are malformed."""
    with pytest.raises(BadProofError):
        decode_entries(encoded)


@pytest.mark.parametrize(
    ("tile", "size", "width"),
    [
        (Tile(ENTRIES, 0), 0, 0),
        (Tile(ENTRIES, 0), 7, 7),
        (Tile(0, 0), 256, 256),
        (Tile(0, 1), 256, 0),
        (Tile(1, 0), 255, 0),
        (Tile(1, 0), 70_000, 256),
        (Tile(1, 1), 70_000, 17),
        (Tile(2, 0), 70_000, 1),
        (Tile(7, 0), 2**63 - 1, 127),
    ],
)
def test_a_tile_is_as_full_as_the_log_is_long(tile: Tile, size: int, width: int) -> None:
    """What a log has of a tile: nothing before it is begun, never more than 256."""
    assert width == width_in(tile, size)
