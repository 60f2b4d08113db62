"""Which leaves have what, found stretch by stretch; and their rows."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from gateway.errors import LedgerDamagedError
from gateway.store.index.file import IndexFile
from gateway.store.index.places import ALL, STRETCH, after, places_of, unpack
from gateway.store.index.rows import Row
from gateway.store.index.schema import FIELDS, NUMBERS, SEARCHED, places_key
from gateway.store.tables import translated

_SELECT: Final = f"SELECT leaf, {', '.join(FIELDS[1:])} FROM statement"  # noqa: S608 — names of ours
_PAGE: Final = 1_000
_FAR_APART: Final = 100
"""Rows that are further apart, on average, are on a page each."""
_FETCHED_MIN: Final = 100
_READERS: Final = 8
_STRETCHES_AT_ONCE: Final = (8, 256)


@dataclass(frozen=True, slots=True)
class Filter:
    """Words that a row must have one of, in one of its columns."""

    columns: tuple[str, ...]
    condition: str
    values: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a row must be like; without filters and days, any is."""

    filters: tuple[Filter, ...] = ()
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


def exactly(column: str, *values: str) -> Filter:
    """Return the filter that lets through rows with one of *values* in *column*."""
    marks = ", ".join("?" for _ in values)
    return Filter((column,), f"role = ? AND value IN ({marks})", (column, *values))


class Search:
    """Finds leaves, and rows, in the file of an index."""

    def __init__(self, file: IndexFile) -> None:
        self._file = file

    def rows(self, where: str, *values: object) -> list[Row]:
        """Return the rows of statements that a condition of ours holds of."""
        with self._file.asked() as connection:
            found = connection.execute(f"{_SELECT} WHERE {where}", values).fetchall()
        return [_row(values) for values in found]

    def matching(self, wanted: Wanted, first: int = 0) -> Iterator[Row]:
        """Yield the rows of matching leaves from *first* on, in order."""
        leaves = self.leaves(wanted, first)
        while page := list(itertools.islice(leaves, _PAGE)):
            if len(page) > _FETCHED_MIN and page[-1] - page[0] > _FAR_APART * len(page):
                self._fetch(page)
            marks = ", ".join(map(str, page))
            yield from self.rows(f"leaf IN ({marks}) ORDER BY leaf")

    def _fetch(self, leaves: Sequence[int]) -> None:
        """Have the kernel read the pages of *leaves*, several at a time.

        One after the other, each would wait for the disk.
        """

        def read(some: Sequence[int]) -> None:
            marks = ", ".join(map(str, some))
            with (
                translated(self._file.path),
                contextlib.closing(sqlite3.connect(self._file.path)) as beside,
            ):
                beside.execute(f"SELECT max(at) FROM coded WHERE leaf IN ({marks})").fetchone()  # noqa: S608

        with ThreadPoolExecutor(_READERS) as readers:
            list(readers.map(read, (leaves[one::_READERS] for one in range(_READERS))))

    def leaves(self, wanted: Wanted, first: int = 0) -> Iterator[int]:
        """Yield matching leaves from *first* on, in order.

        They are looked for page by page, so that no lock is held while others work.
        """
        last = first - 1
        while page := self._page(wanted, last):
            yield from page
            last = page[-1]
            if len(page) < _PAGE:
                return

    def _page(self, wanted: Wanted, last: int) -> list[int]:
        """Return the matching leaves after *last*, a page of them or all that are left."""
        with self._file.reading():
            words = [self._found(one) for one in wanted.filters]
            if not all(one.words for one in words):
                return []
            # The rarest first: it says which stretches need to be looked at.
            words.sort(key=lambda one: one.count)
            size = self._file.watermark()[0]
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

    def _found(self, wanted: Filter) -> _Found:
        rows = self._file.connection.execute(
            f"SELECT id, count FROM word WHERE {wanted.condition}",  # noqa: S608 — ours
            wanted.values,
        ).fetchall()
        # A word that occurs no more stays, but stands nowhere.
        words = tuple(number for number, count in rows if count)
        return _Found(wanted.columns, words, sum(count for _, count in rows))

    def _next_stretch(
        self, words: list[_Found], wanted: Wanted, first: int | None, closed: int
    ) -> int | None:
        """Return the first closed stretch from *first* on that may hold what is wanted."""
        if first is None or first >= closed:
            return None
        if words:
            starts = [
                self._file.connection.execute(
                    "SELECT min(id) FROM places WHERE id >= ? AND id < ?",
                    (places_key(word, first), places_key(word, closed)),
                ).fetchone()[0]
                for word in words[0].words
            ]
            # Of one word, the stretch stands in the lowest bits.
            first = min((key % NUMBERS for key in starts if key is not None), default=None)
        if first is None or not wanted.timed:
            return first
        condition, values = wanted.times("at_first", "at_last")
        row = self._file.connection.execute(
            f"SELECT min(number) FROM stretch WHERE number >= ? AND {condition}",  # noqa: S608
            (first, *values),
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def _stretches(
        self, words: list[_Found], wanted: Wanted, first: int, stop: int
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

    def _in_time(self, wanted: Wanted, first: int, stop: int) -> dict[int, int]:
        """Return the places of the wanted days in the stretches that touch them."""
        connection = self._file.connection
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
            rows = self._file.connection.execute(
                "SELECT id, bits FROM places WHERE id >= ? AND id < ?",
                (places_key(word, first), places_key(word, stop)),
            )
            for key, kept in rows:
                number = key % NUMBERS
                try:
                    found[number] = found.get(number, 0) | unpack(kept)
                except ValueError as broken:
                    raise LedgerDamagedError(
                        f"`{self._file.path}` is damaged: {broken}",
                        hint="remove it, it is made again from the ledger",
                    ) from broken
        return found

    def bits_of(
        self, role: str, value: str | tuple[str, ...], first: int, stop: int
    ) -> dict[int, int]:
        """Return where a word, or any of several, stands, by stretch.

        That which is not full yet is told of as well.
        """
        if role not in SEARCHED:
            raise ValueError(f"places of `{role}` are not kept")
        values = (value,) if isinstance(value, str) else value
        words = self._found(exactly(role, *values)).words
        if not words:
            return {}
        closed = self._file.watermark()[0] // STRETCH
        found = self._bits(words, first, min(stop, closed))
        if first <= closed < stop:
            numbers = ", ".join(map(str, words))
            leaves = self._file.connection.execute(
                f"SELECT leaf FROM coded WHERE leaf >= ? AND {role} IN ({numbers})",  # noqa: S608 — ours
                (closed * STRETCH,),
            )
            if tail := sum(1 << (leaf - closed * STRETCH) for (leaf,) in leaves):
                found[closed] = tail
        return found

    def _in_tail(
        self, words: list[_Found], wanted: Wanted, first: int, limit: int
    ) -> list[int]:
        """Return matching leaves of the stretch that is not full yet."""
        condition, values = wanted.times("at", "at")
        terms = [condition if wanted.timed else "TRUE"]
        for one in words:
            numbers = ", ".join(map(str, one.words))
            terms.append(f"({' OR '.join(f'{name} IN ({numbers})' for name in one.columns)})")
        rows = self._file.connection.execute(
            f"SELECT leaf FROM coded WHERE leaf >= ? AND {' AND '.join(terms)}"  # noqa: S608
            " ORDER BY leaf LIMIT ?",
            (first, *values, limit),
        ).fetchall()
        return [leaf for (leaf,) in rows]


def _row(values: tuple[object, ...]) -> Row:
    named = dict(zip(FIELDS, values, strict=True))
    for truth in ("readable", "approved"):
        if named[truth] is not None:
            named[truth] = bool(named[truth])
    for name in ("obligations", "tags"):
        words = named[name]
        named[name] = tuple(words.split(",")) if isinstance(words, str) else ()
    return Row(**named)  # type: ignore[arg-type]  # the columns are those of Row
