"""The ledger in PostgreSQL: many replicas, one order; durable when a call returns.

Whoever appends holds the row `head` for the length of a transaction, so indices follow each
other without a gap. What a process once knew to be durable it looks for on every new
connection: a server that was put back, or a standby that had not received it, is refused.
Whoever can write the database can fork the log; only a checkpoint kept elsewhere shows it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors as pg

from gateway.errors import (
    BadProofError,
    LedgerDamagedError,
    LedgerMissingError,
    LedgerUnwellError,
)
from gateway.limits import DOUBT_MS_MAX, LEAVES_READ_AT_ONCE
from gateway.store.full_tiles import FullTiles
from gateway.store.ports import Appended, Head
from gateway.store.postgres.connection import (
    Connection,
    DoubtfulCommitError,
    Session,
    connect,
    error_of,
)
from gateway.store.postgres.leaf import handed, new_id
from gateway.store.postgres.schema import ADVISORY_LOCK, FORMAT_VERSION, SCHEMA
from gateway.tlog.merkle import HASH_BYTES, Frontier, leaf_hash, root_of

Result = TypeVar("Result")

CHANNEL: Final = "tos_gateway"
PUBLISHED: Final = "published"
"""What is called out, and where, when there is a newer checkpoint."""

_EMPTY: Final = Head(size=0, frontier=())
_PAUSE_S: Final = 0.1
_LAST: Final = "SELECT seq, frontier FROM entry ORDER BY seq DESC LIMIT 1"
_TIP: Final = f"""
SELECT head.size, head.frontier, last.seq, last.frontier FROM head
LEFT JOIN ({_LAST}) AS last ON true
"""  # noqa: S608 — built from constants
# Transactional, so the commit waits for whatever commits wait for, and all before it with it.
_MARK: Final = "SELECT pg_logical_emit_message(true, 'tos-gateway', '')"


class PostgresLedger:
    """A ledger in one database; any thread may use it, as may any number of processes."""

    def __init__(self, url: str, *, origin: str | None = None) -> None:
        self.url = url
        self._known_lock = threading.Lock()
        # OWNED BY: whoever holds the lock. The largest head that was durable for this process.
        self._known = _EMPTY
        self._damage: LedgerDamagedError | None = None
        self._sessions: list[Session] = []
        self._writing = self.session()
        self._reading = self.session()
        self._side = self.session()
        try:
            self.origin = self._read_origin(origin)
            self._tiles = FullTiles(self.head().size)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, url: str, origin: str) -> PostgresLedger:
        """Make an empty ledger named *origin* in the database, once, and open it.

        Raises:
            LedgerDamagedError: there is a ledger already.
            LedgerUnwellError: it could not be made.
        """
        with contextlib.closing(connect(url)) as connection:
            try:
                with connection.transaction():
                    connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
                    connection.execute(SCHEMA.encode())
                    connection.execute(
                        "INSERT INTO meta VALUES ('origin', %s), ('format', %s)",
                        (origin, str(FORMAT_VERSION)),
                    )
            except pg.DuplicateTable as there:
                raise LedgerDamagedError(
                    "there is a ledger in this database already; one is made once and never"
                    " replaced",
                    hint="name another database in `ledger`, or go on with this one",
                ) from there
            except psycopg.Error as wrong:
                raise LedgerUnwellError(
                    f"no ledger could be made: {str(wrong).strip().partition(chr(10))[0]}",
                    hint="let the gateway's account make tables in the database",
                ) from wrong
        return cls(url, origin=origin)

    def session(self) -> Session:
        """Return a connection that refuses a database other than this ledger's.

        It is closed with the ledger, at the latest.
        """
        session = Session(self.url, self._check)
        self._sessions.append(session)
        return session

    def append(
        self, leaves: Sequence[bytes], hashes: Sequence[bytes] | None = None
    ) -> Appended:
        """Add *leaves* at the end in one transaction; durable, with the head, on return.

        Raises:
            LedgerUnwellError: nothing was added.
            LedgerDamagedError: the durable state is unknown or wrong; the process must end.
        """
        if self._damage is not None:
            raise self._damage
        made = [leaf_hash(leaf) for leaf in leaves] if hashes is None else list(hashes)
        marker = new_id()

        def attempt(again: bool) -> Appended:  # noqa: FBT001 — what `settled` hands over
            with self._writing.committing() as connection, connection.transaction():
                found = self._appended(connection, marker, len(leaves)) if again else None
                return found or self._append(connection, leaves, made, marker)

        appended = self.settled(attempt)
        self.learn(appended.head)
        self._tiles.add(appended.first, made)
        return appended

    def head(self) -> Head:
        """Return the durable head."""
        # Before looking: what other threads learn meanwhile may be newer than what is read.
        known = self._known
        ((size, frontier, awaits_standby),) = self._reading.rows(
            "SELECT size, frontier, current_setting('synchronous_standby_names') <> ''"
            " FROM head"
        )
        head = Head(size=size, frontier=_split(frontier))
        if head.size < known.size or (head.size == known.size and head != known):
            raise self._lost(head.size, known.size)
        if head.size > known.size:
            if awaits_standby:
                self.confirm()
            self.learn(head)
        return head

    def confirm(self) -> None:
        """Return once all that is visible now is durable on standbys too.

        A row can be seen that no standby has: its writer's wait for one may have been cut
        short. Whatever is committed after it, and waited for, carries it along.

        Raises:
            LedgerUnwellError: no standby confirms it at present.
        """

        def attempt(again: bool) -> None:  # noqa: FBT001 — what `settled` hands over
            with self._side.committing() as connection:
                connection.execute(_MARK)

        try:
            settled(attempt)
        except DoubtfulCommitError as doubt:
            raise LedgerUnwellError(doubt.message, hint=doubt.hint) from doubt

    def leaves(self, first: int, stop: int) -> Iterator[bytes]:
        """Yield leaves *first* up to, not including, *stop*, in order, in constant memory."""
        for start in range(first, stop, LEAVES_READ_AT_ONCE):
            end = min(start + LEAVES_READ_AT_ONCE, stop)
            rows: list[Any] = self._reading.rows(
                "SELECT seq, leaf FROM entry WHERE seq >= %s AND seq < %s ORDER BY seq",
                (start, end),
            )
            for expected, (seq, leaf) in enumerate(rows, start):
                if seq != expected:
                    raise _gap(expected)
                yield leaf
            if len(rows) != end - start:
                raise _gap(start + len(rows))

    def frontiers(self, first: int, stop: int) -> dict[int, tuple[bytes, ...]]:
        """Return the frontiers kept with leaves *first* to *stop*, by the size they are of."""
        rows: list[Any] = self._reading.rows(
            "SELECT seq, frontier FROM entry"
            " WHERE seq >= %s AND seq < %s AND frontier IS NOT NULL",
            (first, stop),
        )
        return {seq + 1: _split(frontier) for seq, frontier in rows}

    def publish(self, size: int, note: str) -> None:
        """Keep *note* as the newest checkpoint; an older size than the kept one is ignored."""
        tiles = [
            (number, root_of(hashes), b"".join(hashes)) for number, hashes in self._tiles.take()
        ]

        def attempt(again: bool) -> None:  # noqa: FBT001 — what `settled` hands over
            with self._side.committing() as connection, connection.transaction():
                for number, root, hashes in tiles:
                    _keep(connection, 0, number, root, hashes)
                connection.execute(
                    "INSERT INTO checkpoint VALUES (true, %s, %s) ON CONFLICT (one) DO UPDATE"
                    " SET size = excluded.size, note = excluded.note"
                    " WHERE excluded.size >= checkpoint.size",
                    (size, note),
                )
                connection.execute(_MARK)

        try:
            settled(attempt)
        except DoubtfulCommitError as doubt:
            raise LedgerUnwellError(
                f"the checkpoint of {size} leaves could not be kept: {doubt.message}",
                hint=doubt.hint,
            ) from doubt
        with (
            contextlib.suppress(DoubtfulCommitError, LedgerUnwellError),
            self._side.committing() as connection,
        ):
            connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, PUBLISHED))

    def checkpoint(self) -> str | None:
        """Return the newest published checkpoint, a signed note, or `None`."""
        rows = self._reading.rows("SELECT note FROM checkpoint")
        return str(rows[0][0]) if rows else None

    def tile(self, level: int, number: int) -> bytes | None:
        """Return the 256 hashes of a full tile, joined, or `None` if it is not kept."""
        rows = self._reading.rows(
            "SELECT hashes FROM tile WHERE level = %s AND number = %s", (level, number)
        )
        return bytes(rows[0][0]) if rows else None

    def tile_roots(self, level: int, first: int, stop: int) -> dict[int, bytes]:
        """Return the roots of the kept tiles *first* up to, not including, *stop*."""
        rows: list[Any] = self._reading.rows(
            "SELECT number, root FROM tile WHERE level = %s AND number >= %s AND number < %s",
            (level, first, stop),
        )
        return dict(rows)

    def keep_tile(self, level: int, number: int, hashes: bytes) -> None:
        """Keep a full tile; it need not be durable, and one already kept stays."""
        # A tile that is lost with its connection is made again from the leaves.
        with (
            contextlib.suppress(DoubtfulCommitError),
            self._side.committing() as connection,
            connection.transaction(),
        ):
            connection.execute("SET LOCAL synchronous_commit = off")
            _keep(connection, level, number, root_of(_split(hashes)), hashes)

    def close(self) -> None:
        """Let go of the database; further calls are errors."""
        for session in self._sessions:
            session.close()

    def settled(self, attempt: Callable[[bool], Result]) -> Result:
        """Return what *attempt* does, once its effect is known; remember it where it isn't."""
        try:
            return settled(attempt)
        except LedgerDamagedError as damage:
            self._damage = damage
            raise

    def learn(self, head: Head) -> None:
        """Take note that *head* is durable; a database that does not hold it is refused."""
        with self._known_lock:
            if head.size > self._known.size:
                self._known = head

    def grown(self, connection: Connection, hashes: Sequence[bytes]) -> tuple[int, Frontier]:
        """Hold the head, and return its size, and the frontier it has with *hashes* added.

        Only the transaction under way holds it.

        Raises:
            LedgerDamagedError: it is not what it was, or does not fit its frontier.
        """
        held: Any = connection.execute("SELECT size, frontier FROM head FOR UPDATE").fetchone()
        # A statement of its own: only it sees what was committed while the first one waited.
        last: Any = connection.execute(_LAST).fetchone()
        size, frontier = _tip(held, last)
        if size < self._known.size:
            raise self._lost(size, self._known.size)
        for one in hashes:
            frontier.push(one)
        return size, frontier

    def _append(
        self,
        connection: Connection,
        leaves: Sequence[bytes],
        hashes: Sequence[bytes],
        marker: Any,
    ) -> Appended:
        first, frontier = self.grown(connection, hashes)
        kept = b"".join(frontier.hashes)
        last = len(leaves) - 1
        with (
            connection.cursor() as cursor,
            cursor.copy(
                "COPY entry (seq, intake, relevant, leaf, frontier) FROM STDIN (FORMAT BINARY)"
            ) as copy,
        ):
            copy.set_types(["int8", "uuid", "bool", "bytea", "bytea"])
            for at, leaf in enumerate(leaves):
                ends = at == last
                copy.write_row(
                    (
                        first + at,
                        marker if ends else None,
                        handed(leaf).relevant,
                        leaf,
                        kept if ends else None,
                    )
                )
        connection.execute("UPDATE head SET size = %s, frontier = %b", (frontier.size, kept))
        return Appended(first=first, head=Head(size=frontier.size, frontier=frontier.hashes))

    def _appended(self, connection: Connection, marker: Any, count: int) -> Appended | None:
        """Return where the leaves went after all, if they did; no attempt is under way now."""
        # Waits for the end of whoever may still be committing them.
        connection.execute("SELECT 1 FROM head FOR UPDATE")
        row: Any = connection.execute(
            "SELECT seq, frontier FROM entry WHERE intake = %s", (marker,)
        ).fetchone()
        if row is None:
            return None
        connection.execute(_MARK)
        head = Head(size=row[0] + 1, frontier=_split(row[1]))
        return Appended(first=head.size - count, head=head)

    def _check(self, connection: Connection) -> None:
        """Refuse a database that is not this ledger, or that has lost some of it."""
        known = self._known
        try:
            row: Any = connection.execute(_TIP.encode(), binary=True).fetchone()
            anchor: Any = connection.execute(
                "SELECT frontier FROM entry WHERE seq = %s", (known.size - 1,), binary=True
            ).fetchone()
        except psycopg.Error as wrong:
            raise error_of(wrong) from wrong
        held, last = (None, None) if row is None else (row[:2], row[2:])
        size, _ = _tip(held, None if last is None or last[0] is None else last)
        if known.size and (anchor is None or anchor[0] != b"".join(known.frontier)):
            raise self._lost(size, known.size)

    def _lost(self, size: int, known: int) -> LedgerDamagedError:
        self._damage = LedgerDamagedError(
            f"the database has {size} leaves and had {known} that are now gone or other",
            hint="go back to the server that has them all: never an older copy, nor a standby"
            " that commits did not wait for",
        )
        return self._damage

    def _read_origin(self, expected: str | None) -> str:
        rows: list[Any] = self._reading.rows("SELECT key, value FROM meta")
        meta = dict(rows)
        if meta.get("format") != str(FORMAT_VERSION):
            raise LedgerDamagedError(
                f"the database has version {meta.get('format')} of the ledger's format, this is"
                f" {FORMAT_VERSION}",
                hint="run the release of the gateway that wrote it, or a newer one",
            )
        origin = meta.get("origin")
        if origin is None:
            raise LedgerMissingError("the database does not say which ledger it holds")
        if expected is not None and origin != expected:
            raise LedgerDamagedError(
                f"the database holds the ledger `{origin}`, not `{expected}`",
                hint="keep database and keys of one installation together",
            )
        return str(origin)


def settled(attempt: Callable[[bool], Result], *, doubt_ms: int = DOUBT_MS_MAX) -> Result:
    """Return what *attempt* does, tried again until its effect is known.

    It is told whether an earlier one may have taken effect, and must then find that out. Time
    counts from the first doubt on: who stood still before can ask at once.

    Raises:
        LedgerUnwellError: nothing was done.
        DoubtfulCommitError: it could not be found out in time.
    """
    doubt: DoubtfulCommitError | None = None
    deadline: float | None = None
    while True:
        try:
            return attempt(doubt is not None)
        except DoubtfulCommitError as fresh:
            doubt = fresh
        except LedgerUnwellError:
            if doubt is None:
                raise
        if deadline is None:
            deadline = time.monotonic() + doubt_ms / 1000
        elif time.monotonic() > deadline:
            raise doubt
        time.sleep(_PAUSE_S)


def _keep(connection: Connection, level: int, number: int, root: bytes, hashes: bytes) -> None:
    connection.execute(
        "INSERT INTO tile VALUES (%s, %s, %b, %b) ON CONFLICT DO NOTHING",
        (level, number, root, hashes),
    )


def _tip(
    held: tuple[int, bytes] | None, last: tuple[int, bytes | None] | None
) -> tuple[int, Frontier]:
    """Return size and frontier of the head, which must be those of the last leaf."""
    if held is None:
        raise _damaged("has no head")
    if held != ((0, b"") if last is None else (last[0] + 1, last[1])):
        ends = "has none" if last is None else f"ends in leaf {last[0]}"
        raise _damaged(f"says that it has {held[0]} leaves, and {ends} with that frontier")
    return held[0], _frontier(*held)


def _frontier(size: int, hashes: bytes) -> Frontier:
    try:
        return Frontier(size, _split(hashes))
    except BadProofError as bad:
        raise _damaged(f"keeps a frontier that does not fit its {size} leaves") from bad


def _split(hashes: bytes) -> tuple[bytes, ...]:
    return tuple(
        hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)
    )


def _gap(index: int) -> LedgerDamagedError:
    return _damaged(f"has no leaf {index}")


def _damaged(what: str) -> LedgerDamagedError:
    return LedgerDamagedError(
        f"the ledger in the database {what}",
        hint="the operator must stop the gateways, go back to the newest copy (never an older"
        " one), and run `gateway ledger fsck`",
    )
