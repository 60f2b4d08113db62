"""Several doors and one sequencer, as callers and operators see them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.receipt.model import (
    Activation,
    KeyAuthorization,
    KeyRevocation,
    Opening,
    Receipt,
    Withdrawal,
)
from gateway.receipt.statement import read_leaf
from gateway.store.policies import builtin_policies
from tests.support.caller import Caller
from tests.support.provider import FakeProvider, Script, fake_provider
from tests.support.proxy import Gateway
from tests.support.workers import (
    CHAT,
    OPENAI,
    READY_S_MAX,
    chat,
    ended,
    kill,
    leaves_of,
    new_house,
    one_to_each,
    processes,
    running,
    send,
    start,
    well,
    writer_of,
    written_by,
)

WORKERS = 2
STALLED_S_MAX = 120.0
"""Until a request has come to a provider, through processes that may be busy."""


@pytest.fixture(scope="module")
def provider_and_url() -> Iterator[tuple[FakeProvider, str]]:
    """Run a provider of our own: others forget what theirs received."""
    with fake_provider() as running_:
        yield running_


@pytest.fixture(scope="module")
def house(
    provider_and_url: tuple[FakeProvider, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway with two workers for all tests that leave it as it was."""
    with running(tmp_path_factory.mktemp("w"), provider_and_url[1], WORKERS) as gateway:
        yield gateway


def test_every_worker_answers_and_signs_with_its_own_key(house: Gateway) -> None:
    """Each worker's receipts name it, under a key that a leaf authorised before."""
    with one_to_each(house, WORKERS) as callers:
        for caller in callers.values():
            assert 200 == caller.ask("POST", CHAT, OPENAI, chat("hello")).status
        names = set(callers)
    leaves = leaves_of(house)
    authorised = {
        one.writer.instance
        for one in map(read_leaf, leaves)
        if isinstance(one, KeyAuthorization)
    }

    assert WORKERS == len(names)
    assert names <= authorised
    assert 0 == house.command("ledger", "fsck").returncode


def test_any_worker_hands_out_any_receipt_with_its_proof(house: Gateway) -> None:
    """A receipt that one worker wrote is proven by the other, under the hub's checkpoint."""
    with one_to_each(house, WORKERS) as callers:
        first, second = callers.values()
        exchange = first.ask("POST", CHAT, OPENAI, chat("hello")).values("x-gateway-exchange")
        bundle = second.ask("GET", f"/-/receipts/{exchange[0]}/bundle")
    file = house.folder / "one.json"
    file.write_bytes(bundle.body)
    trust = str(house.data / "trust.json")

    assert 200 == bundle.status
    done = house.command("verify", str(file), "--trust", trust)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_the_socket_is_for_the_gateways_account_alone(house: Gateway) -> None:
    """Nobody else can have statements written."""
    mode = (house.data / "sequencer.sock").stat().st_mode

    assert stat.S_ISSOCK(mode)
    assert 0o600 == stat.S_IMODE(mode)


def test_metrics_are_of_all_workers(house: Gateway) -> None:
    """Whichever worker is scraped, it tells of the exchanges of all."""

    def told(caller: Caller) -> Counter[str]:
        lines = caller.ask("GET", "/-/metrics").body.decode().splitlines()
        named = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return Counter({name: int(float(value)) for name, _, value in named})

    total = 'gateway_exchanges_total{ended="complete",operation="chat",provider="openai"}'
    with one_to_each(house, WORKERS) as callers:
        before = max(told(caller)[total] for caller in callers.values())
        for caller in callers.values():
            caller.ask("POST", CHAT, OPENAI, chat("count me"))
        until = time.monotonic() + 60
        while True:
            counts = [told(caller) for caller in callers.values()]
            found = [one[total] for one in counts]
            if found == [before + WORKERS] * WORKERS:
                break
            assert time.monotonic() < until, found
            time.sleep(0.1)

    assert [WORKERS] * WORKERS == [one["gateway_workers"] for one in counts]


def test_a_withdrawal_counts_in_every_worker_at_once(house: Gateway) -> None:
    """After a command has withdrawn a declaration no worker opens an exchange under it."""
    done = house.command(
        *("use", "declare", "--project", "default", "--owner", "ada", "purpose=train.sft"),
        *("student=sorter", "student-kind=classifier", "audience=internal"),
    )
    declared = next(word for word in done.stdout.split() if word.startswith("use-"))
    headers = (*OPENAI, ("x-intended-use", declared))
    with one_to_each(house, WORKERS) as callers:
        before = [
            caller.ask("POST", CHAT, headers, chat("may I?")).status
            for caller in callers.values()
        ]
        gone = house.command("review", "withdraw", declared, "--by", "lea", "--reason", "no")
        after = [
            caller.ask("POST", CHAT, headers, chat("and now?")).status
            for caller in callers.values()
        ]
    at = -1
    late: list[int] = []
    for index, leaf in enumerate(leaves_of(house)):
        statement = read_leaf(leaf)
        if isinstance(statement, Withdrawal) and statement.declaration == declared:
            at = index
        elif isinstance(statement, Receipt) and statement.declared.declaration == declared:
            late += [index] if 0 <= at < statement.opening else []

    assert 0 == gone.returncode, gone.stderr
    assert [200] * WORKERS == before
    assert [403] * WORKERS == after
    assert at >= 0
    assert [] == late


def test_one_worker_that_stands_still_does_not_stop_the_others(house: Gateway) -> None:
    """A stopped worker holds up its own callers only; afterwards it goes on."""
    with one_to_each(house, WORKERS) as callers:
        (name, stopped), (_, other) = callers.items()
        pid = int(name.rpartition("/")[2].partition("-")[0])
        send(pid, signal.SIGSTOP)
        try:
            stopped.send_request("POST", CHAT, OPENAI, chat("are you there?"))
            meanwhile = [
                other.ask("POST", CHAT, OPENAI, chat("and you?")).status for _ in range(5)
            ]
        finally:
            send(pid, signal.SIGCONT)
        late = stopped.read()

    assert [200] * 5 == meanwhile
    assert 200 == late.status
    assert pid in processes(house)["worker"]


def test_a_sequencer_that_stands_still_is_told(house: Gateway) -> None:
    """Health says so while nothing can be written, and callers have their answers late."""
    hub = processes(house)["sequencer"][0]
    with Caller(house.port) as caller:
        send(hub, signal.SIGSTOP)
        try:
            caller.send_request("POST", CHAT, OPENAI, chat("are you there?"))
            # What it said before it stood still may come only now: it is not silent yet.
            told = [house.get("/-/health")]
            until = time.monotonic() + READY_S_MAX
            while told[0][0] != 503:
                assert time.monotonic() < until, told
                told = [house.get("/-/health")]
            told.append(house.get("/-/health"))
        finally:
            send(hub, signal.SIGCONT)
        late = caller.read()
    _wait_for_workers(house)

    assert [503, 503] == [status for status, _, _ in told]
    assert {"unwell"} == {json.loads(body)["status"] for _, _, body in told}
    assert {None} == {json.loads(body)["workers"] for _, _, body in told}
    assert 200 == late.status


def test_a_second_gateway_is_refused(house: Gateway) -> None:
    """One data folder has one gateway, however many workers each has."""
    for workers in ("1", "2"):
        done = house.command("serve", "--workers", workers, "--listen", "127.0.0.1:0")
        assert 3 == done.returncode
        assert "gateway.running" in done.stderr


def test_an_address_has_one_gateway(house: Gateway, tmp_path: Path) -> None:
    """Workers share an address with each other, never with another gateway."""
    other = new_house(tmp_path / "other", "http://127.0.0.1:1", WORKERS)
    for workers in ("1", "2"):
        done = other.command(
            "serve", "--workers", workers, "--listen", f"127.0.0.1:{house.port}"
        )
        (line,) = done.stderr.splitlines()
        assert 3 == done.returncode
        assert "port.in_use" in line


@pytest.mark.parametrize("workers", ["0", "-1", "x", "65", "1.5", ""])
def test_a_number_that_is_none_is_one_clear_line(workers: str, tmp_path: Path) -> None:
    """How many workers there are is said by a number from 1 to 64."""
    gateway = Gateway(folder=tmp_path, port=1, settings="")
    done = gateway.command("serve", f"--workers={workers}")
    (line,) = done.stderr.splitlines()

    assert 3 == done.returncode
    assert line.startswith("gateway: setting.bad: ")
    assert "workers" in line


def test_policies_come_into_force_in_all_workers_by_one_leaf(
    provider_and_url: tuple[FakeProvider, str], tmp_path: Path
) -> None:
    """SIGHUP adds one activation; from then on every worker rules by it, a new one too."""
    policies = tmp_path / "policies"
    shutil.copytree(builtin_policies(), policies)
    house = new_house(tmp_path / "w", provider_and_url[1], WORKERS)
    with house.settings_file.open("a") as file:
        file.write(f"policies: {policies}\n")
    try:
        start(house, WORKERS)
        before = json.loads(house.get("/-/health")[2])["policies"]
        models = policies / "models.yaml"
        text = models.read_text()
        models.write_text(text.replace("llama2:7b", "llama2:7c"))
        send(processes(house)["supervisor"][0], signal.SIGHUP)
        with one_to_each(house, WORKERS) as callers:
            until = time.monotonic() + READY_S_MAX
            while True:
                now = {
                    json.loads(caller.ask("GET", "/-/health").body)["policies"]
                    for caller in callers.values()
                }
                if before not in now:
                    break
                assert time.monotonic() < until, house.log()
                time.sleep(0.05)
        # What lies on the disk is not what is in force until somebody says so.
        models.write_text(text)
        killed = processes(house)["worker"][0]
        send(killed, signal.SIGKILL)
        while killed in processes(house)["worker"]:
            time.sleep(0.01)
        _wait_for_workers(house)
        with one_to_each(house, WORKERS) as callers:
            later = {
                json.loads(caller.ask("GET", "/-/health").body)["policies"]
                for caller in callers.values()
            }
        # Policies that don't load leave the old ones in force, and nobody forgets to say so.
        models.write_text("models: nonsense")
        send(processes(house)["supervisor"][0], signal.SIGHUP)
        alarmed = _wait_for_alarm(house)
        hub = processes(house)["sequencer"][0]
        send(hub, signal.SIGKILL)
        while hub in processes(house)["sequencer"]:
            time.sleep(0.01)
        _wait_for_workers(house)
        still = _wait_for_alarm(house)
        activations = [
            one.library
            for one in map(read_leaf, leaves_of(house))
            if isinstance(one, Activation)
        ]
    finally:
        kill(house)

    assert 1 == len(now)
    assert now == later == alarmed == still
    assert [before, *now] == activations


def test_a_stopping_gateway_sees_exchanges_through(
    provider_and_url: tuple[FakeProvider, str], tmp_path: Path
) -> None:
    """SIGTERM lets answers under way come to their end, and leaves nothing open."""
    provider, url = provider_and_url
    provider.forget()
    house = new_house(tmp_path, url, WORKERS)
    try:
        start(house, WORKERS)
        slow = (*OPENAI, *Script(stall_after=40).header().items())
        with Caller(house.port) as caller:
            caller.send_request("POST", CHAT, slow, chat("take your time", stream=True))
            assert provider.stalled.wait(STALLED_S_MAX)
            assert house.process is not None
            house.process.terminate()
            time.sleep(0.5)
            provider.release()
            answer = caller.read()
        code = house.process.wait(120)
        house.process = None
    finally:
        kill(house)

    assert (200, True) == (answer.status, answer.whole)
    assert 0 == code
    assert set() == written_by(house).unclosed()
    assert not (house.data / "sequencer.sock").exists()
    assert 0 == house.command("ledger", "fsck").returncode


def test_without_its_sequencer_a_gateway_refuses_at_once(
    provider_and_url: tuple[FakeProvider, str], tmp_path: Path
) -> None:
    """Where nothing can be written callers get a 503, nothing is asked, and it comes back."""
    provider, url = provider_and_url
    with running(tmp_path, url, WORKERS) as house:
        provider.forget()
        supervisor = processes(house)["supervisor"][0]
        hub = processes(house)["sequencer"][0]
        with one_to_each(house, WORKERS) as callers:
            asked = len(provider.received)
            # Nobody starts another one until all have been refused.
            send(supervisor, signal.SIGSTOP)
            send(hub, signal.SIGKILL)
            while hub in processes(house)["sequencer"]:
                time.sleep(0.01)
            for caller in callers.values():
                # What is asked before a worker hears of it may or may not have been written.
                while caller.ask("GET", "/-/health").status != 503:
                    time.sleep(0.01)
            refused = [
                caller.ask("POST", CHAT, OPENAI, chat("hello")) for caller in callers.values()
            ]
            send(supervisor, signal.SIGCONT)
            _wait_for_workers(house)
            again = [_once_well(caller) for caller in callers.values()]

        assert {503} == {one.status for one in refused}
        assert {"ledger.unwell"} == {one.header("x-gateway-problem") for one in refused}
        assert asked + WORKERS == len(provider.received)
        assert [200] * WORKERS == again
        assert hub not in processes(house)["sequencer"]


def test_what_waits_for_a_lost_sequencer_is_never_released(
    provider_and_url: tuple[FakeProvider, str], tmp_path: Path
) -> None:
    """An answer whose receipt could not be written breaks off; its exchange is abandoned."""
    provider, url = provider_and_url
    with running(tmp_path, url, WORKERS) as house:
        provider.forget()
        slow = (*OPENAI, *Script(stall_after=40).header().items())
        supervisor = processes(house)["supervisor"][0]
        with Caller(house.port) as caller:
            caller.send_request("POST", CHAT, slow, chat("take your time", stream=True))
            assert provider.stalled.wait(STALLED_S_MAX)
            # A sequencer that stands still, and then is killed: the receipt is in doubt.
            hub = processes(house)["sequencer"][0]
            # There is no other one before the answer has come to its end.
            send(supervisor, signal.SIGSTOP)
            send(hub, signal.SIGSTOP)
            provider.release()
            threading.Timer(0.5, send, (hub, signal.SIGKILL)).start()
            answer = caller.read()
            send(supervisor, signal.SIGCONT)
        _wait_for_workers(house)
        written = written_by(house)
        written.until(lambda now: not now.unclosed())
        openings = written.statements(Opening)

    assert not answer.whole
    assert b"[DONE]" not in answer.body
    assert 1 == len(openings)
    assert 0 == house.command("ledger", "fsck").returncode


def test_a_killed_workers_exchanges_are_closed_while_the_others_go_on(
    provider_and_url: tuple[FakeProvider, str], tmp_path: Path
) -> None:
    """What a dead worker had opened is abandoned; what a living one has open is not."""
    provider, url = provider_and_url
    with running(tmp_path, url, WORKERS) as house:
        provider.forget()
        slow = (*OPENAI, *Script(stall_after=40).header().items())
        with one_to_each(house, WORKERS) as callers:
            (name, dying), (_, living) = callers.items()
            for caller in (dying, living):
                caller.send_request("POST", CHAT, slow, chat("take your time", stream=True))
                assert provider.stalled.wait(STALLED_S_MAX)
                provider.stalled.clear()
            send(int(name.rpartition("/")[2].partition("-")[0]), signal.SIGKILL)
            cut = dying.read()
            written = written_by(house)
            written.until(lambda now: len(now.unclosed()) == 1)
            provider.release()
            whole = living.read()
        _wait_for_workers(house)
        left = written.unclosed()
        ended_at = _key_ended_at(house, name)
        signed = [
            index
            for index, statement in enumerate(map(read_leaf, leaves_of(house)))
            if isinstance(statement, Receipt) and statement.writer.instance == name
        ]

    assert not cut.whole
    assert max(signed) < ended_at
    assert (200, True) == (whole.status, whole.whole)
    assert set() == left
    assert 0 == house.command("ledger", "fsck").returncode


def test_without_their_supervisor_all_processes_end(
    provider_and_url: tuple[FakeProvider, str], tmp_path: Path
) -> None:
    """A killed supervisor takes everybody along, and the folder is free for the next."""
    deep = tmp_path / "a folder whose path is too long for a socket's" / ("x" * 60)
    with running(deep, provider_and_url[1], WORKERS) as house:
        assert [1, 1, WORKERS] == [len(pids) for pids in processes(house).values()]
        house.kill()
        ended(house)
        start(house, WORKERS)
        with Caller(house.port) as caller:
            answer = caller.ask("POST", CHAT, OPENAI, chat("hello"))
            name = writer_of(house, answer)

    assert 200 == answer.status
    assert os.uname().nodename == name.partition("/")[0]


def _wait_for_alarm(house: Gateway) -> set[str]:
    """Return the policies in force in all workers, once each is alarmed."""
    until = time.monotonic() + READY_S_MAX
    while True:
        with one_to_each(house, WORKERS) as callers:
            told = [
                json.loads(caller.ask("GET", "/-/health").body) for caller in callers.values()
            ]
        if all(one["alarm"] == "policies.kept_old" for one in told):
            return {one["policies"] for one in told}
        assert time.monotonic() < until, house.log()
        time.sleep(0.1)


def _key_ended_at(house: Gateway, writer: str) -> int:
    """Return the leaf that ends the receipt key of *writer*, once there is one."""
    until = time.monotonic() + READY_S_MAX
    while True:
        keys = set()
        for index, statement in enumerate(map(read_leaf, leaves_of(house))):
            if isinstance(statement, KeyAuthorization) and statement.writer.instance == writer:
                keys.add(statement.keyid)
            elif isinstance(statement, KeyRevocation) and statement.keyid in keys:
                return index
        assert time.monotonic() < until, house.log()
        time.sleep(0.1)


def _once_well(caller: Caller) -> int:
    """Return the status that *caller* has once its worker has found a sequencer again."""
    until = time.monotonic() + READY_S_MAX
    while True:
        status = caller.ask("POST", CHAT, OPENAI, chat("hello")).status
        if status != 503 or time.monotonic() > until:
            return status
        time.sleep(0.02)


def _wait_for_workers(house: Gateway) -> None:
    until = time.monotonic() + READY_S_MAX
    while well(house) < WORKERS:
        assert time.monotonic() < until, house.log()
        time.sleep(0.05)
