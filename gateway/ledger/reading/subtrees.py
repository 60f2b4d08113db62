"""Roots of parts of the ledger's tree, with little reading.

What is full and large comes from the store's tiles of 256 hashes; where one is missing it is
made from what is below it. A proof then costs some hundred hashes, whatever the size.
"""

from __future__ import annotations

import threading
from typing import Final

from gateway.limits import SUBTREES_REMEMBERED_MAX
from gateway.store.ports import LedgerStore, TileStore
from gateway.tlog.merkle import EMPTY_ROOT, HASH_BYTES, leaf_hash, node_hash, root_of
from gateway.tlog.tile import TILE_WIDTH

_LEVEL_BITS: Final = 8
_TILES_REMEMBERED_MAX: Final = 128


class Subtrees:
    """Computes roots of ranges of leaves as RFC 6962 cuts them, and remembers full ones."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._tiles = store if isinstance(store, TileStore) else None
        self._lock = threading.Lock()
        # OWNED BY: whoever holds the lock.
        self._size = 0
        self._full: dict[tuple[int, int], bytes] = {}
        self._read: dict[tuple[int, int], bytes] = {}

    def root(self, first: int, stop: int) -> bytes:
        """Return the root of the leaves *first* up to, not including, *stop*."""
        with self._lock:
            self._size = max(self._size, stop)
            return self._root(first, stop - first)

    def tile(self, level: int, number: int, width: int) -> bytes:
        """Return the first *width* hashes of a tile, joined; the ledger must reach that far."""
        first = number * TILE_WIDTH
        with self._lock:
            self._size = max(self._size, first + width << _LEVEL_BITS * level)
            return b"".join(self._hashes(level, first, width))

    def _root(self, first: int, width: int) -> bytes:
        if width == 0:
            return EMPTY_ROOT
        if width & (width - 1) == 0:
            return self._full_root(first, width)
        left = 1 << (width - 1).bit_length() - 1
        return node_hash(self._root(first, left), self._root(first + left, width - left))

    def _full_root(self, first: int, width: int) -> bytes:
        """Return the root of *width* leaves, a power of two, from *first*, a multiple of it."""
        known = self._full.get((first, width))
        if known is not None:
            return known
        level, rest = divmod(width.bit_length() - 1, _LEVEL_BITS)
        nodes = self._hashes(level, first >> _LEVEL_BITS * level, 1 << rest)
        if len(self._full) > SUBTREES_REMEMBERED_MAX:
            self._full.clear()
        spanned = 1 << _LEVEL_BITS * level
        while len(nodes) > 1:
            nodes = [node_hash(*pair) for pair in zip(nodes[::2], nodes[1::2], strict=True)]
            spanned *= 2
            for place, node in enumerate(nodes):
                self._full[first + place * spanned, spanned] = node
        return nodes[0]

    def _hashes(self, level: int, first: int, count: int) -> list[bytes]:
        """Return hashes *first* to *first* + *count* of a level; they stand in one tile."""
        tile = self._tile(level, first // TILE_WIDTH)
        if tile is not None:
            start = first % TILE_WIDTH
            return _split(tile)[start : start + count]
        if level == 0:
            return [leaf_hash(leaf) for leaf in self._store.leaves(first, first + count)]
        return self._tile_roots(level - 1, first, count)

    def _tile(self, level: int, number: int) -> bytes | None:
        """Return a tile's hashes, joined, or `None` if it is not full yet."""
        if (number + 1) << _LEVEL_BITS * (level + 1) > self._size:
            return None
        tile = self._read.get((level, number))
        if tile is None:
            tile = self._tiles.tile(level, number) if self._tiles else None
            if tile is None:
                tile = self._make_tile(level, number)
            if len(self._read) >= _TILES_REMEMBERED_MAX:
                del self._read[next(iter(self._read))]
            self._read[level, number] = tile
        return tile

    def _make_tile(self, level: int, number: int) -> bytes:
        first = number * TILE_WIDTH
        if level == 0:
            leaves = self._store.leaves(first, first + TILE_WIDTH)
            tile = b"".join(leaf_hash(leaf) for leaf in leaves)
        else:
            tile = b"".join(self._tile_roots(level - 1, first, TILE_WIDTH))
        if self._tiles is not None:
            self._tiles.keep_tile(level, number, tile)
        return tile

    def _tile_roots(self, level: int, first: int, count: int) -> list[bytes]:
        stop = first + count
        kept = {} if self._tiles is None else self._tiles.tile_roots(level, first, stop)
        roots = []
        for number in range(first, stop):
            root = kept.get(number)
            if root is None:
                tile = self._tile(level, number)
                if tile is None:
                    raise IndexError(f"tile {number} of level {level} is not full")
                root = root_of(_split(tile))
            roots.append(root)
        return roots


def _split(tile: bytes) -> list[bytes]:
    return [tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)]
