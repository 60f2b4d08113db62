"""Answers that come after the exchange that asked for them: each is an item of that exchange.

A provider that works in the background, or keeps what it made, hands an answer out by its id.
The first whole one that is fetched becomes the receipt that the asking exchange could not have:
under its declaration and its ruling, with its request beside it, once. What had come whole in
the first place has its receipt already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from gateway.clock import Clock
from gateway.errors import MalformedBodyError
from gateway.exchange.items import Items, answered_item, asked_for_item, permitted_with
from gateway.exchange.providers import Provider
from gateway.exchange.states import Answered
from gateway.ident import ExchangeId, Sha256
from gateway.provider.model import GENERATES, Operation, ProviderCall
from gateway.receipt.model import ItemFacts, Receipt
from gateway.receipt.statement import read_leaf
from gateway.store.content import ContentStore
from gateway.store.index.rows import Kept

_NUMBER: Final = 0
"""An exchange of this kind has one item."""


@dataclass(frozen=True, kw_only=True)
class LaterAnswers:
    """Makes items of later answers; built once, in `app/`."""

    items: Items
    leaf: Callable[[int], bytes]
    """Returns a leaf of the ledger; may block."""
    content: ContentStore
    clock: Clock
    on_item: Callable[[Answered], None]
    """Told of each item once it is durable: its usage is counted here and nowhere else."""

    async def take(self, answered: Answered, kept: Kept, provider: Provider) -> None:
        """Seal what *answered* brings of a resource, once; durable on return.

        Raises:
            LedgerUnwellError: it could not be written.
        """
        read = await asyncio.to_thread(self._asking, kept)
        if read is None:
            return
        receipt, request = read
        fetch = answered.permitted.asked
        asked = asked_for_item(
            receipt,
            ItemFacts(of=receipt.exchange, number=_NUMBER, fetched=fetch.exchange),
            call_again(receipt, request, provider),
            request,
            fetch.received_ms,
        )
        item = answered_item(
            permitted_with(receipt, asked),
            answered.answer,
            status=answered.status,
            sha256=Sha256(answered.response_sha256),
            size=answered.response_bytes,
            request_id=answered.request_id,
        )
        if await self.items.seal([item]):
            self.on_item(item)

    def _asking(self, kept: Kept) -> tuple[Receipt, bytes | None] | None:
        """Return the receipt of the exchange that asked, and its request where that is kept.

        `None` where its answer came whole, or where nothing was asked of a model.
        """
        statement = read_leaf(self.leaf(kept.leaf))
        if not isinstance(statement, Receipt) or not is_waiting(statement):
            return None
        content = self.content.get(ExchangeId(statement.exchange))
        return statement, None if content is None else content.request


def is_waiting(receipt: Receipt) -> bool:
    """Tell whether the answer to the exchange of *receipt* has not come whole with it."""
    if receipt.operation not in _GENERATING or receipt.item is not None:
        return False
    if receipt.ended != "complete":
        return True
    # Some providers put a usage beside what they have not begun; it counts nothing yet.
    used = receipt.usage is not None and bool(
        receipt.usage.input_tokens or receipt.usage.output_tokens
    )
    return not receipt.outputs and not used and receipt.error is None


_GENERATING: Final = frozenset(str(one) for one in GENERATES)


def call_again(receipt: Receipt, request: bytes | None, provider: Provider) -> ProviderCall:
    """Return what was asked in the exchange of *receipt*, read again from its *request*."""
    method, _, address = receipt.provider.endpoint.partition(" ")
    path = address.removeprefix(provider.base_url)
    if path == address:
        # It was asked at another address, under another setting.
        path = urlsplit(address).path
    found = provider.dialect.found(method, path)
    if request is not None:
        try:
            call = provider.dialect.read_request(
                provider.id, found, "application/json", request
            )
        except MalformedBodyError:
            pass
        else:
            if call.operation == receipt.operation:
                return call
    return ProviderCall(
        provider=provider.id,
        operation=Operation(receipt.operation),
        model=receipt.model.requested,
        streaming=receipt.streaming,
        features=frozenset(receipt.features),
        found=found,
    )
