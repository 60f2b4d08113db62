"""The file that the index is in: any thread may use it, one at a time."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import LedgerDamagedError
from gateway.store.index.schema import migrations
from gateway.store.tables import deferred, error_of, immediate, open_database, translated


class IndexFile:
    """A file of the index's tables, made again where it is damaged.

    Raises:
        LedgerUnwellError: it can't be opened or made at present.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            self._database = open_database(path, migrations)
        except LedgerDamagedError:
            # It holds nothing of its own: the leaves say it all again.
            path.unlink()
            path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
            self._database = open_database(path, migrations)
        self.connection: sqlite3.Connection = self._database.conn

    @contextlib.contextmanager
    def asked(self) -> Iterator[sqlite3.Connection]:
        """Ask one thing; an answer takes so little time that one frame less is worth having."""
        with self._lock:
            try:
                yield self.connection
            except sqlite3.Error as wrong:
                raise error_of(wrong, self.path) from wrong

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """See one state of the file, whatever others write meanwhile."""
        with self._lock, translated(self.path):
            if self.connection.in_transaction:
                yield
            else:
                with deferred(self._database):
                    yield

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Write all that follows, or nothing of it."""
        with self._lock, translated(self.path), immediate(self._database):
            yield

    def watermark(self) -> tuple[int, str]:
        """Return how many leaves are indexed, and the digest of the last."""
        with self.asked() as connection:
            row = connection.execute("SELECT size, last_sha256 FROM watermark").fetchone()
        return int(row[0]), str(row[1])

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()
