"""The embedded ledger: one SQLite file that only grows; durable when a call returns.

A commit is one statement that carries the leaves and, on the last of them, the frontier of the
tree after it. It takes effect only on top of the leaf and frontier that this process knows, so
that several processes may share the file and none can leave a gap. The format of the file is
described in `docs/formats/ledger.md`. Whoever can write the file can fork the log; only a
checkpoint kept elsewhere shows it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from gateway.errors import (
    BadProofError,
    LedgerDamagedError,
    LedgerMissingError,
    LedgerUnwellError,
    OperatorError,
)
from gateway.limits import LEAVES_READ_AT_ONCE, STORE_BUSY_MS
from gateway.store.files import sync_folder
from gateway.store.full_tiles import FullTiles
from gateway.store.ports import Appended, Head
from gateway.tlog.merkle import HASH_BYTES, Frontier, leaf_hash, root_of

APPLICATION_ID: Final = 0x746F7367
"""Marks the file as a ledger (`tosg`), so that another database is not taken for one."""

SCHEMA_VERSION: Final = 1

_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE leaf (seq INTEGER PRIMARY KEY, leaf BLOB NOT NULL, frontier BLOB) STRICT;
CREATE TABLE checkpoint (
  one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, note TEXT NOT NULL
) STRICT;
CREATE TABLE tile (
  level INTEGER NOT NULL, number INTEGER NOT NULL, root BLOB NOT NULL, hashes BLOB NOT NULL,
  PRIMARY KEY (level, number)
) STRICT;
"""

# Both take effect only on top of the leaf that this process believes to be the last.
_ON_TOP: Final = (
    "WHERE ?1 = 0 OR EXISTS (SELECT 1 FROM leaf WHERE seq = ?1 - 1 AND frontier = ?2)"
)
_INSERT_ONE: Final = f"INSERT INTO leaf SELECT ?1, ?3, ?4 {_ON_TOP}"
_INSERT_MANY: Final = (
    "INSERT INTO leaf SELECT ?1 + c.rowid - 1, c.value, iif(c.rowid = ?5, ?4, NULL)"  # noqa: S608 — built from constants
    f" FROM carray(?3) AS c {_ON_TOP}"
)
_HEAD: Final = "SELECT seq, frontier FROM leaf ORDER BY seq DESC LIMIT 1"

_TIDY_UP_EVERY_BYTES: Final = 4 * 1024 * 1024
"""How much may be appended before the write-ahead log is copied back in the background."""

_LOG_PAGES_LARGE: Final = 2_048
"""From here on (16 MiB) the writer itself copies the little that came in meanwhile: only where
nothing is left to copy does the log start over."""

_WRITTEN_AGAIN_AT_ONCE: Final = 64 * 1024
"""SQLite writes less than 128 KiB at once; beyond that it takes the disk for full."""


class SqliteLedger:
    """A ledger in one file; `append` belongs to one thread, all else may come from any.

    One that is opened without *writes* can only be read: another process has it for writing.
    """

    def __init__(self, path: Path, *, origin: str | None = None, writes: bool = True) -> None:
        self.path = path
        self._writes = writes
        self._damage: LedgerDamagedError | None = None
        self._writing = _open(path)
        try:
            self.origin = self._read_origin(origin)
            self._reading = connect(path, writes=False)
            self._side = connect(path, durable=False)
            if not writes:
                for connection in (self._writing, self._reading, self._side):
                    connection.execute("PRAGMA query_only = 1")
                    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            # OWNED BY: append().
            self._tip = _frontier_of(path, self._writing)
        except apsw.Error as wrong:
            raise error_of(wrong, path) from wrong
        self._named_at = self._tip.size
        """At which size the ledger's name was last looked at."""
        self._bytes_since_tidy_up = 0
        self._log_renewed = False
        # OWNED BY: append() at the tail, publish() at the head.
        self._tiles = FullTiles(self._tip.size)
        self._reading_lock = threading.Lock()
        self._side_lock = threading.Lock()
        self._broom = _Broom(path)

    @classmethod
    def create(cls, path: Path, origin: str) -> SqliteLedger:
        """Make an empty ledger named *origin* at *path*, once, and open it.

        Raises:
            LedgerDamagedError: there is something at *path* already.
            LedgerUnwellError: it could not be made.
        """
        beside = path.with_name(f"{path.name}.new")
        try:
            beside.unlink(missing_ok=True)
            _make(beside, origin)
            # A link, unlike a rename, refuses to take another file's place.
            path.hardlink_to(beside)
            beside.unlink()
            sync_folder(path.parent)
        except FileExistsError as there:
            beside.unlink(missing_ok=True)
            raise LedgerDamagedError(
                f"`{path}` is already there; a ledger is made once and never replaced",
                hint="choose another `data` folder, or go on with this one",
            ) from there
        except (OSError, apsw.Error) as wrong:
            raise LedgerUnwellError(
                f"no ledger could be made at `{path}`: {wrong}",
                hint="check that the folder exists, is writable and has space",
            ) from wrong
        return cls(path, origin=origin)

    def append(
        self, leaves: Sequence[bytes], hashes: Sequence[bytes] | None = None
    ) -> Appended:
        """Add *leaves* at the end in one transaction; durable, with the head, on return.

        Raises:
            LedgerUnwellError: nothing was added (the disk is full, the file is busy).
            LedgerDamagedError: the durable state is unknown or wrong; the process must end.
        """
        if self._damage is not None:
            raise self._damage
        made = [leaf_hash(leaf) for leaf in leaves] if hashes is None else list(hashes)
        first = self._tip.size
        try:
            if not self._log_renewed:
                renew_log(self._writing, self.path)
                self._log_renewed = True
            grown = self._insert(leaves, made)
            if grown is None:
                grown = self._insert_after_others(leaves, made)
                first = grown.size - len(leaves)
        except apsw.Error as wrong:
            raise self._failed(wrong) from wrong
        except LedgerDamagedError as damage:
            self._damage = damage
            raise
        self._tip = grown
        self._tiles.add(first, made)
        self._sweep(leaves)
        return Appended(first=first, head=Head(size=grown.size, frontier=grown.hashes))

    def head(self) -> Head:
        """Return the durable head."""
        with self._reading_lock, translated(self.path):
            tip = _frontier_of(self.path, self._reading)
            if tip.size != self._named_at:
                # Only a leaf can give the ledger another name.
                self._check_name(self._reading)
                self._named_at = tip.size
        return Head(size=tip.size, frontier=tip.hashes)

    def succeed(self, leaf: bytes, origin: str, size: int) -> None:
        """Go on under another name: *leaf* says so, at index *size*, in the same commit.

        Durable on return. From then on whoever has the ledger open under its old name can
        neither add to it nor sign for it.

        Raises:
            LedgerUnwellError: it has more or fewer than *size* leaves; nothing was changed.
            LedgerDamagedError: the durable state is unknown or wrong; the process must end.
        """
        try:
            if not self._log_renewed:
                renew_log(self._writing, self.path)
                self._log_renewed = True
            with transaction(self._writing):
                self._check_name(self._writing)
                self._tip = _frontier_of(self.path, self._writing)
                if self._tip.size != size:
                    raise LedgerUnwellError(
                        f"the ledger has {self._tip.size} leaves by now, not {size}",
                        hint="run it again",
                    )
                grown = self._insert([leaf], [leaf_hash(leaf)])
                if grown is None:
                    raise self._lost(size)
                self._writing.execute(
                    "UPDATE meta SET value = ? WHERE key = 'origin'", (origin,)
                )
        except apsw.Error as wrong:
            raise self._failed(wrong) from wrong
        self._tiles.add(size, [leaf_hash(leaf)])
        self._tip, self.origin = grown, origin

    def leaves(self, first: int, stop: int) -> Iterator[bytes]:
        """Yield leaves *first* up to, not including, *stop*, in order, in constant memory."""
        for start in range(first, stop, LEAVES_READ_AT_ONCE):
            end = min(start + LEAVES_READ_AT_ONCE, stop)
            with self._reading_lock, translated(self.path):
                rows: list[tuple[int, bytes]] = self._read(
                    "SELECT seq, leaf FROM leaf WHERE seq >= ? AND seq < ? ORDER BY seq",
                    start,
                    end,
                )
            for expected, (seq, leaf) in enumerate(rows, start):
                if seq != expected:
                    raise self._gap(expected)
                yield leaf
            if len(rows) != end - start:
                raise self._gap(start + len(rows))

    def frontiers(self, first: int, stop: int) -> dict[int, tuple[bytes, ...]]:
        """Return the frontiers kept with leaves *first* to *stop*, by the size they are of."""
        with self._reading_lock, translated(self.path):
            rows: list[tuple[int, bytes]] = self._read(
                "SELECT seq, frontier FROM leaf"
                " WHERE seq >= ? AND seq < ? AND frontier IS NOT NULL",
                first,
                stop,
            )
        return {seq + 1: _split(frontier) for seq, frontier in rows}

    def settle(self) -> None:
        """Make durable what this ledger shows and a process that ended before may not have.

        Raises:
            LedgerUnwellError: it can't be done at present.
            LedgerDamagedError: it may or may not have been; the process must end.
        """
        with self._fatal_where_damaged(), self._side_lock, translated(self.path):
            renew_log(self._side, self.path)

    def publish(self, size: int, note: str) -> None:
        """Keep *note* as the newest checkpoint; an older size than the kept one is ignored.

        Raises:
            LedgerUnwellError: it was not kept.
            LedgerDamagedError: it may or may not have been; the process must end.
        """
        with self._fatal_where_damaged(), self._side_lock, translated(self.path), self._side:
            for number, hashes in self._tiles.take():
                self._keep(0, number, root_of(hashes), b"".join(hashes))
            self._side.execute(
                "INSERT INTO checkpoint VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE"
                " SET size = excluded.size, note = excluded.note"
                " WHERE excluded.size >= checkpoint.size",
                (size, note),
            )

    def checkpoint(self) -> str | None:
        """Return the newest published checkpoint, a signed note, or `None`."""
        with self._reading_lock, translated(self.path):
            row = self._reading.execute("SELECT note FROM checkpoint").fetchone()
        return None if row is None else str(row[0])

    def tile(self, level: int, number: int) -> bytes | None:
        """Return the 256 hashes of a full tile, joined, or `None` if it is not kept."""
        with self._reading_lock, translated(self.path):
            row = self._reading.execute(
                "SELECT hashes FROM tile WHERE level = ? AND number = ?", (level, number)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def tile_roots(self, level: int, first: int, stop: int) -> dict[int, bytes]:
        """Return the roots of the kept tiles *first* up to, not including, *stop*."""
        with self._reading_lock, translated(self.path):
            rows: list[tuple[int, bytes]] = self._read(
                "SELECT number, root FROM tile WHERE level = ? AND number >= ? AND number < ?",
                level,
                first,
                stop,
            )
        return dict(rows)

    def keep_tile(self, level: int, number: int, hashes: bytes) -> None:
        """Keep a full tile; it need not be durable, and one already kept stays."""
        if not self._writes:
            return
        root = root_of(_split(hashes))
        with self._fatal_where_damaged(), self._side_lock, translated(self.path), self._side:
            self._keep(level, number, root, hashes)

    def leave(self, at: str) -> None:
        """Note that the ledger goes on elsewhere *at* an instant; it is opened no more."""
        with translated(self.path), transaction(self._writing):
            self._writing.execute("INSERT INTO meta VALUES ('moved', ?)", (at,))

    def close(self) -> None:
        """Let go of the file; further calls are errors."""
        self._broom.stop()
        # Whoever is reading at this moment ends that first.
        with self._side_lock:
            self._side.close()
        with self._reading_lock:
            self._reading.close()
        self._writing.close()

    def _read_origin(self, expected: str | None) -> str:
        row = self._writing.execute("SELECT value FROM meta WHERE key = 'moved'").fetchone()
        if row is not None:
            # Two that go on from here would be two histories under one name.
            raise LedgerMissingError(
                f"the ledger in `{self.path}` goes on in PostgreSQL since {row[0]}",
                hint="set `ledger` in gateway.yaml to where it is; keep this file as a copy",
            )
        row = self._writing.execute("SELECT value FROM meta WHERE key = 'origin'").fetchone()
        if row is None:
            raise _damaged(self.path, "does not say which ledger it is")
        if expected is not None and row[0] != expected:
            raise LedgerDamagedError(
                f"`{self.path}` is the ledger `{row[0]}`, not `{expected}`",
                hint="keep ledger and keys of one data folder together",
            )
        return str(row[0])

    def _check_name(self, connection: apsw.Connection) -> None:
        row = connection.execute("SELECT value FROM meta WHERE key = 'origin'").fetchone()
        if row is not None and row[0] != self.origin:
            raise LedgerDamagedError(
                f"`{self.path}` goes on as the ledger `{row[0]}`; `{self.origin}` is frozen",
                hint="start the command again",
            )

    def _insert(self, leaves: Sequence[bytes], hashes: list[bytes]) -> Frontier | None:
        """Add *leaves* on top of the tip, or nothing if others have added in between."""
        tip, count = self._tip, len(leaves)
        grown = tip.copy()
        for one in hashes:
            grown.push(one)
        kept, known = b"".join(grown.hashes), b"".join(tip.hashes)
        try:
            # Outside a transaction this one statement is one, its commit included. Other
            # threads get their turn once a commit and not once a leaf.
            if count == 1:
                self._writing.execute(_INSERT_ONE, (tip.size, known, leaves[0], kept))
            else:
                many = apsw.carray(tuple(leaves))
                self._writing.execute(_INSERT_MANY, (tip.size, known, many, kept, count))
        except apsw.ConstraintError:
            return None
        return grown if self._writing.changes() == count else None

    def _insert_after_others(self, leaves: Sequence[bytes], hashes: list[bytes]) -> Frontier:
        with transaction(self._writing):
            self._check_name(self._writing)
            newer = _frontier_of(self.path, self._writing)
            grew = newer.size > self._tip.size
            if not grew and newer.hashes != self._tip.hashes:
                raise self._lost(newer.size)
            self._tip = newer
            grown = self._insert(leaves, hashes)
            if grown is None:
                raise self._lost(newer.size)
        return grown

    def _read(self, query: str, *values: int) -> list[Any]:
        return self._reading.execute(query, values).fetchall()

    def _keep(self, level: int, number: int, root: bytes, hashes: bytes) -> None:
        self._side.execute(
            "INSERT INTO tile VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (level, number, root, hashes),
        )

    def _sweep(self, leaves: Sequence[bytes]) -> None:
        self._bytes_since_tidy_up += sum(map(len, leaves))
        if self._bytes_since_tidy_up >= _TIDY_UP_EVERY_BYTES:
            self._bytes_since_tidy_up = 0
            self._broom.sweep()
        if self._broom.writer_must_help:
            self._broom.writer_must_help = False
            self._broom.copy_back(self._writing)
        if self._broom.failure is not None:
            # These leaves are durable; the next ones might only seem to be.
            self._damage = LedgerDamagedError(
                f"the write-ahead log of `{self.path}` can't be copied back:"
                f" {self._broom.failure}",
                hint="check the disk, start the gateway again, and run `gateway ledger fsck`",
            )

    @contextlib.contextmanager
    def _fatal_where_damaged(self) -> Iterator[None]:
        """Append nothing more to a file that one of our connections can't trust any longer."""
        try:
            yield
        except LedgerDamagedError as damage:
            self._damage = damage
            raise

    def _failed(self, wrong: apsw.Error) -> OperatorError:
        """Return what a failed append means, and remember it if no later one may be tried."""
        error = error_of(wrong, self.path)
        if isinstance(error, LedgerUnwellError) and self._writing.in_transaction:
            error = _damaged(self.path, f"holds an unfinished transaction ({wrong})")
        if isinstance(error, LedgerDamagedError):
            self._damage = error
        return error

    def _lost(self, size: int) -> LedgerDamagedError:
        self._damage = _damaged(
            self.path, f"has {size} leaves and had {self._tip.size} that are now gone or other"
        )
        return self._damage

    def _gap(self, index: int) -> LedgerDamagedError:
        return _damaged(self.path, f"has no leaf {index}")


class _Broom:
    """Copies the write-ahead log back into the file, on a thread of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wanted = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.writer_must_help = False
        self.failure: apsw.Error | None = None

    def sweep(self) -> None:
        """Ask for a sweep; the thread is started at the first."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ledger-broom", daemon=True)
            self._thread.start()
        self._wanted.set()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with contextlib.closing(connect(self._path)) as connection:
            while True:
                self._wanted.wait()
                self._wanted.clear()
                if self._stopping:
                    return
                self.writer_must_help = self.copy_back(connection) > _LOG_PAGES_LARGE

    def copy_back(self, connection: apsw.Connection) -> int:
        """Copy what no reader stands in the way of; return how many pages the log has."""
        try:
            return connection.wal_checkpoint()[0]
        except (apsw.BusyError, apsw.FullError):
            return 0
        except apsw.Error as wrong:
            self.failure = wrong
            return 0


def _open(path: Path) -> apsw.Connection:
    if not path.is_file():
        raise LedgerMissingError(
            f"there is no ledger at `{path}`",
            hint="run `gateway init` once, or correct `data` in gateway.yaml",
        )
    try:
        connection = connect(path)
        if connection.pragma("application_id") != APPLICATION_ID:
            raise _damaged(path, "is not a ledger")
        version = connection.pragma("user_version")
    except apsw.Error as wrong:
        raise error_of(wrong, path) from wrong
    if version != SCHEMA_VERSION:
        raise LedgerDamagedError(
            f"`{path}` has version {version} of the ledger's format, this is {SCHEMA_VERSION}",
            hint="run the release of the gateway that wrote it, or a newer one",
        )
    return connection


def connect(
    path: Path, *, writes: bool = True, durable: bool = True, makes: bool = False
) -> apsw.Connection:
    """Open *path* with the care that evidence needs; make it only where *makes* says so."""
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if makes else 0)
    connection = apsw.Connection(str(path), flags=flags)
    connection.set_busy_timeout(STORE_BUSY_MS)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    connection.execute("PRAGMA fullfsync = 1")
    # Nothing is copied out of a log that nobody has renewed, by those who only read above all.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    if not writes:
        connection.execute("PRAGMA query_only = 1")
    return connection


def _make(path: Path, origin: str) -> None:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    with contextlib.closing(apsw.Connection(str(path), flags=flags)) as connection:
        # Three receipts fill a page of 8 KiB; of the default's 4 KiB each would waste half.
        connection.execute("PRAGMA page_size = 8192")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("PRAGMA synchronous = FULL")
        with connection:
            connection.execute(_SCHEMA)
            connection.execute("INSERT INTO meta VALUES ('origin', ?)", (origin,))
        connection.execute("PRAGMA journal_mode = WAL")


def renew_log(connection: apsw.Connection, path: Path) -> None:
    """Make the write-ahead log of *path* durable, name and all, before anything is built on it.

    After a sync that failed the system may go on to show bytes that it has given up writing,
    and no later sync makes up for it; only writing them again does. Whoever starts after such
    an end can't know of it, so every process does this before the first thing it writes. SQLite
    for its part goes on where the folder can't be synced that names the log.

    Raises:
        LedgerDamagedError: the folder can't be synced.
    """
    with transaction(connection):
        # While this process may write nobody else changes the log.
        _write_again(path.with_name(f"{path.name}-wal"))
    try:
        sync_folder(path.parent)
    except OSError as wrong:
        raise LedgerDamagedError(
            f"the folder of `{path}` can't be synced: {wrong.strerror}",
            hint="check the disk and the limit of open files, and start the gateway again",
        ) from wrong
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)


def _write_again(log: Path) -> None:
    """Write the bytes of *log*, if it is there, where they are, and sync them."""
    if not log.exists():
        return
    # SQLite's own door: whatever stands between it and the disk sees this too.
    file = apsw.VFSFile("", str(log), [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE, 0])
    try:
        size = file.xFileSize()
        for start in range(0, size, _WRITTEN_AGAIN_AT_ONCE):
            stop = min(start + _WRITTEN_AGAIN_AT_ONCE, size)
            file.xWrite(file.xRead(stop - start, start), start)
        if size:
            file.xSync(apsw.SQLITE_SYNC_NORMAL)
    finally:
        file.xClose()


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what apsw raises about *path* into what the operator must do."""
    try:
        yield
    except apsw.ConnectionClosedError as closed:
        raise LedgerUnwellError(f"`{path}` has been closed") from closed
    except apsw.Error as wrong:
        raise error_of(wrong, path) from wrong


@contextlib.contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """Hold the right to write from the first statement to the commit."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _frontier_of(path: Path, connection: apsw.Connection) -> Frontier:
    row = connection.execute(_HEAD).fetchone()
    if row is None:
        return Frontier()
    size = row[0] + 1
    if row[1] is None:
        raise _damaged(path, f"ends in leaf {row[0]} in the middle of a commit")
    try:
        return Frontier(size, _split(row[1]))
    except BadProofError as bad:
        raise _damaged(path, f"keeps a frontier that does not fit its {size} leaves") from bad


def _split(hashes: bytes) -> tuple[bytes, ...]:
    return tuple(
        hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)
    )


def _damaged(path: Path, what: str) -> LedgerDamagedError:
    return LedgerDamagedError(
        f"`{path}` {what}",
        hint="the operator must stop the gateway, restore the newest copy (never an older"
        " one), and run `gateway ledger fsck`",
    )


def error_of(wrong: apsw.Error, path: Path) -> OperatorError:
    """Return what *wrong* about *path* means for the operator; doubt is damage."""
    match wrong:
        case apsw.FullError():
            return LedgerUnwellError(
                f"the disk is full, nothing was added to `{path}`",
                hint="the operator must free space; no restart is needed",
            )
        case apsw.BusyError() | apsw.LockedError():
            return LedgerUnwellError(
                f"another process holds `{path}`, nothing was added",
                hint="find out which process writes to it for so long",
            )
        case apsw.ReadOnlyError() | apsw.PermissionsError():
            return LedgerUnwellError(
                f"`{path}` can't be written, nothing was added",
                hint="give the gateway's account write permission on the file and its folder",
            )
        case apsw.NotADBError() | apsw.CorruptError():
            return _damaged(path, f"is damaged or cut short ({wrong})")
        case apsw.CantOpenError():
            return LedgerUnwellError(
                f"`{path}` or the files beside it can't be opened ({wrong})",
                hint="check the permissions of the data folder and the limit of open files",
            )
        case _:
            return LedgerDamagedError(
                f"`{path}` can't be trusted until it is read again: {wrong}",
                hint="check the disk, start the gateway again, and run `gateway ledger fsck`",
            )
