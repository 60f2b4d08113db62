"""Compare two libraries in rulings, not in lines: what changes for whom, and by which clause.

Both are asked every standard use in every row, and every case of either, on a day and on each
later day on which something comes into force or ends. A change's cause is the smallest set of
clauses that, put into the old library, lead to the new ruling.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.policy.cases import Case
from gateway.policy.condition import Condition, Test
from gateway.policy.decide import NOTHING_LIFTED, Decision, Facts, Lifted, decide
from gateway.policy.library import Binding, Library
from gateway.policy.model import Clause, Policy
from gateway.policy.standard import Row, StandardUses

_TRIES_MAX: Final = 4096
"""How many sets of clauses are tried for one change; beyond it all that differ are named."""

_ONE_DAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Something that both libraries are asked."""

    name: str
    """The row and the use, or the case's file."""
    policy: str
    facts: Facts
    on: dt.date
    row: Row | None = None
    """The row of a standard use; a case is asked under its own policy alone."""
    lifted: Lifted

    def bound(self, library: Library) -> Binding:
        """Return what binds the question in *library*."""
        if self.row is not None:
            return self.row.binding(library, self.on)
        policy = library.in_force(self.policy, self.on)
        return Binding(policies=(policy,) if policy else (), absent=())

    def ruled(self, policies: Sequence[Policy], absent: Sequence[str]) -> Decision:
        """Return the ruling under *policies*."""
        return decide(self.facts, policies, self.on, absent=absent, lifted=self.lifted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Something of a policy that differs between the libraries."""

    policy: str
    clause: str
    """The clause, or empty where it is the policy as a whole."""
    what: str

    def __str__(self) -> str:
        """Return it as the end of a sentence."""
        if self.clause:
            return f"clause `{self.clause}` of `{self.policy}` {self.what}"
        return f"policy `{self.policy}` {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A ruling that is another in the new library."""

    question: Question
    before: Decision
    after: Decision
    causes: tuple[Cause, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """All that differs between two libraries."""

    appeared: tuple[str, ...]
    disappeared: tuple[str, ...]
    edits: tuple[Cause, ...]
    """What was edited in policies that both have, whether or not a ruling changes."""
    changes: tuple[Change, ...]
    asked: int
    """How many questions were asked of both."""

    @property
    def changes_rulings(self) -> bool:
        """Tell whether anybody is ruled on otherwise."""
        return bool(self.changes or self.appeared or self.disappeared)


def diff(
    old: Library,
    new: Library,
    standard: StandardUses,
    cases: Iterable[Case],
    on: dt.date,
) -> Difference:
    """Return what differs from *old* to *new*; *cases* are those of both."""
    both = sorted(old.policies.keys() & new.policies.keys())
    days = sorted({on, *_turns(old, on), *_turns(new, on)})
    questions = [*_standard_questions(old, new, standard, days), *_case_questions(cases, both)]
    changes: dict[tuple[object, ...], Change] = {}
    for question in questions:
        change = _change(question, old, new)
        if change is not None:
            # What changes alike on several days is told once, for the first of them.
            told = question.name, _seen(change.before), _seen(change.after)
            changes.setdefault(told, change)
    return Difference(
        appeared=tuple(sorted(new.policies.keys() - old.policies.keys())),
        disappeared=tuple(sorted(old.policies.keys() - new.policies.keys())),
        edits=tuple(edit for name in both for edit in _edits(old, new, name, days)),
        changes=tuple(changes.values()),
        asked=len(questions),
    )


def diff_lines(difference: Difference) -> Iterator[str]:
    """Yield the difference as lines for people."""
    for name in difference.appeared:
        yield f"policy `{name}` appears"
    for name in difference.disappeared:
        yield f"policy `{name}` disappears"
    for edit in difference.edits:
        yield str(edit)
    yield _summary(difference)
    for change in difference.changes:
        question = change.question
        turn = f"{_told(change.before)} -> {_told(change.after)}"
        yield f"{question.name} ({question.on}): {turn}"
        for line in _shifts(change):
            yield f"  {line}"
        for cause in change.causes:
            yield f"  because {cause}"


def _summary(difference: Difference) -> str:
    count = len(difference.changes)
    line = f"{count} of {difference.asked} rulings {'changes' if count == 1 else 'change'}"
    if not count:
        return line
    stricter = sum(one.after.effect > one.before.effect for one in difference.changes)
    looser = sum(one.after.effect < one.before.effect for one in difference.changes)
    same = count - stricter - looser
    return f"{line}: stricter {stricter}, looser {looser}, for other reasons {same}"


def diff_json(difference: Difference) -> dict[str, Any]:
    """Return the difference JSON-ready, with stable keys."""
    return {
        "appeared": list(difference.appeared),
        "disappeared": list(difference.disappeared),
        "edits": [_cause_json(edit) for edit in difference.edits],
        "asked": difference.asked,
        "changes": [
            {
                "question": change.question.name,
                "policy": change.question.policy,
                "day": change.question.on.isoformat(),
                "before": _ruling_json(change.before),
                "after": _ruling_json(change.after),
                "causes": [_cause_json(cause) for cause in change.causes],
            }
            for change in difference.changes
        ],
    }


def _turns(library: Library, on: dt.date) -> Iterator[dt.date]:
    """Yield the days after *on* from which another policy binds."""
    for versions in library.policies.values():
        for policy in versions:
            if policy.in_force_from > on:
                yield policy.in_force_from
            if policy.in_force_until is not None and policy.in_force_until >= on:
                yield policy.in_force_until + _ONE_DAY


def _standard_questions(
    old: Library, new: Library, standard: StandardUses, days: Iterable[dt.date]
) -> Iterator[Question]:
    rows = {row.id: row for row in (*standard.rows_of(old), *standard.rows_of(new))}
    for row in rows.values():
        if row.policy not in old.policies or row.policy not in new.policies:
            continue
        for use in standard.uses():
            facts = row.asks(use)
            for day in days:
                yield Question(
                    name=f"{row.id}, {use.name}",
                    policy=row.policy,
                    facts=facts,
                    on=day,
                    row=row,
                    lifted=NOTHING_LIFTED,
                )


def _case_questions(cases: Iterable[Case], both: Sequence[str]) -> Iterator[Question]:
    """Yield each case's question; one that both libraries ask alike comes once."""
    seen = set()
    for case in cases:
        asked = (case.file, hash(case.facts), case.on, frozenset(case.lifted))
        if case.policy in both and asked not in seen:
            seen.add(asked)
            yield Question(
                name=case.file,
                policy=case.policy,
                facts=case.facts,
                on=case.on,
                lifted=case.lifted,
            )


def _change(question: Question, old: Library, new: Library) -> Change | None:
    """Return how the ruling on *question* changes, or `None`."""
    was, now = question.bound(old), question.bound(new)
    before = question.ruled(was.policies, was.absent)
    after = question.ruled(now.policies, now.absent)
    if _seen(before) == _seen(after):
        return None
    return Change(
        question=question, before=before, after=after, causes=_causes(question, was, now, after)
    )


def _seen(decision: Decision) -> tuple[object, ...]:
    """Return what of a ruling somebody notices."""
    return (
        decision.effect,
        tuple((reason.policy, reason.clause) for reason in decision.reasons),
        decision.obligations,
        decision.missing,
    )


def _causes(
    question: Question, was: Binding, now: Binding, after: Decision
) -> tuple[Cause, ...]:
    """Return the smallest set of differences that leads from the old ruling to the new one."""
    differing = _differing(question, was, now)
    tries = itertools.chain.from_iterable(
        itertools.combinations(differing, size) for size in range(1, len(differing))
    )
    for some in itertools.islice(tries, _TRIES_MAX):
        policies, absent = _mixed(was, now, frozenset(some), question.on)
        if _seen(question.ruled(policies, absent)) == _seen(after):
            return tuple(differing[key] for key in some)
    return tuple(differing.values())


_Key = tuple[str, str]
"""A policy and one of its clauses; an empty clause is all of the policy but its clauses."""


def _differing(question: Question, was: Binding, now: Binding) -> dict[_Key, Cause]:
    """Return what differs in what binds and could matter to *question*."""
    old = {policy.id: policy for policy in was.policies}
    new = {policy.id: policy for policy in now.policies}
    found: dict[_Key, Cause] = {}
    for name in sorted({*old, *new, *was.absent, *now.absent}):
        before, after = old.get(name), new.get(name)
        if before is None or after is None or not _both_in_force(before, after, question.on):
            what = _appearance(before, after, question.on) or _absence(name, was, now)
            if what:
                found[name, ""] = Cause(policy=name, clause="", what=what)
            continue
        head = _head(before, after)
        if head:
            found[name, ""] = Cause(policy=name, clause="", what=head)
        for clause_id, what in _clause_edits(before, after):
            clauses = before.clause(clause_id), after.clause(clause_id)
            if any(one and one.condition.truth(question.facts) is not False for one in clauses):
                found[name, clause_id] = Cause(policy=name, clause=clause_id, what=what)
    return found


def _mixed(
    was: Binding, now: Binding, swapped: frozenset[_Key], on: dt.date
) -> tuple[list[Policy], list[str]]:
    """Return what would bind if only *swapped* were as in the new library."""
    old = {policy.id: policy for policy in was.policies}
    new = {policy.id: policy for policy in now.policies}
    policies: list[Policy] = []
    absent: list[str] = []
    for name in sorted({*old, *new, *was.absent, *now.absent}):
        whole = (name, "") in swapped
        before, after = old.get(name), new.get(name)
        chosen = after if whole else before
        if chosen is None:
            absent += [name] if name in (now if whole else was).absent else []
        elif before is None or after is None or not _both_in_force(before, after, on):
            policies.append(chosen)
        else:
            clauses = {clause for policy, clause in swapped if policy == name}
            policies.append(replace(chosen, clauses=_swapped(before, after, clauses)))
    return policies, absent


def _swapped(old: Policy, new: Policy, names: Collection[str]) -> tuple[Clause, ...]:
    """Return the clauses of *old*, but those of *names* as they are in *new*."""
    kept = [clause for clause in old.clauses if clause.id not in names]
    return (*kept, *(clause for clause in new.clauses if clause.id in names))


def _both_in_force(before: Policy, after: Policy, on: dt.date) -> bool:
    return before.in_force(on) and after.in_force(on)


def _appearance(before: Policy | None, after: Policy | None, on: dt.date) -> str:
    was = before is not None and before.in_force(on)
    now = after is not None and after.in_force(on)
    if was is now:
        return ""
    return "comes to bind" if now else "no longer binds"


def _absence(name: str, was: Binding, now: Binding) -> str:
    """Return what differs in that nobody has written a policy which should bind."""
    missed, missing = name in was.absent, name in now.absent
    if missed is missing:
        return ""
    return "should bind and is not there" if missing else "is no longer missed"


def _head(before: Policy, after: Policy) -> str:
    """Return what differs in a policy beside its clauses, in a word."""
    if before.review_by != after.review_by:
        return f"is to be reviewed by {after.review_by}, not {before.review_by}"
    if before.kind != after.kind:
        return f"is of the kind {after.kind}, not {before.kind}"
    return ""


def _edits(old: Library, new: Library, name: str, days: Iterable[dt.date]) -> Iterator[Cause]:
    """Yield what was edited in a policy that both libraries have."""
    was, now = _days_in_force(old.policies[name]), _days_in_force(new.policies[name])
    if was != now:
        yield Cause(policy=name, clause="", what=f"was {was}; it is {now}")
    seen = set()
    for day in days:
        before, after = old.in_force(name, day), new.in_force(name, day)
        if before is None or after is None:
            continue
        for clause, what in _clause_edits(before, after):
            if (clause, what) not in seen:
                seen.add((clause, what))
                yield Cause(policy=name, clause=clause, what=what)


def _days_in_force(versions: Iterable[Policy]) -> str:
    return ", ".join(
        f"version {one.version} from {one.in_force_from}"
        + (f" until {one.in_force_until}" if one.in_force_until else "")
        + f" (review by {one.review_by})"
        for one in versions
    )


def _clause_edits(before: Policy, after: Policy) -> Iterator[tuple[str, str]]:
    """Yield each clause that was added, struck out or changed, and how."""
    for clause in after.clauses:
        known = before.clause(clause.id)
        if known is None:
            yield clause.id, "was added"
        elif changed := [word for word, part in _PARTS.items() if part(known) != part(clause)]:
            yield clause.id, f"changed in {', '.join(changed)}"
    for clause in before.clauses:
        if after.clause(clause.id) is None:
            yield clause.id, "was struck out"


def _shape(condition: Condition) -> object:
    """Return *condition* as it is wherever it stands."""
    return _tests(condition.when), frozenset(map(_tests, condition.unless))


def _tests(tests: Iterable[Test]) -> frozenset[object]:
    return frozenset(replace(test, line=0) for test in tests)  # type: ignore[type-var]  # INVARIANT: every `Test` is a dataclass.


_PARTS: Final[Mapping[str, Callable[[Clause], object]]] = {
    "effect": lambda clause: (clause.effect, clause.binding),
    "condition": lambda clause: _shape(clause.condition),
    "obligations": lambda clause: clause.obligations,
    "source": lambda clause: (
        clause.citation,
        clause.document.version,
        clause.document.confidence,
    ),
    "words": lambda clause: (clause.because, clause.change),
    "reach": lambda clause: (frozenset(clause.binds), clause.survives),
}
"""What of a clause can be another, by the word for it."""


def _told(decision: Decision) -> str:
    clauses = ", ".join(f"`{reason.clause}`" for reason in decision.reasons)
    return f"{decision.effect.word} by {clauses}"


def _shifts(change: Change) -> Iterator[str]:
    """Yield what else is asked of the user than before."""
    for what, before, after in (
        ("obligation", change.before.obligations, change.after.obligations),
        ("missing fact", change.before.missing, change.after.missing),
    ):
        for name in after:
            if name not in before:
                yield f"{what} `{name}` is added"
        for name in before:
            if name not in after:
                yield f"{what} `{name}` falls away"


def _ruling_json(decision: Decision) -> dict[str, Any]:
    return {
        "effect": decision.effect.word,
        "reasons": [f"{reason.policy}/{reason.clause}" for reason in decision.reasons],
        "obligations": list(decision.obligations),
        "missing": list(decision.missing),
    }


def _cause_json(cause: Cause) -> Mapping[str, str]:
    return {"policy": cause.policy, "clause": cause.clause, "what": cause.what}
