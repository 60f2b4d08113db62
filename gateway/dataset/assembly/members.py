"""State which leaves a dataset was made from, as bits.

The parts stand in the log before the manifest that they name; without it they mean nothing.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator

from gateway.dataset.assembly.marks import Marks
from gateway.ident import Sha256
from gateway.receipt.model import Members, Writer


def members_of(
    members: Marks, *, manifest: Sha256, dataset: str, at: str, writer: Writer
) -> Iterator[Members]:
    """Yield the statements that list *members*, leaf indices, in order."""
    pages = list(members.pages())
    for part, (first, bits) in enumerate(pages):
        yield Members(
            manifest=manifest,
            dataset=dataset,
            part=part,
            parts=len(pages),
            first=first,
            bits=base64.b64encode(zlib.compress(bits.rstrip(b"\0"), 9)).decode(),
            at=at,
            writer=writer,
        )
