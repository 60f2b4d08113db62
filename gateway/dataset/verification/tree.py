"""The part of the log's tree that some leaves touch, as tiles in files, one file a level.

A file holds the tiles of its level that lead to a touched leaf, in order, and at its end the
tile at the right edge of the tree where that is not full. Tiles are C2SP's (`tlog/tile.py`):
up to 256 hashes, joined. What is read has been shown to lead to the checkpoint's root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from gateway.dataset.manifest import TILES, tile_file
from gateway.errors import BadProofError
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import HASH_BYTES, Frontier
from gateway.tlog.tile import TILE_WIDTH, Tile

TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES

_LEVEL_BITS: Final = 8

ReadTile = Callable[[Tile], bytes]
"""Gives the hashes of a tile of the ledger, joined."""


def levels_of(size: int) -> int:
    """Return how many levels of tiles a log of *size* has."""
    return (max(size, 1).bit_length() - 1) // _LEVEL_BITS + 1


def edge_of(level: int, size: int) -> Tile:
    """Return the tile at the right edge of a level; its width is 0 where the last is full."""
    number, width = divmod(size >> _LEVEL_BITS * level, TILE_WIDTH)
    return Tile(level, number, width)


class TilesWriter:
    """Writes the tiles that leaves touch; leaves come in order."""

    def __init__(self, size: int, read: ReadTile, write: Callable[[int, bytes], None]) -> None:
        self._read = read
        self._write = write
        self._edges = [edge_of(level, size) for level in range(levels_of(size))]
        self._last = [-1] * len(self._edges)
        self._begin = [0] * len(self._edges)
        self._next = [0] * len(self._edges)

    def offsets(self, index: int) -> tuple[int, ...]:
        """Return where in each file the tile that leads to leaf *index* stands, or will."""
        return _offsets(index, self._last, self._begin, self._next)

    def touch(self, index: int) -> None:
        """Write the tiles that lead to leaf *index* and are not written yet."""
        for level, edge in enumerate(self._edges):
            number = _tile_of(level, index)
            if number == self._last[level]:
                return
            self._add(edge if number == edge.index else Tile(level, number))

    def finish(self) -> None:
        """Write the tiles at the right edge that no leaf touched."""
        for level, edge in enumerate(self._edges):
            if edge.width and edge.index != self._last[level]:
                self._add(edge)

    def _add(self, tile: Tile) -> None:
        content = self._read(tile)
        self._write(tile.level, content)
        self._last[tile.level] = tile.index
        self._begin[tile.level] = self._next[tile.level]
        self._next[tile.level] += len(content)


class Tree:
    """Reads touched tiles in the order of the leaves, each checked up to the root."""

    def __init__(self, folder: Path, checkpoint: Checkpoint, under: str = TILES) -> None:
        levels = levels_of(checkpoint.size)
        self._under = under
        self._files: list[BinaryIO] = []
        self._edges = [edge_of(level, checkpoint.size) for level in range(levels)]
        try:
            for level in range(levels):
                self._files.append((folder / tile_file(level, under)).open("rb", TILE_BYTES))
            self.ends, self._edge_hashes = self._read_edges(checkpoint)
        except BaseException:
            self.close()
            raise
        self._last = [-1] * levels
        self._begin = [0] * levels
        self._next = [0] * levels
        self._tiles = [b""] * levels
        self.seek((0,) * levels)

    def seek(self, offsets: tuple[int, ...]) -> None:
        """Go to where the next tiles begin in each file."""
        for level, offset in enumerate(offsets):
            self._files[level].seek(offset)
            self._last[level], self._next[level] = -1, offset

    def offsets(self, index: int) -> tuple[int, ...]:
        """Return where in each file the tile that leads to leaf *index* must stand."""
        return _offsets(index, self._last, self._begin, self._next)

    def tile(self, number: int) -> bytes:
        """Return the hashes of tile *number* of level 0, checked; numbers only rise.

        Raises:
            BadProofError: the tile does not lead to the root of the checkpoint.
        """
        return self._tile(0, number)

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            file.close()

    def _tile(self, level: int, number: int) -> bytes:
        if number == self._last[level]:
            return self._tiles[level]
        edge = self._edges[level]
        at_edge = number == edge.index
        hashes = self._files[level].read(HASH_BYTES * edge.width if at_edge else TILE_BYTES)
        if at_edge:
            under = hashes == self._edge_hashes[level]
        else:
            above, place = divmod(number, TILE_WIDTH)
            hashed = _at(self._tile(level + 1, above), place)
            under = len(hashes) == TILE_BYTES and root_of(hashes) == hashed
        if not under:
            raise BadProofError(
                f"{tile_file(level, self._under)}: tile {number} does not lead to the "
                "checkpoint's root",
                hint="take the dataset from its source again",
            )
        self._last[level], self._begin[level] = number, self._next[level]
        self._next[level] += len(hashes)
        self._tiles[level] = hashes
        return hashes

    def _read_edges(self, checkpoint: Checkpoint) -> tuple[tuple[int, ...], list[bytes]]:
        """Return where the edges begin and what they hold; together they make the root."""
        ends, edges = [], []
        for level, edge in enumerate(self._edges):
            file, wide = self._files[level], HASH_BYTES * edge.width
            end = file.seek(0, 2) - wide
            if end < 0:
                raise BadProofError(f"{tile_file(level, self._under)}: it is too short")
            file.seek(end)
            ends.append(end)
            edges.append(file.read(wide))
        frontier: list[bytes] = []
        for hashes in reversed(edges):
            frontier += full_roots(hashes)
        if Frontier(checkpoint.size, frontier).root() != checkpoint.root:
            raise BadProofError(
                f"{tile_file(0, self._under)} and those above: their ends don't make the "
                "checkpoint's root",
                hint="take the dataset from its source again",
            )
        return tuple(ends), edges


def _offsets(
    index: int, last: list[int], begin: list[int], after: list[int]
) -> tuple[int, ...]:
    return tuple(
        begin[level] if _tile_of(level, index) == number else after[level]
        for level, number in enumerate(last)
    )


def _tile_of(level: int, index: int) -> int:
    """Return the number of the tile of *level* that leads to leaf *index*."""
    return index >> _LEVEL_BITS * (level + 1)


def _at(hashes: bytes, place: int) -> bytes:
    return hashes[place * HASH_BYTES : (place + 1) * HASH_BYTES]


def full_roots(hashes: bytes) -> Iterator[bytes]:
    """Yield the roots of the full subtrees in part of a tile, largest first."""
    first, rest = 0, len(hashes) // HASH_BYTES
    while rest:
        width = 1 << rest.bit_length() - 1
        yield root_of(hashes[first * HASH_BYTES : (first + width) * HASH_BYTES])
        first, rest = first + width, rest - width


def root_of(hashes: bytes) -> bytes:
    """Return the root over a power of two of joined hashes."""
    while len(hashes) > HASH_BYTES:
        hashes = b"".join(
            [
                sha256(b"\x01" + hashes[at : at + 2 * HASH_BYTES]).digest()
                for at in range(0, len(hashes), 2 * HASH_BYTES)
            ]
        )
    return hashes
