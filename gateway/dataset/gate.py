"""Which rows may be learned from for one declaration, and why the others may not.

Every answer that reached a row is ruled on again, for the use that is declared now: under the
policies of today and under those of the day of the call, for the teacher itself and for every
teacher above it. The ruling is the maximum of them all; a row falls with the first ancestor
that does. There is no override.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from gateway.canonical import salted_sha256, sha256_hex
from gateway.dataset.above import Above, call_of_student
from gateway.dataset.ancestry import Ancestry
from gateway.dataset.calls import REWRITE, VERIFY, Call, call_of, call_of_teacher
from gateway.dataset.digests import Digests
from gateway.dataset.manifest import Influence
from gateway.dataset.shape import check_shape
from gateway.dataset.standing import Standing, standing_of
from gateway.errors import MalformedReceiptError
from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.intent.model import Declaration, IntendedUse
from gateway.intent.purpose import covers, teaches
from gateway.policy.decide import NO_POLICY
from gateway.policy.obligation import (
    NAME_PREFIX,
    NO_CACHE,
    ON_PLATFORM,
    REVIEW_FIRST,
    days_to_keep,
    values_of,
)
from gateway.receipt.model import (
    Commitment,
    Derivation,
    EffectName,
    Manifest,
    OutputFacts,
    PolicyPin,
    Reason,
    Receipt,
    Refusal,
    Ruling,
    Verdict,
    Withdrawal,
)

REFUSALS: Final[dict[str, str]] = {
    "not-readable": "the answer was digested but not read; nothing of it is ever trainable",
    "not-for-training": "it was declared for a purpose under which nothing is learned from it",
    "other-project": "it belongs to another project than the declaration",
    "widened-use": "it was declared for a narrower purpose; a use is narrowed, never widened",
    "provider-error": "the provider answered with an error",
    "not-complete": "the answer ended before it was whole",
    "waiting-for-review": "a person must rule on the exchange first: `gateway review approve`",
    "declined": "a person ruled that it may not be learned from",
    "withdrawn": "it, its declaration, or something it came from was withdrawn",
    "parent-unresolved": "what it was made from, or who taught the student that answered, "
    "can't be found in the ledger",
    "parent-erased": "the text of something that it was made from was erased",
    "no-policy": "no policy is in force for the provider",
    "terms-forbid-use": "a provider's terms forbid the declared use",
    "terms-hold-use": "a provider's terms leave it to a person, who has not said yes",
    "stays-on-platform": "the terms keep the output on the provider's platform",
    "not-to-be-kept": "the terms let nobody keep the text, so nothing learns from it",
    "past-its-days": "the terms allowed to keep the output for some days, and they are over",
    "student-name": "the terms ask for a student's name that begins otherwise",
    "content-missing": "its text was not kept",
    "content-erased": "its text was erased",
    "row-mismatch": "its text is not the one that the receipt committed to",
    "duplicate": "the same row was taken already",
    "near-duplicate": "a row that is nearly the same was taken already",
    "reasoning-not-open": "the provider showed none of its reasoning, or a summary of it",
    "no-verdict": "it was not judged, or not with the verdict that was asked for",
    "not-best": "of the rows with the same prompt, another was judged better",
    "row.not-text": "the answer has no form as a training row",
    "row.refused": "the model refused to answer",
    "row.filtered": "the provider's filter cut the answer",
    "row.truncated": "the answer was cut off at a length limit",
    "row.empty": "the answer is empty",
}
"""Every reason for which something is left out, and what it means. A code never changes."""

_WHOLE: Final = frozenset(
    {
        "completed",
        "end_turn",
        "eos",
        "function_call",
        "stop",
        "stop_sequence",
        "tool_calls",
        "tool_use",
    }
)
"""Finish reasons after which an answer is whole, in the dialects that are read."""

_WORDS: Final = frozenset({"text", "reasoning", "tool-call", "refusal"})
"""Kinds of units that a conversation is made of."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One candidate, or one choice of it, that was left out."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Calls that are ruled on alike."""

    call: Call
    manifest: Sha256 | None
    day: str
    influence: Influence = "text"
    """How what was answered reached rows: that decides which uses are ruled on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuledAgain:
    """What was ruled for a group, over every teacher and both days."""

    effect: EffectName
    left_out: LeftOut | None
    reasons: tuple[Reason, ...] = ()
    obligations: tuple[str, ...] = ()
    policies: tuple[PolicyPin, ...] = ()
    verdicts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row that may be learned from: its bytes, and what opens the receipt's commitment."""

    choice: int
    """Of an exchange the choice; of a derivation the place in it."""
    line: bytes
    sha256: Sha256
    salt: bytes
    reasoned: bool = False


class Law(Protocol):
    """The policies, as far as the gate needs them."""

    def rule(self, use: IntendedUse, call: Call, on: dt.date) -> Ruling:
        """Return the ruling on *use* of what *call* gave, under the policies of that day."""
        ...


class Words(Protocol):
    """What people said, as far as the gate needs it; the ledger's register keeps it."""

    def verdicts(self, subject: DeclarationId | ExchangeId) -> list[tuple[int, Verdict]]:
        """Return every (leaf index, verdict) about *subject*, oldest first."""
        ...

    def withdrawn(self, subject: DeclarationId | ExchangeId | Sha256) -> Withdrawal | None:
        """Return the withdrawal of a declaration, an exchange or a manifest, if any."""
        ...

    def held(self, manifest: Sha256) -> Withdrawal | None:
        """Return the withdrawal of a manifest, or of anything that it was made of, if any."""
        ...

    def approval(
        self, declaration: DeclarationId, holding: Iterable[tuple[str, str]]
    ) -> int | None:
        """Return the verdict that answers every *holding* (policy, clause) with yes."""
        ...


class Kept(Protocol):
    """What was kept of an exchange's text."""

    @property
    def salt(self) -> bytes:
        """Return what opens its commitments."""
        ...

    @property
    def rows(self) -> Mapping[int, bytes]:
        """Return the canonical row of each choice."""
        ...

    @property
    def reasoned(self) -> Mapping[int, bytes]:
        """Return the rows of those choices whose reasoning was shown, with it."""
        ...


_NO_GROUP: Final = Group(
    call=Call(provider="", model=None, operation=""), manifest=None, day=""
)


class Gate:
    """Decides for one declaration on one day; rulings are made once for each group.

    With *reasoning*, rows hold the reasoning that their providers showed, and are ruled on so.
    """

    def __init__(
        self,
        declaration: Declaration,
        today: dt.date,
        law: Law,
        words: Words,
        above: Ancestry,
        *,
        reasoning: bool = False,
    ) -> None:
        self.declaration = declaration
        self.today = today
        self._law = law
        self._words = words
        self._above = above
        self._reasoning = reasoning
        self._ruled: dict[Group, RuledAgain] = {}
        self._seen = Digests()
        # An answer's group is asked for when it is admitted and again when it is counted.
        self._last: tuple[Receipt | None, Group] = (None, _NO_GROUP)

    @property
    def ruled(self) -> Mapping[Group, RuledAgain]:
        """Return every ruling made so far."""
        return self._ruled

    def remember(self, rows: Iterable[bytes]) -> None:
        """Take the rows with these SHA-256 digests as taken already."""
        for digest in rows:
            self._seen.add(digest)

    def admit_row(
        self, statement: Receipt | Derivation, place: int, above: Sequence[Above]
    ) -> LeftOut | None:
        """Tell why row *place* of *statement* may not be learned from, or `None` if it may.

        *above* is all that it was made from (`above_of`). The row falls with the first of its
        ancestors that does, and the detail names that one.
        """
        if isinstance(statement, Receipt):
            return self.admit(statement)
        if not 0 <= place < len(statement.rows):
            return LeftOut("parent-unresolved", f"{statement.derivation} has no row {place}")
        why = self._derivation_of_this_use(statement, None)
        if why is not None:
            return why
        for one in above:
            why = self.admit_above(one)
            if why is not None:
                return LeftOut(why.reason, f"{_name_of(one)}: {why.detail}".removesuffix(": "))
        return None

    def admit(self, receipt: Receipt) -> LeftOut | None:
        """Tell why nothing of an exchange may be learned from, or `None` if some of it may."""
        return self._admit_answer(receipt, None)

    def admit_above(self, above: Above) -> LeftOut | None:
        """Tell why nothing may be made of an ancestor in the way it was, or `None`."""
        match above.statement:
            case Receipt() as receipt:
                return self._admit_answer(receipt, above.influence)
            case Derivation() as derivation:
                return self._derivation_of_this_use(derivation, above.influence)
            case Manifest() as manifest:
                return self._admit_student(manifest, above.influence)

    def group(self, receipt: Receipt, influence: Influence = "text") -> Group:
        """Return the group that an answer is ruled on with."""
        known, group = self._last
        if known is not receipt or group.influence != influence:
            group = group_of(receipt, influence)
            self._last = (receipt, group)
        return group

    def group_above(self, above: Above) -> Group | None:
        """Return the group that an ancestor is ruled on with; a derivation has none."""
        match above.statement:
            case Receipt() as receipt:
                return self.group(receipt, above.influence)
            case Manifest() as manifest:
                return Group(
                    call=call_of_student(manifest),
                    manifest=manifest.payload_sha256,
                    day=self.today.isoformat(),
                    influence=above.influence,
                )
            case _:
                return None

    def _admit_answer(self, receipt: Receipt, influence: Influence | None) -> LeftOut | None:
        return (
            self._not_of_this_use(receipt, influence)
            or _not_whole(receipt)
            or self._not_in_good_standing(receipt)
            or self._not_permitted(receipt, influence or "text")
        )

    def rows_of(
        self, receipt: Receipt, kept: Kept | None, *, erased: bool = False
    ) -> Iterator[tuple[int, Row | LeftOut]]:
        """Yield each choice of an admitted exchange with its row, or why it has none."""
        units = _first_units(receipt.outputs)
        if not units:
            yield 0, LeftOut("row.empty")
        for choice, first in units.items():
            why = _no_row(receipt, choice)
            if why is None and self._reasoning:
                why = _not_open(first)
            if why is None and kept is None:
                why = LeftOut("content-erased" if erased else "content-missing")
            if why is not None or kept is None:
                yield choice, why or LeftOut("content-missing")
            else:
                yield choice, self._row_of_choice(choice, first, kept)

    def derived_row(
        self, derivation: Derivation, place: int, kept: Kept | None, *, erased: bool = False
    ) -> Row | LeftOut:
        """Return row *place* of a derivation, which was admitted, or why there is none."""
        made = derivation.rows[place]
        if not made.parents and derivation.written is None:
            return LeftOut("parent-unresolved", "it was made of nothing, and nobody wrote it")
        if kept is None:
            return LeftOut("content-erased" if erased else "content-missing")
        row = self._row(place, kept.rows.get(place), made.row, kept.salt)
        if isinstance(row, Row):
            try:
                check_shape(row.line, made.kind)
            except MalformedReceiptError as exc:
                return LeftOut("row.not-text", exc.message)
        return row

    def ruling_for(self, group: Group) -> RuledAgain:
        """Return what is ruled for *group*; a base that is a student of ours has one too."""
        if group not in self._ruled:
            self._ruled[group] = self._rule(group)
        return self._ruled[group]

    def _not_of_this_use(self, receipt: Receipt, influence: Influence | None) -> LeftOut | None:
        if not receipt.readable:
            return LeftOut("not-readable")
        used = receipt.declared.use.purpose
        if receipt.ruling.effect != "permit":
            return LeftOut("not-for-training", f"declared for `{used}`")
        return self._other_use(used, receipt.caller.project, influence)

    def _other_use(
        self, used: str, project: str, influence: Influence | None
    ) -> LeftOut | None:
        """Tell why what was declared for *used* serves no row of this declaration.

        What stands above a row (*influence*) may also have been declared for what it was there:
        rewriting what is trained on, or judging it.
        """
        wanted = self.declaration.use.purpose
        if not teaches(used):
            return LeftOut("not-for-training", f"declared for `{used}`")
        if project != self.declaration.project:
            return LeftOut("other-project", f"of project `{project}`")
        fits = {None: (wanted,), "text": (wanted, REWRITE), "judge": (wanted, VERIFY)}
        if not any(covers(used, purpose) for purpose in fits[influence]):
            return LeftOut("widened-use", f"declared for `{used}`, wanted for `{wanted}`")
        return None

    def _derivation_of_this_use(
        self, derivation: Derivation, influence: Influence | None
    ) -> LeftOut | None:
        declared = derivation.declared.declaration
        why = self._other_use(
            derivation.declared.use.purpose, derivation.caller.project, influence
        )
        if why is not None:
            return why
        for subject in (derivation.derivation, self.declaration.id, declared):
            withdrawal = None if subject is None else self._words.withdrawn(subject)
            if withdrawal is not None:
                return LeftOut("withdrawn", _words_of(withdrawal))
        for declaration in (self.declaration.id, declared):
            spoken = () if declaration is None else self._words.verdicts(declaration)
            if spoken and not spoken[-1][1].approved:
                return LeftOut("declined", _words_of(spoken[-1][1]))
        return None

    def _admit_student(self, manifest: Manifest, influence: Influence) -> LeftOut | None:
        """Rule on a student that was run in a pipeline as on an answer of it."""
        held = self._held(manifest.payload_sha256)
        if held is not None:
            return LeftOut("withdrawn", _words_of(held))
        try:
            call = call_of_student(manifest)
        except MalformedReceiptError as exc:
            return LeftOut("parent-unresolved", exc.message)
        ruled = self.ruling_for(
            Group(
                call=call,
                manifest=manifest.payload_sha256,
                day=self.today.isoformat(),
                influence=influence,
            )
        )
        if ruled.left_out is None and REVIEW_FIRST in ruled.obligations:
            # Nobody can say yes to answers of which there are no receipts.
            return LeftOut("waiting-for-review", "serve it behind the gateway")
        return ruled.left_out or self._duty_undone(None, ruled.obligations)

    def _held(self, manifest: Sha256) -> Withdrawal | None:
        """Return the withdrawal of a student, or of anything it comes from."""
        above = self._above.above(manifest)
        subjects: list[Sha256 | DeclarationId] = [*above.manifests, *above.declarations]
        for subject in subjects:
            withdrawal = self._words.withdrawn(subject)
            if withdrawal is not None:
                return withdrawal
        return self._words.held(manifest)

    def _not_in_good_standing(self, receipt: Receipt) -> LeftOut | None:
        verdicts = [*self._words.verdicts(receipt.exchange)]
        if receipt.declared.declaration is not None:
            verdicts += self._words.verdicts(receipt.declared.declaration)
        verdicts.sort(key=lambda entry: entry[0])
        spoken = [verdict for _, verdict in verdicts]
        withdrawals = self._withdrawals_over(receipt)
        match standing_of(receipt, [*spoken, *withdrawals]):
            case Standing.WITHDRAWN:
                return LeftOut("withdrawn", _words_of(withdrawals[0]))
            case Standing.DECLINED:
                noes = [verdict for verdict in spoken if not verdict.approved]
                return LeftOut("declined", _words_of(noes[-1]))
            case Standing.WAITING:
                return LeftOut("waiting-for-review")
            case _:
                return None

    def _withdrawals_over(self, receipt: Receipt) -> list[Withdrawal]:
        """Return every withdrawal that takes *receipt* with it."""
        said = [
            self._words.withdrawn(subject)
            for subject in (
                receipt.exchange,
                self.declaration.id,
                receipt.declared.declaration,
            )
            if subject is not None
        ]
        if receipt.model.manifest is not None:
            said.append(self._held(receipt.model.manifest))
        return [withdrawal for withdrawal in said if withdrawal is not None]

    def _not_permitted(self, receipt: Receipt, influence: Influence) -> LeftOut | None:
        spoken = self._words.verdicts(self.declaration.id)
        if spoken and not spoken[-1][1].approved:
            return LeftOut("declined", _words_of(spoken[-1][1]))
        ruled = self.ruling_for(self.group(receipt, influence))
        if ruled.left_out is None and REVIEW_FIRST in ruled.obligations:
            # The terms ask for a review now, though they may not have when the call was made.
            verdicts = self._words.verdicts(receipt.exchange)
            if not verdicts or not verdicts[-1][1].approved:
                return LeftOut("waiting-for-review")
        return ruled.left_out or self._duty_undone(receipt, ruled.obligations)

    def _duty_undone(
        self, receipt: Receipt | None, obligations: tuple[str, ...]
    ) -> LeftOut | None:
        """Tell which obligation that the gate discharges stands in the way."""
        barred = barred_by(obligations)
        if barred is not None:
            return barred
        last = None if receipt is None else last_day(receipt, obligations)
        if last is not None and self.today > last:
            return LeftOut("past-its-days", f"kept until {last}")
        use = self.declaration.use
        prefix = None if use.student is None else unmet_prefix(use, use.student, obligations)
        return None if prefix is None else LeftOut("student-name", f"begins with `{prefix}`")

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

    def _row_of_choice(self, choice: int, first: OutputFacts, kept: Kept) -> Row | LeftOut:
        if self._reasoning:
            row = self._row(choice, kept.reasoned.get(choice), first.reasoned, kept.salt)
            return dataclasses.replace(row, reasoned=True) if isinstance(row, Row) else row
        return self._row(choice, kept.rows.get(choice), first.row, kept.salt)

    def _row(
        self, place: int, line: bytes | None, committed: Commitment | None, salt: bytes
    ) -> Row | LeftOut:
        if committed is None:
            return LeftOut("row.not-text")
        if line is None:
            return LeftOut("content-missing", f"no row was kept for choice {place}")
        if b"\n" in line or salted_sha256(salt, line) != committed.value:
            return LeftOut("row-mismatch")
        sha256 = sha256_hex(line)
        if not self._seen.add(bytes.fromhex(sha256)):
            return LeftOut("duplicate")
        return Row(choice=place, line=line, sha256=sha256, salt=salt)


def barred_by(obligations: tuple[str, ...]) -> LeftOut | None:
    """Tell which obligation lets nobody learn from an output at all."""
    if ON_PLATFORM in obligations:
        return LeftOut("stays-on-platform")
    return LeftOut("not-to-be-kept") if NO_CACHE in obligations else None


def last_day(receipt: Receipt, obligations: tuple[str, ...]) -> dt.date | None:
    """Return the last day on which the output may be kept, or `None` where none is set."""
    days = days_to_keep(obligations)
    if days is None:
        return None
    return dt.date.fromisoformat(receipt.received[:10]) + dt.timedelta(days=days)


def unmet_prefix(use: IntendedUse, student: str, obligations: tuple[str, ...]) -> str | None:
    """Return how the student's name must begin and doesn't, or `None`.

    A student that stays inside may be called anything; one whose audience nobody named may not.
    Names of students are small letters, digits and dashes: `Llama 3` is `llama-3` there.
    """
    if use.audience == "internal":
        return None
    for prefix in values_of(NAME_PREFIX, obligations):
        spelt = re.sub(r"[^a-z0-9.]+", "-", prefix.casefold())
        if not student.startswith(spelt):
            return spelt
    return None


def group_of(receipt: Receipt | Refusal, influence: Influence = "text") -> Group:
    """Return the group of calls that *receipt* is ruled on with."""
    return Group(
        call=call_of(receipt),
        manifest=receipt.model.manifest,
        day=receipt.received[:10],
        influence=influence,
    )


def _without(call: Call, policies: set[str]) -> Call:
    kept = tuple(policy for policy in call.policies if policy not in policies)
    return dataclasses.replace(call, policies=kept)


def _name_of(above: Above) -> str:
    match above.statement:
        case Receipt() as receipt:
            return receipt.exchange
        case Derivation() as derivation:
            return derivation.derivation
        case Manifest() as manifest:
            return f"manifest {manifest.payload_sha256[:12]}…"


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


def _not_whole(receipt: Receipt) -> LeftOut | None:
    status = receipt.provider.status
    if receipt.error or receipt.ended == "provider-failed" or (status or 200) >= 400:
        return LeftOut("provider-error", receipt.error or f"status {status}")
    if receipt.ended != "complete":
        return LeftOut("not-complete", receipt.ended)
    return None


def _first_units(outputs: tuple[OutputFacts, ...]) -> dict[int, OutputFacts]:
    """Return the unit of each choice that carries the commitment to its row, else its first."""
    units: dict[int, OutputFacts] = {}
    for unit in outputs:
        if unit.choice not in units or (unit.row and not units[unit.choice].row):
            units[unit.choice] = unit
    return units


def _not_open(first: OutputFacts) -> LeftOut | None:
    """Tell why a choice's reasoning is not to be learned from, or `None`.

    A summary is what a provider shows instead of the reasoning, which it keeps to itself.
    """
    if first.reasoned is None or first.reasoning_kind is None:
        return LeftOut("reasoning-not-open")
    if first.reasoning_kind != "visible":
        return LeftOut("reasoning-not-open", f"the provider showed a {first.reasoning_kind}")
    return None


def _no_row(receipt: Receipt, choice: int) -> LeftOut | None:
    """Tell why a choice makes no row: its receipt commits to none, and shows why."""
    units = [unit for unit in receipt.outputs if unit.choice == choice]
    if any(unit.row for unit in units):
        return None
    finish = _finish(receipt, choice)
    if any(unit.kind == "refusal" for unit in units) or finish == "refusal":
        return LeftOut("row.refused")
    if finish == "content_filter":
        return LeftOut("row.filtered")
    if finish and finish not in _WHOLE:
        return LeftOut("row.truncated", finish)
    if any(unit.kind not in _WORDS for unit in units):
        return LeftOut("row.not-text")
    if not any(unit.bytes for unit in units if unit.kind in {"text", "tool-call"}):
        return LeftOut("row.empty")
    return LeftOut("row.not-text")


def _finish(receipt: Receipt, choice: int) -> str:
    """Return why a choice ended, where the receipt leaves no doubt which reason is whose."""
    reasons, choices = receipt.finish_reasons, sorted({u.choice for u in receipt.outputs})
    if len(reasons) == len(choices):
        return reasons[choices.index(choice)]
    return reasons[0] if len(set(reasons)) == 1 else ""


def _clauses(reasons: tuple[Reason, ...], day: str) -> str:
    named = ", ".join(f"{r.policy}:{r.clause}" for r in reasons)
    missing = ", ".join(sorted({fact for reason in reasons for fact in reason.missing}))
    unsaid = f"; not declared: {missing}" if missing else ""
    return f"{named} (policies of {day}){unsaid}"


def _words_of(said: Verdict | Withdrawal) -> str:
    return f"by {said.by}: {said.reason}"
