"""Servers that stop, standbys that take over, replicas that are killed or stand still.

Every replica is a process of its own and tells what it was promised; the oracle compares that
with what is there afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from gateway.errors import LedgerUnwellError
from gateway.receipt.keys import LogSigner, generate_pem
from gateway.receipt.model import Takeover
from gateway.receipt.statement import read_leaf
from gateway.store.postgres.ledger import PostgresLedger
from gateway.tlog.merkle import Frontier, leaf_hash
from tests.support.evidence import ORIGIN
from tests.support.oracle import Oracle, judge
from tests.support.postgres import Server, following, freeze, serving, thaw, until_synchronous
from tests.support.replica import replica_of

pytestmark = [pytest.mark.postgres, pytest.mark.crash]


class Replicas:
    """Processes that append to one database, and what they were promised."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.oracle = Oracle(folder / "oracle")
        for role in ("log", "receipt"):
            (folder / f"{role}.key").write_bytes(generate_pem("ed25519"))
        self.log = LogSigner((folder / "log.key").read_bytes(), ORIGIN)
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        self._lock = threading.Lock()
        # OWNED BY: whoever holds the lock.
        self.placed: dict[str, set[str]] = {}
        self.tried: set[str] = set()
        self.refused: set[str] = set()
        PostgresLedger.create(url, ORIGIN).close()

    def start(self, name: str, callers: int = 8) -> None:
        """Start a replica, and wait until it takes statements."""
        numbers = [str(callers), str(100 * len(self._processes))]
        child = ["-m", "tests.support.replica", self.url, str(self.folder / name), name]
        with (self.folder / f"{name}.errors").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, *child, *numbers],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._processes[name] = process
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", self.errors()
        self.placed[name] = set()
        reader = threading.Thread(target=self._read, args=(name, process), daemon=True)
        reader.start()
        self._readers.append(reader)

    def pid(self, name: str) -> int:
        """Return the process of a replica."""
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """Kill a replica on the spot."""
        self._processes[name].kill()
        self._processes[name].wait()

    def stop(self) -> None:
        """Kill whoever still lives, and read what they said last."""
        for process in self._processes.values():
            process.send_signal(signal.SIGKILL)
            process.wait()
        for reader in self._readers:
            reader.join()
        for process in self._processes.values():
            assert process.stdout is not None
            process.stdout.close()
        self._processes.clear()
        self._readers.clear()

    def count(self, name: str | None = None) -> int:
        """Return how many places were promised, to one or to all."""
        with self._lock:
            names = self.placed if name is None else [name]
            return sum(len(self.placed[one]) for one in names)

    def until_placed(self, count: int, name: str | None = None, within_s: float = 120) -> None:
        """Wait until *count* more places were promised."""
        goal = self.count(name) + count
        until(lambda: self.count(name) >= goal, within_s, self.errors)

    def errors(self) -> str:
        """Return what the replicas complained of."""
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.errors"))

    def judge(self, url: str | None = None) -> list[bytes]:
        """Insist that every promise holds in the database, and return its leaves."""
        with contextlib.closing(PostgresLedger(url or self.url)) as ledger:
            leaves = list(ledger.leaves(0, ledger.head().size))
            kept = ledger.frontiers(0, len(leaves))
            assert ledger.head().frontier == (kept[len(leaves)] if leaves else ())
        grown = Frontier()
        for leaf in leaves:
            grown.push(leaf_hash(leaf))
            assert kept.get(grown.size, grown.hashes) == grown.hashes
        found = judge(self.oracle, leaves, [self.log.vkey])
        assert [str(one) for one in found] == []
        plain = [leaf for leaf in leaves if not leaf.startswith(b"{")]
        assert len(set(plain)) == len(plain)
        return leaves

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            what, _, rest = line.rstrip("\n").partition(" ")
            if not line.endswith("\n"):
                return
            match what:
                case "place":
                    index, sha256 = rest.split(" ")
                    self.oracle.placed_digest(int(index), sha256)
                    with self._lock:
                        self.placed[name].add(sha256)
                case "note":
                    self.oracle.noted(base64.b64decode(rest).decode())
                case "try":
                    self.tried.add(rest)
                case "refused":
                    self.refused.add(rest.split(" ")[0])
                case other:
                    raise AssertionError(other)


def until(true: Callable[[], bool], within_s: float, why: Callable[[], str] = str) -> None:
    """Wait until *true* holds."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)


@pytest.fixture
def own() -> Iterator[Server]:
    """Return a server that may be stopped."""
    with serving() as one:
        yield one


@contextlib.contextmanager
def replicas_of(folder: Path, url: str) -> Iterator[Replicas]:
    """Keep replicas for a while."""
    replicas = Replicas(folder, url)
    try:
        yield replicas
    finally:
        replicas.stop()
        replicas.oracle.close()


def epochs_of(leaves: list[bytes]) -> list[int]:
    """Return the epochs that began, in order."""
    read = [read_leaf(leaf) for leaf in leaves if leaf.startswith(b"{")]
    return [one.epoch for one in read if isinstance(one, Takeover)]


def test_an_immediate_stop_loses_nothing(own: Server, tmp_path: Path) -> None:
    """What was promised before the server stopped dead is there, in its place; all go on."""
    with replicas_of(tmp_path, own.new_place()) as replicas:
        for name in "ab":
            replicas.start(name)
        for _ in range(2):
            replicas.until_placed(100)
            own.stop("immediate")
            time.sleep(0.2)
            own.start()
            for name in "ab":
                replicas.until_placed(20, name)
        replicas.stop()
        leaves = replicas.judge()

    assert len(leaves) >= replicas.count()
    assert epochs_of(leaves) == sorted(set(epochs_of(leaves)))


async def test_an_idle_replica_gets_well_by_itself(own: Server, tmp_path: Path) -> None:
    """While the server is away statements are refused at once; once it is back all is well."""
    with contextlib.closing(PostgresLedger.create(own.new_place(), ORIGIN)) as ledger:
        replica = replica_of(ledger, tmp_path, "a")
        replica.start()
        await replica.append(b"before")
        own.stop("immediate")
        began = time.monotonic()
        for leaf in (b"one", b"two"):
            with pytest.raises(LedgerUnwellError, match="can't be reached"):
                await replica.append(leaf)
        assert time.monotonic() - began < 60
        assert not replica.healthy
        own.start()
        await asyncio.to_thread(
            until, lambda: replica.healthy, 120, lambda: str(replica.trouble)
        )
        await replica.append(b"after")
        await asyncio.to_thread(replica.stop)
        leaves = list(ledger.leaves(0, ledger.head().size))

    assert [leaf for leaf in leaves if not leaf.startswith(b"{")] == [b"before", b"after"]


def test_a_promoted_standby_has_every_promise(own: Server, tmp_path: Path) -> None:
    """After a failover to a synchronous standby nothing that was promised is missing."""
    place = own.new_place()
    with following(own, "standby") as standby:
        url = own.by_way_of(place, own.port, standby.port)
        with replicas_of(tmp_path, url) as replicas:
            for name in "ab":
                replicas.start(name)
            replicas.until_placed(200)
            own.stop("immediate")
            standby.promote()
            for name in "ab":
                replicas.until_placed(20, name)
            replicas.stop()
            leaves = replicas.judge()

    assert len(leaves) >= replicas.count()


def test_a_standby_that_lags_is_refused(own: Server, tmp_path: Path) -> None:
    """A standby that commits did not wait for, and that lacks leaves, is not gone on with."""
    place = own.new_place()
    standby = own.follow("late")
    try:
        url = own.by_way_of(place, own.port, standby.port)
        with replicas_of(tmp_path, url) as replicas:
            replicas.start("a")
            replicas.until_placed(50)
            with psycopg.connect(standby.dsn("postgres"), autocommit=True) as connection:
                connection.execute("SELECT pg_wal_replay_pause()")
            standby.stop("fast")
            standby.set("\nprimary_conninfo = ''\n")
            replicas.until_placed(50)
            own.stop("immediate")
            standby.start()
            standby.promote()
            process = replicas._processes["a"]
            process.wait(120)
            errors = replicas.errors()
            replicas.stop()
            with contextlib.closing(PostgresLedger(url)) as ledger:
                size = ledger.head().size
    finally:
        standby.discard()

    assert "now gone or other" in errors or "older than its last published" in errors
    assert process.returncode != 0
    # Nothing was added to it.
    assert size < replicas.count()


def cut_waits_short(server: Server, place: str, replicas: Replicas) -> None:
    """Cancel what waits for a standby, until more is to be seen than was promised."""
    deadline, times = time.monotonic() + 120, 0
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        while times < 20 or visible(place) <= replicas.count():
            connection.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                " WHERE wait_event = 'SyncRep'"
            )
            assert time.monotonic() < deadline
            times += 1
            time.sleep(0.1)


def visible(place: str) -> int:
    """Return how many statements are to be seen in the database, with and without places."""
    with psycopg.connect(place) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM intake) + (SELECT size FROM head)"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_wait_that_was_cut_short_is_no_promise(own: Server, tmp_path: Path) -> None:
    """A commit whose wait for the standby is cancelled is not taken for durable.

    The standby, which never had it, holds all that was promised.
    """
    place = own.new_place()
    with following(own, "standby") as standby, replicas_of(tmp_path, place) as replicas:
        replicas.start("a")
        replicas.until_placed(50)
        standby.stop("fast")
        cut_waits_short(own, place, replicas)
        own.stop("immediate")
        standby.start()
        standby.promote()
        replicas.stop()
        replicas.judge(own.by_way_of(place, standby.port))


def test_waits_that_were_cut_short_are_made_good(own: Server, tmp_path: Path) -> None:
    """Once the standby is back all goes on, and the standby has every promise after that."""
    place = own.new_place()
    with following(own, "standby") as standby, replicas_of(tmp_path, place) as replicas:
        replicas.start("a")
        replicas.until_placed(50)
        standby.stop("fast")
        cut_waits_short(own, place, replicas)
        standby.start()
        until_synchronous(own)
        replicas.until_placed(20)
        own.stop("immediate")
        standby.promote()
        replicas.stop()
        replicas.judge(own.by_way_of(place, standby.port))


def holder_in(place: str) -> str:
    """Return which replica holds the lease, or held it last."""
    with psycopg.connect(place) as connection:
        row = connection.execute("SELECT holder FROM lease").fetchone()
    assert row is not None
    return str(row[0])


def both_of(replicas: Replicas) -> tuple[str, str]:
    """Start two replicas; return the one that sequences, and the other."""
    for name in "ab":
        replicas.start(name)
    for name in "ab":
        replicas.until_placed(50, name)
    # On a machine that stands still for seconds they may have changed places by themselves.
    if holder_in(replicas.url) == "b":
        return "b", "a"
    return "a", "b"


def test_a_killed_sequencer_is_replaced(server: Server, tmp_path: Path) -> None:
    """When the replica that sequences is killed another takes over, in a new epoch."""
    with replicas_of(tmp_path, server.new_place()) as replicas:
        leader, other = both_of(replicas)
        replicas.kill(leader)
        replicas.until_placed(50, other)
        until(lambda: holder_in(replicas.url) == other, 120)
        replicas.until_placed(50, other)
        replicas.stop()
        leaves = replicas.judge()

    assert len(epochs_of(leaves)) >= 2
    assert epochs_of(leaves) == sorted(set(epochs_of(leaves)))


def test_a_sequencer_that_stood_still_writes_nothing(server: Server, tmp_path: Path) -> None:
    """A replica that was frozen past its lease and wakes up sequences nothing in its epoch."""
    with replicas_of(tmp_path, server.new_place()) as replicas:
        leader, other = both_of(replicas)
        freeze(replicas.pid(leader))
        until(lambda: holder_in(replicas.url) == other, 120)
        replicas.until_placed(100, other)
        thaw(replicas.pid(leader))
        # It goes on as a replica like any other.
        replicas.until_placed(50, leader)
        replicas.until_placed(50, other)
        replicas.stop()
        leaves = replicas.judge()

    assert len(epochs_of(leaves)) >= 2
    assert epochs_of(leaves) == sorted(set(epochs_of(leaves)))
