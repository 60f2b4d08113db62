"""Rows come into the index: words by their numbers, and a full stretch by its places."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from gateway.ident import Sha256
from gateway.store.index import lineage
from gateway.store.index.file import IndexFile
from gateway.store.index.places import PLACES_BYTES, STRETCH, pack
from gateway.store.index.rows import CLOSING, Row, row_of
from gateway.store.index.schema import PLAIN, SEARCHED, TABLES, WORDS, places_key
from gateway.store.index.search import Search, Wanted, exactly
from gateway.store.ports import LedgerStore

_PLAIN_OF: Final = operator.attrgetter("index", *PLAIN)
_WORDS_OF: Final = operator.attrgetter(*WORDS)
_COLUMNS: Final = ("leaf", *PLAIN, *WORDS)
_INSERT: Final = f"INSERT INTO coded VALUES ({', '.join('?' for _ in _COLUMNS)})"  # noqa: S608
_WORDS_REMEMBERED_MAX: Final = 100_000


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


class Writing:
    """Writes rows into the file of an index, all between two commits."""

    def __init__(self, file: IndexFile, search: Search) -> None:
        self._file = file
        self._search = search
        # OWNED BY: begun(), between two commits. Numbers of words are never used again.
        self._numbers = {role: _Numbers(role, self._number) for role in WORDS}

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Hold the file to write; everything else here happens within."""
        try:
            with self._file.writing():
                yield
        except BaseException:
            # Words that were new have no numbers any more.
            self._forget_numbers()
            raise

    def size_of(self, leaves: LedgerStore) -> int:
        """Return how far *leaves* is indexed; 0, after clearing up, if this is another's."""
        size, last_sha256 = self._file.watermark()
        if size == 0:
            return 0
        if size <= leaves.head().size:
            (last,) = leaves.leaves(size - 1, size)
            if hashlib.sha256(last).hexdigest() == last_sha256:
                return size
        for table in TABLES:
            self._file.connection.execute(f"DELETE FROM {table}")  # noqa: S608 — names of ours
        # Other processes remember numbers of words, so these stay.
        self._file.connection.execute("UPDATE word SET count = 0")
        self._note_watermark(0, b"")
        return 0

    def _note_watermark(self, size: int, last: bytes) -> None:
        self._file.connection.execute(
            "UPDATE watermark SET size = ?, last_sha256 = ?, stages = ?",
            (size, hashlib.sha256(last).hexdigest(), size),
        )

    def know_stages(self, leaves: LedgerStore) -> None:
        """Look for stages in what an older release has indexed."""
        connection = self._file.connection
        size, stages = connection.execute("SELECT size, stages FROM watermark").fetchone()
        if stages >= size:
            return
        kinds = (exactly("kind", "manifest", "members", "derivation"),)
        for at in [one for one in self._search.leaves(Wanted(kinds), stages) if one < size]:
            (leaf,) = leaves.leaves(at, at + 1)
            self._add_lineage([row_of(at, leaf)])
        connection.execute(
            "INSERT INTO answered SELECT (SELECT value FROM word WHERE id = model_manifest),"
            " count(*) FROM coded WHERE model_manifest IS NOT NULL"
            " AND kind = (SELECT id FROM word WHERE role = 'kind' AND value = 'receipt')"
            " GROUP BY model_manifest"
        )
        connection.execute("UPDATE watermark SET stages = size")

    def add(self, rows: Sequence[Row], last: bytes) -> None:
        """Take in the *rows* that come next, all of one stretch; *last* is the last leaf."""
        connection = self._file.connection
        if sum(map(len, self._numbers.values())) > _WORDS_REMEMBERED_MAX:
            self._forget_numbers()
        known = [self._numbers[role] for role in WORDS]
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
        self._note_watermark(size, last)

    def _add_lineage(self, rows: Sequence[Row]) -> None:
        connection = self._file.connection
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
        connection = self._file.connection
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
        connection, start = self._file.connection, number * STRETCH
        within = (start, start + STRETCH)
        connection.execute(
            "INSERT INTO stretch SELECT ?, min(at), max(at), count(*) - count(at) FROM coded"
            " WHERE leaf >= ? AND leaf < ?",
            (number, *within),
        )
        places: defaultdict[int | None, bytearray] = defaultdict(_no_places)
        rows = connection.execute(
            f"SELECT leaf, {', '.join(SEARCHED)} FROM coded WHERE leaf >= ? AND leaf < ?",  # noqa: S608
            within,
        )
        for leaf, *words in rows:
            byte, bit = (leaf - start) >> 3, 1 << (leaf & 7)
            for word in words:
                places[word][byte] |= bit
        connection.executemany(
            "INSERT INTO places VALUES (?, ?)",
            [
                (places_key(word, number), pack(bits))
                for word, bits in places.items()
                if word is not None
            ],
        )


def _no_places() -> bytearray:
    return bytearray(PLACES_BYTES)
