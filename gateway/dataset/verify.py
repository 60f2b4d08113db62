"""Verify a dataset folder offline: no ledger, no network, no policies; a trust file is enough.

What is checked: the manifest's signature, and that the manifest is itself a leaf of the log;
that the folder holds what the manifest names and nothing else, byte for byte; each row against
its receipt's commitment; each receipt's place under the one signed checkpoint, through the
tree; that its key was allowed to sign there; and that the manifest counts what is there. Each
receipt's own signature is checked where that is asked for. Rows come out one by one as they are
checked, so that whoever learns from them learns from the bytes that were checked. The first
thing that is wrong ends it, named by file and row.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from gateway.canonical import canonical_json, sha256_hex
from gateway.dataset.keys import read_authority
from gateway.dataset.logged import verify_logged
from gateway.dataset.manifest import (
    CARD,
    CHECKPOINT,
    FILES,
    KEYS,
    LEAVES,
    LEDGER_CHECKPOINT,
    LEFT_OUT,
    MANIFEST,
    POLICIES,
    PROOF,
    RECEIPTS,
    ROWS,
    SPANS,
    TILES,
    DatasetManifest,
    Teacher,
    parse_manifest,
    statement_of,
    tile_file,
)
from gateway.dataset.rows import (
    Counted,
    Files,
    Law,
    Span,
    bounded_lines,
    check_span,
    named_by,
    read_receipt_line,
)
from gateway.dataset.tree import levels_of
from gateway.errors import BadDigestError, BadProofError, EvidenceError, MalformedReceiptError
from gateway.ident import ExchangeId, Sha256
from gateway.ledger.checkers import check_in_order, checkers_at_hand
from gateway.limits import (
    NOTE_BYTES_MAX,
    ROWS_CHECKED_ALONE_MAX,
    SPANS_AT_ONCE,
)
from gateway.receipt.authority import Authority
from gateway.receipt.envelope import open_envelope
from gateway.receipt.keys import Trust
from gateway.receipt.model import Receipt
from gateway.receipt.statement import read_payload
from gateway.receipt.verify import verify_checkpoint
from gateway.tlog.checkpoint import Checkpoint

_CHUNK_BYTES: Final = 1 << 20
_AGAIN: Final = "take the dataset from its source again"


class NoDatasetError(EvidenceError):
    """A path that should be a dataset folder and isn't one."""

    code = "dataset.malformed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row whose evidence was checked."""

    number: int
    exchange: ExchangeId
    choice: int
    index: int
    """Leaf index of its receipt."""
    line: bytes
    """Canonical JSON: `{"messages": […]}`."""
    leaf: bytes | None = None
    """The receipt that vouches for it; `None` from a folder that was not checked this time."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Return the conversation, the answer last."""
        row: dict[str, Any] = msgspec.json.decode(self.line)
        messages: list[dict[str, Any]] = row["messages"]
        return messages

    @property
    def receipt(self) -> Receipt | None:
        """Return the receipt, read whole.

        Raises:
            MalformedReceiptError: it is not written in the one way to write it.
        """
        if self.leaf is None:
            return None
        receipt = read_payload(open_envelope(self.leaf).payload)
        return receipt if isinstance(receipt, Receipt) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedDataset:
    """A dataset folder of which everything was checked."""

    path: Path
    name: str
    rows: int
    receipts: int
    manifest_sha256: Sha256
    """SHA-256 of the manifest's payload: the dataset's name in lineage."""
    manifest_index: int
    """Leaf index of the manifest."""
    manifest: DatasetManifest
    statement: dict[str, Any]
    checkpoint: Checkpoint

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """Return who answered, as the manifest lists them."""
        return self.manifest.found.teachers


Passed = Callable[[str, str], None]
"""Takes the name of a check that passed, and what it found."""

Progress = Callable[[int, int], None]
"""Told how many rows were checked, and how many there are."""


def verify_dataset(
    path: Path,
    trust: Trust,
    passed: Passed | None = None,
    *,
    every_signature: bool = False,
    progress: Progress | None = None,
    workers: int | None = None,
) -> VerifiedDataset:
    """Check a dataset folder whole, reporting each check to *passed*.

    Large ones are checked by several processes, *workers* of them or one a core.

    Raises:
        EvidenceError: something in it does not verify; the message names file and row.
        CheckInterruptedError: a process that checked was ended from outside.
    """
    folder = _open_folder(path, trust)
    alone = folder.manifest.found.rows <= ROWS_CHECKED_ALONE_MAX
    count = workers or (1 if alone else checkers_at_hand())
    if count > 1:
        checked = _checked_by_many(folder, trust, count, progress, every_signature)
    else:
        checked = _drained(_checked(folder, progress, every_signature=every_signature))
    dataset = _whole(folder, *checked)
    if passed is not None:
        manifest, checkpoint = dataset.manifest, dataset.checkpoint
        signed = "each signed by a key" if every_signature else "their keys"
        passed("signature", f"dataset manifest {dataset.manifest_sha256}")
        passed("logged", f"the manifest is leaf {dataset.manifest_index} of the log")
        passed("files", f"{len(manifest.subjects)} files as signed, nothing beside them")
        passed("rows", f"{dataset.rows} rows, each as its receipt committed to it")
        passed("receipts", f"{dataset.receipts} receipts, {signed} authorised there")
        passed("inclusion", f"all under checkpoint {checkpoint.size} of {checkpoint.origin}")
    return dataset


def verified_rows(
    path: Path, trust: Trust, *, every_signature: bool = False
) -> Generator[Row, None, VerifiedDataset]:
    """Yield each row as it is checked; return what the whole is once everything was.

    Nothing learned from the rows may be kept unless this comes to its end.

    Raises:
        EvidenceError: something in it does not verify; the message names file and row.
    """
    folder = _open_folder(path, trust)
    checked = yield from _checked(folder, None, every_signature=every_signature)
    return _whole(folder, *checked)


def iterate_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a folder that was verified, without checking them again.

    Raises:
        EvidenceError: its rows and receipts can't be read side by side.
    """
    with _open(path, ROWS) as rows, _open(path, RECEIPTS) as receipts:
        for number, line in enumerate(rows):
            said = read_receipt_line(receipts, number)
            yield Row(
                number=number,
                exchange=ExchangeId(said.exchange),
                choice=said.choice,
                index=said.index,
                line=line.removesuffix(b"\n"),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """A dataset folder of which all but the rows and what vouches for them was checked."""

    path: Path
    manifest: DatasetManifest
    statement: dict[str, Any]
    payload_sha256: Sha256
    index: int
    checkpoint: Checkpoint
    authority: Authority
    spans: tuple[Span, ...]

    def law(self, *, every_signature: bool) -> Law:
        """Return what its rows are held against."""
        return Law(
            manifest=self.manifest,
            checkpoint=self.checkpoint,
            authority=self.authority,
            every_signature=every_signature,
        )


def _open_folder(path: Path, trust: Trust) -> _Folder:
    logged = verify_logged(path, trust)
    manifest = parse_manifest(logged.statement)
    if canonical_json(statement_of(manifest)) != canonical_json(logged.statement):
        raise MalformedReceiptError(f"{MANIFEST}: it says more than a dataset manifest does")
    _check_names(path, manifest)
    for name in (CARD, LEFT_OUT, POLICIES, KEYS, SPANS):
        _check_digest(path, name, manifest)
    checkpoint = _checkpoint(path, manifest, trust)
    return _Folder(
        path=path,
        manifest=manifest,
        statement=logged.statement,
        payload_sha256=logged.payload_sha256,
        index=logged.index,
        checkpoint=checkpoint,
        authority=read_authority(_open(path, KEYS), checkpoint, trust),
        spans=_spans(path, checkpoint.size),
    )


def _checked(
    folder: _Folder, progress: Progress | None, *, every_signature: bool
) -> Generator[Row, None, tuple[Counted, dict[str, str]]]:
    """Yield each row as it is checked; return the count, and digests of what was read."""
    law = folder.law(every_signature=every_signature)
    files, counted = Files(folder.path, folder.checkpoint, digested=True), Counted()
    try:
        spans = (*folder.spans, files.end(folder.manifest, folder.checkpoint))
        for span, stop in itertools.pairwise(spans):
            checking = check_span(files, span, stop, law)
            while True:
                try:
                    said, line, leaf = next(checking)
                except StopIteration as done:
                    counted.add(done.value)
                    break
                yield Row(
                    number=said.row,
                    exchange=ExchangeId(said.exchange),
                    choice=said.choice,
                    index=said.index,
                    line=line,
                    leaf=leaf,
                )
            if progress is not None:
                progress(counted.rows, folder.manifest.found.rows)
        return counted, {name: digest.hexdigest() for name, digest in files.digests.items()}
    finally:
        files.close()


def _drained(
    checking: Generator[Row, None, tuple[Counted, dict[str, str]]],
) -> tuple[Counted, dict[str, str]]:
    while True:
        try:
            next(checking)
        except StopIteration as done:
            checked: tuple[Counted, dict[str, str]] = done.value
            return checked


def _checked_by_many(
    folder: _Folder,
    trust: Trust,
    count: int,
    progress: Progress | None,
    every_signature: bool,  # noqa: FBT001 — passed on
) -> tuple[Counted, dict[str, str]]:
    """Return the count and the digests after *count* processes have checked all spans."""
    check = functools.partial(
        _check_part,
        folder.path,
        msgspec.json.encode(trust),
        folder.payload_sha256,
        every_signature,
    )
    counted = Counted()
    for found in check_in_order(check, range(0, len(folder.spans), SPANS_AT_ONCE), count):
        counted.add(found)
        if progress is not None:
            progress(counted.rows, folder.manifest.found.rows)
    return counted, {name: _sha256(folder.path, name) for name in (ROWS, RECEIPTS, LEAVES)}


def _check_part(
    path: Path,
    trust: bytes,
    payload_sha256: Sha256,
    every_signature: bool,  # noqa: FBT001 — bound by position, and handed to other processes
    first: int,
) -> Counted:
    """Check some spans of the folder at *path*, in a process of its own."""
    folder = _folder_here(path, trust)
    if folder.payload_sha256 != payload_sha256:
        raise _changed(MANIFEST)
    law, counted = folder.law(every_signature=every_signature), Counted()
    files = Files(path, folder.checkpoint)
    try:
        spans = (*folder.spans, files.end(folder.manifest, folder.checkpoint))
        files.seek(spans[first])
        for at in range(first, min(first + SPANS_AT_ONCE, len(folder.spans))):
            checking = check_span(files, spans[at], spans[at + 1], law)
            while True:
                try:
                    next(checking)
                except StopIteration as done:
                    counted.add(done.value)
                    break
    finally:
        files.close()
    return counted


@functools.lru_cache(maxsize=1)
def _folder_here(path: Path, trust: bytes) -> _Folder:
    return _open_folder(path, msgspec.json.decode(trust, type=Trust))


def _whole(folder: _Folder, counted: Counted, digests: dict[str, str]) -> VerifiedDataset:
    """Return what was verified, once the manifest names and counts what was read."""
    manifest = folder.manifest
    for name in (ROWS, RECEIPTS, LEAVES):
        if digests[name] != manifest.digests[name]:
            raise _changed(name)
    for level in range(levels_of(folder.checkpoint.size)):
        _check_digest(folder.path, tile_file(level), manifest)
    _check_counts(manifest, counted)
    return VerifiedDataset(
        path=folder.path,
        name=manifest.asked.dataset,
        rows=counted.rows,
        receipts=counted.receipts,
        manifest_sha256=folder.payload_sha256,
        manifest_index=folder.index,
        manifest=manifest,
        statement=folder.statement,
        checkpoint=folder.checkpoint,
    )


def _check_names(path: Path, manifest: DatasetManifest) -> None:
    """The folder holds what the manifest names, as plain files, and nothing else."""
    named = set(manifest.digests)
    odd = {name for name in named if not name.startswith(TILES)} ^ set(FILES)
    if odd:
        raise MalformedReceiptError(f"{MANIFEST}: its subjects are not a dataset's: {min(odd)}")
    there: set[str] = set()
    for entry in path.rglob("*"):
        name = entry.relative_to(path).as_posix()
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise BadDigestError(f"{name}: not a plain file", hint="a dataset folder is copied")
        if entry.is_file():
            there.add(name)
    for name in sorted(named - there):
        raise BadDigestError(f"{name}: the file is missing", hint="take the folder whole")
    for name in sorted(there - named - {MANIFEST, PROOF}):
        raise BadDigestError(
            f"{name}: the manifest names no such file", hint="nothing may be added to a dataset"
        )


def _check_digest(path: Path, name: str, manifest: DatasetManifest) -> None:
    if _sha256(path, name) != manifest.digests[name]:
        raise _changed(name)


def _sha256(path: Path, name: str) -> str:
    digest = hashlib.sha256()
    with _open(path, name) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _changed(name: str) -> BadDigestError:
    return BadDigestError(
        f"{name}: the file was changed after the manifest was signed", hint=_AGAIN
    )


def _checkpoint(path: Path, manifest: DatasetManifest, trust: Trust) -> Checkpoint:
    with _open(path, CHECKPOINT) as file:
        note = file.read(NOTE_BYTES_MAX + 1)
    try:
        checkpoint = verify_checkpoint(note.decode(), trust)
    except UnicodeDecodeError as exc:
        raise BadProofError(f"{CHECKPOINT}: not text") from exc
    except EvidenceError as exc:
        raise type(exc)(f"{CHECKPOINT}: {exc.message}", hint=exc.hint) from exc
    if sha256_hex(note) != manifest.digests[CHECKPOINT]:
        raise _changed(CHECKPOINT)
    for dependency in manifest.dependencies:
        if dependency.kind == LEDGER_CHECKPOINT and (
            dependency.digest.get("sha256") != sha256_hex(note)
            or dependency.annotations.get("size") != checkpoint.size
            or dependency.annotations.get("root") != checkpoint.root.hex()
            or dependency.annotations.get("origin") != checkpoint.origin
        ):
            raise BadProofError(f"{MANIFEST}: it names another checkpoint than {CHECKPOINT}")
    levels = {tile_file(level) for level in range(levels_of(checkpoint.size))}
    odd = {name for name in manifest.digests if name.startswith(TILES)} ^ levels
    if odd:
        raise MalformedReceiptError(f"{MANIFEST}: its subjects are not a dataset's: {min(odd)}")
    return checkpoint


def _spans(path: Path, size: int) -> tuple[Span, ...]:
    """Return where spans of rows begin; whether that is so shows when they are walked."""
    spans: list[Span] = []
    levels = levels_of(size)
    with _open(path, SPANS) as lines:
        for number, line in enumerate(bounded_lines(lines, NOTE_BYTES_MAX)):
            try:
                span = _SPAN.decode(line)
            except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
                raise MalformedReceiptError(f"{SPANS}: line {number}: {exc}") from exc
            if len(span.tiles) != levels:
                raise MalformedReceiptError(f"{SPANS}: line {number}: not {levels} levels")
            if span.index >= size:
                raise MalformedReceiptError(f"{SPANS}: line {number}: no leaf of the log")
            if not (_after(spans[-1], span) if spans else _is_first(span)):
                raise MalformedReceiptError(f"{SPANS}: line {number}: out of order")
            spans.append(span)
    if not spans:
        raise MalformedReceiptError(f"{SPANS}: it names no row")
    return tuple(spans)


_SPAN: Final = msgspec.json.Decoder(Span)


def _is_first(span: Span) -> bool:
    return not any((span.row, span.rows, span.receipts, span.leaves, *span.tiles))


def _after(before: Span, span: Span) -> bool:
    return before.row < span.row and before.index < span.index


def _check_counts(manifest: DatasetManifest, counted: Counted) -> None:
    found = manifest.found
    if found.rows != counted.rows:
        raise BadDigestError(f"{MANIFEST}: it counts {found.rows} rows, {counted.rows} stand")
    named = named_by(manifest)
    if named.keys() != counted.by_teacher.keys() or any(
        (said.rows, said.receipts, said.days) != (given.rows, given.receipts, given.days)
        or given.policies - said.policies
        for kind, given in counted.by_teacher.items()
        for said in (named[kind],)
    ):
        raise BadDigestError(f"{MANIFEST}: its teachers are not those of the receipts")


def _open(path: Path, name: str) -> BinaryIO:
    try:
        return (path / name).open("rb")
    except OSError as exc:
        raise NoDatasetError(
            f"{path / name}: can't be read: {exc.strerror}",
            hint="name a folder that `gateway dataset build` made",
        ) from exc
