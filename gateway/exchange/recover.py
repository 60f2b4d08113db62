"""After a crash: every opening without a closing statement is sealed as abandoned.

It uses the notary of every exchange, so the rescue road is the daily road.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from gateway.exchange.states import Abandoned, Outcome, Sealed
from gateway.ident import ExchangeId


async def recover(
    unclosed: Iterable[tuple[ExchangeId, int]],
    seal: Callable[[Outcome], Awaitable[Sealed]],
    why: str = "process-ended",
) -> int:
    """Seal each *unclosed* (exchange, opening's leaf index) as abandoned; return how many."""
    count = 0
    for exchange, opening in unclosed:
        await seal(Abandoned(exchange=exchange, opening=opening, why=why))
        count += 1
    return count
