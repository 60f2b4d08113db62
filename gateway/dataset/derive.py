"""Record what a pipeline makes of outputs: each row with its parents, signed, in the ledger.

A pipeline that calls models through the gateway has a receipt for every answer. What it makes
of the answers (rewritten, filtered, judged, translated, extracted, composed) it records here:
so every row can still be traced to the answers it was made from, and the gate rules over all of
them. `gateway.app.pipeline.open_pipeline` opens a pipeline on an installation:

    with open_pipeline(declaration="use-…", by="ada") as pipeline:
        with pipeline.transform("clean", version="1", kind="rewrite", code=clean) as step:
            step.row({"messages": […]}, parents=["x-…/0"])

A parent is named by a reference, as text: `x-…` or `x-…/1` (a choice of an exchange), `d-…/3`
(a row that was recorded before) or the SHA-256 of a student's training manifest (a student that
the pipeline itself runs). A parent that can't be resolved is refused, and so is one that was
withdrawn or erased, or that belongs to another project.

Rows are recorded in batches. Of each the texts are durable first, then the leaf that commits
to them; what is interrupted leaves whole batches and nothing of the next one. A pipeline
belongs to one thread; any number of them may record while a gateway serves.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, get_args

import msgspec

from gateway.canonical import canonical_json, salted_sha256, sha256_hex
from gateway.clock import rfc3339
from gateway.dataset.derivation.handed import (
    kind_of,
    line_of,
    malformed,
    pair_of,
    plain_row,
    read_line,
)
from gateway.dataset.derivation.parents import (
    PARENT_MISSING,
    ParentRef,
    Parents,
    Records,
    Reference,
    Resolved,
    parent,
    parents_named,
    ref_of,
)
from gateway.errors import GateRefusedError
from gateway.ident import (
    DerivationId,
    Sha256,
    new_derivation_id,
    random_bytes,
)
from gateway.intent.model import NAME, Declaration
from gateway.intent.purpose import teaches
from gateway.limits import (
    DERIVATION_BYTES_MAX,
    DERIVED_TEXT_BYTES_MAX,
    PARENTS_PER_ROW_MAX,
    ROWS_PER_DERIVATION_MAX,
    TAGS_MAX,
)
from gateway.receipt.model import (
    Caller,
    Commitment,
    Declared,
    Derivation,
    DerivedRow,
    Parent,
    ParentRole,
    RowKind,
    Transform,
    TransformKind,
    Written,
)
from gateway.receipt.statement import write_statement
from gateway.store.content import Content

__all__ = ["ParentRef", "Pipeline", "Records", "Step", "code_digest", "map", "parent"]

Progress = Callable[[str, int, int | None], None]
"""Called with what is done, how many rows are through, and how many there are, if known."""

ROW_CHANGED: Final = "derive.row_changed"
TRANSFORM_MALFORMED: Final = "derive.transform_malformed"
NOT_FOR_TRAINING: Final = "derive.not_for_training"
JUDGE_ANSWERED: Final = "derive.judge_answered"
ENDED: Final = "derive.ended"

SALT_BYTES: Final = 16
_KEEPS: Final = frozenset({"filter", "judge"})
"""Transforms that change no row: what is kept, or judged, is the parent's row to the byte."""

_JUDGEMENT_CHARS: Final = 40
"""A shorter answer of a judge may stand in a row by chance."""

_LABEL_CHARS_MAX: Final = 64
_TEXT_CHARS_MAX: Final = 256
_OVERHEAD_BYTES: Final = 2_048
"""What a derivation says beside rows and parents, at most."""

Function = Callable[[dict[str, Any]], Any]


class BatchErasedError(GateRefusedError):
    """Text that rows were made of was erased while they were recorded: none of them counts."""

    code = "derive.batch_erased"


class Pipeline:
    """A pipeline at work for one declared use; made by `gateway.app.pipeline.open_pipeline`.

    Within `with`, what its steps still hold is recorded at the end, or dropped after an error;
    nothing is recorded after that.

    Raises:
        GateRefusedError: nothing that is recorded for the declaration could ever be learned
            from: its purpose does not teach, it was withdrawn, or its last day is over.
    """

    def __init__(
        self,
        records: Records,
        declaration: Declaration,
        by: str,
        *,
        tags: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        if not teaches(declaration.use.purpose):
            raise GateRefusedError(
                f"{declaration.id} is for `{declaration.use.purpose}`, which teaches nothing",
                hint="record rows for a declaration to train, verify or rewrite data",
                code=NOT_FOR_TRAINING,
            )
        if records.words.withdrawn(declaration.id) is not None:
            raise GateRefusedError(
                f"{declaration.id} was withdrawn", code="declaration.withdrawn"
            )
        today = rfc3339(records.clock.now_ms())[:10]
        if declaration.expires is not None and declaration.expires < today:
            raise GateRefusedError(
                f"the last day of {declaration.id} was {declaration.expires}",
                hint="declare the use anew",
                code="declaration.expired",
            )
        self.declaration = declaration
        self.by = _label(by, "who runs the pipeline")
        self.tags = tags_of(tags)
        self.recorded = 0
        """Rows that are durable."""
        self._records = records
        self._progress = progress
        # OWNED BY: the steps; whose batch is not recorded yet, by the id it will have.
        self._open: dict[str, Step] = {}
        self._ended = False
        self.parents = Parents(records, declaration.project, self._settle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for step in list(self._open.values()):
                step.__exit__(kind, error, trace)
        finally:
            self._ended = True

    def transform(
        self,
        name: str,
        *,
        version: str,
        kind: TransformKind,
        code: Callable[..., Any] | Path | str | None = None,
        settings: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
    ) -> Step:
        """Return a step that records rows made by this transform; use it with `with`.

        *code* is the function that does it, or the path of its source: its SHA-256 is stated.
        *settings* is what it is called with (a model's name, a prompt, a threshold): of these,
        too, the digest alone is stated. A new version of the code deserves a new *version*.

        Raises:
            GateRefusedError: `derive.transform_malformed`.
        """
        if kind not in get_args(TransformKind) or kind == "written":
            raise _malformed(
                f"`{kind}` is no kind of transform",
                "rewrite, filter, judge, translate, extract or compose; what people wrote is"
                " recorded with `written`",
            )
        return Step(
            self,
            Transform(
                name=_name(name),
                version=_label(version, "the version of a transform"),
                kind=kind,
                code=None if code is None else code_digest(code),
                settings=None if settings is None else _settings_digest(settings),
            ),
            None,
            (*self.tags, *tags_of(tags)),
        )

    def written(
        self,
        *,
        licence: str,
        source: str,
        by: str | None = None,
        name: str = "written",
        version: str = "1",
        tags: Sequence[str] = (),
    ) -> Step:
        """Return a step that records rows which people wrote, or which come from outside.

        They have no parents; *by* (who runs the pipeline, if nobody else is named) answers for
        their *licence* (an SPDX name like `cc-by-4.0`) and their *source*: who wrote them, or
        where they were found.
        """
        return Step(
            self,
            Transform(
                name=_name(name),
                version=_label(version, "the version of a transform"),
                kind="written",
            ),
            Written(
                by=self.by if by is None else _label(by, "who answers for written rows"),
                licence=_label(licence, "the licence of written rows"),
                source=_label(source, "the source of written rows", _TEXT_CHARS_MAX),
            ),
            (*self.tags, *tags_of(tags)),
        )

    def row(self, reference: Reference) -> dict[str, Any]:
        """Return the row that *reference* names: an answer's, or one that was recorded.

        Raises:
            GateRefusedError: it can't be resolved, or its text is gone or was never kept.
        """
        self.check_open()
        return read_line(self.parents.line(self.parents.resolve(ref_of(reference))))

    def check_open(self) -> None:
        """Raise `derive.ended` once the block of the pipeline is over."""
        if self._ended:
            raise GateRefusedError(
                "the pipeline has ended, and its ledger is closed",
                hint="record rows within `with open_pipeline(...)`",
                code=ENDED,
            )

    def tell(self, doing: str, done: int, total: int | None) -> None:
        """Tell whoever watches how far a long piece of work is."""
        if self._progress is not None:
            self._progress(doing, done, total)

    def _settle(self, named: str) -> None:
        """Record the batch of that id, if it waits: something is made of it already."""
        waiting = self._open.get(named)
        if waiting is not None:
            waiting.flush()

    # -- recording ------------------------------------------------------------------------

    def _record(self, batch: _Batch, step: Step) -> None:
        """Make *batch* durable: its text, then its leaf.

        Raises:
            LedgerUnwellError: it was not recorded; nothing of it counts.
        """
        records = self._records
        content = Content(request=b"", salt=batch.salt, rows=dict(enumerate(batch.lines)))
        leaf = write_statement(batch.statement(self, step), (), records.signer())
        # First the text, then the leaf that commits to it: a crash between the two leaves text
        # that no leaf names, which nothing ever reads.
        records.texts.put_many([(batch.id, content)])
        records.append(leaf)
        self._check_nothing_went(batch)

    def _check_nothing_went(self, batch: _Batch) -> None:
        """Erase what was just recorded where text that it was made of was erased meanwhile.

        An erasure looks through the derivations after it has erased: one that it did not see
        yet is recorded after, and so finds here that the text is gone.
        """
        self.parents.forget()
        gone = self.parents.gone(sorted(batch.parents, key=_by_text))
        if gone is not None:
            self._records.texts.erase_all([batch.id])
            raise BatchErasedError(
                f"`{gone}` was erased while rows were made of it; theirs are erased, too",
                hint="run it again: rows that are made of something else are recorded then",
            )


class _Batch:
    """Rows that will be one leaf, as they come."""

    def __init__(self, now_ms: int) -> None:
        self.id: DerivationId = new_derivation_id(now_ms)
        self.salt = random_bytes(SALT_BYTES)
        self.lines: list[bytes] = []
        self.rows: list[DerivedRow] = []
        self.parents: dict[Parent, int] = {}
        self.bytes = _OVERHEAD_BYTES
        self.text_bytes = 0

    def takes(self, row: DerivedRow, line: bytes, parents: Sequence[Parent]) -> bool:
        """Tell whether there is room for one row more."""
        if not self.rows:
            return True
        return (
            len(self.rows) < ROWS_PER_DERIVATION_MAX
            and self.text_bytes + len(line) <= DERIVED_TEXT_BYTES_MAX
            and self.bytes + self._size(row, parents) <= DERIVATION_BYTES_MAX
        )

    def add(self, row: DerivedRow, line: bytes, parents: Sequence[Parent]) -> int:
        """Take a row in; return its place."""
        self.bytes += self._size(row, parents)
        self.text_bytes += len(line)
        places = tuple(self.parents.setdefault(one, len(self.parents)) for one in parents)
        salted = Commitment(alg="sha256-salted", value=salted_sha256(self.salt, line))
        self.rows.append(msgspec.structs.replace(row, row=salted, parents=places))
        self.lines.append(line)
        return len(self.rows) - 1

    def statement(self, pipeline: Pipeline, step: Step) -> Derivation:
        """Return what is stated of it."""
        records = pipeline._records  # noqa: SLF001  of the same room
        return Derivation(
            derivation=self.id,
            caller=Caller(principal=pipeline.by, project=pipeline.declaration.project),
            declared=Declared(
                use=pipeline.declaration.use, declaration=pipeline.declaration.id
            ),
            transform=step.transform,
            written=step.author,
            parents=tuple(self.parents),
            rows=tuple(self.rows),
            tags=step.tags,
            at=rfc3339(records.clock.now_ms()),
            writer=records.writer,
        )

    def _size(self, row: DerivedRow, parents: Sequence[Parent]) -> int:
        new = sum(_length(one) + 1 for one in parents if one not in self.parents)
        return _length(row) + 1 + 5 * len(parents) + new


class Step:
    """One transform at work: rows go in, references come out; made by a `Pipeline`.

    Within `with`, what is left is recorded at the end. Where an exception ends it, whole
    batches stand, the last one that was not full is dropped, and a note on the exception says
    how many rows are recorded and how many are not.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        transform: Transform,
        author: Written | None,
        tags: tuple[str, ...],
    ) -> None:
        self.pipeline = pipeline
        self._parents = pipeline.parents
        self.transform = transform
        self.author = author
        self.tags = tags_of(tags)
        self.recorded = 0
        """Rows that are durable; references of later ones may still come to nothing."""
        self._batch: _Batch | None = None

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
        self.pipeline.check_open()
        kind, line = line_of(row)
        named = tuple(dict.fromkeys(_refs(parents)))
        return self._take(kind, line, named, verdict)

    def keep(self, of: Reference) -> str:
        """Record the row of a parent as it is: what a filter lets through."""
        self.pipeline.check_open()
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
        self.pipeline.check_open()
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
        pair = pair_of(self.pipeline.row(better), self.pipeline.row(worse))
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
            self.pipeline.tell(self.transform.name, number + 1, total)
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
        self.pipeline._record(batch, self)  # noqa: SLF001  of the same room
        self.recorded += len(batch.rows)
        self.pipeline.recorded += len(batch.rows)

    def drop(self) -> int:
        """Forget what waits; return how many rows that were."""
        lost = self.pending
        if self._batch is not None:
            del self.pipeline._open[self._batch.id]  # noqa: SLF001  of the same room
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
                        raise _malformed(
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
        pipeline = self.pipeline
        if len(named) > PARENTS_PER_ROW_MAX:
            raise _malformed(
                f"a row has {len(named)} parents, {PARENTS_PER_ROW_MAX} at most",
                "gather them in steps",
            )
        self._check_parents_named(named)
        resolved = [(ref, self._parents.resolve(ref)) for ref in named]
        if kind == "preference" and self.author is None:
            self._check_sides(resolved)
        if self.transform.kind in _KEEPS:
            self._check_kept(line, resolved)
        else:
            self._check_judges(line, resolved)
        row = DerivedRow(
            kind=kind,
            row=_NO_COMMITMENT,
            bytes=len(line),
            verdict=None if verdict is None else _verdict(verdict),
        )
        parents = [one.as_parent(ref.role) for ref, one in resolved]
        if self._batch is not None and not self._batch.takes(row, line, parents):
            self.flush()
        if self._batch is None:
            self._batch = _Batch(pipeline._records.clock.now_ms())  # noqa: SLF001  same room
            pipeline._open[self._batch.id] = self  # noqa: SLF001  of the same room
        return f"{self._batch.id}/{self._batch.add(row, line, parents)}"

    def _check_parents_named(self, named: tuple[ParentRef, ...]) -> None:
        roles = [ref.role for ref in named]
        if self.author is not None:
            if named:
                raise _malformed(
                    "a written row has no parents",
                    "what somebody changed in an output is recorded as a rewrite of it",
                )
            return
        if all(role == "judge" for role in roles):
            raise GateRefusedError(
                "a row was made of something, and no parent says of what",
                hint="name its parents; what people wrote is recorded as written",
                code=PARENT_MISSING,
            )

    def _check_sides(self, resolved: list[tuple[ParentRef, Resolved]]) -> None:
        """Raise unless a pair is made of a pair, or of both its sides."""
        if any(ref.role == "source" and one.is_pair for ref, one in resolved):
            return
        for side in ("chosen", "rejected"):
            if all(ref.role != side for ref, _ in resolved):
                raise GateRefusedError(
                    f"a pair has no parent in the role `{side}`",
                    hint="both sides of a pair have a receipt, or it is made of such a pair",
                    code=PARENT_MISSING,
                )

    def _check_kept(self, line: bytes, resolved: list[tuple[ParentRef, Resolved]]) -> None:
        """Raise where a filter or a judge changed the row that it was to keep."""
        by_role: dict[str, list[Resolved]] = {}
        for ref, one in resolved:
            by_role.setdefault(ref.role, []).append(one)
        read = self._parents.line
        match sorted(by_role.keys() - {"judge"}), by_role:
            case ["source"], {"source": [one]}:
                same = line == read(one)
            case ["chosen", "rejected"], {"chosen": [better], "rejected": [worse]}:
                pair = pair_of(read_line(read(better)), read_line(read(worse)))
                same = line == canonical_json(pair)
            case _:
                raise _malformed(
                    f"a {self.transform.kind} keeps the row of exactly one parent",
                    "name one source, or one chosen and one rejected",
                )
        if not same:
            raise GateRefusedError(
                f"a {self.transform.kind} keeps a row as it is, and this one was changed",
                hint="record a change as a rewrite, an extraction or a translation",
                code=ROW_CHANGED,
            )

    def _check_judges(self, line: bytes, resolved: list[tuple[ParentRef, Resolved]]) -> None:
        """Raise where a judge's own answer stands in a row: then it was more than a judge.

        What a judge repeats of a source is the source's.
        """
        judges = [one for ref, one in resolved if ref.role == "judge"]
        if not judges:
            return
        read = self._parents.kept_line
        words = "\n".join(_said_in(line))
        others = "\n".join(
            text for ref, one in resolved if ref.role != "judge" for text in _said_in(read(one))
        )
        for one in judges:
            answer = next(reversed(_said_in(read(one))), "").strip()
            if len(answer) >= _JUDGEMENT_CHARS and answer in words and answer not in others:
                raise GateRefusedError(
                    f"the answer of judge `{one.id}/{one.choice}` stands in the row",
                    hint="whose words a row holds is its source or its rewriter",
                    code=JUDGE_ANSWERED,
                )


def map(  # noqa: A001 — the name that `datasets` has for it
    pipeline: Pipeline,
    rows: Iterable[Mapping[str, Any]],
    function: Function,
    *,
    name: str,
    version: str,
    kind: TransformKind,
    settings: Mapping[str, Any] | None = None,
    column: str | None = None,
    role: ParentRole = "source",
    tags: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Record a whole transform: `Step.map` in a step of its own, *function* being its code."""
    with pipeline.transform(
        name, version=version, kind=kind, code=function, settings=settings, tags=tags
    ) as step:
        yield from step.map(rows, function, column=column, role=role)


def code_digest(code: Callable[..., Any] | Path | str) -> Sha256 | None:
    """Return the SHA-256 of a function's source, or of a file; `None` where there is none.

    Raises:
        GateRefusedError: `derive.transform_malformed`, the file can't be read.
    """
    if isinstance(code, Path | str):
        try:
            with Path(code).open("rb") as file:
                return Sha256(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as exc:
            raise _malformed(f"{code}: {exc.strerror}", "name the file of the code") from exc
    while isinstance(code, functools.partial):
        code = code.func
    try:
        return sha256_hex(inspect.getsource(code).encode())
    except (OSError, TypeError):
        # Typed in at a prompt, or compiled: nobody has its source.
        return None


def tags_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return *names* as tags, each once.

    Raises:
        GateRefusedError: `derive.transform_malformed`, one is no name, or they are too many.
    """
    tags = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    for one in tags:
        if not NAME.fullmatch(one):
            raise _malformed(f"`{one[:40]}` is no name for a tag", "like nightly or batch-7")
    if len(tags) > TAGS_MAX:
        raise _malformed(f"{len(tags)} tags are too many", f"{TAGS_MAX} at most")
    return tags


_NO_COMMITMENT: Final = Commitment(alg="sha256-salted", value=Sha256("0" * 64))
"""Takes the place of a row's commitment until its batch gives it a salt."""


def _length(part: msgspec.Struct) -> int:
    return len(msgspec.json.encode(part))


def _by_text(one: Parent) -> str:
    return one.exchange or one.derivation or ""


def _said_in(line: bytes) -> list[str]:
    """Return the texts that the messages of a row say, in order."""
    row = read_line(line) if line else {}
    lists = [row.get(name) for name in ("prompt", "chosen", "rejected", "messages")]
    said = [one.get("content") for some in lists for one in some or () if some]
    texts: list[str] = []
    for content in said:
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            texts += [str(part.get("text", "")) for part in content if isinstance(part, dict)]
    return texts


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


def _verdict(found: str | float) -> str:
    """Return a verdict as it is stated: a word or a number.

    Raises:
        GateRefusedError: `derive.row_malformed`.
    """
    told = found if isinstance(found, str) else _number(found)
    if not told or len(told) > _LABEL_CHARS_MAX or not told.isprintable():
        raise malformed("a verdict is a word or a number", "like good, yes or 0.87")
    return told


def _number(found: object) -> str:
    if isinstance(found, bool):
        return "yes" if found else "no"
    return repr(found) if isinstance(found, int | float) else ""


def _settings_digest(settings: object) -> Sha256:
    if not isinstance(settings, Mapping):
        raise _malformed(f"settings are a {type(settings).__name__}", "a dict of names")
    try:
        return sha256_hex(canonical_json(dict(settings)))
    except (TypeError, ValueError) as exc:
        raise _malformed(f"the settings have no form as JSON: {exc}", "names, numbers") from exc


def _name(text: object) -> str:
    if not isinstance(text, str) or not NAME.fullmatch(text):
        raise _malformed(
            f"`{str(text)[:40]}` is no name for a transform",
            "small letters, digits, `.`, `_` and `-`, at most 64",
        )
    return text


def _label(text: object, what: str, chars_max: int = _LABEL_CHARS_MAX) -> str:
    said = text.strip() if isinstance(text, str) else ""
    if not said or len(said) > chars_max or not said.isprintable():
        raise _malformed(f"nothing says {what}", f"in a line of at most {chars_max} characters")
    return said


def _malformed(message: str, hint: str) -> GateRefusedError:
    return GateRefusedError(message, hint=hint, code=TRANSFORM_MALFORMED)
