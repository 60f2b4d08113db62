"""Ask two libraries the same questions: what would be ruled otherwise, and by which clauses.

A question is what was known of a use on a day; which policies bind it is found in each library.
One question follows another, and nothing of them is kept but counts. From the same questions
and the same libraries comes the same answer, whatever was asked before.

Not here: where the questions come from (`dataset/recall.py`), and two libraries compared by
standard uses (`diff.py`).
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from gateway.limits import BINDINGS_REMEMBERED_MAX
from gateway.policy.condition import Value
from gateway.policy.decide import Decision, Facts, Lifted, Outcome, Sitting, decide, seat
from gateway.policy.library import Library
from gateway.policy.model import Effect, Policy

Place = tuple[str, str]
"""A policy and a clause."""

Approves = Callable[[Iterable[Place]], bool]
"""Tells whether a person said yes to all of these holding clauses."""

Key = TypeVar("Key")


def _nobody_approves(holding: Iterable[Place]) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is known of a use and its call, and on which day it is to be ruled on."""

    facts: Mapping[str, Value]
    policies: tuple[str, ...]
    """Ids of the policies that bind by name; the model's own are found by each library."""
    model: str | None
    on: dt.date
    lifted: Lifted = field(default_factory=dict)
    approves: Approves = _nobody_approves

    def ruled(self, library: Library) -> Decision:
        """Return the ruling under *library*."""
        binding = library.binding(self.policies, self.model, self.on)
        return decide(
            self.facts, binding.policies, self.on, absent=binding.absent, lifted=self.lifted
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruled:
    """What counts of a ruling: its effect after all that people approved, and its reasons."""

    effect: Effect
    reasons: tuple[Place, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One question's rulings under both libraries."""

    before: Ruled
    after: Ruled

    @property
    def changes(self) -> bool:
        """Tell whether the effect is another."""
        return self.before.effect is not self.after.effect

    @property
    def tightens(self) -> bool:
        """Tell whether what was allowed, or left to a person, is so no longer."""
        return self.after.effect > self.before.effect

    @property
    def causes(self) -> tuple[Place, ...]:
        """Return the clauses that led to one ruling and not to the other."""
        return tuple(sorted({*self.before.reasons} ^ {*self.after.reasons}))


class Totals:
    """How many questions were asked, by what they came to before and after."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[Effect, Effect]] = Counter()

    def add(self, pair: Pair) -> None:
        """Count one question."""
        self._counts[pair.before.effect, pair.after.effect] += 1

    @property
    def asked(self) -> int:
        """Return how many questions were asked."""
        return self._counts.total()

    @property
    def changed(self) -> int:
        """Return how many of them came to another effect."""
        return sum(count for (one, other), count in self._counts.items() if one is not other)

    def as_json(self) -> dict[str, int]:
        """Return every count, such as `permit to hold`, in the order of the effects."""
        return {
            f"{before.word} to {after.word}": self._counts[before, after]
            for before in Effect
            for after in Effect
            if self._counts[before, after]
        }


class Replay:
    """Two libraries that are asked the same questions."""

    def __init__(self, before: Library, after: Library) -> None:
        self._before: Final = before
        self._after: Final = _sharing(after, before)
        self._turns: Final = sorted(_turns(before) | _turns(after))
        self._bound: dict[tuple[object, ...], _Bound] = {}

    def ask(self, question: Question) -> Pair:
        """Return what both libraries come to."""
        facts, on, lifted = question.facts, question.on, question.lifted
        known = facts.plain() if isinstance(facts, Facts) else facts
        bound = self._bound_to(question, known.get("purpose"))
        outcomes = [docket.rule(known, on, lifted) for docket in bound.before.dockets]
        before = _counted(question, bound.before.together(outcomes))
        if bound.after is bound.before:
            return Pair(before=before, after=before)
        others = [
            docket.rule(known, on, lifted) if place is None else outcomes[place]
            for docket, place in zip(bound.after.dockets, bound.places, strict=True)
        ]
        return Pair(before=before, after=_counted(question, bound.after.together(others)))

    def _bound_to(self, question: Question, purpose: object) -> _Bound:
        # Between two days on which something comes into force or ends, the same policies bind.
        turn = bisect_right(self._turns, question.on)
        key = (question.policies, question.model, purpose, turn)
        bound = self._bound.get(key)
        if bound is None:
            if len(self._bound) >= BINDINGS_REMEMBERED_MAX:
                self._bound.clear()
            before, after = (
                _seated(library, question, purpose) for library in (self._before, self._after)
            )
            bound = self._bound[key] = _Bound(before, before if before == after else after)
        return bound


class _Bound:
    """Who sits in both libraries, and which of them sit in both."""

    __slots__ = ("after", "before", "places")

    def __init__(self, before: Sitting, after: Sitting) -> None:
        self.before: Final = before
        self.after: Final = after
        self.places: Final = tuple(
            before.dockets.index(docket) if docket in before.dockets else None
            for docket in after.dockets
        )


def _seated(library: Library, question: Question, purpose: object) -> Sitting:
    binding = library.binding(question.policies, question.model, question.on)
    return seat(binding.policies, purpose, question.on, binding.absent)


def _sharing(library: Library, other: Library) -> Library:
    """Return *library* with the very policies of *other* where they say the same."""
    policies = {
        name: tuple(_same(policy, other.policies.get(name, ())) for policy in versions)
        for name, versions in library.policies.items()
    }
    return replace(library, policies=policies)


def _same(policy: Policy, others: Iterable[Policy]) -> Policy:
    return next((other for other in others if other == policy), policy)


def _turns(library: Library) -> set[dt.date]:
    """Return every day on which a policy comes into force, or is so no longer."""
    versions = [policy for many in library.policies.values() for policy in many]
    ends = {policy.in_force_until for policy in versions if policy.in_force_until is not None}
    return {policy.in_force_from for policy in versions} | {
        last + dt.timedelta(days=1) for last in ends if last < dt.date.max
    }


def replay(
    asked: Iterable[tuple[Key, Question]], before: Library, after: Library, totals: Totals
) -> Iterator[tuple[Key, Pair]]:
    """Yield each question that comes to another effect; count all of them in *totals*."""
    libraries = Replay(before, after)
    for key, question in asked:
        pair = libraries.ask(question)
        totals.add(pair)
        if pair.changes:
            yield key, pair


def _counted(question: Question, outcome: Outcome) -> Ruled:
    reasons = tuple([(reason.policy, reason.clause) for reason in outcome.reasons])
    effect = outcome.effect
    if effect is Effect.HOLD and question.approves(reasons):
        effect = Effect.PERMIT
    return Ruled(effect=effect, reasons=reasons)
