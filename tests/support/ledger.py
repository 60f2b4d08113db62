"""Reads what a gateway wrote, beside the running process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gateway.receipt.model import (
    Abandonment,
    KeyAuthorization,
    KeyRevocation,
    Opening,
    Receipt,
    Refusal,
    Statement,
)
from gateway.receipt.statement import read_leaf, statement_subjects
from gateway.store.sqlite import SqliteLedger

Kind = TypeVar("Kind", bound=Statement)


class Written:
    """The leaves of one ledger since this was made."""

    def __init__(self, data: Path) -> None:
        self._file = data / "ledger.db"
        self.first = self._size()

    def _size(self) -> int:
        ledger = SqliteLedger(self._file)
        try:
            return ledger.head().size
        finally:
            ledger.close()

    def everything(self) -> list[bytes]:
        """Return the leaves so far; the first is the one at `first`."""
        ledger = SqliteLedger(self._file)
        try:
            return list(ledger.leaves(self.first, ledger.head().size))
        finally:
            ledger.close()

    def leaves(self) -> list[bytes]:
        """Return the leaves so far, but for what they say of keys."""
        about_keys = KeyAuthorization | KeyRevocation
        return [
            leaf for leaf in self.everything() if not isinstance(read_leaf(leaf), about_keys)
        ]

    def statements(self, kind: type[Kind]) -> list[Kind]:
        """Return the statements of one kind so far."""
        read = (read_leaf(leaf) for leaf in self.leaves())
        return [statement for statement in read if isinstance(statement, kind)]

    def unclosed(self) -> set[str]:
        """Return the exchanges that have an opening and no closing statement."""
        opened: set[str] = set()
        closed: set[str] = set()
        for statement in map(read_leaf, self.leaves()):
            if isinstance(statement, Opening):
                opened.add(statement.exchange)
            elif isinstance(statement, Receipt | Refusal | Abandonment):
                closed.add(statement.exchange)
        return opened - closed

    def until(self, true: Callable[[Written], bool], *, within_s: float = 120) -> None:
        """Wait until *true* holds of what was written."""
        deadline = time.monotonic() + within_s
        while not true(self):
            assert time.monotonic() < deadline, [read_leaf(leaf) for leaf in self.leaves()]
            time.sleep(0.02)

    def receipts(self, count: int) -> list[Receipt]:
        """Return the receipts once there are *count* and nothing is left open."""
        self.until(lambda now: len(now.statements(Receipt)) >= count and not now.unclosed())
        return self.statements(Receipt)


def answer_digests(leaves: list[bytes]) -> dict[str, str]:
    """Return the SHA-256 of each exchange's answer as its receipt names it."""
    found: dict[str, str] = {}
    for leaf in leaves:
        statement = read_leaf(leaf)
        if isinstance(statement, Receipt):
            digests = {subject.name: subject.digest for subject in statement_subjects(leaf)}
            found[statement.exchange] = digests["response.body"]["sha256"]
    return found
