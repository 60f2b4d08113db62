"""What may be done with an output today, folded from everything that was ever said about it.

Not here: whether the terms allow a particular use of it; that is ruled on again by the gate.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final

from gateway.intent.purpose import teaches
from gateway.receipt.model import Receipt, Verdict, Withdrawal

REVIEW_FIRST: Final = "review-before-training"
"""The obligation that leaves an output waiting until a person has ruled on its exchange."""


class Standing(enum.StrEnum):
    """What may be done with an output today."""

    WAITING = "waiting"
    APPROVED = "approved"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"


def standing_of(receipt: Receipt, said: Iterable[Verdict | Withdrawal]) -> Standing | None:
    """Fold what was *said* about an output, oldest first, into its standing.

    `None`: it was never permitted for a purpose that teaches, so nothing said later can make
    it something to learn from.
    """
    if receipt.ruling.effect != "permit" or not teaches(receipt.declared.use.purpose):
        return None
    waits = REVIEW_FIRST in receipt.ruling.obligations
    return standing_after(Standing.WAITING if waits else Standing.APPROVED, said)


def standing_after(before: Standing, said: Iterable[Verdict | Withdrawal]) -> Standing:
    """Return the standing that *said*, oldest first, leads to from *before*.

    A verdict on a declaration that names the clauses it covers is law, not standing: the
    ruling takes it in. One that covers no clause in particular declines every output of it.
    """
    output, declaration = before, Standing.APPROVED
    for statement in said:
        match statement:
            case Withdrawal():
                return Standing.WITHDRAWN
            case Verdict(exchange=str(), approved=approved):
                output = Standing.APPROVED if approved else Standing.DECLINED
            case Verdict(covers=(), approved=approved):
                declaration = Standing.APPROVED if approved else Standing.DECLINED
            case _:
                pass
    return Standing.DECLINED if declaration is Standing.DECLINED else output
