"""Laws of the lease: one replica sequences, and whoever lost the lease writes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from gateway.errors import ExchangeClosedError, LedgerDamagedError
from gateway.ident import new_exchange_id
from gateway.limits import LEASE_MS
from gateway.receipt.model import Takeover
from gateway.receipt.statement import read_leaf
from gateway.store.postgres.intake import Intake, LeaseLostError
from gateway.store.postgres.leaf import handed, id_of, new_id
from gateway.store.postgres.ledger import PostgresLedger
from tests.support.evidence import ABANDONMENT, ORIGIN
from tests.support.replica import replica_of
from tests.support.store import a_receipt, a_statement, an_abandonment, an_opening, exchanges

pytestmark = pytest.mark.postgres


@pytest.fixture
def ledger(url: str) -> Iterator[PostgresLedger]:
    """Return an empty ledger."""
    with contextlib.closing(PostgresLedger.create(url, ORIGIN)) as one:
        yield one


def outlive(url: str) -> None:
    """Let the lease run out."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE lease SET until = clock_timestamp() - interval '1 s'")


def lease_in(connection: psycopg.Connection[tuple[Any, ...]]) -> tuple[str, int, dt.datetime]:
    """Return who holds the lease, in which epoch, and until when."""
    row = connection.execute("SELECT holder, epoch, until FROM lease").fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def test_one_replica_holds_the_lease(ledger: PostgresLedger, url: str) -> None:
    """While one holds it no other gets it; afterwards the epoch is one higher."""
    a, b = Intake(ledger, "a"), Intake(ledger, "b")

    assert a.take_over() == 1
    assert b.take_over() is None
    assert b.is_led()
    assert not a.is_led()
    outlive(url)
    assert b.take_over() == 2
    b.release(2)
    assert a.take_over() == 3


def test_who_lost_the_lease_writes_nothing(ledger: PostgresLedger, url: str) -> None:
    """A replica whose lease was taken over leaves ledger and intake as they are."""
    a, b = Intake(ledger, "a"), Intake(ledger, "b")
    old = a.take_over()
    assert old is not None
    a.hand_in([handed(b"one")])
    a.sequence(old)
    outlive(url)
    new = b.take_over()
    assert new is not None
    b.hand_in([handed(b"two")])

    with pytest.raises(LeaseLostError):
        a.sequence(old)
    with pytest.raises(LeaseLostError):
        a.sequence(old, [handed(b"takeover")])
    with pytest.raises(LeaseLostError):
        a.renew(old)

    assert list(ledger.leaves(0, ledger.head().size)) == [b"one"]
    a.release(old)
    assert a.is_led()
    assert b.sequence(new) is not None
    assert list(ledger.leaves(0, 2)) == [b"one", b"two"]


def test_a_lease_lost_in_the_middle_undoes_everything(ledger: PostgresLedger, url: str) -> None:
    """A replica that stood still inside its transaction can't commit it any more."""
    a, b = Intake(ledger, "a"), Intake(ledger, "b")
    old = a.take_over()
    assert old is not None
    a.hand_in([handed(b"one")])
    with psycopg.connect(url) as frozen:
        # What `sequence` does up to the moment in which the process stands still.
        frozen.execute("UPDATE lease SET until = clock_timestamp() WHERE epoch = 1")
        frozen.execute("SELECT * FROM head FOR UPDATE")
        # Only now, so that nothing but the wait for the others below counts as standing still.
        frozen.execute("SET idle_in_transaction_session_timeout = '500ms'")
        # Waits until the server has ended the one that stands still.
        outlive(url)
        new = b.take_over()
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            frozen.execute("UPDATE head SET size = 7")
    assert new == 2
    assert b.sequence(new) is not None
    assert ledger.head().size == 1


def test_an_id_has_one_place(ledger: PostgresLedger) -> None:
    """A statement handed in again, before or after it was sequenced, stays where it is."""
    a = Intake(ledger, "a")
    epoch = a.take_over()
    assert epoch is not None
    one, two = handed(b"one"), handed(b"two")
    for _ in range(2):
        a.hand_in([one, two])
    a.sequence(epoch)
    a.hand_in([two, one])
    a.sequence(epoch)
    a.sequence(epoch, [one])

    assert ledger.head().size == 2
    assert {place.index for place in a.places_of([one.id, two.id]).values()} == {0, 1}
    with psycopg.connect(ledger.url) as connection:
        assert connection.execute("SELECT count(*) FROM intake").fetchone() == (0,)


def test_what_was_taken_back_has_no_place(ledger: PostgresLedger) -> None:
    """What still waits can be taken back by whoever handed it in, and by nobody else."""
    a, b = Intake(ledger, "a"), Intake(ledger, "b")
    one, two = handed(b"one"), handed(b"two")
    a.hand_in([one])
    b.hand_in([two])
    a.take_back([one.id, two.id])
    epoch = a.take_over()
    assert epoch is not None
    a.sequence(epoch)

    assert list(ledger.leaves(0, ledger.head().size)) == [b"two"]


def test_the_frontier_stands_with_each_commits_last_leaf(ledger: PostgresLedger) -> None:
    """Every sequencing transaction keeps its frontier, with and without a takeover."""
    a = Intake(ledger, "a")
    epoch = a.take_over()
    assert epoch is not None
    a.sequence(epoch, [handed(b"takeover")])
    a.hand_in([handed(b"%d" % at) for at in range(5)])
    a.sequence(epoch)
    a.hand_in([handed(b"later")])
    a.sequence(epoch, [handed(b"again")])

    assert sorted(ledger.frontiers(0, 10)) == [1, 6, 8]
    assert ledger.frontiers(7, 8)[8] == ledger.head().frontier


async def test_every_epoch_begins_with_its_takeover(
    ledger: PostgresLedger, tmp_path: Path
) -> None:
    """The first leaf of whoever takes over says so, and epochs rise by one."""
    folders = [tmp_path / str(at) for at in range(3)]
    for folder in folders:
        folder.mkdir()
        replica = replica_of(ledger, folder, folder.name)
        replica.start()
        await replica.append(b"leaf of %s" % folder.name.encode())
        assert replica.leads
        await asyncio.to_thread(replica.stop)

    leaves = list(ledger.leaves(0, ledger.head().size))
    takeovers = [read_leaf(leaf) for leaf in leaves[::2]]
    assert [one.epoch for one in takeovers if isinstance(one, Takeover)] == [1, 2, 3]
    assert leaves[1::2] == [b"leaf of 0", b"leaf of 1", b"leaf of 2"]


def test_the_ledger_is_compared_before_the_first_leaf(
    ledger: PostgresLedger, tmp_path: Path
) -> None:
    """Who takes over a ledger older than a checkpoint it knows writes nothing."""
    replica = replica_of(ledger, tmp_path, "a")
    for leaf in (b"one", b"two"):
        replica.append_and_wait(leaf)
    replica.checkpoint_now()
    with psycopg.connect(ledger.url) as connection:
        connection.execute("DELETE FROM entry WHERE seq >= 2")
        connection.execute("DELETE FROM checkpoint")
        connection.execute(
            "UPDATE head SET size = 2, frontier = (SELECT frontier FROM entry WHERE seq = 1)"
        )
    with contextlib.closing(PostgresLedger(ledger.url)) as restored:
        later = replica_of(restored, tmp_path, "b")
        for attempt in (later.start, lambda: later.append_and_wait(b"three")):
            with pytest.raises(LedgerDamagedError, match="older than its last published"):
                attempt()
        assert restored.head().size == 2
    with pytest.raises(LedgerDamagedError, match="now gone or other"):
        ledger.head()


def test_an_exchange_is_closed_once(ledger: PostgresLedger, tmp_path: Path) -> None:
    """Of two replicas that close one exchange the second learns that it is closed."""
    exchange = new_exchange_id(1_795_000_000_000)
    assert id_of(exchange) != new_id()
    a, b = (replica_of(ledger, tmp_path, name) for name in "ab")
    opening = a.append_and_wait(an_opening(exchange)).index
    a.let_go()
    abandoned = b.append_and_wait(an_abandonment(exchange, opening)).index
    b.let_go()

    other = msgspec.structs.replace(
        ABANDONMENT, exchange=exchange, opening=opening, why="gateway-failed"
    )
    for late in (a_receipt(exchange, opening), a_statement(other)):
        with pytest.raises(ExchangeClosedError, match=f"by leaf {abandoned}"):
            a.append_and_wait(late)

    kept = [leaf for leaf in ledger.leaves(0, ledger.head().size) if b"Takeover" not in leaf]
    assert sum(exchange.encode() in leaf for leaf in kept) == 1


def test_two_that_close_at_once_close_once(ledger: PostgresLedger, tmp_path: Path) -> None:
    """A receipt and an abandonment handed in together make one closing statement."""
    exchange = new_exchange_id(1_795_000_000_000)
    a = replica_of(ledger, tmp_path, "a")
    opening = a.append_and_wait(an_opening(exchange)).index
    first, second = Intake(ledger, "a"), Intake(ledger, "b")
    receipt, end = (
        handed(a_receipt(exchange, opening)),
        handed(an_abandonment(exchange, opening)),
    )
    before = ledger.head().size
    threads = [
        threading.Thread(target=intake.hand_in, args=([leaf],))
        for intake, leaf in ((first, receipt), (second, end))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    epoch = first.take_over()
    assert epoch is not None
    first.sequence(epoch)

    assert ledger.head().size == before + 1
    assert receipt.id == end.id


async def test_who_stands_idle_keeps_the_lease(
    ledger: PostgresLedger, url: str, tmp_path: Path
) -> None:
    """A replica with nothing to do goes on holding the lease, beyond its first length.

    Its end is moved on without anything being appended; the epoch stays the same.
    """
    replica = replica_of(ledger, tmp_path, "a")
    replica.start()
    await replica.append(b"leaf")
    with psycopg.connect(url, autocommit=True) as connection:
        first = lease_in(connection)
        until = time.monotonic() + 120
        while (now := lease_in(connection))[2] < first[2] + dt.timedelta(milliseconds=LEASE_MS):
            assert time.monotonic() < until, now
            await asyncio.sleep(0.1)

    assert replica.leads
    assert ("a", 1) == first[:2] == now[:2]
    assert ledger.head().size == 2
    await asyncio.to_thread(replica.stop)


def test_the_living_are_known(ledger: PostgresLedger, url: str) -> None:
    """Who said lately that it lives is known to all, until it leaves or falls silent."""
    a, b = Intake(ledger, "a"), Intake(ledger, "b")
    a.beat()
    b.beat()
    assert a.living() == {"a", "b"}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE writer SET seen = seen - interval '31 s' WHERE true")
    assert a.living() == {"a"}
    b.beat()
    assert a.living() == {"a", "b"}
    b.leave()
    assert a.living() == {"a"}


def test_other_kinds_of_leaves_are_not_closed_once() -> None:
    """Only what closes an exchange goes by its id; all else has an id of its own."""
    opening, receipt = exchanges(1)

    assert handed(receipt).id == handed(receipt).id
    assert handed(opening).id != handed(opening).id
    assert not handed(opening).relevant
    assert not handed(receipt).relevant
    assert handed(b"no statement").relevant
    assert handed(b'{"payload"').relevant
