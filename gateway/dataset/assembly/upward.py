"""What a build reads above its rows: many leaves at once, each opened once.

A leaf above a row is shown to be under the checkpoint as it is read, and its key to be one that
might sign there. The signature of every leaf that was looked at is checked beside the other
work (`signed.py`), before anything is signed or added to the ledger.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from gateway.dataset.above import UnresolvedParentError, opened, parents_of
from gateway.dataset.assembly.covered import Covered
from gateway.dataset.assembly.marks import Marks
from gateway.dataset.assembly.signed import Signatures
from gateway.dataset.facts import named_key
from gateway.errors import LedgerDamagedError, MalformedReceiptError, NotFoundError
from gateway.receipt.model import Derivation

_LEAVES_REMEMBERED: Final = 1_024
"""Leaves above rows that are kept: rows of one batch have the same parents."""

Leaves = Callable[[Iterable[int]], Iterable[tuple[int, bytes]]]
"""Gives the leaves at rising indices, with those, many at a time."""


class Upward:
    """Reads the leaves above rows."""

    def __init__(
        self,
        covered: Covered,
        signatures: Signatures,
        leaf: Callable[[int], bytes],
        leaves: Leaves,
    ) -> None:
        self._covered = covered
        self._signatures = signatures
        self._leaf = leaf
        self._leaves = leaves
        self._known: collections.OrderedDict[int, bytes] = collections.OrderedDict()
        self._seen = Marks()
        """Leaves whose signature was checked, or will be."""

    def fetch(self, derivation: Derivation, index: int, places: Iterable[int]) -> None:
        """Read what stands above some rows of the *derivation* at *index*, before it is asked.

        Nothing is refused here for what a row names: who finds a parent says what is wrong.

        Raises:
            LedgerDamagedError: a leaf is not the one that the checkpoint covers.
        """
        rows = [(derivation, index, place) for place in places]
        room = _LEAVES_REMEMBERED
        while rows and room > 0:
            wanted: set[int] = set()
            named: set[tuple[int, int]] = set()
            for child, below, place in rows:
                try:
                    parents = list(parents_of(child, place))
                except UnresolvedParentError:
                    continue
                for parent in parents:
                    if 0 <= parent.index < min(below, self._covered.size):
                        wanted.add(parent.index)
                        named.add((parent.index, parent.choice))
            missing = sorted(wanted - self._known.keys())[:room]
            room -= len(missing)
            for at, leaf in self._leaves(missing):
                self._take(at, leaf)
            rows = [
                (above, at, choice)
                for at, choice in sorted(named)
                if (above := self._derivation(at)) is not None
            ]

    def find(self, index: int) -> bytes:
        """Return the leaf at *index*, which something that was taken was made from.

        Raises:
            UnresolvedParentError: the checkpoint covers none there.
            LedgerDamagedError: it is not the one that the checkpoint covers.
        """
        known = self._known.get(index)
        if known is not None:
            self._known.move_to_end(index)
            return known
        if not 0 <= index < self._covered.size:
            raise UnresolvedParentError(f"the log has no leaf {index} yet")
        try:
            leaf = self._leaf(index)
        except NotFoundError as exc:
            raise UnresolvedParentError(exc.message) from exc
        self._take(index, leaf)
        return leaf

    def again(self, indices: Iterable[int]) -> Iterator[tuple[int, bytes, str | None]]:
        """Yield the leaves at rising *indices*, which were found before, and who signed each.

        Raises:
            LedgerDamagedError: one was never found, or is another by now.
        """
        for index, leaf in self._leaves(indices):
            if index not in self._seen:
                raise LedgerDamagedError(f"leaf {index}: it stands above a row, unread")
            keyid = named_key(leaf)
            if keyid is None:
                keyid = self._covered.statement(index, leaf)[1]
            else:
                self._covered.check(index, leaf)
            yield index, leaf, keyid

    def _take(self, index: int, leaf: bytes) -> None:
        if self._seen.add(index):
            self._covered.put_off(index, leaf, self._signatures)
        else:
            self._covered.check(index, leaf)
        self._known[index] = leaf
        if len(self._known) > _LEAVES_REMEMBERED:
            self._known.popitem(last=False)

    def _derivation(self, index: int) -> Derivation | None:
        leaf = self._known.get(index)
        if leaf is None:
            return None
        try:
            _, statement = opened(leaf)
        except MalformedReceiptError:
            return None
        return statement if isinstance(statement, Derivation) else None
