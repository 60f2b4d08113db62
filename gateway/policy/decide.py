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
adds: its silence permits. A clause that a registered agreement lifts counts as a permit where
it speaks; all others speak as ever.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.ident import Sha256
from gateway.intent.model import IntendedUse
from gateway.intent.purpose import PURPOSES
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
_TEXT: Final = frozenset({"text"})
_TEXT_AND_AUDIO: Final = frozenset({"text", "audio"})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A policy that was ruled under, pinned by the digest of its bytes."""

    policy: str
    version: int
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
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
    known = facts._known if facts.__class__ is Facts else facts  # noqa: SLF001 # skips a Python-level `get` per test
    effect = Effect.PERMIT
    reasons: list[Reason] = []
    obligations: frozenset[str] = frozenset()
    in_force = {policy.id: policy for policy in policies if policy.in_force(on)}
    idle = {policy.id for policy in policies}.union(absent) - in_force.keys()
    if idle or not in_force:
        effect, reasons = Effect.FORBID, [_no_policy(one) for one in sorted(idle) or [""]]
    for policy in in_force.values():
        one_effect, one_reasons, one_obligations = _under(policy, known, on, lifted)
        obligations |= one_obligations
        if one_effect > effect:
            effect, reasons = one_effect, one_reasons
        elif one_effect is effect:
            reasons = [*reasons, *one_reasons]
    if len(reasons) > 1:
        reasons.sort(key=_place)
    return Decision(
        effect=effect,
        reasons=tuple(reasons),
        obligations=tuple(sorted(obligations)) if obligations else (),
        missing=_missing(reasons),
        policies=tuple([_pin(in_force[name]) for name in sorted(in_force)]),
        day=on,
    )


def facts_of(use: IntendedUse, call: ProviderCall, **extra: Value | None) -> Facts:
    """Return what *use* declares and *call* shows; *extra* adds or overrides, by fact name.

    Names in *extra* are written with underscores. What nobody says stays unknown, but for the
    facts that the vocabulary presumes. `reasoning-kind` is known not to be `elicited` unless
    *extra* says that signs of it were seen.
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
        "jurisdiction": use.jurisdiction,
        "provider": call.provider,
        "operation": call.operation.value,
        "model": call.model,
        "reasoning-kind": _NOT_ELICITED,
    }
    if use.competes_assessed_on is not None:
        known["competes-assessed-on"] = _day(use.competes_assessed_on)
    if use.notices is not None:
        known["notices"] = frozenset(use.notices)
    if call.operation is not Operation.OPAQUE:
        known["streaming"] = call.streaming
        known["features"] = call.features
        known["modality"] = _TEXT_AND_AUDIO if "voice" in call.features else _TEXT
        if "reasoning" not in call.features:
            known["reasoning-kind"] = _NO_REASONING
    for name, value in extra.items():
        known[name.replace("_", "-")] = value
    return Facts({name: value for name, value in known.items() if value is not None})


def _day(text: str) -> dt.date | None:
    """Return *text* as a day; what a stranger's statement says in another way is unknown."""
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return None


def _under(
    policy: Policy, known: Mapping[str, Value], on: dt.date, lifted: Lifted
) -> tuple[Effect, list[Reason], frozenset[str]]:
    """Return the effect under one policy, its reasons, and what may have to be done."""
    purpose = known.get("purpose")
    stale = (on > policy.review_by or policy.stale) and purpose not in _PLAIN_USE
    speaking: list[tuple[Clause, Effect]] = []
    undecided: list[tuple[Clause, Effect, Condition]] = []
    obligations: frozenset[str] = frozenset()
    undischarged: list[str] = []
    for clause, condition in policy.about(purpose):
        truth = condition.truth(known)
        if truth is False:
            continue
        effect = clause.binding
        if lifted and (policy.id, clause.id) in lifted:
            effect = Effect.PERMIT
        elif stale and effect is Effect.PERMIT:
            effect = Effect.HOLD
        # An obligation that might be due is due.
        if clause.obligations:
            obligations = obligations | clause.obligations
            undischarged += clause.undischarged
        if truth is True:
            speaking.append((clause, effect))
        else:
            undecided.append((clause, effect, condition))
    if undischarged:
        return Effect.FORBID, [_unknown_obligation(policy, sorted(undischarged))], frozenset()
    silent = Effect.PERMIT if policy.kind == "overlay" else Effect.FORBID
    if speaking:
        low = max([effect for _, effect in speaking])
        high = max([low, *(effect for _, effect, _ in undecided)])
    else:
        low = min([silent, *(effect for _, effect, _ in undecided)])
        high = max([silent, *(effect for _, effect, _ in undecided)])
    told: list[tuple[Clause, Effect, Condition | None]]
    if low is high:
        told = [(clause, effect, None) for clause, effect in speaking if effect is low]
    else:
        told = [(clause, effect, None) for clause, effect in speaking if effect is Effect.HOLD]
        told += [one for one in undecided if one[1] > low or not (speaking or silent is low)]
    if not told and low is Effect.FORBID:
        return Effect.FORBID, [_silence(policy)], obligations
    reasons = [
        _reason(
            policy,
            clause,
            effect,
            condition.missing(known) if condition else (),
            lifted.get((policy.id, clause.id), ""),
        )
        for clause, effect, condition in told
    ]
    return low if low is high else Effect.HOLD, reasons, obligations


def _reason(
    policy: Policy, clause: Clause, effect: Effect, missing: Collection[str], agreement: str
) -> Reason:
    because, change = clause.because, clause.change
    if agreement:
        because = f"The agreement `{agreement}` lifts this clause: {because}"
        change = f"The end of the agreement `{agreement}`, or a use outside its scope."
    elif clause.binding is not clause.effect:
        because += (
            f" The original of {clause.document.title} was not read, so this permit holds"
            " until legal has read it."
        )
        change = "Legal reads the original and brings the policy up to date."
    elif effect is not clause.effect:
        why = policy.stale or f"The policy was to be reviewed by {policy.review_by}."
        because += f" {why} Until it is reviewed, this permit holds."
        change = "Legal reviews the policy."
    return Reason(
        policy=policy.id,
        clause=clause.id,
        effect=effect,
        because=because,
        document=clause.document.id,
        source=clause.source,
        change=change,
        missing=tuple(sorted(missing)) if missing else (),
        agreement=agreement,
    )


def _missing(reasons: Iterable[Reason]) -> tuple[str, ...]:
    missing = {fact for reason in reasons if reason.missing for fact in reason.missing}
    return tuple(sorted(missing)) if missing else ()


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


def _place(reason: Reason) -> tuple[str, str]:
    return reason.policy, reason.clause


def _pin(policy: Policy) -> Pin:
    return Pin(policy=policy.id, version=policy.version, sha256=policy.sha256)
