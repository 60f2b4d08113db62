"""Verify an export offline: a trust file is enough.

What is checked: the export's manifest, signed and in the log; that the folder holds what it
names and nothing else, byte for byte; the manifest of the dataset inside, signed and in the
log, and that it is the one the export was made from; that each row is the one its line in
`receipts.jsonl` speaks of, and that the dataset's row can be made again of each that says it
lost nothing. That the receipts cover the dataset's rows is what the dataset itself shows.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from gateway.canonical import canonical_json, sha256_hex
from gateway.dataset.export.forms import FORMS, Form
from gateway.dataset.export.manifest import (
    DATASET_MANIFEST_FILE,
    LOST,
    RECEIPTS,
    ExportManifest,
    Found,
    parse_export,
    statement_of,
)
from gateway.dataset.export.parquet import RECEIPT_COLUMNS, read_shard
from gateway.dataset.export.receipts import (
    RECEIPT_COLUMN,
    ReceiptLine,
    exported_sha256,
    joined_to,
    read_receipt_line,
)
from gateway.dataset.manifest import (
    DATASET_MANIFEST,
    MANIFEST,
    PROOF,
    DatasetManifest,
    parse_manifest,
)
from gateway.dataset.verification.logged import verify_logged
from gateway.errors import BadDigestError, EvidenceError, MalformedReceiptError
from gateway.ident import Sha256
from gateway.limits import MIB, ROW_BYTES_MAX
from gateway.receipt.keys import Trust

_AGAIN: Final = "take the export from its source again, or export the dataset again"

_REPORT_BYTES_MAX: Final = 1 * MIB
"""Some dozens of losses, each with some rows."""

Passed = Callable[[str, str], None]
"""Takes the name of a check that passed, and what it found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedExport:
    """An export of which everything was checked."""

    path: Path
    name: str
    rows: int
    manifest_sha256: Sha256
    """SHA-256 of the manifest's payload: the export's name in lineage."""
    manifest_index: int
    """Leaf index of the manifest."""
    manifest: ExportManifest
    statement: dict[str, Any]
    dataset: DatasetManifest
    """The manifest of the dataset that it was made from."""
    dataset_sha256: Sha256
    """SHA-256 of that manifest's payload."""


def verify_export(path: Path, trust: Trust, passed: Passed | None = None) -> VerifiedExport:
    """Check an export whole, reporting each check to *passed*.

    Raises:
        EvidenceError: something in it does not verify; the message names file and row.
        MissingPieceError: it is Parquet, and pyarrow is not installed.
    """
    logged = verify_logged(path, trust)
    manifest = parse_export(logged.statement)
    if canonical_json(statement_of(manifest)) != canonical_json(logged.statement):
        raise MalformedReceiptError(f"{MANIFEST}: it says more than an export manifest does")
    _check_files(path, manifest)
    dataset, dataset_sha256 = _dataset_of(path, manifest, trust)
    form = FORMS.get(manifest.asked.format)
    if form is None:
        raise MalformedReceiptError(f"{MANIFEST}: `{manifest.asked.format}` is no form")
    _check_rows(path, manifest, form)
    if passed is not None:
        passed("signature", f"export manifest {logged.payload_sha256}")
        passed("logged", f"the manifest is leaf {logged.index} of the log")
        passed("files", f"{len(manifest.subjects)} files as signed, nothing beside them")
        passed("dataset", f"of `{dataset.asked.dataset}`, manifest {dataset_sha256}")
        whole = manifest.found.rows - manifest.found.lossy
        passed("rows", f"{manifest.found.rows} rows, {whole} of them with nothing lost")
    return VerifiedExport(
        path=path,
        name=manifest.asked.name,
        rows=manifest.found.rows,
        manifest_sha256=logged.payload_sha256,
        manifest_index=logged.index,
        manifest=manifest,
        statement=logged.statement,
        dataset=dataset,
        dataset_sha256=dataset_sha256,
    )


def _check_files(path: Path, manifest: ExportManifest) -> None:
    """The folder holds what the manifest names, as plain files, and nothing else."""
    named, there = manifest.digests, set[str]()
    for entry in path.rglob("*"):
        name = entry.relative_to(path).as_posix()
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise BadDigestError(
                f"{name}: not a plain file",
                hint="an export is copied",
                code="dataset.file_added",
            )
        if entry.is_file():
            there.add(name)
    data = {file.name for file in manifest.found.files}
    for name in sorted({*named, *data, RECEIPTS, LOST, DATASET_MANIFEST_FILE}):
        if name not in there or name not in named:
            raise BadDigestError(
                f"{name}: the file is missing",
                hint="take the folder whole",
                code="dataset.file_missing",
            )
    for name in sorted(there - named.keys() - {MANIFEST, PROOF}):
        raise BadDigestError(
            f"{name}: the manifest names no such file",
            hint="nothing may be added to an export",
            code="dataset.file_added",
        )
    for name, sha256 in named.items():
        with (path / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise BadDigestError(
                    f"{name}: the file was changed after the manifest was signed",
                    hint=_AGAIN,
                    code="dataset.file_changed",
                )


def _dataset_of(
    path: Path, manifest: ExportManifest, trust: Trust
) -> tuple[DatasetManifest, Sha256]:
    """Return the manifest of the dataset inside, after checking that it is the one named."""
    folder = (path / DATASET_MANIFEST_FILE).parent
    try:
        logged = verify_logged(folder, trust)
    except EvidenceError as exc:
        raise type(exc)(
            f"{folder.name}/{exc.message}", hint=exc.hint, code=exc.problem
        ) from exc
    dataset, asked, found = parse_manifest(logged.statement), manifest.asked, manifest.found
    named = [
        dependency.digest.get("sha256")
        for dependency in manifest.dependencies
        if dependency.kind == DATASET_MANIFEST
    ]
    of = dataset.asked
    same = (
        named == [logged.payload_sha256],
        (asked.dataset, asked.project) == (of.dataset, of.project),
        (asked.declaration, asked.kind) == (of.declaration, of.kind),
        found.use == dataset.found.use,
        set(found.obligations) >= set(dataset.found.obligations),
    )
    if not all(same):
        raise BadDigestError(
            f"{DATASET_MANIFEST_FILE}: the export says that it is of another dataset",
            hint=_AGAIN,
            code="export.other_dataset",
        )
    return dataset, logged.payload_sha256


def _check_rows(path: Path, manifest: ExportManifest, form: Form) -> None:
    """Hold each row to its line of receipts, and the counts to what was counted."""
    found = manifest.found
    files = {
        part: _rows_of(path, manifest, form, part) for part in {f.split for f in found.files}
    }
    lost: Counter[str] = Counter()
    lossy, source, index = 0, -1, -1
    count = 0
    with _open(path, RECEIPTS) as receipts:
        for count, line in enumerate(_lines(receipts), start=1):
            number = count - 1
            said = read_receipt_line(line, number, RECEIPTS)
            if said.source <= source or said.index < index:
                raise MalformedReceiptError(f"{RECEIPTS}: row {number}: out of order")
            source, index = said.source, said.index
            rows = files.get(said.split or "train")
            row = None if rows is None else next(rows, None)
            if row is None:
                raise _row_changed(number, "its file ends before it does")
            _check_row(number, said, row, manifest, form)
            lost.update(said.lost)
            lossy += bool(said.lost)
    if any(next(rows, None) is not None for rows in files.values()):
        raise _row_changed(count, "it has no line of receipts")
    counted = (count, lossy, dict(lost))
    if counted != (found.rows, found.lossy, found.lost) or not _told(path, found):
        raise BadDigestError(
            f"{MANIFEST}: it counts other rows or losses than there are, or {LOST} does",
            hint=_AGAIN,
            code="export.miscounted",
        )


def _told(path: Path, found: Found) -> bool:
    """Tell whether `lost.json` counts what the manifest does."""
    with _open(path, LOST) as file:
        content = file.read(_REPORT_BYTES_MAX)
    try:
        report = msgspec.json.decode(content, type=_Report)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise MalformedReceiptError(f"{LOST}: can't be read: {exc}") from exc
    lost = {kind: one.rows for kind, one in report.lost.items()}
    left_out = {kind: one.rows for kind, one in report.left_out.items()}
    told = (report.rows, report.lossy, lost, left_out)
    return told == (found.rows, found.lossy, found.lost, found.left_out)


class _Loss(msgspec.Struct, frozen=True):
    rows: int


class _Report(msgspec.Struct, frozen=True, rename="camel"):
    rows: int
    lossy: int
    lost: dict[str, _Loss]
    left_out: dict[str, _Loss]


def _check_row(
    number: int, said: ReceiptLine, row: dict[str, Any], manifest: ExportManifest, form: Form
) -> None:
    if form.is_parquet or manifest.asked.receipt_column:
        told = joined_to(said)
        joined = RECEIPT_COLUMNS if form.is_parquet else (RECEIPT_COLUMN,)
        if any(row.pop(name, None) != told[name] for name in joined):
            raise _row_changed(number, "it names another receipt than its line of receipts")
    try:
        exported = exported_sha256(row)
    except TypeError as exc:
        raise _row_changed(number, f"it holds what no row holds: {exc}") from exc
    if exported != said.exported:
        raise _row_changed(number, "it is not the one that its line of receipts speaks of")
    if said.lost:
        return
    try:
        restored = sha256_hex(canonical_json(form.restore(row, manifest.asked.kind)))
    except (KeyError, TypeError, ValueError, AttributeError):
        restored = None
    if restored != said.sha256:
        raise _row_changed(
            number, "it says that nothing was lost, and is not the dataset's row"
        )


def _rows_of(
    path: Path, manifest: ExportManifest, form: Form, part: str
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a part, file by file.

    Raises:
        MalformedReceiptError: a file can't be read, or holds more or fewer rows than is said.
    """
    for file in manifest.found.files:
        if file.split != part:
            continue
        count = 0
        rows = read_shard(path / file.name) if form.is_parquet else _json(path, file.name)
        for row in rows:
            count += 1
            yield row
        if count != file.rows:
            raise MalformedReceiptError(
                f"{file.name}: {count} rows, where {MANIFEST} says {file.rows}"
            )


def _json(path: Path, name: str) -> Iterator[dict[str, Any]]:
    with _open(path, name) as file:
        for number, line in enumerate(_lines(file)):
            try:
                row = msgspec.json.decode(line)
                plain = isinstance(row, dict) and canonical_json(row) + b"\n" == line
            except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as exc:
                raise MalformedReceiptError(f"{name}: line {number + 1}: {exc}") from exc
            if not plain:
                raise MalformedReceiptError(
                    f"{name}: line {number + 1}: not a row, or not in the canonical form"
                )
            yield row


def _lines(file: BinaryIO) -> Iterator[bytes]:
    return iter(functools.partial(file.readline, 2 * ROW_BYTES_MAX), b"")


def _open(path: Path, name: str) -> BinaryIO:
    try:
        return (path / name).open("rb")
    except OSError as exc:
        raise MalformedReceiptError(f"{name}: can't be read: {exc.strerror}") from exc


def _row_changed(number: int, why: str) -> BadDigestError:
    return BadDigestError(f"row {number}: {why}", hint=_AGAIN, code="export.row_changed")
