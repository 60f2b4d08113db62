"""Laws of connections: servers that forget are refused, and every failure says who must act."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from gateway.errors import LedgerDamagedError, LedgerUnwellError, SettingError
from gateway.store.postgres.connection import DoubtfulCommitError, Session, connect
from gateway.store.postgres.ledger import PostgresLedger, settled
from tests.support.evidence import ORIGIN
from tests.support.postgres import Server, serving

pytestmark = pytest.mark.postgres


@pytest.fixture
def session(url: str) -> Iterator[Session]:
    """Return a connection."""
    with contextlib.closing(Session(url)) as one:
        yield one


def test_an_account_that_does_not_wait_is_refused(url: str) -> None:
    """A session whose commits are not waited for is refused with what to set."""
    with pytest.raises(SettingError, match="`synchronous_commit = off`") as raised:
        connect(f"{url}%20-csynchronous_commit%3Doff")

    assert "set `synchronous_commit = on`" in raised.value.hint


def test_a_server_that_forgets_is_refused() -> None:
    """Without fsync, full pages, or a wait for the standbys that are named, nothing starts."""
    with serving() as own:
        none_waited_for = "synchronous_commit = local\nsynchronous_standby_names = 'nobody'"
        for settings, match in (
            ("fsync = off", "`fsync = off`"),
            ("fsync = on\nfull_page_writes = off", "`full_page_writes = off`"),
            (f"full_page_writes = on\n{none_waited_for}", "waits for none of the standbys"),
        ):
            own.set(f"\n{settings}\n")
            own.stop()
            own.start()
            with pytest.raises(SettingError, match=match) as raised:
                PostgresLedger.create(own.dsn("postgres"), ORIGIN)
            assert raised.value.hint.startswith("set `")


@pytest.mark.parametrize("url", ["postgresql://%zz", "postgres://a:b:c:d", "what is this"])
def test_what_is_no_address_says_so(url: str) -> None:
    """A URL that can't be read is a setting to correct, in one line."""
    with pytest.raises((SettingError, LedgerUnwellError)) as raised:
        connect(url)

    assert "\n" not in str(raised.value)


def test_nobody_there_says_so() -> None:
    """A server that is not there is unwell, and nothing was added."""
    with pytest.raises(LedgerUnwellError, match="can't be reached"):
        connect("postgresql://127.0.0.1:1/x")


def test_who_stood_still_asks_once_more() -> None:
    """A commit that was in doubt only after a long time is asked about all the same."""
    asked: list[bool] = []

    def attempt(again: bool) -> int:  # noqa: FBT001 — what `settled` hands over
        asked.append(again)
        if not again:
            # As one that was stopped in the middle of it, and goes on much later.
            time.sleep(0.05)
            raise DoubtfulCommitError("the connection broke meanwhile")
        return 7

    assert 7 == settled(attempt, doubt_ms=10)
    assert [False, True] == asked


def test_a_doubt_that_stays_is_said() -> None:
    """Where the effect can't be found out in time, it is said to be in doubt."""

    def attempt(again: bool) -> int:  # noqa: FBT001 — what `settled` hands over
        if again:
            raise LedgerUnwellError("nobody answers")
        raise DoubtfulCommitError("the connection broke")

    with pytest.raises(DoubtfulCommitError, match="broke"):
        settled(attempt, doubt_ms=10)


def test_a_warning_makes_a_commit_doubtful(session: Session) -> None:
    """A commit that comes with a warning is not taken for durable, whatever it says."""
    with (
        pytest.raises(DoubtfulCommitError, match="not known to be on the standby"),
        session.committing() as connection,
    ):
        connection.execute("DO $$ BEGIN RAISE WARNING 'in any language'; END $$")

    with session.committing() as connection:
        connection.execute("DO $$ BEGIN RAISE NOTICE 'by the way'; END $$")


def test_a_connection_that_broke_is_made_again(server: Server, session: Session) -> None:
    """A broken connection makes a commit doubtful, a reading none, and both go on."""
    assert session.rows("SELECT 1") == [(1,)]

    def cut() -> None:
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid, 120000) FROM pg_stat_activity"
                " WHERE application_name = 'tos-gateway'"
            )

    cut()
    assert session.rows("SELECT 2") == [(2,)]
    # Not cut before the commit begins, where one that is known to have gone is made again.
    with pytest.raises(DoubtfulCommitError, match="broke during a commit"):
        execute(session, ["SELECT 3"], before=cut)
    with session.committing() as connection:
        connection.execute("SELECT 4")


def execute(
    session: Session, statements: list[str], before: Callable[[], None] = lambda: None
) -> None:
    """Execute *statements* one after the other, once *before* was called within the commit."""
    with session.committing() as connection:
        before()
        for statement in statements:
            connection.execute(statement.encode())


def test_what_the_server_refused_was_not_done(url: str) -> None:
    """Where the server answers with an error nothing was added, and it says why."""
    with contextlib.closing(PostgresLedger.create(url, ORIGIN)):
        for query, kind in (
            ("SET default_transaction_read_only = on;CREATE TABLE x ()", LedgerUnwellError),
            ("SET statement_timeout = 1;SELECT pg_sleep(5)", LedgerUnwellError),
            ("INSERT INTO head VALUES (true, 7, '')", LedgerDamagedError),
        ):
            with contextlib.closing(Session(url)) as one, pytest.raises(kind) as raised:
                execute(one, query.split(";"))
            assert not isinstance(raised.value, DoubtfulCommitError)
