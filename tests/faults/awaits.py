"""A gateway is killed at every await of a request's walk, and at lines between them.

The gateway, the provider and the caller are real; an oracle outside remembers what the caller
saw. After each kill the gateway starts again, and the log is judged by all that was ever seen.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, Self

from gateway.receipt.bundle import parse_bundle
from gateway.store.sqlite import SqliteLedger
from tests.support.brittle import BrittleNursery, Order, Phase, counted, withdraw
from tests.support.caller import Answer, Caller, Headers
from tests.support.faults import Injected, workplace
from tests.support.nursery import Nursery
from tests.support.oracle import Oracle, Record
from tests.support.provider import FakeProvider, Script, fake_provider
from tests.support.proxy import START_S_MAX, Gateway, new_gateway

OPENAI: Final[Headers] = (
    ("authorization", "Bearer sk-1"),
    ("content-type", "application/json"),
)
ANTHROPIC: Final[Headers] = (*OPENAI, ("anthropic-version", "2026-10-21"))
CLASSIFIER: Final = "purpose=train.sft, student=s, student-kind=classifier, audience=internal"
DEATH_S_MAX: Final = 1.0
"""How long an answered gateway may take to come to the step that it dies at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One kind of request."""

    target: str = "/openai/v1/chat/completions"
    headers: Headers = OPENAI
    streams: bool = False
    body: bytes | None = None
    hangs_up_after: int | None = None
    """Body bytes after which the caller goes."""

    def content(self) -> bytes:
        """Return the body."""
        if self.body is not None:
            return self.body
        asked: dict[str, Any] = {
            "model": "stub-large",
            "max_tokens": 32,
            "stream": self.streams,
            "messages": [{"role": "user", "content": "what is known?"}],
        }
        return json.dumps(asked).encode()


def _declared(use: str) -> Headers:
    return (*OPENAI, ("x-intended-use", use))


ASKINGS: Final[dict[str, Asking]] = {
    "whole": Asking(),
    "stream": Asking(streams=True),
    "messages": Asking(target="/anthropic/v1/messages", headers=ANTHROPIC, streams=True),
    "kept": Asking(headers=_declared(CLASSIFIER)),
    "opaque": Asking(
        target="/openai/v1/embeddings", body=b'{"model": "stub-small", "input": "words"}'
    ),
    "refused": Asking(headers=_declared("purpose=train.sft, student=s")),
    "failing": Asking(headers=(*OPENAI, *Script(status=529).header().items())),
    "broken-off": Asking(
        streams=True, headers=(*OPENAI, *Script(break_after=200).header().items())
    ),
    "hung-up": Asking(streams=True, hangs_up_after=50),
}


class House:
    """A gateway to be killed again and again, and an oracle that remembers what it gave."""

    def __init__(self, folder: Path, nursery: Nursery, provider: str) -> None:
        self.gateway: Gateway = new_gateway(folder / "gateway", provider)
        self.gateway.nursery = nursery
        self.oracle = Oracle(folder / "oracle.jsonl")
        self.record = Record()
        trust = json.loads((self.gateway.data / "trust.json").read_bytes())
        self.logs = [str(trust["log"])]
        self.seen: str | None = None
        """The exchange whose answer was seen whole last."""

    @property
    def folder(self) -> Path:
        """Return the gateway's folder."""
        return self.gateway.folder

    def __enter__(self) -> Self:
        """Start the gateway."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the gateway."""
        self.gateway.kill()
        self.oracle.close()

    def start(self) -> None:
        """Start the gateway, and be patient: a machine may have much else to do."""
        self.gateway.spawn()
        for patience in (2, 1, 0):
            try:
                self.gateway.wait_until_healthy()
            except AssertionError:
                process = self.gateway.process
                if not patience or process is None or process.poll() is not None:
                    raise
            else:
                return

    def ask(self, asking: Asking) -> Answer:
        """Ask as a caller does, and tell the oracle what was seen."""
        try:
            with Caller(self.gateway.port, timeout_s=60) as caller:
                answer = caller.ask(
                    "POST",
                    asking.target,
                    asking.headers,
                    asking.content(),
                    until_bytes=asking.hangs_up_after,
                )
        except ConnectionError:
            return Answer()
        exchange = answer.header("x-gateway-exchange")
        if exchange is None:
            return answer
        if answer.status == 403:
            self.oracle.refused(exchange)
        elif answer.header("x-request-id") or answer.header("request-id"):
            # It is the provider's, and not what the gateway says of its own.
            self.oracle.answered(exchange, answer.body, whole=answer.whole)
            self.seen = exchange if answer.whole else self.seen
        return answer

    def die(self, *, starting: bool = False) -> bool:
        """Wait for the gateway to end by itself, and end it if it does not; tell which.

        One that is *starting* is waited for until it has started, too.
        """
        assert self.gateway.process is not None
        until = time.monotonic() + (START_S_MAX if starting else DEATH_S_MAX)
        while self.gateway.process.poll() is None and time.monotonic() < until:
            if starting and self.is_well():
                starting, until = False, time.monotonic() + DEATH_S_MAX
            time.sleep(0.002)
        died = self.gateway.process.poll() is not None
        self.gateway.kill()
        withdraw(self.folder)
        return died

    def is_well(self) -> bool:
        """Tell whether the gateway answers, and is well."""
        try:
            return self.gateway.get("/-/health")[0] == 200
        except OSError:
            return False

    def live(self) -> list[str]:
        """Start the gateway again; return every promise that its log breaks then."""
        self.start()
        found = self.judge()
        status, _, note = self.gateway.get("/-/log/checkpoint")
        assert status == 200
        self.oracle.noted(note.decode())
        if self.seen is not None:
            status, _, bundle = self.gateway.get(f"/-/receipts/{self.seen}/bundle")
            assert status == 200, bundle
            shown = parse_bundle(bundle)
            self.oracle.placed(shown.proof.index, shown.leaf)
            self.seen = None
        return found

    def judge(self) -> list[str]:
        """Return every promise that the log breaks."""
        ledger = SqliteLedger(self.gateway.data / "ledger.db")
        try:
            self.record.add(ledger.leaves(len(self.record.leaves), ledger.head().size))
        finally:
            ledger.close()
        return list(map(str, self.record.judge(self.oracle, self.logs)))

    def steps(self, asking: Asking, phase: Phase) -> int:
        """Return how many steps of *phase* a request takes."""
        Order(phase=phase).give(self.folder)
        self.ask(asking)
        count, before = counted(self.folder), -1
        while count != before:
            # The last steps come when the caller has gone.
            time.sleep(0.1)
            count, before = counted(self.folder), count
        withdraw(self.folder)
        assert count, f"no {phase} of a request is counted"
        return count


@contextmanager
def a_house() -> Iterator[tuple[House, FakeProvider]]:
    """Run a gateway that can be killed, before a provider."""
    with (
        workplace() as folder,
        BrittleNursery() as nursery,
        fake_provider(numbered=True) as (provider, url),
        House(folder, nursery, url) as house,
    ):
        yield house, provider


def faults(
    seed: int,
    count: int | None = None,
    *,
    phases: tuple[Phase, ...] = ("suspend", "resume"),
    lines: int = 0,
) -> Iterator[Injected]:
    """Yield what came of a kill at every await of every kind of request, or at *count* of them.

    *lines* more are chosen among all lines that a request of any kind passes.
    """
    dice = Random(seed)
    with a_house() as (house, provider):
        planned = [
            (name, phase, at)
            for name, asking in ASKINGS.items()
            for phase in phases
            for at in range(1, house.steps(asking, phase) + 1)
        ]
        if count is not None and count < len(planned):
            planned = dice.sample(planned, count)
        for name, phase, at in planned:
            yield _killed(house, provider, name, Order(phase=phase, at=at))
        passed = [
            (name, at)
            for name, asking in (ASKINGS.items() if lines else ())
            for at in range(1, house.steps(asking, "line") + 1)
        ]
        for name, at in dice.sample(passed, min(lines, len(passed))):
            yield _killed(house, provider, name, Order(phase="line", at=at))


def _killed(house: House, provider: FakeProvider, name: str, order: Order) -> Injected:
    order.give(house.folder)
    house.ask(ASKINGS[name])
    died = house.die()
    found = house.live()
    if len(provider.generations) > sum(house.record.openings.values()):
        found.append("the provider was asked more often than there are openings")
    return Injected(
        kind=f"awaits.{order.phase}",
        seed=f"{name}:{order.at}" + ("" if died else ":survived"),
        violations=tuple(found),
    )


def replayed(seed: str, phase: Phase) -> Iterator[Injected]:
    """Yield what comes of the kill that *seed* names."""
    name, _, rest = seed.partition(":")
    with a_house() as (house, provider):
        at = int(rest.partition(":")[0])
        yield _killed(house, provider, name, Order(phase=phase, at=at))


def faults_at_start(
    seed: int, count: int | None = None, *, only: int | None = None
) -> Iterator[Injected]:
    """Yield what came of a kill at every await of a start that has something to recover."""
    with a_house() as (house, _):
        house.gateway.kill()
        Order(phase="suspend", starting=True).give(house.folder)
        house.start()
        house.die()
        planned = list(range(1, counted(house.folder) + 1))
        if count is not None and count < len(planned):
            planned = Random(seed).sample(planned, count)
        for at in planned if only is None else [only]:
            house.start()
            # Killed while it is being answered, so that there is something to recover.
            Order(phase="suspend", at=4).give(house.folder)
            house.ask(ASKINGS["stream"])
            house.die()
            Order(phase="suspend", at=at, starting=True).give(house.folder)
            house.gateway.spawn()
            house.die(starting=True)
            found = house.live()
            house.gateway.kill()
            yield Injected(kind="awaits.start", seed=str(at), violations=tuple(found))
