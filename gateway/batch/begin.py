"""A batch begins, of requests that an earlier exchange handed in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from gateway.batch.errand import Incoming, Known, OfMany
from gateway.batch.model import Set, decode_set
from gateway.budget.estimate import LinesSum
from gateway.errors import BatchRefusedError
from gateway.exchange.providers import Provider
from gateway.exchange.rule import Law
from gateway.exchange.states import Answered, Asked, Forbidden, Held, Permitted
from gateway.ident import ExchangeId
from gateway.ledger.reading.register import Register
from gateway.provider.batch import Batches
from gateway.provider.model import ProviderCall, Resource
from gateway.store.lines import Lines


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """Looks up what a batch is to begin with."""

    law: Law
    register: Register
    lines: Lines
    known: Known

    async def begin(
        self,
        asked: Asked,
        provider: Provider,
        batches: Batches,
        named: Resource,
        incoming: Incoming,
        close: Callable[[], None] = lambda: None,
    ) -> Begin:
        """Return the beginning of a batch of what is *named*; it calls *close* at its end.

        Raises:
            BatchRefusedError: nobody judged that, or it is for another use.
        """
        kept = await asyncio.to_thread(self.known.resource, provider.id, named.kind, named.id)
        owner = (asked.principal.name, asked.principal.project)
        found = None
        if kept is not None and (kept.principal, kept.project) == owner:
            found = await self._set_of(kept.exchange)
        if kept is None or found is None or not found.forwarded:
            raise BatchRefusedError(
                f"nobody judged the lines of `{named.id[:64]}`",
                hint="send the file through this gateway, as a batch, and begin it then",
                code="batch.unjudged",
            )
        meant = (found.declaration, found.declared)
        if incoming.declared and (asked.declaration.id, asked.declared) != meant:
            raise BatchRefusedError(
                f"the file was handed in under {_said(found)}",
                hint="begin the batch under the same declaration, or say nothing",
                code="batch.declared_otherwise",
            )
        declaration = self.register.declaration(found.declaration) or found.declared_as()
        now = msgspec.structs.replace(asked, declaration=declaration, declared=found.declared)
        return Begin(
            now,
            self,
            provider,
            kept.exchange,
            found,
            asked_at=batches.asked_at(asked.call),
            close=close,
        )

    async def _set_of(self, exchange: ExchangeId) -> Set | None:
        handed = await asyncio.to_thread(self.lines.handed, exchange)
        return None if handed is None else decode_set(handed.about)


class Begin(OfMany):
    """A batch of requests that an earlier exchange handed in."""

    def __init__(
        self,
        asked: Asked,
        room: Beginning,
        provider: Provider,
        handed_in: ExchangeId,
        found: Set,
        *,
        asked_at: str | None,
        close: Callable[[], None],
    ) -> None:
        super().__init__(asked, room.law, room.lines, provider, found, asked_at)
        self._handed_in = handed_in
        self._close = close

    async def close(self, outcome: Answered | Held | Forbidden | None) -> None:
        """Let go of what was put aside of a body that only names what was handed in."""
        self._close()

    def begun(self) -> Sequence[tuple[ProviderCall, LinesSum]]:
        """Return the requests that begin with it."""
        return self.kinds()

    async def opened(self, permitted: Permitted) -> None:
        """Remember what is asked for, and how each kind of it was ruled on."""
        await self.begins(permitted.asked.exchange, self._handed_in)


def _said(found: Set) -> str:
    return f"declaration `{found.declaration}`" if found.declared else "no declaration"
