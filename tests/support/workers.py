"""A gateway of several processes: who is who among them, and callers that keep at it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from gateway.receipt.keys import parse_trust
from gateway.store.sqlite import SqliteLedger
from tests.support.caller import Answer, Caller, Headers
from tests.support.ledger import Written
from tests.support.oracle import Oracle, Record, Violation
from tests.support.proxy import Gateway, new_gateway

OPENAI: Final[Headers] = (
    ("authorization", "Bearer sk-1"),
    ("content-type", "application/json"),
)
TRAINING: Final[Headers] = (
    *OPENAI,
    (
        "x-intended-use",
        "purpose=train.sft, student=s, student-kind=classifier, audience=internal",
    ),
)
CHAT: Final = "/openai/v1/chat/completions"

READY_S_MAX: Final = 150.0
"""Several interpreters start at once, on a machine that may be busy."""


def chat(text: str, *, stream: bool = False) -> bytes:
    """Return the body of a chat request."""
    asked = {
        "model": "stub-large",
        "stream": stream,
        "messages": [{"role": "user", "content": text}],
    }
    return json.dumps(asked).encode()


def new_house(folder: Path, provider_url: str, workers: int) -> Gateway:
    """Return a gateway of several workers, made and not started yet."""
    return new_gateway(folder, provider_url, more=f"workers: {workers}\n")


def start(gateway: Gateway, workers: int) -> None:
    """Start *gateway* and wait until all of its doors are open."""
    gateway.spawn()
    until = time.monotonic() + READY_S_MAX
    while time.monotonic() < until:
        assert gateway.process is not None
        assert gateway.process.poll() is None, gateway.log()
        if well(gateway) == workers:
            return
        time.sleep(0.05)
    raise AssertionError("the gateway never became healthy\n" + gateway.log())


def well(gateway: Gateway) -> int:
    """Return how many workers are well, as the gateway says; 0 where it says nothing."""
    try:
        status, _, body = gateway.get("/-/health")
    except OSError:
        return 0
    told = json.loads(body)
    return int(told["workers"] or 0) if status == 200 else 0


def processes(gateway: Gateway) -> dict[str, list[int]]:
    """Return the pids of a gateway's processes, by their part, oldest first."""
    found: dict[str, list[int]] = {"supervisor": [], "sequencer": [], "worker": []}
    settings = str(gateway.folder)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            if "serve" not in words or str((entry / "cwd").readlink()) != settings:
                continue
            if (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                continue
            part = words[words.index("--part") + 1] if "--part" in words else "supervisor"
            found[part].append(int(entry.name))
    return {part: sorted(pids) for part, pids in found.items()}


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def ended(gateway: Gateway, *, within_s: float = 120) -> None:
    """Return once none of a gateway's processes is left."""
    until = time.monotonic() + within_s
    while any(processes(gateway).values()):
        assert time.monotonic() < until, processes(gateway)
        time.sleep(0.02)


@contextlib.contextmanager
def running(folder: Path, provider_url: str, workers: int) -> Iterator[Gateway]:
    """Run a gateway of several workers; all of it is killed at the end."""
    gateway = new_house(folder, provider_url, workers)
    try:
        start(gateway, workers)
        yield gateway
    finally:
        kill(gateway)


def kill(gateway: Gateway) -> None:
    """Kill every process of *gateway*."""
    gateway.kill()
    for pids in processes(gateway).values():
        for pid in pids:
            send(pid, signal.SIGKILL)


def leaves_of(gateway: Gateway) -> list[bytes]:
    """Return every leaf of the ledger."""
    ledger = SqliteLedger(gateway.data / "ledger.db")
    try:
        return list(ledger.leaves(0, ledger.head().size))
    finally:
        ledger.close()


def written_by(gateway: Gateway) -> Written:
    """Return all that was ever written."""
    written = Written(gateway.data)
    written.first = 0
    return written


def writer_of(gateway: Gateway, answer: Answer) -> str:
    """Return which worker wrote the receipt of *answer*."""
    told = gateway.receipt(answer.values("x-gateway-exchange")[0])
    return str(told["predicate"]["writer"]["instance"])


@contextlib.contextmanager
def one_to_each(gateway: Gateway, workers: int) -> Iterator[dict[str, Caller]]:
    """Yield a connection to each worker, by the worker's name."""
    found: dict[str, Caller] = {}
    with contextlib.ExitStack() as open_:
        until = time.monotonic() + READY_S_MAX
        while len(found) < workers:
            assert time.monotonic() < until, f"only {sorted(found)} take callers"
            try:
                caller = open_.enter_context(Caller(gateway.port))
                answer = caller.ask("POST", CHAT, OPENAI, chat("who are you?"))
            except ConnectionError:
                continue
            if not answer.whole:
                # It had come to the door of a worker that was just killed.
                continue
            if answer.header("x-gateway-problem") == "ledger.unwell":
                # This worker has not found the new sequencer yet, though another one has.
                time.sleep(0.02)
                continue
            assert answer.status == 200, answer.body
            found.setdefault(writer_of(gateway, answer), caller)
        yield found


@dataclass(kw_only=True)
class Load:
    """Callers that ask until they are told to stop, and tell the oracle what they see."""

    gateway: Gateway
    oracle: Oracle
    callers: int
    statuses: dict[int, int] = field(default_factory=dict)
    broken: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        """Begin."""
        for number in range(self.callers):
            self._threads.append(threading.Thread(target=self._call, args=(number,)))
        self._threads.append(threading.Thread(target=self._watch))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and wait until every answer under way has ended."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _call(self, number: int) -> None:
        dice = random.Random(number)
        count = 0
        while not self._stopping.is_set():
            try:
                with Caller(self.gateway.port, timeout_s=20) as caller:
                    # A connection stays with its worker; others should have their turn.
                    for _ in range(dice.randrange(1, 20)):
                        if self._stopping.is_set():
                            return
                        count += 1
                        self._ask(caller, number, count)
            except OSError:
                self._note(0)
                time.sleep(0.05)

    def _ask(self, caller: Caller, number: int, count: int) -> None:
        match count % 4:
            case 0:
                headers, body = OPENAI, chat(f"{count} of {number}?", stream=True)
                target = CHAT
            case 1:
                headers, body, target = TRAINING, chat(f"{count} of {number}?"), CHAT
            case 2:
                headers, body = OPENAI, b'{"model": "m", "input": "%d"}' % count
                target = "/openai/v1/embeddings"
            case _:
                headers, body, target = OPENAI, chat(f"{count} of {number}?"), CHAT
        answer = caller.ask("POST", target, headers, body)
        if answer.status == 200:
            exchange = answer.values("x-gateway-exchange")[0]
            self.oracle.answered(exchange, answer.body, whole=answer.whole)
        elif answer.whole and answer.header("x-gateway-effect") is not None:
            self.oracle.refused(answer.values("x-gateway-exchange")[0])
        self._note(answer.status if answer.whole else 0)
        if not answer.whole:
            raise ConnectionResetError
        if answer.status == 503:
            time.sleep(0.02)

    def _watch(self) -> None:
        """See checkpoints."""
        while not self._stopping.is_set():
            with contextlib.suppress(OSError):
                status, _, body = self.gateway.get("/-/log/checkpoint")
                if status == 200:
                    self.oracle.noted(body.decode())
            self._stopping.wait(0.1)

    def _note(self, status: int) -> None:
        with self._lock:
            self.statuses[status] = self.statuses.get(status, 0) + 1


class Auditor:
    """Reads on where it stopped, and judges all that was ever seen."""

    def __init__(self, gateway: Gateway, oracle: Oracle) -> None:
        self._file = gateway.data / "ledger.db"
        self._oracle = oracle
        trust = parse_trust((gateway.data / "trust.json").read_bytes())
        self._logs = [trust.log]
        self.record = Record()

    def catch_up(self) -> None:
        """Read the leaves that are new."""
        ledger = SqliteLedger(self._file)
        try:
            size = ledger.head().size
            self.record.add(ledger.leaves(len(self.record.leaves), size))
        finally:
            ledger.close()

    def open(self) -> int:
        """Return how many exchanges are open."""
        self.catch_up()
        record = self.record
        closed = record.receipts + record.refusals + record.abandonments
        return sum(1 for exchange in record.openings if not closed[exchange])

    def settle(self, *, within_s: float = 60) -> None:
        """Return once every exchange is closed."""
        until = time.monotonic() + within_s
        while left := self.open():
            assert time.monotonic() < until, f"{left} exchanges are still open"
            time.sleep(0.1)

    def violations(self) -> list[Violation]:
        """Return every promise that was broken so far."""
        self.catch_up()
        return self.record.judge(self._oracle, self._logs)
