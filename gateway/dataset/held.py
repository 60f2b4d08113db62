"""What nothing may be learned from any more: something that it was made of was withdrawn.

A manifest is held where it was withdrawn, or a manifest above it, or a declaration, an exchange
or a derivation that a dataset above it was made from. The register knows what was withdrawn,
the index what was made of what. A withdrawn agreement holds nothing of itself: whoever rules
again finds its clauses no longer lifted, and refuses what needed it.

Of a dataset that does not say which leaves it was made from, only the declarations that its
manifest names are known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.intent.model import Declaration
from gateway.ledger.reading.register import Register
from gateway.receipt.model import Verdict, Withdrawal
from gateway.store.index.index import Index
from gateway.store.index.lineage import Stage


@dataclass(slots=True, kw_only=True)
class _Past:
    """What a manifest was made of, and the withdrawals that were looked at."""

    above: list[Stage]
    manifests: frozenset[Sha256]
    declarations: frozenset[str]
    newest: int | None
    """The newest stage that was known; `None` where all above is, so that none can matter:
    nothing above is only named, and nothing began as weights from outside."""
    version: int | None = None
    """Of the register, when it was asked last."""
    seen: int = 0
    """How many withdrawals were looked at; there is no way back from one."""
    withdrawal: Withdrawal | None = None


class HeldWords:
    """What people said, and what it reaches: the words that a gate asks for.

    It sees of the index what others have brought into it.
    """

    def __init__(self, register: Register, index: Index) -> None:
        self.register = register
        self.index = index
        # OWNED BY: held(), which one thread calls.
        self._known: dict[Sha256, _Past] = {}
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
        past = self._known.get(manifest)
        if past is None or (
            past.newest is not None and past.newest != self.index.lineage.newest()
        ):
            past = self._known[manifest] = self._past_of(manifest)
        version = self.register.version
        if past.withdrawal is None and past.version != version:
            said = self.register.withdrawals()
            new = said[past.seen :]
            past.withdrawal = next((one for one in new if self._reaches(one, past)), None)
            past.version, past.seen = version, len(said)
        return past.withdrawal

    def _past_of(self, manifest: Sha256) -> _Past:
        lineage = self.index.lineage
        newest, stage = lineage.newest(), lineage.stage(manifest)
        above = [] if stage is None else lineage.above(stage)
        complete = bool(above) and all(one.leaf is not None for one in above)
        # A student may come into the log after one that began as its weights.
        complete = complete and not lineage.mentions_of(above, "began")
        named = lineage.mentions_of(above, "declaration").values()
        return _Past(
            above=above,
            manifests=frozenset([manifest, *(one.manifest for one in above)]),
            declarations=frozenset(value for some in named for _, value, _ in some),
            newest=None if complete else newest,
        )

    def _reaches(self, withdrawal: Withdrawal, past: _Past) -> bool:
        """Tell whether something of *past* was withdrawn."""
        datasets = [stage for stage in past.above if stage.kind == "dataset"]
        subject = withdrawal.exchange or withdrawal.derivation
        if subject is not None:
            leaf = self._place_of(subject)
            # What is not indexed yet stands after all that the stages above were made from.
            return leaf is not None and any(
                self.index.lineage.holds(dataset, leaf) for dataset in datasets
            )
        if withdrawal.declaration is not None:
            if withdrawal.declaration in past.declarations:
                return True
            # The manifest names what the calls were declared for, and not what pipelines were.
            words = [("kind", "derivation"), ("declaration", withdrawal.declaration)]
            return bool(datasets) and bool(self.index.lineage.made_from(words, datasets))
        return withdrawal.manifest in past.manifests

    def _place_of(self, subject: ExchangeId) -> int | None:
        known = self._places.get(subject)
        if known is None:
            known = self.index.named(subject)
            if known is not None:
                self._places[subject] = known
        return known
