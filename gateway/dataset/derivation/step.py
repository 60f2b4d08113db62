"""A step of a pipeline: rows go in with their parents, references come out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from types import TracebackType
from typing import Any, Final, Self

from gateway.dataset.derivation.batch import NO_COMMITMENT, Batch
from gateway.dataset.derivation.handed import kind_of, line_of, pair_of, plain_row, read_line
from gateway.dataset.derivation.parents import ParentRef, Reference, parents_named, ref_of
from gateway.dataset.derivation.recording import BatchErasedError, Recording
from gateway.dataset.derivation.rules import (
    check_judges,
    check_kept,
    check_parents_named,
    check_sides,
)
from gateway.dataset.derivation.stated import malformed_transform, tags_of, verdict_of
from gateway.errors import GateRefusedError
from gateway.limits import PARENTS_PER_ROW_MAX
from gateway.receipt.model import DerivedRow, ParentRole, RowKind, Transform, Written

_KEEPS: Final = frozenset({"filter", "judge"})
"""Transforms that change no row: what is kept, or judged, is the parent's row to the byte."""

Function = Callable[[dict[str, Any]], Any]


class Step:
    """One transform at work: rows go in, references come out; made by a `Pipeline`.

    Within `with`, what is left is recorded at the end. Where an exception ends it, whole
    batches stand, the last one that was not full is dropped, and a note on the exception says
    how many rows are recorded and how many are not.
    """

    def __init__(
        self,
        recording: Recording,
        transform: Transform,
        author: Written | None,
        tags: tuple[str, ...],
    ) -> None:
        self.recording = recording
        self._parents = recording.parents
        self.transform = transform
        self.author = author
        self.tags = tags_of(tags)
        self.recorded = 0
        """Rows that are durable; references of later ones may still come to nothing."""
        self._batch: Batch | None = None

    @property
    def pending(self) -> int:
        """How many rows wait for their batch to be full."""
        return 0 if self._batch is None else len(self._batch.rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.flush()
            return
        lost = self.drop()
        error.add_note(
            f"{self.recorded} rows of `{self.transform.name}` are recorded"
            + (f", the last {lost} are not" if lost else "")
        )

    def row(
        self,
        row: Mapping[str, Any],
        parents: Iterable[Reference] | Reference = (),
        *,
        verdict: str | float | None = None,
    ) -> str:
        """Record *row*, made of *parents*; return its reference, `d-…/place`.

        A filter's or a judge's row is its parent's to the byte; see `keep`, `verdict`, `pair`.

        Raises:
            GateRefusedError: `derive.row_malformed`, `derive.row_changed`, or one of
                `derive.parent_…`; nothing of the row was recorded.
        """
        self.recording.check_open()
        kind, line = line_of(row)
        named = tuple(dict.fromkeys(_refs(parents)))
        return self._take(kind, line, named, verdict)

    def keep(self, of: Reference) -> str:
        """Record the row of a parent as it is: what a filter lets through."""
        self.recording.check_open()
        ref = ref_of(of)
        line = self._parents.line(self._parents.resolve(ref))
        return self._take(kind_of(read_line(line)), line, (ref,), None)

    def verdict(
        self, of: Reference, verdict: str | float, *, judge: Reference | None = None
    ) -> str:
        """Record the row of a parent as it is, with what was found of it.

        *judge* is the exchange in which a model judged it; a program or a person that judged
        is named by the transform.
        """
        self.recording.check_open()
        ref = ref_of(of)
        line = self._parents.line(self._parents.resolve(ref))
        named = (ref,) if judge is None else (ref, _as_judge(judge))
        return self._take(kind_of(read_line(line)), line, named, verdict)

    def pair(
        self,
        chosen: Reference,
        rejected: Reference,
        *,
        judge: Reference | None = None,
        verdict: str | float | None = None,
    ) -> str:
        """Record a pair of two answers to one prompt, the better one first.

        Both are rows of kind `messages`; the prompt is what they share.
        """
        better = ParentRef(ref_of(chosen).reference, "chosen")
        worse = ParentRef(ref_of(rejected).reference, "rejected")
        pair = pair_of(self.recording.row(better), self.recording.row(worse))
        named = [better, worse]
        if judge is not None:
            named.append(_as_judge(judge))
        return self.row(pair, named, verdict=verdict)

    def map(
        self,
        rows: Iterable[Mapping[str, Any]],
        function: Function,
        *,
        column: str | None = None,
        role: ParentRole = "source",
    ) -> Iterator[dict[str, Any]]:
        """Apply *function* to each of *rows* and record what it makes; yield what is recorded.

        *rows* is any iterable of dicts, or a dataset of the `datasets` library. Their column
        `receipt` or `receipts` (or *column*) names the parents, which stand in *role*. What is
        yielded has its own reference there instead, and is durable.

        *function* gets a copy of the row and returns a row, a list of rows, or nothing. A made
        row may name more parents in `parents`: the exchange of the model that rewrote it, say,
        as `derive.parent(…, role="rewriter")`. Of a filter it returns whether the row stays;
        of a judge the verdict, or `{"verdict": …, "judge": "x-…"}`, or nothing to drop it.

        Raises:
            GateRefusedError: a row was refused; the message begins with its number.
        """
        total = len(rows) if isinstance(rows, Sized) else None
        waiting: list[dict[str, Any]] = []
        done = self.recorded
        for number, row in enumerate(rows):
            source = dict(row)
            try:
                parents = parents_named(source, column, role)
                for made, reference in self._made(source, parents, function):
                    waiting.append(made | {"receipt": reference})
                    # What it was made of is the reference's to tell from here on.
                    waiting[-1].pop("receipts", None)
            except BatchErasedError:
                raise
            except GateRefusedError as refused:
                raise GateRefusedError(
                    f"row {number}: {refused.message}",
                    hint=refused.hint,
                    code=refused.problem,
                ) from refused
            durable = self.recorded - done
            yield from waiting[:durable]
            del waiting[:durable]
            done += durable
            self.recording.tell(self.transform.name, number + 1, total)
        self.flush()
        yield from waiting

    def flush(self) -> None:
        """Record what waits, full batch or not.

        Raises:
            LedgerUnwellError: it could not be made durable; what waited is dropped.
        """
        batch = self._batch
        if batch is None or not batch.rows:
            return
        # Whatever becomes of it, it is not tried again: its leaf might stand there already.
        self.drop()
        self.recording.record(batch, self.transform, self.author, self.tags)
        self.recorded += len(batch.rows)

    def drop(self) -> int:
        """Forget what waits; return how many rows that were."""
        lost = self.pending
        if self._batch is not None:
            self.recording.leave(self._batch)
            self._batch = None
        return lost

    def _made(
        self, source: dict[str, Any], parents: list[ParentRef], function: Function
    ) -> Iterator[tuple[dict[str, Any], str]]:
        result = function(dict(source))
        match self.transform.kind:
            case "filter":
                if result:
                    yield source, self.row(plain_row(source), parents)
            case "judge":
                if result is None:
                    return
                said = result if isinstance(result, Mapping) else {"verdict": result}
                judges = _as_list(said.get("judge"))
                named = [
                    *parents,
                    *(ParentRef(ref_of(one).reference, "judge") for one in judges),
                ]
                verdict = said.get("verdict")
                made = self.row(plain_row(source), named, verdict=verdict)
                yield source | {"verdict": verdict}, made
            case _:
                for made_row in _as_list(result):
                    if not isinstance(made_row, Mapping):
                        raise malformed_transform(
                            f"the function made a {type(made_row).__name__}, which is no row",
                            "return a dict, a list of dicts, or None",
                        )
                    more = [ref_of(one) for one in _as_list(made_row.get("parents"))]
                    row = plain_row(made_row)
                    verdict = made_row.get("verdict")
                    yield row, self.row(row, [*parents, *more], verdict=verdict)

    def _take(
        self,
        kind: RowKind,
        line: bytes,
        named: tuple[ParentRef, ...],
        verdict: str | float | None,
    ) -> str:
        if len(named) > PARENTS_PER_ROW_MAX:
            raise malformed_transform(
                f"a row has {len(named)} parents, {PARENTS_PER_ROW_MAX} at most",
                "gather them in steps",
            )
        check_parents_named(named, self.author)
        resolved = [(ref, self._parents.resolve(ref)) for ref in named]
        if kind == "preference" and self.author is None:
            check_sides(resolved)
        if self.transform.kind in _KEEPS:
            check_kept(self.transform.kind, line, resolved, self._parents.line)
        else:
            check_judges(line, resolved, self._parents.kept_line)
        row = DerivedRow(
            kind=kind,
            row=NO_COMMITMENT,
            bytes=len(line),
            verdict=None if verdict is None else verdict_of(verdict),
        )
        parents = [one.as_parent(ref.role) for ref, one in resolved]
        if self._batch is not None and not self._batch.takes(row, line, parents):
            self.flush()
        if self._batch is None:
            self._batch = self.recording.begin(self)
        return f"{self._batch.id}/{self._batch.add(row, line, parents)}"


def _as_judge(reference: Reference) -> ParentRef:
    return ParentRef(ref_of(reference).reference, "judge")


def _refs(given: Any) -> Iterator[ParentRef]:
    """Yield the parents that a caller names: none, one, or several."""
    several = isinstance(given, Iterable) and not isinstance(given, str)
    yield from (ref_of(one) for one in (given if several else _as_list(given)))


def _as_list(value: Any) -> list[Any]:
    """Return *value* as a list: nothing, one thing, or several."""
    if value is None or value is False:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
