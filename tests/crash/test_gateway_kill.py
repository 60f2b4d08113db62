"""A gateway is killed at random moments under load; the truth is still the truth."""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.receipt.model import Abandonment, Opening, Receipt
from gateway.receipt.statement import read_leaf
from tests.support.caller import Caller, Headers
from tests.support.ledger import Written, answer_digests
from tests.support.nursery import Nursery
from tests.support.provider import FakeProvider, fake_provider
from tests.support.proxy import Gateway, new_gateway

KILLS = int(os.environ.get("GATEWAY_KILLS", "60"))

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600 + 20 * KILLS)]

CALLERS = 6
LOAD_S = (0.02, 0.3)
"""A kill comes this long after the gateway is healthy and the callers have begun, …"""
SEEN_FIRST = (0, 4)
"""… and, every second time, after as many answers as this were seen whole."""

OPENAI: Headers = (("authorization", "Bearer sk-1"), ("content-type", "application/json"))
ANTHROPIC: Headers = (*OPENAI, ("anthropic-version", "2026-10-21"))
TRAINING: Headers = (
    *OPENAI,
    (
        "x-intended-use",
        "purpose=train.sft, student=s, student-kind=classifier, audience=internal",
    ),
)


@dataclass(slots=True)
class Oracle:
    """What callers saw whole: the digest of each answer by its exchange."""

    seen: dict[str, str] = field(default_factory=dict)
    broken: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def saw(self, exchange: str, body: bytes) -> None:
        """Note an answer that came whole."""
        with self.lock:
            self.seen[exchange] = hashlib.sha256(body).hexdigest()

    def saw_broken(self) -> None:
        """Note an answer that broke off."""
        with self.lock:
            self.broken += 1


def requests(number: int) -> Iterator[tuple[str, Headers, bytes]]:
    """Yield requests without end: streams and not, read and opaque, kept and not."""
    count = 0
    while True:
        count += 1
        asked = {
            "model": "stub-large",
            "max_tokens": 64,
            "stream": count % 3 == 0,
            "messages": [{"role": "user", "content": f"question {count} of caller {number}?"}],
        }
        body = json.dumps(asked).encode()
        match count % 4:
            case 0:
                yield "/anthropic/v1/messages", ANTHROPIC, body
            case 1:
                yield "/openai/v1/chat/completions", OPENAI, body
            case 2:
                yield "/openai/v1/chat/completions", TRAINING, body
            case _:
                yield "/openai/v1/embeddings", OPENAI, b'{"model": "m", "input": "%d"}' % count


def call_until_killed(port: int, number: int, oracle: Oracle) -> None:
    """Ask over one connection after another until nothing answers any more."""
    asking = requests(number)
    while True:
        try:
            with Caller(port, timeout_s=60) as caller:
                for target, headers, body in asking:
                    answer = caller.ask("POST", target, headers, body)
                    if not answer.whole:
                        oracle.saw_broken()
                        break
                    if answer.status != 200:
                        continue
                    oracle.saw(answer.values("x-gateway-exchange")[0], answer.body)
        except ConnectionRefusedError:
            return
        except ConnectionError:
            oracle.saw_broken()


def live_and_die(
    gateway: Gateway, dice: random.Random, oracle: Oracle, seen_first: int = 0
) -> None:
    """Let callers at the gateway, and kill it while they are being answered.

    At least *seen_first* answers are seen whole first: on a slow machine that takes longer.
    """
    before, until = len(oracle.seen), time.monotonic() + 120
    threads = [
        threading.Thread(target=call_until_killed, args=(gateway.port, number, oracle))
        for number in range(CALLERS)
    ]
    for thread in threads:
        thread.start()
    while len(oracle.seen) < before + seen_first and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(dice.uniform(*LOAD_S))
    gateway.kill()
    for thread in threads:
        thread.join()


class Auditor:
    """Reads on where it stopped, and compares with what callers saw."""

    def __init__(self, data: Path) -> None:
        self.written = Written(data)
        self.openings: Counter[str] = Counter()
        self.receipts: Counter[str] = Counter()
        self.abandoned: Counter[str] = Counter()
        self.request_ids: Counter[str] = Counter()
        self.digests: dict[str, str] = {}

    def catch_up(self) -> None:
        """Read the leaves that are new."""
        leaves = self.written.everything()
        self.written.first += len(leaves)
        self.digests.update(answer_digests(leaves))
        for statement in map(read_leaf, leaves):
            match statement:
                case Opening():
                    self.openings[statement.exchange] += 1
                case Receipt():
                    self.receipts[statement.exchange] += 1
                    if statement.provider.request_id is not None:
                        self.request_ids[statement.provider.request_id] += 1
                case Abandonment():
                    self.abandoned[statement.exchange] += 1
                case _:
                    pass

    def check(self, oracle: Oracle, provider: FakeProvider) -> None:
        """Compare all that was written with all that was seen and generated.

        Holds once the gateway has started again, for then it has closed what it found open.
        """
        closed = self.receipts + self.abandoned
        missing = {name for name, seen in oracle.seen.items() if self.digests.get(name) != seen}
        generated = {one.request_id for one in provider.generations}

        assert set() == missing
        assert self.openings == closed
        assert {1} >= set(closed.values())
        assert {1} >= set(self.request_ids.values())
        assert set(self.request_ids) <= generated
        assert len(provider.generations) <= len(self.openings)
        assert len(self.receipts) <= len(provider.generations)


@pytest.fixture
def gateway_and_provider(tmp_path: Path) -> Iterator[tuple[Gateway, FakeProvider]]:
    """Return a gateway that is not started yet, and its provider."""
    with fake_provider(numbered=True) as (provider, url), Nursery() as nursery:
        gateway = new_gateway(tmp_path / "gateway", url)
        gateway.nursery = nursery
        try:
            yield gateway, provider
        finally:
            gateway.kill()


def test_no_kill_loses_what_a_caller_saw(
    gateway_and_provider: tuple[Gateway, FakeProvider],
) -> None:
    """After each kill, every answer that was seen whole has its receipt."""
    gateway, provider = gateway_and_provider
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stderr.write(f"seed {seed}\n")
    dice, oracle, auditor = random.Random(seed), Oracle(), Auditor(gateway.data)
    for life in range(KILLS):
        gateway.start()
        auditor.catch_up()
        auditor.check(oracle, provider)
        live_and_die(gateway, dice, oracle, SEEN_FIRST[life % 2])
    gateway.start()
    auditor.catch_up()
    auditor.check(oracle, provider)

    gateway.stop()
    done = gateway.command("ledger", "fsck", timeout_s=300)
    sys.stderr.write(
        f"{len(oracle.seen)} answers seen whole, {oracle.broken} broken off, "
        f"{len(auditor.abandoned)} abandoned, {auditor.written.first} leaves\n"
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert oracle.broken > 0
    assert len(oracle.seen) > KILLS
