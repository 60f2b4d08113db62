"""What may be done with an output today, folded from everything that was ever said about it.

Not here: whether the terms allow a particular use of it; that is ruled on again by the gate.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from gateway.intent.purpose import teaches
from gateway.policy.obligation import REVIEW_FIRST
from gateway.receipt.model import Receipt, Verdict, Withdrawal


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
    output = Standing.WAITING if waits else Standing.APPROVED
    declined = False
    for statement in said:
        match statement:
            case Withdrawal():
                return Standing.WITHDRAWN
            case Verdict(exchange=str(), approved=approved):
                output = Standing.APPROVED if approved else Standing.DECLINED
            case Verdict(approved=approved):
                # A no to a declaration stands over every output of it until a later yes.
                declined = not approved
    return Standing.DECLINED if declined else output
