"""An errand: what an exchange about a batch has to do beside being passed on.

The exchange walks through the house like any other, and at each door its errand does for every
line what the house does for the exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from gateway.batch.model import Begun, Set, encode
from gateway.batch.results import Results
from gateway.budget.estimate import LinesSum
from gateway.exchange.allowance import Reserved
from gateway.exchange.forward import ProviderResponse
from gateway.exchange.providers import Provider
from gateway.exchange.rule import Law, Ruled
from gateway.exchange.states import Answered, Asked, Forbidden, Held, Permitted
from gateway.ident import ExchangeId
from gateway.provider.model import Problem, ProviderCall
from gateway.receipt.model import Ruling
from gateway.store.index.rows import Kept
from gateway.store.lines import Asking, Lines

HEADER: Final = "x-gateway-lines"
"""Says what is done about lines that may not leave: `refuse` (all of them stay) or `drop`."""


class Known(Protocol):
    """What the ledger knows; both may block."""

    def resource(self, provider: str, kind: str, id: str) -> Kept | None:  # noqa: A002 — its name
        """Return what is known of a resource at *provider*, or `None`."""
        ...

    def find(self, exchange: ExchangeId) -> tuple[int, bytes] | None:
        """Return index and leaf of the statement that closed *exchange*, or `None`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """What the door knows of a request beside what is asked."""

    headers: Mapping[str, str]
    """By lower-case names."""
    encoded: bool
    """The body comes in a content-encoding."""
    chunks: AsyncIterator[bytes]
    length: int | None
    mode: str | None
    """What the caller wants done about lines that may not leave."""
    declared: bool
    """The request itself says what it is for; else it is the key, or nobody."""


class Errand:
    """An exchange about a batch; implements the walk's `Errand`."""

    drops: frozenset[bytes] = frozenset()
    """Headers that don't go on."""
    adds: tuple[tuple[bytes, bytes], ...] = ()
    """Headers that go on in the place of some."""
    reserved: Reserved | None = None
    """What is held of limits for the requests that begin with it; set by the door."""
    answer: tuple[tuple[bytes, bytes], ...] | None = None
    """Set where the gateway answers itself, with these headers, and forwards nothing."""

    def __init__(self, asked: Asked, law: Law) -> None:
        self.asked = asked
        """As it is asked now: with another body, or under another declaration."""
        self.law = law

    def rule(self, asked: Asked, provider: Provider) -> Ruled:
        """Return the ruling on the exchange itself."""
        return self.law.rule(asked, provider)

    def begun(self) -> Sequence[tuple[ProviderCall, LinesSum]]:
        """Return the requests that begin with it, kind by kind."""
        return ()

    async def opened(self, permitted: Permitted) -> None:
        """Do what must be durable before the provider is dialled."""

    def reader(self, permitted: Permitted, response: ProviderResponse) -> Results | None:
        """Return what reads the answer item by item, or `None` where it has none."""
        return None

    def problem(self, outcome: Held | Forbidden) -> Problem | None:
        """Return what the caller is told of a refusal, where that is about lines."""
        return None

    async def close(self, outcome: Answered | Held | Forbidden | None) -> None:
        """Let go of everything, however the exchange came out."""


class OfMany(Errand):
    """An errand that is ruled on for each kind of line that it is about."""

    def __init__(
        self,
        asked: Asked,
        law: Law,
        lines: Lines,
        provider: Provider,
        found: Set,
        asked_at: str | None,
    ) -> None:
        super().__init__(asked, law)
        self.lines = lines
        self.found = found
        self._asked_at = asked_at
        self._calls = [
            kind.call(provider.id, provider.dialect, asked_at) for kind in found.kinds
        ]
        self._rulings: tuple[Ruling, ...] = ()
        self.against: Ruled | None = None

    def rule(self, asked: Asked, provider: Provider) -> Ruled:
        """Return the ruling on the exchange itself, or the strictest against a line."""
        own = self.law.rule(asked, provider)
        self.against = None
        if own.ruling.effect != "permit":
            return own
        rulings: list[Ruling] = []
        for call in self._calls:
            ruled = self.law.rule(msgspec.structs.replace(asked, call=call), provider)
            rulings.append(ruled.ruling)
            if ruled.ruling.effect == "permit":
                continue
            if self.against is None or ruled.ruling.effect == "forbid":
                self.against = ruled
        self._rulings = tuple(rulings)
        return own if self.against is None else self.against

    def problem(self, outcome: Held | Forbidden) -> Problem | None:
        """Return what the caller is told of lines that may not leave."""
        if self.against is None:
            return None
        lines = self.found.lines
        told = self.told()
        ruling = self.against.ruling
        return Problem(
            status=403,
            code="batch.refused",
            message=f"lines of the batch are not permitted{listed(told)}",
            exchange=outcome.asked.exchange,
            reasons=tuple(
                {
                    "policy": reason.policy,
                    "clause": reason.clause,
                    "effect": reason.effect,
                    "because": reason.because,
                }
                for reason in ruling.reasons
            ),
            next_step=self.next_step(lines.count),
        )

    def told(self) -> Sequence[str]:
        """Return what is said of lines that may not leave."""
        against = self.against
        if against is None:
            return ()
        named = ", ".join(f"{one.policy}:{one.clause}" for one in against.ruling.reasons)
        return (f"{against.ruling.effect} by {named}",)

    def next_step(self, count: int) -> str:
        """Return what the caller may do, of *count* lines."""
        return "change what the use is declared for, or hand in other lines"

    def kinds(self) -> Sequence[tuple[ProviderCall, LinesSum]]:
        """Return what is asked for, kind by kind, and what each may come to together."""
        befores = (kind.before for kind in self.found.kinds)
        return list(zip(self._calls, befores, strict=True))

    async def begins(self, of: ExchangeId, handed_in: ExchangeId) -> None:
        """Remember that the exchange *of* begins what *handed_in* handed in."""
        asking = Asking(
            exchange=of,
            input=handed_in,
            about=encode(
                Begun(rulings=self._rulings, asked_at=self._asked_at, reserved=self.reserved)
            ),
        )
        await asyncio.to_thread(self.lines.ask, asking)


def listed(told: Sequence[str]) -> str:
    """Return what is *told*, for the end of a sentence."""
    return f": {'; '.join(told)}" if told else ""
