"""Say a ruling in sentences: what spoke or nearly did, what is missing, what would change it.

The same sentences go to the refused caller, to the command line and to legal's pages. What
would change a ruling is found by trying: facts are set to the values that the clauses tell
apart (`suppose.py`), clauses are lifted as an agreement would, and the ruling is made again.
All of it is conditional; none of it is advice to declare what is not true.
"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.policy.condition import Condition
from gateway.policy.decide import NOTHING_LIFTED, Decision, Facts, Lifted, Reason, decide
from gateway.policy.model import Clause, Effect, Policy
from gateway.policy.obligation import sentence_of as duty_of
from gateway.policy.suppose import Supposition, listed, sentence_of, suppositions
from gateway.policy.vocabulary import FACTS, Origin

ASK_LEGAL: Final = "Register the use as a declaration and ask legal to rule on it."
"""The next step where nothing that anybody could say would settle a hold."""

_SENTENCES: Final[Mapping[Effect, str]] = {
    Effect.PERMIT: "The terms permit this use.",
    Effect.HOLD: "This use is held: legal must rule on the declaration first.",
    Effect.FORBID: "The terms forbid this use.",
}
_OUTCOMES: Final[Mapping[Effect, str]] = {
    Effect.PERMIT: "it would be permitted",
    Effect.HOLD: "it would be held for legal",
    Effect.FORBID: "it would be forbidden",
}
_ACTS: Final[Mapping[Effect, str]] = {
    Effect.PERMIT: "would permit",
    Effect.HOLD: "would hold it for legal",
    Effect.FORBID: "would forbid",
}
_WHO_KNOWS: Final[Mapping[Origin, str]] = {
    "declared": "the declaration would say it",
    "request": "the request itself would show it",
    "gateway": "the gateway's operator or its own signs would say it",
    "registered": "the organisation would register it (`gateway organisation register`)",
    "derived": "it follows from another fact",
}

_TRIES_MAX: Final = 640
"""How many rulings are made to fill in missing facts, or to try two facts at once; each."""

_CHANGES_TOLD_MAX: Final = 3
"""How many ways of changing two facts are told; more of them are no help."""

_NEAR_MAX: Final = 12
"""How many clauses one fact away are told."""

_SUPPOSED_AGREEMENT: Final = "supposed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Facts that, set otherwise together, or clauses that, lifted together, lead elsewhere."""

    facts: tuple[Supposition, ...] = ()
    lifts: tuple[tuple[str, str], ...] = ()
    """The clauses, each with its policy, that an agreement would lift."""
    effect: Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """A clause that would speak if one fact were another."""

    policy: str
    clause: Clause
    effect: Effect
    ways: tuple[tuple[Supposition, ...], ...]
    """For each fact that could do it, the values that would."""


class Explanation:
    """A decision and everything a person needs to act on it.

    What takes many rulings to find is found when it is asked for.
    """

    def __init__(self, trial: _Trial) -> None:
        self._trial = trial
        self.decision: Final = trial.decision

    @functools.cached_property
    def near(self) -> tuple[Near, ...]:
        """The clauses of another effect that are one fact away from speaking."""
        return tuple(self._trial.near())

    @functools.cached_property
    def changes(self) -> tuple[Change, ...]:
        """What would loosen the ruling or, where facts are missing, tighten it."""
        return tuple(self._trial.changes())

    def sentences(self) -> tuple[str, ...]:
        """Return the explanation as sentences, the most important first."""
        return tuple(_sentences(self))

    def as_json(self) -> dict[str, Any]:
        """Return the explanation JSON-ready, with stable keys."""
        decision = self.decision
        return {
            "effect": decision.effect.word,
            "day": decision.day.isoformat(),
            "reasons": [reason_json(reason) for reason in decision.reasons],
            "near": [_near_json(one) for one in self.near],
            "missing": list(decision.missing),
            "unknown": [
                {
                    "fact": name,
                    "meaning": FACTS[name].meaning,
                    "known_from": FACTS[name].origin,
                }
                for name in decision.missing
            ],
            "obligations": list(decision.obligations),
            "changes": [
                {
                    "facts": {fact.fact: fact.word for fact in one.facts},
                    "lifts": [f"{policy}:{clause}" for policy, clause in one.lifts],
                    "effect": one.effect.word,
                }
                for one in self.changes
            ],
            "policies": [
                {"policy": pin.policy, "version": pin.version, "sha256": pin.sha256}
                for pin in decision.policies
            ],
            "next": self.next_step(),
            "sentences": list(self.sentences()),
        }

    def next_step(self) -> str:
        """Return one sentence that tells the caller what to do, empty if permitted."""
        decision = self.decision
        if decision.effect is Effect.PERMIT:
            return ""
        unsaid = [name for name in decision.missing if FACTS[name].origin == "declared"]
        if unsaid:
            return f"Declare {listed(unsaid, 'and')}, or ask legal to rule on the declaration."
        registered = [name for name in decision.missing if FACTS[name].origin == "registered"]
        if registered:
            return (
                f"Have {listed(registered, 'and')} registered for the organisation"
                " (`gateway organisation register`), or ask legal to rule on the declaration."
            )
        if decision.effect is Effect.HOLD:
            return ASK_LEGAL
        return next((reason.change for reason in decision.reasons if reason.change), "")


def explain(
    facts: Facts,
    policies: Sequence[Policy],
    on: dt.date,
    *,
    absent: Collection[str] = (),
    lifted: Lifted = NOTHING_LIFTED,
) -> Explanation:
    """Return the ruling with the clauses that nearly spoke and what would change it."""
    return Explanation(_Trial(facts, policies, on, absent, lifted))


def reason_json(reason: Reason) -> dict[str, Any]:
    """Return one reason JSON-ready: the keys a refused caller reads."""
    return {
        "policy": reason.policy,
        "clause": reason.clause,
        "effect": reason.effect.word,
        "because": reason.because,
        "citation": reason.source,
        "missing": list(reason.missing),
        "change": reason.change,
    }


class _Trial:
    """One ruling that is made again and again, each time with something supposed."""

    def __init__(
        self,
        facts: Facts,
        policies: Sequence[Policy],
        on: dt.date,
        absent: Collection[str],
        lifted: Lifted,
    ) -> None:
        self._facts = facts
        self._policies = policies
        self._on = on
        self._absent = absent
        self._lifted = lifted
        self.decision: Final = decide(facts, policies, on, absent=absent, lifted=lifted)

    @functools.cached_property
    def _clauses(self) -> list[tuple[Policy, Clause, Condition]]:
        purpose = self._facts.get("purpose")
        return [
            (policy, clause, condition)
            for policy in self._policies
            if policy.in_force(self._on)
            for clause, condition in policy.about(purpose)
        ]

    @functools.cached_property
    def _supposed(self) -> dict[str, tuple[Supposition, ...]]:
        found = suppositions([condition for _, _, condition in self._clauses], self._facts)
        # Another purpose is another use; it would be asked about by itself.
        return {name: values for name, values in found.items() if name != "purpose"}

    def near(self) -> Iterator[Near]:
        """Yield the clauses of another effect that are one fact away from speaking."""
        told = {(reason.policy, reason.clause) for reason in self.decision.reasons}
        found = 0
        for policy, clause, condition in self._clauses:
            place = policy.id, clause.id
            effect = Effect.PERMIT if place in self._lifted else clause.binding
            if place in told or effect is self.decision.effect or found >= _NEAR_MAX:
                continue
            if condition.truth(self._facts) is True:
                continue
            ways = []
            for name in sorted(condition.facts() & self._supposed.keys()):
                would = tuple(
                    one
                    for one in self._supposed[name]
                    if condition.truth(self._facts.with_fact(name, one.value)) is True
                )
                if would:
                    ways.append(would)
            if ways:
                found += 1
                yield Near(policy=policy.id, clause=clause, effect=effect, ways=tuple(ways))

    def changes(self) -> Iterator[Change]:
        """Yield what would loosen the ruling or, where facts are missing, tighten it.

        First single facts; then clauses lifted, one by one and all that bar together; then,
        where none of that permits, all missing facts or two facts at once.
        """
        decision = self.decision
        best = decision.effect
        for name, supposed in self._supposed.items():
            missing = name in decision.missing
            for one in supposed:
                effect = self._effect((one,))
                if effect < decision.effect:
                    best = min(best, effect)
                if effect < decision.effect or (missing and effect > decision.effect):
                    yield Change(facts=(one,), effect=effect)
        for change in self._lifting():
            best = min(best, change.effect)
            yield change
        if best is Effect.PERMIT or decision.effect is Effect.PERMIT:
            return
        if len(decision.missing) > 1:
            yield from self._filled_in()
        elif decision.effect is Effect.FORBID:
            yield from self._pairs(best)

    def _effect(
        self, supposed: Sequence[Supposition] = (), lifts: Collection[tuple[str, str]] = ()
    ) -> Effect:
        facts = self._facts
        for one in supposed:
            facts = facts.with_fact(one.fact, one.value)
        lifted: Lifted = self._lifted
        if lifts:
            lifted = {**lifted, **dict.fromkeys(lifts, _SUPPOSED_AGREEMENT)}
        return decide(
            facts, self._policies, self._on, absent=self._absent, lifted=lifted
        ).effect

    def _lifting(self) -> Iterator[Change]:
        """Yield the permissions that would loosen the ruling."""
        liftable = {
            (policy.id, clause.id)
            for policy, clause, _ in self._clauses
            if clause.effect is not Effect.PERMIT
        }
        bars = [
            (reason.policy, reason.clause)
            for reason in self.decision.reasons
            if (reason.policy, reason.clause) in liftable and not reason.agreement
        ]
        alone = [
            Change(lifts=(bar,), effect=effect)
            for bar in bars
            if (effect := self._effect(lifts=[bar])) < self.decision.effect
        ]
        yield from alone
        together = self._effect(lifts=bars) if len(bars) > 1 else self.decision.effect
        if together < min([self.decision.effect, *(change.effect for change in alone)]):
            yield Change(lifts=tuple(bars), effect=together)

    def _filled_in(self) -> Iterator[Change]:
        """Yield the loosest ruling that filling in every missing fact could lead to."""
        choices = [
            sorted(self._supposed.get(name, ()), key=self._against)
            for name in self.decision.missing
        ]
        best: Change | None = None
        for chosen in itertools.islice(itertools.product(*choices), _TRIES_MAX):
            effect = self._effect(chosen)
            if effect < (best.effect if best else self.decision.effect):
                best = Change(facts=chosen, effect=effect)
        if best is not None:
            yield best

    def _against(self, one: Supposition) -> int:
        """Return how much speaks against *one*: what likely permits is tried first."""
        known = {one.fact: one.value}
        against = 0
        for _, clause, condition in self._clauses:
            for test in condition.when:
                if test.fact == one.fact and test.truth(known) is True:
                    against += -1 if clause.binding is Effect.PERMIT else 1
        return against

    def _pairs(self, best: Effect) -> Iterator[Change]:
        """Yield the pairs of declared facts that would loosen more than one fact does."""
        declared = [
            found for name, found in self._supposed.items() if FACTS[name].origin == "declared"
        ]
        pairs = (
            pair
            for one, other in itertools.combinations(declared, 2)
            for pair in itertools.product(one, other)
        )
        found: list[Change] = []
        for pair in itertools.islice(pairs, _TRIES_MAX):
            effect = self._effect(pair)
            if effect < best:
                found.append(Change(facts=pair, effect=effect))
        loosest = min((change.effect for change in found), default=best)
        yield from (change for change in found if change.effect is loosest)


def _near_json(near: Near) -> dict[str, Any]:
    return {
        "policy": near.policy,
        "clause": near.clause.id,
        "effect": near.effect.word,
        "because": near.clause.because,
        "citation": near.clause.source,
        "if": {way[0].fact: [one.word for one in way] for way in near.ways},
    }


def _sentences(explanation: Explanation) -> Iterator[str]:
    decision = explanation.decision
    yield _SENTENCES[decision.effect]
    for reason in decision.reasons:
        yield _reason_sentence(reason)
    for name in decision.missing:
        fact = FACTS[name]
        yield f"Not known: `{name}` ({fact.meaning}); {_WHO_KNOWS[fact.origin]}."
    stricter = [reason for reason in decision.reasons if reason.effect is not Effect.PERMIT]
    for change in dict.fromkeys(reason.change for reason in stricter if reason.change):
        yield f"What would change it: {change}"
    yield from _change_sentences(explanation)
    for near in explanation.near:
        yield _near_sentence(near)
    for name in decision.obligations:
        yield f"Obligation `{name}`: {duty_of(name)}"


def _change_sentences(explanation: Explanation) -> Iterator[str]:
    """Yield one conditional sentence for each fact and outcome, its words together."""
    single: dict[tuple[str, Effect], list[Supposition]] = {}
    double: dict[tuple[str, Supposition, Effect], list[Supposition]] = {}
    for change in explanation.changes:
        match change.facts:
            case (one,):
                single.setdefault((one.fact, change.effect), []).append(one)
            case (one, other):
                double.setdefault((one.fact, other, change.effect), []).append(one)
            case _:
                pass
    for (_, effect), words in single.items():
        yield f"If {sentence_of(words)}, {_OUTCOMES[effect]}."
    for change in explanation.changes:
        if change.lifts:
            yield _lift_sentence(change, explanation.decision)
    for (_, other, effect), words in itertools.islice(double.items(), _CHANGES_TOLD_MAX):
        yield f"If {sentence_of(words)} and {other.sentence()}, {_OUTCOMES[effect]}."
    for change in explanation.changes:
        if len(change.facts) > 2:
            parts = [one.sentence() for one in change.facts]
            joined = ", ".join(parts[:-1]) + " and " + parts[-1]
            yield f"If {joined}, {_OUTCOMES[change.effect]}."


def _lift_sentence(change: Change, decision: Decision) -> str:
    several = len(decision.policies) > 1
    names = [f"{policy} / {clause}" if several else clause for policy, clause in change.lifts]
    return (
        f"With a written permission registered that lifts {listed(names, 'and')},"
        f" {_OUTCOMES[change.effect]}."
    )


def _near_sentence(near: Near) -> str:
    ways = " or if ".join(sentence_of(way) for way in near.ways)
    return f"One fact away: {near.policy} / {near.clause.id} {_ACTS[near.effect]} if {ways}."


def _reason_sentence(reason: Reason) -> str:
    name = f"{reason.policy} / {reason.clause}" if reason.policy else reason.clause
    cited = f" ({reason.source})" if reason.source else ""
    undecided = f" It depends on {listed(reason.missing, 'and')}." if reason.missing else ""
    return f"{name}: {reason.because}{undecided}{cited}"
