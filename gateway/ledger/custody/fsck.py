"""Recompute everything the ledger claims, from its leaves, in memory that does not grow.

Checked: every leaf is a statement signed by a key of the right role, authorised before it and
not revoked at it; every exchange that was opened is closed at most once, and every closing
statement names its own opening; what rows were made of stands before them, and what a dataset
was made from is listed before its manifest; the root under each kept frontier, the head and the
newest checkpoints; kept tiles; and that the index agrees. Every signature is checked, in a
large ledger by several processes; what depends on the order of leaves is checked by one.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, runtime_checkable

import msgspec

from gateway.errors import EvidenceError, GatewayError
from gateway.ident import ExchangeId, Sha256, item_id
from gateway.ledger.checkers import check_in_order, checkers_at_hand
from gateway.ledger.custody.descent import Descent, Told, complaints_of, told_by
from gateway.limits import (
    FINDINGS_LISTED_MAX,
    LEAVES_CHECKED_ALONE_MAX,
    LEAVES_READ_AT_ONCE,
    OPENINGS_OPEN_MAX,
    PART_BYTES_MAX,
    PART_LEAVES_MAX,
)
from gateway.receipt.authority import Authority
from gateway.receipt.keys import Trust
from gateway.receipt.model import (
    Abandonment,
    ItemFacts,
    KeyAuthorization,
    KeyRevocation,
    Opening,
    Receipt,
    Refusal,
    Writer,
)
from gateway.receipt.statement import is_opening, read_leaf
from gateway.receipt.verify import read_checkpoint, signed_statement, verify_leaf
from gateway.store.index.index import Index
from gateway.store.index.rows import KINDS
from gateway.store.ports import LedgerStore, TileStore
from gateway.store.seen import Seen
from gateway.tlog.merkle import Frontier, leaf_hash, root_of
from gateway.tlog.tile import TILE_WIDTH

_NAMED: Final = re.compile(rb'"keyid":"(?P<keyid>[0-9a-f]{64})","sig":"(?P<sig>[^"]*)"}]}\Z')
_NAMED_BYTES_MAX: Final = 320
"""Where an envelope names its key: within its last bytes."""
_ED25519_CHARS: Final = 88

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
    disowned: list[int] = field(default_factory=list)
    """Leaves by a key that was good when it signed them, and that a later leaf revoked from
    before them on: the log is whole, but they are evidence no more."""
    disowned_count: int = 0
    """Of all such leaves; only the first are listed."""
    findings: list[Finding] = field(default_factory=list)
    findings_count: int = 0
    """Of all findings; only the first are listed."""

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return self.findings_count == 0

    def disown(self, index: int) -> None:
        """Count a leaf that is evidence no more, and list it if there is room."""
        self.disowned_count += 1
        if len(self.disowned) < FINDINGS_LISTED_MAX:
            self.disowned.append(index)

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
    workers: int | None = None,
) -> Report:
    """Check the ledger in *store*; *published* are checkpoints known from elsewhere.

    *authority* is whose signature counts before the first leaf, where *trust* does not say it.

    Large ones are checked by several processes, *workers* of them or one a core. Nothing is
    raised: what is wrong is listed, and a ledger that can't be read to its end is checked as
    far as it goes.
    """
    report = Report()
    try:
        check = _Check(store, trust, report, published, _lives_of(authority))
        check.leaves(progress, workers)
        check.end()
        if index is not None:
            _compare_index(index, report)
    except GatewayError as wrong:
        report.add(wrong.problem, wrong.message)
    report.findings.sort(key=_place)
    return report


_Known = tuple[tuple[int, KeyAuthorization], ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """Consecutive leaves, and the key statements before them that they lean on."""

    first: int
    leaves: tuple[bytes, ...]
    keys: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class _DatedBack:
    """A key that ended at leaf *since*, as the leaf *said_at* or the trust file says."""

    since: int
    said_at: int
    in_log: bool


@dataclass(slots=True)
class _Seen:
    """What was found in one part, as little as the checks of order need."""

    stop: int
    kinds: Counter[str] = field(default_factory=Counter)
    walk: list[tuple[int, ExchangeId, int | None]] = field(default_factory=list)
    """Openings, and what closes them: leaf, exchange, and for the latter its opening."""
    items: list[tuple[int, ExchangeId, ItemFacts, int]] = field(default_factory=list)
    """Receipts of items: leaf, exchange, what it says it is one of, that one's opening."""
    revoked: list[tuple[int, str, int]] = field(default_factory=list)
    """Revocations: their leaf, the key, and from which leaf on it ended."""
    told: list[Told] = field(default_factory=list)
    """What is said of leaves before: parents of rows, members of datasets."""
    findings: list[Finding] = field(default_factory=list)


def _check_part(trust: Trust, known: _Known, part: _Part) -> _Seen:
    """Check each leaf of *part* by itself, signature included."""
    authority = _authority(trust, known, part.keys)
    seen = _Seen(part.first + len(part.leaves))
    for at, leaf in enumerate(part.leaves, part.first):
        try:
            statement, by = signed_statement(leaf, at, authority)
            authority.admit(at, statement, by)
        except EvidenceError as bad:
            seen.findings.append(Finding(code=bad.problem, message=bad.message, index=at))
            continue
        seen.kinds[KINDS[type(statement)]] += 1
        seen.findings += [
            Finding(code=code, message=why, index=at) for code, why in complaints_of(statement)
        ]
        told = told_by(at, statement)
        if told is not None:
            seen.told.append(told)
        match statement:
            case Opening():
                seen.walk.append((at, statement.exchange, None))
            case Receipt(item=ItemFacts() as item):
                seen.items.append((at, statement.exchange, item, statement.opening))
            case Receipt() | Abandonment() | Refusal():
                if statement.opening is not None:
                    seen.walk.append((at, statement.exchange, statement.opening))
            case KeyRevocation():
                since = at if statement.since is None else statement.since
                seen.revoked.append((at, statement.keyid, since))
            case _:
                pass
    return seen


def _lives_of(authority: Authority | None) -> _Known:
    """Return what *authority* knows beyond its trust file, as statements that say the same."""
    if authority is None:
        return ()
    return tuple(
        (
            life.authorised_at,
            KeyAuthorization(
                keyid=Sha256(life.keyid),
                key=life.key.pem,
                role=life.role,
                expires=life.expires or "",
                by="",
                at="",
                writer=Writer(instance=life.writer or "", version=""),
            ),
        )
        for life in authority.lives
    )


def _authority(trust: Trust, known: _Known, keys: Iterable[tuple[int, bytes]]) -> Authority:
    """Return who may sign where, by what was known before and the key statements in *keys*."""
    authority = Authority(trust)
    for at, said in known:
        authority.admit(at, said)
    for at, leaf in keys:
        try:
            authority.admit(at, *signed_statement(leaf, at, authority))
        except EvidenceError:
            # It is a finding where it stands; here it says nothing of any key.
            continue
    return authority


def _authorised_by(leaf: bytes) -> set[str]:
    """Return the key that *leaf* authorises, if it is a leaf that does."""
    try:
        statement = read_leaf(leaf)
    except EvidenceError:
        return set()
    return {statement.keyid} if isinstance(statement, KeyAuthorization) else set()


def _place(finding: Finding) -> tuple[bool, int]:
    return finding.index is None, finding.index or 0


class _Check:
    """One walk over the leaves."""

    def __init__(
        self,
        store: LedgerStore,
        trust: Trust,
        report: Report,
        published: Iterable[str],
        known: _Known,
    ) -> None:
        self._store = store
        self._trust = trust
        self._known = known
        self._report = report
        self._tiles = store if isinstance(store, TileStore) else None
        self._keeps_frontiers = store if isinstance(store, KeepsFrontiers) else None
        self._head = store.head()
        self._frontier = Frontier()
        self._roots: list[list[bytes]] = [[]]
        # Where something is said of a key: by its keyid, and of manifest keys in general.
        self._said_of: dict[str, list[int]] = {}
        self._said_of_manifest_keys: list[int] = []
        # Of keys that ended before their revocation was said: since when, and where it was.
        self._dated_back: dict[str, _DatedBack] = {
            one.keyid: _DatedBack(one.since, self._head.size, in_log=False)
            for one in trust.revoked
        }
        self._open: dict[int, ExchangeId] = {}
        self._too_many_open = False
        self._items = Seen()
        self._asked: tuple[int, ExchangeId] | None = None
        self._descent = Descent(lambda at: next(iter(store.leaves(at, at + 1))))
        # Roots by the size they belong to; a list, because two notes may differ at one size.
        self._expected: dict[int, list[tuple[str, bytes]]] = {}
        kept = store.checkpoint()
        if kept is not None:
            self._expect("the checkpoint in the ledger", kept)
        for note in published:
            self._expect("a published checkpoint", note)

    def leaves(self, progress: Progress | None, workers: int | None) -> None:
        """Walk over all leaves."""
        size = self._head.size
        # In its own order first: what ends a key counts from where the ledger says so.
        as_it_grew = msgspec.structs.replace(self._trust, revoked=())
        check = functools.partial(_check_part, as_it_grew, self._known)
        count = workers or (1 if size <= LEAVES_CHECKED_ALONE_MAX else checkers_at_hand())
        parts = self._parts(size)
        answers = map(check, parts) if count == 1 else check_in_order(check, parts, count)
        for seen in answers:
            self._take(seen)
            if progress is not None:
                progress(seen.stop, size)
        self._follow_revocations()

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
        self._items.close()

    def _parts(self, size: int) -> Iterator[_Part]:
        """Yield the leaves, once their hashes were compared with all that is kept of them."""
        first, leaves, length, keyids = 0, list[bytes](), 0, set[str]()
        for start in range(0, size, LEAVES_READ_AT_ONCE):
            stop = min(start + LEAVES_READ_AT_ONCE, size)
            kept = self._keeps_frontiers.frontiers(start, stop) if self._keeps_frontiers else {}
            for at, leaf in enumerate(self._store.leaves(start, stop), start):
                self._hash(at, leaf, kept)
                leaves.append(leaf)
                length += len(leaf)
                keyids.update(self._keyids(at, leaf))
                if length >= PART_BYTES_MAX or len(leaves) >= PART_LEAVES_MAX:
                    yield _Part(first, tuple(leaves), self._key_leaves(keyids, first))
                    first, leaves, length, keyids = at + 1, [], 0, set()
        if leaves:
            yield _Part(first, tuple(leaves), self._key_leaves(keyids, first))

    def _keyids(self, at: int, leaf: bytes) -> Iterator[str]:
        """Yield the key that *leaf* names and the one it speaks of; remember where it does."""
        named = _NAMED.search(leaf, max(0, len(leaf) - _NAMED_BYTES_MAX))
        if named is None:
            return
        yield named["keyid"].decode()
        if len(named["sig"]) != _ED25519_CHARS:
            # Only manifest keys make signatures of another length, and only they may say
            # something of keys; whether it holds is for whoever leans on it to find out.
            with contextlib.suppress(EvidenceError):
                statement = read_leaf(leaf)
                if isinstance(statement, KeyAuthorization | KeyRevocation):
                    self._said_of.setdefault(statement.keyid, []).append(at)
                    if statement.role == "manifest":
                        self._said_of_manifest_keys.append(at)
                    # It may end a key that signed nothing near it.
                    yield statement.keyid

    def _key_leaves(self, keyids: Iterable[str], before: int) -> tuple[tuple[int, bytes], ...]:
        """Return what was said of *keyids*, and of all manifest keys, before a leaf."""
        said = set(self._said_of_manifest_keys).union(
            *(self._said_of.get(keyid, ()) for keyid in keyids)
        )
        return tuple(
            (at, next(self._store.leaves(at, at + 1))) for at in sorted(said) if at < before
        )

    def _follow_revocations(self) -> None:
        """Go back over what a key signed after its end and before that was said."""
        left, followed, unnamed = list(self._dated_back.items()), set[str](), set[int]()
        while left:
            keyid, ended = left.pop(0)
            said = self._key_leaves([keyid], self._head.size)
            authority = _authority(self._trust, self._known, said)
            leaves = self._store.leaves(min(ended.since, ended.said_at), ended.said_at)
            for at, leaf in enumerate(leaves, ended.since):
                named = _NAMED.search(leaf, max(0, len(leaf) - _NAMED_BYTES_MAX))
                if is_opening(leaf) or at in unnamed:
                    continue
                if named is not None and named["keyid"] != keyid.encode():
                    continue
                try:
                    verify_leaf(leaf, at, authority)
                except EvidenceError as bad:
                    if ended.in_log:
                        self._report.disown(at)
                    else:
                        self._report.add(bad.problem, bad.message, at)
                    if named is None:
                        unnamed.add(at)
                    # Whom it let sign in between could not sign either.
                    given = _authorised_by(leaf) - followed
                    left += [(one, self._until_its_own(one, at + 1, ended)) for one in given]
                    followed |= given

    def _until_its_own(self, keyid: str, since: int, ended: _DatedBack) -> _DatedBack:
        """Return the end, from *since* on, of a key that *ended* takes along."""
        own = self._dated_back.get(keyid)
        said_at = ended.said_at if own is None else min(own.since, ended.said_at)
        return replace(ended, since=since, said_at=said_at)

    def _hash(self, at: int, leaf: bytes, kept: Mapping[int, tuple[bytes, ...]]) -> None:
        hashed = leaf_hash(leaf)
        self._frontier.push(hashed)
        self._compare_roots(at + 1)
        self._compare_tiles(at, hashed)
        self._compare_frontier(at, kept)

    def _take(self, seen: _Seen) -> None:
        """Follow, in order, what was found in a part."""
        report = self._report
        for kind, count in seen.kinds.items():
            report.kinds[kind] = report.kinds.get(kind, 0) + count
        for finding in seen.findings:
            report.add(finding.code, finding.message, finding.index)
        for at, keyid, since in seen.revoked:
            known = self._dated_back.get(keyid)
            if since < at or known is not None:
                first = since if known is None else min(since, known.since)
                self._dated_back[keyid] = _DatedBack(first, at, in_log=True)
        for at, exchange, opening in seen.walk:
            if opening is None:
                self._opened(at, exchange)
            else:
                self._close(at, exchange, opening)
        for at, exchange, item, opening in seen.items:
            self._take_item(at, exchange, item, opening)
        for told in seen.told:
            for code, why in self._descent.follow(told):
                report.add(code, why, told.at)

    def _opened(self, at: int, exchange: ExchangeId) -> None:
        if len(self._open) < OPENINGS_OPEN_MAX:
            self._open[at] = exchange
        elif not self._too_many_open:
            self._too_many_open = True
            self._report.add("opening.unclosed", f"more than {OPENINGS_OPEN_MAX} are open", at)

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

    def _take_item(self, at: int, exchange: ExchangeId, item: ItemFacts, opening: int) -> None:
        if exchange != item_id(item.of, item.number):
            self._report.add("item.misnamed", f"`{exchange}` is not item {item.number}", at)
        elif self._asked != (opening, item.of) and not self._opens(opening, at, item.of):
            self._report.add(
                "opening.missing", f"`{item.of}` was not opened by leaf {opening}", at
            )
        else:
            # The lines of a batch follow on each other, and have one opening.
            self._asked = (opening, item.of)
            if not self._items.add(exchange):
                self._report.add("item.twice", f"`{exchange}` has another receipt before", at)

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
