"""The law room: one admitted request, ruled on under every policy that binds it.

The ruling is a pure function of the day, the policies, the register and what was asked, so it
is remembered for as long as none of them changes.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace

import msgspec

from gateway.canonical import digest_of
from gateway.clock import Clock, day_of
from gateway.exchange.obligations import headers_of
from gateway.exchange.providers import Layer, Provider
from gateway.exchange.states import Asked
from gateway.ident import Sha256
from gateway.ledger.register import Register
from gateway.limits import RULINGS_REMEMBERED_MAX
from gateway.policy import decide as policy_reason
from gateway.policy.decide import Decision, Facts, decide, facts_of
from gateway.policy.explain import Explanation, explain
from gateway.policy.library import Library
from gateway.policy.model import Effect, Policy
from gateway.provider.model import Operation
from gateway.receipt.model import PolicyPin, Reason, Ruling

UNDECLARED = "undeclared"
UNREADABLE = "unknown-operation"
EXPIRED = "declaration-expired"
WITHDRAWN = "declaration-withdrawn"
DECLINED = "declaration-declined"
"""Reasons of the gateway's own, under the policy name `gateway`."""

GATEWAY = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruled:
    """A ruling, and what it was made from: an older register's ruling is asked for again."""

    ruling: Ruling
    headers: tuple[tuple[bytes, bytes], ...]
    sha256: Sha256
    version: int
    decision: Decision
    provider: Provider


class Law:
    """Rules on requests; holds the library in force."""

    def __init__(
        self,
        library: Library,
        register: Register,
        clock: Clock,
        *,
        undeclared: bool,
        unreadable: bool,
    ) -> None:
        self._register = register
        self._clock = clock
        self._undeclared = undeclared
        self._unreadable = unreadable
        # OWNED BY: the event loop.
        self._library = library
        self._remembered: dict[tuple[object, ...], Ruled] = {}

    @property
    def library(self) -> Library:
        """The policies in force."""
        return self._library

    def adopt(self, library: Library) -> None:
        """Put *library* in force from the next ruling on."""
        self._library = library
        self._remembered.clear()

    def rule(self, asked: Asked, provider: Provider) -> Ruled:
        """Return the ruling on *asked*; never fails."""
        on = day_of(self._clock.now_ms())
        call = asked.call
        key = (
            on,
            self._register.version,
            provider.id,
            asked.declaration.id,
            asked.declared,
            call.operation,
            call.model,
            call.streaming,
            call.features,
        )
        ruled = self._remembered.get(key)
        if ruled is None:
            if len(self._remembered) >= RULINGS_REMEMBERED_MAX:
                self._remembered.clear()
            ruled = self._remembered[key] = self._rule(asked, provider, on)
        return ruled

    def _rule(self, asked: Asked, provider: Provider, on: dt.date) -> Ruled:
        decision = self._decide(asked, provider, on)
        verdict: int | None = None
        effect = decision.effect
        reasons = [_wire_reason(reason) for reason in decision.reasons]
        if effect is Effect.HOLD and asked.declared:
            holding = {(reason.policy, reason.clause) for reason in decision.reasons}
            verdict = self._register.approval(asked.declaration.id, holding)
            if verdict is not None:
                effect = Effect.PERMIT
        own = self._own_reason(asked, on)
        if own is not None:
            effect, reasons, verdict = Effect.FORBID, [own], None
        ruling = Ruling(
            effect=effect.word,
            reasons=tuple(reasons),
            policies=tuple(
                PolicyPin(policy=pin.policy, version=pin.version, sha256=pin.sha256)
                for pin in decision.policies
            ),
            obligations=decision.obligations if effect is Effect.PERMIT else (),
            day=on.isoformat(),
            verdict=verdict,
        )
        return Ruled(
            ruling=ruling,
            headers=headers_of(ruling),
            sha256=digest_of(msgspec.to_builtins(ruling)),
            version=self._register.version,
            decision=decision,
            provider=provider,
        )

    def _decide(self, asked: Asked, provider: Provider, on: dt.date) -> Decision:
        """Return the maximum over the layers; each is asked about its own model."""
        return strictest([self._under(layer, asked, provider, on) for layer in provider.layers])

    def explain(self, asked: Asked, provider: Provider) -> list[Explanation]:
        """Return, of each layer that led to a refusal, why and what would change it."""
        on = day_of(self._clock.now_ms())
        effect = self.rule(asked, provider).decision.effect
        told = [
            explain(self._facts(layer, asked, provider), self._in_force(layer, on), on)
            for layer in provider.layers
        ]
        return [one for one in told if one.decision.effect is effect]

    def _facts(self, layer: Layer, asked: Asked, provider: Provider) -> Facts:
        call = asked.call
        if layer.model is not None:
            call = msgspec.structs.replace(call, model=layer.model)
        # A teacher of a student was reached on a way of its own, which is not known here.
        route = provider.route if layer.model is None else None
        return facts_of(asked.declaration.use, call, access_route=route)

    def _in_force(self, layer: Layer, on: dt.date) -> list[Policy]:
        policy = self._library.in_force(layer.policy, on)
        return [] if policy is None else [policy]

    def _under(self, layer: Layer, asked: Asked, provider: Provider, on: dt.date) -> Decision:
        policies = self._in_force(layer, on)
        decision = decide(self._facts(layer, asked, provider), policies, on)
        if not policies:
            named = [replace(reason, policy=layer.policy) for reason in decision.reasons]
            decision = replace(decision, reasons=tuple(named))
        return decision

    def _own_reason(self, asked: Asked, on: dt.date) -> Reason | None:
        """Return why the gateway itself refuses, if it does; never a reason to permit."""
        declaration = asked.declaration
        if not asked.declared and self._undeclared:
            return _own(UNDECLARED, "This gateway forwards declared uses only.")
        if asked.call.operation is Operation.OPAQUE and self._unreadable:
            return _own(UNREADABLE, "This gateway forwards only operations that it can read.")
        if declaration.expires is not None and on.isoformat() > declaration.expires:
            return _own(EXPIRED, f"The declaration ended on {declaration.expires}.")
        if not asked.declared:
            # What some declaration of plain inference came to says nothing about silence.
            return None
        withdrawal = self._register.withdrawn(declaration.id)
        if withdrawal is not None:
            return _own(WITHDRAWN, f"{withdrawal.by} withdrew the declaration.")
        declined = self._register.declined(declaration.id)
        if declined is not None:
            return _own(DECLINED, f"{declined.by} declined the declaration: {declined.reason}")
        return None


def strictest(decisions: list[Decision]) -> Decision:
    """Return the maximum of *decisions*, each reason and obligation with its own policy."""
    effect = max(decision.effect for decision in decisions)
    reasons = {
        (reason.policy, reason.clause): reason
        for decision in decisions
        if decision.effect is effect
        for reason in decision.reasons
    }
    pins = {pin.policy: pin for decision in decisions for pin in decision.policies}
    return Decision(
        effect=effect,
        reasons=tuple(reasons[place] for place in sorted(reasons)),
        obligations=tuple(sorted({o for d in decisions for o in d.obligations})),
        missing=tuple(sorted({m for d in decisions for m in d.missing})),
        policies=tuple(pins[name] for name in sorted(pins)),
        day=decisions[0].day,
    )


def _wire_reason(reason: policy_reason.Reason) -> Reason:
    # The sentences stand in the pinned policy; a receipt names the clause and its source.
    return Reason(
        policy=reason.policy,
        clause=reason.clause,
        effect=reason.effect.word,
        source=reason.source,
        missing=reason.missing,
    )


def _own(clause: str, because: str) -> Reason:
    return Reason(policy=GATEWAY, clause=clause, effect="forbid", because=because)
