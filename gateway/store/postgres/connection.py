"""Talk to PostgreSQL, and know at each commit whether it is durable.

A commit is durable when the server says so without a warning: a wait for a standby that was
cut short ends in success *and* a warning. Where the answer is lost, or comes with one, the
effect is in doubt, and whoever asked finds out by asking again.
"""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from gateway.errors import (
    LedgerDamagedError,
    LedgerMissingError,
    LedgerUnwellError,
    OperatorError,
    SettingError,
)
from gateway.limits import STATEMENT_MS_MAX, STORE_BUSY_MS, TRANSACTION_IDLE_MS_MAX

Connection = psycopg.Connection[TupleRow]
Result = TypeVar("Result")
Parameters = Sequence[Any] | Mapping[str, Any]

_DEFAULTS: Final = {
    "application_name": "tos-gateway",
    # Of several hosts, the one that is written to.
    "target_session_attrs": "read-write",
    "connect_timeout": "5",
    # A peer that is gone is noticed within seconds, and not after two hours.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
_SESSION: Final = {
    "client_encoding": "UTF8",
    "default_transaction_isolation": "read committed",
    "lock_timeout": f"{STORE_BUSY_MS}ms",
    # Ends the wait for a standby too, with the warning that is looked for below.
    "statement_timeout": f"{STATEMENT_MS_MAX}ms",
    # Who stands still in the middle of a transaction must not hold up everybody else.
    "idle_in_transaction_session_timeout": f"{TRANSACTION_IDLE_MS_MAX}ms",
}
_NEEDED: Final = {
    "fsync": "a commit could be lost with the power",
    "full_page_writes": "a page that was half written when the power went could not be mended",
    "synchronous_commit": "a commit would be acknowledged before it is durable",
}
"""Server settings that must not be `off`, and why."""


class DoubtfulCommitError(LedgerDamagedError):
    """A commit that may or may not have taken effect, or may yet be lost with its server."""


class Session:
    """One connection, made anew where it broke; any thread may use it, one at a time."""

    def __init__(self, url: str, check: Callable[[Connection], None] | None = None) -> None:
        self._url = url
        self._check = check
        self._lock = threading.RLock()
        self._connection: Connection | None = None
        self._closed = False
        # OWNED BY: whoever holds the lock.
        self._warnings: list[str] = []

    @contextlib.contextmanager
    def committing(self) -> Iterator[Connection]:
        """Hold the connection for work that commits; durable when the block has ended.

        Raises:
            LedgerUnwellError: nothing was done.
            DoubtfulCommitError: it may or may not have been.
        """
        with self._lock:
            connection = self._connected()
            self._warnings.clear()
            try:
                yield connection
            except psycopg.Error as wrong:
                if connection.closed:
                    self._drop()
                    raise DoubtfulCommitError(
                        f"the connection to PostgreSQL broke during a commit: {line(wrong)}",
                        hint="start the gateway again; it reads the truth from the database",
                    ) from wrong
                raise error_of(wrong) from wrong
            except BaseException:
                # Whatever it was, no half-done transaction may stay on the connection.
                self._drop()
                raise
            if self._warnings:
                raise DoubtfulCommitError(
                    f"a commit is not known to be on the standby: {self._warnings[0]}",
                    hint="see that a standby named in `synchronous_standby_names` runs",
                )

    def rows(self, query: str, parameters: Parameters | None = None) -> list[TupleRow]:
        """Return what a query that changes nothing finds; asked again if a connection broke.

        Raises:
            LedgerUnwellError: the database can't be asked at present.
        """
        with self._lock:
            for last in (False, True):
                connection = self._connected()
                try:
                    with connection.cursor(binary=True) as cursor:
                        cursor.execute(query.encode(), parameters)
                        return cursor.fetchall()
                except psycopg.Error as wrong:
                    if not connection.closed:
                        raise error_of(wrong) from wrong
                    self._drop()
                    if last:
                        raise unreachable(wrong) from wrong
            raise AssertionError

    def close(self) -> None:
        """Let go of the connection; further calls are errors."""
        with self._lock:
            self._closed = True
            self._drop()

    def _connected(self) -> Connection:
        if self._closed:
            raise LedgerUnwellError("the connection to PostgreSQL has been closed")
        if self._connection is None or _has_gone(self._connection):
            self._drop()
            connection = connect(self._url)
            connection.add_notice_handler(self._note)
            try:
                if self._check is not None:
                    self._check(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _note(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        # What it says is in the server's language; that it warns while it commits is enough.
        if diagnostic.severity_nonlocalized == "WARNING":
            self._warnings.append(diagnostic.message_primary or "a warning")


def _has_gone(connection: Connection) -> bool:
    """Tell whether the server has ended an idle *connection*: then nothing was asked of it.

    Found out only by asking, it would leave in doubt whether what was asked was done.
    """
    try:
        while not connection.closed and select.select([connection.fileno()], [], [], 0)[0]:
            connection.pgconn.consume_input()
    except (psycopg.OperationalError, ValueError):
        return True
    return connection.closed


def connect(url: str) -> Connection:
    """Open a connection with the care that evidence needs.

    Raises:
        LedgerUnwellError: the server can't be reached at present.
        SettingError: it is one that loses what it has acknowledged.
    """
    try:
        known = conninfo_to_dict(url)
        wanted = {name: value for name, value in _DEFAULTS.items() if name not in known}
        connection = psycopg.connect(url, autocommit=True, **wanted)  # type: ignore[arg-type]  # the keywords of libpq are open
    except psycopg.ProgrammingError as malformed:
        raise SettingError(
            f"`ledger` is not the URL of a database: {line(malformed)}",
            hint="write it as postgres://account@host/database",
        ) from malformed
    except psycopg.Error as wrong:
        raise unreachable(wrong) from wrong
    try:
        for name, value in _SESSION.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        _refuse_forgetful(connection)
    except psycopg.Error as wrong:
        connection.close()
        raise unreachable(wrong) from wrong
    except SettingError:
        connection.close()
        raise
    return connection


def _refuse_forgetful(connection: Connection) -> None:
    for name, why in _NEEDED.items():
        if _shown(connection, name) == "off":
            raise SettingError(
                f"PostgreSQL runs with `{name} = off`: {why}",
                hint=f"set `{name} = on` in postgresql.conf, and for this account",
            )
    awaited = _shown(connection, "synchronous_standby_names")
    if awaited and _shown(connection, "synchronous_commit") == "local":
        raise SettingError(
            f"`synchronous_commit = local` waits for none of the standbys named: `{awaited}`",
            hint="set `synchronous_commit = on`",
        )


def _shown(connection: Connection, name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    return str(row[0]) if row is not None else ""


def error_of(wrong: psycopg.Error) -> OperatorError:
    """Return what *wrong*, after which the server undid the transaction, means."""
    match wrong:
        case pg.UndefinedTable() | pg.InvalidSchemaName():
            return LedgerMissingError(
                f"there is no ledger in this database: {line(wrong)}",
                hint="run `gateway init` once, or correct `ledger` in gateway.yaml",
            )
        case pg.DiskFull() | pg.OutOfMemory() | pg.ConfigurationLimitExceeded():
            return LedgerUnwellError(
                f"PostgreSQL has no room, nothing was added: {line(wrong)}",
                hint="the operator must free space; no restart is needed",
            )
        case pg.LockNotAvailable() | pg.QueryCanceled() | pg.DeadlockDetected():
            return LedgerUnwellError(
                f"PostgreSQL took too long, nothing was added: {line(wrong)}",
                hint="find out which session holds the tables for so long",
            )
        case pg.InsufficientPrivilege() | pg.ReadOnlySqlTransaction():
            return LedgerUnwellError(
                f"the database can't be written, nothing was added: {line(wrong)}",
                hint="let the gateway's account write, and point `ledger` at the primary",
            )
        case pg.OperationalError() | pg.InterfaceError():
            return unreachable(wrong)
        case _:
            return LedgerDamagedError(
                f"the database is not as the gateway left it: {line(wrong)}",
                hint="stop the gateways, and run `gateway ledger fsck`",
            )


def unreachable(wrong: psycopg.Error) -> LedgerUnwellError:
    """Return that PostgreSQL can't be asked at present."""
    return LedgerUnwellError(
        f"PostgreSQL can't be reached: {line(wrong)}",
        hint="see that it runs and lets this account in; no restart is needed",
    )


def line(wrong: psycopg.Error) -> str:
    """Return the first line of what the server or the driver said."""
    return str(wrong).strip().partition("\n")[0] or type(wrong).__name__
