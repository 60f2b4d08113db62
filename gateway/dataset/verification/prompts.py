"""The prompts that are held out of a dataset, so that none of them is learned from.

Of each, eight bytes of a digest are remembered. Two prompts count as one here where they are
spelt alike; what else is alike, the split by clusters keeps together when a dataset is built.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from pathlib import Path

from gateway.dataset.manifest import HELD_OUT
from gateway.dataset.shape import check_shape
from gateway.errors import EvidenceError
from gateway.limits import ROW_BYTES_MAX
from gateway.receipt.model import RowKind


class HeldOutPrompts:
    """The prompts of the rows in one `held-out.jsonl`."""

    def __init__(self, path: Path, kind: RowKind) -> None:
        """Read those of the folder at *path*; what is no row there counts as none yet.

        Whoever walks the rows finds what is wrong with such a line, and names it.
        """
        found: set[int] = set()
        with (path / HELD_OUT).open("rb") as lines:
            while line := lines.readline(ROW_BYTES_MAX):
                try:
                    found.add(_digest(line.removesuffix(b"\n"), kind))
                except EvidenceError:
                    continue
        self._digests = array("Q", sorted(found))

    def __len__(self) -> int:
        """Return how many different ones there are."""
        return len(self._digests)

    def has(self, line: bytes, kind: RowKind) -> bool:
        """Tell whether the prompt of the row *line* is held out.

        Raises:
            MalformedReceiptError: it is not a row of that kind.
        """
        digest = _digest(line, kind)
        place = bisect_left(self._digests, digest)
        return place < len(self._digests) and self._digests[place] == digest


def _digest(line: bytes, kind: RowKind) -> int:
    prompt = b"\n".join(check_shape(line, kind))
    return int.from_bytes(hashlib.blake2b(prompt, digest_size=8).digest(), "big")
