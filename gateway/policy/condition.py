"""Three-valued conditions over facts, compiled once when a policy is loaded.

A condition is true, false or unknown (`None`), by Kleene's logic: what nobody knows stays
unknown unless the other parts already decide. `when` is a conjunction; each map of `unless` is
an exception, and one exception that is true makes the condition false.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.errors import MalformedPolicyError
from gateway.intent.model import GENERATIVE
from gateway.intent.purpose import PURPOSES, covers
from gateway.policy.source import Keyed, Listing, Node, Scalar, nearest
from gateway.policy.vocabulary import ANY, FACTS, NONE, Fact


@dataclass(frozen=True, slots=True)
class OneOf:
    """A value that is not known, but known to be one of *values*."""

    values: frozenset[str]


Value = str | bool | frozenset[str] | OneOf
"""What a fact can be: a word or text, yes or no, a set of words, or one of several words."""

Truth = bool | None
"""`None` is unknown."""

_YES_NO: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Test:
    """Asks of one fact whether its value is in *allowed* (or, *negated*, is not)."""

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
        assert isinstance(value, frozenset)  # noqa: S101 # INVARIANT: there is no other `Value`.
        return (not self.allowed.isdisjoint(value)) is not self.negated

    def covers(self, other: Test) -> bool:
        """Tell whether whatever fits *other* fits this too (both ask for the same fact)."""
        if self.negated or other.negated:
            if not self.negated:
                return False
            if other.negated:
                return self.allowed <= other.allowed
            return self.allowed.isdisjoint(other.allowed)
        return other.allowed <= self.allowed

    def _truth_of_one(self, value: OneOf) -> Truth:
        fit = len(value.values & self.allowed)
        if 0 < fit < len(value.values):
            return None
        return (fit > 0) is not self.negated


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
    words = _words(node, file, fact)
    values = [_word(fact, word, line, file) for word, line in words]
    if fact.kind == "words":
        return frozenset(str(value) for value in values)
    if len(values) != 1 or isinstance(node, Listing):
        raise MalformedPolicyError(file, node.line, f"`{fact.name}` takes one value")
    return values[0]


def _all(tests: tuple[Test, ...], known: Mapping[str, Value]) -> Truth:
    result: Truth = True
    for test in tests:
        value = known.get(test.fact)
        if value is None:
            result = None
            continue
        kind = value.__class__
        if kind is str or kind is bool:  # What nearly every fact is, without a call.
            truth: Truth = (value in test.allowed) is not test.negated
        else:
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
    words = _words(node, file, fact)
    if fact.kind == "text" and any(word == ANY for word, _ in words):
        if len(words) > 1:
            raise MalformedPolicyError(file, line, f"`{ANY}` stands alone")
        return Test(name, frozenset({NONE}), True, line)  # noqa: FBT003 # named in the class
    values = frozenset(_word(fact, word, at, file) for word, at in words)
    if fact.kind == "purpose":
        values = frozenset(
            purpose
            for purpose in PURPOSES
            if any(covers(str(general), purpose) for general in values)
        )
    if name == "generative":
        kinds = FACTS["student-kind"].words
        values = frozenset(kind for kind in kinds if (kind in GENERATIVE) in values)
        name = "student-kind"
    return Test(name, values, False, line)  # noqa: FBT003 # named in the class


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
    known: Mapping[str, object] = _YES_NO if fact.kind == "yes-no" else fact.words
    if word not in known:
        hint = nearest(word, known, f"one of {', '.join(known)}")
        message = f"`{fact.name}` can't be `{word}`"
        raise MalformedPolicyError(file, line, message, hint=hint)
    return _YES_NO[word] if fact.kind == "yes-no" else word
