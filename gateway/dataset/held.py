"""What nothing may be learned from any more: something that it was made of was withdrawn.

A manifest is held where it was withdrawn, or a manifest above it, or a declaration, an exchange
or a derivation that a dataset above it was made from. The register knows what was withdrawn,
the index what was made of what. A withdrawn agreement holds nothing of itself: whoever rules
again finds its clauses no longer lifted, and refuses what needed it.

Of a dataset that does not say which leaves it was made from, only the declarations that its
manifest names are known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.intent.model import Declaration
from gateway.ledger.register import Register
from gateway.receipt.model import Verdict, Withdrawal
from gateway.store.index import Index
from gateway.store.lineage import Stage


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was found of a manifest, and as of when."""

    version: int
    """Of the register."""
    newest: int | None
    """The newest stage that was known; `None` where everything above was, so none matters."""
    withdrawal: Withdrawal | None


class HeldWords:
    """What people said, and what it reaches: the words that a gate asks for.

    It sees of the index what others have brought into it.
    """

    def __init__(self, register: Register, index: Index) -> None:
        self.register = register
        self.index = index
        # OWNED BY: held(), which one thread calls.
        self._held: dict[Sha256, _Answer] = {}
        self._places: dict[ExchangeId, int] = {}

    def verdicts(self, subject: DeclarationId | ExchangeId) -> list[tuple[int, Verdict]]:
        """Return every (leaf index, verdict) about *subject*, oldest first."""
        return self.register.verdicts(subject)

    def withdrawn(self, subject: DeclarationId | ExchangeId | Sha256) -> Withdrawal | None:
        """Return the withdrawal of a declaration, an exchange or a manifest, if any."""
        return self.register.withdrawn(subject)

    def approval(
        self, declaration: DeclarationId, holding: Iterable[tuple[str, str]]
    ) -> int | None:
        """Return the verdict that answers every *holding* (policy, clause) with yes."""
        return self.register.approval(declaration, holding)

    def declaration(self, declaration: DeclarationId) -> Declaration | None:
        """Return the registered declaration of that id."""
        return self.register.declaration(declaration)

    def held(self, manifest: Sha256) -> Withdrawal | None:
        """Return the withdrawal of a manifest, or of anything that it was made of, if any.

        Raises:
            LedgerUnwellError: the index can't be read at present.
        """
        known = self._held.get(manifest)
        if (
            known is not None
            and known.version == self.register.version
            and (known.newest is None or known.newest == self.index.lineage.newest())
        ):
            return known.withdrawal
        version, newest = self.register.version, self.index.lineage.newest()
        stage = self.index.lineage.stage(manifest)
        above = [] if stage is None else self.index.lineage.above(stage)
        complete = bool(above) and all(one.leaf is not None for one in above)
        withdrawal = self.register.withdrawn(manifest) or self._over(above)
        self._held[manifest] = _Answer(version, None if complete else newest, withdrawal)
        return withdrawal

    def _over(self, above: list[Stage]) -> Withdrawal | None:
        """Return a withdrawal of one of *above*, the nearest first, or of what they are of."""
        for stage in above:
            withdrawal = self.register.withdrawn(stage.manifest)
            if withdrawal is not None:
                return withdrawal
        for declaration in self._declarations(above):
            withdrawal = self.register.withdrawn(declaration)
            if withdrawal is not None:
                return withdrawal
        datasets = [stage for stage in above if stage.kind == "dataset"]
        for withdrawal in self.register.withdrawals():
            if self._reaches(withdrawal, datasets):
                return withdrawal
        return None

    def _declarations(self, above: list[Stage]) -> Iterator[DeclarationId]:
        for stage in above:
            for _, value, _ in self.index.lineage.mentions(stage, "declaration"):
                yield DeclarationId(value)

    def _reaches(self, withdrawal: Withdrawal, datasets: list[Stage]) -> bool:
        """Tell whether a leaf that one of *datasets* was made from is under a withdrawal."""
        subject = withdrawal.exchange or withdrawal.derivation
        if subject is not None:
            leaf = self._place_of(subject)
            return leaf is not None and any(
                self.index.lineage.holds(dataset, leaf) for dataset in datasets
            )
        if withdrawal.declaration is not None and datasets:
            # The manifest names what the calls were declared for, and not what pipelines were.
            words = [("kind", "derivation"), ("declaration", withdrawal.declaration)]
            return bool(self.index.lineage.made_from(words, datasets))
        return False

    def _place_of(self, subject: ExchangeId) -> int | None:
        known = self._places.get(subject)
        if known is None:
            known = self.index.named(subject)
            if known is not None:
                self._places[subject] = known
        return known
