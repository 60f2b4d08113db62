"""Tiles (c2sp.org/tlog-tiles): how a log is cut into files that never change.

Level -1 stands for entry bundles, which hold leaves; levels from 0 up hold hashes. Not here:
where tiles are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from gateway.errors import BadProofError
from gateway.limits import LEAF_BYTES_MAX
from gateway.tlog.text import SIZE_MAX, shown

TILE_WIDTH: Final = 256
ENTRIES: Final = -1
LEVEL_MAX: Final = 7
"""The highest level that a tree of 2^63 leaves can have."""

_PATH: Final = re.compile(
    r"tile/(?P<level>entries|[0-7])/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True)
class Tile:
    """One file of a log: its level, its place in the level, and how full it is."""

    level: int
    index: int
    width: int = TILE_WIDTH


def tiles_of(size: int) -> Iterator[Tile]:
    """Yield the tiles that a log of *size* consists of: entry bundles first, then upwards.

    Raises:
        BadProofError: there is no tree of that size.
    """
    if not 0 <= size <= SIZE_MAX:
        raise BadProofError(f"there is no tree of size {size}")
    yield from _level_of(ENTRIES, size)
    level, width = 0, size
    while width:
        yield from _level_of(level, width)
        level, width = level + 1, width // TILE_WIDTH


def width_in(tile: Tile, size: int) -> int:
    """Return how full *tile* is in a log of *size*, whatever width it names; 0 if not begun."""
    return max(0, min(TILE_WIDTH, _width_of(tile.level, size) - tile.index * TILE_WIDTH))


def _width_of(level: int, size: int) -> int:
    """Return how many hashes, or leaves, a level of a log of *size* has."""
    return size >> 8 * max(level, 0)


def _level_of(level: int, width: int) -> Iterator[Tile]:
    full, rest = divmod(width, TILE_WIDTH)
    for index in range(full):
        yield Tile(level, index)
    if rest:
        yield Tile(level, full, rest)


def format_path(tile: Tile) -> str:
    """Return the path of *tile* below the log's address, such as `tile/0/x001/234.p/7`."""
    groups = [f"{tile.index % 1000:03d}"]
    rest = tile.index // 1000
    while rest:
        groups.insert(0, f"x{rest % 1000:03d}")
        rest //= 1000
    level = "entries" if tile.level == ENTRIES else str(tile.level)
    partial = "" if tile.width == TILE_WIDTH else f".p/{tile.width}"
    return f"tile/{level}/{'/'.join(groups)}{partial}"


def parse_path(path: str) -> Tile:
    """Return the tile that *path* names.

    Raises:
        BadProofError: it names none, or not in the one way.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise BadProofError(f"not the path of a tile: `{shown(path)}`")
    level = ENTRIES if found["level"] == "entries" else int(found["level"])
    index = int(found["index"].replace("x", "").replace("/", ""))
    tile = Tile(level, index, int(found["width"] or TILE_WIDTH))
    if format_path(tile) != path or tile.width > TILE_WIDTH:
        raise BadProofError(f"not the path of a tile: `{shown(path)}`")
    return tile


def encode_entries(leaves: Iterable[bytes]) -> bytes:
    """Return the entry bundle of *leaves*: each behind its length in two bytes.

    Raises:
        BadProofError: a leaf is too long for its length, or there are too many.
    """
    encoded = bytearray()
    for count, leaf in enumerate(leaves, start=1):
        if len(leaf) > LEAF_BYTES_MAX or count > TILE_WIDTH:
            raise BadProofError(
                f"an entry bundle holds {TILE_WIDTH} leaves of {LEAF_BYTES_MAX} bytes at most"
            )
        encoded += len(leaf).to_bytes(2, "big") + leaf
    return bytes(encoded)


def decode_entries(encoded: bytes) -> list[bytes]:
    """Return the leaves of an entry bundle.

    Raises:
        BadProofError: the bytes end within a leaf, or hold too many.
    """
    leaves = []
    at = 0
    while at < len(encoded):
        stop = at + 2 + int.from_bytes(encoded[at : at + 2], "big")
        if at + 2 > len(encoded) or stop > len(encoded):
            raise BadProofError("the entry bundle ends within a leaf")
        leaves.append(encoded[at + 2 : stop])
        at = stop
    if len(leaves) > TILE_WIDTH:
        raise BadProofError(f"an entry bundle holds at most {TILE_WIDTH} leaves")
    return leaves
