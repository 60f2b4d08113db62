"""Three-valued conditions over facts, compiled once when a policy is loaded.

A condition is true, false or unknown (`None`), by Kleene's logic: what nobody knows stays
unknown unless the other parts already decide. `when` is a conjunction; each map of `unless` is
an exception, and one exception that is true makes the condition false.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from gateway.day import parse_day
from gateway.errors import MalformedPolicyError
from gateway.intent.country import COUNTRIES, country_hint
from gateway.intent.model import GENERATIVE
from gateway.intent.purpose import PURPOSES, covers
from gateway.policy.source import Keyed, Listing, Node, Scalar, nearest
from gateway.policy.vocabulary import ANY, FACTS, NONE, REGIONS, Fact


class OneOf(msgspec.Struct, frozen=True):
    """A value that is not known, but known to be one of *values*."""

    values: frozenset[str]


class Measured(msgspec.Struct, frozen=True):
    """A number as it was measured in several months (`YYYY-MM`), oldest first."""

    months: tuple[tuple[str, int], ...]

    def at(self, month: str | None) -> int | None:
        """Return the number of that month, or the newest; `None` if nobody measured."""
        if month is None:
            return self.months[-1][1] if self.months else None
        for measured, number in self.months:
            if measured == month:
                return number
        return None


Value = str | bool | int | dt.date | frozenset[str] | OneOf | Measured
"""What a fact can be: a word or text, yes or no, a number, a day, a set of words, one of
several words, or a number at several times."""

Truth = bool | None
"""`None` is unknown."""

_YES_NO: Final = {"true": True, "false": False}
_MONTH: Final = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
_NUMBER_KEYS: Final = ("over", "at-least", "under", "at-most", "at")
_DATE_KEYS: Final = ("from", "until")


class Test(Protocol):
    """Asks one thing of one fact."""

    @property
    def fact(self) -> str:
        """The fact that is asked for."""
        ...

    @property
    def line(self) -> int:
        """Where it stands in its file."""
        ...

    def truth(self, known: Mapping[str, Value]) -> Truth:
        """Return whether the fact fits, or `None` where that is unknown."""
        ...

    def covers(self, other: Test) -> bool:
        """Tell whether whatever fits *other* surely fits this (both ask for the same fact)."""
        ...


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Fits a value that is, or a set that holds, one of *allowed*; *negated*, none of them."""

    fact: str
    allowed: frozenset[str | bool]
    negated: bool
    line: int

    def truth(self, known: Mapping[str, Value]) -> Truth:
        """Return whether the fact fits, or `None` where that is unknown."""
        value = known.get(self.fact)
        if value is None:
            return None
        if value.__class__ is str or value.__class__ is bool:
            return (value in self.allowed) is not self.negated
        if value.__class__ is OneOf:
            return self._truth_of_one(value)
        assert isinstance(value, frozenset)  # noqa: S101 # INVARIANT: there is no other `Value` here.
        return (not self.allowed.isdisjoint(value)) is not self.negated

    def covers(self, other: Test) -> bool:
        """Tell whether whatever fits *other* surely fits this (both ask for the same fact)."""
        if isinstance(other, AllOf):
            return not self.negated and not self.allowed.isdisjoint(other.words)
        if isinstance(other, StartsWith):
            return self.negated and not any(other.fits(str(word)) for word in self.allowed)
        if not isinstance(other, AnyOf):
            return False
        if self.negated or other.negated:
            if not self.negated:
                return False
            if other.negated:
                return self.allowed <= other.allowed
            return self.allowed.isdisjoint(other.allowed) and self.fact not in _SETS
        return other.allowed <= self.allowed

    def _truth_of_one(self, value: OneOf) -> Truth:
        fit = len(value.values & self.allowed)
        if 0 < fit < len(value.values):
            return None
        return (fit > 0) is not self.negated


@dataclass(frozen=True, slots=True)
class AllOf:
    """Fits a set that holds every one of *words*."""

    fact: str
    words: frozenset[str]
    line: int

    def truth(self, known: Mapping[str, Value]) -> Truth:
        """Return whether the fact fits, or `None` where that is unknown."""
        value = known.get(self.fact)
        return self.words <= value if isinstance(value, frozenset) else None

    def covers(self, other: Test) -> bool:
        """Tell whether whatever fits *other* surely fits this (both ask for the same fact)."""
        if isinstance(other, AnyOf):
            return not other.negated and len(other.allowed) == 1 and self.words <= other.allowed
        return isinstance(other, AllOf) and self.words <= other.words


@dataclass(frozen=True, slots=True)
class StartsWith:
    """Fits a text that begins with *start*, capitals or not; `none` begins with nothing."""

    fact: str
    start: str
    line: int

    def truth(self, known: Mapping[str, Value]) -> Truth:
        """Return whether the fact fits, or `None` where that is unknown."""
        value = known.get(self.fact)
        if isinstance(value, OneOf):
            truths = {self.fits(one) for one in value.values}
            return truths.pop() if len(truths) == 1 else None
        return self.fits(value) if isinstance(value, str) else None

    def covers(self, other: Test) -> bool:
        """Tell whether whatever fits *other* surely fits this (both ask for the same fact)."""
        if isinstance(other, AnyOf):
            return not other.negated and all(self.fits(str(word)) for word in other.allowed)
        return isinstance(other, StartsWith) and other.start.startswith(self.start)

    def fits(self, text: str) -> bool:
        """Tell whether *text* begins as it should."""
        return text != NONE and text.casefold().startswith(self.start)


@dataclass(frozen=True, slots=True)
class Between:
    """Fits a number from *low* to *high*, both included; *at* names the month it counts in."""

    fact: str
    low: int | None
    high: int | None
    at: str | None
    line: int

    def truth(self, known: Mapping[str, Value]) -> Truth:
        """Return whether the fact fits, or `None` where that is unknown."""
        value = known.get(self.fact)
        number = value.at(self.at) if isinstance(value, Measured) else value
        if not isinstance(number, int):
            return None
        if self.low is not None and number < self.low:
            return False
        return self.high is None or number <= self.high

    def covers(self, other: Test) -> bool:
        """Tell whether whatever fits *other* surely fits this (both ask for the same fact)."""
        return (
            isinstance(other, Between)
            and self.at == other.at
            and (self.low is None or (other.low is not None and self.low <= other.low))
            and (self.high is None or (other.high is not None and self.high >= other.high))
        )


@dataclass(frozen=True, slots=True)
class During:
    """Fits a day from *first* to *last*, both included."""

    fact: str
    first: dt.date | None
    last: dt.date | None
    line: int

    def truth(self, known: Mapping[str, Value]) -> Truth:
        """Return whether the fact fits, or `None` where that is unknown."""
        value = known.get(self.fact)
        if not isinstance(value, dt.date):
            return None
        if self.first is not None and value < self.first:
            return False
        return self.last is None or value <= self.last

    def covers(self, other: Test) -> bool:
        """Tell whether whatever fits *other* surely fits this (both ask for the same fact)."""
        return (
            isinstance(other, During)
            and (self.first is None or (other.first is not None and self.first <= other.first))
            and (self.last is None or (other.last is not None and self.last >= other.last))
        )


_SETS: Final = frozenset(name for name, fact in FACTS.items() if fact.kind == "words")


@dataclass(frozen=True, slots=True)
class Condition:
    """When a clause speaks: all of *when* and none of the exceptions *unless*."""

    when: tuple[Test, ...]
    unless: tuple[tuple[Test, ...], ...]

    def truth(self, known: Mapping[str, Value]) -> Truth:
        """Return whether the clause speaks to these facts."""
        result = _all(self.when, known)
        if result is False:
            return False
        for exception in self.unless:
            truth = _all(exception, known)
            if truth is True:
                return False
            if truth is None:
                result = None
        return result

    def given(self, fact: str, value: Value) -> Condition | None:
        """Return what is left to ask once *fact* is known; `None` if that makes it false."""
        known = {fact: value}
        if any(test.truth(known) is False for test in self.when):
            return None
        exceptions = []
        for exception in self.unless:
            truth = _all(exception, known)
            if truth is True:
                return None
            if truth is None:
                exceptions.append(tuple(t for t in exception if t.truth(known) is None))
        return Condition(
            when=tuple(test for test in self.when if test.truth(known) is None),
            unless=tuple(exceptions),
        )

    def missing(self, known: Mapping[str, Value]) -> frozenset[str]:
        """Return the facts that leave an undecided condition unknown."""
        missing = {test.fact for test in self.when if test.truth(known) is None}
        for exception in self.unless:
            if _all(exception, known) is None:
                missing.update(test.fact for test in exception if test.truth(known) is None)
        return frozenset(missing)

    def facts(self) -> frozenset[str]:
        """Return every fact that the condition asks for."""
        tests = (*self.when, *(test for exception in self.unless for test in exception))
        return frozenset(test.fact for test in tests)


def compile_condition(when: Node | None, unless: Node | None, file: str) -> Condition:
    """Return the condition that the nodes under `when` and `unless` spell.

    Raises:
        MalformedPolicyError: a fact or a word that is not in the vocabulary.
    """
    exceptions: tuple[Node, ...]
    match unless:
        case None:
            exceptions = ()
        case Listing(items=items):
            exceptions = items
        case _:
            exceptions = (unless,)
    return Condition(
        when=_tests(when, file) if when is not None else (),
        unless=tuple(_exception(node, file) for node in exceptions),
    )


def value_of(fact: Fact, node: Node, file: str) -> Value:
    """Return the value that *node* (of a case, or of the command line) gives to *fact*.

    Raises:
        MalformedPolicyError: the value is not one that this fact can have.
    """
    if fact.kind == "number":
        if isinstance(node, Keyed) and node.entries:
            months = (
                (_month(name, node, file), _number(fact, one, file))
                for name, one in node.entries.items()
            )
            return Measured(tuple(sorted(months)))
        return _number(fact, node, file)
    if fact.kind == "date":
        return _day(fact, node, file)
    words = _words(node, file, fact)
    values = [_word(fact, word, line, file) for word, line in words]
    if fact.kind == "words":
        return frozenset(str(value) for value in values)
    if len(values) != 1 or isinstance(node, Listing):
        raise MalformedPolicyError(file, node.line, f"`{fact.name}` takes one value")
    if fact.kind == "country" and values[0] in REGIONS:
        raise MalformedPolicyError(
            file, node.line, f"`{values[0]}` is no country", hint="write one of its members"
        )
    return values[0]


def _all(tests: tuple[Test, ...], known: Mapping[str, Value]) -> Truth:
    result: Truth = True
    for test in tests:
        truth = test.truth(known)
        if truth is False:
            return False
        if truth is None:
            result = None
    return result


def _exception(node: Node, file: str) -> tuple[Test, ...]:
    tests = _tests(node, file)
    if not tests:
        raise MalformedPolicyError(
            file, node.line, "an empty exception", hint="name a fact, or leave `unless` out"
        )
    return tests


def _tests(node: Node, file: str) -> tuple[Test, ...]:
    if not isinstance(node, Keyed):
        raise MalformedPolicyError(
            file, node.line, "a condition must be a mapping", hint="write `{purpose: train}`"
        )
    return tuple(
        _test(name, child, node.key_lines[name], file) for name, child in node.entries.items()
    )


def _test(name: str, node: Node, line: int, file: str) -> Test:
    fact = FACTS.get(name)
    if fact is None:
        hint = nearest(name, FACTS, f"known facts: {', '.join(FACTS)}")
        raise MalformedPolicyError(file, line, f"unknown fact `{name}`", hint=hint)
    match fact.kind:
        case "number":
            return _between(fact, node, line, file)
        case "date":
            return _during(fact, node, line, file)
        case _:
            return _word_test(fact, node, line, file)


def _word_test(fact: Fact, node: Node, line: int, file: str) -> Test:
    """Return the test that a word, a list of words, or `{not: …}` and its like spell."""
    negated = False
    if isinstance(node, Keyed):
        how, node = _the_one_key(fact, node, file)
        if how == "all":
            every = [_word(fact, word, at, file) for word, at in _words(node, file, fact)]
            if not every:
                raise MalformedPolicyError(
                    file, line, f"`{fact.name}` is compared with nothing"
                )
            return AllOf(fact.name, frozenset(str(word) for word in every), line)
        if how == "starts":
            return StartsWith(fact.name, _start(fact, node, file), line)
        negated = True
    words = _words(node, file, fact)
    if not words:
        raise MalformedPolicyError(file, line, f"`{fact.name}` is compared with nothing")
    if fact.kind == "text" and any(word == ANY for word, _ in words):
        if len(words) > 1 or negated:
            raise MalformedPolicyError(file, line, f"`{ANY}` stands alone")
        return AnyOf(fact.name, frozenset({NONE}), negated=True, line=line)
    values = frozenset(_word(fact, word, at, file) for word, at in words)
    name = fact.name
    if fact.kind == "purpose":
        values = frozenset(
            purpose
            for purpose in PURPOSES
            if any(covers(str(general), purpose) for general in values)
        )
    elif fact.kind == "country":
        values = frozenset(one for word in values for one in REGIONS.get(str(word), {word}))
    elif name == "generative":
        kinds = FACTS["student-kind"].words
        values = frozenset(kind for kind in kinds if (kind in GENERATIVE) in values)
        name = "student-kind"
    return AnyOf(name, values, negated=negated, line=line)


_COMPARISONS: Final[Mapping[str, tuple[str, ...]]] = {
    "words": ("not", "all"),
    "text": ("not", "starts"),
    "yes-no": (),
}


def _the_one_key(fact: Fact, node: Keyed, file: str) -> tuple[str, Node]:
    allowed = _COMPARISONS.get(fact.kind, ("not",))
    for name in node.entries:
        if name not in allowed or len(node.entries) > 1:
            spelt = ", ".join(f"`{{{one}: …}}`" for one in allowed)
            hint = f"write a word, a list of words{', or ' + spelt if spelt else ''}"
            message = f"`{fact.name}` can't be compared by `{', '.join(node.entries)}`"
            raise MalformedPolicyError(file, node.key_lines[name], message, hint=hint)
    if not node.entries:
        raise MalformedPolicyError(file, node.line, f"`{fact.name}` is compared with nothing")
    return next(iter(node.entries.items()))


def _start(fact: Fact, node: Node, file: str) -> str:
    words = _words(node, file, fact)
    if isinstance(node, Listing) or not words[0][0]:
        message = f"`{fact.name}` is compared with more or less than one beginning"
        raise MalformedPolicyError(file, node.line, message, hint="write `{starts: llama}`")
    return words[0][0].casefold()


def _between(fact: Fact, node: Node, line: int, file: str) -> Between:
    if isinstance(node, Scalar):
        number = _number(fact, node, file)
        return Between(fact.name, number, number, None, line)
    bounds = _bounds(fact, node, _NUMBER_KEYS, "`{over: 700000000}`", file)
    at: str | None = None
    low: int | None = None
    high: int | None = None
    for name, child in bounds.entries.items():
        match name:
            case "at":
                at = _text_of(child)
                if _MONTH.fullmatch(at) is None:
                    raise MalformedPolicyError(
                        file, child.line, f"`{at[:40]}` is not a month", hint="write YYYY-MM"
                    )
            case "over" | "at-least":
                least = _number(fact, child, file) + (name == "over")
                low = least if low is None else max(low, least)
            case _:
                most = _number(fact, child, file) - (name == "under")
                high = most if high is None else min(high, most)
    if low is None and high is None:
        raise MalformedPolicyError(file, line, f"`{fact.name}` is compared with nothing")
    if low is not None and high is not None and low > high:
        raise MalformedPolicyError(file, line, f"no number fits `{fact.name}`")
    return Between(fact.name, low, high, at, line)


def _during(fact: Fact, node: Node, line: int, file: str) -> During:
    if isinstance(node, Scalar):
        day = _day(fact, node, file)
        return During(fact.name, day, day, line)
    bounds = _bounds(fact, node, _DATE_KEYS, "`{from: 2026-01-01, until: 2026-12-31}`", file)
    first, last = (
        _day(fact, bounds.entries[name], file) if name in bounds.entries else None
        for name in _DATE_KEYS
    )
    if first is not None and last is not None and first > last:
        raise MalformedPolicyError(file, line, f"no day fits `{fact.name}`")
    return During(fact.name, first, last, line)


def _bounds(fact: Fact, node: Node, names: tuple[str, ...], example: str, file: str) -> Keyed:
    """Return *node* as a map with some of *names*, and nothing else."""
    hint = f"write {example}"
    if not isinstance(node, Keyed) or not node.entries:
        message = f"`{fact.name}` is compared with nothing that can be compared"
        raise MalformedPolicyError(file, node.line, message, hint=hint)
    for name in node.entries:
        if name not in names:
            message = f"`{fact.name}` can't be compared by `{name}`"
            raise MalformedPolicyError(
                file, node.key_lines[name], message, hint=nearest(name, names, hint)
            )
    return node


def _number(fact: Fact, node: Node, file: str) -> int:
    if isinstance(node, Scalar) and isinstance(node.value, int) and node.value >= 0:
        return node.value
    raise MalformedPolicyError(
        file, node.line, f"`{fact.name}` takes a whole number", hint="write 700000000, unquoted"
    )


def _month(name: str, node: Keyed, file: str) -> str:
    if _MONTH.fullmatch(name) is None:
        line = node.key_lines[name]
        raise MalformedPolicyError(file, line, f"`{name}` is not a month", hint="write YYYY-MM")
    return name


def _day(fact: Fact, node: Node, file: str) -> dt.date:
    day = parse_day(_text_of(node))
    if day is None:
        raise MalformedPolicyError(
            file, node.line, f"`{fact.name}` takes a day", hint="write YYYY-MM-DD"
        )
    return day


def _text_of(node: Node) -> str:
    return str(node.value) if isinstance(node, Scalar) else ""


def _words(node: Node, file: str, fact: Fact) -> list[tuple[str, int]]:
    items: Iterable[Node]
    match node:
        case Listing(items=items) if items or fact.kind == "words":
            pass
        case Scalar():
            items = (node,)
        case _:
            raise MalformedPolicyError(
                file, node.line, f"`{fact.name}` takes a word or a list of words"
            )
    found = []
    for item in items:
        if not isinstance(item, Scalar) or item.value is None:
            raise MalformedPolicyError(file, item.line, f"`{fact.name}` takes words")
        found.append((str(item.value), item.line))
    return found


def _word(fact: Fact, word: str, line: int, file: str) -> str | bool:
    if fact.kind == "text":
        return word
    if fact.kind == "country":
        if word not in COUNTRIES and word not in REGIONS:
            raise MalformedPolicyError(
                file,
                line,
                f"`{fact.name}` can't be `{word[:40]}`",
                hint=f"{country_hint(word)}; in a condition also {', '.join(REGIONS)}",
            )
        return word
    known: Mapping[str, object] = _YES_NO if fact.kind == "yes-no" else fact.words
    if word not in known:
        hint = nearest(word, known, f"one of {', '.join(known)}")
        message = f"`{fact.name}` can't be `{word}`"
        raise MalformedPolicyError(file, line, message, hint=hint)
    return _YES_NO[word] if fact.kind == "yes-no" else word
