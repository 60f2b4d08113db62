"""Record rows of a file that was written already: JSON lines, or Parquet.

Each line holds a row and names its parents in a column. Beside the file goes a list of the
references that its rows have from then on, `FILE.receipts.jsonl`; it grows batch by batch, so
that the same command, given again, goes on where it stopped and records nothing twice. After a
crash up to one batch may stand in the ledger that the list does not name yet, and is recorded
again; datasets take equal rows once.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import orjson

from gateway.canonical import canonical_json, digest_of
from gateway.dataset.derivation.handed import no_number, plain_row
from gateway.dataset.derivation.parents import ParentRef, check_no_parents, parents_named
from gateway.dataset.derivation.recording import BatchErasedError
from gateway.dataset.derivation.step import Step
from gateway.errors import GateRefusedError, MissingPieceError
from gateway.ident import Sha256
from gateway.limits import DERIVED_TEXT_BYTES_MAX, FINDINGS_LISTED_MAX

FILE_MALFORMED: Final = "derive.file_malformed"
_LINE_BYTES_MAX: Final = 2 * DERIVED_TEXT_BYTES_MAX
_ROWS_AT_ONCE: Final = 256
_TOLD_EVERY: Final = 64


class ReferenceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list: which row of the file has which reference."""

    line: int
    """Of the file, from 1; of a table the row."""
    receipt: str
    sha256: Sha256
    """Over what was recorded, of what and by which transform; another is recorded anew."""


@dataclass(slots=True, kw_only=True)
class Filed:
    """What came of a file."""

    references: Path
    recorded: int = 0
    known: int = 0
    """Rows that were recorded before."""
    refused: dict[str, int] = field(default_factory=dict)
    """How many were refused, by code."""
    listed: list[tuple[int, GateRefusedError]] = field(default_factory=list)
    """The first of them, with their lines."""

    def refuse(self, line: int, error: GateRefusedError) -> None:
        """Count a row that was refused."""
        self.refused[error.problem] = self.refused.get(error.problem, 0) + 1
        if len(self.listed) < FINDINGS_LISTED_MAX:
            self.listed.append((line, error))


def references_of(path: Path) -> Path:
    """Return where the references of the rows of *path* stand."""
    return path.with_name(f"{path.name}.receipts.jsonl")


def record_file(
    step: Step,
    path: Path,
    *,
    column: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Filed:
    """Record the rows of *path* that are not recorded yet; a row that is refused is left out.

    Rows that people wrote name no parents: one that does is refused. What stands in `verdict`
    is stated with a row.

    Raises:
        BatchErasedError: text that rows were made of was erased meanwhile.
        GateRefusedError: `derive.file_malformed`, the file or its list can't be read;
            `derive.busy`, another process records it.
        MissingPieceError: it is a table, and pyarrow is not installed.
        LedgerUnwellError: what was recorded before stands, and the list names it.
    """
    if not path.is_file():
        raise GateRefusedError(
            f"there is no file {path}", hint="name a file of rows", code=FILE_MALFORMED
        )
    filed = Filed(references=references_of(path))
    with _references(filed.references) as references, step:
        waiting: list[tuple[int, str, Sha256]] = []
        told = step.recorded
        for number, row in _rows_of(path):
            if isinstance(row, GateRefusedError):
                filed.refuse(number, row)
                continue
            try:
                plain = plain_row(row)
                if step.author is None:
                    parents = parents_named(row, column)
                else:
                    check_no_parents(row, column)
                    parents = []
                digest = _digest(step, plain, parents, row.get("verdict"))
                if references.known.get(number) == digest:
                    filed.known += 1
                    continue
                made = step.row(plain, parents, verdict=row.get("verdict"))
                waiting.append((number, made, digest))
            except BatchErasedError:
                # A whole batch is gone, and with it what its rows would have been called.
                raise
            except GateRefusedError as refused:
                filed.refuse(number, refused)
            told += references.add(waiting, step.recorded - told)
            if progress is not None and number % _TOLD_EVERY == 0:
                progress(number)
        step.flush()
        references.add(waiting, step.recorded - told)
        filed.recorded = step.recorded
    return filed


class _References:
    """The list beside a file, held open and locked."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self.known: dict[int, Sha256] = {}

    def read(self) -> None:
        """Take in what stands there; the end of a line that a crash cut off is taken away."""
        whole = 0
        for number, line in enumerate(iter(self._file.readline, b""), 1):
            if not line.endswith(b"\n"):
                break
            try:
                said = _DECODER.decode(line)
            except msgspec.MsgspecError as exc:
                raise GateRefusedError(
                    f"{self._path}: line {number}: {exc}",
                    hint="`gateway dataset derive` writes it; move it away to begin anew",
                    code=FILE_MALFORMED,
                ) from exc
            self.known[said.line] = said.sha256
            whole = self._file.tell()
        self._file.truncate(whole)
        self._file.seek(whole)

    def add(self, waiting: list[tuple[int, str, Sha256]], durable: int) -> int:
        """Write down the first *durable* of *waiting*; return how many those were."""
        if durable:
            for line, receipt, digest in waiting[:durable]:
                said = ReferenceLine(line=line, receipt=receipt, sha256=digest)
                self._file.write(canonical_json(msgspec.to_builtins(said)) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            del waiting[:durable]
        return durable


@contextlib.contextmanager
def _references(path: Path) -> Iterator[_References]:
    try:
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.seek(0)
            references = _References(path, file)
            references.read()
            yield references
    except BlockingIOError as exc:
        raise GateRefusedError(
            f"another process records `{path.name}`", hint="wait for it", code="derive.busy"
        ) from exc
    except OSError as exc:
        raise GateRefusedError(
            f"{path}: {exc.strerror}",
            hint="the references go beside the file; make room there",
            code=FILE_MALFORMED,
        ) from exc


def _digest(
    step: Step, row: Mapping[str, Any], parents: list[ParentRef], verdict: object
) -> Sha256:
    """Return what a row of this file is told from another by."""
    try:
        return digest_of(
            {
                "declaration": step.recording.declaration.id,
                "parents": [[one.reference, one.role] for one in parents],
                "row": row,
                "transform": msgspec.to_builtins(step.transform),
                "verdict": verdict,
                "written": msgspec.to_builtins(step.author),
            }
        )
    except (TypeError, ValueError) as exc:
        raise GateRefusedError(
            f"the row has no form as JSON: {exc}", code="derive.row_malformed"
        ) from exc


def _rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any] | GateRefusedError]]:
    """Yield each row with its number, from 1, or why the line holds none."""
    try:
        if path.suffix == ".parquet":
            yield from _table_rows(path)
            return
        with path.open("rb") as file:
            for number in range(1, 1 << 62):
                line = file.readline(_LINE_BYTES_MAX)
                if not line:
                    return
                if line.strip():
                    yield number, _row(line)
    except OSError as exc:
        raise GateRefusedError(
            f"{path}: {exc.strerror or exc}", hint="name a file of rows", code=FILE_MALFORMED
        ) from exc


def _row(line: bytes) -> dict[str, Any] | GateRefusedError:
    try:
        row = orjson.loads(line)
    except ValueError as exc:
        if _holds_no_number(line):
            return no_number()
        return GateRefusedError(f"not JSON: {exc}", code="derive.row_malformed")
    if not isinstance(row, dict):
        return GateRefusedError("not an object", code="derive.row_malformed")
    return row


def _holds_no_number(line: bytes) -> bool:
    """Tell whether all that keeps *line* from being JSON is NaN or Infinity in it."""
    found: list[str] = []
    try:
        json.loads(line, parse_constant=found.append)
    except (ValueError, RecursionError):
        return False
    return bool(found)


def _table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        # Loading it takes as long as many a command; only tables need it.
        import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as exc:
        raise MissingPieceError(
            "Parquet needs pyarrow, which is not installed",
            hint="pip install 'tos-gateway[parquet]', or write JSON lines",
        ) from exc
    number = 0
    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pa.ArrowException as exc:
        raise GateRefusedError(
            f"{path}: {exc}", hint="it is not a whole Parquet file", code=FILE_MALFORMED
        ) from exc


_DECODER: Final = msgspec.json.Decoder(ReferenceLine)
