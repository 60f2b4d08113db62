"""Say a ruling in sentences: what spoke, what is missing, and what would change it.

The same sentences go to the refused caller, to the command line and to legal's pages. What
would change a ruling is found by trying: each single fact that the caller declares is set to
each of its words, and the ruling is made again. They are conditions, not advice to declare
what is not true.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.policy.condition import Value
from gateway.policy.decide import Decision, Facts, Reason, decide
from gateway.policy.model import Effect, Policy
from gateway.policy.obligation import OBLIGATIONS
from gateway.policy.vocabulary import ANY, FACTS, NONE, Fact

_SENTENCES: Final[Mapping[Effect, str]] = {
    Effect.PERMIT: "The terms permit this use.",
    Effect.HOLD: "This use is held: legal must rule on the declaration first.",
    Effect.FORBID: "The terms forbid this use.",
}
_SUPPOSED: Final = "(supposed)"
"""What a text fact is set to while trying; only whether it is named can matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One fact that, set otherwise, would lead to another effect."""

    fact: str
    value: str
    effect: Effect

    @property
    def sentence(self) -> str:
        """Return the change as a conditional sentence."""
        outcome = _OUTCOMES[self.effect]
        if self.fact == "agreement":
            return f"With a written permission registered, {outcome}."
        if self.value == ANY:
            return f"With `{self.fact}` declared, {outcome}."
        return f"If `{self.fact}` were `{self.value}`, {outcome}."


_OUTCOMES: Final[Mapping[Effect, str]] = {
    Effect.PERMIT: "it would be permitted",
    Effect.HOLD: "it would be held for legal",
    Effect.FORBID: "it would be forbidden",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision and everything a person needs to act on it."""

    decision: Decision
    changes: tuple[Change, ...]

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
            "missing": list(decision.missing),
            "obligations": list(decision.obligations),
            "changes": [
                {"fact": one.fact, "value": one.value, "effect": one.effect.word}
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
        if decision.missing:
            return (
                f"Declare {_names(decision.missing)}, or ask legal to rule on the declaration."
            )
        if decision.effect is Effect.HOLD:
            return "Register the use as a declaration and ask legal to rule on it."
        return next((reason.change for reason in decision.reasons if reason.change), "")


def explain(facts: Facts, policies: Sequence[Policy], on: dt.date) -> Explanation:
    """Return the ruling with what would change it."""
    decision = decide(facts, policies, on)
    return Explanation(
        decision=decision, changes=tuple(changes_of(decision, facts, policies, on))
    )


def changes_of(
    decision: Decision, facts: Facts, policies: Sequence[Policy], on: dt.date
) -> Iterator[Change]:
    """Yield the single facts that would loosen the ruling or, where missing, tighten it."""
    asked = _asked_facts(facts, policies)
    for fact in FACTS.values():
        if fact.name not in asked or fact.origin != "declared" or fact.name == "purpose":
            continue
        for value, shown in _values(fact):
            if facts.get(fact.name) == value or _is_named(fact, facts):
                continue
            effect = decide(facts.with_fact(fact.name, value), policies, on).effect
            looser = effect < decision.effect
            decided = fact.name in decision.missing and effect > decision.effect
            if looser or decided:
                yield Change(fact=fact.name, value=shown, effect=effect)


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


def _sentences(explanation: Explanation) -> Iterator[str]:
    decision = explanation.decision
    yield _SENTENCES[decision.effect]
    for reason in decision.reasons:
        yield _reason_sentence(reason)
    if decision.missing:
        yield f"What is not known: {_names(decision.missing)}."
    if decision.effect is not Effect.PERMIT:
        for change in dict.fromkeys(reason.change for reason in decision.reasons):
            if change:
                yield f"What would change it: {change}"
    for one in explanation.changes:
        yield one.sentence
    for name in decision.obligations:
        yield f"Obligation `{name}`: {OBLIGATIONS[name].sentence}"


def _reason_sentence(reason: Reason) -> str:
    name = f"{reason.policy} / {reason.clause}" if reason.policy else reason.clause
    cited = f" ({reason.source})" if reason.source else ""
    undecided = f" It depends on {_names(reason.missing)}." if reason.missing else ""
    return f"{name}: {reason.because}{undecided}{cited}"


def _names(facts: Sequence[str]) -> str:
    return ", ".join(f"`{fact}`" for fact in facts)


def _asked_facts(facts: Facts, policies: Sequence[Policy]) -> frozenset[str]:
    """Return the facts of every clause that speaks of this purpose at all."""
    purpose = facts.get("purpose")
    return frozenset(
        fact
        for policy in policies
        for clause in policy.clauses
        if purpose is None
        or all(t.truth({"purpose": purpose}) is not False for t in clause.condition.when)
        for fact in clause.condition.facts()
    )


def _values(fact: Fact) -> Iterator[tuple[Value, str]]:
    match fact.kind:
        case "word":
            yield from ((word, word) for word in fact.words)
        case "yes-no":
            yield from ((True, "true"), (False, "false"))
        case "text":
            yield _SUPPOSED, ANY
        case _:
            return


def _is_named(fact: Fact, facts: Facts) -> bool:
    return fact.kind == "text" and facts.get(fact.name, NONE) != NONE
