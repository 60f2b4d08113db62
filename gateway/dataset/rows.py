"""Check rows against their receipts, and receipts against the log: one law for all.

Whoever learns from rows and whoever only verifies walk through the same code, a span of rows
at a time. A receipt is shown by its hash in a tile that leads to the checkpoint; of each the
fields that decide are read, and of each kind of receipt one is read whole. Its own signature
is checked where that is asked for: what the checkpoint covers, the log vouches for.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Literal

import msgspec

from gateway.canonical import salted_sha256, sha256_hex
from gateway.dataset.manifest import (
    LEAVES,
    MANIFEST,
    RECEIPTS,
    ROWS,
    SPANS,
    DatasetManifest,
    tile_file,
)
from gateway.dataset.ruling import Call, call_of, call_of_teacher
from gateway.dataset.tree import Tree
from gateway.errors import BadDigestError, BadProofError, EvidenceError, MalformedReceiptError
from gateway.ident import Sha256
from gateway.intent.purpose import covers, teaches
from gateway.limits import BODY_BYTES_HELD_MAX, KINDS_REMEMBERED_MAX, LEAF_BYTES_MAX
from gateway.policy.library import UNLISTED
from gateway.receipt.authority import Authority
from gateway.receipt.model import PAYLOAD_TYPE, RECEIPT_TYPE, Receipt
from gateway.receipt.statement import read_payload
from gateway.receipt.verify import verify_leaf
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import HASH_BYTES
from gateway.tlog.text import SIZE_MAX
from gateway.tlog.tile import TILE_WIDTH

_LINE_BYTES_MAX: Final = max(BODY_BYTES_HELD_MAX, 2 * LEAF_BYTES_MAX)
_AGAIN: Final = "take the dataset from its source again"


class ReceiptLine(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One line of `receipts.jsonl`: which receipt or derivation vouches for that row."""

    choice: int
    """Of the exchange; of a derivation, the row's place in it."""
    derivation: str | None = None
    exchange: str | None = None
    index: int
    """Leaf index of the receipt or the derivation."""
    leaf: str
    """Its leaf hash, as it stands in the tree."""
    reasoned: bool = False
    """The row is the one with the reasoning that the provider showed."""
    row: int
    """Its number over both files of rows."""
    salt: str
    sha256: str
    """SHA-256 of the row's line."""
    split: Literal["held-out"] | None = None
    """Absent where the row is one to train on."""


_Place = Annotated[int, msgspec.Meta(ge=0, le=SIZE_MAX)]


class Span(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Where some rows begin in each file, so that several can check at once."""

    held_out: _Place | None = None
    """Present where rows are held out."""
    index: _Place
    """Leaf index of the first receipt."""
    leaves: _Place
    receipts: _Place
    row: _Place
    rows: _Place
    tiles: tuple[_Place, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """What rows are held against."""

    manifest: DatasetManifest
    checkpoint: Checkpoint
    authority: Authority
    every_signature: bool = False


Kind = tuple[Call, Sha256 | None]
"""What calls of one kind share: how they were made, under what, and what for."""


@dataclass(slots=True)
class Given:
    """What calls of one kind gave: rows, on which days, under which policies."""

    rows: int = 0
    receipts: int = 0
    days: set[str] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)

    def add(
        self, rows: int, receipts: int, days: Iterable[str], policies: Iterable[str]
    ) -> None:
        """Count some more."""
        self.rows += rows
        self.receipts += receipts
        self.days.update(days)
        # A model that nobody knew when it was asked may have been listed since.
        self.policies.update(policy for policy in policies if policy != UNLISTED)


@dataclass(slots=True)
class Counted:
    """What was found while rows were checked."""

    rows: int = 0
    receipts: int = 0
    by_teacher: dict[Kind, Given] = field(default_factory=dict)

    def add(self, other: Counted) -> None:
        """Count what *other* found, too."""
        self.rows += other.rows
        self.receipts += other.receipts
        for kind, given in other.by_teacher.items():
            mine = self.by_teacher.setdefault(kind, Given())
            mine.add(given.rows, given.receipts, given.days, given.policies)


Checked = tuple[ReceiptLine, bytes, bytes]
"""What vouches for a row, the row's line, and the receipt's leaf."""


class Files:
    """The files of a folder that are read side by side, row after row."""

    def __init__(self, path: Path, checkpoint: Checkpoint, *, digested: bool = False) -> None:
        self.digests: dict[str, Digest] = {}
        self.tree = Tree(path, checkpoint)
        self._open: list[BinaryIO] = []
        try:
            self.rows = self._file(path, ROWS, digested=digested)
            self.receipts = self._file(path, RECEIPTS, digested=digested)
            self.leaves = self._file(path, LEAVES, digested=digested)
        except BaseException:
            self.close()
            raise

    def end(self, manifest: DatasetManifest, checkpoint: Checkpoint) -> Span:
        """Return where a span after the last one would begin."""
        return Span(
            index=checkpoint.size,
            leaves=os.fstat(self.leaves.fileno()).st_size,
            receipts=os.fstat(self.receipts.fileno()).st_size,
            row=manifest.found.rows,
            rows=os.fstat(self.rows.fileno()).st_size,
            tiles=self.tree.ends,
        )

    def seek(self, span: Span) -> None:
        """Go to the beginning of *span*."""
        self.rows.seek(span.rows)
        self.receipts.seek(span.receipts)
        self.leaves.seek(span.leaves)
        self.tree.seek(span.tiles)

    def close(self) -> None:
        """Let go of all of them."""
        self.tree.close()
        for file in self._open:
            file.close()

    def _file(self, path: Path, name: str, *, digested: bool) -> BinaryIO:
        raw: Any = io.FileIO(path / name)
        if digested:
            raw = self.digests[name] = Digest(raw)
        file = io.BufferedReader(raw, 1 << 20)
        self._open.append(file)
        return file


class Digest(io.RawIOBase):
    """A file that digests what is read from it."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes, and digest them."""
        count = self._file.readinto(buffer)
        self._sha256.update(memoryview(buffer)[:count])
        return count

    def tell(self) -> int:
        """Return how far it was read."""
        return self._file.tell()

    def fileno(self) -> int:
        """Return the file's descriptor."""
        return self._file.fileno()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        super().close()

    def hexdigest(self) -> str:
        """Return the digest of what was read."""
        return self._sha256.hexdigest()


def named_by(manifest: DatasetManifest) -> dict[Kind, Given]:
    """Return what the manifest says calls of each kind gave."""
    named: dict[Kind, Given] = {}
    for teacher in manifest.found.teachers:
        named.setdefault(_kind_of(call_of_teacher(teacher), teacher.manifest), Given()).add(
            teacher.rows,
            teacher.receipts,
            teacher.days,
            (pin.policy for pin in teacher.policies),
        )
    return named


def check_span(
    files: Files, span: Span, stop: Span, law: Law
) -> Generator[Checked, None, Counted]:
    """Yield each row from *span* up to *stop* as it is checked; the files stand at *span*.

    Raises:
        EvidenceError: something does not verify; the message names file and row.
    """
    counted = Counted()
    kinds = _Kinds(law, counted)
    project, tile_number, tile = law.manifest.asked.project, -1, b""
    index, leaf, facts, given, choices = -1, b"", _NOTHING, Given(), set[int]()
    for number in range(span.row, stop.row):
        line = _line(files.rows, ROWS, number)
        said = read_receipt_line(files.receipts, number)
        if said.index != index:
            if not index < said.index < stop.index or (index < 0 and said.index != span.index):
                raise MalformedReceiptError(f"{RECEIPTS}: row {number}: out of order")
            index, choices = said.index, set()
            leaf = _next_leaf(files.leaves, number, index)
            if index // TILE_WIDTH != tile_number:
                tile_number = index // TILE_WIDTH
                tile = files.tree.tile(tile_number)
            _check_hash(number, said, leaf, tile)
            facts, given = kinds.receipt(number, index, leaf)
            if facts.caller.project != project:
                raise _not_of_use(number, facts, f"is of project `{facts.caller.project}`")
            if not facts.readable or facts.ended != "complete":
                raise _not_of_use(number, facts, "is of an answer that was not read whole")
            counted.receipts += 1
            given.receipts += 1
        if said.choice in choices:
            raise MalformedReceiptError(f"{RECEIPTS}: row {number}: a choice stands twice")
        choices.add(said.choice)
        _check_row(number, line, said, facts)
        given.rows += 1
        counted.rows += 1
        yield said, line, leaf
    _check_end(files, stop)
    return counted


def read_receipt_line(receipts: BinaryIO, number: int) -> ReceiptLine:
    """Return the next line of `receipts.jsonl`, which is that of row *number*.

    Raises:
        MalformedReceiptError: it is not, or not written in the one way.
    """
    line = _line(receipts, RECEIPTS, number)
    try:
        said = _RECEIPT_LINE.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise MalformedReceiptError(f"{RECEIPTS}: row {number}: can't be read: {exc}") from exc
    if msgspec.json.encode(said) != line:
        raise MalformedReceiptError(
            f"{RECEIPTS}: row {number}: not written in the canonical form"
        )
    if said.row != number:
        raise MalformedReceiptError(f"{RECEIPTS}: row {number}: found row {said.row} instead")
    return said


class _Caller(msgspec.Struct, frozen=True):
    project: str


class _Provider(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    route: str | None = None
    account_tier: str | None = None


class _Commitment(msgspec.Struct, frozen=True):
    value: str


class _Output(msgspec.Struct, frozen=True):
    choice: int
    row: _Commitment | None = None


class _Facts(msgspec.Struct, frozen=True):
    """The fields of a receipt that decide; what many share stays as it is written."""

    exchange: str
    caller: _Caller
    declared: msgspec.Raw
    ruling: msgspec.Raw
    provider: _Provider
    model: msgspec.Raw
    operation: str
    streaming: bool
    readable: bool
    ended: str
    received: str
    outputs: tuple[_Output, ...] = ()
    features: tuple[str, ...] = ()


class _Payload(msgspec.Struct, frozen=True, rename="camel"):
    predicate: _Facts
    predicate_type: str


class _Signature(msgspec.Struct, frozen=True):
    keyid: str


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    payload: bytes
    payload_type: str
    signatures: tuple[_Signature]


_RECEIPT_LINE: Final = msgspec.json.Decoder(ReceiptLine)
_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_PAYLOAD: Final = msgspec.json.Decoder(_Payload)
_NOTHING: Final = _Facts(
    exchange="",
    caller=_Caller(""),
    declared=msgspec.Raw(),
    ruling=msgspec.Raw(),
    provider=_Provider(""),
    model=msgspec.Raw(),
    operation="",
    streaming=False,
    readable=False,
    ended="",
    received="",
)


class _Kinds:
    """Reads receipts, and whole the first one of each kind."""

    def __init__(self, law: Law, counted: Counted) -> None:
        self._law = law
        self._counted = counted
        self._named = named_by(law.manifest)
        self._known: dict[tuple[object, ...], tuple[Given, set[str]]] = {}

    def receipt(self, row: int, index: int, leaf: bytes) -> tuple[_Facts, Given]:
        """Return what the receipt at *index* says, and where its rows are counted."""
        try:
            facts, payload = self._read(index, leaf)
        except EvidenceError as exc:
            raise type(exc)(
                f"{_leaf_name(row, index)}: {exc.message}", hint=exc.hint, code=exc.problem
            ) from exc
        key = (
            bytes(facts.declared),
            bytes(facts.ruling),
            bytes(facts.model),
            facts.provider,
            facts.operation,
            facts.streaming,
            facts.features,
        )
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= KINDS_REMEMBERED_MAX:
                self._known.clear()
            known = self._known[key] = self._learn(row, facts, payload)
        given, days = known
        day = facts.received[:10]
        if day not in given.days:
            if day not in days:
                raise _other_teachers(row)
            given.days.add(day)
        return facts, given

    def _read(self, index: int, leaf: bytes) -> tuple[_Facts, bytes]:
        try:
            envelope = _ENVELOPE.decode(leaf)
            read = _PAYLOAD.decode(envelope.payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
            raise MalformedReceiptError(f"not a usage receipt: {exc}") from exc
        if read.predicate_type != RECEIPT_TYPE or envelope.payload_type != PAYLOAD_TYPE:
            raise MalformedReceiptError("not a usage receipt")
        (signature,) = envelope.signatures
        self._law.authority.receipt_key(signature.keyid, index)
        if self._law.every_signature:
            verify_leaf(leaf, index, self._law.authority)
        return read.predicate, envelope.payload

    def _learn(self, row: int, facts: _Facts, payload: bytes) -> tuple[Given, set[str]]:
        """Return where rows of a kind are counted, if they may stand in this dataset."""
        receipt = read_payload(payload)
        if not isinstance(receipt, Receipt):
            raise MalformedReceiptError(f"{ROWS}: row {row}: its leaf is not a usage receipt")
        purpose = receipt.declared.use.purpose
        asked = self._law.manifest.found.use.purpose
        # What evidence alone can say against a row; the terms are the trainer's gate's to read.
        if not teaches(purpose) or not covers(purpose, asked):
            raise _not_of_use(
                row, facts, f"was declared for `{purpose}`, the dataset for `{asked}`"
            )
        if receipt.ruling.effect != "permit":
            raise _not_of_use(row, facts, "was not permitted")
        kind = _kind_of(call_of(receipt), receipt.model.manifest)
        named = self._named.get(kind)
        if named is None:
            raise _other_teachers(row)
        given = self._counted.by_teacher.setdefault(kind, Given())
        given.add(0, 0, (), (pin.policy for pin in receipt.ruling.policies))
        return given, named.days


def _kind_of(call: Call, manifest: Sha256 | None) -> Kind:
    return dataclasses.replace(call, policies=(), reported=()), manifest


def _not_of_use(row: int, facts: _Facts, why: str) -> MalformedReceiptError:
    return MalformedReceiptError(f"{ROWS}: row {row}: receipt {facts.exchange} {why}")


def _other_teachers(row: int) -> BadDigestError:
    return BadDigestError(
        f"{MANIFEST}: its teachers are not those of the receipts: none is that of row {row}"
    )


def bounded_lines(file: BinaryIO, bytes_max: int) -> Iterator[bytes]:
    """Yield the lines of *file*; one that is longer comes in pieces, which are no lines."""
    return iter(functools.partial(file.readline, bytes_max), b"")


def _line(file: BinaryIO, name: str, number: int) -> bytes:
    line = file.readline(_LINE_BYTES_MAX)
    if not line:
        raise MalformedReceiptError(f"{name}: row {number}: the line is missing")
    if not line.endswith(b"\n"):
        raise MalformedReceiptError(f"{name}: line {number + 1}: it has no end")
    return line[:-1]


def _next_leaf(leaves: BinaryIO, row: int, index: int) -> bytes:
    """Return the next leaf, which stands behind its length in two bytes."""
    size = int.from_bytes(leaves.read(2), "big")
    leaf = leaves.read(size)
    if not size or len(leaf) != size:
        raise MalformedReceiptError(f"{_leaf_name(row, index)}: the file ends before it does")
    return leaf


def _leaf_name(row: int, index: int) -> str:
    return f"{LEAVES}: leaf {index} (of row {row})"


def _check_hash(row: int, said: ReceiptLine, leaf: bytes, tile: bytes) -> None:
    """Check that *leaf* stands in *tile*, in its place."""
    hashed = hashlib.sha256(b"\x00" + leaf)
    place = said.index % TILE_WIDTH * HASH_BYTES
    if tile[place : place + HASH_BYTES] != hashed.digest():
        raise BadProofError(
            f"{_leaf_name(row, said.index)}: it is not the one under the checkpoint",
            hint=_AGAIN,
        )
    if hashed.hexdigest() != said.leaf:
        raise BadDigestError(f"{RECEIPTS}: row {row}: its receipt is another leaf")


def _check_row(number: int, line: bytes, said: ReceiptLine, facts: _Facts) -> None:
    if said.exchange != facts.exchange:
        raise MalformedReceiptError(
            f"{RECEIPTS}: row {number}: names exchange {said.exchange}, "
            f"its receipt is of {facts.exchange}"
        )
    committed = [
        unit.row.value
        for unit in facts.outputs
        if unit.choice == said.choice and unit.row is not None
    ]
    if not committed:
        raise BadDigestError(
            f"{RECEIPTS}: row {number}: receipt {facts.exchange} commits to no row of "
            f"choice {said.choice}"
        )
    if sha256_hex(line) != said.sha256:
        raise BadDigestError(
            f"{ROWS}: row {number}: it was changed after it was sealed "
            f"(receipt {facts.exchange})",
            hint=_AGAIN,
        )
    if salted_sha256(_salt(said.salt, number), line) not in committed:
        raise BadDigestError(
            f"{ROWS}: row {number}: receipt {facts.exchange} commits to another row",
            hint=_AGAIN,
        )


def _salt(text: str, number: int) -> bytes:
    try:
        salt = bytes.fromhex(text)
    except ValueError as exc:
        raise MalformedReceiptError(f"{RECEIPTS}: row {number}: the salt is not hex") from exc
    if salt.hex() != text:
        raise MalformedReceiptError(f"{RECEIPTS}: row {number}: the salt is not plain hex")
    return salt


def _check_end(files: Files, stop: Span) -> None:
    """Check that every file stands where *stop* begins: nothing was skipped, nothing added."""
    stands = (
        (ROWS, files.rows.tell(), stop.rows),
        (RECEIPTS, files.receipts.tell(), stop.receipts),
        (LEAVES, files.leaves.tell(), stop.leaves),
        *(
            (tile_file(level), at, expected)
            for level, (at, expected) in enumerate(
                zip(files.tree.offsets(stop.index), stop.tiles, strict=True)
            )
        ),
    )
    for name, at, expected in stands:
        if at != expected:
            raise MalformedReceiptError(
                f"{name}: after row {stop.row - 1}, byte {min(at, expected)}: "
                f"what follows belongs to no row, or {SPANS} is wrong"
            )
