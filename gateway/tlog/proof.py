"""Proofs as text: of a leaf's inclusion (c2sp.org/tlog-proof@v1), and of a log's growth.

A consistency proof is written as witnesses take it (c2sp.org/tlog-witness): the old size,
hashes, and the newer checkpoint. The `extra` line that an inclusion proof may have is covered
by no signature; it is never written and refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.errors import BadProofError
from gateway.limits import NOTE_BYTES_MAX
from gateway.tlog.text import format_base64, parse_decimal, parse_hash, shown

HEADER: Final = "c2sp.org/tlog-proof@v1"

HASHES_MAX: Final = 63
"""The height of the largest tree."""


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """What shows that a leaf is in a log: its place, the hashes, and the signed checkpoint."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    """The whole signed note."""


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """What shows that a log only grew: its old size, the hashes, and the signed checkpoint."""

    old_size: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    """The whole signed note that it has grown into."""


def format_proof(proof: InclusionProof) -> str:
    """Return *proof* as text."""
    lines = [HEADER, f"index {proof.index}", *map(format_base64, proof.hashes)]
    return "\n".join(lines) + "\n\n" + proof.checkpoint


def parse_proof(text: str) -> InclusionProof:
    """Return the proof that *text* spells; its checkpoint stays unread.

    Raises:
        BadProofError: it spells none.
    """
    if len(text) > 2 * NOTE_BYTES_MAX:
        raise BadProofError("an inclusion proof is larger than any can be")
    head, found, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if not found or lines[0] != HEADER or len(lines) < 2:
        raise BadProofError(f"not an inclusion proof: it must begin with `{HEADER}`")
    if not lines[1].startswith("index "):
        raise BadProofError(f"expected `index` in the proof, found `{shown(lines[1])}`")
    if len(lines) - 2 > HASHES_MAX:
        raise BadProofError(f"an inclusion proof has at most {HASHES_MAX} hashes")
    return InclusionProof(
        index=parse_decimal(lines[1].removeprefix("index "), "the index of the proof"),
        hashes=tuple(parse_hash(line, "a hash of the proof") for line in lines[2:]),
        checkpoint=checkpoint,
    )


def format_consistency(proof: ConsistencyProof) -> str:
    """Return *proof* as text: the body of a witness's `add-checkpoint`."""
    lines = [f"old {proof.old_size}", *map(format_base64, proof.hashes)]
    return "\n".join(lines) + "\n\n" + proof.checkpoint


def parse_consistency(text: str) -> ConsistencyProof:
    """Return the consistency proof that *text* spells; its checkpoint stays unread.

    Raises:
        BadProofError: it spells none.
    """
    if len(text) > 2 * NOTE_BYTES_MAX:
        raise BadProofError("a consistency proof is larger than any can be")
    head, found, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if not found or not lines[0].startswith("old "):
        raise BadProofError("not a consistency proof: it must begin with `old` and a size")
    if len(lines) - 1 > HASHES_MAX:
        raise BadProofError(f"a consistency proof has at most {HASHES_MAX} hashes")
    return ConsistencyProof(
        old_size=parse_decimal(lines[0].removeprefix("old "), "the old size of the proof"),
        hashes=tuple(parse_hash(line, "a hash of the proof") for line in lines[1:]),
        checkpoint=checkpoint,
    )
