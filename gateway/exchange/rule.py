"""The law room: one admitted request, ruled on under every policy that binds it.

Those are the policies of its provider, of the model where the provider says so, of everything
that taught a student, and the overlays that the organisation switched on. The ruling is a pure
function of the day, the policies, the register and what was asked, so it is remembered for as
long as none of them changes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from gateway.canonical import digest_of
from gateway.clock import Clock, day_of
from gateway.errors import GatewayError
from gateway.exchange.obligations import headers_of
from gateway.exchange.providers import Provider, Taught
from gateway.exchange.states import Asked
from gateway.ident import Sha256
from gateway.intent.model import INFERENCE, IntendedUse
from gateway.intent.purpose import PROVIDER_FINE_TUNE
from gateway.ledger.reading.register import Register, subject_of
from gateway.limits import RULINGS_REMEMBERED_MAX
from gateway.policy import decide as policy_reason
from gateway.policy.agreement import lifted_by
from gateway.policy.decide import Decision, Facts, Lifted, decide, facts_of
from gateway.policy.explain import Explanation, explain
from gateway.policy.library import Binding, Library
from gateway.policy.model import Effect
from gateway.provider.minting import leads_past
from gateway.provider.model import GENERATES, Operation, ProviderCall
from gateway.receipt.model import PolicyPin, Reason, Ruling, Withdrawal

UNDECLARED = "undeclared"
UNREADABLE = "unknown-operation"
EXPIRED = "declaration-expired"
LEADS_PAST = "ephemeral-keys"
WITHDRAWN = "declaration-withdrawn"
DECLINED = "declaration-declined"
STUDENT_WITHDRAWN = "student-withdrawn"
STUDENT_UNKNOWN = "student-unknown"
"""Reasons of the gateway's own, under the policy name `gateway`."""

GATEWAY = "gateway"

Held = Callable[[Sha256], Withdrawal | None]
"""Tells what was withdrawn of a manifest or of anything that it was made of; it may raise a
`GatewayError` where that can't be looked up at present."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruled:
    """A ruling, and what it was made from: an older register's ruling is asked for again."""

    ruling: Ruling
    headers: tuple[tuple[bytes, bytes], ...]
    sha256: Sha256
    version: int
    decision: Decision
    provider: Provider
    lasts: bool = True
    """Whether the same follows until something moves; what could not be looked up may, soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """What is ruled on for one model: the one that is asked, or a teacher's."""

    facts: Facts
    binding: Binding
    lifted: Lifted


class Law:
    """Rules on requests; holds the library in force."""

    def __init__(
        self,
        library: Library,
        register: Register,
        clock: Clock,
        *,
        held: Held,
        undeclared: bool,
        unreadable: bool,
        ephemeral: bool = True,
        overlays: tuple[str, ...] = (),
    ) -> None:
        self._register = register
        self._clock = clock
        self._held = held
        self._undeclared = undeclared
        self._unreadable = unreadable
        self._ephemeral = ephemeral
        self._overlays = overlays
        # OWNED BY: the event loop.
        self.alarm = ""
        """Why newer policies could not be put in force; empty if all is well."""
        self._library = library
        self._stale: Mapping[tuple[str, int], str] = {}
        self._remembered: dict[tuple[object, ...], Ruled] = {}
        self._explained: dict[tuple[object, ...], list[Explanation]] = {}

    @property
    def library(self) -> Library:
        """The policies in force."""
        return self._library

    def adopt(self, library: Library) -> None:
        """Put *library* in force from the next ruling on."""
        self._library = library
        self._stale = {}
        self._forget()
        self.alarm = ""

    def rule(self, asked: Asked, provider: Provider) -> Ruled:
        """Return the ruling on *asked*; never fails."""
        on = day_of(self._clock.now_ms())
        agreements = self._register.bound(asked.principal.fingerprint, on)
        key = self._question(asked, provider, agreements, on)
        ruled = self._remembered.get(key)
        if ruled is None:
            if len(self._remembered) >= RULINGS_REMEMBERED_MAX:
                self._forget()
            ruled = self._rule(asked, provider, agreements, on)
            if ruled.lasts:
                self._remembered[key] = ruled
        return ruled

    def stands(self, ruled: Ruled) -> bool:
        """Tell whether neither register nor library has moved since *ruled* was made."""
        return (ruled.version, ruled.ruling.library) == (
            self._register.version,
            self._library.digest,
        )

    def _question(
        self, asked: Asked, provider: Provider, agreements: tuple[str, ...], on: dt.date
    ) -> tuple[object, ...]:
        """Return everything that the ruling depends on, but for the library in force."""
        call = asked.call
        return (
            on,
            self._register.version,
            provider.id,
            agreements,
            asked.declaration.id,
            asked.declared,
            call.operation,
            call.model,
            call.fallbacks,
            call.streaming,
            call.features,
            _leads_past(asked),
        )

    def _forget(self) -> None:
        self._remembered.clear()
        self._explained.clear()

    def _rule(
        self, asked: Asked, provider: Provider, agreements: tuple[str, ...], on: dt.date
    ) -> Ruled:
        decision = strictest(
            [
                decide(
                    case.facts,
                    case.binding.policies,
                    on,
                    absent=case.binding.absent,
                    lifted=case.lifted,
                )
                for case in self._cases(asked, provider, agreements, on)
            ]
        )
        verdict: int | None = None
        effect = decision.effect
        reasons = [_wire_reason(reason) for reason in decision.reasons]
        if effect is Effect.HOLD and asked.declared:
            holding = {(reason.policy, reason.clause) for reason in decision.reasons}
            verdict = self._register.approval(asked.declaration.id, holding)
            if verdict is not None:
                effect = Effect.PERMIT
        own = self._own_reason(asked, on) or self._student_reason(provider)
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
            library=self._library.digest,
            agreements=agreements,
        )
        return Ruled(
            ruling=ruling,
            headers=headers_of(ruling),
            sha256=digest_of(msgspec.to_builtins(ruling)),
            version=self._register.version,
            decision=decision,
            provider=provider,
            lasts=own is None or own.clause != STUDENT_UNKNOWN,
        )

    def explain(self, asked: Asked, provider: Provider) -> list[Explanation]:
        """Return why, and what would change it, for each model that led to a refusal."""
        on = day_of(self._clock.now_ms())
        effect = self.rule(asked, provider).decision.effect
        agreements = self._register.bound(asked.principal.fingerprint, on)
        key = self._question(asked, provider, agreements, on)
        told = self._explained.get(key)
        if told is None:
            # Trying what would change a ruling takes milliseconds; a caller that asks the same
            # again and again is told the same.
            everything = [
                explain(
                    case.facts,
                    case.binding.policies,
                    on,
                    absent=case.binding.absent,
                    lifted=case.lifted,
                )
                for case in self._cases(asked, provider, agreements, on)
            ]
            told = [one for one in everything if one.decision.effect is effect]
            self._explained[key] = told
        return told

    def _cases(
        self, asked: Asked, provider: Provider, agreements: tuple[str, ...], on: dt.date
    ) -> list[_Case]:
        """Return what is to be ruled on: the call itself, and each that taught a student."""
        named: dict[Taught | None, list[str]] = {}
        for layer in provider.layers:
            named.setdefault(layer.taught, [*self._overlays]).append(layer.policy)
        library, cases = self._present_library(), []
        calls = [
            (taught, policies, call)
            for taught, policies in named.items()
            for call in (_calls(asked.call) if taught is None else (taught.call,))
        ]
        for taught, policies, call in calls:
            lifted = lifted_by(
                self._register.lifting(agreements if taught is None else taught.agreements),
                _use_of(asked),
                project=asked.declaration.project,
                model=call.model,
                on=on,
            )
            cases.append(
                _Case(
                    facts=self._facts(asked, call, taught or provider, on),
                    binding=library.binding(
                        policies, call.model, on, of_model=call.operation in GENERATES
                    ),
                    lifted=lifted,
                )
            )
        return cases

    def _facts(
        self, asked: Asked, call: ProviderCall, reached: Provider | Taught, on: dt.date
    ) -> Facts:
        """Return what is known of *call*, and of the way on which its model was *reached*."""
        return facts_of(
            _use_of(asked),
            call,
            self._register.organisation,
            access_route=reached.route,
            account_tier=reached.account_tier,
            generated_on=on,
        )

    def _present_library(self) -> Library:
        """Return the library in force, with what is known to be stale marked."""
        if self._stale != self._register.stale:
            self._stale = dict(self._register.stale)
            self._library = self._library.marked(self._stale)
        return self._library

    def _own_reason(self, asked: Asked, on: dt.date) -> Reason | None:
        """Return why the gateway itself refuses, if it does; never a reason to permit."""
        declaration = asked.declaration
        if not asked.declared and self._undeclared:
            return _own(UNDECLARED, "This gateway forwards declared uses only.")
        if asked.call.operation is Operation.OPAQUE and self._unreadable:
            return _own(UNREADABLE, "This gateway forwards only operations that it can read.")
        if self._ephemeral and _leads_past(asked):
            return _own(
                LEADS_PAST,
                "It would lead callers to the provider past this gateway; its operator can"
                " set `ephemeral_keys: allow`.",
            )
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

    def _student_reason(self, provider: Provider) -> Reason | None:
        """Return why a student of ours answers no more, if it does not."""
        if provider.manifest is None:
            return None
        try:
            withdrawal = self._held(provider.manifest)
        except GatewayError as error:
            return _own(
                STUDENT_UNKNOWN,
                "Whether anything that this student came from was withdrawn can't be looked up"
                f" at present: {error.message}",
            )
        if withdrawal is None:
            return None
        what = subject_of(withdrawal)
        if what == provider.manifest:
            return _own(
                STUDENT_WITHDRAWN, f"{withdrawal.by} withdrew this student: {withdrawal.reason}"
            )
        return _own(
            STUDENT_WITHDRAWN,
            f"{withdrawal.by} withdrew {what}, which this student came from:"
            f" {withdrawal.reason}",
        )


def _use_of(asked: Asked) -> IntendedUse:
    """Return the use that is ruled on.

    What generates nothing gives nothing that could be trained on, so it is ruled on as plain
    inference. Who customises a provider's model inside its service does just that, whatever
    was declared.
    """
    operation = asked.call.operation
    if operation is Operation.FINE_TUNING:
        return msgspec.structs.replace(asked.declaration.use, purpose=PROVIDER_FINE_TUNE)
    return asked.declaration.use if operation in GENERATES else INFERENCE


def _leads_past(asked: Asked) -> bool:
    """Tell whether the provider is asked for keys, or calls, that the gateway never sees."""
    call = asked.call
    if call.operation is Operation.CHAT or call.found is None:
        return False
    return leads_past(asked.endpoint.partition(" ")[0], call.found.path)


def _calls(call: ProviderCall) -> list[ProviderCall]:
    """Return *call* for each model that may answer it."""
    others = [model for model in call.fallbacks if model != call.model]
    return [call, *(msgspec.structs.replace(call, model=model) for model in others)]


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
        agreement=reason.agreement or None,
    )


def _own(clause: str, because: str) -> Reason:
    return Reason(policy=GATEWAY, clause=clause, effect="forbid", because=because)
