"""Lines of batches that all replicas share, in the database of the contents."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.ident import ExchangeId
from gateway.store.lines import (
    Asking,
    Handed,
    Line,
    LineKey,
    asking_of,
    handed_of,
    name_key,
    new_key,
    read_lines,
    read_texts,
)
from gateway.store.postgres.connection import Connection
from gateway.store.postgres.content import PostgresContents

_SELECT = "SELECT name, number, found, kind FROM line WHERE exchange = %s AND"


class PostgresLines:
    """Lines in the database; each call is one transaction, which may be done again."""

    def __init__(self, contents: PostgresContents) -> None:
        self._contents = contents

    def begin(self, exchange: ExchangeId, at: str) -> LineKey:
        """Begin a set; whatever is added is sealed with the key that this returns."""
        key, wrapped = new_key(self._contents.wrapping, exchange)
        self._do(
            "INSERT INTO handed VALUES (%s, %s, NULL, %s, NULL) ON CONFLICT DO NOTHING",
            (exchange, at, wrapped),
        )
        return key

    def add(self, exchange: ExchangeId, key: LineKey, lines: Sequence[Line]) -> None:
        """Keep *lines* of a set; durable on return."""
        rows = [
            (
                line.number,
                None if line.name is None or line.kind is None else name_key(line.name),
                line.found,
                line.kind,
                key.sealed(line),
            )
            for line in lines
        ]
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            self._do(
                "INSERT INTO line SELECT %b::text, * FROM unnest(%b::bigint[], %b::bytea[],"
                " %b::bytea[], %b::integer[], %b::bytea[]) ON CONFLICT DO NOTHING",
                (exchange, *columns),
            )

    def finish(self, handed: Handed) -> None:
        """Note that a set is whole, and what there is to know of it; durable on return."""
        self._do(
            "UPDATE handed SET until = %s, about = %s,"
            " key = CASE WHEN %s::text IS NULL THEN NULL ELSE key END WHERE exchange = %s",
            (handed.until, handed.about, handed.until, handed.exchange),
        )

    def drop_texts(self, exchange: ExchangeId) -> None:
        """Destroy the texts of a set that never left; what was found stays."""

        def drop(connection: Connection) -> int:
            connection.execute("UPDATE handed SET key = NULL WHERE exchange = %s", (exchange,))
            return connection.execute(
                "UPDATE line SET body = NULL WHERE exchange = %s AND body IS NOT NULL",
                (exchange,),
            ).rowcount

        self._contents.commit_once(drop)

    def handed(self, exchange: ExchangeId) -> Handed | None:
        """Return the set that *exchange* handed in, if it is whole."""
        rows = self._contents.rows(
            "SELECT at, until, about FROM handed WHERE exchange = %s AND about IS NOT NULL",
            (exchange,),
        )
        return handed_of(exchange, rows)

    def ask(self, asking: Asking) -> None:
        """Note who asks for a set; durable on return."""
        self._do(
            "INSERT INTO asking VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (asking.exchange, asking.input, asking.about),
        )

    def asked(self, exchange: ExchangeId) -> Asking | None:
        """Return what *exchange* asked for, or `None`."""
        rows = self._contents.rows(
            "SELECT input, about FROM asking WHERE exchange = %s", (exchange,)
        )
        return asking_of(exchange, rows)

    def named(self, exchange: ExchangeId, names: Sequence[str]) -> dict[str, Line]:
        """Return the forwarded lines of a set by those of *names* that they have."""
        keys = {name_key(name): name for name in names}
        rows = self._contents.rows(f"{_SELECT} name = ANY(%s)", (exchange, list(keys)))
        return {keys[key]: line for key, line in read_lines(rows) if key is not None}

    def numbered(self, exchange: ExchangeId, numbers: Sequence[int]) -> list[Line]:
        """Return the forwarded lines of a set at those places."""
        where = f"{_SELECT} number = ANY(%s) AND kind IS NOT NULL"
        rows = self._contents.rows(where, (exchange, list(numbers)))
        return [line for _, line in read_lines(rows)]

    def texts(self, exchange: ExchangeId, numbers: Sequence[int]) -> dict[int, bytes]:
        """Return the texts of the lines of a set at those places; of some there may be none."""
        wrapped = self._contents.rows("SELECT key FROM handed WHERE exchange = %s", (exchange,))
        rows = self._contents.rows(
            "SELECT number, body FROM line WHERE exchange = %s AND number = ANY(%s)"
            " AND body IS NOT NULL",
            (exchange, list(numbers)),
        )
        key = wrapped[0][0] if wrapped else None
        return read_texts(self._contents.wrapping, exchange, key, rows)

    def forwarded(self, exchange: ExchangeId) -> list[int]:
        """Return the numbers of the lines of a set that were forwarded, in order."""
        rows = self._contents.rows(
            "SELECT number FROM line WHERE exchange = %s AND kind IS NOT NULL ORDER BY number",
            (exchange,),
        )
        return [int(number) for (number,) in rows]

    def found(self, exchange: ExchangeId, after: int, count: int) -> list[tuple[int, bytes]]:
        """Return what was found of up to *count* lines behind number *after*, in order."""
        rows = self._contents.rows(
            "SELECT number, found FROM line WHERE exchange = %s AND number > %s"
            " ORDER BY number LIMIT %s",
            (exchange, after, count),
        )
        return [(int(number), bytes(found)) for number, found in rows]

    def with_texts(self) -> list[tuple[ExchangeId, str, str | None]]:
        """Return the sets of which there are texts: since when, and until which day."""
        rows = self._contents.rows(
            "SELECT exchange, at, until FROM handed WHERE key IS NOT NULL ORDER BY exchange", ()
        )
        return [(ExchangeId(exchange), at, until) for exchange, at, until in rows]

    def take(self, table: str, rows: Sequence[Sequence[object]]) -> None:
        """Take in rows of a *table* from elsewhere; what is there already stays."""
        marks = ", ".join("%s" for _ in rows[0])
        insert = f"INSERT INTO {table} VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608 — ours

        def add(connection: Connection) -> int:
            with connection.cursor() as cursor:
                cursor.executemany(insert.encode(), rows)
                return cursor.rowcount

        self._contents.commit_once(add)

    def _do(self, statement: str, values: Sequence[object]) -> None:
        self._contents.commit_once(
            lambda connection: connection.execute(statement.encode(), tuple(values)).rowcount
        )
