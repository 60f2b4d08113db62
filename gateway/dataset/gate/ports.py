"""What the gate asks of others: the policies, and what people said."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Protocol

from gateway.dataset.calls import Call
from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.intent.model import IntendedUse
from gateway.receipt.model import Ruling, Verdict, Withdrawal


class Law(Protocol):
    """The policies, as far as the gate needs them."""

    def rule(self, use: IntendedUse, call: Call, on: dt.date) -> Ruling:
        """Return the ruling on *use* of what *call* gave, under the policies of that day."""
        ...


class Words(Protocol):
    """What people said, as far as the gate needs it; the ledger's register keeps it."""

    def verdicts(self, subject: DeclarationId | ExchangeId) -> list[tuple[int, Verdict]]:
        """Return every (leaf index, verdict) about *subject*, oldest first."""
        ...

    def withdrawn(self, subject: DeclarationId | ExchangeId | Sha256) -> Withdrawal | None:
        """Return the withdrawal of a declaration, an exchange or a manifest, if any."""
        ...

    def held(self, manifest: Sha256) -> Withdrawal | None:
        """Return the withdrawal of a manifest, or of anything that it was made of, if any."""
        ...

    def approval(
        self, declaration: DeclarationId, holding: Iterable[tuple[str, str]]
    ) -> int | None:
        """Return the verdict that answers every *holding* (policy, clause) with yes."""
        ...
