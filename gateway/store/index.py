"""A query index over the ledger's leaves: what people and gates search by.

It holds nothing that the leaves don't say, and is made again from them whenever it is missing,
damaged, or belongs to another ledger. Whoever can write it can hide a statement from a search,
not from the ledger.

It is divided by time, into stretches of leaves in a row (`places.py`): of each it keeps its
first and last instant and, for each word that can be searched by, the places that have it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import operator
import sqlite3
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, assert_never

import msgspec

from gateway.errors import LedgerDamagedError, MalformedReceiptError
from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.receipt.model import (
    Abandonment,
    Activation,
    AgreementFacts,
    DeclarationFacts,
    Derivation,
    Erasure,
    KeyAuthorization,
    KeyRevocation,
    LogSuccession,
    Manifest,
    Members,
    Opening,
    OrganisationFacts,
    Receipt,
    Refusal,
    ResourceFacts,
    Statement,
    Takeover,
    TermsChange,
    Verdict,
    Withdrawal,
)
from gateway.receipt.statement import read_leaf
from gateway.store import lineage
from gateway.store.lineage import Chunk, Lineage, StageFacts
from gateway.store.places import ALL, PLACES_BYTES, STRETCH, after, pack, places_of, unpack
from gateway.store.ports import LedgerStore
from gateway.store.tables import (
    Database,
    Migrations,
    deferred,
    immediate,
    open_database,
    translated,
)

Kind = Literal[
    "opening",
    "receipt",
    "refusal",
    "abandonment",
    "declaration",
    "verdict",
    "withdrawal",
    "agreement",
    "organisation",
    "activation",
    "terms-change",
    "key-authorization",
    "key-revocation",
    "log-succession",
    "erasure",
    "takeover",
    "derivation",
    "members",
    "manifest",
    "unreadable",
]
"""What a leaf is; `unreadable` is for one that this release has no reader for."""

CLOSING: Final = ("receipt", "refusal", "abandonment")
"""The kinds that end an exchange."""

Progress = Callable[[int, int], None]
"""Called with how many leaves are done, and how many there are."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What the index knows about one leaf; the leaf itself is the evidence."""

    index: int
    kind: Kind
    at: str | None = None
    """When it was written: for a receipt, when the answer had ended."""
    exchange: ExchangeId | None = None
    opening: int | None = None
    project: str | None = None
    principal: str | None = None
    provider: str | None = None
    model: str | None = None
    """The model asked for."""
    model_reported: str | None = None
    model_manifest: Sha256 | None = None
    operation: str | None = None
    purpose: str | None = None
    declaration: DeclarationId | None = None
    effect: str | None = None
    ended: str | None = None
    readable: bool | None = None
    approved: bool | None = None
    obligations: tuple[str, ...] = ()
    manifest: Sha256 | None = None
    """The manifest that this leaf is, or that it withdraws."""
    made: tuple[ResourceFacts, ...] = ()
    """Resources that it tells of; kept in a table of their own."""
    stop: str | None = None
    """How the provider said no, if it did."""
    transform: str | None = None
    """What made the rows of a derivation."""
    tags: tuple[str, ...] = ()
    stage: StageFacts | None = None
    """What a manifest says of itself; kept in tables of its own, as are the next two."""
    members: Chunk | None = None
    parents: tuple[int, ...] = ()
    """The leaves that the rows of a derivation were made from."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A resource at a provider, and the exchange that had it made or first told of it."""

    leaf: int
    kind: str
    id: str
    role: str | None = None
    of: str | None = None
    exchange: ExchangeId
    project: str
    principal: str
    declaration: DeclarationId | None = None


_BESIDE: Final = frozenset({"made", "stage", "members", "parents"})
"""What is kept in tables of its own."""
_FIELDS: Final = tuple(name for name in Row.__struct_fields__ if name not in _BESIDE)
_PLAIN: Final = ("at", "exchange", "opening", "readable", "approved")
"""What is kept as it is; everything else is a word, and kept as that word's number."""
_WORDS: Final = tuple(name for name in _FIELDS[1:] if name not in _PLAIN)
_PLAIN_OF: Final = operator.attrgetter("index", *_PLAIN)
_WORDS_OF: Final = operator.attrgetter(*_WORDS)
_SEARCHED: Final = tuple(
    name for name in _WORDS if name not in {"model_manifest", "operation", "ended"}
)
"""Words whose places are kept."""

_COLUMNS: Final = ("leaf", *_PLAIN, *_WORDS)
_INSERT: Final = f"INSERT INTO coded VALUES ({', '.join('?' for _ in _COLUMNS)})"  # noqa: S608
_SELECT: Final = f"SELECT leaf, {', '.join(_FIELDS[1:])} FROM statement"  # noqa: S608 — names of ours
_NUMBER_BITS: Final = 24
_NUMBERS: Final = 1 << _NUMBER_BITS
"""Stretches that one word's places can be kept of: a hundred thousand million leaves."""
_PAGE: Final = 1_000
_FAR_APART: Final = 100
"""Rows that are further apart, on average, are on a page each."""
_FETCHED_MIN: Final = 100
_READERS: Final = 8
_STRETCHES_AT_ONCE: Final = (8, 256)
"""How many stretches are looked through at first, and at most; doubling in between."""
_WORDS_REMEMBERED_MAX: Final = 100_000
_CACHE_KIB: Final = 32_768
"""Pages kept in memory while much is indexed: a stretch adds to the last page of each word."""

migrations = Migrations("index")


@migrations()
def statements_and_watermark(database: Database) -> None:
    """Make the tables of the first release."""
    # An opening stands here until its closing statement comes.
    database.table("unclosed").create(
        {"opening": int, "exchange": str}, pk="opening", strict=True
    )
    database.table("watermark").create(
        {"one": int, "size": int, "last_sha256": str}, pk="one", strict=True
    )
    database.table("watermark").insert({"one": 1, "size": 0, "last_sha256": ""})


@migrations()
def obligations_with_values(database: Database) -> None:
    """Begin anew: obligations may hold blanks now, and stand divided by commas."""
    database.table("unclosed").delete_where()
    database.table("watermark").update(1, {"size": 0, "last_sha256": ""})


@migrations()
def stretches_and_words(database: Database) -> None:
    """Begin anew: what leaves share is kept once, and where it stands as bits a stretch."""
    database.table("statement").drop(ignore=True)
    obligations_with_values(database)
    database.table("word").create(
        {"id": int, "role": str, "value": str, "count": int}, pk="id", strict=True
    )
    database.table("word").create_index(["role", "value"], unique=True)
    plain = {"at": str, "exchange": str, "opening": int, "readable": int, "approved": int}
    database.table("coded").create(
        {"leaf": int, **plain, **dict.fromkeys(_WORDS, int)}, pk="leaf", strict=True
    )
    database.table("coded").create_index(["exchange"])
    # The places of a word in a stretch stand under `word << 24 | stretch`.
    database.table("places").create({"id": int, "bits": bytes}, pk="id", strict=True)
    database.table("stretch").create(
        {"number": int, "at_first": str, "at_last": str, "undated": int},
        pk="number",
        strict=True,
    )
    _see_words(database)


def _see_words(database: Database) -> None:
    words = (f"(SELECT value FROM word WHERE id = coded.{name}) AS {name}" for name in _WORDS)  # noqa: S608
    columns = ", ".join(("leaf", *_PLAIN, *words))
    database.create_view("statement", f"SELECT {columns} FROM coded")  # noqa: S608


@migrations()
def resources(database: Database) -> None:
    """Make the table of what is kept with providers; the first that told of it had it made."""
    database.table("resource").create(
        {"provider": str, "kind": str, "id": str, "leaf": int, "role": str, "of": str},
        pk=("provider", "kind", "id"),
        strict=True,
    )


@migrations()
def resources_by_id(database: Database) -> None:
    """Find what is kept with providers by its id alone, too."""
    database.table("resource").create_index(["provider", "id"])


@migrations()
def stops(database: Database) -> None:
    """Let providers' ways of saying no be searched by; older leaves tell of none."""
    if "stop" not in database.table("coded").columns_dict:
        database.table("coded").add_column("stop", int)
        database.view("statement").drop()
        _see_words(database)


@migrations()
def tags_and_transforms(database: Database) -> None:
    """Let tags, and transforms of pipelines, be searched by; older leaves have none."""
    known = database.table("coded").columns_dict
    for name in ("transform", "tags"):
        if name not in known:
            database.table("coded").add_column(name, int)
    database.view("statement").drop()
    _see_words(database)


@migrations()
def stages(database: Database) -> None:
    """Make the tables of lineage; what is indexed already is looked through at the next use."""
    for statement in lineage.SCHEMA:
        database.conn.execute(statement)
    # Below this leaf, stages are known; it lags behind only here.
    database.conn.execute("ALTER TABLE watermark ADD COLUMN stages INTEGER NOT NULL DEFAULT 0")


@migrations()
def lists_of_members(database: Database) -> None:
    """Keep how many leaves a dataset says that it was made from; none was built before."""
    database.conn.execute("ALTER TABLE stage ADD COLUMN members INTEGER")
    # To be added up without a look at the bits.
    database.conn.execute("DROP INDEX member_of")
    database.conn.execute("CREATE INDEX member_of ON member (stage, chunk, count)")


@dataclass(frozen=True, slots=True)
class _Filter:
    """Words that a row must have one of, in one of its columns."""

    columns: tuple[str, ...]
    condition: str
    values: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a row must be like; without filters and days, any is."""

    filters: tuple[_Filter, ...] = ()
    since: str | None = None
    until: str | None = None

    def times(self, first: str, last: str) -> tuple[str, list[str | int]]:
        """Return the condition that *first* to *last* touches the days, and its values."""
        terms, values = ["TRUE"], list[str | int]()
        if self.since is not None:
            terms.append(f"{last} >= ?")
            values.append(self.since)
        if self.until is not None:
            # The text of an instant begins with that of its day, its hour and its minute.
            terms.append(f"substr({first}, 1, ?) <= ?")
            values += [len(self.until), self.until]
        return " AND ".join(terms), values

    @property
    def timed(self) -> bool:
        """Whether only some days are wanted."""
        return self.since is not None or self.until is not None


@dataclass(frozen=True, slots=True)
class _Found:
    """The words that a filter stands for, in this index, and how often they occur."""

    columns: tuple[str, ...]
    words: tuple[int, ...]
    count: int


class _Numbers(dict[str | tuple[str, ...], int]):
    """The numbers of the words of one role; those not known yet are looked up as they come."""

    def __init__(self, role: str, number: Callable[[str, str], int]) -> None:
        super().__init__()
        self._role = role
        self._number = number

    def __missing__(self, word: str | tuple[str, ...]) -> int:
        # No obligation holds a comma (`policy/obligation.py`).
        value = word if isinstance(word, str) else ",".join(word)
        number = self[word] = self._number(self._role, value)
        return number


class Index:
    """The query index in one file; any thread may use it, one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._same_ledger = False
        # OWNED BY: catch_up(), between two commits. Numbers of words are never used again.
        self._numbers = {role: _Numbers(role, self._number) for role in _WORDS}
        try:
            self._database = open_database(path, migrations)
        except LedgerDamagedError:
            # It holds nothing of its own: the leaves say it all again.
            path.unlink()
            path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
            self._database = open_database(path, migrations)
        self.lineage = Lineage(self._database.conn, self._reading, self._bits_of)
        """What was made of what."""

    @property
    def size(self) -> int:
        """How many leaves are indexed."""
        return self._watermark()[0]

    def catch_up(self, leaves: LedgerStore, progress: Progress | None = None) -> int:
        """Index what was added since; return how many leaves. Safe in several processes.

        Raises:
            LedgerUnwellError: the index can't be written at present.
        """
        done = 0
        if self._same_ledger and self.size == leaves.head().size:
            return done
        while True:
            with self._writing():
                size, goal = self._watermark_of(leaves), leaves.head().size
                stop = min(size - size % STRETCH + STRETCH, goal)
                self._same_ledger = True
                self._know_stages(leaves)
                if size >= goal:
                    return done
                if goal - size > STRETCH:
                    self.expect_much()
                rows, last = [], b""
                for index, leaf in enumerate(leaves.leaves(size, stop), size):
                    rows.append(row_of(index, leaf))
                    last = leaf
                self._add(rows)
                self._note_watermark(stop, last)
                done += stop - size
            if progress is not None:
                progress(stop, goal)

    def add(self, rows: Sequence[Row], last: bytes) -> None:
        """Index the *rows* that come next, all of one stretch; *last* is the last leaf."""
        with self._writing():
            self._add(rows)
            self._note_watermark(rows[-1].index + 1, last)

    def expect_much(self) -> None:
        """Take more memory than for searching, to index many leaves in a row."""
        self._database.conn.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")

    def find(self, exchange: ExchangeId) -> Row | None:
        """Return the statement that closed *exchange*, or `None`."""
        rows = self._rows(
            "exchange = ? AND kind IN (?, ?, ?) ORDER BY leaf", exchange, *CLOSING
        )
        return rows[0] if rows else None

    def derivation(self, derivation: ExchangeId) -> Row | None:
        """Return the derivation of that id, or `None`."""
        rows = self._rows("exchange = ? AND kind = 'derivation' ORDER BY leaf", derivation)
        return rows[0] if rows else None

    def named(self, id: ExchangeId) -> int | None:  # noqa: A002 — what it is called
        """Return the leaf of the receipt of an exchange, or of a derivation; or `None`."""
        rows = self._rows("exchange = ? AND kind IN ('receipt', 'derivation') LIMIT 1", id)
        return rows[0].index if rows else None

    def closed_of(self, exchanges: Sequence[ExchangeId]) -> set[ExchangeId]:
        """Return those of *exchanges* that have a closing statement, or are items with one."""
        marks = ", ".join("?" for _ in exchanges)
        rows = self._rows(f"exchange IN ({marks}) AND kind IN (?, ?, ?)", *exchanges, *CLOSING)
        return {row.exchange for row in rows if row.exchange is not None}

    def opening_of(self, exchange: ExchangeId) -> Row | None:
        """Return the opening of *exchange*, or `None`."""
        rows = self._rows("exchange = ? AND kind = 'opening'", exchange)
        return rows[0] if rows else None

    def unclosed(self) -> list[tuple[ExchangeId, int]]:
        """Return every opening without a closing statement: exchange and leaf index."""
        with self._lock, translated(self.path):
            rows = self._database.conn.execute(
                "SELECT exchange, opening FROM unclosed ORDER BY opening"
            ).fetchall()
        return [(ExchangeId(exchange), opening) for exchange, opening in rows]

    def under_way(self, provider: str, principal: str, project: str) -> set[ExchangeId]:
        """Return the exchanges of *principal* with *provider* that are not closed."""
        with self._lock, translated(self.path):
            rows = self._database.conn.execute(
                "SELECT u.exchange FROM unclosed u JOIN statement s ON s.leaf = u.opening"
                " WHERE s.provider = ? AND s.principal = ? AND s.project = ?",
                (provider, principal, project),
            ).fetchall()
        return {ExchangeId(exchange) for (exchange,) in rows}

    def is_unclosed(self, exchange: ExchangeId, opening: int) -> bool:
        """Tell whether *exchange*, opened at leaf *opening*, has no closing statement."""
        with self._lock, translated(self.path):
            row = self._database.conn.execute(
                "SELECT exchange FROM unclosed WHERE opening = ?", (opening,)
            ).fetchone()
        return row is not None and bool(row[0] == exchange)

    def resource(self, provider: str, kind: str, id: str) -> Kept | None:  # noqa: A002 — its name
        """Return what is known of a resource at *provider*, or `None`."""
        return self.resources(provider, kind, [id]).get(id)

    def resources(self, provider: str, kind: str, ids: Sequence[str]) -> dict[str, Kept]:
        """Return what is known of resources of one *kind* at *provider*, by their ids."""
        return {one.id: one for one in self._kept(provider, ids, "AND r.kind = ?", kind)}

    def resources_named(self, provider: str, ids: Sequence[str]) -> list[Kept]:
        """Return what is known of resources at *provider* of those ids, of whatever kind."""
        return list(self._kept(provider, ids))

    def _kept(
        self, provider: str, ids: Sequence[str], condition: str = "", *values: str
    ) -> Iterator[Kept]:
        for at in range(0, len(ids), _PAGE):
            some = ids[at : at + _PAGE]
            marks = ", ".join("?" for _ in some)
            with self._lock, translated(self.path):
                rows = self._database.conn.execute(
                    "SELECT r.leaf, r.kind, r.id, r.role, r.of, s.exchange, s.project,"  # noqa: S608
                    " s.principal, s.declaration"
                    " FROM resource r JOIN statement s ON s.leaf = r.leaf"
                    f" WHERE r.provider = ? AND r.id IN ({marks}) {condition}",
                    (provider, *some, *values),
                ).fetchall()
            for leaf, kind, name, role, of, exchange, project, principal, declaration in rows:
                yield Kept(
                    leaf=leaf,
                    kind=kind,
                    id=name,
                    role=role,
                    of=of,
                    exchange=ExchangeId(exchange),
                    project=project,
                    principal=principal,
                    declaration=declaration,
                )

    def by_payload(self, sha256: Sha256) -> Row | None:
        """Return the manifest whose payload has that digest."""
        filters = (_exactly("kind", "manifest"), _exactly("manifest", sha256))
        return next(self._matching(_Wanted(filters)), None)

    def about(
        self,
        *,
        declaration: DeclarationId | None = None,
        exchange: ExchangeId | None = None,
        manifest: Sha256 | None = None,
    ) -> list[Row]:
        """Return the verdicts and withdrawals about one subject, in order."""
        said = ("verdict", "withdrawal")
        if exchange is not None:
            where = "exchange = ? AND kind IN (?, ?) ORDER BY leaf"
            return self._rows(where, exchange, *said)
        if declaration is not None:
            subject = _exactly("declaration", declaration)
        elif manifest is not None:
            subject = _exactly("manifest", manifest)
        else:
            raise ValueError("a declaration, an exchange or a manifest must be named")
        return list(self._matching(_Wanted((_exactly("kind", *said), subject))))

    def statements(self, kinds: Iterable[Kind] | None = None, first: int = 0) -> Iterator[int]:
        """Yield the leaf indices of all statements of *kinds* from *first* on, in order."""
        filters = () if kinds is None else (_exactly("kind", *kinds),)
        return self._leaves(_Wanted(filters), first)

    def select(
        self,
        *,
        kind: Kind | None = None,
        project: str | None = None,
        principal: str | None = None,
        purpose: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        declaration: str | None = None,
        effect: str | None = None,
        obligation: str | None = None,
        stop: str | None = None,
        transform: str | None = None,
        tag: str | None = None,
        since: str | None = None,
        until: str | None = None,
        first: int = 0,
    ) -> Iterator[Row]:
        """Yield rows that fit every filter, in order; a purpose covers those below it.

        Those of leaves before *first* are left aside.

        *obligation* is the name of one, whatever its value; *tag* is one of those it was given.

        *since* and *until* are days or instants (`2026-11-22`, `2026-11-22T04`), both included.
        """
        equal = {
            "kind": kind,
            "project": project,
            "principal": principal,
            "provider": provider,
            "declaration": declaration,
            "effect": effect,
            "stop": stop,
            "transform": transform,
        }
        filters = [_exactly(name, value) for name, value in equal.items() if value is not None]
        if purpose is not None:
            below = f"{purpose}."
            condition = "role = 'purpose' AND (value = ? OR substr(value, 1, ?) = ?)"
            filters.append(_Filter(("purpose",), condition, (purpose, len(below), below)))
        if model is not None:
            columns = ("model", "model_reported")
            condition = "role IN ('model', 'model_reported') AND value = ?"
            filters.append(_Filter(columns, condition, (model,)))
        if obligation is not None:
            condition = "role = 'obligations' AND instr(',' || value, ?)"
            filters.append(_Filter(("obligations",), condition, (f",{obligation}",)))
        if tag is not None:
            condition = "role = 'tags' AND instr(',' || value || ',', ?)"
            filters.append(_Filter(("tags",), condition, (f",{tag},",)))
        return self._matching(_Wanted(tuple(filters), since, until), first)

    def kinds(self) -> dict[str, int]:
        """Return how many leaves of each kind are indexed."""
        with self._lock, translated(self.path):
            rows = self._database.conn.execute(
                "SELECT value, count FROM word WHERE role = 'kind' AND count > 0"
            ).fetchall()
        return dict(rows)

    def recount(self) -> dict[str, int]:
        """Return how many leaves of each kind there are rows of, by counting every one."""
        with self._lock, translated(self.path):
            rows = self._database.conn.execute(
                "SELECT (SELECT value FROM word WHERE id = kind), count(*)"
                " FROM coded GROUP BY kind"
            ).fetchall()
        return dict(rows)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    # -- reading --------------------------------------------------------------------------

    def _matching(self, wanted: _Wanted, first: int = 0) -> Iterator[Row]:
        leaves = self._leaves(wanted, first)
        while page := list(itertools.islice(leaves, _PAGE)):
            if len(page) > _FETCHED_MIN and page[-1] - page[0] > _FAR_APART * len(page):
                self._fetch(page)
            marks = ", ".join(map(str, page))
            yield from self._rows(f"leaf IN ({marks}) ORDER BY leaf")

    def _fetch(self, leaves: Sequence[int]) -> None:
        """Have the kernel read the pages of *leaves*, several at a time.

        One after the other, each would wait for the disk.
        """

        def read(some: Sequence[int]) -> None:
            marks = ", ".join(map(str, some))
            with (
                translated(self.path),
                contextlib.closing(sqlite3.connect(self.path)) as beside,
            ):
                beside.execute(f"SELECT max(at) FROM coded WHERE leaf IN ({marks})").fetchone()  # noqa: S608

        with ThreadPoolExecutor(_READERS) as readers:
            list(readers.map(read, (leaves[one::_READERS] for one in range(_READERS))))

    def _leaves(self, wanted: _Wanted, first: int = 0) -> Iterator[int]:
        """Yield matching leaves page by page, so that no lock is held while others work."""
        last = first - 1
        while page := self._page(wanted, last):
            yield from page
            last = page[-1]
            if len(page) < _PAGE:
                return

    def _page(self, wanted: _Wanted, last: int) -> list[int]:
        """Return the matching leaves after *last*, a page of them or all that are left."""
        with self._reading():
            words = [self._found(one) for one in wanted.filters]
            if not all(one.words for one in words):
                return []
            # The rarest first: it says which stretches need to be looked at.
            words.sort(key=lambda one: one.count)
            size = self._watermark()[0]
            closed, at_once = size // STRETCH, _STRETCHES_AT_ONCE[0]
            found: list[int] = []
            number: int | None = (last + 1) // STRETCH
            while (
                len(found) < _PAGE
                and (number := self._next_stretch(words, wanted, number, closed)) is not None
            ):
                stop = min(number + at_once, closed)
                at_once = min(2 * at_once, _STRETCHES_AT_ONCE[1])
                for one, bits in self._stretches(words, wanted, number, stop):
                    start = one * STRETCH
                    left = bits if last < start else after(bits, last - start)
                    room = _PAGE - len(found)
                    found += [start + at for at in itertools.islice(places_of(left), room)]
                number = stop
            if len(found) < _PAGE:
                first = max(last + 1, closed * STRETCH)
                found += self._in_tail(words, wanted, first, _PAGE - len(found))
        return found

    def _found(self, wanted: _Filter) -> _Found:
        rows = self._database.conn.execute(
            f"SELECT id, count FROM word WHERE {wanted.condition}",  # noqa: S608 — ours
            wanted.values,
        ).fetchall()
        # A word that occurs no more stays, but stands nowhere.
        words = tuple(number for number, count in rows if count)
        return _Found(wanted.columns, words, sum(count for _, count in rows))

    def _next_stretch(
        self, words: list[_Found], wanted: _Wanted, first: int | None, closed: int
    ) -> int | None:
        """Return the first closed stretch from *first* on that may hold what is wanted."""
        if first is None or first >= closed:
            return None
        if words:
            starts = [
                self._database.conn.execute(
                    "SELECT min(id) FROM places WHERE id >= ? AND id < ?",
                    (_key(word, first), _key(word, closed)),
                ).fetchone()[0]
                for word in words[0].words
            ]
            # Of one word, the stretch stands in the lowest bits.
            first = min((key % _NUMBERS for key in starts if key is not None), default=None)
        if first is None or not wanted.timed:
            return first
        condition, values = wanted.times("at_first", "at_last")
        row = self._database.conn.execute(
            f"SELECT min(number) FROM stretch WHERE number >= ? AND {condition}",  # noqa: S608
            (first, *values),
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def _stretches(
        self, words: list[_Found], wanted: _Wanted, first: int, stop: int
    ) -> list[tuple[int, int]]:
        """Return the stretches from *first* to *stop* that hold what is wanted, and where."""
        bits = dict.fromkeys(range(first, stop), ALL)
        if wanted.timed:
            bits = self._in_time(wanted, first, stop)
        for one in words:
            if not bits:
                break
            have = self._bits(one.words, min(bits), max(bits) + 1)
            both = ((number, bits[number] & have.get(number, 0)) for number in bits)
            bits = {number: left for number, left in both if left}
        return sorted(bits.items())

    def _in_time(self, wanted: _Wanted, first: int, stop: int) -> dict[int, int]:
        """Return the places of the wanted days in the stretches that touch them."""
        connection = self._database.conn
        touches, touched = wanted.times("at_first", "at_last")
        inside, within = wanted.times("at_last", "at_first")
        rows = connection.execute(
            f"SELECT number, undated = 0 AND {inside} FROM stretch"  # noqa: S608 — ours
            f" WHERE number >= ? AND number < ? AND {touches}",
            (*within, first, stop, *touched),
        ).fetchall()
        bits = dict.fromkeys((number for number, _ in rows), ALL)
        condition, values = wanted.times("at", "at")
        for number in (number for number, whole in rows if not whole):
            start = number * STRETCH
            places = connection.execute(
                f"SELECT leaf - ? FROM coded WHERE leaf >= ? AND leaf < ? AND {condition}",  # noqa: S608
                (start, start, start + STRETCH, *values),
            )
            bits[number] = sum(1 << place for (place,) in places)
        return bits

    def _bits(self, words: Iterable[int], first: int, stop: int) -> dict[int, int]:
        """Return where any of *words* stands, by stretch."""
        found: dict[int, int] = {}
        for word in words:
            rows = self._database.conn.execute(
                "SELECT id, bits FROM places WHERE id >= ? AND id < ?",
                (_key(word, first), _key(word, stop)),
            )
            for key, kept in rows:
                number = key % _NUMBERS
                try:
                    found[number] = found.get(number, 0) | unpack(kept)
                except ValueError as broken:
                    raise LedgerDamagedError(
                        f"`{self.path}` is damaged: {broken}",
                        hint="remove it, it is made again from the ledger",
                    ) from broken
        return found

    def _bits_of(self, role: str, value: str, first: int, stop: int) -> dict[int, int]:
        """Return where a word stands, by stretch, in that which is not full yet as well."""
        if role not in _SEARCHED:
            raise ValueError(f"places of `{role}` are not kept")
        word = self._found(_exactly(role, value)).words
        if not word:
            return {}
        closed = self._watermark()[0] // STRETCH
        found = self._bits(word, first, min(stop, closed))
        if first <= closed < stop:
            leaves = self._database.conn.execute(
                f"SELECT leaf FROM coded WHERE leaf >= ? AND {role} = ?",  # noqa: S608 — ours
                (closed * STRETCH, word[0]),
            )
            if tail := sum(1 << (leaf - closed * STRETCH) for (leaf,) in leaves):
                found[closed] = tail
        return found

    def _in_tail(
        self, words: list[_Found], wanted: _Wanted, first: int, limit: int
    ) -> list[int]:
        """Return matching leaves of the stretch that is not full yet."""
        condition, values = wanted.times("at", "at")
        terms = [condition if wanted.timed else "TRUE"]
        for one in words:
            numbers = ", ".join(map(str, one.words))
            terms.append(f"({' OR '.join(f'{name} IN ({numbers})' for name in one.columns)})")
        rows = self._database.conn.execute(
            f"SELECT leaf FROM coded WHERE leaf >= ? AND {' AND '.join(terms)}"  # noqa: S608
            " ORDER BY leaf LIMIT ?",
            (first, *values, limit),
        ).fetchall()
        return [leaf for (leaf,) in rows]

    def _rows(self, where: str, *values: object) -> list[Row]:
        with self._lock, translated(self.path):
            found = self._database.conn.execute(f"{_SELECT} WHERE {where}", values).fetchall()
        return [_row(values) for values in found]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """See one state of the file, whatever others write meanwhile."""
        with self._lock, translated(self.path):
            if self._database.conn.in_transaction:
                yield
            else:
                with deferred(self._database):
                    yield

    def _watermark(self) -> tuple[int, str]:
        with self._lock, translated(self.path):
            row = self._database.conn.execute(
                "SELECT size, last_sha256 FROM watermark"
            ).fetchone()
        return int(row[0]), str(row[1])

    # -- writing --------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._lock, translated(self.path), immediate(self._database):
                yield
        except BaseException:
            # Words that were new have no numbers any more.
            self._forget_numbers()
            raise

    def _watermark_of(self, leaves: LedgerStore) -> int:
        """Return how far *leaves* is indexed; 0, after clearing up, if this is another's."""
        size, last_sha256 = self._watermark()
        if size == 0:
            return 0
        if size <= leaves.head().size:
            (last,) = leaves.leaves(size - 1, size)
            if hashlib.sha256(last).hexdigest() == last_sha256:
                return size
        for table in ("coded", "unclosed", "places", "stretch", "resource", *lineage.TABLES):
            self._database.conn.execute(f"DELETE FROM {table}")  # noqa: S608 — names of ours
        # Other processes remember numbers of words, so these stay.
        self._database.conn.execute("UPDATE word SET count = 0")
        self._note_watermark(0, b"")
        return 0

    def _note_watermark(self, size: int, last: bytes) -> None:
        self._database.conn.execute(
            "UPDATE watermark SET size = ?, last_sha256 = ?, stages = ?",
            (size, hashlib.sha256(last).hexdigest(), size),
        )

    def _know_stages(self, leaves: LedgerStore) -> None:
        """Look for stages in what an older release has indexed."""
        connection = self._database.conn
        size, stages = connection.execute("SELECT size, stages FROM watermark").fetchone()
        if stages >= size:
            return
        kinds = (_exactly("kind", "manifest", "members", "derivation"),)
        for at in [one for one in self._leaves(_Wanted(kinds), stages) if one < size]:
            (leaf,) = leaves.leaves(at, at + 1)
            self._add_lineage([row_of(at, leaf)])
        connection.execute(
            "INSERT INTO answered SELECT (SELECT value FROM word WHERE id = model_manifest),"
            " count(*) FROM coded WHERE model_manifest IS NOT NULL"
            " AND kind = (SELECT id FROM word WHERE role = 'kind' AND value = 'receipt')"
            " GROUP BY model_manifest"
        )
        connection.execute("UPDATE watermark SET stages = size")

    def _add(self, rows: Sequence[Row]) -> None:
        connection = self._database.conn
        if sum(map(len, self._numbers.values())) > _WORDS_REMEMBERED_MAX:
            self._forget_numbers()
        known = [self._numbers[role] for role in _WORDS]
        words = [
            [numbers[one] if one else None for numbers, one in zip(known, said, strict=True)]
            for said in map(_WORDS_OF, rows)
        ]
        plain = map(_PLAIN_OF, rows)
        connection.executemany(
            _INSERT, [(*one, *numbers) for one, numbers in zip(plain, words, strict=True)]
        )
        counts = Counter(itertools.chain.from_iterable(words))
        del counts[None]
        connection.executemany(
            "UPDATE word SET count = count + ? WHERE id = ?",
            [(count, number) for number, count in counts.items()],
        )
        connection.executemany(
            "INSERT INTO resource VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [
                (row.provider, one.kind, one.id, row.index, one.role, one.of)
                for row in rows
                for one in row.made
            ],
        )
        self._add_lineage(rows)
        opened = {row.index: row.exchange for row in rows if row.kind == "opening"}
        closed = [(row.opening, row.exchange) for row in rows if row.kind in CLOSING]
        for opening, exchange in closed:
            if opening is not None and opened.get(opening) == exchange:
                del opened[opening]
        connection.executemany("INSERT INTO unclosed VALUES (?, ?)", opened.items())
        connection.executemany(
            "DELETE FROM unclosed WHERE opening = ? AND exchange = ?",
            [one for one in closed if one[0] is not None and one[0] < rows[0].index],
        )
        size = rows[-1].index + 1
        if size % STRETCH == 0:
            self._close_stretch(size // STRETCH - 1)

    def _add_lineage(self, rows: Sequence[Row]) -> None:
        connection = self._database.conn
        answers: Counter[Sha256] = Counter()
        for row in rows:
            if row.stage is not None:
                lineage.take_stage(connection, row.stage, row.index)
            if row.members is not None:
                lineage.take_members(connection, row.members)
            if row.parents:
                lineage.take_derived(connection, row.index, row.parents)
            if row.model_manifest is not None and row.kind == "receipt":
                answers[row.model_manifest] += 1
        lineage.take_answers(connection, answers)

    def _forget_numbers(self) -> None:
        for numbers in self._numbers.values():
            numbers.clear()

    def _number(self, role: str, value: str) -> int:
        """Return the number of a word; a new one gets one."""
        connection = self._database.conn
        row = connection.execute(
            "SELECT id FROM word WHERE role = ? AND value = ?", (role, value)
        ).fetchone()
        if row is None:
            connection.execute(
                "INSERT INTO word (role, value, count) VALUES (?, ?, 0)", (role, value)
            )
            row = connection.execute("SELECT last_insert_rowid()").fetchone()
        return int(row[0])

    def _close_stretch(self, number: int) -> None:
        """Keep the places of every word of a stretch that is full now, and its days."""
        connection, start = self._database.conn, number * STRETCH
        within = (start, start + STRETCH)
        connection.execute(
            "INSERT INTO stretch SELECT ?, min(at), max(at), count(*) - count(at) FROM coded"
            " WHERE leaf >= ? AND leaf < ?",
            (number, *within),
        )
        places: defaultdict[int | None, bytearray] = defaultdict(_no_places)
        rows = connection.execute(
            f"SELECT leaf, {', '.join(_SEARCHED)} FROM coded WHERE leaf >= ? AND leaf < ?",  # noqa: S608
            within,
        )
        for leaf, *words in rows:
            byte, bit = (leaf - start) >> 3, 1 << (leaf & 7)
            for word in words:
                places[word][byte] |= bit
        connection.executemany(
            "INSERT INTO places VALUES (?, ?)",
            [
                (_key(word, number), pack(bits))
                for word, bits in places.items()
                if word is not None
            ],
        )


def row_of(index: int, leaf: bytes) -> Row:
    """Return what the index keeps of the leaf at *index*."""
    try:
        return _row_of(index, read_leaf(leaf))
    except MalformedReceiptError:
        # Fsck names it; a search must still be able to go past it.
        return Row(index=index, kind="unreadable")


def _row_of(index: int, statement: Statement) -> Row:
    match statement:
        case Opening():
            return Row(
                index=index,
                kind="opening",
                at=statement.at,
                exchange=statement.exchange,
                project=statement.project,
                principal=statement.principal,
                provider=statement.provider,
                operation=statement.operation,
                purpose=statement.purpose,
                declaration=statement.declaration,
            )
        case Receipt() | Refusal():
            receipt = statement if isinstance(statement, Receipt) else None
            return Row(
                index=index,
                kind="refusal" if receipt is None else "receipt",
                at=statement.received if receipt is None else receipt.finished,
                exchange=statement.exchange,
                opening=statement.opening,
                project=statement.caller.project,
                principal=statement.caller.principal,
                provider=statement.provider.name,
                model=statement.model.requested,
                model_reported=statement.model.reported,
                model_manifest=statement.model.manifest,
                operation=statement.operation,
                purpose=statement.declared.use.purpose,
                declaration=statement.declared.declaration,
                effect=statement.ruling.effect,
                ended=None if receipt is None else receipt.ended,
                readable=None if receipt is None else receipt.readable,
                obligations=statement.ruling.obligations,
                made=() if receipt is None else receipt.made,
                stop=None if receipt is None else receipt.stop,
                tags=() if receipt is None else receipt.tags,
            )
        case Abandonment():
            return Row(
                index=index,
                kind="abandonment",
                at=statement.found,
                exchange=statement.exchange,
                opening=statement.opening,
            )
        case DeclarationFacts():
            return Row(
                index=index,
                kind="declaration",
                at=statement.at,
                project=statement.project,
                principal=statement.owner,
                purpose=statement.use.purpose,
                declaration=statement.declaration,
            )
        case Verdict():
            return Row(
                index=index,
                kind="verdict",
                at=statement.at,
                exchange=statement.exchange,
                principal=statement.by,
                declaration=statement.declaration,
                approved=statement.approved,
            )
        case Withdrawal():
            return Row(
                index=index,
                kind="withdrawal",
                at=statement.at,
                exchange=statement.exchange or statement.derivation,
                principal=statement.by,
                declaration=statement.declaration,
                manifest=statement.manifest,
            )
        case (
            AgreementFacts()
            | OrganisationFacts()
            | Activation()
            | TermsChange()
            | KeyAuthorization()
            | KeyRevocation()
            | LogSuccession()
            | Erasure()
        ):
            return Row(
                index=index,
                kind=KINDS[type(statement)],
                at=statement.at,
                principal=statement.by,
            )
        case Takeover():
            return Row(index=index, kind="takeover", at=statement.at)
        case Derivation():
            return Row(
                index=index,
                kind="derivation",
                at=statement.at,
                exchange=statement.derivation,
                project=statement.caller.project,
                principal=statement.caller.principal,
                purpose=statement.declared.use.purpose,
                declaration=statement.declared.declaration,
                transform=statement.transform.name,
                tags=statement.tags,
                parents=lineage.parents_of(statement),
            )
        case Members():
            return Row(
                index=index,
                kind="members",
                at=statement.at,
                manifest=statement.manifest,
                members=lineage.chunk_of(statement),
            )
        case Manifest():
            return Row(
                index=index,
                kind="manifest",
                manifest=statement.payload_sha256,
                stage=lineage.stage_of(statement),
            )
        case _:
            assert_never(statement)


KINDS: Final[dict[type[Statement], Kind]] = {
    Opening: "opening",
    Receipt: "receipt",
    Refusal: "refusal",
    Abandonment: "abandonment",
    DeclarationFacts: "declaration",
    Verdict: "verdict",
    Withdrawal: "withdrawal",
    AgreementFacts: "agreement",
    OrganisationFacts: "organisation",
    Activation: "activation",
    TermsChange: "terms-change",
    KeyAuthorization: "key-authorization",
    KeyRevocation: "key-revocation",
    LogSuccession: "log-succession",
    Erasure: "erasure",
    Takeover: "takeover",
    Derivation: "derivation",
    Members: "members",
    Manifest: "manifest",
}
"""What each statement is called, in the index and wherever leaves are counted."""


def _no_places() -> bytearray:
    return bytearray(PLACES_BYTES)


def _exactly(column: str, *values: str) -> _Filter:
    marks = ", ".join("?" for _ in values)
    return _Filter((column,), f"role = ? AND value IN ({marks})", (column, *values))


def _key(word: int, stretch: int) -> int:
    return word << _NUMBER_BITS | stretch


def _row(values: tuple[object, ...]) -> Row:
    named = dict(zip(_FIELDS, values, strict=True))
    for truth in ("readable", "approved"):
        if named[truth] is not None:
            named[truth] = bool(named[truth])
    for name in ("obligations", "tags"):
        words = named[name]
        named[name] = tuple(words.split(",")) if isinstance(words, str) else ()
    return Row(**named)  # type: ignore[arg-type]  # the columns are those of Row
