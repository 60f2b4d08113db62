"""Open the small databases that people query, through sqlite-utils.

They run on the standard library's SQLite, which on many systems carries the WAL-reset bug; so
they keep SQLite's rollback journal. The ledger and the contents have apsw.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.errors import LedgerDamagedError, LedgerUnwellError, OperatorError
from gateway.limits import STORE_BUSY_MS

# sqlite-utils loads pandas and numpy wherever they are installed, as the student extra does:
# a second of every start, for types that we never store. For this one import they are hidden.
_UNWANTED: Final = [name for name in ("pandas", "numpy") if name not in sys.modules]
for _name in _UNWANTED:
    sys.modules[_name] = None  # type: ignore[assignment]  # import then finds none
from sqlite_utils import Database, Migrations  # noqa: E402

for _name in _UNWANTED:
    del sys.modules[_name]

__all__ = [
    "Database",
    "Migrations",
    "deferred",
    "error_of",
    "immediate",
    "open_database",
    "translated",
]


def open_database(path: Path, migrations: Migrations) -> Database:
    """Open or make the database at *path* and bring its tables up to date.

    Raises:
        LedgerUnwellError: it can't be opened or made at present.
        LedgerDamagedError: what is there is not a database, or a damaged one.
    """
    with translated(path):
        connection = sqlite3.connect(
            path, timeout=STORE_BUSY_MS / 1000, check_same_thread=False
        )
        database = Database(connection)
        if migrations.pending(database):
            with immediate(database):
                migrations.apply(database)
        return database


@contextlib.contextmanager
def immediate(database: Database) -> Iterator[None]:
    """Hold the right to write from the first statement to the commit."""
    connection = database.conn
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        database.rollback()


@contextlib.contextmanager
def deferred(database: Database) -> Iterator[None]:
    """Let everything read within see one state of the file."""
    database.conn.execute("BEGIN")
    try:
        yield
    finally:
        database.rollback()


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite raises about *path* into what the operator must do."""
    try:
        yield
    except sqlite3.Error as wrong:
        raise error_of(wrong, path) from wrong


def error_of(wrong: sqlite3.Error, path: Path) -> OperatorError:
    """Return what the operator must do about what SQLite raised about *path*."""
    if isinstance(wrong, sqlite3.DatabaseError) and not isinstance(
        wrong, sqlite3.OperationalError
    ):
        return LedgerDamagedError(
            f"`{path}` is not a database, or damaged ({wrong})",
            hint="restore it from a backup; an index.db may simply be removed",
        )
    return LedgerUnwellError(
        f"`{path}` can't be used at present: {wrong}",
        hint="check permissions, free space, and what else holds the file",
    )
