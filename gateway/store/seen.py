"""A set of names that may grow beyond memory: kept in an unnamed file that goes with it."""

from __future__ import annotations

import apsw


class Seen:
    """Tells whether a name was there before; forgotten when it is closed."""

    def __init__(self) -> None:
        # SQLite opens a temporary file for a database without a name, and removes it.
        self._connection = apsw.Connection("")
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA cache_size = -8192")
        self._connection.execute("CREATE TABLE seen (name TEXT PRIMARY KEY) WITHOUT ROWID")
        self._connection.execute("BEGIN")

    def add(self, name: str) -> bool:
        """Take *name* in; tell whether it is new."""
        before = self._connection.total_changes()
        self._connection.execute("INSERT INTO seen VALUES (?) ON CONFLICT DO NOTHING", (name,))
        return self._connection.total_changes() > before

    def close(self) -> None:
        """Forget everything."""
        self._connection.close()
