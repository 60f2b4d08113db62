"""The ruling again: on every use, for every teacher above, under the policies of both days."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Final

import msgspec

from gateway.dataset.ancestry import Ancestry
from gateway.dataset.calls import REWRITE, VERIFY, Call, call_of_teacher
from gateway.dataset.gate.groups import Group, RuledAgain
from gateway.dataset.gate.ports import Law, Words
from gateway.dataset.gate.refusals import LeftOut
from gateway.dataset.manifest import Influence
from gateway.intent.model import Declaration, IntendedUse
from gateway.policy.decide import NO_POLICY
from gateway.receipt.model import EffectName, Reason


class Rulings:
    """Rules for one declaration on one day, once for each group."""

    def __init__(
        self,
        declaration: Declaration,
        today: dt.date,
        law: Law,
        words: Words,
        above: Ancestry,
        *,
        reasoning: bool,
    ) -> None:
        self.declaration = declaration
        self.today = today
        self._law = law
        self._words = words
        self._above = above
        self._reasoning = reasoning
        self.made: dict[Group, RuledAgain] = {}
        """Every ruling made so far."""

    def of(self, group: Group) -> RuledAgain:
        """Return what is ruled for *group*."""
        if group not in self.made:
            self.made[group] = self._rule(group)
        return self.made[group]

    def _rule(self, group: Group) -> RuledAgain:
        today = self.today.isoformat()
        own = group.call
        cases: list[tuple[Influence, Call, str, str]] = []
        if group.manifest is not None:
            above = self._above.above(group.manifest)
            if above.unresolved:
                return RuledAgain(
                    effect="forbid",
                    left_out=LeftOut("parent-unresolved", "; ".join(above.unresolved)),
                )
            # A student has no terms of its own: its receipts name the policies of its
            # teachers, and those rule on the teachers. What else they name binds the student.
            teachers = {teacher: call_of_teacher(teacher) for teacher in above.teachers}
            theirs = {
                policy
                for teacher, call in teachers.items()
                for policy in call.policies
                if teacher.manifest is None
            }
            for teacher, call in teachers.items():
                bound = call if teacher.manifest is None else _without(call, theirs)
                if teacher.manifest is None or bound.policies:
                    # Whoever judged what a student learned from judged what it answers, too;
                    # and all that taught a judge has only judged.
                    judged = "judge" in {group.influence, teacher.influence}
                    cases += [
                        ("judge" if judged else "text", bound, made, on)
                        for made in teacher.days
                        for on in (made, today)
                    ]
            own = _without(own, theirs)
        if group.manifest is None or own.policies:
            cases += [(group.influence, own, group.day, on) for on in (group.day, today)]
        return _maximum(
            [
                self._case(use, call, made, on)
                for influence, call, made, on in dict.fromkeys(cases)
                for use in self._uses(influence, call)
            ]
        )

    def _uses(self, influence: Influence, call: Call) -> tuple[IntendedUse, ...]:
        """Return every use that is ruled on, of what *call* gave and how that reached rows.

        What rewrote data that is trained on is ruled on for that, too. A judge's words stand in
        no row: judging is what it is ruled on for, and more only where its judgement is what is
        learned.
        """
        use = self.declaration.use
        purposes = [use.purpose]
        if influence == "judge":
            learned = use.purpose in {"train.preference", "train.reward"}
            purposes = [VERIFY, *(purposes if learned else ())]
        elif call.generated_for == REWRITE:
            purposes.append(REWRITE)
        return tuple(
            msgspec.structs.replace(use, purpose=one) for one in dict.fromkeys(purposes)
        )

    def _case(self, use: IntendedUse, call: Call, made: str, day: str) -> RuledAgain:
        """Rule on what one teacher gave on a day, under the policies of that or another day."""
        known = dataclasses.replace(
            call,
            generated_on=made,
            project=self.declaration.project,
            reasoning="visible" if self._reasoning else None,
        )
        ruling = self._law.rule(use, known, dt.date.fromisoformat(day))
        verdicts: tuple[int, ...] = ()
        left_out = None
        match ruling.effect:
            case "forbid":
                unruled = any(reason.clause == NO_POLICY for reason in ruling.reasons)
                code = "no-policy" if unruled else "terms-forbid-use"
                left_out = LeftOut(code, _clauses(ruling.reasons, day))
            case "hold":
                # Every reason of a hold wants an answer, an undecided permit as well.
                holding = [(reason.policy, reason.clause) for reason in ruling.reasons]
                answer = self._words.approval(self.declaration.id, holding)
                if answer is None:
                    left_out = LeftOut("terms-hold-use", _clauses(ruling.reasons, day))
                else:
                    verdicts = (answer,)
            case "permit":
                pass
        return RuledAgain(
            effect=ruling.effect,
            left_out=left_out,
            reasons=ruling.reasons,
            obligations=ruling.obligations,
            policies=ruling.policies,
            verdicts=verdicts,
        )


def _without(call: Call, policies: set[str]) -> Call:
    kept = tuple(policy for policy in call.policies if policy not in policies)
    return dataclasses.replace(call, policies=kept)


_ORDER: Final[tuple[EffectName, ...]] = ("permit", "hold", "forbid")


def _maximum(cases: list[RuledAgain]) -> RuledAgain:
    effect = _ORDER[max(_ORDER.index(case.effect) for case in cases)]
    refused = [case for case in cases if case.left_out is not None]
    worst = max(refused, key=lambda case: _ORDER.index(case.effect), default=None)
    return RuledAgain(
        effect=effect,
        left_out=worst.left_out if worst else None,
        reasons=tuple(dict.fromkeys(reason for case in cases for reason in case.reasons)),
        obligations=tuple(sorted({duty for case in cases for duty in case.obligations})),
        policies=tuple(
            sorted(
                {pin for case in cases for pin in case.policies},
                key=lambda pin: (pin.policy, pin.version, pin.sha256),
            )
        ),
        verdicts=tuple(sorted({index for case in cases for index in case.verdicts})),
    )


def _clauses(reasons: tuple[Reason, ...], day: str) -> str:
    named = ", ".join(f"{r.policy}:{r.clause}" for r in reasons)
    missing = ", ".join(sorted({fact for reason in reasons for fact in reason.missing}))
    unsaid = f"; not declared: {missing}" if missing else ""
    return f"{named} (policies of {day}){unsaid}"
