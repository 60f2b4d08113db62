"""A call as rulings and counts know it: what its receipt, or a manifest's teacher, says of it.

Whoever only verifies knows calls, and no policies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gateway.dataset.manifest import Teacher
from gateway.receipt.model import Receipt, Refusal

REWRITE: Final = "data.rewrite"
VERIFY: Final = "verify"
"""What answers above a row may have been declared for, besides the use of the row itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a ruling needs to know of a call that was made."""

    provider: str
    model: str | None
    """As it was asked for."""
    operation: str
    reported: tuple[str, ...] = ()
    """Under which other names it says it answered."""
    answered_by: str | None = None
    """Who made the answer, where an aggregator passed the question on."""
    streaming: bool = False
    features: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    """Ids of the policies that bound it."""
    route: str | None = None
    account_tier: str | None = None
    agreements: tuple[str, ...] = ()
    """The registered agreements that its credential was bound to."""
    generated_for: str | None = None
    """The purpose that it was declared for."""
    generated_on: str | None = None
    """The day it was made on, where the ruling is on that day's output alone."""
    project: str = ""
    """Whose use of the output is ruled on now."""
    reasoning: Literal["visible"] | None = None
    """Set where reasoning that the provider returned as it is would be learned from, too."""


def call_of(receipt: Receipt | Refusal) -> Call:
    """Return what a ruling needs to know of the call that *receipt* is about."""
    model, reported = receipt.model.requested, receipt.model.reported
    return Call(
        provider=receipt.provider.name,
        model=model or reported,
        reported=(reported,) if model and reported and reported != model else (),
        answered_by=receipt.model.provider,
        operation=receipt.operation,
        streaming=receipt.streaming,
        features=tuple(sorted(receipt.features)),
        policies=tuple(sorted({pin.policy for pin in receipt.ruling.policies})),
        route=receipt.provider.route,
        account_tier=receipt.provider.account_tier,
        agreements=receipt.ruling.agreements,
        generated_for=receipt.declared.use.purpose,
    )


def call_of_teacher(teacher: Teacher) -> Call:
    """Return the kind of call that a manifest lists as a teacher."""
    return Call(
        provider=teacher.provider,
        model=teacher.model,
        reported=tuple(name for name in teacher.reported if name != teacher.model),
        answered_by=teacher.answered_by,
        operation=teacher.operation,
        streaming=teacher.streaming,
        features=teacher.features,
        policies=tuple(sorted({pin.policy for pin in teacher.policies})),
        route=teacher.route,
        account_tier=teacher.account_tier,
        agreements=teacher.agreements,
        generated_for=teacher.generated_for,
    )
