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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from gateway.limits import ANSWERS_REMEMBERED_MAX, OUTCOMES_REMEMBERED_MAX
from gateway.policy.compiled import Asked
from gateway.policy.condition import Condition
from gateway.policy.decide import (
    Docket,
    Lifted,
    Outcome,
    Sitting,
    plainly,
    seat,
)
from gateway.policy.library import Library
from gateway.policy.model import Effect, Policy
from gateway.policy.question import Place, Question, nobody_approves

Key = TypeVar("Key")

_ONE_DAY: Final = dt.timedelta(days=1)


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
        """Return the clauses that led to one ruling only, or those that say otherwise now.

        A policy without a say in the stricter ruling was only outvoted there: it is no cause.
        """
        one_only = {*self.before.reasons} ^ {*self.after.reasons}
        if self.changes:
            stricter = self.after if self.tightens else self.before
            heard = {policy for policy, _ in stricter.reasons}
            one_only = {place for place in one_only if place[0] in heard}
            return tuple(sorted(one_only or {*stricter.reasons}))
        return tuple(sorted(one_only or {*self.after.reasons}))


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

    def __init__(
        self, before: Library, after: Library, remembered_max: int = ANSWERS_REMEMBERED_MAX
    ) -> None:
        self._remembered_max: Final = remembered_max
        self._before: Final = before
        self._after: Final = _sharing(after, before)
        self._turns: Final = sorted(_turns(before) | _turns(after))
        self._bound: dict[tuple[object, ...], _Bound] = {}
        self._alike: dict[tuple[object, ...], _Bound] = {}
        self._remembered = 0

    def ask(self, question: Question) -> Pair:
        """Return what both libraries come to."""
        facts, on, lifted = question.facts, question.on, question.lifted
        known = plainly(facts)
        # Between two turns the same policies bind, and the same are past their review.
        turn = bisect_right(self._turns, on)
        models = (question.model, *question.reported)
        place = (question.policies, models, known.get("purpose"), turn)
        bound = self._bound.get(place) or self._bind(place, question)
        answers = tuple([docket.ask(known) for docket in bound.asked])
        # From the same answers the same follows, whatever else the facts may be.
        pair = None if lifted else bound.ruled.get(answers)
        if pair is None:
            pair = bound.rule(answers, on, lifted)
            if not lifted:
                self._make_room()
                bound.ruled[answers] = pair
        if question.approves is not nobody_approves:
            before, after = _counted(question, pair.before), _counted(question, pair.after)
            pair = Pair(before=before, after=after)
        return pair

    def _bind(self, place: tuple[object, ...], question: Question) -> _Bound:
        """Find which policies rule; many models and days come to the same."""
        self._make_room()
        before, after = _seated(self._before, question), _seated(self._after, question)
        dockets = (*before.dockets, *after.dockets)
        alike = (
            *((id(docket), docket.is_stale(question.on)) for docket in dockets),
            len(before.dockets),
            *(reason.policy for sitting in (before, after) for reason in sitting.unbound),
            len(before.unbound),
        )
        bound = self._alike.get(alike)
        if bound is None:
            bound = self._alike[alike] = _Bound(before, after)
        self._bound[place] = bound
        return bound

    def _make_room(self) -> None:
        if self._remembered >= self._remembered_max:
            self._bound.clear()
            self._alike.clear()
            self._remembered = 0
        self._remembered += 1


class _Bound:
    """Which policies rule in both libraries, and what followed from their clauses' answers."""

    __slots__ = ("_after", "_before", "asked", "ruled")

    def __init__(self, before: Sitting, after: Sitting) -> None:
        # Policies that ask the same, though they may conclude otherwise, are asked once.
        asked: dict[tuple[Condition, ...], Docket] = {}
        for docket in (*before.dockets, *after.dockets):
            asked.setdefault(docket.conditions, docket)
        self.asked: Final = tuple(asked.values())
        self.ruled: dict[tuple[Asked, ...], Pair] = {}
        places = {conditions: place for place, conditions in enumerate(asked)}
        self._before: Final = _Bench(before, places)
        self._after: Final = _Bench(after, places)

    def rule(self, answers: tuple[Asked, ...], on: dt.date, lifted: Lifted) -> Pair:
        """Return what follows from the *answers* in both libraries."""
        return Pair(
            before=self._before.rule(answers, on, lifted),
            after=self._after.rule(answers, on, lifted),
        )


class _Bench:
    """One library's policies, and where their clauses' answers stand."""

    __slots__ = ("_seats", "_sitting", "_together")

    def __init__(self, sitting: Sitting, places: Mapping[tuple[Condition, ...], int]) -> None:
        self._sitting: Final = sitting
        self._seats: Final = [(one, places[one.conditions]) for one in sitting.dockets]
        self._together: dict[tuple[int, ...], tuple[Ruled, list[Outcome]]] = {}

    def rule(self, answers: tuple[Asked, ...], on: dt.date, lifted: Lifted) -> Ruled:
        """Return what follows from the *answers*."""
        outcomes = [docket.follow(answers[place], on, lifted) for docket, place in self._seats]
        # A docket remembers its outcomes; kept here, no other can come by the same name.
        names = tuple([id(outcome) for outcome in outcomes])
        known = self._together.get(names)
        if known is not None:
            return known[0]
        outcome = self._sitting.together(outcomes)
        reasons = tuple([(reason.policy, reason.clause) for reason in outcome.reasons])
        ruled = Ruled(effect=outcome.effect, reasons=reasons)
        if len(self._together) < OUTCOMES_REMEMBERED_MAX:
            self._together[names] = ruled, outcomes
        return ruled


def _seated(library: Library, question: Question) -> Sitting:
    binding = question.bound(library)
    purpose = question.facts.get("purpose")
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
    """Return every day from which on another policy binds, or one is past its review."""
    versions = [policy for many in library.policies.values() for policy in many]
    last_days = {policy.review_by for policy in versions}
    last_days |= {one.in_force_until for one in versions if one.in_force_until is not None}
    return {policy.in_force_from for policy in versions} | {
        last + _ONE_DAY for last in last_days if last < dt.date.max
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


def _counted(question: Question, ruled: Ruled) -> Ruled:
    if ruled.effect is Effect.HOLD and question.approves(ruled.reasons):
        return replace(ruled, effect=Effect.PERMIT)
    return ruled
