"""Rule again on what a call gave, from what its receipt says of it.

The policies that bound the call are those that its receipt names; which version of each speaks
depends on the day. Not here: what follows from a ruling (`gate.py`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from gateway.dataset.manifest import Teacher
from gateway.intent.model import IntendedUse
from gateway.policy.agreement import Agreement, lifted_by
from gateway.policy.condition import Value
from gateway.policy.decide import Decision, facts_of
from gateway.policy.library import UNLISTED, Library
from gateway.policy.question import Approves, Question, nobody_approves
from gateway.provider.hosts import policy_of_host
from gateway.provider.model import Operation, ProviderCall
from gateway.receipt.model import PolicyPin, Reason, Receipt, Refusal, Ruling


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


def _operation(name: str) -> Operation:
    # What an older gateway could name and this one can't is ruled on as what nobody can read.
    return Operation(name) if name in _OPERATIONS else Operation.OPAQUE


_OPERATIONS: Final = frozenset(operation.value for operation in Operation)
