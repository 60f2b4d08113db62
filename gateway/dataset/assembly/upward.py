"""What a build reads above its rows: many leaves at once, each opened once.

A leaf above a row is shown to be under the checkpoint as it is read, and its key to be one that
might sign there. The signatures are checked when all rows are there, in pages and by several
processes (`signed.py`), over every leaf that was looked at, and before anything is signed or
added to the ledger.
"""

from __future__ import annotations

import collections
import heapq
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from gateway.dataset.above import UnresolvedParentError, opened, parents_of
from gateway.dataset.assembly.covered import Covered
from gateway.dataset.assembly.signed import check_signatures, receipt_keys, signed_leaves
from gateway.dataset.verification.facts import named_key
from gateway.errors import LedgerDamagedError, MalformedReceiptError, NotFoundError
from gateway.receipt.authority import Authority
from gateway.receipt.model import Derivation

_LEAVES_REMEMBERED: Final = 1_024
"""Leaves above rows that are kept: rows of one batch have the same parents."""

_UNSORTED_MAX: Final = 1 << 20

Leaves = Callable[[Iterable[int]], Iterable[tuple[int, bytes]]]
"""Gives the leaves at rising indices, with those, many at a time."""


class Upward:
    """Reads the leaves above rows."""

    def __init__(
        self,
        covered: Covered,
        authority: Authority,
        leaf: Callable[[int], bytes],
        leaves: Leaves,
    ) -> None:
        self._covered = covered
        self._authority = authority
        self._leaf = leaf
        self._leaves = leaves
        self._known: collections.OrderedDict[int, bytes] = collections.OrderedDict()
        self._waiting = _Once()
        """Leaves of which the signature was not checked as yet."""
        self._done = _Once()

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

    def checked(self) -> Iterator[tuple[int, bytes, str | None]]:
        """Yield every leaf that was found, by rising index, its signature checked; and its key.

        Raises:
            LedgerDamagedError: a signature does not verify, or a leaf is another by now.
        """
        return heapq.merge(self._checked_now(), self._checked_before(), key=lambda one: one[0])

    def _checked_now(self) -> Iterator[tuple[int, bytes, str | None]]:
        keys = receipt_keys(self._authority)
        for index, leaf, signed in signed_leaves(
            iter(self._leaves(self._waiting.all())), self._authority
        ):
            wrong = None if signed else check_signatures(keys, ((index, leaf),))
            if wrong is not None:
                raise LedgerDamagedError(
                    wrong, hint="run `gateway ledger fsck`; nothing was built"
                )
            self._covered.check(index, leaf)
            yield index, leaf, named_key(leaf)

    def _checked_before(self) -> Iterator[tuple[int, bytes, str | None]]:
        for index, leaf in self._leaves(self._done.all()):
            yield index, leaf, self._covered.statement(index, leaf)[1]

    def _take(self, index: int, leaf: bytes) -> None:
        # A manifest names no key, and a key's own statement is signed by no receipt key: these
        # are few, and checked at once.
        put_off = self._covered.may_wait(leaf)
        self._covered.statement(index, leaf, signed=put_off)
        (self._waiting if put_off else self._done).add(index)
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


class _Once:
    """Numbers, each kept once, in eight bytes."""

    def __init__(self) -> None:
        self._numbers = array("Q")
        self._sorted_to = 0

    def add(self, number: int) -> None:
        """Add one more."""
        self._numbers.append(number)
        if len(self._numbers) > 2 * self._sorted_to + _UNSORTED_MAX:
            self.all()

    def all(self) -> array[int]:
        """Return all of them, rising."""
        import numpy as np  # noqa: PLC0415  only where rows were made of others

        if self._numbers:
            unique = np.unique(np.frombuffer(self._numbers, np.uint64))
            self._numbers = array("Q", unique.tobytes())
            self._sorted_to = len(self._numbers)
        return self._numbers
