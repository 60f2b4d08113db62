"""Write what was taken as the files of a dataset folder, and count it for the manifest.

Rows come once, in the order of the ledger, each with the part that it stands in. What stands
above them is written when all have come: each leaf once, in order.
"""

from __future__ import annotations

import contextlib
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from gateway.dataset.above import Above
from gateway.dataset.assembly.covered import Covered
from gateway.dataset.assembly.marks import Marks
from gateway.dataset.assembly.taking import INFLUENCES, Given, Reaches, Taken, TakenRow
from gateway.dataset.assembly.upward import Upward
from gateway.dataset.facts import Facts, Shared, read_answer
from gateway.dataset.manifest import (
    ABOVE,
    ABOVE_TILES,
    HELD_OUT,
    LEAVES,
    RECEIPTS,
    ROWS,
    SPANS,
    TILES,
    Influence,
    MadeBy,
    Split,
    WrittenBy,
    tile_file,
)
from gateway.dataset.verification.rows import ReceiptLine, Span
from gateway.dataset.verification.tree import TilesWriter, levels_of
from gateway.dataset.workshop import DigestedFile
from gateway.errors import LedgerDamagedError, MalformedReceiptError
from gateway.ident import DeclarationId, Sha256
from gateway.limits import KINDS_REMEMBERED_MAX, ROWS_PER_SPAN
from gateway.tlog.merkle import leaf_hash

Part = Literal["train", "held-out"]


@dataclass(slots=True)
class Counts:
    """What is counted of one kind of call while rows are written."""

    rows: int = 0
    receipts: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    days: set[str] = field(default_factory=set)
    declarations: set[DeclarationId] = field(default_factory=set)
    reported: set[str] = field(default_factory=set)

    def add(self, given: Given) -> None:
        """Count one answer."""
        self.receipts += 1
        if given.day is not None:
            self.days.add(given.day)
        if given.declaration is not None:
            self.declarations.add(DeclarationId(given.declaration))
        if given.reported is not None:
            self.reported.add(given.reported)
        self.input_tokens = _plus(self.input_tokens, given.input_tokens)
        self.output_tokens = _plus(self.output_tokens, given.output_tokens)


@dataclass(slots=True)
class Tally:
    """What was counted of a whole dataset."""

    rows: int = 0
    held_out: int = 0
    derived: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    kinds: dict[int, Counts] = field(default_factory=dict)
    made_by: tuple[MadeBy, ...] = ()
    written_by: tuple[WrittenBy, ...] = ()
    splits: tuple[Split, ...] = ()
    members: Marks = field(default_factory=Marks)
    """All leaves that the rows were made from."""
    files: dict[str, Sha256] = field(default_factory=dict)
    keyids: set[str] = field(default_factory=set)
    """Of the receipt keys that signed those leaves."""


class LeftOutFile:
    """Lists what was left out, and counts it by reason."""

    def __init__(self, file: DigestedFile, counter: Counter[str]) -> None:
        self._file = file
        self._counter = counter

    def tell(
        self,
        name: str,
        choice: int | None,
        reason: str,
        detail: str,
        *,
        derived: bool,
    ) -> None:
        """List one candidate, or one choice of it."""
        line: dict[str, object] = {
            "derivation" if derived else "exchange": name,
            "reason": reason,
        }
        if choice is not None:
            line["choice"] = choice
        if detail:
            line["detail"] = detail
        self._counter[reason] += 1
        self._file.line(line)


class RowsWriter:
    """Writes the rows of one dataset, and what vouches for them."""

    def __init__(
        self,
        workshop: Path,
        covered: Covered,
        reaches: Reaches,
        tally: Tally,
        stack: contextlib.ExitStack,
        *,
        split: bool,
        derived: bool,
    ) -> None:
        self._workshop = workshop
        self._covered = covered
        self._reaches = reaches
        self._tally = tally
        self._stack = stack
        self._split = split
        tally.derived = derived
        self._reached: array[int] = array("Q")
        self._above: dict[Influence, Marks] = {"text": Marks(), "judge": Marks()}
        self._span_row = -ROWS_PER_SPAN
        self._rows, self._receipts, self._leaves, self._spans = (
            self._file(name) for name in (ROWS, RECEIPTS, LEAVES, SPANS)
        )
        self._held_out = self._file(HELD_OUT) if split else None
        self._levels = [
            self._file(tile_file(level, TILES)) for level in range(levels_of(covered.size))
        ]
        self._tiles = TilesWriter(
            covered.size,
            covered.tile,
            lambda level, hashes: self._levels[level].write(hashes),
        )

    def write(self, taken: Taken, parts: Iterable[Part]) -> None:
        """Write the rows of one leaf, each with the part that it stands in."""
        tally, index, leaf = self._tally, taken.index, taken.leaf
        if tally.rows - self._span_row >= ROWS_PER_SPAN:
            self._begin_span(index)
        self._tiles.touch(index)
        self._leaves.write(len(leaf).to_bytes(2, "big") + leaf)
        tally.members.add(index)
        tally.keyids.add(taken.keyid)
        hashed = leaf_hash(leaf).hex()
        for row, part in zip(taken.rows, parts, strict=True):
            self._write_row(taken, row, part, hashed)
        if taken.given is not None:
            self._counts(taken.given.kind).add(taken.given)

    def finish(self, upward: Upward) -> None:
        """Write what stands above the rows, which *upward* found, and make all durable.

        Raises:
            LedgerDamagedError: a leaf above is none that rows are made from, or another by now.
        """
        self._tiles.finish()
        if self._tally.derived:
            self._write_above(upward)
        self._count_reached()
        files = [self._rows, self._receipts, self._leaves, self._spans, *self._levels]
        for file in files if self._held_out is None else [*files, self._held_out]:
            self._tally.files[file.name] = file.finish()

    def _file(self, name: str) -> DigestedFile:
        return self._stack.enter_context(DigestedFile.create(self._workshop, name))

    def _counts(self, kind: int) -> Counts:
        return self._tally.kinds.setdefault(kind, Counts())

    def _begin_span(self, index: int) -> None:
        self._span_row = self._tally.rows
        span = Span(
            held_out=None if self._held_out is None else self._held_out.size,
            index=index,
            leaves=self._leaves.size,
            receipts=self._receipts.size,
            row=self._tally.rows,
            rows=self._rows.size,
            tiles=self._tiles.offsets(index),
        )
        self._spans.write(msgspec.json.encode(span) + b"\n")

    def _write_row(self, taken: Taken, row: TakenRow, part: Part, hashed: str) -> None:
        held_out = part == "held-out"
        line = ReceiptLine(
            choice=row.choice,
            derivation=taken.name if taken.derived else None,
            exchange=None if taken.derived else taken.name,
            index=taken.index,
            leaf=hashed,
            reasoned=row.reasoned,
            row=self._tally.rows,
            salt=row.salt.hex(),
            sha256=row.sha256,
            split="held-out" if held_out else None,
        )
        file = self._held_out if held_out and self._held_out is not None else self._rows
        file.write(row.line + b"\n")
        self._receipts.write(msgspec.json.encode(line) + b"\n")
        self._tally.rows += 1
        self._tally.held_out += held_out
        if row.reach >= len(self._reached):
            self._reached.extend([0] * (row.reach + 1 - len(self._reached)))
        self._reached[row.reach] += 1
        for code in row.above:
            self._above[INFLUENCES[code & 1]].add(code >> 1)

    def _write_above(self, upward: Upward) -> None:
        leaves = self._file(ABOVE)
        levels = [
            self._file(tile_file(level, ABOVE_TILES))
            for level in range(levels_of(self._covered.size))
        ]
        tiles = TilesWriter(
            self._covered.size,
            self._covered.tile,
            lambda level, hashes: levels[level].write(hashes),
        )
        given_above = GivenAbove(self._reaches)
        both = self._above["text"] | self._above["judge"]
        for index, leaf, keyid in upward.again(both):
            tiles.touch(index)
            head = index.to_bytes(8, "big") + len(leaf).to_bytes(2, "big")
            leaves.write(head + leaf)
            if keyid is not None:
                self._tally.keyids.add(keyid)
            for influence in INFLUENCES:
                if index in self._above[influence]:
                    given = given_above.of(index, leaf, influence)
                    if given is not None:
                        self._counts(given.kind).add(given)
        tiles.finish()
        for file in (leaves, *levels):
            self._tally.files[file.name] = file.finish()
        self._tally.members |= both

    def _count_reached(self) -> None:
        """Give every kind of call, transform and author the rows that it reached."""
        makers: Counter[int] = Counter()
        authors: Counter[int] = Counter()
        for reach, number in self._reaches.mixes.items():
            rows = self._reached[number] if number < len(self._reached) else 0
            if not rows:
                continue
            for kind in reach.kinds:
                self._counts(kind).rows += rows
            for maker in reach.makers:
                makers[maker] += rows
            for author in reach.authors:
                authors[author] += rows
        self._tally.made_by = tuple(
            MadeBy(name=name, version=version, kind=kind, rows=makers[number])
            for (name, version, kind), number in sorted(self._reaches.makers.items())
            if makers[number]
        )
        self._tally.written_by = tuple(
            WrittenBy(by=by, licence=licence, source=source, rows=authors[number])
            for (by, licence, source), number in sorted(self._reaches.authors.items())
            if authors[number]
        )


class GivenAbove:
    """Tells what an ancestor adds to its kind of call; of each kind one is read whole."""

    def __init__(self, reaches: Reaches) -> None:
        self._reaches = reaches
        self._known: dict[tuple[Shared, Influence], Given] = {}

    def of(self, index: int, leaf: bytes, influence: Influence) -> Given | None:
        """Return what the ancestor in *leaf* adds, which reached rows by *influence*.

        Raises:
            LedgerDamagedError: rows are made from no such leaf.
        """
        facts = read_answer(leaf)
        if facts is None:
            return self._whole(index, leaf, influence, None)
        key = (facts.shared, influence)
        known = self._known.get(key)
        if known is None:
            known = self._whole(index, leaf, influence, facts)
            if known is None:
                return None
            if len(self._known) >= KINDS_REMEMBERED_MAX:
                self._known.clear()
            self._known[key] = known
        usage = facts.usage
        return Given(
            kind=known.kind,
            day=facts.received[:10],
            declaration=known.declaration,
            reported=known.reported,
            input_tokens=None if usage is None else usage.input_tokens,
            output_tokens=None if usage is None else usage.output_tokens,
        )

    def _whole(
        self, index: int, leaf: bytes, influence: Influence, answer: Facts | None
    ) -> Given | None:
        try:
            return self._reaches.given_above(
                Above(index=index, influence=influence, leaf=leaf, answer=answer)
            )
        except MalformedReceiptError as exc:
            raise LedgerDamagedError(f"leaf {index}: {exc.message}") from exc


def _plus(sum_so_far: int | None, more: int | None) -> int | None:
    return sum_so_far if more is None else (sum_so_far or 0) + more
