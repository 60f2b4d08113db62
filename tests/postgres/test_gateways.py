"""Several real gateways over one database, as callers and operators see them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from gateway.receipt.model import Abandonment, Opening, Receipt, Takeover, Withdrawal
from gateway.receipt.statement import read_leaf
from gateway.store.postgres.ledger import PostgresLedger
from tests.support.caller import Caller, Headers
from tests.support.oracle import Oracle
from tests.support.postgres import Server
from tests.support.provider import FakeProvider, Script, fake_provider
from tests.support.proxy import Gateway
from tests.support.replicas import Auditor, new_replicas, running
from tests.support.workers import CHAT, OPENAI, Load, chat

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def provider_and_url() -> Iterator[tuple[FakeProvider, str]]:
    """Run a provider of our own: others forget what theirs received."""
    with fake_provider() as running_:
        yield running_


@pytest.fixture(scope="module")
def place(server: Server) -> str:
    """Return where the database of all tests here is."""
    return server.new_place()


@pytest.fixture(scope="module")
def gateways(
    provider_and_url: tuple[FakeProvider, str],
    place: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[Gateway]]:
    """Run two gateways for all tests that leave them as they were."""
    folder = tmp_path_factory.mktemp("replicas")
    with running(new_replicas(folder, provider_and_url[1], place, 2)) as both:
        yield both


def ask(gateway: Gateway, headers: Headers = OPENAI) -> tuple[int, str]:
    """Ask *gateway* for something; return the status and the exchange."""
    with Caller(gateway.port) as caller:
        answer = caller.ask("POST", CHAT, headers, chat("hello"))
    return answer.status, answer.values("x-gateway-exchange")[0]


def leaves_of(database: str) -> list[bytes]:
    """Return every leaf."""
    with contextlib.closing(PostgresLedger(database)) as ledger:
        return list(ledger.leaves(0, ledger.head().size))


def pid_of(gateway: Gateway) -> int:
    """Return the process of a running gateway."""
    assert gateway.process is not None
    return gateway.process.pid


def leading(database: str, gateways: list[Gateway]) -> Gateway:
    """Return which of *gateways* sequences, once one does."""
    until = time.monotonic() + 120
    with psycopg.connect(database, autocommit=True) as connection:
        while True:
            row = connection.execute("SELECT holder FROM lease").fetchone()
            assert row is not None
            for one in gateways:
                if f"/{pid_of(one)}-" in row[0]:
                    return one
            assert time.monotonic() < until, row
            time.sleep(0.1)


def silence(database: str, pid: int) -> None:
    """Let more time pass since a replica spoke than a living one is silent for."""
    with psycopg.connect(database, autocommit=True) as connection:
        silenced = connection.execute(
            "UPDATE writer SET seen = seen - interval '1 hour' WHERE instance LIKE %s",
            (f"%/{pid}-%",),
        )
        assert silenced.rowcount == 1


def test_every_replica_answers_with_a_receipt(gateways: list[Gateway]) -> None:
    """Each answer has its receipt, which any replica hands out, proven and verifiable."""
    writers = set()
    for gateway, other in zip(gateways, reversed(gateways), strict=True):
        status, exchange = ask(gateway)
        assert status == 200
        writers.add(gateway.receipt(exchange)["predicate"]["writer"]["instance"])
        with Caller(other.port) as caller:
            bundle = caller.ask("GET", f"/-/receipts/{exchange}/bundle")
        assert bundle.status == 200, bundle.body
        file = other.folder / "one.json"
        file.write_bytes(bundle.body)
        done = other.command("verify", str(file), "--trust", str(other.data / "trust.json"))
        assert done.returncode == 0, done.stdout + done.stderr

    assert len(writers) == 2
    for gateway in gateways:
        done = gateway.command("ledger", "fsck")
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_withdrawal_counts_everywhere_at_once(gateways: list[Gateway], place: str) -> None:
    """What was withdrawn at one replica permits no later opening at any other."""
    here, there = gateways
    done = here.command(
        *("use", "declare", "--project", "default", "--owner", "ada", "purpose=train.sft"),
        *("student=sorter", "student-kind=classifier", "audience=internal"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    declared = next(word for word in done.stdout.split() if word.startswith("use-"))
    headers = (*OPENAI, ("x-intended-use", declared))
    assert [ask(one, headers)[0] for one in gateways] == [200, 200]

    gone = here.command("review", "withdraw", declared, "--by", "lea", "--reason", "no")

    assert gone.returncode == 0, gone.stderr
    assert [ask(one, headers)[0] for one in (there, here)] == [403, 403]
    withdrawn = -1
    for index, leaf in enumerate(leaves_of(place)):
        statement = read_leaf(leaf)
        if isinstance(statement, Withdrawal) and statement.declaration == declared:
            withdrawn = index
        elif isinstance(statement, Receipt) and statement.declared.declaration == declared:
            assert withdrawn == -1 or statement.opening < withdrawn
    assert withdrawn >= 0


def test_what_a_dead_replica_left_open_is_closed(
    provider_and_url: tuple[FakeProvider, str], server: Server, tmp_path: Path
) -> None:
    """Openings of a replica that fell silent are closed as abandoned, those of others not."""
    provider, url = provider_and_url
    place = server.new_place()
    slow = (*OPENAI, *Script(stall_after=40).header().items())
    with running(new_replicas(tmp_path, url, place, 2)) as (busy, dead):
        provider.forget()
        with Caller(dead.port) as lost, Caller(busy.port) as waiting:
            lost.send_request("POST", CHAT, slow, chat("for the dead", stream=True))
            assert provider.stalled.wait(60)
            waiting.send_request("POST", CHAT, slow, chat("for the living", stream=True))
            opened: dict[str, str] = {}
            until = time.monotonic() + 60
            while len(opened) < 2:
                assert time.monotonic() < until
                read = map(read_leaf, leaves_of(place))
                opened = {one.exchange: one.writer for one in read if isinstance(one, Opening)}
            pid = pid_of(dead)
            dead.kill()
            silence(place, pid)
            abandoned: list[str] = []
            until = time.monotonic() + 120
            while not abandoned:
                assert time.monotonic() < until, busy.log()
                read = map(read_leaf, leaves_of(place))
                abandoned = [one.exchange for one in read if isinstance(one, Abandonment)]
                time.sleep(0.2)
            time.sleep(6)
            read = map(read_leaf, leaves_of(place))
            abandoned = [one.exchange for one in read if isinstance(one, Abandonment)]
        provider.forget()

    assert len(abandoned) == 1


def test_a_revoked_key_counts_nowhere(
    provider_and_url: tuple[FakeProvider, str], server: Server, tmp_path: Path
) -> None:
    """A gateway key made at one replica opens all doors, and none once it was revoked."""
    place = server.new_place()
    pair = new_replicas(tmp_path, provider_and_url[1], place, 2, keys="managed")
    with running(pair) as (here, there):
        made = here.command("key", "new", "--principal", "ada", "--project", "search")
        assert made.returncode == 0, made.stdout + made.stderr
        secret = next(word for word in made.stdout.split() if word.startswith("gw-"))
        headers = (("authorization", f"Bearer {secret}"), ("content-type", "application/json"))
        assert [ask(one, headers)[0] for one in (there, here)] == [200, 200]
        listed = there.command("key", "list")
        named = next(word for word in listed.stdout.split() if word.startswith("key-"))
        assert here.command("key", "revoke", named).returncode == 0
        statuses = []
        for one in (there, here):
            with Caller(one.port) as caller:
                statuses.append(caller.ask("POST", CHAT, headers, chat("hello")).status)

    assert statuses == [401, 401]


@pytest.mark.crash
def test_a_killed_leader_costs_nothing_but_time(
    provider_and_url: tuple[FakeProvider, str], server: Server, tmp_path: Path
) -> None:
    """Under load, with the sequencing gateway killed: every whole answer has its receipt."""
    place = server.new_place()
    oracle = Oracle(tmp_path / "oracle")
    pair = new_replicas(tmp_path, provider_and_url[1], place, 2)
    with running(pair):
        auditor = Auditor(place, pair[0].data, oracle)
        leader = leading(place, pair)
        other = pair[1 - pair.index(leader)]
        with (
            Load(gateway=leader, oracle=oracle, callers=3),
            Load(gateway=other, oracle=oracle, callers=3) as going_on,
        ):
            time.sleep(2)
            before = going_on.statuses.get(200, 0)
            pid = pid_of(leader)
            leader.kill()
            until = time.monotonic() + 120
            while going_on.statuses.get(200, 0) < before + 20:
                assert time.monotonic() < until, other.log()
                time.sleep(0.1)
        silence(place, pid)
        auditor.settle()
        found = auditor.violations()
        leaves = auditor.leaves()
        assert other.command("ledger", "fsck").returncode == 0
    oracle.close()

    assert [str(one) for one in found] == []
    assert oracle.whole() > 10
    epochs = [one.epoch for one in map(read_leaf, leaves) if isinstance(one, Takeover)]
    assert epochs == sorted(set(epochs))
    assert len(epochs) >= 2


def test_without_the_driver_one_line_says_what_to_install(tmp_path: Path) -> None:
    """Where psycopg is not installed, `ledger: postgres://` says which extra to install."""
    (tmp_path / "gateway.yaml").write_text("ledger: postgres://gateway@127.0.0.1/x\n")
    block = "import sys; sys.modules['psycopg'] = None; from gateway.cli.main import main; "
    done = subprocess.run(
        [sys.executable, "-c", f"{block} sys.exit(main(['init']))"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )

    assert done.returncode == 3
    assert "pip install 'tos-gateway[postgres]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
