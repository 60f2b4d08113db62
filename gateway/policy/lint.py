"""Find what is wrong with a library that loads: cases that fail, clauses that nothing tests.

A clause is alive if, without it, some case changes its effect or its reasons. A clause is
unreachable if no facts can make it speak, and shadowed if another clause of a larger effect
speaks whenever it does.

Not here: whether terms have changed since they were read (`snapshot.py`).
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.policy.cases import Case, load_cases
from gateway.policy.condition import AllOf, AnyOf, Between, Condition, During, Test
from gateway.policy.decide import RESERVED
from gateway.policy.library import Library
from gateway.policy.model import Clause, Effect, Policy, WrittenPolicy
from gateway.policy.source import convert, line_at, nearest, read
from gateway.policy.vocabulary import FACTS, UNLISTED, is_plain_use

REVIEW_SECTIONS: Final = ("## Open questions",)
"""Headings that every `review.md` has."""

_OF_A_STUDENT: Final = frozenset({"student", "student-kind", "imitates-teacher", "base-model"})
"""Facts that are there only where something is trained."""

_OF_A_MEASUREMENT: Final = frozenset({"promotes-competitor", "replication-info"})
"""Facts that are there only where something is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that legal should change, and where."""

    file: str
    line: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """Return `file:line: message; hint: next move`."""
        line = f"{self.file}:{self.line}: {self.message}"
        return f"{line}; hint: {self.hint}" if self.hint else line


def lint(files: Mapping[str, str], on: dt.date) -> tuple[Finding, ...]:
    """Return every finding about *files*, by place; *on* is the day for stale reviews.

    Raises:
        MalformedPolicyError: the library or a case does not even load.
    """
    library = Library.load(files)
    cases = load_cases(files)
    findings = list(failing_cases(library, cases))
    findings += contradictory_cases(cases)
    findings += _unlisted_models(library)
    for policy_id, versions in library.policies.items():
        own = [case for case in cases if case.policy == policy_id]
        findings += _case_words(own, versions)
        findings += _review(versions, files)
        findings += _reading(versions, library, files, on)
        findings += _stale(versions, on)
        findings += _forgotten_months(versions)
        for policy in versions:
            findings += dead_clauses(policy, own)
            findings += unreachable_clauses(policy)
            findings += shadowed_clauses(policy)
            findings += misused_facts(policy)
    return tuple(sorted(set(findings), key=lambda one: (one.file, one.line, one.message)))


def failing_cases(library: Library, cases: Iterable[Case]) -> Iterator[Finding]:
    """Yield the cases whose ruling is not the one they expect."""
    for case in cases:
        decision = case.run(library.policies.get(case.policy, ()))
        complaint = case.complaint(decision)
        if complaint is not None:
            yield Finding(
                file=case.file,
                line=case.line,
                message=complaint,
                hint="change the policy, or have legal sign the new answer",
            )


def dead_clauses(policy: Policy, cases: Sequence[Case]) -> Iterator[Finding]:
    """Yield the clauses of *policy* that could be struck out without any case noticing."""
    own = [case for case in cases if policy.in_force(case.on)]
    before = [_seen(case, policy) for case in own]
    for clause in policy.clauses:
        without = policy.without(clause.id)
        if all(_seen(case, without) == seen for case, seen in zip(own, before, strict=True)):
            yield Finding(
                file=policy.file,
                line=clause.line,
                message=f"no case dies without clause `{clause.id}`",
                hint=f"add cases/{clause.binding.word}-….yaml that names it as a reason",
            )


def unreachable_clauses(policy: Policy) -> Iterator[Finding]:
    """Yield the clauses that no facts can make speak, and exceptions that never fit."""
    for clause in policy.clauses:
        why = _never(clause.condition)
        if why is not None:
            yield Finding(
                file=policy.file,
                line=why.line,
                message=f"clause `{clause.id}` can never speak: no `{why.fact}` fits",
                hint="two parts of the condition exclude each other",
            )
            continue
        for exception in clause.condition.unless:
            idle = _excluded(exception, clause.condition.when)
            if idle is not None:
                yield Finding(
                    file=policy.file,
                    line=idle.line,
                    message=f"an exception of clause `{clause.id}` can never fit: its"
                    f" `{idle.fact}` is not what `when` asks for",
                    hint="leave it out, or widen `when`",
                )


def shadowed_clauses(policy: Policy) -> Iterator[Finding]:
    """Yield the clauses that never decide, because a stricter one always speaks as well."""
    for clause in policy.clauses:
        for other in policy.clauses:
            if other is not clause and _shadows(other, clause):
                yield Finding(
                    file=policy.file,
                    line=clause.line,
                    message=f"clause `{clause.id}` is shadowed by `{other.id}`",
                    hint=f"`{other.id}` always speaks with it and its effect is larger",
                )


def misused_facts(policy: Policy) -> Iterator[Finding]:
    """Yield the facts that a clause asks for twice, or where nobody can know them."""
    for clause in policy.clauses:
        condition = clause.condition
        for tests in (condition.when, *condition.unless):
            for one, other in itertools.combinations(tests, 2):
                if one.fact == other.fact:
                    yield Finding(
                        file=policy.file,
                        line=other.line,
                        message=f"clause `{clause.id}` asks for `{one.fact}` twice",
                        hint="`generative` follows from `student-kind`; ask for one of them",
                    )
        purposes = _purposes(condition)
        for test in condition.when:
            if test.fact in _OF_A_STUDENT and all(map(is_plain_use, purposes)):
                where = "inference and evaluation, where nothing is trained"
            elif test.fact in _OF_A_MEASUREMENT and not any(
                purpose.startswith("evaluate") for purpose in purposes
            ):
                where = "uses that measure nothing"
            else:
                continue
            yield Finding(
                file=policy.file,
                line=test.line,
                message=f"clause `{clause.id}` asks for `{test.fact}` in {where}",
                hint="nobody will declare it there, so the clause stays undecided",
            )


def contradictory_cases(cases: Iterable[Case]) -> Iterator[Finding]:
    """Yield the cases that ask what another one asked, and expect something else."""
    first: dict[tuple[object, ...], Case] = {}
    for case in cases:
        asked = (case.policy, case.facts, case.on, frozenset(case.lifted))
        other = first.setdefault(asked, case)
        if (other.effect, sorted(other.reasons)) != (case.effect, sorted(case.reasons)):
            yield Finding(
                file=case.file,
                line=case.line,
                message=f"asks what {other.file} asks, and expects another answer",
                hint="one of them is not what legal signed",
            )


def _purposes(condition: Condition) -> frozenset[str]:
    """Return the purposes to which the condition may speak."""
    return frozenset(
        purpose
        for purpose in FACTS["purpose"].words
        if condition.given("purpose", purpose) is not None
    )


def _seen(case: Case, policy: Policy) -> tuple[Effect, tuple[str, ...]]:
    decision = case.run([policy])
    return decision.effect, tuple(reason.clause for reason in decision.reasons)


def _never(condition: Condition) -> Test | None:
    """Return a test that can't be met beside the others, or `None`."""
    for one, other in itertools.combinations(condition.when, 2):
        if one.fact == other.fact and _excludes(one, other):
            return other
    for exception in condition.unless:
        if all(_always(test, condition.when) for test in exception):
            return exception[0]
    return None


def _excluded(exception: tuple[Test, ...], when: tuple[Test, ...]) -> Test | None:
    """Return the test of *exception* that is never met where *when* is, or `None`."""
    for test in exception:
        if any(one.fact == test.fact and _excludes(one, test) for one in when):
            return test
    return None


def _excludes(one: Test, other: Test) -> bool:
    """Tell whether nothing fits both, which ask for the same fact."""
    match one, other:
        case AnyOf(), AnyOf() if FACTS[one.fact].kind == "words":
            # A set can hold this and that; it can't both hold one of them and none.
            narrow, none_of = (other, one) if one.negated else (one, other)
            return none_of.negated and not narrow.negated and narrow.allowed <= none_of.allowed
        case AnyOf(negated=False), AnyOf(negated=False):
            return one.allowed.isdisjoint(other.allowed)
        case (AnyOf(negated=True) as none_of, AnyOf(negated=False) as narrow) | (
            AnyOf(negated=False) as narrow,
            AnyOf(negated=True) as none_of,
        ):
            return narrow.allowed <= none_of.allowed
        case (AllOf() as every, AnyOf(negated=True) as none_of) | (
            AnyOf(negated=True) as none_of,
            AllOf() as every,
        ):
            return not every.words.isdisjoint(none_of.allowed)
        case Between(), Between() if one.at == other.at:
            return _apart(one.low, one.high, other.low, other.high)
        case During(), During():
            return _apart(
                *(None if day is None else day.toordinal() for day in (one.first, one.last)),
                *(
                    None if day is None else day.toordinal()
                    for day in (other.first, other.last)
                ),
            )
        case _:
            return False


def _apart(low: int | None, high: int | None, low2: int | None, high2: int | None) -> bool:
    """Tell whether two intervals have nothing in common."""
    return (high is not None and low2 is not None and high < low2) or (
        high2 is not None and low is not None and high2 < low
    )


def _always(test: Test, given: Iterable[Test]) -> bool:
    """Tell whether *test* is met whenever all of *given* are."""
    return any(one.fact == test.fact and test.covers(one) for one in given)


def _shadows(stricter: Clause, clause: Clause) -> bool:
    if stricter.binding <= clause.binding:
        return False
    if not all(_always(test, clause.condition.when) for test in stricter.condition.when):
        return False
    # An exception of the stricter clause must be one of the other's too.
    return all(
        any(_wider(own, exception) for own in clause.condition.unless)
        for exception in stricter.condition.unless
    )


def _wider(wide: tuple[Test, ...], narrow: tuple[Test, ...]) -> bool:
    return all(_always(test, narrow) for test in wide)


def _review(versions: Sequence[Policy], files: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what the review of a policy leaves out."""
    file = versions[0].file.rpartition("/")[0] + "/review.md"
    hint = "write down the reading, the open questions and who made it"
    if file not in files:
        yield Finding(file=file, line=1, message="the file is missing", hint=hint)
        return
    lines = [line.strip() for line in files[file].splitlines()]
    for section in REVIEW_SECTIONS:
        if section not in lines:
            yield Finding(
                file=file, line=1, message=f"the section `{section}` is missing", hint=hint
            )


def _reading(
    versions: Sequence[Policy], library: Library, files: Mapping[str, str], on: dt.date
) -> Iterator[Finding]:
    """Yield the documents that are named and not cited, read too late, or can't be found in."""
    documents = {document.id: document for document in library.terms[versions[0].id]}
    for policy in versions:
        node = read(files[policy.file], policy.file)
        cited = {clause.citation.document for clause in policy.clauses}
        for index, name in enumerate(convert(node, WrittenPolicy, policy.file).terms):
            document = documents[name]
            line = line_at(node, "terms", index)
            # A note says what was not read out of it; what was not read says so by itself.
            if name not in cited and document.confidence != "unread" and not document.note:
                yield Finding(
                    file=policy.file,
                    line=line,
                    message=f"no clause cites `{name}`",
                    hint="cite it, or say in its `note` in terms.yaml why nothing does",
                )
            when = document.read.when if document.read is not None else None
            if when is not None and when > min(on, policy.review_by):
                until = "today" if when > on else f"the review day {policy.review_by}"
                yield Finding(
                    file=policy.file,
                    line=line,
                    message=f"`{name}` was read on {when}, after {until}",
                    hint="correct the day, or set a new `review_by` and `version`",
                )
        for clause in policy.clauses:
            if clause.document.snapshot is not None and not clause.citation.words:
                yield Finding(
                    file=policy.file,
                    line=clause.line,
                    message=f"clause `{clause.id}` cites a watched document without `words`",
                    hint="quote up to ten, so that a change around them is noticed",
                )


def _case_words(cases: Iterable[Case], versions: Sequence[Policy]) -> Iterator[Finding]:
    """Yield the names in cases that mean nothing: of files, of reasons, of lifted clauses."""
    effects = {clause.id: clause.effect for policy in versions for clause in policy.clauses}
    for case in cases:
        name = case.file.rpartition("/")[2]
        if not name.startswith(f"{case.effect.word}-"):
            yield Finding(
                file=case.file,
                line=case.line,
                message=f"the file's name does not begin with `{case.effect.word}-`",
                hint="a listing of the folder is a table of what is allowed",
            )
        for reason in case.reasons:
            if reason not in effects and reason not in RESERVED:
                yield Finding(
                    file=case.file,
                    line=case.line,
                    message=f"`{reason}` is no clause of `{case.policy}`",
                    hint=nearest(reason, effects),
                )
        for _, clause in case.lifted:
            if effects.get(clause, Effect.PERMIT) is Effect.PERMIT:
                yield Finding(
                    file=case.file,
                    line=case.line,
                    message=f"`{clause}` can't be lifted: it is no bar or hold of"
                    f" `{case.policy}`",
                    hint=nearest(clause, [one for one, e in effects.items() if e]),
                )


def _unlisted_models(library: Library) -> Iterator[Finding]:
    """Yield the policies that need a policy for models that nobody listed, if there is none."""
    if UNLISTED in library.policies:
        return
    for versions in library.policies.values():
        for policy in versions:
            if policy.with_model_terms:
                yield Finding(
                    file=policy.file,
                    line=1,
                    message=f"the terms of models bind, and there is no policy `{UNLISTED}`",
                    hint="without it, every model that models.yaml does not list is forbidden",
                )


def _forgotten_months(versions: Sequence[Policy]) -> Iterator[Finding]:
    """Yield the numbers that an earlier version asked for in a month, and a later one not."""
    earlier: dict[tuple[str, str], str] = {}
    for policy in versions:
        now: dict[tuple[str, str], str] = {}
        for clause, test in _numbers(policy):
            place = clause.id, test.fact
            if test.at is not None:
                now[place] = test.at
            elif place in earlier:
                yield Finding(
                    file=policy.file,
                    line=test.line,
                    message=f"clause `{clause.id}` asks for the newest `{test.fact}`",
                    hint=f"an earlier version asked for that of {earlier[place]}: `at: …`",
                )
        earlier |= now


def _numbers(policy: Policy) -> Iterator[tuple[Clause, Between]]:
    for clause in policy.clauses:
        for test in itertools.chain(clause.condition.when, *clause.condition.unless):
            if isinstance(test, Between):
                yield clause, test


def _stale(versions: Sequence[Policy], on: dt.date) -> Iterator[Finding]:
    for policy in versions:
        if policy.in_force(on) and on > policy.review_by:
            yield Finding(
                file=policy.file,
                line=1,
                message=f"was to be reviewed by {policy.review_by}; its training permits hold",
                hint="read the terms again, then set a new `review_by` and `version`",
            )
