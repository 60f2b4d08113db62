"""An oracle outside the process under test: what clients saw, and whether the log bears it out.

Whoever plays a client tells it what came back; each line is in a file before the next thing
happens, so that several client processes can share one and none of it dies with anybody.
`judge` then reads the leaves that are there and lists every way in which they break a promise:

* an answer that was seen whole has a receipt, whose digest is that of the bytes seen;
* an answer that was begun has an opening; a refusal that was seen is written down;
* an index that was promised still holds the leaf it was promised for: none is used twice;
* every checkpoint ever seen is signed, and the log has grown out of it (consistency is proven);
* every opening is closed, and once (unless exchanges are still under way).
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.errors import EvidenceError
from gateway.receipt.model import Abandonment, Opening, Receipt, Refusal
from gateway.receipt.statement import read_leaf, statement_subjects
from gateway.tlog.checkpoint import Checkpoint, parse_checkpoint
from gateway.tlog.merkle import (
    EMPTY_ROOT,
    consistency_proof,
    leaf_hash,
    node_hash,
    verify_consistency,
)
from gateway.tlog.note import open_note, parse_vkey


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Violation:
    """A promise that was broken, and where."""

    code: str
    message: str

    def __str__(self) -> str:
        """Return `code: message`."""
        return f"{self.code}: {self.message}"


class Oracle:
    """Remembers in *file* what clients saw; any thread and any process may tell it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock = threading.Lock()

    def answered(self, exchange: str, body: bytes, *, whole: bool) -> None:
        """Note the answer of an exchange: the bytes seen, and whether their end was seen."""
        digest = hashlib.sha256(body).hexdigest()
        self._tell(kind="answer", exchange=exchange, sha256=digest, whole=whole)

    def refused(self, exchange: str) -> None:
        """Note that a use was held or forbidden."""
        self._tell(kind="refusal", exchange=exchange)

    def placed(self, index: int, leaf: bytes) -> None:
        """Note that *leaf* was promised its place at *index*."""
        self.placed_digest(index, hashlib.sha256(leaf).hexdigest())

    def placed_digest(self, index: int, sha256: str) -> None:
        """Note that the leaf with that digest was promised its place at *index*."""
        self._tell(kind="place", index=index, sha256=sha256)

    def noted(self, note: str) -> None:
        """Note a checkpoint, a signed note, that was seen."""
        self._tell(kind="note", note=note)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)

    def memories(self) -> Iterator[dict[str, Any]]:
        """Yield all that was told, by whomever."""
        with self.file.open() as lines:
            for line in lines:
                yield json.loads(line)

    def whole(self) -> int:
        """Return how many answers were seen whole."""
        return sum(1 for one in self.memories() if one["kind"] == "answer" and one["whole"])

    def _tell(self, **seen: Any) -> None:
        line = json.dumps(seen).encode() + b"\n"
        with self._lock:
            # One write to a file opened for appending: lines of several processes stay whole.
            os.write(self._handle, line)


class Tree:
    """Leaf hashes, and the root of any run of them; aligned subtrees are computed once."""

    def __init__(self) -> None:
        self._hashes: list[bytes] = []
        self._known: dict[tuple[int, int], bytes] = {}

    def push(self, hashed: bytes) -> None:
        """Add a leaf hash at the end."""
        self._hashes.append(hashed)

    def subtree(self, first: int, stop: int) -> bytes:
        """Return the root over leaves *first* up to, not including, *stop* (RFC 6962, 2.1)."""
        width = stop - first
        if width <= 1:
            return self._hashes[first] if width else EMPTY_ROOT
        known = self._known.get((first, stop))
        if known is not None:
            return known
        middle = first + (1 << (width - 1).bit_length() - 1)
        made = node_hash(self.subtree(first, middle), self.subtree(middle, stop))
        if width & (width - 1) == 0:
            # Only of these is it sure that they never change and are few.
            self._known[first, stop] = made
        return made


def judge(
    oracle: Oracle, leaves: Iterable[bytes], logs: Sequence[str], *, settled: bool = True
) -> list[Violation]:
    """Return every promise of *oracle*'s that *leaves* break; see the module.

    *logs* are the vkeys under which checkpoints are believed. *settled*: no exchange is under
    way, so that every opening must be closed.
    """
    record = Record()
    record.add(leaves)
    return record.judge(oracle, logs, settled=settled)


@dataclass(slots=True)
class Record:
    """What the leaves say, read once each however often they are judged."""

    tree: Tree = field(default_factory=Tree)
    leaves: list[str] = field(default_factory=list)
    """SHA-256 of each leaf."""
    openings: Counter[str] = field(default_factory=Counter)
    receipts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    abandonments: Counter[str] = field(default_factory=Counter)
    digests: dict[str, str] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    """Exchanges of closing statements that came before their opening, or named another."""
    _opened_at: dict[int, str] = field(default_factory=dict)

    def add(self, leaves: Iterable[bytes]) -> None:
        """Take in *leaves*, which follow those taken in before."""
        for leaf in leaves:
            index = len(self.leaves)
            self.tree.push(leaf_hash(leaf))
            self.leaves.append(hashlib.sha256(leaf).hexdigest())
            try:
                self._note(index, leaf)
            except EvidenceError:
                # Not every test appends statements; what is no statement closes nothing.
                continue

    def judge(
        self, oracle: Oracle, logs: Sequence[str], *, settled: bool = True
    ) -> list[Violation]:
        """Return every promise that what was taken in breaks."""
        found: list[Violation] = []
        places: dict[int, str] = {}
        notes: set[str] = set()
        for seen in oracle.memories():
            match seen["kind"]:
                case "answer":
                    found += self._answer(seen["exchange"], seen["sha256"], whole=seen["whole"])
                case "refusal":
                    if not self.refusals[seen["exchange"]]:
                        found.append(
                            _violation("refusal.unwritten", f"`{seen['exchange']}` has none")
                        )
                case "place":
                    found += self._place(places, seen["index"], seen["sha256"])
                case "note":
                    notes.add(seen["note"])
                case other:
                    raise AssertionError(other)
        for note in notes:
            found += self._note_holds(note, logs)
        found += self._closings(settled=settled)
        return sorted(set(found))

    def _note(self, index: int, leaf: bytes) -> None:
        statement = read_leaf(leaf)
        match statement:
            case Opening():
                self.openings[statement.exchange] += 1
                self._opened_at[index] = statement.exchange
            case Receipt():
                self.receipts[statement.exchange] += 1
                named = {one.name: one.digest for one in statement_subjects(leaf)}
                self.digests[statement.exchange] = named["response.body"]["sha256"]
                self._closes(statement.exchange, statement.opening)
            case Abandonment():
                self.abandonments[statement.exchange] += 1
                self._closes(statement.exchange, statement.opening)
            case Refusal():
                self.refusals[statement.exchange] += 1
                if statement.opening is not None:
                    self._closes(statement.exchange, statement.opening)
            case _:
                pass

    def _closes(self, exchange: str, opening: int) -> None:
        if self._opened_at.get(opening) != exchange:
            self.late.add(exchange)

    def _answer(self, exchange: str, sha256: str, *, whole: bool) -> Iterator[Violation]:
        if not self.openings[exchange]:
            yield _violation("answer.unopened", f"`{exchange}` was begun without an opening")
        if not whole:
            return
        if not self.receipts[exchange]:
            yield _violation("answer.unreceipted", f"`{exchange}` was seen whole")
        elif self.digests[exchange] != sha256:
            yield _violation(
                "answer.other",
                f"`{exchange}`: {sha256} was seen, {self.digests[exchange]} was written",
            )

    def _place(self, places: dict[int, str], index: int, sha256: str) -> Iterator[Violation]:
        if places.setdefault(index, sha256) != sha256:
            yield _violation("index.promised_twice", f"{index} was promised for two leaves")
        if index >= len(self.leaves):
            yield _violation("leaf.lost", f"leaf {index} was promised; {len(self.leaves)} are")
        elif self.leaves[index] != sha256:
            yield _violation("index.reused", f"leaf {index} is not the one it was promised for")

    def _note_holds(self, note: str, logs: Sequence[str]) -> Iterator[Violation]:
        try:
            checkpoint = _opened(note, logs)
        except EvidenceError as bad:
            yield _violation("checkpoint.unsigned", str(bad))
            return
        size = len(self.leaves)
        if checkpoint.size > size:
            yield _violation(
                "checkpoint.ahead",
                f"one of {checkpoint.size} leaves was seen; {size} are there",
            )
            return
        if checkpoint.size == 0:
            return
        proof = consistency_proof(checkpoint.size, size, self.tree.subtree)
        try:
            verify_consistency(
                checkpoint.size, checkpoint.root, size, self.tree.subtree(0, size), proof
            )
        except EvidenceError as bad:
            yield _violation("checkpoint.inconsistent", f"size {checkpoint.size}: {bad}")

    def _closings(self, *, settled: bool) -> Iterator[Violation]:
        closed = self.receipts + self.abandonments
        for exchange, count in self.openings.items():
            if count > 1:
                yield _violation("exchange.opened_twice", f"`{exchange}`: {count} openings")
            ends = closed[exchange] + self.refusals[exchange]
            if ends > 1:
                yield _violation("exchange.closed_twice", f"`{exchange}`: {ends} closings")
            if settled and not ends:
                yield _violation("opening.unclosed", f"`{exchange}` is still open")
        for exchange in closed.keys() - self.openings.keys() | self.late:
            yield _violation("opening.missing", f"`{exchange}` closes what was not opened")


def _opened(note: str, logs: Sequence[str]) -> Checkpoint:
    verifiers = {vkey.partition("+")[0]: parse_vkey(vkey) for vkey in logs}
    origin = note.partition("\n")[0]
    asked = [verifiers[origin]] if origin in verifiers else []
    return parse_checkpoint(open_note(note, asked))


def _violation(code: str, message: str) -> Violation:
    return Violation(code=code, message=message)
