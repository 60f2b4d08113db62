"""The gate at work for one declaration: what of an exchange may be learned from at all."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from gateway.dataset.above import Above, call_of_student
from gateway.dataset.ancestry import Ancestry
from gateway.dataset.calls import REWRITE, VERIFY, Call
from gateway.dataset.gate.duties import barred_by, last_day, unmet_prefix
from gateway.dataset.gate.groups import Group, RuledAgain, group_of
from gateway.dataset.gate.ports import Law, Words
from gateway.dataset.gate.refusals import LeftOut
from gateway.dataset.gate.rows import Kept, Row, Rows
from gateway.dataset.gate.rulings import Rulings
from gateway.dataset.manifest import Influence
from gateway.dataset.standing import Standing, standing_of
from gateway.errors import MalformedReceiptError
from gateway.ident import DeclarationId, Sha256
from gateway.intent.model import Declaration
from gateway.intent.purpose import covers, teaches
from gateway.policy.obligation import REVIEW_FIRST
from gateway.receipt.model import Derivation, Manifest, Receipt, Verdict, Withdrawal

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
        self._words = words
        self._above = above
        self._rulings = Rulings(declaration, today, law, words, above, reasoning=reasoning)
        self._rows = Rows(reasoning=reasoning)
        # An answer's group is asked for when it is admitted and again when it is counted.
        self._last: tuple[Receipt | None, Group] = (None, _NO_GROUP)

    @property
    def ruled(self) -> Mapping[Group, RuledAgain]:
        """Return every ruling made so far."""
        return self._rulings.made

    def remember(self, rows: Iterable[bytes]) -> None:
        """Take the rows with these SHA-256 digests as taken already."""
        self._rows.remember(rows)

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
        return self._rows.of_answer(receipt, kept, erased=erased)

    def derived_row(
        self, derivation: Derivation, place: int, kept: Kept | None, *, erased: bool = False
    ) -> Row | LeftOut:
        """Return row *place* of a derivation, which was admitted, or why there is none."""
        return self._rows.of_derivation(derivation, place, kept, erased=erased)

    def ruling_for(self, group: Group) -> RuledAgain:
        """Return what is ruled for *group*; a base that is a student of ours has one too."""
        return self._rulings.of(group)

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


def _name_of(above: Above) -> str:
    match above.statement:
        case Receipt() as receipt:
            return receipt.exchange
        case Derivation() as derivation:
            return derivation.derivation
        case Manifest() as manifest:
            return f"manifest {manifest.payload_sha256[:12]}…"


def _not_whole(receipt: Receipt) -> LeftOut | None:
    status = receipt.provider.status
    if receipt.error or receipt.ended == "provider-failed" or (status or 200) >= 400:
        return LeftOut("provider-error", receipt.error or f"status {status}")
    if receipt.ended != "complete":
        return LeftOut("not-complete", receipt.ended)
    return None


def _words_of(said: Verdict | Withdrawal) -> str:
    return f"by {said.by}: {said.reason}"
