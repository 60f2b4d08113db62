"""A feed: snapshots NAME-0001, NAME-0002, … of what was approved since the one before.

Each snapshot is an ordinary dataset whose manifest names the one before, and how far the ledger
had been looked through when it was frozen. What waited for people or terms then is looked at
again each time, so that a late yes loses nothing; a row that stands in one snapshot stands in
no other. All of that is read from the folders of the snapshots: a feed that is run again goes
on where it was.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from gateway.dataset.above import above_of
from gateway.dataset.assembly.build import Feed
from gateway.dataset.gate.gate import Gate
from gateway.dataset.gate.refusals import LeftOut
from gateway.dataset.manifest import (
    LEDGER_CHECKPOINT,
    LEFT_OUT,
    RECEIPTS,
    DatasetManifest,
    Parameters,
    parse_manifest,
)
from gateway.dataset.verification.logged import verify_logged
from gateway.errors import BadDigestError, GateRefusedError, MalformedReceiptError
from gateway.ident import ExchangeId, Sha256
from gateway.receipt.keys import Trust
from gateway.receipt.model import Derivation, Receipt, Statement
from gateway.receipt.statement import read_leaf

WAITS: Final = frozenset({"waiting-for-review", "terms-hold-use", "declined", "no-policy"})
"""Reasons that a person, or legal, can still take away without another leaf of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One snapshot that stands."""

    folder: Path
    manifest: DatasetManifest
    payload_sha256: Sha256

    @property
    def size(self) -> int:
        """How many leaves had been looked through when it was frozen."""
        for dependency in self.manifest.dependencies:
            if dependency.kind == LEDGER_CHECKPOINT:
                return int(dependency.annotations["size"])
        raise GateRefusedError(
            f"`{self.folder}` names no checkpoint", hint="take it from its source again"
        )


class Chain:
    """The snapshots of one feed that stand in a folder, the oldest first."""

    def __init__(self, name: str, folder: Path, trust: Trust) -> None:
        """Read them.

        Raises:
            EvidenceError: the manifest of one is not signed, or not in the log.
            GateRefusedError: one is missing, or follows another than the one before it.
        """
        self.name = name
        self._folder = folder
        self.snapshots: list[Snapshot] = []
        last = max((_number(name, path) for path in folder.glob(f"{name}-*")), default=0)
        for number in range(1, last + 1):
            self.snapshots.append(self._read(number, trust))

    @property
    def newest(self) -> Snapshot | None:
        """The last snapshot, if there is any."""
        return self.snapshots[-1] if self.snapshots else None

    @property
    def after(self) -> int:
        """From which leaf on nothing has been looked at."""
        return 0 if self.newest is None else self.newest.size

    def next_name(self) -> str:
        """Return the name of the snapshot that comes next."""
        return _name(self.name, len(self.snapshots) + 1)

    def next_folder(self) -> Path:
        """Return where it will stand."""
        return self._folder / self.next_name()

    def feed(self) -> Feed:
        """Return where the next snapshot stands."""
        newest = self.newest
        return Feed(
            follows=None if newest is None else newest.payload_sha256,
            after=self.after,
            seen=self.seen,
        )

    def seen(self) -> Iterator[bytes]:
        """Yield the SHA-256 of every row of every snapshot.

        Raises:
            BadDigestError: a list of receipts is not the one that was signed.
        """
        for snapshot in self.snapshots:
            _check(snapshot, RECEIPTS)
            with (snapshot.folder / RECEIPTS).open("rb") as lines:
                for line in lines:
                    yield bytes.fromhex(_SEEN.decode(line).sha256)

    def waiting(self) -> list[ExchangeId]:
        """Return what waited for people or terms when the last snapshot was frozen.

        Raises:
            BadDigestError: the list of what was left out is not the one that was signed.
        """
        if self.newest is None:
            return []
        _check(self.newest, LEFT_OUT)
        with (self.newest.folder / LEFT_OUT).open("rb") as lines:
            said = (_LEFT_OUT.decode(line) for line in lines)
            names = [one.exchange or one.derivation for one in said if one.reason in WAITS]
        return [ExchangeId(name) for name in dict.fromkeys(names) if name]

    def check_same(self, asked: Parameters) -> None:
        """Check that the next snapshot is asked for in the words of the one before.

        Raises:
            GateRefusedError: it is not.
        """
        if self.newest is None:
            return
        before = self.newest.manifest.asked
        same = msgspec.structs.replace(
            asked, dataset=before.dataset, follows=before.follows, after=before.after
        )
        if same != before:
            raise GateRefusedError(
                f"feed `{self.name}` was begun with other words than these",
                hint="ask as before, or begin another feed under another name",
                code="dataset.feed_changed",
            )

    def _read(self, number: int, trust: Trust) -> Snapshot:
        folder = self._folder / _name(self.name, number)
        if not folder.is_dir():
            raise GateRefusedError(
                f"snapshot `{folder.name}` of feed `{self.name}` is missing",
                hint="put it back: its rows must not stand in another; or begin another feed",
                code="dataset.feed_broken",
            )
        logged = verify_logged(folder, trust)
        manifest = parse_manifest(logged.statement)
        newest = self.newest
        follows = None if newest is None else newest.payload_sha256
        if manifest.asked.follows != follows or manifest.asked.after is None:
            raise GateRefusedError(
                f"`{folder.name}` does not follow the snapshot before it",
                hint="its name is another dataset's; begin another feed under another name",
                code="dataset.feed_broken",
            )
        return Snapshot(folder=folder, manifest=manifest, payload_sha256=logged.payload_sha256)


Fresh = Callable[[int], Iterable[tuple[int, bytes]]]
"""Gives candidates, leaf index and leaf, from a leaf on."""


class Watch:
    """Counts what could be frozen now, looking at each new leaf once."""

    def __init__(self, waiting: Iterable[int], after: int) -> None:
        self._waiting: set[int] = set(waiting)
        self._after = after
        self._version = -1
        self.ready = 0
        """How many rows would pass, if none is the same as another."""
        self.waiting: Counter[str] = Counter()
        """How many candidates wait for what."""

    def look(
        self, gate: Gate, version: int, fresh: Fresh, leaf: Callable[[int], bytes], size: int
    ) -> None:
        """Look at what came since, and again at what waited if somebody said something.

        *version* is that of what was said, *size* how far the ledger goes; *leaf* gives the
        leaf at an index.
        """
        if version != self._version:
            self.waiting.clear()
            for index in sorted(self._waiting):
                self._count(gate, index, leaf(index), leaf)
            self._version = version
        for index, candidate in fresh(self._after):
            if index < size:
                self._count(gate, index, candidate, leaf)
        self._after = max(self._after, size)

    def _count(
        self, gate: Gate, index: int, candidate: bytes, leaf: Callable[[int], bytes]
    ) -> None:
        self._waiting.discard(index)
        for why in _looked_at(gate, index, read_leaf(candidate), leaf):
            if why is None:
                self.ready += 1
            elif why.reason in WAITS:
                self._waiting.add(index)
                self.waiting[why.reason] += 1


def _looked_at(
    gate: Gate, index: int, statement: Statement, leaf: Callable[[int], bytes]
) -> Iterator[LeftOut | None]:
    """Yield for each row of a candidate why it can't be taken, or `None`."""
    if isinstance(statement, Receipt):
        why = gate.admit(statement)
        if why is not None:
            yield why
        else:
            yield from (None for unit in statement.outputs if unit.row is not None)
    elif isinstance(statement, Derivation):
        for place in range(len(statement.rows)):
            try:
                above = above_of(statement, place, leaf, index=index)
            except MalformedReceiptError:
                continue
            yield gate.admit_row(statement, place, above)


def _name(name: str, number: int) -> str:
    return f"{name}-{number:04}"


def _number(name: str, path: Path) -> int:
    digits = path.name.removeprefix(f"{name}-")
    known = path.is_dir() and len(digits) >= _DIGITS and digits.isascii() and digits.isdigit()
    return int(digits) if known and path.name == _name(name, int(digits)) else 0


def _check(snapshot: Snapshot, name: str) -> None:
    with (snapshot.folder / name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != snapshot.manifest.digests[name]:
        raise BadDigestError(
            f"{snapshot.folder / name}: the file was changed after the manifest was signed",
            hint="take the snapshot from its source again",
        )


class _Seen(msgspec.Struct, frozen=True):
    sha256: str


class _LeftOut(msgspec.Struct, frozen=True):
    reason: str
    exchange: str | None = None
    derivation: str | None = None


_SEEN: Final = msgspec.json.Decoder(_Seen)
_LEFT_OUT: Final = msgspec.json.Decoder(_LeftOut)
_DIGITS: Final = 4
