"""Take from the ledger what a dataset may hold: candidates in, admitted rows out, in order.

Each candidate goes through the gate with everything that it was made from. What is taken
carries all that is counted of it later, in small numbers, so that it can be put aside and
sorted before it is written; what is left out is told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from gateway.dataset.above import Above, UnresolvedParentError, above_of
from gateway.dataset.assembly.covered import Covered
from gateway.dataset.assembly.signed import Signatures
from gateway.dataset.assembly.upward import Upward
from gateway.dataset.facts import Facts, Shared
from gateway.dataset.gate.gate import Gate
from gateway.dataset.gate.groups import Group
from gateway.dataset.gate.refusals import LeftOut
from gateway.dataset.gate.rows import Kept, Row
from gateway.dataset.manifest import Influence
from gateway.dataset.verification.count import Author, Kind, Maker, kind_of
from gateway.errors import LedgerDamagedError
from gateway.ident import DerivationId, ExchangeId
from gateway.limits import CONTENT_BYTES_AT_ONCE, CONTENTS_AT_ONCE, KINDS_REMEMBERED_MAX
from gateway.receipt.model import Derivation, DerivedRow, Manifest, Receipt, RowKind

_ABOVE_AT_ONCE: Final = 4_096
"""Ancestors of rows of which it is asked together whether their text was erased."""


class Texts(Protocol):
    """Where the text of exchanges and derivations is kept."""

    def get_many(self, exchanges: Sequence[ExchangeId]) -> Mapping[ExchangeId, Kept]:
        """Return what was kept of *exchanges*, of those of which anything was."""
        ...

    def was_erased(self, exchange: ExchangeId) -> bool:
        """Tell whether text of an exchange was kept once, and erased."""
        ...

    def erased_of(self, exchanges: Sequence[ExchangeId]) -> set[ExchangeId]:
        """Return those of *exchanges* of which text was kept once, and erased."""
        ...


class Given(msgspec.Struct, frozen=True, array_like=True):
    """What one answer adds to what is counted of its kind of call."""

    kind: int
    day: str | None
    declaration: str | None = None
    reported: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


class TakenRow(msgspec.Struct, frozen=True, array_like=True):
    """One row that was admitted."""

    choice: int
    line: bytes
    sha256: str
    salt: bytes
    reach: int
    """Which kinds of calls, transforms and authors reached it; see `Reaches`."""
    above: tuple[int, ...] = ()
    """The leaves that it was made from; see `above_code`."""
    reasoned: bool = False
    verdict: str | None = None


class Taken(msgspec.Struct, frozen=True, array_like=True):
    """A leaf, and the rows that were taken of it."""

    index: int
    leaf: bytes
    keyid: str
    name: str
    """The exchange or the derivation."""
    derived: bool
    given: Given | None
    rows: tuple[TakenRow, ...]


class Reach(msgspec.Struct, frozen=True, array_like=True):
    """What reached a row, each by its number."""

    kinds: tuple[int, ...]
    makers: tuple[int, ...] = ()
    authors: tuple[int, ...] = ()


class Reaches:
    """What reached rows: kinds of calls, transforms, authors; and every mix of them, once."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._groups: dict[Group, int] = {}
        self._answers: dict[tuple[Shared, Influence], int] = {}
        self.kinds: dict[Kind, int] = {}
        self.makers: dict[Maker, int] = {}
        self.authors: dict[Author, int] = {}
        self.mixes: dict[Reach, int] = {}

    def of_answer(self, receipt: Receipt) -> tuple[int, Given]:
        """Return what reached the rows of a plain answer, and what it adds."""
        kind = self._kind(self._gate.group(receipt))
        return self._number(Reach((kind,))), _given(kind, receipt)

    def of_derived(self, derivation: Derivation, above: Sequence[Above]) -> int:
        """Return what reached a row of *derivation*."""
        makers, authors, kinds = set(), set(), set()
        made = [derivation]
        for one in above:
            if one.answer is not None:
                kinds.add(self._kind_of_answer(one, one.answer))
                continue
            statement = one.statement
            if isinstance(statement, Derivation):
                made.append(statement)
            elif (group := self._gate.group_above(one)) is not None:
                kinds.add(self._kind(group))
        for step in made:
            said, written = step.transform, step.written
            maker = (said.name, said.version, said.kind)
            makers.add(self.makers.setdefault(maker, len(self.makers)))
            if written is not None:
                author = (written.by, written.licence, written.source)
                authors.add(self.authors.setdefault(author, len(self.authors)))
        return self._number(
            Reach(tuple(sorted(kinds)), tuple(sorted(makers)), tuple(sorted(authors)))
        )

    def given_above(self, above: Above) -> Given | None:
        """Return what an ancestor adds to its kind of call; a derivation adds nothing."""
        group = self._gate.group_above(above)
        if group is None:
            return None
        kind = self._kind(group)
        if isinstance(above.statement, Receipt):
            return _given(kind, above.statement)
        return Given(kind, None)

    def _kind_of_answer(self, above: Above, facts: Facts) -> int:
        """Return the kind of an answer above rows; of each kind one is read whole."""
        key = (facts.shared, above.influence)
        known = self._answers.get(key)
        if known is None:
            group = self._gate.group_above(above)
            if group is None:
                raise LedgerDamagedError(f"leaf {above.index}: it is no answer")
            if len(self._answers) >= KINDS_REMEMBERED_MAX:
                self._answers.clear()
            known = self._answers[key] = self._kind(group)
        return known

    def _kind(self, group: Group) -> int:
        known = self._groups.get(group)
        if known is None:
            kind = kind_of(group.call, group.manifest, group.influence)
            known = self._groups[group] = self.kinds.setdefault(kind, len(self.kinds))
        return known

    def _number(self, reach: Reach) -> int:
        return self.mixes.setdefault(reach, len(self.mixes))


class Choosing(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows of a derivation are wanted."""

    kind: RowKind = "messages"
    judged: bool = False
    verdict: str | None = None

    def refuses(self, row: DerivedRow) -> LeftOut | None:
        """Tell why a row of that kind is not wanted for its verdict, or `None`."""
        if self.judged and row.verdict is None:
            return LeftOut("no-verdict")
        if self.verdict is not None and row.verdict != self.verdict:
            return LeftOut("no-verdict", f"judged `{row.verdict}`" if row.verdict else "")
        return None


TellLeftOut = Callable[[Receipt | Derivation, int | None, LeftOut], None]
"""Told of a candidate, or one choice of it, that was left out."""

Progress = Callable[[int, int], None]
"""Told how many candidates were looked at, and how many rows were taken."""


class Taker:
    """Takes what passes the gate."""

    def __init__(
        self,
        gate: Gate,
        covered: Covered,
        texts: Texts,
        signatures: Signatures,
        upward: Upward,
        choosing: Choosing,
        tell: TellLeftOut,
    ) -> None:
        self.reaches = Reaches(gate)
        self._gate = gate
        self._covered = covered
        self._texts = texts
        self._signatures = signatures
        self._upward = upward
        self._choosing = choosing
        self._tell = tell
        self._rows = 0

    def taken(
        self, candidates: Iterable[tuple[int, bytes]], progress: Progress
    ) -> Iterator[Taken]:
        """Yield what is taken of *candidates*, which come in the order of the ledger.

        Their signatures are checked meanwhile (`signed.py`).

        Raises:
            LedgerDamagedError: a leaf is not what the checkpoint covers, or is no candidate.
        """
        page: list[_Candidate] = []
        held, seen = 0, 0
        for index, leaf in candidates:
            if index >= self._covered.size:
                break
            seen += 1
            statement, keyid = self._covered.put_off(index, leaf, self._signatures)
            if keyid is None or not isinstance(statement, Receipt | Derivation):
                raise LedgerDamagedError(
                    f"leaf {index} should be a receipt or a derivation",
                    hint="rebuild the index",
                )
            page.append(self._candidate(index, leaf, keyid, statement))
            if isinstance(statement, Receipt):
                held += statement.request.bytes + statement.response_bytes
            else:
                held += sum(row.bytes for row in statement.rows)
            if len(page) >= CONTENTS_AT_ONCE or held >= CONTENT_BYTES_AT_ONCE:
                yield from self._taken(page)
                progress(seen, self._rows)
                page, held = [], 0
        yield from self._taken(page)
        progress(seen, self._rows)

    def _candidate(
        self, index: int, leaf: bytes, keyid: str, statement: Receipt | Derivation
    ) -> _Candidate:
        if isinstance(statement, Derivation):
            return _Candidate(index, leaf, keyid, statement)
        refused = self._gate.admit(statement)
        reached = None if refused is not None else self.reaches.of_answer(statement)
        return _Candidate(index, leaf, keyid, statement, refused, reached)

    def _taken(self, page: Sequence[_Candidate]) -> Iterator[Taken]:
        wanted = [_id_of(one.statement) for one in page if one.refused is None]
        kept = self._texts.get_many(wanted)
        for one in page:
            statement = one.statement
            if isinstance(statement, Receipt):
                rows = self._of_answer(statement, one, kept)
                given = None if one.reached is None else one.reached[1]
            else:
                rows, given = self._of_derivation(one.index, statement, kept), None
            if rows:
                self._rows += len(rows)
                yield Taken(
                    index=one.index,
                    leaf=one.leaf,
                    keyid=one.keyid,
                    name=_id_of(statement),
                    derived=given is None,
                    given=given,
                    rows=tuple(rows),
                )

    def _of_answer(
        self, receipt: Receipt, candidate: _Candidate, kept: Mapping[ExchangeId, Kept]
    ) -> list[TakenRow]:
        rows: list[TakenRow] = []
        if candidate.refused is not None or candidate.reached is None:
            self._tell(receipt, None, candidate.refused or LeftOut("not-for-training"))
            return rows
        text = kept.get(receipt.exchange)
        erased = text is None and self._texts.was_erased(receipt.exchange)
        for choice, outcome in self._gate.rows_of(receipt, text, erased=erased):
            if isinstance(outcome, LeftOut):
                self._tell(receipt, choice, outcome)
            else:
                rows.append(_row(outcome, candidate.reached[0]))
        return rows

    def _of_derivation(
        self, index: int, derivation: Derivation, kept: Mapping[ExchangeId, Kept]
    ) -> list[TakenRow]:
        text = kept.get(derivation.derivation)
        erased = text is None and self._texts.was_erased(derivation.derivation)
        rows: list[TakenRow] = []
        wanted = [
            place
            for place, made in enumerate(derivation.rows)
            if made.kind == self._choosing.kind
        ]
        self._upward.fetch(derivation, index, wanted)
        for some in self._admitted(index, derivation, wanted):
            for place, why, above in some:
                made = derivation.rows[place]
                outcome: Row | LeftOut = why or self._gate.derived_row(
                    derivation, place, text, erased=erased
                )
                if isinstance(outcome, LeftOut):
                    self._tell(derivation, place, outcome)
                    continue
                reach = self.reaches.of_derived(derivation, above)
                codes = tuple(above_code(one) for one in above)
                rows.append(_row(outcome, reach, codes, made.verdict))
        return rows

    def _admitted(
        self, index: int, derivation: Derivation, places: Sequence[int]
    ) -> Iterator[list[_Ruled]]:
        """Yield some rows of a derivation at a time, each with why it is left out, if it is."""
        ruled: list[_Ruled] = []
        names: set[ExchangeId] = set()
        held = 0
        for place in places:
            try:
                above = above_of(derivation, place, self._upward.find, index=index)
            except UnresolvedParentError as exc:
                ruled.append((place, LeftOut("parent-unresolved", exc.message), ()))
                continue
            made = derivation.rows[place]
            why = self._choosing.refuses(made) or self._gate.admit_row(derivation, place, above)
            ruled.append((place, why, above))
            if why is None:
                names.update(name for one in above if (name := _text_of(one)) is not None)
            held += len(above)
            if held >= _ABOVE_AT_ONCE:
                yield self._unerased(ruled, names)
                ruled, names, held = [], set(), 0
        yield self._unerased(ruled, names)

    def _unerased(self, ruled: list[_Ruled], names: set[ExchangeId]) -> list[_Ruled]:
        """Return *ruled*, and why of rows that were made from what was erased, of *names*."""
        erased = self._texts.erased_of(sorted(names))
        if not erased:
            return ruled
        return [
            (place, why or _erased_above(above, erased), above) for place, why, above in ruled
        ]


_Ruled = tuple[int, LeftOut | None, tuple[Above, ...]]
"""A row's place, why it is left out, and what stands above it."""


def _text_of(above: Above) -> ExchangeId | None:
    """Return the name under which an ancestor's text is kept, if it has any."""
    if above.answer is not None:
        return ExchangeId(above.answer.exchange)
    statement = above.statement
    return None if isinstance(statement, Manifest) else _id_of(statement)


def _erased_above(above: Sequence[Above], erased: set[ExchangeId]) -> LeftOut | None:
    """Tell whose text was erased among what a row was made from."""
    for one in above:
        name = _text_of(one)
        if name in erased:
            return LeftOut("parent-erased", name or "")
    return None


class _Candidate(msgspec.Struct, frozen=True):
    index: int
    leaf: bytes
    keyid: str
    statement: Receipt | Derivation
    refused: LeftOut | None = None
    reached: tuple[int, Given] | None = None
    """Of an answer that was admitted: what reached its rows, and what it adds."""


INFLUENCES: Final[tuple[Influence, Influence]] = ("text", "judge")


def above_code(above: Above) -> int:
    """Return an ancestor as one number: its leaf index, and below that how it reached."""
    return above.index << 1 | (above.influence == "judge")


def _id_of(statement: Receipt | Derivation) -> ExchangeId | DerivationId:
    return statement.exchange if isinstance(statement, Receipt) else statement.derivation


def _row(
    row: Row, reach: int, above: tuple[int, ...] = (), verdict: str | None = None
) -> TakenRow:
    return TakenRow(
        choice=row.choice,
        line=row.line,
        sha256=row.sha256,
        salt=row.salt,
        reach=reach,
        above=above,
        reasoned=row.reasoned,
        verdict=verdict,
    )


def _given(kind: int, receipt: Receipt) -> Given:
    usage = receipt.usage
    return Given(
        kind=kind,
        day=receipt.received[:10],
        declaration=receipt.declared.declaration,
        reported=receipt.model.reported,
        input_tokens=None if usage is None else usage.input_tokens,
        output_tokens=None if usage is None else usage.output_tokens,
    )
