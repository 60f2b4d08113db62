"""Find what is wrong with a library that loads: cases that fail, clauses that nothing tests.

A clause is alive if, without it, some case changes its effect or its reasons. A clause is
unreachable if no facts can make it speak, and shadowed if another clause of a larger effect
speaks whenever it does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.policy.cases import Case, load_cases
from gateway.policy.condition import AnyOf, Condition, Test
from gateway.policy.library import Library
from gateway.policy.model import Clause, Effect, Policy
from gateway.policy.vocabulary import FACTS


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
    findings = list(_folder_findings(files, library))
    findings += failing_cases(library, cases)
    for policy_id, versions in library.policies.items():
        own = [case for case in cases if case.policy == policy_id]
        findings += _case_names(own)
        for policy in versions:
            findings += dead_clauses(policy, own)
            findings += unreachable_clauses(policy)
            findings += shadowed_clauses(policy)
        findings += _stale(versions, on)
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
    """Yield the clauses that no facts can make speak."""
    for clause in policy.clauses:
        why = _never(clause.condition)
        if why is not None:
            yield Finding(
                file=policy.file,
                line=why.line,
                message=f"clause `{clause.id}` can never speak: no `{why.fact}` fits",
                hint="two parts of the condition exclude each other",
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


def _seen(case: Case, policy: Policy) -> tuple[Effect, tuple[str, ...]]:
    decision = case.run([policy])
    return decision.effect, tuple(reason.clause for reason in decision.reasons)


def _never(condition: Condition) -> Test | None:
    """Return a test that can't be met beside the others, or `None`."""
    left: dict[str, frozenset[str | bool]] = {}
    for test in condition.when:
        values = _values(test)
        if values is None:
            continue
        left[test.fact] = left.get(test.fact, values) & values
        if not left[test.fact] and FACTS[test.fact].kind != "words":
            return test
    for exception in condition.unless:
        if all(_always(test, condition.when) for test in exception):
            return exception[0]
    return None


def _values(test: Test) -> frozenset[str | bool] | None:
    """Return the values that fit, or `None` where there is no closed list."""
    if not isinstance(test, AnyOf) or test.negated or FACTS[test.fact].kind == "words":
        return None
    return test.allowed


def _always(test: Test, given: Iterable[Test]) -> bool:
    """Tell whether *test* is met whenever all of *given* are."""
    return any(one.fact == test.fact and test.covers(one) for one in given) or (
        isinstance(test, AnyOf)
        and FACTS[test.fact].kind == "yes-no"
        and len(test.allowed) == 2  # yes and no
    )


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


def _folder_findings(files: Mapping[str, str], library: Library) -> Iterator[Finding]:
    for versions in library.policies.values():
        folder = versions[0].file.rpartition("/")[0]
        if f"{folder}/review.md" not in files:
            yield Finding(
                file=f"{folder}/review.md",
                line=1,
                message="the file is missing",
                hint="write down the reading, the open questions and who made it",
            )


def _case_names(cases: Iterable[Case]) -> Iterator[Finding]:
    for case in cases:
        name = case.file.rpartition("/")[2]
        if not name.startswith(f"{case.effect.word}-"):
            yield Finding(
                file=case.file,
                line=case.line,
                message=f"the file's name does not begin with `{case.effect.word}-`",
                hint="a listing of the folder is a table of what is allowed",
            )


def _stale(versions: Sequence[Policy], on: dt.date) -> Iterator[Finding]:
    for policy in versions:
        if policy.in_force(on) and on > policy.review_by:
            yield Finding(
                file=policy.file,
                line=1,
                message=f"was to be reviewed by {policy.review_by}; its training permits hold",
                hint="read the terms again, then set a new `review_by` and `version`",
            )
