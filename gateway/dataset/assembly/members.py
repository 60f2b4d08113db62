"""State which leaves a dataset was made from, as bits.

The parts stand in the log before the manifest that they name; without it they mean nothing.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gateway.ident import Sha256
from gateway.limits import MEMBERS_PER_LEAF
from gateway.receipt.model import Members, Writer

if TYPE_CHECKING:
    import numpy as np


def members_of(
    members: np.ndarray, *, manifest: Sha256, dataset: str, at: str, writer: Writer
) -> Iterator[Members]:
    """Yield the statements that list *members*, leaf indices that rise, in order."""
    import numpy as np  # noqa: PLC0415  only where a dataset is built

    numbers, begins = np.unique(members // MEMBERS_PER_LEAF, return_index=True)
    ends = [*begins[1:].tolist(), len(members)]
    for part, (number, begin, end) in enumerate(
        zip(numbers.tolist(), begins.tolist(), ends, strict=True)
    ):
        first = number * MEMBERS_PER_LEAF
        bits = np.zeros(MEMBERS_PER_LEAF, np.uint8)
        bits[(members[begin:end] - np.uint64(first)).astype(np.int64)] = 1
        packed = np.packbits(bits, bitorder="little").tobytes().rstrip(b"\0")
        yield Members(
            manifest=manifest,
            dataset=dataset,
            part=part,
            parts=len(numbers),
            first=first,
            bits=base64.b64encode(zlib.compress(packed, 9)).decode(),
            at=at,
            writer=writer,
        )
