"""Copy a ledger from one store to another, leaf by leaf, with every index and every root.

Nothing is believed: the tree is computed anew from what is read, compared with whatever the
source has kept of it, and once more from what the target gives back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import LedgerDamagedError
from gateway.ledger.custody.fsck import KeepsFrontiers
from gateway.limits import STATEMENTS_PER_COMMIT_MAX
from gateway.store.ports import LedgerStore
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import Frontier, leaf_hash

Progress = Callable[[int, int], None]
"""Called with how many leaves are done, and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What was copied."""

    size: int
    root: bytes
    found: int
    """How many leaves the target had already."""


def copy_leaves(
    source: LedgerStore,
    target: LedgerStore,
    published: tuple[tuple[str, Checkpoint], ...],
    progress: Progress,
) -> Copied:
    """Copy what the target lacks; durable on return. Done again, it goes on where it was.

    *published* are the checkpoints that are known, and what they are called.

    Raises:
        LedgerDamagedError: the source is not what it was, or the target holds something else.
    """
    size, found = source.head().size, target.head()
    if found.size > size:
        raise _other(f"has {found.size} leaves, more than the {size} here")
    expected: dict[int, list[tuple[str, bytes]]] = {}
    for name, checkpoint in published:
        if checkpoint.size > size:
            raise LedgerDamagedError(
                f"{name} covers {checkpoint.size} leaves, the ledger has {size}",
                hint="restore the newest copy, never an older one",
            )
        expected.setdefault(checkpoint.size, []).append((name, checkpoint.root))
    grown = Frontier()
    leaves = source.leaves(0, size)
    while grown.size < size:
        # The commit that would straddle the end of what is there ends with it.
        goal = found.size if grown.size < found.size else size
        count = min(STATEMENTS_PER_COMMIT_MAX, goal - grown.size)
        batch = list(itertools.islice(leaves, count))
        hashes = [leaf_hash(leaf) for leaf in batch]
        _push(source, grown, hashes, expected)
        if grown.size == found.size and grown.hashes != found.frontier:
            raise _other("holds other leaves than these")
        if grown.size > found.size:
            appended = target.append(batch, hashes)
            if appended.head.size != grown.size or appended.head.frontier != grown.hashes:
                raise _other("was written to by others meanwhile")
        progress(grown.size, 2 * size)
    _read_back(target, grown, progress)
    return Copied(size=size, root=grown.root(), found=found.size)


def _push(
    source: LedgerStore,
    grown: Frontier,
    hashes: list[bytes],
    expected: dict[int, list[tuple[str, bytes]]],
) -> None:
    """Let the tree grow, and compare it with what is known of it on the way."""
    first = grown.size
    kept = (
        source.frontiers(first, first + len(hashes))
        if isinstance(source, KeepsFrontiers)
        else {}
    )
    for one in hashes:
        grown.push(one)
        if kept.get(grown.size, grown.hashes) != grown.hashes:
            raise LedgerDamagedError(
                f"the ledger keeps another frontier for its first {grown.size} leaves",
                hint="run `gateway ledger fsck`; a damaged ledger is not moved",
            )
        for name, root in expected.get(grown.size, ()):
            if root != grown.root():
                raise LedgerDamagedError(
                    f"{name} has another root for the first {grown.size} leaves",
                    hint="run `gateway ledger fsck`; a damaged ledger is not moved",
                )


def _read_back(target: LedgerStore, grown: Frontier, progress: Progress) -> None:
    again = Frontier()
    for leaf in target.leaves(0, grown.size):
        again.push(leaf_hash(leaf))
        if again.size % STATEMENTS_PER_COMMIT_MAX == 0:
            progress(grown.size + again.size, 2 * grown.size)
    if again.hashes != grown.hashes or target.head().frontier != grown.hashes:
        raise _other("does not give back what it was given")


def _other(what: str) -> LedgerDamagedError:
    return LedgerDamagedError(
        f"the database {what}",
        hint="name a database without a ledger, or the one that this ledger was going to",
    )
