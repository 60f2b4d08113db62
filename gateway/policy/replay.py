"""Ask two libraries the same questions: what would be ruled otherwise, and by which clauses.

A question is what was known of a use on a day; which policies bind it is found in each library.
One question follows another, and nothing of them is kept but counts. From the same questions
and the same libraries comes the same answer, whatever was asked before.

Not here: where the questions come from (`dataset/recall.py`), and two libraries compared by
standard uses (`diff.py`).
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from gateway.limits import BINDINGS_REMEMBERED_MAX
from gateway.policy.condition import Value
from gateway.policy.decide import Decision, Lifted, decide
from gateway.policy.library import Binding, Library
from gateway.policy.model import Effect

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
        return self.under(library.binding(self.policies, self.model, self.on))

    def under(self, binding: Binding) -> Decision:
        """Return the ruling under the policies of *binding*."""
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
        self._after: Final = after
        self._bound: dict[
            tuple[tuple[str, ...], str | None, dt.date], tuple[Binding, Binding, bool]
        ] = {}

    def ask(self, question: Question) -> Pair:
        """Return what both libraries come to."""
        key = (question.policies, question.model, question.on)
        bound = self._bound.get(key)
        if bound is None:
            if len(self._bound) >= BINDINGS_REMEMBERED_MAX:
                self._bound.clear()
            bound = self._bound[key] = self._bind(question)
        before, after, same = bound
        one = _counted(question, before)
        return Pair(before=one, after=one if same else _counted(question, after))

    def _bind(self, question: Question) -> tuple[Binding, Binding, bool]:
        """Return what binds in both libraries, and whether that is the same word for word."""
        before, after = (
            library.binding(question.policies, question.model, question.on)
            for library in (self._before, self._after)
        )
        return before, after, before == after


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


def _counted(question: Question, binding: Binding) -> Ruled:
    decision = question.under(binding)
    reasons = tuple([(reason.policy, reason.clause) for reason in decision.reasons])
    effect = decision.effect
    if effect is Effect.HOLD and question.approves(reasons):
        effect = Effect.PERMIT
    return Ruled(effect=effect, reasons=reasons)
