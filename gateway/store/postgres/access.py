"""The gateway's own keys, shared by all replicas: who is let in at one is known at each.

A key is looked up in the database whenever it is shown, so one that was revoked counts nowhere
from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from psycopg.rows import TupleRow

from gateway.clock import Clock, SystemClock
from gateway.errors import LedgerUnwellError
from gateway.store.access import AccessKey, AccessKeys, key_of
from gateway.store.postgres.connection import DoubtfulCommitError
from gateway.store.postgres.ledger import PostgresLedger, settled
from gateway.store.postgres.schema import bring_up_to_date

_COLUMNS: Final = (
    "id",
    "sha256",
    "principal",
    "project",
    "roles",
    "declaration",
    "created",
    "expires",
    "revoked",
    "providers",
    "models",
    "limits",
)
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM access_key"  # noqa: S608 — names of ours
_INSERT: Final = (
    f"INSERT INTO access_key ({', '.join(_COLUMNS)})"  # noqa: S608 — names of ours
    f" VALUES ({', '.join(f'%({name})s' for name in _COLUMNS)})"
    " ON CONFLICT (id) DO UPDATE SET revoked = coalesce(access_key.revoked, excluded.revoked)"
)
_REST_S: Final = 1.0


class PostgresAccessKeys(AccessKeys):
    """The gateway keys in a ledger's database; any thread of any replica may use it."""

    def __init__(self, ledger: PostgresLedger, clock: Clock | None = None) -> None:
        self.path = Path("the database")
        self._clock = clock or SystemClock()
        self._session = ledger.session()
        bring_up_to_date(self._session)
        # OWNED BY: _known_by().
        self._failed: tuple[float, LedgerUnwellError] | None = None

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """Return every key as it is kept, secrets hashed, in the order they were made."""
        return [_named(row) for row in self._session.rows(f"{_SELECT} ORDER BY created, id")]

    def take(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take in keys from elsewhere; who is revoked there or here is revoked.

        Raises:
            LedgerUnwellError: they are not known to be kept.
        """

        def attempt(again: bool) -> None:  # noqa: FBT001 — what `settled` hands over
            with self._session.committing() as connection, connection.transaction():
                for row in rows:
                    connection.execute(_INSERT.encode(), {name: row[name] for name in _COLUMNS})

        try:
            settled(attempt)
        except DoubtfulCommitError as doubt:
            raise LedgerUnwellError(doubt.message, hint=doubt.hint) from doubt

    def close(self) -> None:
        """Let go of the connection."""
        self._session.close()

    def _add(self, row: Mapping[str, Any]) -> None:
        self.take([row])

    def _end(self, id: str, at: str) -> bool:  # noqa: A002 — the glossary's word
        def attempt(again: bool) -> bool:  # noqa: FBT001 — what `settled` hands over
            with self._session.committing() as connection:
                ended = connection.execute(
                    "UPDATE access_key SET revoked = coalesce(revoked, %s) WHERE id = %s",
                    (at, id),
                )
                return ended.rowcount > 0

        try:
            return settled(attempt)
        except DoubtfulCommitError as doubt:
            raise LedgerUnwellError(doubt.message, hint=doubt.hint) from doubt

    def _known_by(self, digest: bytes) -> AccessKey | None:
        now_s = self._clock.monotonic_s()
        if self._failed is not None and now_s - self._failed[0] < _REST_S:
            # Whoever asks must not wait for a database that is away, one after the other.
            raise self._failed[1].with_traceback(None)
        try:
            found = self._session.rows(f"{_SELECT} WHERE sha256 = %s", (digest.hex(),))
        except LedgerUnwellError as trouble:
            self._failed = (now_s, trouble)
            raise
        self._failed = None
        return key_of(_named(found[0])) if found else None


def _named(row: TupleRow) -> Mapping[str, Any]:
    return dict(zip(_COLUMNS, row, strict=True))
