"""A gateway is killed while policies change: what was in force is never in doubt."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.ident import Sha256
from gateway.policy.library import Library
from gateway.receipt.model import Activation, Receipt
from gateway.receipt.statement import read_leaf
from gateway.store.libraries import kept_library
from gateway.store.policies import read_policy_files
from tests.support.caller import Caller, Headers
from tests.support.dataset import POLICIES, TERMS
from tests.support.ledger import Written
from tests.support.nursery import Child, Nursery
from tests.support.provider import fake_provider
from tests.support.proxy import Gateway, new_gateway

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[2]
KILLS = 40
CALLERS = 3
TRAINING: Headers = (
    ("authorization", "Bearer sk-1"),
    ("content-type", "application/json"),
    ("x-intended-use", "purpose=train.sft, student=s"),
)
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "go"}]}).encode()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """Return a gateway with small policies of its own, not yet started."""
    with fake_provider() as (_, url), Nursery() as nursery:
        folder = tmp_path / "gateway"
        (folder / "policies/open").mkdir(parents=True)
        (folder / "policies/open/terms.yaml").write_text(TERMS)
        change(folder, 0)
        gateway = new_gateway(folder, url, names=("open",), more="policies: ./policies\n")
        gateway.nursery = nursery
        try:
            yield gateway
        finally:
            gateway.kill()


def change(folder: Path, number: int) -> Sha256:
    """Write the policies anew; return the digest of what is on the disk now."""
    text = POLICIES["open/policy.yaml"].replace("title: ", f"title: Reading {number}, ")
    beside = folder / "policies/open/new"
    beside.write_text(text)
    beside.rename(folder / "policies/open/policy.yaml")
    return Library.load(read_policy_files(folder / "policies")).digest


def activations(data: Path) -> list[tuple[int, Sha256]]:
    """Return where each library came into force; each is kept, and is what its digest says."""
    leaves = Written(data)
    leaves.first = 0
    found = [
        (index, statement.library)
        for index, statement in enumerate(map(read_leaf, leaves.everything()))
        if isinstance(statement, Activation)
    ]
    for digest in {digest for _, digest in found}:
        assert digest == Library.load(kept_library(data, digest)).digest
    return found


@pytest.mark.parametrize(("until", "before"), [("kept", 1), ("stated", 2)])
def test_a_library_is_in_force_once_however_far_a_crash_let_it_come(
    until: str, before: int, gateway: Gateway
) -> None:
    """Killed after the text was kept, or after the leaf: the next start ends the same way."""
    gateway.start()
    gateway.kill()
    newer = change(gateway.folder, 1)
    command = [sys.executable, "-m", "tests.support.halfway", str(gateway.settings_file), until]
    ended = subprocess.run(command, cwd=ROOT, check=False)
    after_crash = activations(gateway.data)
    gateway.start()
    health = json.loads(gateway.get("/-/health")[2])
    gateway.stop()

    assert -signal.SIGKILL == ended.returncode
    assert before == len(after_crash)
    assert 2 == len(activations(gateway.data))
    assert newer == activations(gateway.data)[-1][1]
    assert (newer, None) == (health["policies"], health["alarm"])
    assert 0 == gateway.command("ledger", "fsck").returncode


def call_until_killed(port: int, seen: list[str]) -> None:
    """Ask over one connection after another until nothing answers any more."""
    while True:
        try:
            with Caller(port, timeout_s=60) as caller:
                while True:
                    answer = caller.ask("POST", "/open/v1/chat/completions", TRAINING, BODY)
                    if not answer.whole:
                        break
                    if answer.status == 200:
                        seen.append(answer.values("x-gateway-exchange")[0])
        except ConnectionRefusedError:
            return
        except ConnectionError:
            pass


def test_no_kill_leaves_it_open_which_policies_ruled(gateway: Gateway) -> None:
    """No exchange is ruled under policies that another leaf had replaced at its opening.

    Policies change and are reloaded under load, and the gateway is killed at any moment.
    """
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stderr.write(f"seed {seed}\n")
    dice, seen, number = random.Random(seed), list[str](), 0
    for life in range(KILLS):
        gateway.start()
        before, until = len(seen), time.monotonic() + 120
        threads = [
            threading.Thread(target=call_until_killed, args=(gateway.port, seen))
            for _ in range(CALLERS)
        ]
        for thread in threads:
            thread.start()
        for _ in range(dice.randrange(1, 5)):
            number += 1
            change(gateway.folder, number)
            assert isinstance(gateway.process, Child)
            os.kill(gateway.process.pid, signal.SIGHUP)
            time.sleep(dice.uniform(0, 0.1))
        # Every second time something was seen before, however slow the machine is.
        while life % 2 and len(seen) < before + 3 and time.monotonic() < until:
            time.sleep(0.005)
        gateway.kill()
        for thread in threads:
            thread.join()
    newest = change(gateway.folder, number)
    gateway.start()
    gateway.stop()

    in_force = activations(gateway.data)
    written = Written(gateway.data)
    written.first = 0
    ruled = 0
    for index, statement in enumerate(map(read_leaf, written.everything())):
        if isinstance(statement, Receipt):
            at_opening = max(at for at, _ in in_force if at < statement.opening)
            by = [at for at, one in in_force if one == statement.ruling.library and at < index]
            assert max(by, default=-1) >= at_opening
            ruled += 1
    assert newest == in_force[-1][1]
    assert 0 == gateway.command("ledger", "fsck").returncode
    sys.stderr.write(f"{ruled} receipts, {len(in_force)} activations, {number} changes\n")
    assert ruled >= len(seen) > KILLS
