"""What limits count, for all replicas that share a database; by its clock, not by theirs.

Each charge is one statement that adds if there is room, so no two replicas can both take the
last. It is not waited for until it is durable: after a crash of the database what was counted
in its last moments may be forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import psycopg

from gateway.budget.model import Change, Charge, Counted, Full
from gateway.errors import LedgerUnwellError
from gateway.store.postgres.connection import Connection, DoubtfulCommitError, Session
from gateway.store.postgres.ledger import PostgresLedger

_NOW: Final = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_SPAN: Final = """
SELECT extract(epoch FROM s.start)::bigint * 1000 AS start,
       extract(epoch FROM s.start + ('1 ' || %(window)s)::interval)::bigint * 1000 AS ends
FROM (SELECT date_trunc(%(window)s, clock_timestamp() AT TIME ZONE 'UTC') AS start) AS s
"""
_TAKE: Final = f"""
INSERT INTO counter AS c (name, start, ends, used)
SELECT %(counter)s, w.start, w.ends, %(amount)s FROM ({_SPAN}) AS w
WHERE %(amount)s <= %(at_most)s
ON CONFLICT (name) DO UPDATE SET
  used = CASE WHEN c.start < excluded.start THEN 0 ELSE c.used END + excluded.used,
  ends = CASE WHEN c.start < excluded.start THEN excluded.ends ELSE c.ends END,
  start = greatest(c.start, excluded.start)
WHERE CASE WHEN c.start < excluded.start THEN 0 ELSE c.used END + excluded.used <= %(at_most)s
RETURNING start
"""  # noqa: S608 — built from constants
_HELD: Final = f"""
SELECT coalesce(c.used, 0), w.ends - {_NOW} FROM ({_SPAN}) AS w
LEFT JOIN counter AS c ON c.name = %(counter)s AND c.start >= w.start
"""  # noqa: S608 — built from constants
_CHANGE: Final = """
UPDATE counter SET used = greatest(0, used + %s) WHERE name = %s AND start = %s
"""
_COUNTED: Final = f"SELECT name, used, start, ends FROM counter WHERE ends > {_NOW}"  # noqa: S608
_FORGET: Final = f"DELETE FROM counter WHERE ends < {_NOW} - 86400000"  # noqa: S608
_FORGET_EVERY: Final = 10_000


class PostgresCounters:
    """Counters in a ledger's database; any number of replicas."""

    def __init__(self, ledger: PostgresLedger) -> None:
        self._session: Session = ledger.session()
        # OWNED BY: whichever thread holds the session.
        self._taken = 0

    async def take(self, charges: Sequence[Charge]) -> tuple[int, ...] | Full:
        """Add every charge, or none; see `Counters`."""
        return await asyncio.to_thread(self._take, charges)

    async def change(self, changes: Sequence[Change]) -> None:
        """Add and take off what turned out to be other than was taken; see `Counters`."""
        await asyncio.to_thread(self._change, changes)

    def counted(self) -> list[Counted]:
        """Return what every counter holds whose window has not ended; see `Counters`."""
        rows: list[Any] = self._session.rows(_COUNTED)
        return [
            Counted(counter=name, used=used, start=start, end=ends)
            for name, used, start, ends in rows
        ]

    def close(self) -> None:
        """Let go of the connection."""
        self._session.close()

    # -- in a thread ----------------------------------------------------------------------

    def _take(self, charges: Sequence[Charge]) -> tuple[int, ...] | Full:
        starts: dict[int, int] = {}
        try:
            with self._session.committing() as connection:
                failed = self._add(connection, charges, starts)
        except DoubtfulCommitError as doubt:
            # If it was counted, too much is counted: nothing may be asked, and nothing was.
            raise LedgerUnwellError(doubt.message, hint=doubt.hint) from doubt
        if failed is not None:
            return self._full(failed, charges[failed])
        return tuple(starts[place] for place in range(len(charges)))

    def _add(
        self, connection: Connection, charges: Sequence[Charge], starts: dict[int, int]
    ) -> int | None:
        """Make every charge, or none; return the first for which there was no room."""
        failed: int | None = None
        with connection.transaction():
            _hurry(connection)
            # In the order of their names, so that no two wait for each other.
            for place in sorted(range(len(charges)), key=lambda one: charges[one].counter):
                row: Any = connection.execute(_TAKE, _parameters(charges[place])).fetchone()
                if row is None:
                    failed = place
                    raise psycopg.Rollback
                starts[place] = row[0]
            self._tidy(connection)
        return failed

    def _full(self, place: int, charge: Charge) -> Full:
        rows: list[Any] = self._session.rows(_HELD, _parameters(charge))
        ((used, frees_ms),) = rows
        return Full(place=place, used=used, frees_ms=max(0, frees_ms))

    def _change(self, changes: Sequence[Change]) -> None:
        try:
            with self._session.committing() as connection, connection.transaction():
                _hurry(connection)
                for change in sorted(changes, key=lambda one: one.counter):
                    connection.execute(_CHANGE, (change.amount, change.counter, change.start))
        except DoubtfulCommitError as doubt:
            raise LedgerUnwellError(doubt.message, hint=doubt.hint) from doubt

    def _tidy(self, connection: Connection) -> None:
        """Forget, now and then, counters that nobody has used for a day."""
        if self._taken % _FORGET_EVERY == _FORGET_EVERY - 1:
            connection.execute(_FORGET.encode())
        self._taken += 1


def _hurry(connection: Connection) -> None:
    connection.execute("SET LOCAL synchronous_commit = off")


def _parameters(charge: Charge) -> dict[str, object]:
    return {
        "counter": charge.counter,
        "window": charge.window,
        "amount": charge.amount,
        "at_most": charge.at_most,
    }
