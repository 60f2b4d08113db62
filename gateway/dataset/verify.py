"""Verify a dataset folder offline: no ledger, no network, no policies; a trust file is enough.

What is checked: the manifest's signature; that the folder holds what the manifest names and
nothing else, byte for byte; each row against its receipt's commitment; each receipt's
signature; each receipt's place under the one signed checkpoint; and that the manifest counts
what is there. Rows come out one by one as they are checked, so that whoever learns from them
learns from the bytes that were checked. The first thing that is wrong ends it, named by file
and row.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from gateway.canonical import canonical_json, salted_sha256, sha256_hex
from gateway.dataset.manifest import (
    CARD,
    CHECKPOINT,
    FILES,
    LEAVES,
    LEDGER_CHECKPOINT,
    LEFT_OUT,
    MANIFEST,
    POLICIES,
    PROOFS,
    RECEIPTS,
    ROWS,
    DatasetManifest,
    Teacher,
    parse_manifest,
    statement_of,
)
from gateway.dataset.ruling import Call, call_of, call_of_teacher
from gateway.errors import (
    BadDigestError,
    BadProofError,
    EvidenceError,
    MalformedReceiptError,
)
from gateway.ident import ExchangeId, Sha256
from gateway.intent.purpose import covers, teaches
from gateway.limits import BODY_BYTES_HELD_MAX, BUNDLE_BYTES_MAX, LEAF_BYTES_MAX, NOTE_BYTES_MAX
from gateway.policy.library import UNLISTED
from gateway.receipt.keys import Trust
from gateway.receipt.model import Receipt
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import verify_checkpoint, verify_manifest
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import leaf_hash, verify_inclusion

_CHUNK_BYTES: Final = 1 << 20


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
    receipt: Receipt | None = None
    """What vouches for it; `None` from a folder that was not checked this time."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Return the conversation, the answer last."""
        row: dict[str, Any] = msgspec.json.decode(self.line)
        messages: list[dict[str, Any]] = row["messages"]
        return messages


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedDataset:
    """A dataset folder of which everything was checked."""

    path: Path
    name: str
    rows: int
    receipts: int
    manifest_sha256: Sha256
    """SHA-256 of the manifest's payload: the dataset's name in lineage."""
    manifest: DatasetManifest
    statement: dict[str, Any]
    checkpoint: Checkpoint

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """Return who answered, as the manifest lists them."""
        return self.manifest.found.teachers


Passed = Callable[[str, str], None]
"""Takes the name of a check that passed, and what it found."""


def verify_dataset(path: Path, trust: Trust, passed: Passed | None = None) -> VerifiedDataset:
    """Check a dataset folder whole, reporting each check to *passed*.

    Raises:
        EvidenceError: something in it does not verify; the message names file and row.
    """
    dataset = _drained(verified_rows(path, trust))
    if passed is not None:
        manifest, checkpoint = dataset.manifest, dataset.checkpoint
        passed("signature", f"dataset manifest {dataset.manifest_sha256}")
        passed("files", f"{len(manifest.subjects)} files as signed, nothing beside them")
        passed("rows", f"{dataset.rows} rows, each as its receipt committed to it")
        passed("receipts", f"{dataset.receipts} receipts, each a leaf of the log")
        passed("inclusion", f"all under checkpoint {checkpoint.size} of {checkpoint.origin}")
    return dataset


def _drained(checking: Generator[Row, None, VerifiedDataset]) -> VerifiedDataset:
    while True:
        try:
            next(checking)
        except StopIteration as done:
            dataset: VerifiedDataset = done.value
            return dataset


def verified_rows(path: Path, trust: Trust) -> Generator[Row, None, VerifiedDataset]:
    """Yield each row as it is checked; return what the whole is once everything was.

    Nothing learned from the rows may be kept unless this comes to its end.

    Raises:
        EvidenceError: something in it does not verify; the message names file and row.
    """
    statement, payload = _signed(path, trust)
    manifest = parse_manifest(statement)
    if canonical_json(statement_of(manifest)) != canonical_json(statement):
        raise MalformedReceiptError(f"{MANIFEST}: it says more than a dataset manifest does")
    _check_names(path, manifest)
    for name in (CARD, LEFT_OUT, POLICIES):
        _check_digest(path, name, manifest)
    checkpoint = _checkpoint(path, manifest, trust)
    files = {name: _Lines(path, name) for name in (ROWS, RECEIPTS, LEAVES, PROOFS)}
    try:
        counted = yield from _check_rows(files, manifest, checkpoint)
    finally:
        for file in files.values():
            file.close()
    for name, file in files.items():
        if file.sha256 != manifest.digests[name]:
            raise _changed(name)
    _check_counts(manifest, counted)
    return VerifiedDataset(
        path=path,
        name=manifest.asked.dataset,
        rows=counted.rows,
        receipts=counted.receipts,
        manifest_sha256=payload,
        manifest=manifest,
        statement=statement,
        checkpoint=checkpoint,
    )


def iterate_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a folder that was verified, without checking them again.

    Raises:
        EvidenceError: its rows and receipts can't be read side by side.
    """
    rows, receipts = _Lines(path, ROWS), _Lines(path, RECEIPTS)
    try:
        for number, line in enumerate(rows):
            yield _row(_receipt_line(receipts, number), line)
    finally:
        rows.close()
        receipts.close()


class _ReceiptLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    row: int
    choice: int
    exchange: str
    index: int
    leaf: str
    salt: str
    sha256: str


class _LeafLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    index: int
    leaf: str


class _ProofLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    index: int
    hashes: list[str]


_RECEIPT_LINE: Final = msgspec.json.Decoder(_ReceiptLine)
_LEAF_LINE: Final = msgspec.json.Decoder(_LeafLine)
_PROOF_LINE: Final = msgspec.json.Decoder(_ProofLine)


_Kind = tuple[Call, Sha256 | None]


@dataclass(slots=True)
class _Given:
    """What calls of one kind gave: rows, on which days, under which policies."""

    rows: int = 0
    days: set[str] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)

    def add(self, rows: int, days: Iterable[str], policies: Iterable[str]) -> None:
        """Count some more."""
        self.rows += rows
        self.days.update(days)
        # A model that nobody knew when it was asked may have been listed since.
        self.policies.update(policy for policy in policies if policy != UNLISTED)


@dataclass(slots=True)
class _Counted:
    rows: int = 0
    receipts: int = 0
    by_teacher: dict[_Kind, _Given] = field(default_factory=dict)


def _signed(path: Path, trust: Trust) -> tuple[dict[str, Any], Sha256]:
    encoded = _read(path, MANIFEST, BUNDLE_BYTES_MAX)
    try:
        return verify_manifest(encoded, trust)
    except EvidenceError as exc:
        raise type(exc)(f"{MANIFEST}: {exc.message}", hint=exc.hint) from exc


def _check_names(path: Path, manifest: DatasetManifest) -> None:
    """The folder holds what the manifest names, as plain files, and nothing else."""
    named = set(manifest.digests)
    if named != set(FILES):
        odd = sorted(named ^ set(FILES))
        raise MalformedReceiptError(f"{MANIFEST}: its subjects are not a dataset's: {odd[0]}")
    there: set[str] = set()
    for entry in path.rglob("*"):
        name = entry.relative_to(path).as_posix()
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise BadDigestError(f"{name}: not a plain file", hint="a dataset folder is copied")
        if entry.is_file():
            there.add(name)
    for name in sorted(named - there):
        raise BadDigestError(f"{name}: the file is missing", hint="take the folder whole")
    for name in sorted(there - named - {MANIFEST}):
        raise BadDigestError(
            f"{name}: the manifest names no such file", hint="nothing may be added to a dataset"
        )


def _check_digest(path: Path, name: str, manifest: DatasetManifest) -> None:
    digest = hashlib.sha256()
    with _open(path, name) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != manifest.digests[name]:
        raise _changed(name)


def _changed(name: str) -> BadDigestError:
    return BadDigestError(
        f"{name}: the file was changed after the manifest was signed",
        hint="take the dataset from its source again",
    )


def _checkpoint(path: Path, manifest: DatasetManifest, trust: Trust) -> Checkpoint:
    note = _read(path, CHECKPOINT, NOTE_BYTES_MAX)
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
    return checkpoint


def _check_rows(
    files: dict[str, _Lines], manifest: DatasetManifest, checkpoint: Checkpoint
) -> Generator[Row, None, _Counted]:
    """Walk the four files side by side: they are in the order of the ledger."""
    counted = _Counted()
    index, receipt, leaf_sha256 = -1, None, ""
    last_choices: set[int] = set()
    rows, receipts = files[ROWS], files[RECEIPTS]
    for number, line in enumerate(rows):
        said = _receipt_line(receipts, number)
        if said.index != index:
            if said.index < index:
                raise MalformedReceiptError(f"{RECEIPTS}: row {number}: out of order")
            index, last_choices = said.index, set()
            leaf, receipt = _check_leaf(files, number, said, checkpoint)
            leaf_sha256 = sha256_hex(leaf)
            counted.receipts += 1
        if receipt is None:
            raise MalformedReceiptError(f"{RECEIPTS}: row {number}: negative index")
        if said.choice in last_choices:
            raise MalformedReceiptError(f"{RECEIPTS}: row {number}: a choice stands twice")
        last_choices.add(said.choice)
        _check_row(number, line, said, receipt, leaf_sha256)
        _check_use(number, receipt, manifest)
        counted.by_teacher.setdefault(
            _kind_of(call_of(receipt), receipt.model.manifest), _Given()
        ).add(1, (receipt.received[:10],), (pin.policy for pin in receipt.ruling.policies))
        counted.rows += 1
        yield _row(said, line, receipt)
    for name in (RECEIPTS, LEAVES, PROOFS):
        if next(files[name], None) is not None:
            raise MalformedReceiptError(f"{name}: line {files[name].number}: belongs to no row")
    return counted


def _check_leaf(
    files: dict[str, _Lines],
    row: int,
    said: _ReceiptLine,
    checkpoint: Checkpoint,
) -> tuple[bytes, Receipt]:
    """Return the receipt at `said.index`: signed, and under the checkpoint."""
    where = f"{LEAVES}: leaf {said.index} (of row {row})"
    kept = _decode(files[LEAVES], _LEAF_LINE, where)
    if kept.index != said.index:
        raise MalformedReceiptError(f"{where}: found leaf {kept.index} in its place")
    leaf = _base64(kept.leaf, where)
    try:
        receipt = read_leaf(leaf)
    except EvidenceError as exc:
        raise type(exc)(f"{where}: {exc.message}", hint=exc.hint) from exc
    if not isinstance(receipt, Receipt):
        raise MalformedReceiptError(f"{where}: not a usage receipt")
    where = f"{PROOFS}: proof of leaf {said.index} (of row {row})"
    proof = _decode(files[PROOFS], _PROOF_LINE, where)
    if proof.index != said.index:
        raise BadProofError(f"{where}: found that of leaf {proof.index} in its place")
    try:
        verify_inclusion(
            leaf_hash(leaf),
            said.index,
            checkpoint.size,
            [_base64(one, where) for one in proof.hashes],
            checkpoint.root,
        )
    except BadProofError as exc:
        raise BadProofError(f"{where}: {exc.message}", hint=exc.hint) from exc
    return leaf, receipt


def _check_row(
    number: int, line: bytes, said: _ReceiptLine, receipt: Receipt, leaf_sha256: str
) -> None:
    where = f"{ROWS}: row {number}"
    if said.exchange != receipt.exchange:
        raise MalformedReceiptError(
            f"{RECEIPTS}: row {number}: names exchange {said.exchange}, "
            f"its receipt is of {receipt.exchange}"
        )
    if said.leaf != leaf_sha256:
        raise BadDigestError(f"{RECEIPTS}: row {number}: its receipt is another leaf")
    commitments = [
        unit.row.value
        for unit in receipt.outputs
        if unit.choice == said.choice and unit.row is not None
    ]
    if not commitments:
        raise BadDigestError(
            f"{RECEIPTS}: row {number}: receipt {receipt.exchange} commits to no row of "
            f"choice {said.choice}"
        )
    if sha256_hex(line) != said.sha256:
        raise BadDigestError(
            f"{where}: it was changed after it was sealed (receipt {receipt.exchange})",
            hint="take the dataset from its source again",
        )
    if salted_sha256(_hex(said.salt, number), line) not in commitments:
        raise BadDigestError(
            f"{where}: receipt {receipt.exchange} commits to another row",
            hint="take the dataset from its source again",
        )


def _check_use(number: int, receipt: Receipt, manifest: DatasetManifest) -> None:
    """What evidence alone can say against a row; the terms are the trainer's gate's to read."""
    where = f"{ROWS}: row {number}: receipt {receipt.exchange}"
    purpose = receipt.declared.use.purpose
    if not teaches(purpose) or not covers(purpose, manifest.found.use.purpose):
        raise MalformedReceiptError(
            f"{where} was declared for `{purpose}`, the dataset for "
            f"`{manifest.found.use.purpose}`"
        )
    if receipt.caller.project != manifest.asked.project:
        raise MalformedReceiptError(f"{where} is of project `{receipt.caller.project}`")
    if not receipt.readable or receipt.ended != "complete":
        raise MalformedReceiptError(f"{where} is of an answer that was not read whole")
    if receipt.ruling.effect != "permit":
        raise MalformedReceiptError(f"{where} was not permitted")


def _check_counts(manifest: DatasetManifest, counted: _Counted) -> None:
    found = manifest.found
    if found.rows != counted.rows:
        raise BadDigestError(f"{MANIFEST}: it counts {found.rows} rows, {counted.rows} stand")
    named: dict[_Kind, _Given] = {}
    for teacher in found.teachers:
        named.setdefault(_kind_of(call_of_teacher(teacher), teacher.manifest), _Given()).add(
            teacher.rows, teacher.days, (pin.policy for pin in teacher.policies)
        )
    if named.keys() != counted.by_teacher.keys() or any(
        (said.rows, said.days) != (given.rows, given.days) or given.policies - said.policies
        for kind, given in counted.by_teacher.items()
        for said in (named[kind],)
    ):
        raise BadDigestError(f"{MANIFEST}: its teachers are not those of the receipts")


def _kind_of(call: Call, manifest: Sha256 | None) -> _Kind:
    """Return what calls of one kind share: how they were made, under what, and what for."""
    return dataclasses.replace(call, policies=(), reported=()), manifest


def _receipt_line(receipts: _Lines, number: int) -> _ReceiptLine:
    said: _ReceiptLine = _decode(receipts, _RECEIPT_LINE, f"{RECEIPTS}: row {number}")
    if said.row != number:
        raise MalformedReceiptError(f"{RECEIPTS}: row {number}: found row {said.row} instead")
    return said


def _row(said: _ReceiptLine, line: bytes, receipt: Receipt | None = None) -> Row:
    return Row(
        number=said.row,
        exchange=ExchangeId(said.exchange),
        choice=said.choice,
        index=said.index,
        line=line,
        receipt=receipt,
    )


def _decode(lines: _Lines, decoder: msgspec.json.Decoder[Any], where: str) -> Any:
    line = next(lines, None)
    if line is None:
        raise MalformedReceiptError(f"{where}: the line is missing")
    try:
        said = decoder.decode(line)
        again = canonical_json(msgspec.to_builtins(said))
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as exc:
        raise MalformedReceiptError(f"{where}: can't be read: {exc}") from exc
    if again != line:
        raise MalformedReceiptError(f"{where}: not written in the canonical form")
    return said


def _base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise MalformedReceiptError(f"{where}: not base64") from exc


def _hex(text: str, number: int) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as exc:
        raise MalformedReceiptError(f"{RECEIPTS}: row {number}: the salt is not hex") from exc


def _open(path: Path, name: str) -> BinaryIO:
    try:
        return (path / name).open("rb")
    except OSError as exc:
        raise NoDatasetError(
            f"{path / name}: can't be read: {exc.strerror}",
            hint="name a folder that `gateway dataset build` made",
        ) from exc


def _read(path: Path, name: str, bytes_max: int) -> bytes:
    with _open(path, name) as file:
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise MalformedReceiptError(f"{name}: larger than {bytes_max} bytes")
    return content


class _Lines:
    """The lines of a file, without their ends, one at a time; digested as they are read."""

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        self._file = _open(path, name)
        self._digest = hashlib.sha256()
        self._bytes_max = max(BODY_BYTES_HELD_MAX, 2 * LEAF_BYTES_MAX)
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> bytes:
        line = self._file.readline(self._bytes_max)
        if not line:
            raise StopIteration
        self._digest.update(line)
        self.number += 1
        if not line.endswith(b"\n"):
            raise MalformedReceiptError(f"{self._name}: line {self.number}: it has no end")
        return line[:-1]

    @property
    def sha256(self) -> str:
        """Return the digest of what was read."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
