"""Puts full tiles of leaf hashes aside while somebody appends and has the hashes at hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from gateway.tlog.tile import TILE_WIDTH

_PENDING_MAX: Final = 1_024


class FullTiles:
    """The tiles of level 0 that were filled since they were last taken."""

    def __init__(self, size: int) -> None:
        # OWNED BY: add(). Leaf hashes since the last one that belongs to no kept tile.
        self._hashes: list[bytes] = []
        self._first = size
        # OWNED BY: add() at the tail, take() at the head.
        self._full: deque[tuple[int, list[bytes]]] = deque(maxlen=_PENDING_MAX)

    def add(self, first: int, hashes: Sequence[bytes]) -> None:
        """Take note of the hashes of the leaves from *first* on."""
        if first != self._first + len(self._hashes):
            # Others appended in between: a tile whose beginning nobody saw is left out.
            self._hashes, self._first = [], first
        self._hashes += hashes
        boundary = (first // TILE_WIDTH + 1) * TILE_WIDTH
        while boundary <= first + len(hashes):
            taken = boundary - self._first
            if taken >= TILE_WIDTH:
                tile = self._hashes[taken - TILE_WIDTH : taken]
                self._full.append((boundary // TILE_WIDTH - 1, tile))
            del self._hashes[:taken]
            self._first = boundary
            boundary += TILE_WIDTH

    def take(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield number and hashes of every tile that was filled, each once."""
        while self._full:
            yield self._full.popleft()
