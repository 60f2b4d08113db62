"""Recompute everything the ledger claims, from its leaves, in memory that does not grow.

Checked: every leaf is a statement signed by a key of the right role; every exchange that was
opened is closed at most once, and every closing statement names its own opening; the root under
each kept frontier, the head and the newest checkpoints; kept tiles; and that the index agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from gateway.errors import EvidenceError, GatewayError
from gateway.ident import ExchangeId
from gateway.limits import (
    FINDINGS_LISTED_MAX,
    LEAVES_READ_AT_ONCE,
    OPENINGS_OPEN_MAX,
)
from gateway.receipt.authority import Authority
from gateway.receipt.keys import Trust
from gateway.receipt.model import Abandonment, Opening, Receipt, Refusal, Statement
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import read_checkpoint, verify_leaf
from gateway.store.index import KINDS, Index
from gateway.store.ports import LedgerStore, TileStore
from gateway.tlog.merkle import Frontier, leaf_hash, root_of
from gateway.tlog.tile import TILE_WIDTH

Progress = Callable[[int, int], None]
"""Called with how many leaves are done, and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it must be; *index* is the leaf it was found at."""

    code: str
    message: str
    index: int | None = None

    def __str__(self) -> str:
        """Return `code: leaf 12: message`."""
        where = "" if self.index is None else f"leaf {self.index}: "
        return f"{self.code}: {where}{self.message}"


@dataclass(slots=True, kw_only=True)
class Report:
    """What was checked, and what was found."""

    size: int = 0
    root: bytes = b""
    kinds: dict[str, int] = field(default_factory=dict)
    open: list[tuple[ExchangeId, int]] = field(default_factory=list)
    """Openings that no statement closes; ordinary while the gateway runs."""
    checkpoints: list[int] = field(default_factory=list)
    """Sizes of the checkpoints that were compared."""
    findings: list[Finding] = field(default_factory=list)
    findings_count: int = 0
    """Of all findings; only the first are listed."""

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return self.findings_count == 0

    def add(self, code: str, message: str, index: int | None = None) -> None:
        """Count a finding, and list it if there is room."""
        self.findings_count += 1
        if len(self.findings) < FINDINGS_LISTED_MAX:
            self.findings.append(Finding(code=code, message=message, index=index))


@runtime_checkable
class KeepsFrontiers(Protocol):
    """A store that keeps the frontier of each commit beside its last leaf."""

    def frontiers(self, first: int, stop: int) -> Mapping[int, tuple[bytes, ...]]:
        """Return the frontiers kept with leaves *first* to *stop*, by size."""
        ...


def fsck(
    store: LedgerStore,
    trust: Trust,
    progress: Progress | None = None,
    *,
    index: Index | None = None,
    published: Iterable[str] = (),
    authority: Authority | None = None,
) -> Report:
    """Check the ledger in *store*; *published* are checkpoints known from elsewhere.

    *authority* is whose signature counts before the first leaf, where *trust* does not say it.

    Nothing is raised: what is wrong is listed, and a ledger that can't be read to its end is
    checked as far as it goes.
    """
    report = Report()
    try:
        check = _Check(store, trust, report, published, authority or Authority(trust))
        check.leaves(progress)
        check.end()
        if index is not None:
            _compare_index(index, report)
    except GatewayError as wrong:
        report.add(wrong.problem, wrong.message)
    return report


class _Check:
    """One walk over the leaves."""

    def __init__(
        self,
        store: LedgerStore,
        trust: Trust,
        report: Report,
        published: Iterable[str],
        authority: Authority,
    ) -> None:
        self._store = store
        self._trust = trust
        self._authority = authority
        self._report = report
        self._tiles = store if isinstance(store, TileStore) else None
        self._keeps_frontiers = store if isinstance(store, KeepsFrontiers) else None
        self._head = store.head()
        self._frontier = Frontier()
        self._roots: list[list[bytes]] = [[]]
        self._open: dict[int, ExchangeId] = {}
        self._too_many_open = False
        # Roots by the size they belong to; a list, because two notes may differ at one size.
        self._expected: dict[int, list[tuple[str, bytes]]] = {}
        kept = store.checkpoint()
        if kept is not None:
            self._expect("the checkpoint in the ledger", kept)
        for note in published:
            self._expect("a published checkpoint", note)

    def leaves(self, progress: Progress | None) -> None:
        """Walk over all leaves."""
        size = self._head.size
        for first in range(0, size, LEAVES_READ_AT_ONCE):
            stop = min(first + LEAVES_READ_AT_ONCE, size)
            kept = self._keeps_frontiers.frontiers(first, stop) if self._keeps_frontiers else {}
            for at, leaf in enumerate(self._store.leaves(first, stop), first):
                self._leaf(at, leaf)
                self._compare_frontier(at, kept)
            if progress is not None:
                progress(stop, size)

    def end(self) -> None:
        """Compare what was computed with the head, and note what is open."""
        report = self._report
        report.size, report.root = self._frontier.size, self._frontier.root()
        if self._frontier.hashes != self._head.frontier:
            report.add("root.differs", "the head's frontier is not that of the leaves")
        for size, expected in sorted(self._expected.items()):
            for where, _ in expected:
                report.add(
                    "checkpoint.ahead",
                    f"{where} covers {size} leaves, the ledger has {report.size}:"
                    " leaves are gone, or this is an older copy",
                )
        report.open = [(exchange, at) for at, exchange in self._open.items()]

    def _leaf(self, at: int, leaf: bytes) -> None:
        hashed = leaf_hash(leaf)
        self._frontier.push(hashed)
        self._compare_roots(at + 1)
        self._compare_tiles(at, hashed)
        try:
            statement = verify_leaf(leaf, at, self._authority)
            self._authority.admit(at, statement)
        except EvidenceError as bad:
            self._report.add(bad.problem, bad.message, at)
            return
        kind = KINDS[type(statement)]
        self._report.kinds[kind] = self._report.kinds.get(kind, 0) + 1
        self._walk(at, statement)

    def _walk(self, at: int, statement: Statement) -> None:
        """Follow an exchange from its opening to its end."""
        match statement:
            case Opening():
                if len(self._open) < OPENINGS_OPEN_MAX:
                    self._open[at] = statement.exchange
                elif not self._too_many_open:
                    self._too_many_open = True
                    self._report.add(
                        "opening.unclosed", f"more than {OPENINGS_OPEN_MAX} are open", at
                    )
            case Receipt() | Abandonment():
                self._close(at, statement.exchange, statement.opening)
            case Refusal():
                if statement.opening is not None:
                    self._close(at, statement.exchange, statement.opening)
            case _:
                pass

    def _close(self, at: int, exchange: ExchangeId, opening: int) -> None:
        if self._open.get(opening) == exchange:
            del self._open[opening]
            return
        if self._opens(opening, at, exchange):
            if not self._too_many_open:
                self._report.add("exchange.closed_twice", f"`{exchange}` was closed before", at)
            return
        self._report.add(
            "opening.missing", f"`{exchange}` says leaf {opening} opened it; it did not", at
        )

    def _opens(self, opening: int, at: int, exchange: ExchangeId) -> bool:
        if not 0 <= opening < at:
            return False
        (leaf,) = self._store.leaves(opening, opening + 1)
        try:
            statement = read_leaf(leaf)
        except EvidenceError:
            return False
        return isinstance(statement, Opening) and statement.exchange == exchange

    def _expect(self, where: str, note: str) -> None:
        try:
            checkpoint = read_checkpoint(note, self._trust)
        except EvidenceError as bad:
            self._report.add(bad.problem, f"{where}: {bad.message}")
            return
        self._report.checkpoints.append(checkpoint.size)
        if checkpoint.size > 0:
            expected = self._expected.setdefault(checkpoint.size, [])
            expected.append((where, checkpoint.root))

    def _compare_roots(self, size: int) -> None:
        for where, root in self._expected.pop(size, ()):
            if root != self._frontier.root():
                self._report.add(
                    "root.differs", f"{where} has another root for the first {size} leaves"
                )

    def _compare_frontier(self, at: int, kept: Mapping[int, tuple[bytes, ...]]) -> None:
        frontier = kept.get(at + 1)
        if frontier is not None and frontier != self._frontier.hashes:
            self._report.add("root.differs", "the frontier kept here is another", at)

    def _compare_tiles(self, at: int, hashed: bytes) -> None:
        """Compare kept tiles with the hashes they are made of, level by level."""
        if self._tiles is None:
            return
        roots, level, number = self._roots, 0, at
        while True:
            roots[level].append(hashed)
            number, place = divmod(number, TILE_WIDTH)
            if place != TILE_WIDTH - 1:
                return
            tile = b"".join(roots[level])
            kept = self._tiles.tile(level, number)
            hashed = root_of(roots[level])
            if kept is not None and (
                kept != tile
                or self._tiles.tile_roots(level, number, number + 1) != {number: hashed}
            ):
                self._report.add(
                    "tile.differs", f"tile {number} of level {level} is not that of its leaves"
                )
            roots[level] = []
            level += 1
            if level == len(roots):
                roots.append([])


def _compare_index(index: Index, report: Report) -> None:
    size = index.size
    if size > report.size:
        report.add("index.ahead", f"the index knows {size} leaves, there are {report.size}")
        return
    if size < report.size:
        return
    for kind, count in index.recount().items():
        if kind != "unreadable" and count != report.kinds.get(kind, 0):
            report.add(
                "index.differs",
                f"the index knows {count} leaves of kind {kind}, the ledger has"
                f" {report.kinds.get(kind, 0)}; remove index.db, it is made again",
            )
    if index.unclosed() != report.open:
        report.add(
            "index.differs",
            "the index lists other open exchanges than the ledger; remove index.db,"
            " it is made again",
        )
