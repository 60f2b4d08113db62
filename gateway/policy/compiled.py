"""The conditions of many clauses, asked all at once.

Every conjunction of tests has a bit: first the `when` of each clause, in order, then every
exception. One look-up for each fact tells which conjunctions the fact's value makes false and
which it leaves unknown; the rest of Kleene's logic is a few operations on whole numbers. What
comes out is what `Condition.truth` says clause by clause; a property test holds the two
together.

Not here: what follows from a clause that speaks (`decide.py`).
"""

from __future__ import annotations

import datetime as dt
import operator
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Final, TypeAlias

from gateway.limits import VALUES_REMEMBERED_MAX
from gateway.policy.condition import (
    AnyOf,
    Between,
    Condition,
    During,
    Measured,
    StartsWith,
    Test,
    Value,
)
from gateway.policy.vocabulary import FACTS, NONE

_Weight: TypeAlias = tuple[int, int]
"""The conjunctions that a value makes false, and those that it leaves unknown."""

_Doubt: TypeAlias = tuple[str, int]
"""A fact that is unknown, and the conjunctions that it leaves so; in order of the facts."""

Asked: TypeAlias = tuple[int, int, tuple[_Doubt, ...]]
"""The clauses that speak and those that are undecided, a bit for each, and the doubts."""

_Test: TypeAlias = tuple[int, Test]
"""A test, and the bit of the conjunction that it is a part of."""


class Conditions:
    """The conditions of some clauses, in order, ready to be asked."""

    __slots__ = ("_asked", "_column", "_columns", "_every", "_excepted")

    def __init__(self, conditions: Sequence[Condition]) -> None:
        asked: dict[str, list[_Test]] = {}
        exceptions: dict[int, int] = {}
        bit = 1 << len(conditions)
        for place, condition in enumerate(conditions):
            for test in condition.when:
                asked.setdefault(test.fact, []).append((1 << place, test))
            for tests in condition.unless:
                exceptions[1 << place] = exceptions.get(1 << place, 0) | bit
                for test in tests:
                    asked.setdefault(test.fact, []).append((bit, test))
                bit <<= 1
        self._every: Final = (1 << len(conditions)) - 1
        self._columns: Final = tuple(exceptions.items())
        self._column: Final = tuple(
            bit | exceptions.get(bit, 0) for bit in (1 << at for at in range(len(conditions)))
        )
        self._excepted: Final = sum(exceptions)
        self._asked: Final = tuple(
            (fact, _weights_of(fact, tests)) for fact, tests in sorted(asked.items())
        )

    def ask(self, known: Mapping[str, Value]) -> Asked:
        """Return which clauses speak, which are undecided, and what leaves them so."""
        get = known.get
        false = unknown = 0
        doubts: list[_Doubt] = []
        for fact, weights in self._asked:
            no, maybe = weights[get(fact)]
            false |= no
            if maybe:
                unknown |= maybe
                doubts.append((fact, maybe))
        left = self._every & ~false
        undecided = left & unknown
        if left & self._excepted:
            silencing, doubting = ~(false | unknown), unknown & ~false
            for bit, exceptions in self._columns:
                if exceptions & silencing:
                    left &= ~bit
                elif exceptions & doubting:
                    undecided |= bit
            undecided &= left
        if not undecided:
            return left, 0, ()
        open_ones = tuple([(fact, maybe & ~false) for fact, maybe in doubts])
        return left ^ undecided, undecided, open_ones

    def missing(self, place: int, doubts: Sequence[_Doubt]) -> tuple[str, ...]:
        """Return the facts among *doubts* that leave the clause at *place* undecided."""
        column = self._column[place]
        return tuple([fact for fact, conjunctions in doubts if conjunctions & column])


def places(bits: int) -> Iterator[int]:
    """Yield the places of the bits that are set, the lowest first."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


class _Weights(dict[Value | None, _Weight]):
    """What each value of one fact does, worked out when it first comes.

    Of words there are few, and all are remembered; of names and numbers, the first that come.
    """

    __slots__ = ("_fact", "_tests")

    def __init__(self, fact: str, tests: Sequence[_Test]) -> None:
        super().__init__()
        self._fact = fact
        self._tests = tests

    def __missing__(self, value: Value | None) -> _Weight:
        weight = self._work_out(value)
        if len(self) < VALUES_REMEMBERED_MAX:
            self[value] = weight
        return weight

    def _work_out(self, value: Value | None) -> _Weight:
        return self._ask_each(value)

    def _ask_each(self, value: Value | None) -> _Weight:
        known = {} if value is None else {self._fact: value}
        false = unknown = 0
        for bit, test in self._tests:
            truth = test.truth(known)
            if truth is None:
                unknown |= bit
            elif not truth:
                false |= bit
        return false, unknown


class _Texts(_Weights):
    """What texts do that no test names: all the same, but for how they begin."""

    __slots__ = ("_begin", "_named", "_others", "_starts")

    def __init__(self, fact: str, tests: Sequence[_Test]) -> None:
        super().__init__(fact, tests)
        starts: dict[str, int] = {}
        named: set[str | bool] = {NONE}
        self._others = 0
        for bit, test in tests:
            if isinstance(test, StartsWith):
                starts[test.start] = starts.get(test.start, 0) | bit
            elif isinstance(test, AnyOf):
                named |= test.allowed
                self._others |= 0 if test.negated else bit
        self._named = frozenset(named)
        self._begin = tuple(starts)
        self._starts = tuple(starts.items())

    def _work_out(self, value: Value | None) -> _Weight:
        if not isinstance(value, str) or value in self._named:
            return self._ask_each(value)
        false = self._others
        if self._begin:
            folded = value.casefold()
            begins = folded.startswith(self._begin)
            for start, bits in self._starts:
                if not begins or not folded.startswith(start):
                    false |= bits
        return false, 0


class _Numbers(_Weights):
    """What numbers do, and days: all the same between two bounds of the tests."""

    __slots__ = ("_scales",)

    def __init__(self, fact: str, tests: Sequence[_Test]) -> None:
        super().__init__(fact, tests)
        months = dict.fromkeys(test.at for _, test in tests if isinstance(test, Between))
        scales = [(month, _ranges(tests, month)) for month in months or (None,)]
        self._scales = [(month, _cuts(ranges), _all(ranges)) for month, ranges in scales]

    def _work_out(self, value: Value | None) -> _Weight:
        false = unknown = 0
        for month, (cuts, outside), all_there_are in self._scales:
            number = value.at(month) if isinstance(value, Measured) else value
            if isinstance(number, dt.date):
                number = number.toordinal()
            if isinstance(number, int):
                false |= outside[bisect_right(cuts, number)]
            else:
                unknown |= all_there_are
        return false, unknown


_Range: TypeAlias = tuple[int, int | None, int | None]
"""A bit, and the smallest and the largest number that fit."""


def _ranges(tests: Sequence[_Test], month: str | None) -> list[_Range]:
    """Return the tests for numbers of that month, or for days, as ranges."""
    found: list[_Range] = []
    for bit, test in tests:
        match test:
            case Between(low=low, high=high, at=at) if at == month:
                found.append((bit, low, high))
            case During(first=first, last=last):
                found.append((bit, _number(first), _number(last)))
            case _:
                pass
    return found


def _number(day: dt.date | None) -> int | None:
    return None if day is None else day.toordinal()


def _cuts(ranges: Sequence[_Range]) -> tuple[list[int], list[int]]:
    """Return where the answers change, and the bits that are false from each cut to the next.

    The second list has one more: what is false below the first cut.
    """
    lows = {low for _, low, _ in ranges if low is not None}
    highs = {high + 1 for _, _, high in ranges if high is not None}
    cuts = sorted(lows | highs)
    samples = [cuts[0] - 1, *cuts] if cuts else [0]
    outside = [
        _or(
            bit
            for bit, low, high in ranges
            if (low is not None and number < low) or (high is not None and number > high)
        )
        for number in samples
    ]
    return cuts, outside


def _all(ranges: Iterable[_Range]) -> int:
    return _or(bit for bit, _, _ in ranges)


def _or(bits: Iterable[int]) -> int:
    return reduce(operator.or_, bits, 0)


def _weights_of(fact: str, tests: Sequence[_Test]) -> _Weights:
    """Return what the values of *fact* do, in the form that is quickest to ask."""
    kinds = {type(test) for _, test in tests}
    if kinds <= {Between} or kinds <= {During}:
        return _Numbers(fact, tests)
    if kinds <= {AnyOf, StartsWith} and fact not in _SETS:
        return _Texts(fact, tests)
    return _Weights(fact, tests)


_SETS: Final = frozenset(name for name, fact in FACTS.items() if fact.kind == "words")
