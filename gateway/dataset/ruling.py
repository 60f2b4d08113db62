"""Rule again on what a call gave, from what its receipt says of it.

The policies that bound the call are those that its receipt names; which version of each speaks
depends on the day. Not here: what follows from a ruling (`gate`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from gateway.dataset.calls import Call
from gateway.intent.model import IntendedUse
from gateway.policy.agreement import Agreement, lifted_by
from gateway.policy.condition import Value
from gateway.policy.decide import Decision, facts_of
from gateway.policy.library import Library
from gateway.policy.question import Approves, Question, nobody_approves
from gateway.policy.vocabulary import UNLISTED
from gateway.provider.hosts import policy_of_host
from gateway.provider.model import Operation, ProviderCall
from gateway.receipt.model import PolicyPin, Reason, Ruling


class Said(Protocol):
    """What was registered, as far as a ruling needs it; the ledger's register keeps it."""

    @property
    def organisation(self) -> Mapping[str, Value | None]:
        """What is stated of the organisation, by the names of facts."""
        ...

    @property
    def stale(self) -> Mapping[tuple[str, int], str]:
        """Why a (policy, version) is stale."""
        ...

    def lifting(self, agreements: Iterable[str]) -> list[Agreement]:
        """Return those of *agreements* that are registered and that nobody withdrew."""
        ...


class PolicyLaw:
    """The law as the policy library and the register have it."""

    def __init__(self, library: Library, said: Said, overlays: tuple[str, ...] = ()) -> None:
        self._library = library.marked(said.stale)
        self._said = said
        self._overlays = overlays

    def rule(self, use: IntendedUse, call: Call, on: dt.date) -> Ruling:
        """Return the ruling on *use* of what *call* gave, under the policies of that day."""
        question = question_of(use, call, on, self._said, self._overlays)
        return ruling_from(question.ruled(self._library))


def question_of(
    use: IntendedUse,
    call: Call,
    on: dt.date,
    said: Said,
    overlays: tuple[str, ...] = (),
    approves: Approves = nobody_approves,
) -> Question:
    """Return what there is to rule on: *use* of what *call* gave, on that day."""
    shown = {} if call.reasoning is None else {"reasoning_kind": call.reasoning}
    facts = facts_of(
        use,
        asked_of(call),
        said.organisation,
        **shown,
        access_route=call.route,
        account_tier=call.account_tier,
        generated_for=call.generated_for,
        generated_on=dt.date.fromisoformat(call.generated_on) if call.generated_on else None,
    )
    # A model that nobody knew then may be listed now: the binding finds out.
    named = tuple(policy for policy in call.policies if policy != UNLISTED)
    return Question(
        facts=facts,
        policies=(*named, *_hosting(call), *overlays) if named else (),
        model=call.model,
        # The terms of the model that says it answered bind as well as those of the one that
        # was asked: a host may have passed the question on.
        reported=call.reported,
        on=on,
        lifted=lifted_by(
            said.lifting(call.agreements),
            use,
            project=call.project,
            model=call.model,
            on=on,
        ),
        approves=approves,
    )


def _hosting(call: Call) -> tuple[str, ...]:
    """Return the policy of who made the answer; whoever nobody here knows is unlisted."""
    if call.answered_by is None:
        return ()
    return (policy_of_host(call.answered_by) or UNLISTED,)


def asked_of(call: Call) -> ProviderCall:
    """Return what was asked of the provider."""
    return ProviderCall(
        provider=call.provider,
        operation=_operation(call.operation),
        model=call.model,
        streaming=call.streaming,
        features=frozenset(call.features),
    )


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
                agreement=reason.agreement or None,
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


def _operation(name: str) -> Operation:
    # What an older gateway could name and this one can't is ruled on as what nobody can read.
    return Operation(name) if name in _OPERATIONS else Operation.OPAQUE


_OPERATIONS: Final = frozenset(operation.value for operation in Operation)
