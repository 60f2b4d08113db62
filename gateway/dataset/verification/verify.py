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

import contextlib
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import msgspec

from gateway.canonical import canonical_json, sha256_hex
from gateway.dataset.above import Above
from gateway.dataset.manifest import (
    ABOVE,
    ABOVE_TILES,
    CHECKPOINT,
    HELD_OUT,
    KEYS,
    LEAVES,
    LEDGER_CHECKPOINT,
    MANIFEST,
    PROOF,
    RECEIPTS,
    ROWS,
    SPANS,
    TILES,
    DatasetManifest,
    Teacher,
    files_of,
    parse_manifest,
    statement_of,
    tile_file,
)
from gateway.dataset.verification.ancestors import Ancestors
from gateway.dataset.verification.count import Counted, Whole
from gateway.dataset.verification.keys import read_authority
from gateway.dataset.verification.logged import verify_logged
from gateway.dataset.verification.prompts import HeldOutPrompts
from gateway.dataset.verification.rows import (
    RECEIPT_MISSING,
    Checked,
    Files,
    ReceiptLine,
    Span,
    bounded_lines,
    check_span,
    read_receipt_line,
)
from gateway.dataset.verification.tree import levels_of
from gateway.dataset.verification.vouch import Law
from gateway.errors import BadDigestError, BadProofError, EvidenceError, MalformedReceiptError
from gateway.ident import DerivationId, ExchangeId, Sha256
from gateway.ledger.checkers import check_in_order, checkers_at_hand
from gateway.limits import (
    NOTE_BYTES_MAX,
    ROWS_CHECKED_ALONE_MAX,
    SPANS_AT_ONCE,
)
from gateway.receipt.envelope import open_envelope
from gateway.receipt.keys import Trust
from gateway.receipt.model import Derivation, Receipt
from gateway.receipt.statement import read_payload
from gateway.receipt.verify import verify_checkpoint
from gateway.tlog.checkpoint import Checkpoint

_WALKED: Final = frozenset({ROWS, HELD_OUT, RECEIPTS, LEAVES, ABOVE})
"""Files that are digested while what is in them is checked."""

_READ: Final = frozenset({KEYS, SPANS})
"""Files that everybody reads who checks rows."""

_CHUNK_BYTES: Final = 1 << 20
_AGAIN: Final = "take the dataset from its source again"


class NoDatasetError(EvidenceError):
    """A path that should be a dataset folder and isn't one."""

    code = "dataset.malformed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row, and what vouches for it: a receipt of the answer it is, or a derivation."""

    number: int
    """Over both files of rows."""
    split: Literal["train", "held-out"] = "train"
    exchange: ExchangeId | None = None
    derivation: DerivationId | None = None
    choice: int
    """Of the exchange; of a derivation, the row's place in it."""
    index: int
    """Leaf index of what vouches for it."""
    line: bytes
    """Canonical JSON of the manifest's kind."""
    reasoned: bool = False
    """The answer stands with the reasoning that the provider showed."""
    salt: str = ""
    """What opens the commitment to its line, in hex."""
    leaf: bytes | None = None
    """What vouches for it; `None` from a folder that was not checked this time."""
    made: Derivation | None = None
    """The derivation, read; `None` where a receipt vouches."""
    made_of: tuple[Above, ...] = ()

    @property
    def source(self) -> ExchangeId:
        """Return the id under which its text is kept: of the exchange or the derivation."""
        return self.exchange or self.derivation or ExchangeId("")

    @property
    def name(self) -> str:
        """Return how it is named outside its dataset: by its source and the choice."""
        return f"{self.source}/{self.choice}"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Return the conversation of a row of messages, the answer last."""
        row: dict[str, Any] = msgspec.json.decode(self.line)
        messages: list[dict[str, Any]] = row["messages"]
        return messages

    @property
    def statement(self) -> Receipt | Derivation | None:
        """Return what vouches for it, read whole; `None` where it was not checked.

        Raises:
            MalformedReceiptError: it is not written in the one way to write it.
        """
        if self.made is not None or self.leaf is None:
            return self.made
        read = read_payload(open_envelope(self.leaf).payload)
        return read if isinstance(read, Receipt) else None

    @property
    def receipt(self) -> Receipt | None:
        """Return the receipt that vouches for it, or `None` where a derivation does."""
        statement = self.statement
        return statement if isinstance(statement, Receipt) else None

    def above(self) -> tuple[Above, ...]:
        """Return every leaf that a derived row was made from, by rising index."""
        return self.made_of


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedDataset:
    """A dataset folder of which everything was checked."""

    path: Path
    name: str
    rows: int
    receipts: int
    """Leaves that vouch for rows: receipts, or derivations."""
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
    folder = _open_folder(path, trust, every_signature=every_signature)
    try:
        # A leaf above costs about as much as a row.
        alone = folder.manifest.found.rows + len(folder.above) <= ROWS_CHECKED_ALONE_MAX
        count = workers or (1 if alone else checkers_at_hand())
        if count > 1:
            checked = _checked_by_many(folder, trust, count, progress)
        else:
            checked = _drained(_checked(folder, progress))
        dataset = _whole(folder, *checked)
    finally:
        folder.close()
    if passed is not None:
        manifest, checkpoint = dataset.manifest, dataset.checkpoint
        signed = "each signed by a key" if every_signature else "their keys"
        passed("signature", f"dataset manifest {dataset.manifest_sha256}")
        passed("logged", f"the manifest is leaf {dataset.manifest_index} of the log")
        passed("files", f"{len(manifest.subjects)} files as signed, nothing beside them")
        what = "derivation" if manifest.found.is_derived else "receipt"
        passed("rows", f"{dataset.rows} rows, each as its {what} committed to it")
        passed(f"{what}s", f"{dataset.receipts} {what}s, {signed} authorised there")
        if folder.law.ancestors is not None:
            above = len(folder.law.ancestors)
            passed("above", f"{above} leaves above them, each row made from what it names")
        for split in manifest.found.splits:
            passed("split", f"{split.rows} rows in {split.name}, no prompt on both sides")
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
    folder = _open_folder(path, trust, every_signature=every_signature)
    try:
        checking = _checked(folder, None)
        while True:
            try:
                checked = next(checking)
            except StopIteration as done:
                return _whole(folder, *done.value)
            yield _row(checked.said, checked.line, checked)
    finally:
        folder.close()


def iterate_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a folder that was verified, without checking them again.

    Raises:
        EvidenceError: its rows and receipts can't be read side by side.
    """
    with contextlib.ExitStack() as stack:
        receipts = stack.enter_context(_open(path, RECEIPTS))
        files: dict[str | None, BinaryIO] = {None: stack.enter_context(_open(path, ROWS))}
        if (path / HELD_OUT).exists():
            files["held-out"] = stack.enter_context(_open(path, HELD_OUT))
        number, size = 0, os.fstat(receipts.fileno()).st_size
        while receipts.tell() < size:
            said = read_receipt_line(receipts, number)
            line = files[said.split].readline() if said.split in files else b""
            if not line:
                raise MalformedReceiptError(
                    f"{HELD_OUT if said.split else ROWS}: row {number}: the line is missing"
                )
            yield _row(said, line.removesuffix(b"\n"))
            number += 1
        if any(file.readline() for file in files.values()):
            raise MalformedReceiptError(
                f"{RECEIPTS}: row {number}: the line is missing", code=RECEIPT_MISSING
            )


def _row(said: ReceiptLine, line: bytes, checked: Checked | None = None) -> Row:
    return Row(
        number=said.row,
        split=said.split or "train",
        exchange=None if said.exchange is None else ExchangeId(said.exchange),
        derivation=None
        if said.derivation is None
        else DerivationId(ExchangeId(said.derivation)),
        choice=said.choice,
        index=said.index,
        line=line,
        reasoned=said.reasoned,
        salt=said.salt,
        leaf=None if checked is None else checked.leaf,
        made=None if checked is None else checked.derivation,
        made_of=() if checked is None else checked.above,
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
    law: Law
    spans: tuple[Span, ...]

    @property
    def above(self) -> Sequence[int]:
        """Return the indices of the leaves above its rows."""
        return () if self.law.ancestors is None else self.law.ancestors.indices

    def close(self) -> None:
        """Let go of what is open."""
        if self.law.ancestors is not None:
            self.law.ancestors.close()


def _open_folder(
    path: Path, trust: Trust, *, every_signature: bool, checked: bool = False
) -> _Folder:
    """Check all of a folder but its rows; where that was done (*checked*), only read it."""
    logged = verify_logged(path, trust)
    manifest = parse_manifest(logged.statement)
    if canonical_json(statement_of(manifest)) != canonical_json(logged.statement):
        raise MalformedReceiptError(f"{MANIFEST}: it says more than a dataset manifest does")
    _check_names(path, manifest)
    for name in files_of(manifest.found):
        if name not in _WALKED and name != CHECKPOINT and (not checked or name in _READ):
            _check_digest(path, name, manifest)
    checkpoint = _checkpoint(path, manifest, trust)
    authority = read_authority(_open(path, KEYS), checkpoint, trust)
    found = manifest.found
    return _Folder(
        path=path,
        manifest=manifest,
        statement=logged.statement,
        payload_sha256=logged.payload_sha256,
        index=logged.index,
        checkpoint=checkpoint,
        spans=_spans(path, checkpoint.size, splits=bool(found.splits)),
        law=Law(
            manifest=manifest,
            checkpoint=checkpoint,
            authority=authority,
            every_signature=every_signature,
            ancestors=Ancestors(
                path, checkpoint, authority, every_signature=every_signature, checked=checked
            )
            if found.is_derived
            else None,
            held_out=HeldOutPrompts(path, manifest.asked.kind) if found.splits else None,
        ),
    )


def _checked(
    folder: _Folder, progress: Progress | None
) -> Generator[Checked, None, tuple[Whole, dict[str, str]]]:
    """Yield each row as it is checked; return the count, and digests of what was read."""
    files = Files(folder.path, folder.manifest, folder.checkpoint, digested=True)
    whole = Whole(folder.above)
    try:
        spans = (*folder.spans, files.end(folder.manifest, folder.checkpoint))
        for span, stop in itertools.pairwise(spans):
            whole.add((yield from check_span(files, span, stop, folder.law)))
            if progress is not None:
                progress(whole.counted.rows, folder.manifest.found.rows)
        return whole, {name: digest.hexdigest() for name, digest in files.digests.items()}
    finally:
        files.close()


def _drained(
    checking: Generator[Checked, None, tuple[Whole, dict[str, str]]],
) -> tuple[Whole, dict[str, str]]:
    while True:
        try:
            next(checking)
        except StopIteration as done:
            checked: tuple[Whole, dict[str, str]] = done.value
            return checked


def _checked_by_many(
    folder: _Folder, trust: Trust, count: int, progress: Progress | None
) -> tuple[Whole, dict[str, str]]:
    """Return the count and the digests after *count* processes have checked all spans."""
    check = functools.partial(
        _check_part,
        folder.path,
        msgspec.json.encode(trust),
        folder.payload_sha256,
        folder.law.every_signature,
    )
    whole = Whole(folder.above)
    for found in check_in_order(check, range(0, len(folder.spans), SPANS_AT_ONCE), count):
        whole.add(found)
        if progress is not None:
            progress(whole.counted.rows, folder.manifest.found.rows)
    return whole, {
        name: _sha256(folder.path, name)
        for name in files_of(folder.manifest.found)
        if name in _WALKED and name != ABOVE
    }


def _check_part(
    path: Path,
    trust: bytes,
    payload_sha256: Sha256,
    every_signature: bool,  # noqa: FBT001 — bound by name, and handed to other processes
    first: int,
) -> Counted:
    """Check some spans of the folder at *path*, in a process of its own."""
    folder = _folder_here(path, trust, every_signature)
    if folder.payload_sha256 != payload_sha256:
        raise _changed(MANIFEST)
    counted = Counted()
    files = Files(path, folder.manifest, folder.checkpoint)
    try:
        spans = (*folder.spans, files.end(folder.manifest, folder.checkpoint))
        files.seek(spans[first])
        for at in range(first, min(first + SPANS_AT_ONCE, len(folder.spans))):
            checking = check_span(files, spans[at], spans[at + 1], folder.law)
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
def _folder_here(path: Path, trust: bytes, every_signature: bool) -> _Folder:  # noqa: FBT001
    read = msgspec.json.decode(trust, type=Trust)
    folder = _open_folder(path, read, every_signature=every_signature, checked=True)
    ancestors = folder.law.ancestors
    if ancestors is not None and ancestors.sha256 != folder.manifest.digests[ABOVE]:
        # Whoever asked has checked the file that the manifest names, and no other.
        raise _changed(ABOVE)
    return folder


def _whole(folder: _Folder, whole: Whole, digests: dict[str, str]) -> VerifiedDataset:
    """Return what was verified, once the manifest names and counts what was read."""
    manifest, ancestors = folder.manifest, folder.law.ancestors
    if ancestors is not None:
        digests = digests | {ABOVE: ancestors.sha256}
    whole.check_splits(manifest)
    for name, digest in digests.items():
        if digest != manifest.digests[name]:
            raise _changed(name)
    for under in _tiles_of(manifest):
        for level in range(levels_of(folder.checkpoint.size)):
            _check_digest(folder.path, tile_file(level, under), manifest)
    whole.check(manifest)
    return VerifiedDataset(
        path=folder.path,
        name=manifest.asked.dataset,
        rows=whole.counted.rows,
        receipts=whole.leaves,
        manifest_sha256=folder.payload_sha256,
        manifest_index=folder.index,
        manifest=manifest,
        statement=folder.statement,
        checkpoint=folder.checkpoint,
    )


def _tiles_of(manifest: DatasetManifest) -> tuple[str, ...]:
    """Return under which names the folder holds tiles."""
    return (TILES, ABOVE_TILES) if manifest.found.is_derived else (TILES,)


def _check_names(path: Path, manifest: DatasetManifest) -> None:
    """The folder holds what the manifest names, as plain files, and nothing else."""
    named = set(manifest.digests)
    files = {name for name in named if not name.startswith((TILES, ABOVE_TILES))}
    odd = files ^ set(files_of(manifest.found))
    if odd:
        raise MalformedReceiptError(f"{MANIFEST}: its subjects are not a dataset's: {min(odd)}")
    there: set[str] = set()
    for entry in path.rglob("*"):
        name = entry.relative_to(path).as_posix()
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise BadDigestError(
                f"{name}: not a plain file",
                hint="a dataset folder is copied",
                code="dataset.file_added",
            )
        if entry.is_file():
            there.add(name)
    for name in sorted(named - there):
        raise BadDigestError(
            f"{name}: the file is missing",
            hint="take the folder whole",
            code="dataset.file_missing",
        )
    for name in sorted(there - named - {MANIFEST, PROOF}):
        raise BadDigestError(
            f"{name}: the manifest names no such file",
            hint="nothing may be added to a dataset",
            code="dataset.file_added",
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
        f"{name}: the file was changed after the manifest was signed",
        hint=_AGAIN,
        code="dataset.file_changed",
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
    levels = {
        tile_file(level, under)
        for level in range(levels_of(checkpoint.size))
        for under in _tiles_of(manifest)
    }
    tiles = {name for name in manifest.digests if name.startswith((TILES, ABOVE_TILES))}
    odd = tiles ^ levels
    if odd:
        raise MalformedReceiptError(f"{MANIFEST}: its subjects are not a dataset's: {min(odd)}")
    return checkpoint


def _spans(path: Path, size: int, *, splits: bool) -> tuple[Span, ...]:
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
            if (span.held_out is not None) is not splits:
                raise MalformedReceiptError(f"{SPANS}: line {number}: of other files")
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
    begins = (span.row, span.rows, span.held_out, span.receipts, span.leaves, *span.tiles)
    return not any(begins)


def _after(before: Span, span: Span) -> bool:
    return before.row < span.row and before.index < span.index


def _open(path: Path, name: str) -> BinaryIO:
    try:
        return (path / name).open("rb")
    except OSError as exc:
        raise NoDatasetError(
            f"{path / name}: can't be read: {exc.strerror}",
            hint="name a folder that `gateway dataset build` made",
        ) from exc
