"""Receipts of items: what a provider hands out later, or many things that were asked at once.

An item belongs to the exchange that asked for it, and was permitted with it; here it gets a
receipt of its own, once, however often and by however many processes it is fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import ExchangeClosedError
from gateway.exchange.seal import Notary
from gateway.exchange.states import Answered, Asked, Permitted, Principal
from gateway.ident import ExchangeId, Sha256, item_id
from gateway.intent.model import Declaration, declaration_id
from gateway.limits import ITEMS_SEALED_AT_ONCE
from gateway.provider.model import Answer, ProviderCall
from gateway.receipt.model import Ended, ItemFacts, Receipt, Ruling


class Turns(Protocol):
    """Lets one process at a time do something."""

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """Hold the turn of *name* alone, in every process that writes this ledger.

        Raises:
            LedgerUnwellError: it can't be had.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Items:
    """Seals items; built once, in `app/`."""

    notary: Notary
    turns: Turns
    known: Callable[[Sequence[ExchangeId]], set[ExchangeId]]
    """Returns those that have a receipt in the ledger as it is now; may block."""

    async def seal(self, answered: Sequence[Answered]) -> list[Answered]:
        """Seal those that have no receipt yet, all of one exchange; return which.

        Every receipt is durable on return, whoever wrote it.

        Raises:
            LedgerUnwellError: some could not be written; asked again, the rest is.
        """
        new: list[Answered] = []
        for at in range(0, len(answered), ITEMS_SEALED_AT_ONCE):
            some = answered[at : at + ITEMS_SEALED_AT_ONCE]
            async with self.turns.turn(_of(some[0])):
                ids = [one.permitted.asked.exchange for one in some]
                known = await asyncio.to_thread(self.known, ids)
                missing = {
                    one.permitted.asked.exchange: one
                    for one in some
                    if one.permitted.asked.exchange not in known
                }
                done = await asyncio.gather(*map(self._seal, missing.values()))
                new += [
                    one for one, is_new in zip(missing.values(), done, strict=True) if is_new
                ]
        return new

    async def _seal(self, answered: Answered) -> bool:
        try:
            await self.notary.seal(answered)
        except ExchangeClosedError:
            # A replica that was cut off in the middle had written it after all.
            return False
        return True


def asked_for_item(
    receipt: Receipt, item: ItemFacts, call: ProviderCall, body: bytes | None, received_ms: int
) -> Asked:
    """Return *item* as it was asked for in the exchange of *receipt*; *body* is its request.

    Where that was not kept, the receipt has what that of the exchange says of it.
    """
    declared = receipt.declared
    project = receipt.caller.project
    return Asked(
        exchange=item_id(item.of, item.number),
        received_ms=received_ms,
        principal=Principal(name=receipt.caller.principal, project=project),
        declaration=Declaration(
            id=declared.declaration or declaration_id(project, declared.use),
            project=project,
            use=declared.use,
        ),
        declared=declared.declaration is not None,
        call=call,
        endpoint=receipt.provider.endpoint,
        body=body or b"",
        item=item,
        tags=receipt.tags,
        request=receipt.request if body is None else None,
    )


def permitted_with(receipt: Receipt, asked: Asked, ruling: Ruling | None = None) -> Permitted:
    """Return that *asked* was permitted with the exchange of *receipt*, under its opening.

    Where each of many things was ruled on, *ruling* is that on this one.
    """
    ruled = receipt.ruling if ruling is None else ruling
    return Permitted(asked=asked, ruling=ruled, headers=(), opening=receipt.opening)


def permitted_item(session: Permitted, asked: Asked, ruling: Ruling) -> Permitted:
    """Return that *asked*, an item of *session*, was permitted by *ruling* in its course."""
    return Permitted(asked=asked, ruling=ruling, headers=(), opening=session.opening)


def answered_item(
    permitted: Permitted,
    answer: Answer,
    *,
    status: int | None,
    sha256: Sha256,
    size: int,
    request_id: str | None = None,
    ended: Ended = "complete",
) -> Answered:
    """Return the outcome of an item whose answer is *size* bytes with that digest."""
    return Answered(
        permitted=permitted,
        answer=answer,
        status=status,
        request_id=request_id,
        response_sha256=sha256,
        response_bytes=size,
        ended=ended,
        error=answer.error,
        reason=b"",
        headers=(),
        sized=True,
        held=b"",
        head_sent=True,
    )


def _of(answered: Answered) -> str:
    item = answered.permitted.asked.item
    return str(item.of) if item is not None else answered.permitted.asked.exchange
