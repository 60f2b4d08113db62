"""Check rows against their receipts, and receipts against the log: one law for all.

Whoever learns from rows and whoever only verifies walk through the same code, a span of rows
at a time. A leaf is shown by its hash in a tile that leads to the checkpoint; what it says of
a row, `vouch.py` reads. Its own signature is checked where that is asked for: what the
checkpoint covers, the log vouches for.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Literal, NamedTuple

import msgspec

from gateway.dataset.above import Above
from gateway.dataset.manifest import (
    HELD_OUT,
    LEAVES,
    RECEIPTS,
    ROWS,
    SPANS,
    DatasetManifest,
    tile_file,
)
from gateway.dataset.verification.count import SPLIT_BROKEN, Counted
from gateway.dataset.verification.prompts import HeldOutPrompts
from gateway.dataset.verification.tree import Tree
from gateway.dataset.verification.vouch import (
    RECEIPT_SWAPPED,
    Derivations,
    Law,
    Place,
    Receipts,
    Vouching,
    leaf_name,
)
from gateway.errors import BadDigestError, BadProofError, EvidenceError, MalformedReceiptError
from gateway.limits import ROW_BYTES_MAX
from gateway.receipt.model import Derivation, RowKind
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import HASH_BYTES
from gateway.tlog.text import SIZE_MAX
from gateway.tlog.tile import TILE_WIDTH

RECEIPT_MISSING: Final = "dataset.receipt_missing"
RECEIPT_REPLAYED: Final = "dataset.receipt_replayed"

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


class Checked(NamedTuple):
    """A row that was checked, and what vouches for it."""

    said: ReceiptLine
    line: bytes
    leaf: bytes
    derivation: Derivation | None = None
    above: tuple[Above, ...] = ()
    """Every leaf that a derived row was made from."""


class Files:
    """The files of a folder that are read side by side, row after row."""

    def __init__(
        self,
        path: Path,
        manifest: DatasetManifest,
        checkpoint: Checkpoint,
        *,
        digested: bool = False,
    ) -> None:
        self.digests: dict[str, Digest] = {}
        self.tree = Tree(path, checkpoint)
        self._open: list[BinaryIO] = []
        try:
            self.rows = self._file(path, ROWS, digested=digested)
            self.receipts = self._file(path, RECEIPTS, digested=digested)
            self.leaves = self._file(path, LEAVES, digested=digested)
            self.held_out = (
                self._file(path, HELD_OUT, digested=digested) if manifest.found.splits else None
            )
        except BaseException:
            self.close()
            raise

    def end(self, manifest: DatasetManifest, checkpoint: Checkpoint) -> Span:
        """Return where a span after the last one would begin."""
        return Span(
            held_out=None if self.held_out is None else _size(self.held_out),
            index=checkpoint.size,
            leaves=_size(self.leaves),
            receipts=_size(self.receipts),
            row=manifest.found.rows,
            rows=_size(self.rows),
            tiles=self.tree.ends,
        )

    def seek(self, span: Span) -> None:
        """Go to the beginning of *span*."""
        self.rows.seek(span.rows)
        self.receipts.seek(span.receipts)
        self.leaves.seek(span.leaves)
        if self.held_out is not None:
            self.held_out.seek(span.held_out or 0)
        self.tree.seek(span.tiles)

    def rows_of(self, said: ReceiptLine) -> tuple[str, BinaryIO]:
        """Return the file that the row of *said* stands in, and its name.

        Raises:
            BadDigestError: it is said to be held out, and nothing is held out here.
        """
        if said.split is None:
            return ROWS, self.rows
        if self.held_out is None:
            raise BadDigestError(
                f"{RECEIPTS}: row {said.row}: held out, where the manifest holds out nothing",
                code=SPLIT_BROKEN,
            )
        return HELD_OUT, self.held_out

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


def check_span(
    files: Files, span: Span, stop: Span, law: Law
) -> Generator[Checked, None, Counted]:
    """Yield each row from *span* up to *stop* as it is checked; the files stand at *span*.

    Raises:
        EvidenceError: something does not verify; the message names file and row.
    """
    counted = Counted()
    vouching: Vouching = (
        Receipts(law, counted)
        if law.ancestors is None
        else Derivations(law, law.ancestors, counted)
    )
    tile_number, tile = -1, b""
    index, leaf, choices = -1, b"", set[int]()
    for number in range(span.row, stop.row):
        said = read_receipt_line(files.receipts, number)
        name, file = files.rows_of(said)
        line = _line(file, name, number)
        if said.index != index:
            if not index < said.index < stop.index or (index < 0 and said.index != span.index):
                raise _out_of_order(number, said.index, index)
            index, choices = said.index, set()
            leaf = _next_leaf(files.leaves, number, index)
            if index // TILE_WIDTH != tile_number:
                tile_number = index // TILE_WIDTH
                tile = files.tree.tile(tile_number)
            _check_hash(number, said, leaf, tile)
            vouching.read(number, index, leaf)
            counted.leaves.append(index)
        if said.choice in choices:
            raise MalformedReceiptError(
                f"{RECEIPTS}: row {number}: a choice stands twice", code=RECEIPT_REPLAYED
            )
        choices.add(said.choice)
        place = Place(name, number)
        derivation, above = vouching.check(place, line, said)
        if law.held_out is not None:
            _check_part(place, line, said, law.held_out, law.manifest.asked.kind)
        counted.rows += 1
        counted.held_out += said.split is not None
        yield Checked(said, line, leaf, derivation, above)
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
        raise MalformedReceiptError(
            f"{RECEIPTS}: row {number}: found row {said.row} instead",
            code=RECEIPT_MISSING if said.row > number else RECEIPT_REPLAYED,
        )
    return said


_RECEIPT_LINE: Final = msgspec.json.Decoder(ReceiptLine)


def bounded_lines(file: BinaryIO, bytes_max: int) -> Iterator[bytes]:
    """Yield the lines of *file*; one that is longer comes in pieces, which are no lines."""
    return iter(functools.partial(file.readline, bytes_max), b"")


def _line(file: BinaryIO, name: str, number: int) -> bytes:
    line = file.readline(ROW_BYTES_MAX)
    if not line:
        code = RECEIPT_MISSING if name == RECEIPTS else None
        raise MalformedReceiptError(f"{name}: row {number}: the line is missing", code=code)
    if not line.endswith(b"\n"):
        raise MalformedReceiptError(f"{name}: line {number + 1}: it has no end")
    return line[:-1]


def _next_leaf(leaves: BinaryIO, row: int, index: int) -> bytes:
    """Return the next leaf, which stands behind its length in two bytes."""
    size = int.from_bytes(leaves.read(2), "big")
    leaf = leaves.read(size)
    if not size or len(leaf) != size:
        raise MalformedReceiptError(f"{leaf_name(row, index)}: the file ends before it does")
    return leaf


def _check_hash(row: int, said: ReceiptLine, leaf: bytes, tile: bytes) -> None:
    """Check that *leaf* stands in *tile*, in its place."""
    hashed = hashlib.sha256(b"\x00" + leaf)
    place = said.index % TILE_WIDTH * HASH_BYTES
    if tile[place : place + HASH_BYTES] != hashed.digest():
        raise BadProofError(
            f"{leaf_name(row, said.index)}: it is not the one under the checkpoint",
            hint=_AGAIN,
            code="dataset.leaf_changed",
        )
    if hashed.hexdigest() != said.leaf:
        raise BadDigestError(
            f"{RECEIPTS}: row {row}: its receipt is another leaf", code=RECEIPT_SWAPPED
        )


def _check_part(
    place: Place, line: bytes, said: ReceiptLine, held_out: HeldOutPrompts, kind: RowKind
) -> None:
    """Check that a prompt stands on one side of the split only."""
    try:
        is_held_out = held_out.has(line, kind)
    except EvidenceError as exc:
        raise type(exc)(f"{place}: {exc.message}", hint=exc.hint, code=exc.problem) from exc
    if is_held_out and said.split is None:
        raise BadDigestError(
            f"{place}: its prompt is held out, too",
            hint="what a student is measured with is nothing it learned from",
            code=SPLIT_BROKEN,
        )


def _out_of_order(row: int, index: int, last: int) -> MalformedReceiptError:
    return MalformedReceiptError(
        f"{RECEIPTS}: row {row}: out of order",
        code=RECEIPT_REPLAYED if 0 <= index < last else RECEIPT_SWAPPED,
    )


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _check_end(files: Files, stop: Span) -> None:
    """Check that every file stands where *stop* begins: nothing was skipped, nothing added."""
    held_out = files.held_out
    stands = (
        (ROWS, files.rows.tell(), stop.rows),
        (HELD_OUT, 0 if held_out is None else held_out.tell(), stop.held_out or 0),
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
