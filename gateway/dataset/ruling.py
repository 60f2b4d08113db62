"""Rule again on what a call gave, from what its receipt says of it.

The policies that bound the call are those that its receipt names; which version of each speaks
depends on the day. Not here: what follows from a ruling (`gate.py`).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from gateway.intent.model import IntendedUse
from gateway.policy.decide import Decision, decide, facts_of
from gateway.policy.library import Library
from gateway.policy.model import Policy
from gateway.provider.model import Operation, ProviderCall
from gateway.receipt.model import PolicyPin, Reason, Receipt, Ruling


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a ruling needs to know of a call that was made."""

    provider: str
    model: str | None
    """As it was asked for."""
    operation: str
    streaming: bool = False
    features: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    """Ids of the policies that bound it."""


class PolicyLaw:
    """The law as the policy library has it."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def rule(self, use: IntendedUse, call: Call, on: dt.date) -> Ruling:
        """Return the ruling on *use* of what *call* gave, under the policies of that day."""
        asked = ProviderCall(
            provider=call.provider,
            operation=_operation(call.operation),
            model=call.model,
            streaming=call.streaming,
            features=frozenset(call.features),
        )
        speaking: list[Policy] = []
        for name in call.policies:
            versions = self._library.policies.get(name)
            if not versions:
                speaking = []
                break
            # A policy that doesn't bind on that day must not fall silent: its newest version
            # stands in for it, and `decide` finds that it is not in force.
            speaking.append(self._library.in_force(name, on) or versions[-1])
        return ruling_from(decide(facts_of(use, asked), speaking, on))


def ruling_from(decision: Decision) -> Ruling:
    """Return *decision* as it stands in statements."""
    return Ruling(
        effect=decision.effect.word,
        reasons=tuple(
            Reason(
                policy=reason.policy,
                clause=reason.clause,
                effect=reason.effect.word,
                because=reason.because,
                source=reason.source,
                missing=reason.missing,
            )
            for reason in decision.reasons
        ),
        policies=tuple(
            PolicyPin(policy=pin.policy, version=pin.version, sha256=pin.sha256)
            for pin in decision.policies
        ),
        obligations=decision.obligations,
        day=decision.day.isoformat(),
    )


def call_of(receipt: Receipt) -> Call:
    """Return what a ruling needs to know of the call that *receipt* is about."""
    return Call(
        provider=receipt.provider.name,
        model=receipt.model.requested or receipt.model.reported,
        operation=receipt.operation,
        streaming=receipt.streaming,
        features=tuple(sorted(receipt.features)),
        policies=tuple(sorted({pin.policy for pin in receipt.ruling.policies})),
    )


def _operation(name: str) -> Operation:
    # What an older gateway could name and this one can't is ruled on as what nobody can read.
    return Operation(name) if name in set(Operation) else Operation.OPAQUE
