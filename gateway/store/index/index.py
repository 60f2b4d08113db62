"""What people and gates ask of the index, and how it is brought up to its ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.store.index.file import IndexFile
from gateway.store.index.lineage import Lineage
from gateway.store.index.places import STRETCH
from gateway.store.index.rows import CLOSING, Kept, Kind, Row, row_of
from gateway.store.index.search import Filter, Search, Wanted, exactly
from gateway.store.index.writing import Writing
from gateway.store.ports import LedgerStore

Progress = Callable[[int, int], None]
"""Called with how many leaves are done, and how many there are."""

_PAGE: Final = 1_000
_CACHE_KIB: Final = 32_768
"""Pages kept in memory while much is indexed: a stretch adds to the last page of each word."""


class Index:
    """The query index in one file; any thread may use it, one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = IndexFile(path)
        self._search = Search(self._file)
        self._writing = Writing(self._file, self._search)
        self._same_ledger = False
        self.lineage = Lineage(self._file.connection, self._file.reading, self._search.bits_of)
        """What was made of what."""

    @property
    def size(self) -> int:
        """How many leaves are indexed."""
        return self._file.watermark()[0]

    def catch_up(self, leaves: LedgerStore, progress: Progress | None = None) -> int:
        """Index what was added since; return how many leaves. Safe in several processes.

        Raises:
            LedgerUnwellError: the index can't be written at present.
        """
        done = 0
        if self._same_ledger and self.size == leaves.head().size:
            return done
        while True:
            with self._writing.begun():
                size, goal = self._writing.size_of(leaves), leaves.head().size
                stop = min(size - size % STRETCH + STRETCH, goal)
                self._same_ledger = True
                self._writing.know_stages(leaves)
                if size >= goal:
                    return done
                if goal - size > STRETCH:
                    self.expect_much()
                rows, last = [], b""
                for index, leaf in enumerate(leaves.leaves(size, stop), size):
                    rows.append(row_of(index, leaf))
                    last = leaf
                self._writing.add(rows, last)
                done += stop - size
            if progress is not None:
                progress(stop, goal)

    def add(self, rows: Sequence[Row], last: bytes) -> None:
        """Index the *rows* that come next, all of one stretch; *last* is the last leaf."""
        with self._writing.begun():
            self._writing.add(rows, last)

    def expect_much(self) -> None:
        """Take more memory than for searching, to index many leaves in a row."""
        self._file.connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")

    def find(self, exchange: ExchangeId) -> Row | None:
        """Return the statement that closed *exchange*, or `None`."""
        rows = self._search.rows(
            "exchange = ? AND kind IN (?, ?, ?) ORDER BY leaf", exchange, *CLOSING
        )
        return rows[0] if rows else None

    def derivation(self, derivation: ExchangeId) -> Row | None:
        """Return the derivation of that id, or `None`."""
        rows = self._search.rows(
            "exchange = ? AND kind = 'derivation' ORDER BY leaf", derivation
        )
        return rows[0] if rows else None

    def named(self, id: ExchangeId) -> int | None:  # noqa: A002 — what it is called
        """Return the leaf of the receipt of an exchange, or of a derivation; or `None`."""
        rows = self._search.rows(
            "exchange = ? AND kind IN ('receipt', 'derivation') LIMIT 1", id
        )
        return rows[0].index if rows else None

    def closed_of(self, exchanges: Sequence[ExchangeId]) -> set[ExchangeId]:
        """Return those of *exchanges* that have a closing statement, or are items with one."""
        marks = ", ".join("?" for _ in exchanges)
        rows = self._search.rows(
            f"exchange IN ({marks}) AND kind IN (?, ?, ?)", *exchanges, *CLOSING
        )
        return {row.exchange for row in rows if row.exchange is not None}

    def opening_of(self, exchange: ExchangeId) -> Row | None:
        """Return the opening of *exchange*, or `None`."""
        rows = self._search.rows("exchange = ? AND kind = 'opening'", exchange)
        return rows[0] if rows else None

    def unclosed(self) -> list[tuple[ExchangeId, int]]:
        """Return every opening without a closing statement: exchange and leaf index."""
        with self._file.asked() as connection:
            rows = connection.execute(
                "SELECT exchange, opening FROM unclosed ORDER BY opening"
            ).fetchall()
        return [(ExchangeId(exchange), opening) for exchange, opening in rows]

    def under_way(self, provider: str, principal: str, project: str) -> set[ExchangeId]:
        """Return the exchanges of *principal* with *provider* that are not closed."""
        with self._file.asked() as connection:
            rows = connection.execute(
                "SELECT u.exchange FROM unclosed u JOIN statement s ON s.leaf = u.opening"
                " WHERE s.provider = ? AND s.principal = ? AND s.project = ?",
                (provider, principal, project),
            ).fetchall()
        return {ExchangeId(exchange) for (exchange,) in rows}

    def is_unclosed(self, exchange: ExchangeId, opening: int) -> bool:
        """Tell whether *exchange*, opened at leaf *opening*, has no closing statement."""
        with self._file.asked() as connection:
            row = connection.execute(
                "SELECT exchange FROM unclosed WHERE opening = ?", (opening,)
            ).fetchone()
        return row is not None and bool(row[0] == exchange)

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
            with self._file.asked() as connection:
                rows = connection.execute(
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
        filters = (exactly("kind", "manifest"), exactly("manifest", sha256))
        return next(self._search.matching(Wanted(filters)), None)

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
            return self._search.rows(where, exchange, *said)
        if declaration is not None:
            subject = exactly("declaration", declaration)
        elif manifest is not None:
            subject = exactly("manifest", manifest)
        else:
            raise ValueError("a declaration, an exchange or a manifest must be named")
        return list(self._search.matching(Wanted((exactly("kind", *said), subject))))

    def statements(self, kinds: Iterable[Kind] | None = None, first: int = 0) -> Iterator[int]:
        """Yield the leaf indices of all statements of *kinds* from *first* on, in order."""
        filters = () if kinds is None else (exactly("kind", *kinds),)
        return self._search.leaves(Wanted(filters), first)

    def values(self, role: str) -> list[str]:
        """Return every value of a searched role that some leaf has, or had before, in order.

        Each is kept once, however many leaves have it, so that no leaf is looked at.
        """
        with self._file.asked() as connection:
            found = connection.execute(
                "SELECT value FROM word WHERE role = ? ORDER BY value", (role,)
            ).fetchall()
        return [str(value) for (value,) in found]

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
        filters = [exactly(name, value) for name, value in equal.items() if value is not None]
        if purpose is not None:
            below = f"{purpose}."
            condition = "role = 'purpose' AND (value = ? OR substr(value, 1, ?) = ?)"
            filters.append(Filter(("purpose",), condition, (purpose, len(below), below)))
        if model is not None:
            columns = ("model", "model_reported")
            condition = "role IN ('model', 'model_reported') AND value = ?"
            filters.append(Filter(columns, condition, (model,)))
        if obligation is not None:
            condition = "role = 'obligations' AND instr(',' || value, ?)"
            filters.append(Filter(("obligations",), condition, (f",{obligation}",)))
        if tag is not None:
            condition = "role = 'tags' AND instr(',' || value || ',', ?)"
            filters.append(Filter(("tags",), condition, (f",{tag},",)))
        return self._search.matching(Wanted(tuple(filters), since, until), first)

    def kinds(self) -> dict[str, int]:
        """Return how many leaves of each kind are indexed."""
        with self._file.asked() as connection:
            rows = connection.execute(
                "SELECT value, count FROM word WHERE role = 'kind' AND count > 0"
            ).fetchall()
        return dict(rows)

    def recount(self) -> dict[str, int]:
        """Return how many leaves of each kind there are rows of, by counting every one."""
        with self._file.asked() as connection:
            rows = connection.execute(
                "SELECT (SELECT value FROM word WHERE id = kind), count(*)"
                " FROM coded GROUP BY kind"
            ).fetchall()
        return dict(rows)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
