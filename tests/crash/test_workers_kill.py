"""Processes of a gateway with several workers are killed at random under load."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.oracle import Oracle
from tests.support.provider import fake_provider
from tests.support.proxy import Gateway
from tests.support.workers import (
    READY_S_MAX,
    Auditor,
    Load,
    ended,
    kill,
    new_house,
    processes,
    send,
    start,
    well,
)

KILLS = int(os.environ.get("WORKER_KILLS", "24"))
"""How often something is killed; a nightly run asks for many more."""

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600 + 20 * KILLS)]

CALLERS = 4
PAUSE_S = (0.05, 1.0)
PARTS = ("worker", "worker", "worker", "sequencer", "sequencer", "supervisor")


@pytest.fixture(params=[2, 4], ids=lambda count: f"{count} workers")
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Gateway, int]]:
    """Return a gateway of so many workers that is not started yet."""
    workers: int = request.param
    with fake_provider(numbered=True) as (_, url):
        gateway = new_house(tmp_path / "w", url, workers)
        try:
            yield gateway, workers
        finally:
            kill(gateway)


def until_well(gateway: Gateway, workers: int) -> None:
    """Return once all workers are well."""
    until = time.monotonic() + READY_S_MAX
    while well(gateway) < workers:
        assert time.monotonic() < until, gateway.log()
        time.sleep(0.05)


def strike(gateway: Gateway, workers: int, part: str, dice: random.Random) -> bool:
    """Kill one process of *part*, if there is one; tell whether there was."""
    pids = processes(gateway)[part]
    if not pids:
        return False
    if part == "supervisor":
        gateway.kill()
        ended(gateway)
        start(gateway, workers)
    else:
        send(dice.choice(pids), signal.SIGKILL)
    return True


def test_no_kill_of_any_process_breaks_a_promise(
    house: tuple[Gateway, int], tmp_path: Path
) -> None:
    """Whoever is killed, whenever: no answer without its receipt, no index used twice."""
    gateway, workers = house
    seed = random.SystemRandom().randrange(1 << 32)
    dice, oracle = random.Random(seed), Oracle(tmp_path / "oracle.jsonl")
    killed: Counter[str] = Counter()
    start(gateway, workers)
    auditor = Auditor(gateway, oracle)
    began = time.monotonic()
    with Load(gateway=gateway, oracle=oracle, callers=CALLERS) as load:
        while killed.total() < KILLS // 2:
            time.sleep(dice.uniform(*PAUSE_S))
            part = dice.choice(PARTS)
            killed[part] += strike(gateway, workers, part, dice)
            auditor.catch_up()
        until_well(gateway, workers)
        # However slow the machine is, something is answered by those that live now.
        before, until = oracle.whole(), time.monotonic() + READY_S_MAX
        while oracle.whole() == before:
            assert time.monotonic() < until, gateway.log()
            time.sleep(0.1)
    until_well(gateway, workers)
    auditor.settle(within_s=READY_S_MAX)
    found = auditor.violations()
    gateway.stop()
    done = gateway.command("ledger", "fsck", timeout_s=300)
    sys.stderr.write(
        f"seed {seed}: {dict(killed)} killed in {time.monotonic() - began:.0f} s,"
        f" {oracle.whole()} answers seen whole, statuses {load.statuses},"
        f" {len(auditor.record.abandonments)} abandoned, {len(auditor.record.leaves)} leaves\n"
    )
    assert [] == found, gateway.log()
    assert 0 == done.returncode, done.stdout + done.stderr
    assert oracle.whole() > 0
    ended(gateway)
