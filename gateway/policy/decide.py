"""Rule on one intended use under the policies that apply.

Each clause is true, false or unknown of the facts (`condition.py`). Under one policy:

* low and high are the smallest and largest effect that filling in the unknown facts could
  lead to: with true clauses, low is their maximum and high that of the true and unknown ones;
  with none true, high is forbid (silence) and low the least unknown clause, or forbid.
* Where low equals high, that is the effect. Otherwise the completions disagree and it is hold,
  with the undecided clauses and the facts that are missing as its reasons.

So an unknown that might forbid holds, an unknown never permits, and silence is forbid. Over
several policies the effect is the maximum. No policy in force is forbid, and so is an
obligation that nobody can discharge. After its `review_by`, or once its terms are known to have
changed, a policy's permits for anything but inference and evaluation hold. An overlay only
adds: its silence permits, and it is silent on days on which it is not in force. A clause that
a registered agreement lifts counts as a permit where it speaks; all others speak as ever.
"""

from __future__ import annotations

import datetime as dt
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from gateway.day import parse_day
from gateway.ident import Sha256
from gateway.intent.model import IntendedUse
from gateway.intent.purpose import PURPOSES
from gateway.limits import OUTCOMES_REMEMBERED_MAX
from gateway.policy.compiled import Asked, Conditions, places
from gateway.policy.condition import Condition, OneOf, Value
from gateway.policy.model import Clause, Effect, Policy
from gateway.policy.vocabulary import FACTS, is_plain_use
from gateway.provider.model import Operation, ProviderCall

NO_POLICY: Final = "no-policy"
SILENCE: Final = "silence"
UNKNOWN_OBLIGATION: Final = "unknown-obligation"
RESERVED: Final = frozenset({NO_POLICY, SILENCE, UNKNOWN_OBLIGATION})
"""Reasons that are no clause of any policy; no clause may carry such an id."""

Lifted = Mapping[tuple[str, str], str]
"""The clauses that agreements lift for one use, by (policy, clause), and the agreement's id."""

NOTHING_LIFTED: Final[Lifted] = {}
NOTHING_REGISTERED: Final[Mapping[str, Value | None]] = {}

_PLAIN_USE: Final = frozenset(purpose for purpose in PURPOSES if is_plain_use(purpose))
"""Purposes whose permits outlive a policy's review day."""

_PRESUMED: Final[Mapping[str, Value]] = {
    name: fact.presumed
    for name, fact in FACTS.items()
    if fact.presumed is not None and fact.presumed_in == "always"
}
_PRESUMED_IN_PLAIN_USE: Final[Mapping[str, Value]] = {
    name: fact.presumed for name, fact in FACTS.items() if fact.presumed is not None
}
_NOT_ELICITED: Final = OneOf(frozenset({"none", "summary", "visible"}))
_NO_REASONING: Final = "none"
_NOTHING: Final[frozenset[str]] = frozenset()
_PLACE: Final = operator.attrgetter("policy", "clause")
_TEXT: Final = frozenset({"text"})
_MODALITY: Final[Mapping[Operation, frozenset[str]]] = {
    Operation.EMBEDDING: frozenset({"embedding"}),
    Operation.IMAGE: frozenset({"image"}),
    Operation.SPEECH: frozenset({"audio"}),
    Operation.SESSION: frozenset({"text", "audio"}),
}
"""What answers are made of, where it is not text alone."""


class Facts(Mapping[str, Value]):
    """What is known of a use and its exchange; a fact that is absent is unknown."""

    __slots__ = ("_known",)

    def __init__(self, known: Mapping[str, Value]) -> None:
        unknown = known.keys() - FACTS.keys()
        if unknown:
            raise AssertionError(f"no such facts: {sorted(unknown)}")
        self._known = dict(known)

    def __getitem__(self, name: str) -> Value:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __hash__(self) -> int:
        return hash(frozenset(self._known.items()))

    def with_fact(self, name: str, value: Value) -> Facts:
        """Return these facts with one filled in or replaced."""
        return Facts({**self._known, name: value})


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One clause that led to an effect; *policy* and *clause* name it."""

    policy: str
    clause: str
    effect: Effect
    """The clause's own effect as it counts."""
    because: str
    document: str = ""
    """The cited document's id."""
    source: str = ""
    """The citation as people write it: document, version, section."""
    change: str = ""
    missing: tuple[str, ...] = ()
    """The facts that leave the clause undecided; none if it speaks."""
    agreement: str = ""
    """The agreement that lifts the clause, so that it permits."""


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that was ruled under, pinned by the digest of its bytes."""

    policy: str
    version: int
    sha256: Sha256


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """An effect, the clauses that led to it, and what must be done."""

    effect: Effect
    reasons: tuple[Reason, ...]
    obligations: tuple[str, ...]
    missing: tuple[str, ...]
    """Facts that would have to be known for a ruling other than hold."""
    policies: tuple[Pin, ...]
    day: dt.date


def decide(
    facts: Mapping[str, Value],
    policies: Sequence[Policy],
    on: dt.date,
    *,
    absent: Collection[str] = (),
    lifted: Lifted = NOTHING_LIFTED,
) -> Decision:
    """Return the ruling; it depends on the order of neither *policies* nor their clauses.

    *absent* are the ids of policies that should bind and that nobody has written.
    """
    known = plainly(facts)
    sitting = seat(policies, known.get("purpose"), on, absent)
    outcome = sitting.rule(known, on, lifted)
    return Decision(
        effect=outcome.effect,
        reasons=outcome.reasons,
        obligations=tuple(sorted(outcome.obligations)) if outcome.obligations else (),
        missing=tuple(sorted(outcome.missing)) if outcome.missing else (),
        policies=tuple([docket.pin for docket in sitting.dockets]),
        day=on,
    )


def plainly(facts: Mapping[str, Value]) -> Mapping[str, Value]:
    """Return *facts* as what is asked most quickly."""
    return facts._known if facts.__class__ is Facts else facts  # noqa: SLF001 # skips a Python-level `get` per fact


def seat(
    policies: Sequence[Policy], purpose: object, on: dt.date, absent: Collection[str] = ()
) -> Sitting:
    """Return those of *policies* that bind that day, ready to be asked about *purpose*."""
    in_force = {policy.id: policy for policy in policies if policy.in_force(on)}
    names = sorted(in_force)
    dockets = tuple(
        [
            in_force[name].dockets.get(purpose) or _docket(in_force[name], purpose)
            for name in names
        ]
    )
    unbound: tuple[Reason, ...] = ()
    if absent or not in_force or len(in_force) < len(policies):
        bound = {policy.id for policy in policies if policy.kind != "overlay"}
        idle = bound.union(absent) - in_force.keys()
        if idle or not in_force:
            unbound = tuple(_no_policy(policy) for policy in sorted(idle or [""]))
    return Sitting(dockets, unbound)


class Sitting(msgspec.Struct, frozen=True):
    """The policies that rule together: the effect is the largest of all."""

    dockets: tuple[Docket, ...]
    """In the order of the policies' ids."""
    unbound: tuple[Reason, ...]
    """Why nothing is allowed though no policy says so: one should bind, and none does."""

    def rule(self, known: Mapping[str, Value], on: dt.date, lifted: Lifted) -> Outcome:
        """Return what follows under all of them."""
        return self.together([docket.rule(known, on, lifted) for docket in self.dockets])

    def together(self, outcomes: Sequence[Outcome]) -> Outcome:
        """Return what follows from the *outcomes* of all policies, in their order."""
        effect = Effect.PERMIT
        reasons: tuple[Reason, ...] = ()
        obligations = missing = _NOTHING
        for one in outcomes:
            if one.obligations:
                obligations |= one.obligations
            if one.effect > effect:
                effect, reasons, missing = one.effect, one.reasons, one.missing
            elif one.effect is effect:
                reasons += one.reasons
                missing |= one.missing
        if self.unbound:
            barred = reasons if effect is Effect.FORBID else ()
            effect, missing = Effect.FORBID, _NOTHING
            reasons = tuple(sorted(barred + self.unbound, key=_PLACE))
        return Outcome(effect, reasons, obligations, missing)


class Outcome(msgspec.Struct, frozen=True):
    """What follows under one policy, or under several."""

    effect: Effect
    reasons: tuple[Reason, ...]
    """In order of policies and clauses."""
    obligations: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()


class Docket:
    """What one policy says of one purpose, ready to be asked."""

    __slots__ = (
        "_clauses",
        "_compiled",
        "_outcomes",
        "_plain_use",
        "_policy",
        "_reasons",
        "ask",
        "conditions",
        "overlay",
        "pin",
    )

    def __init__(self, policy: Policy, purpose: object) -> None:
        left = sorted(policy.about(purpose), key=_by_id)
        self._policy: Final = policy
        self._clauses: Final = tuple(clause for clause, _ in left)
        self.conditions: Final = tuple(condition for _, condition in left)
        self._compiled: Final = Conditions(self.conditions)
        self.ask: Final = self._compiled.ask
        self._reasons: Final = tuple(_reason(policy, clause) for clause in self._clauses)
        self._plain_use: Final = purpose in _PLAIN_USE
        self._outcomes: Final[dict[tuple[Asked, bool], Outcome]] = {}
        self.overlay: Final = policy.kind == "overlay"
        self.pin: Final = Pin(policy=policy.id, version=policy.version, sha256=policy.sha256)

    def rule(self, known: Mapping[str, Value], on: dt.date, lifted: Lifted) -> Outcome:
        """Return what follows under this policy."""
        return self.follow(self.ask(known), on, lifted)

    def is_stale(self, on: dt.date) -> bool:
        """Tell whether permits hold that day: the review is overdue, or the terms changed."""
        policy = self._policy
        return not self._plain_use and (policy.stale != "" or on > policy.review_by)

    def follow(self, asked: Asked, on: dt.date, lifted: Lifted) -> Outcome:
        """Return what follows from the answers of the clauses, on a day."""
        stale = self.is_stale(on)
        if lifted:
            return self._follow(asked, lifted, stale=stale)
        # Whatever else the facts may be, from the same answers the same follows.
        outcome = self._outcomes.get((asked, stale))
        if outcome is None:
            outcome = self._follow(asked, lifted, stale=stale)
            if len(self._outcomes) < OUTCOMES_REMEMBERED_MAX:
                self._outcomes[asked, stale] = outcome
        return outcome

    def _follow(self, asked: Asked, lifted: Lifted, *, stale: bool) -> Outcome:
        """Return what follows from the clauses that speak and those that are undecided."""
        yes, maybe, doubts = asked
        speaking: list[Reason] = []
        undecided: list[Reason] = []
        obligations: set[str] = set()
        undischarged: list[str] = []
        for place in places(yes | maybe):
            clause, reason = self._clauses[place], self._reasons[place]
            agreement = lifted.get((reason.policy, reason.clause))
            # Only a bar or a hold can be lifted; a permit that holds has its own reason to.
            if agreement is not None and clause.effect is not Effect.PERMIT:
                reason = _lifted(reason, agreement)
            # Terms that changed may bar more than the agreement knew of.
            if stale and reason.effect is Effect.PERMIT:
                reason = _stale(reason, self._policy)
            # An obligation that might be due is due.
            obligations |= clause.obligations
            undischarged += clause.undischarged
            if yes >> place & 1:
                speaking.append(reason)
            else:
                missing = self._compiled.missing(place, doubts)
                undecided.append(msgspec.structs.replace(reason, missing=missing))
        if undischarged:
            barred = _unknown_obligation(self._policy, sorted(undischarged))
            return Outcome(Effect.FORBID, (barred,))
        silent = Effect.PERMIT if self.overlay else Effect.FORBID
        possible = [reason.effect for reason in undecided]
        if speaking:
            low = max([reason.effect for reason in speaking])
            high = max([low, *possible])
        else:
            low, high = min([silent, *possible]), max([silent, *possible])
        if low is high:
            told = [reason for reason in speaking if reason.effect is low]
            if not told and low is Effect.FORBID:
                told = [_silence(self._policy)]
        else:
            told = [reason for reason in speaking if reason.effect is Effect.HOLD]
            told += [r for r in undecided if r.effect > low or not (speaking or silent is low)]
        return Outcome(
            effect=low if low is high else Effect.HOLD,
            reasons=tuple(sorted(told, key=_PLACE)),
            obligations=frozenset(obligations),
            missing=frozenset(fact for reason in told for fact in reason.missing),
        )


def _docket(policy: Policy, purpose: object) -> Docket:
    """Return what *policy* says of *purpose*; it is remembered for each purpose there is."""
    docket = Docket(policy, purpose)
    if purpose is None or purpose in PURPOSES:
        policy.dockets[purpose] = docket
    return docket


def _by_id(entry: tuple[Clause, Condition]) -> str:
    return entry[0].id


def facts_of(
    use: IntendedUse,
    call: ProviderCall,
    registered: Mapping[str, Value | None] = NOTHING_REGISTERED,
    **extra: Value | None,
) -> Facts:
    """Return what *use* declares and *call* shows, and what the organisation *registered*.

    *extra* adds or overrides, by fact name with underscores. What nobody says stays unknown,
    but for the facts that the vocabulary presumes. `reasoning-kind` is known not to be
    `elicited` unless *extra* says that signs of it were seen. A country that the use declares
    goes before the registered one.
    """
    presumed = _PRESUMED_IN_PLAIN_USE if use.purpose in _PLAIN_USE else _PRESUMED
    known: dict[str, Value | None] = {
        **presumed,
        "purpose": use.purpose,
        "generated-for": use.purpose,
        "student": use.student,
        "student-kind": use.student_kind,
        "imitates-teacher": use.imitates_teacher,
        "competes": use.competes,
        "competes-basis": use.competes_basis,
        "competes-assessed-by": use.competes_assessed_by,
        "similar": use.similar,
        "audience": use.audience,
        "visibility": use.visibility,
        "commercial": use.commercial,
        "research": use.research,
        "automation": use.automation,
        "promotes-competitor": use.promotes_competitor,
        "replication-info": use.replication_info,
        "base-model": use.base_model,
        "provider": call.provider,
        "operation": call.operation.value,
        "model": call.model,
        "reasoning-kind": _NOT_ELICITED,
    }
    if use.competes_assessed_on is not None:
        # What a stranger's statement says in another way is unknown.
        known["competes-assessed-on"] = parse_day(use.competes_assessed_on)
    if use.notices is not None:
        known["notices"] = frozenset(use.notices)
    if call.operation is not Operation.OPAQUE:
        known["streaming"] = call.streaming
        known["features"] = call.features
        known["modality"] = _modality_of(call)
        if "reasoning" not in call.features:
            known["reasoning-kind"] = _NO_REASONING
    known.update(registered)
    if use.jurisdiction is not None:
        known["jurisdiction"] = use.jurisdiction
    for name, value in extra.items():
        known[name.replace("_", "-")] = value
    return Facts({name: value for name, value in known.items() if value is not None})


def _modality_of(call: ProviderCall) -> frozenset[str]:
    """Return what the answer to *call* is made of."""
    made_of = _MODALITY.get(call.operation, _TEXT)
    if "voice" in call.features:
        made_of |= {"audio"}
    return made_of | {"image"} if "image-output" in call.features else made_of


def _reason(policy: Policy, clause: Clause) -> Reason:
    """Return why *clause* leads to its effect where nothing else bears on it."""
    because, change = clause.because, clause.change
    if clause.binding is not clause.effect:
        because += (
            f" The original of {clause.document.title} was not read, so this permit holds"
            " until legal has read it."
        )
        change = "Legal reads the original and brings the policy up to date."
    return Reason(
        policy=policy.id,
        clause=clause.id,
        effect=clause.binding,
        because=because,
        document=clause.document.id,
        source=clause.source,
        change=change,
    )


def _lifted(reason: Reason, agreement: str) -> Reason:
    return msgspec.structs.replace(
        reason,
        effect=Effect.PERMIT,
        because=f"The agreement `{agreement}` lifts this clause: {reason.because}",
        change=f"The end of the agreement `{agreement}`, or a use outside its scope.",
        agreement=agreement,
    )


def _stale(reason: Reason, policy: Policy) -> Reason:
    why = policy.stale or f"The policy was to be reviewed by {policy.review_by}."
    return msgspec.structs.replace(
        reason,
        effect=Effect.HOLD,
        because=f"{reason.because} {why} Until it is reviewed, this permit holds.",
        change="Legal reviews the policy.",
    )


def _silence(policy: Policy) -> Reason:
    return Reason(
        policy=policy.id,
        clause=SILENCE,
        effect=Effect.FORBID,
        because="No clause of the policy speaks to this use, and silence forbids.",
        change="Declare a purpose that the policy names, or ask legal to add a clause.",
    )


def _no_policy(policy: str) -> Reason:
    return Reason(
        policy=policy,
        clause=NO_POLICY,
        effect=Effect.FORBID,
        because="No policy for this provider is in force on this day.",
        change="Ask legal to write a policy for this provider.",
    )


def _unknown_obligation(policy: Policy, names: Sequence[str]) -> Reason:
    return Reason(
        policy=policy.id,
        clause=UNKNOWN_OBLIGATION,
        effect=Effect.FORBID,
        because=f"Nobody here can discharge the obligation `{'`, `'.join(names)}`.",
        change="Ask legal to correct the policy's obligations.",
    )
