"""Contents that all replicas share: encrypted as in a file of one's own, kept in the database.

Erasing destroys key and body in their table. PostgreSQL keeps what it has replaced in its own
log, and in pages until they are used again, so what is erased is out of reach of queries at
once, and off the disks when log and pages have been.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg

from gateway.errors import LedgerUnwellError
from gateway.ident import ExchangeId, Sha256
from gateway.store.content import ContentStore, Sealed
from gateway.store.postgres.connection import (
    Connection,
    DoubtfulCommitError,
    Session,
    connect,
    error_of,
)
from gateway.store.postgres.ledger import PostgresLedger, settled
from gateway.store.postgres.schema import ADVISORY_LOCK, LINES


def _make_room_for_lines(url: str, session: Session) -> None:
    """Make what batches need, in a database that was made before there were any here."""
    if session.rows("SELECT to_regclass('asking') IS NOT NULL")[0][0]:
        return
    with contextlib.closing(connect(url)) as connection:
        try:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
                connection.execute(LINES.encode())
        except psycopg.Error as wrong:
            raise error_of(wrong) from wrong


class PostgresContents(ContentStore):
    """Encrypted contents in a ledger's database; any thread of any replica may use it."""

    def __init__(self, ledger: PostgresLedger, wrapping_key: bytes) -> None:
        # What messages name as the place of the texts.
        self.path = Path("the database")
        self._url = ledger.url
        self._session = ledger.session()
        _make_room_for_lines(self._url, self._session)
        self._take_key(wrapping_key)

    def was_erased(self, exchange: ExchangeId) -> bool:
        """Tell whether *exchange* was erased, so that nothing of it is kept any more."""
        rows = self._session.rows(
            "SELECT key IS NULL FROM content WHERE exchange = %s", (exchange,)
        )
        return bool(rows and rows[0][0])

    def erased_of(self, exchanges: Sequence[ExchangeId]) -> set[ExchangeId]:
        """Return those of *exchanges* that were erased, so that nothing of them is kept."""
        rows = self._session.rows(
            "SELECT exchange FROM content WHERE key IS NULL AND exchange = ANY(%s)",
            (list(exchanges),),
        )
        return {ExchangeId(row[0]) for row in rows}

    def derivations_kept(self, after: str, count: int) -> list[ExchangeId]:
        """Return up to *count* derivations behind *after* that have a text, in order."""
        rows = self._session.rows(
            'SELECT exchange FROM content WHERE exchange COLLATE "C" > %s'
            " AND exchange COLLATE \"C\" < 'd.' AND key IS NOT NULL"
            ' ORDER BY exchange COLLATE "C" LIMIT %s',
            (max(after, "d-"), count),
        )
        return [ExchangeId(row[0]) for row in rows]

    def kept_of(self, exchanges: Sequence[ExchangeId]) -> set[ExchangeId]:
        """Return those of *exchanges* of which there is a text."""
        rows = self._session.rows(
            "SELECT exchange FROM content WHERE key IS NOT NULL AND exchange = ANY(%s)"
            " UNION SELECT exchange FROM handed WHERE key IS NOT NULL AND exchange = ANY(%s)",
            (list(exchanges), list(exchanges)),
        )
        return {ExchangeId(row[0]) for row in rows}

    def erase_all(
        self, exchanges: Sequence[ExchangeId], *, ahead: Sequence[ExchangeId] = ()
    ) -> int:
        """Destroy keys and bodies of *exchanges*, in one transaction; return how many went.

        With an exchange go the texts of its items, the lines that it handed in, and the items
        that others asked for with those. Of those *ahead*, whose text may be under way, and of
        their items, nothing is kept from then on.
        """
        named = list(exchanges)

        def erase(connection: Connection) -> int:
            gone = connection.execute(
                "UPDATE content SET key = NULL, body = NULL"
                " WHERE key IS NOT NULL AND (exchange = ANY(%s) OR of = ANY(%s) OR of IN"
                " (SELECT exchange FROM asking WHERE input = ANY(%s)))",
                (named, named, named),
            )
            handed = connection.execute(
                "UPDATE handed SET key = NULL WHERE key IS NOT NULL AND exchange = ANY(%s)",
                (named,),
            )
            connection.execute(
                "UPDATE line SET body = NULL WHERE body IS NOT NULL AND exchange = ANY(%s)",
                (named,),
            )
            connection.execute(
                "INSERT INTO content SELECT named, NULL, NULL FROM unnest(%s::text[]) AS named"
                " ON CONFLICT DO NOTHING",
                (list(ahead),),
            )
            return gone.rowcount + handed.rowcount

        return self.commit_once(erase)

    def empty_log(self) -> None:
        """Let the pages in which erased texts stood be used again."""
        with contextlib.closing(connect(self._url)) as connection:
            try:
                # It takes as long as it takes, and nobody waits for it.
                connection.execute("SET statement_timeout = 0")
                connection.execute("VACUUM content")
            except psycopg.Error as wrong:
                raise error_of(wrong) from wrong

    def applied(self) -> tuple[int, Sha256] | None:
        """Return index and digest of the last erasure in the ledger that was carried out."""
        rows = self._session.rows("SELECT leaf, sha256 FROM applied")
        return (int(rows[0][0]), Sha256(rows[0][1])) if rows else None

    def note_applied(self, leaf: int, sha256: Sha256) -> None:
        """Remember that the erasure at *leaf*, and all before it, were carried out."""
        self.commit_once(
            lambda connection: (
                connection.execute(
                    "INSERT INTO applied VALUES (true, %s, %s) ON CONFLICT (one) DO UPDATE"
                    " SET leaf = excluded.leaf, sha256 = excluded.sha256"
                    # Another replica may be further.
                    " WHERE excluded.leaf > applied.leaf",
                    (leaf, sha256),
                ).rowcount
            )
        )

    def sealed(self, after: str, count: int) -> list[Sealed]:
        """Return up to *count* exchanges behind *after*, each with its key and body, sealed."""
        rows: list[Any] = self._session.rows(
            "SELECT exchange, key, body, of FROM content WHERE exchange > %s"
            ' ORDER BY exchange COLLATE "C" LIMIT %s',
            (after, count),
        )
        return rows

    def take(self, sealed: Sequence[Sealed]) -> None:
        """Take in contents from elsewhere; what is erased there or here is erased."""
        columns = [list(column) for column in zip(*sealed, strict=True)]
        self.commit_once(
            lambda connection: (
                connection.execute(
                    "INSERT INTO content SELECT * FROM"
                    " unnest(%b::text[], %b::bytea[], %b::bytea[], %b::text[])"
                    " ON CONFLICT (exchange) DO UPDATE SET key = NULL, body = NULL"
                    " WHERE excluded.key IS NULL",
                    columns,
                ).rowcount
            )
        )

    def close(self) -> None:
        """Write what is waiting and let go of the connection."""
        self._group.stop()
        self._session.close()

    def _read(self, exchange: ExchangeId) -> tuple[bytes, bytes] | None:
        rows: list[Any] = self._session.rows(
            "SELECT key, body FROM content WHERE exchange = %s AND key IS NOT NULL", (exchange,)
        )
        return (bytes(rows[0][0]), bytes(rows[0][1])) if rows else None

    def _read_many(
        self, exchanges: Sequence[ExchangeId]
    ) -> list[tuple[ExchangeId, bytes, bytes]]:
        rows = self._session.rows(
            "SELECT exchange, key, body FROM content"
            " WHERE key IS NOT NULL AND exchange = ANY(%s)",
            (list(exchanges),),
        )
        return [(ExchangeId(row[0]), bytes(row[1]), bytes(row[2])) for row in rows]

    def _write(self, sealed: Sequence[tuple[str, bytes, bytes, str | None]]) -> None:
        columns = [list(column) for column in zip(*sealed, strict=True)]
        self.commit_once(
            lambda connection: (
                connection.execute(
                    "INSERT INTO content SELECT * FROM"
                    " unnest(%b::text[], %b::bytea[], %b::bytea[], %b::text[])"
                    " AS new (exchange, key, body, of) WHERE NOT EXISTS (SELECT 1"
                    " FROM content AS its WHERE its.exchange = new.of AND its.key IS NULL)"
                    " ON CONFLICT DO NOTHING",
                    columns,
                ).rowcount
            )
        )

    def _rewrite(self, sealed: tuple[str, bytes, bytes]) -> None:
        exchange, key, body = sealed
        self.commit_once(
            lambda connection: (
                connection.execute(
                    "UPDATE content SET key = %b, body = %b"
                    " WHERE exchange = %s AND key IS NOT NULL",
                    (key, body, exchange),
                ).rowcount
            )
        )

    def rows(self, query: str, values: Sequence[Any]) -> list[Any]:
        """Return the rows that *query* finds."""
        return self._session.rows(query, tuple(values))

    def commit_once(self, work: Callable[[Connection], int]) -> int:
        """Do *work*, which may be done again, in a transaction; durable on return.

        Raises:
            LedgerUnwellError: it is not known to be done.
        """

        def attempt(again: bool) -> int:  # noqa: FBT001 — what `settled` hands over
            with self._session.committing() as connection, connection.transaction():
                return work(connection)

        try:
            return settled(attempt)
        except DoubtfulCommitError as doubt:
            # Nothing rests on a text that was kept, or erased, without its statement.
            raise LedgerUnwellError(doubt.message, hint=doubt.hint) from doubt
