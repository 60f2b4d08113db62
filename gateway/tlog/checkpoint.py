"""Checkpoints (c2sp.org/tlog-checkpoint): origin, size and root of a log at one moment.

Not here: signatures; a checkpoint travels as the text of a signed note (`note.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import BadProofError
from gateway.tlog.merkle import EMPTY_ROOT
from gateway.tlog.note import check_name
from gateway.tlog.text import format_base64, parse_decimal, parse_hash


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says about itself: its name, how many leaves it has, and their root."""

    origin: str
    size: int
    root: bytes


def format_checkpoint(checkpoint: Checkpoint) -> str:
    """Return the three lines of *checkpoint*."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{format_base64(checkpoint.root)}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint that *text* spells; extension lines are refused.

    Raises:
        BadProofError: it spells none.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise BadProofError("a checkpoint has three lines: origin, size, root")
    check_name(lines[0])
    size = parse_decimal(lines[1], "the size of the checkpoint")
    root = parse_hash(lines[2], "the root of the checkpoint")
    if size == 0 and root != EMPTY_ROOT:
        raise BadProofError("the root of an empty log is not that of an empty tree")
    return Checkpoint(lines[0], size, root)
