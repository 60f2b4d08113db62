"""Copy databases while others write them: each copy is one state of its file, whole.

A snapshot stands still from the moment it is taken; writers are not held up by it, but what
they write meanwhile stays in the write-ahead log until the copying is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import apsw

from gateway.ident import Sha256
from gateway.store import tables
from gateway.store.files import sync_folder
from gateway.store.sqlite import connect, translated

Done = Callable[[int], None]
"""Called with how many bytes are done since the last time."""

_PAGES_AT_ONCE: Final = 1_024
_BYTES_AT_ONCE: Final = 1024 * 1024


class Snapshot:
    """One state of a database with a write-ahead log, held until it is let go of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with translated(path):
            self._connection = connect(path, writes=False)
            self._connection.execute("BEGIN")
            # Only a read takes the snapshot.
            self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()

    @property
    def bytes(self) -> int:
        """How large the copy will be."""
        with translated(self.path):
            pages = self._connection.pragma("page_count")
            return int(pages) * int(self._connection.pragma("page_size"))

    def copy_to(self, target: Path, done: Done) -> None:
        """Write the snapshot to *target*, which does not exist; durable on return.

        Raises:
            LedgerUnwellError: there is no room, or no permission.
            LedgerDamagedError: it can't be read or written whole.
        """
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        with (
            translated(target),
            contextlib.closing(apsw.Connection(str(target), flags=flags)) as copy,
            copy.backup("main", self._connection, "main") as backup,
        ):
            size, before = int(self._connection.pragma("page_size")), 0
            while not backup.done:
                backup.step(_PAGES_AT_ONCE)
                copied = backup.page_count - backup.remaining
                done(size * (copied - before))
                before = copied
        sync(target)

    def close(self) -> None:
        """Let go of the state; the log may be copied back then."""
        self._connection.close()


def copy_small(path: Path, target: Path) -> None:
    """Copy a database that keeps a rollback journal to *target*; durable on return.

    Raises:
        LedgerUnwellError: it can't be read or written at present.
    """
    with (
        tables.translated(path),
        contextlib.closing(sqlite3.connect(path)) as source,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)
    sync(target)


def digest(path: Path, done: Done = lambda _: None) -> Sha256:
    """Return the SHA-256 of the file at *path*, read piece by piece."""
    found = hashlib.sha256()
    for piece in _pieces(path):
        found.update(piece)
        done(len(piece))
    return Sha256(found.hexdigest())


def copy_file(path: Path, target: Path, mode: int, done: Done = lambda _: None) -> Sha256:
    """Copy a file to *target*, which does not exist; durable on return. Return its SHA-256.

    Raises:
        OSError: it can't be read, or there is no room.
    """
    found = hashlib.sha256()
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        for piece in _pieces(path):
            file.write(piece)
            found.update(piece)
            done(len(piece))
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    return Sha256(found.hexdigest())


def sync(path: Path) -> None:
    """Make a file and its name durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_BYTES_AT_ONCE):
            yield piece
