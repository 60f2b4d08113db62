"""A pipeline at work for one declared use, and the steps that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, get_args

from gateway.clock import rfc3339
from gateway.dataset.derivation.parents import Records, Reference
from gateway.dataset.derivation.recording import Progress, Recording
from gateway.dataset.derivation.stated import (
    code_digest,
    label_of,
    malformed_transform,
    name_of,
    settings_digest,
    tags_of,
)
from gateway.dataset.derivation.step import Function, Step
from gateway.errors import GateRefusedError
from gateway.intent.model import Declaration
from gateway.intent.purpose import teaches
from gateway.receipt.model import ParentRole, Transform, TransformKind, Written

NOT_FOR_TRAINING: Final = "derive.not_for_training"
_TEXT_CHARS_MAX: Final = 256


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
        self.by = label_of(by, "who runs the pipeline")
        self.tags = tags_of(tags)
        self._recording = Recording(records, declaration, self.by, progress)

    @property
    def recorded(self) -> int:
        """Rows that are durable."""
        return self._recording.recorded

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._recording.end(kind, error, trace)

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
            raise malformed_transform(
                f"`{kind}` is no kind of transform",
                "rewrite, filter, judge, translate, extract or compose; what people wrote is"
                " recorded with `written`",
            )
        return Step(
            self._recording,
            Transform(
                name=name_of(name),
                version=label_of(version, "the version of a transform"),
                kind=kind,
                code=None if code is None else code_digest(code),
                settings=None if settings is None else settings_digest(settings),
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
            self._recording,
            Transform(
                name=name_of(name),
                version=label_of(version, "the version of a transform"),
                kind="written",
            ),
            Written(
                by=self.by if by is None else label_of(by, "who answers for written rows"),
                licence=label_of(licence, "the licence of written rows"),
                source=label_of(source, "the source of written rows", _TEXT_CHARS_MAX),
            ),
            (*self.tags, *tags_of(tags)),
        )

    def row(self, reference: Reference) -> dict[str, Any]:
        """Return the row that *reference* names: an answer's, or one that was recorded.

        Raises:
            GateRefusedError: it can't be resolved, or its text is gone or was never kept.
        """
        return self._recording.row(reference)


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
