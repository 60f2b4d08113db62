"""Say a ruling in sentences: what spoke, what is missing, and what would change it.

The same sentences go to the refused caller, to the command line and to legal's pages. What
would change a ruling is found by trying: each fact that the caller declares is set to each of
its words, and the ruling is made again. They are conditions, not advice to declare
what is not true.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.policy.condition import Value
from gateway.policy.decide import NOTHING_LIFTED, Decision, Facts, Lifted, Reason, decide
from gateway.policy.model import Effect, Policy
from gateway.policy.obligation import sentence_of
from gateway.policy.vocabulary import ANY, FACTS, NONE, Fact

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
_SUPPOSED: Final = "(supposed)"
"""What a text fact is set to while trying; only whether it is named can matter."""

_TRIES_MAX: Final = 512
"""How many ways of filling in all missing facts are looked at; real policies need under 50."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Facts that, set otherwise together, would lead to another effect."""

    facts: tuple[tuple[str, str], ...]
    """Names and words; a text fact that only has to be named is `any`."""
    effect: Effect


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
                {"facts": dict(one.facts), "effect": one.effect.word} for one in self.changes
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
            return f"Declare {_names(unsaid)}, or ask legal to rule on the declaration."
        if decision.effect is Effect.HOLD:
            return "Register the use as a declaration and ask legal to rule on it."
        return next((reason.change for reason in decision.reasons if reason.change), "")


def explain(
    facts: Facts,
    policies: Sequence[Policy],
    on: dt.date,
    *,
    absent: Collection[str] = (),
    lifted: Lifted = NOTHING_LIFTED,
) -> Explanation:
    """Return the ruling with what would change it."""
    decision = decide(facts, policies, on, absent=absent, lifted=lifted)
    return Explanation(
        decision=decision, changes=tuple(changes_of(decision, facts, policies, on))
    )


def changes_of(
    decision: Decision, facts: Facts, policies: Sequence[Policy], on: dt.date
) -> Iterator[Change]:
    """Yield what would loosen the ruling or, where facts are missing, tighten it.

    First single facts, each set to each of its words; then, where several are missing and none
    of them alone leads to a permit, the first way of filling in all of them that loosens most.
    """
    asked = _asked_facts(facts, policies)
    settled = False
    for fact in FACTS.values():
        if fact.name not in asked or fact.origin != "declared" or _is_named(fact, facts):
            continue
        for value, shown in _values(fact):
            if facts.get(fact.name) == value:
                continue
            effect = decide(facts.with_fact(fact.name, value), policies, on).effect
            missing = fact.name in decision.missing
            settled = settled or (missing and effect is Effect.PERMIT)
            if effect < decision.effect or (missing and effect > decision.effect):
                yield Change(facts=((fact.name, shown),), effect=effect)
    if len(decision.missing) > 1 and not settled:
        yield from _filled_in(decision, facts, policies, on)


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


def _filled_in(
    decision: Decision, facts: Facts, policies: Sequence[Policy], on: dt.date
) -> Iterator[Change]:
    """Yield the loosest ruling that filling in every missing fact could lead to."""
    choices = [list(_values(FACTS[name])) for name in decision.missing]
    best: Change | None = None
    for chosen in itertools.islice(itertools.product(*choices), _TRIES_MAX):
        filled = facts
        for name, (value, _) in zip(decision.missing, chosen, strict=True):
            filled = filled.with_fact(name, value)
        effect = decide(filled, policies, on).effect
        if effect < (best.effect if best else decision.effect):
            shown = tuple(word for _, word in chosen)
            best = Change(facts=tuple(zip(decision.missing, shown, strict=True)), effect=effect)
    if best is not None:
        yield best


def _sentences(explanation: Explanation) -> Iterator[str]:
    decision = explanation.decision
    yield _SENTENCES[decision.effect]
    for reason in decision.reasons:
        yield _reason_sentence(reason)
    if decision.missing:
        yield f"What is not known: {_names(decision.missing)}."
    stricter = [reason for reason in decision.reasons if reason.effect is not Effect.PERMIT]
    for change in dict.fromkeys(reason.change for reason in stricter if reason.change):
        yield f"What would change it: {change}"
    yield from _change_sentences(explanation.changes)
    for name in decision.obligations:
        yield f"Obligation `{name}`: {sentence_of(name)}"


def _change_sentences(changes: Sequence[Change]) -> Iterator[str]:
    """Yield one conditional sentence for each fact and outcome, its words together."""
    grouped: dict[tuple[str, Effect], list[str]] = {}
    for change in changes:
        if len(change.facts) == 1:
            fact, word = change.facts[0]
            grouped.setdefault((fact, change.effect), []).append(word)
    for (fact, effect), words in grouped.items():
        yield f"{_supposed(fact, words)}, {_OUTCOMES[effect]}."
    for change in changes:
        if len(change.facts) > 1:
            parts = [_supposed(fact, [word]) for fact, word in change.facts]
            joined = ", ".join([parts[0], *(part[0].lower() + part[1:] for part in parts[1:])])
            yield f"{joined}: {_OUTCOMES[change.effect]}."


def _supposed(fact: str, words: Sequence[str]) -> str:
    if words == [ANY]:
        return f"With `{fact}` declared"
    quoted = [f"`{word}`" for word in words]
    listed = " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
    return f"If `{fact}` were {listed}"


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
