"""What the ledger's statements add up to today: declarations, verdicts, withdrawals.

Nothing is edited: the register is a fold over leaves, in order, and can be made again at any
time. Its version rises with every statement that can change a ruling.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.intent.model import Declaration
from gateway.receipt.model import (
    DeclarationFacts,
    Statement,
    Verdict,
    Withdrawal,
)
from gateway.store.index import Kind

KINDS: Final[tuple[Kind, ...]] = ("declaration", "verdict", "withdrawal")
"""The kinds of statement (as the index names them) that the register is made of."""


class Register:
    """The present, folded from the past; one writer, the event loop or a command."""

    def __init__(self) -> None:
        # OWNED BY: apply(). Readers on the same thread need no lock.
        self.version = 0
        self._declarations: dict[DeclarationId, DeclarationFacts] = {}
        self._verdicts: dict[str, list[tuple[int, Verdict]]] = {}
        self._withdrawals: dict[str, Withdrawal] = {}

    def fold(self, statements: Iterable[tuple[int, Statement]]) -> None:
        """Apply every (leaf index, statement) in order."""
        for index, statement in statements:
            self.apply(index, statement)

    def apply(self, index: int, statement: Statement) -> bool:
        """Take in one statement; tell whether it can change a ruling.

        Applying a statement twice changes nothing.
        """
        match statement:
            case DeclarationFacts():
                if statement.declaration in self._declarations:
                    return False
                self._declarations[statement.declaration] = statement
            case Verdict():
                said = self._verdicts.setdefault(_subject_of(statement), [])
                if any(index == known for known, _ in said):
                    return False
                said.append((index, statement))
            case Withdrawal():
                subject = _subject_of(statement)
                if subject in self._withdrawals:
                    return False
                self._withdrawals[subject] = statement
            case _:
                return False
        self.version += 1
        return True

    def declaration(self, declaration: DeclarationId) -> Declaration | None:
        """Return the registered declaration of that id."""
        facts = self._declarations.get(declaration)
        if facts is None:
            return None
        return Declaration(
            id=facts.declaration,
            project=facts.project,
            use=facts.use,
            owner=facts.owner,
            expires=facts.expires,
        )

    def declarations(self) -> list[DeclarationFacts]:
        """Return every registered declaration, oldest first."""
        return list(self._declarations.values())

    def approval(
        self, declaration: DeclarationId, holding: Iterable[tuple[str, str]]
    ) -> int | None:
        """Return the leaf index of the verdict that answers every *holding* (policy, clause).

        The newest verdict on the declaration speaks alone: a later no ends an earlier yes. An
        approval covers exactly the clauses it names; others still hold.
        """
        said = self._verdicts.get(declaration)
        if not said:
            return None
        index, newest = said[-1]
        if not newest.approved:
            return None
        answered: set[tuple[str, str]] = set()
        # Approvals since the last no add up: each answers the clauses it names.
        for _, verdict in reversed(said):
            if not verdict.approved:
                break
            answered.update((c.policy, clause) for c in verdict.covers for clause in c.clauses)
        wanted = set(holding)
        return index if wanted and wanted <= answered else None

    def declined(self, declaration: DeclarationId) -> Verdict | None:
        """Return the newest verdict on *declaration* if it is a no."""
        said = self._verdicts.get(declaration)
        return said[-1][1] if said and not said[-1][1].approved else None

    def verdicts(self, subject: DeclarationId | ExchangeId) -> list[tuple[int, Verdict]]:
        """Return every (leaf index, verdict) about *subject*, oldest first."""
        return list(self._verdicts.get(subject, ()))

    def withdrawn(self, subject: DeclarationId | ExchangeId | Sha256) -> Withdrawal | None:
        """Return the withdrawal of a declaration, an exchange or a manifest, or `None`."""
        return self._withdrawals.get(subject)


def _subject_of(statement: Verdict | Withdrawal) -> str:
    """Return the id of what *statement* is about; ids of different kinds never look alike."""
    if statement.declaration is not None:
        return statement.declaration
    if statement.exchange is not None:
        return statement.exchange
    return getattr(statement, "manifest", None) or ""
