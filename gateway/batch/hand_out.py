"""Results of a batch are handed out: where they come from, and who reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.batch.errand import Errand, Known
from gateway.batch.model import Source, decode_begun, decode_set
from gateway.batch.results import Document, Results
from gateway.exchange.allowance import Allowance
from gateway.exchange.forward import ProviderResponse
from gateway.exchange.items import Items
from gateway.exchange.providers import Provider
from gateway.exchange.rule import Law
from gateway.exchange.states import Answered, Asked, Permitted
from gateway.ident import ExchangeId
from gateway.provider.batch import Batches
from gateway.provider.model import Resource
from gateway.receipt.model import Receipt
from gateway.receipt.statement import read_leaf
from gateway.store.lines import Lines

_OUTPUTS: Final = frozenset({"output", "errors"})


@dataclass(frozen=True, kw_only=True)
class HandingOut:
    """Finds out what an answer is the results of."""

    law: Law
    lines: Lines
    items: Items
    known: Known
    on_item: Callable[[Answered], None]
    allowance: Allowance
    """Told of each item once it is durable: its usage is counted here and nowhere else."""

    async def hand_out(
        self, asked: Asked, provider: Provider, batches: Batches, named: Resource
    ) -> Errand | None:
        """Return what reads the results that are *named*; `None`: they are none of ours."""
        kept = await asyncio.to_thread(self.known.resource, provider.id, named.kind, named.id)
        if kept is not None and named.kind != "batch":
            kind, _, name = (kept.of or "").partition("/")
            if kept.role not in _OUTPUTS or kind != "batch":
                return None
            kept = await asyncio.to_thread(self.known.resource, provider.id, kind, name)
        if kept is None:
            return None
        found = await asyncio.to_thread(self._source, kept.exchange)
        if found is None:
            return None
        source, receipt = found
        return _HandOut(asked, self, provider, batches, source, receipt)

    def _source(self, of: ExchangeId) -> tuple[Source, Receipt] | None:
        """Return where results come from that the exchange *of* asked for."""
        asking = self.lines.asked(of)
        handed = None if asking is None else self.lines.handed(asking.input)
        closed = self.known.find(of)
        if asking is None or handed is None or closed is None:
            return None
        receipt = read_leaf(closed[1])
        if not isinstance(receipt, Receipt):
            return None
        source = Source(
            of=of,
            input=asking.input,
            set=decode_set(handed.about),
            begun=decode_begun(asking.about),
        )
        return source, receipt


class _HandOut(Errand):
    """Results of a batch that are fetched."""

    # A part of them could hold lines whose beginnings nobody sees.
    drops = frozenset({b"range", b"if-range"})

    def __init__(
        self,
        asked: Asked,
        room: HandingOut,
        provider: Provider,
        batches: Batches,
        source: Source,
        receipt: Receipt,
    ) -> None:
        super().__init__(asked, room.law)
        self._room = room
        self._provider = provider
        self._batches = batches
        self._source = source
        self._receipt = receipt

    def reader(self, permitted: Permitted, response: ProviderResponse) -> Results | None:
        """Return what seals each line, where the answer holds lines."""
        if response.status != 200:
            return None
        call = permitted.asked.call
        holds = self._batches.answers_in(call, b"") is not None
        plain = self._provider.dialect.answer_reader(
            call, response.status, response.header(b"content-type") or ""
        )
        return (Document if holds else Results)(
            call=call,
            plain=plain,
            source=self._source,
            receipt=self._receipt,
            fetched=permitted.asked.exchange,
            provider=self._provider,
            batches=self._batches,
            lines=self._room.lines,
            items=self._room.items,
            on_item=self._room.on_item,
            allowance=self._room.allowance,
        )
