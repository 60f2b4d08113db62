"""Where replicas hand statements in, and where one of them gives them their places.

Handing in takes no lock that others wait for. Whoever holds the lease moves what was handed in
to the ledger, in transactions that each begin by making sure that the lease is still held: who
lost it writes nothing. The id of a statement is in the ledger at most once, so it may be handed
in as often as there is doubt whether it was.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.clock import SystemClock
from gateway.errors import LedgerUnwellError
from gateway.limits import (
    LEASE_MS,
    LEAVES_READ_AT_ONCE,
    STATEMENTS_PER_COMMIT_MAX,
    TAKEOVER_MS_MAX,
    WRITER_SILENT_MS_MAX,
)
from gateway.store.ports import Appended, Head
from gateway.store.postgres.connection import Connection, DoubtfulCommitError, Session
from gateway.store.postgres.leaf import Handed
from gateway.store.postgres.ledger import CHANNEL, PostgresLedger, settled

HANDED_IN: Final = "handed-in"
PLACED: Final = "placed"
RELEASED: Final = "released"
"""What else is called out on the channel; nothing depends on its being heard."""

_HAND_IN: Final = """
INSERT INTO intake (id, turn, relevant, writer, leaf)
SELECT handed.id, %b + handed.place, handed.relevant, %b, handed.leaf
FROM unnest(%b::uuid[], %b::boolean[], %b::bytea[]) WITH ORDINALITY
  AS handed (id, relevant, leaf, place)
ON CONFLICT DO NOTHING
"""
_PLACES: Final = """
SELECT intake, seq, sha256('\\x00'::bytea || leaf),
  current_setting('synchronous_standby_names') <> ''
FROM entry WHERE intake = ANY(%b::uuid[])
"""
_WAITING: Final = """
SELECT id, sha256('\\x00'::bytea || leaf), EXISTS (SELECT FROM entry WHERE entry.intake = id)
FROM intake ORDER BY turn LIMIT %b
"""
_MOVE: Final = """
WITH taken AS (DELETE FROM intake WHERE id = ANY(%(all)b) RETURNING id, relevant, leaf)
INSERT INTO entry (seq, intake, relevant, leaf, frontier)
SELECT %(first)b + named.place - 1, taken.id, taken.relevant, taken.leaf,
  CASE WHEN named.place = %(count)b THEN %(frontier)b::bytea END
FROM unnest(%(fresh)b::uuid[]) WITH ORDINALITY AS named (id, place)
JOIN taken ON taken.id = named.id
"""
_HOLD: Final = """
UPDATE lease SET until = clock_timestamp() + %b * interval '1 ms'
WHERE epoch = %b AND holder = %b
"""


_TURN_BITS: Final = 20
"""How many statements may be handed in within a millisecond before turns run ahead of it."""


class LeaseLostError(Exception):
    """Another replica sequences now; nothing was written."""


class _RacedError(Exception):
    """Something was taken back while it was about to be moved."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the statement handed in under an id went, and what it is."""

    index: int
    hash: bytes


class Intake:
    """One replica's access to the intake; each of its threads has a connection of its own."""

    def __init__(self, ledger: PostgresLedger, instance: str) -> None:
        self.ledger = ledger
        self.instance = instance
        self._handing = ledger.session()
        self._leading = ledger.session()
        self._pulse = ledger.session()
        # OWNED BY: hand_in(). The turn of the last statement; later ones have higher turns.
        self._turn = 0

    # -- handing in -----------------------------------------------------------------------

    def hand_in(self, handed: Sequence[Handed]) -> None:
        """Hand statements in; durable on return, each once however often it is repeated.

        Their places will be in this order, and after those of what was handed in before.

        Raises:
            LedgerUnwellError: none was.
            DoubtfulCommitError: that could not be found out in time.
        """
        turn = max(self._turn, SystemClock().now_ms() << _TURN_BITS)
        self._turn = turn + len(handed)

        def attempt(again: bool) -> None:  # noqa: FBT001 — what `settled` hands over
            with self._handing.committing() as connection:
                connection.execute(
                    _HAND_IN,
                    (
                        turn,
                        self.instance,
                        [one.id for one in handed],
                        [one.relevant for one in handed],
                        [one.leaf for one in handed],
                    ),
                )
            if again:
                # They may have been there before, seen but on no standby.
                self.ledger.confirm()

        settled(attempt)

    def places_of(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Place]:
        """Return the places of those of *ids* that have one; they are durable."""
        rows: list[Any] = self._handing.rows(_PLACES, (list(ids),))
        if rows and rows[0][3]:
            self.ledger.confirm()
        return {row[0]: Place(row[1], row[2]) for row in rows}

    def take_back(self, ids: Sequence[uuid.UUID]) -> None:
        """Take back what still waits of *ids*; it will never have a place.

        Raises:
            DoubtfulCommitError: it may or may not get one.
        """

        def attempt(again: bool) -> None:  # noqa: FBT001 — what `settled` hands over
            with self._handing.committing() as connection:
                connection.execute(
                    "DELETE FROM intake WHERE writer = %b AND id = ANY(%b::uuid[])",
                    (self.instance, list(ids)),
                )
            self.ledger.confirm()

        try:
            settled(attempt)
        except LedgerUnwellError as trouble:
            raise DoubtfulCommitError(trouble.message, hint=trouble.hint) from trouble

    def relevant(self, first: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield index and leaf of what concerns every replica, from *first* up to *stop*."""
        while first < stop:
            rows: list[Any] = self._handing.rows(
                "SELECT seq, leaf FROM entry WHERE relevant AND seq >= %b AND seq < %b"
                " ORDER BY seq LIMIT %b",
                (first, stop, LEAVES_READ_AT_ONCE),
            )
            yield from rows
            if len(rows) < LEAVES_READ_AT_ONCE:
                return
            first = rows[-1][0] + 1

    # -- sequencing -----------------------------------------------------------------------

    def is_led(self) -> bool:
        """Tell whether another replica holds the lease."""
        rows = self._leading.rows(
            "SELECT FROM lease WHERE until >= clock_timestamp() AND holder <> %b",
            (self.instance,),
        )
        return bool(rows)

    def take_over(self) -> int | None:
        """Take the lease, if no other replica holds it, and return the new epoch."""
        # Where the answer is lost the lease runs out unused, or is taken again.
        with (
            contextlib.suppress(DoubtfulCommitError),
            self._leading.committing() as connection,
        ):
            row = connection.execute(
                "UPDATE lease SET epoch = epoch + 1, holder = %b,"
                " until = clock_timestamp() + %b * interval '1 ms'"
                " WHERE until < clock_timestamp() OR holder = %b RETURNING epoch",
                (self.instance, TAKEOVER_MS_MAX, self.instance),
            ).fetchone()
            return None if row is None else int(row[0])
        return None

    def renew(self, epoch: int) -> None:
        """Hold the lease for longer.

        Raises:
            LeaseLostError: another replica has it.
        """
        with (
            contextlib.suppress(DoubtfulCommitError),
            self._leading.committing() as connection,
        ):
            self._hold(connection, epoch)

    def release(self, epoch: int) -> None:
        """Let go of the lease, so that another replica need not wait for its end."""
        with (
            contextlib.suppress(DoubtfulCommitError, LedgerUnwellError),
            self._leading.committing() as connection,
        ):
            connection.execute(
                "UPDATE lease SET holder = '', until = '-infinity'"
                " WHERE epoch = %b AND holder = %b",
                (epoch, self.instance),
            )

    def sequence(self, epoch: int, first: Sequence[Handed] = ()) -> Appended | None:
        """Give *first*, and then what waits, the next places; return them if there are any.

        Raises:
            LeaseLostError: another replica sequences now; nothing was written.
            LedgerUnwellError: nothing was written.
            LedgerDamagedError: the ledger is not what it was, or what was written is unknown.
        """

        def attempt(again: bool) -> Appended | None:  # noqa: FBT001 — of `settled`
            try:
                with self._leading.committing() as connection, connection.transaction():
                    # Waits for the end of whatever this replica began before and lost sight of.
                    self._hold(connection, epoch)
                    appended = self._sequence(connection, first)
            except _RacedError:
                return None
            if again:
                self.ledger.confirm()
            return appended

        if not first and not self._leading.rows("SELECT FROM intake LIMIT 1"):
            return None
        appended = self.ledger.settled(attempt)
        if appended is not None:
            self.ledger.learn(appended.head)
        return appended

    # -- living ---------------------------------------------------------------------------

    def beat(self) -> None:
        """Say that this replica lives."""
        with (
            contextlib.suppress(DoubtfulCommitError),
            self._pulse.committing() as connection,
            connection.transaction(),
        ):
            connection.execute("SET LOCAL synchronous_commit = off")
            connection.execute(
                "INSERT INTO writer VALUES (%b, clock_timestamp()) ON CONFLICT (instance)"
                " DO UPDATE SET seen = excluded.seen",
                (self.instance,),
            )

    def leave(self) -> None:
        """Say that this replica is no more: what it left open may be closed."""
        with (
            contextlib.suppress(DoubtfulCommitError, LedgerUnwellError),
            self._pulse.committing() as connection,
        ):
            connection.execute("DELETE FROM writer WHERE instance = %b", (self.instance,))

    def living(self) -> set[str]:
        """Return the replicas that have said so lately, and this one."""
        rows = self._pulse.rows(
            "SELECT instance FROM writer WHERE seen > clock_timestamp() - %b * interval '1 ms'",
            (WRITER_SILENT_MS_MAX,),
        )
        return {self.instance, *(str(row[0]) for row in rows)}

    # -- being heard ----------------------------------------------------------------------

    def call_out(self, what: str, session: Session | None = None) -> None:
        """Tell every replica that *what* happened; who does not hear it looks by itself."""
        # Never inside another transaction: calling out takes a lock that all others who call
        # out wait for, until the commit is done.
        with (
            contextlib.suppress(DoubtfulCommitError, LedgerUnwellError),
            (session or self._handing).committing() as connection,
        ):
            connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, what))

    def call_out_as_leader(self, what: str) -> None:
        """Tell every replica, on the connection of the thread that sequences."""
        self.call_out(what, self._leading)

    def listen(self, timeout_s: float) -> set[str]:
        """Return what was called out since the last time; wait for something if need be.

        Raises:
            LedgerUnwellError: the database can't be heard at present.
        """
        try:
            with self._pulse.committing() as connection:
                connection.execute(f"LISTEN {CHANNEL}")
                heard = connection.notifies(timeout=timeout_s, stop_after=1)
                return {one.payload for one in heard}
        except DoubtfulCommitError as broken:
            raise LedgerUnwellError(broken.message, hint=broken.hint) from broken

    def close(self) -> None:
        """Let go of the connections; the ledger itself stays open."""
        for session in (self._handing, self._leading, self._pulse):
            session.close()

    # -- inside a transaction -------------------------------------------------------------

    def _hold(self, connection: Connection, epoch: int) -> None:
        held = connection.execute(_HOLD, (LEASE_MS, epoch, self.instance))
        if held.rowcount != 1:
            raise LeaseLostError

    def _sequence(self, connection: Connection, first: Sequence[Handed]) -> Appended | None:
        first = [one for one in first if not _is_placed(connection, one.id)]
        waiting: list[Any] = connection.execute(
            _WAITING, (STATEMENTS_PER_COMMIT_MAX,), binary=True
        ).fetchall()
        begins = {one.id for one in first}
        fresh = [
            (one, hashed) for one, hashed, placed in waiting if not placed and one not in begins
        ]
        if not first and not waiting:
            return None
        hashes = [*(one.hash for one in first), *(hashed for _, hashed in fresh)]
        start, frontier = self.ledger.grown(connection, hashes)
        kept = b"".join(frontier.hashes)
        for at, one in enumerate(first):
            ends = not fresh and at == len(first) - 1
            connection.execute(
                "INSERT INTO entry (seq, intake, relevant, leaf, frontier)"
                " VALUES (%b, %b, %b, %b, %b)",
                (start + at, one.id, one.relevant, one.leaf, kept if ends else None),
            )
        moved = connection.execute(
            _MOVE,
            {
                "all": [one for one, _, _ in waiting],
                "fresh": [one for one, _ in fresh],
                "first": start + len(first),
                "count": len(fresh),
                "frontier": kept,
            },
        )
        if moved.rowcount != len(fresh):
            raise _RacedError
        connection.execute("UPDATE head SET size = %b, frontier = %b", (frontier.size, kept))
        return Appended(first=start, head=Head(size=frontier.size, frontier=frontier.hashes))


def _is_placed(connection: Connection, id: uuid.UUID) -> bool:  # noqa: A002 — its name
    row = connection.execute("SELECT 1 FROM entry WHERE intake = %b", (id,)).fetchone()
    return row is not None
