"""Remember which rows were seen, in eight bytes each.

Of a row's SHA-256 the first eight bytes are kept. Among ten million rows two different ones
that agree in them are met once in four hundred thousand times; the later one is then left out.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Final

_RECENT_MAX: Final = 1 << 16


class Digests:
    """A set of digests: the newest as they came, all others sorted."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted = array("Q")

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._recent) + len(self._sorted)

    def add(self, digest: bytes) -> bool:
        """Add one; tell whether it is new."""
        short = int.from_bytes(digest[:8], "big")
        if short in self._recent:
            return False
        place = bisect_left(self._sorted, short)
        if place < len(self._sorted) and self._sorted[place] == short:
            return False
        self._recent.add(short)
        if len(self._recent) >= _RECENT_MAX:
            self._sort()
        return True

    def _sort(self) -> None:
        import numpy as np  # noqa: PLC0415  only where there are many

        recent = np.fromiter(self._recent, np.uint64, len(self._recent))
        older = np.frombuffer(self._sorted, np.uint64) if self._sorted else recent[:0]
        self._sorted = array("Q", np.union1d(older, recent).tobytes())
        self._recent.clear()
