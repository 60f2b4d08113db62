"""Days on which a whole gateway has trouble: a full disk, a clock that jumps, an old copy.

The gateway is a real process; strace lets its disk fill up, and its clock can be put.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.clock import SystemClock, rfc3339
from gateway.receipt.keys import parse_trust
from gateway.receipt.verify import verify_bundle
from tests.faults.awaits import ASKINGS, House
from tests.support.brittle import BrittleNursery
from tests.support.faults import Injected, workplace
from tests.support.nursery import Child, Nursery
from tests.support.provider import FakeProvider, fake_provider
from tests.support.tools import needed
from tests.support.wayward import WaywardNursery, put_clock

PLAIN: Final = ("whole", "stream", "messages", "kept", "opaque")
"""Requests that are answered on any ordinary day."""

DAY_MS: Final = 86_400_000
WELL_S_MAX: Final = 120.0


@contextmanager
def a_house(
    kind: type[Nursery] = BrittleNursery,
) -> Iterator[tuple[House, FakeProvider]]:
    """Return a gateway that is not started yet, before a provider."""
    with (
        workplace() as folder,
        kind() as nursery,
        fake_provider(numbered=True) as (provider, url),
    ):
        house = House(folder, nursery, url)
        try:
            yield house, provider
        finally:
            house.gateway.kill()
            house.oracle.close()


def ask_all(house: House, held: frozenset[str] = frozenset()) -> Iterator[str]:
    """Ask for everything that is plain; yield what was not answered, but for what is *held*."""
    for name in PLAIN:
        answer = house.ask(ASKINGS[name])
        if answer.status == 403 and name in held:
            continue
        if answer.status != 200 or not answer.whole:
            yield f"`{name}` was answered {answer.status}: {answer.body[:200]!r}"


def fsck(house: House) -> Iterator[str]:
    """Stop the gateway and check everything; yield what is found."""
    house.gateway.stop()
    done = house.gateway.command("ledger", "fsck")
    if done.returncode != 0:
        yield f"fsck: {done.stdout}{done.stderr}"
    yield from house.judge()


# -- no space left ---------------------------------------------------------------------------


@contextmanager
def no_space(pid: int, trace: Path) -> Iterator[None]:
    """Let the disk of a process be full for whatever SQLite writes."""
    command = [str(needed("strace")), "-f", "-o", str(trace), "-e", "trace=pwrite64"]
    command += ["-e", "inject=pwrite64:error=ENOSPC", "-p", str(pid)]
    filling = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert filling.stderr is not None
    assert "attached" in filling.stderr.readline()
    try:
        yield
    finally:
        filling.terminate()
        filling.communicate()


def full_disk() -> Iterator[Injected]:
    """Yield what came of a disk that was full for a while, under a gateway that went on."""
    with a_house() as (house, provider):
        house.start()
        wrong = list(ask_all(house))
        process = house.gateway.process
        assert isinstance(process, Child)
        dialled = len(provider.generations)
        with no_space(process.pid, house.folder / "full"):
            for name in PLAIN:
                answer = house.ask(ASKINGS[name])
                if answer.status == 200:
                    wrong.append(f"`{name}` was answered while nothing could be written")
            if len(provider.generations) != dialled:
                wrong.append("the provider was asked without an opening")
            if house.gateway.get("/-/health")[0] == 200:
                wrong.append("health was green while nothing could be written")
        wrong += _healed(house)
        if process.poll() is not None:
            wrong.append("the gateway ended, and there was room again")
        wrong += [*ask_all(house), *fsck(house)]
        yield Injected(kind="day.full-disk", seed="0", violations=tuple(wrong))


def _healed(house: House) -> Iterator[str]:
    until = time.monotonic() + WELL_S_MAX
    while house.gateway.get("/-/health")[0] != 200:
        if time.monotonic() > until:
            yield f"there is room again, and health is not green: {house.gateway.log()}"
            return
        time.sleep(0.1)


# -- a clock that jumps ----------------------------------------------------------------------

JUMPS: Final = (0, -1, 365, 0)
"""How many days ahead the clock is, one after the other."""


def clock_jumps() -> Iterator[Injected]:
    """Yield what came of a clock that went back a day, ahead a year, and back."""
    with a_house(WaywardNursery) as (house, _):
        put_clock(house.folder, JUMPS[0])
        house.start()
        for number, days in enumerate(JUMPS):
            put_clock(house.folder, days)
            began = SystemClock().now_ms()
            # After a year in which nobody looked at the terms, what they lift is held.
            held = frozenset({"kept"} if days == 365 else ())
            wrong = [*ask_all(house, held), *_dated(house, began + days * DAY_MS)]
            wrong += [*_kept_valid(house), *house.judge()]
            if number == len(JUMPS) - 1:
                wrong += fsck(house)
            yield Injected(
                kind="day.clock", seed=f"{number}:{days:+}d", violations=tuple(wrong)
            )


def _dated(house: House, since_ms: int) -> Iterator[str]:
    """Yield what is wrong with the time of the last answer that was seen whole."""
    assert house.seen is not None
    received = house.gateway.receipt(house.seen)["predicate"]["received"]
    if not rfc3339(since_ms) <= received <= rfc3339(since_ms + DAY_MS):
        yield f"`{house.seen}` was received {received}, which is not what the clock said"


def _kept_valid(house: House) -> Iterator[str]:
    """Yield what is wrong with the receipts of every answer that was seen whole."""
    trust = parse_trust((house.gateway.data / "trust.json").read_bytes())
    for seen in house.oracle.memories():
        if seen["kind"] == "answer" and seen["whole"]:
            status, _, bundle = house.gateway.get(f"/-/receipts/{seen['exchange']}/bundle")
            if status != 200:
                yield f"`{seen['exchange']}` has no bundle: {status}"
                continue
            verified = verify_bundle(bundle, trust)
            house.oracle.placed(verified.index, verified.leaf)


# -- an older copy, and a second gateway -----------------------------------------------------


SERVE: Final = ("serve",)
DECLARE: Final = ("use", "declare", "--project", "p", "--owner", "ada", "purpose=inference")


def rollback() -> Iterator[Injected]:
    """Yield what came of a ledger that was put back to an older copy."""
    with a_house() as (house, _):
        house.start()
        wrong = list(ask_all(house))
        house.gateway.stop()
        older = house.folder / "older.db"
        shutil.copyfile(house.gateway.data / "ledger.db", older)
        house.start()
        wrong += ask_all(house)
        house.gateway.stop()
        newer = house.folder / "newer.db"
        (house.gateway.data / "ledger.db").rename(newer)
        shutil.copyfile(older, house.gateway.data / "ledger.db")
        for words in (SERVE, DECLARE):
            done = house.gateway.command(*words, timeout_s=200)
            if done.returncode != 3 or "older" not in done.stderr:
                wrong.append(f"{words[0]} took an older copy: {done.returncode} {done.stderr}")
        newer.rename(house.gateway.data / "ledger.db")
        house.start()
        wrong += [*ask_all(house), *fsck(house)]
        yield Injected(kind="day.rollback", seed="0", violations=tuple(wrong))


def second_gateway() -> Iterator[Injected]:
    """Yield what came of a second gateway on the same data folder, and of its end."""
    with a_house() as (house, _):
        house.start()
        wrong = list(ask_all(house))
        done = house.gateway.command("serve", "--listen", "127.0.0.1:0", timeout_s=200)
        if done.returncode != 3:
            wrong.append(f"a second gateway was let in: {done.returncode} {done.stderr}")
        wrong += ask_all(house)
        if house.gateway.get("/-/health")[0] != 200:
            wrong.append("the first gateway is not well any more")
        wrong += fsck(house)
        yield Injected(kind="day.second-gateway", seed="0", violations=tuple(wrong))


def faults() -> Iterator[Injected]:
    """Yield what came of each kind of day."""
    yield from full_disk()
    yield from clock_jumps()
    yield from rollback()
    yield from second_gateway()
