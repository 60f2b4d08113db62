"""Power fails under the texts: what was kept can be read, and what was erased stays erased."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import apsw

from gateway.errors import GatewayError, LedgerDamagedError, LedgerUnwellError
from gateway.ident import ExchangeId
from gateway.store.content import Content, ContentStore
from tests.faults.power import Trouble
from tests.support.faults import Injected, workplace
from tests.support.powerloss import Ack, RecordingDisk, never, put_down, recording
from tests.support.store import an_exchange_id

STEPS = 40
KEY = b"k" * 32


def text_of(number: int) -> Content:
    """Return the text of an exchange."""
    dice = Random(number)
    return Content(
        request=dice.randbytes(dice.randrange(3_000)),
        salt=b"%d" % number,
        rows={0: dice.randbytes(100)},
    )


@dataclass(slots=True)
class Day:
    """One session: what was kept, and what was erased."""

    disk: RecordingDisk
    dice: Random
    trouble: Trouble
    store: ContentStore = field(init=False)
    past: list[ContentStore] = field(default_factory=list)
    names: list[ExchangeId] = field(default_factory=list)
    erasing: set[int] = field(default_factory=set)
    """Those of which erasing was at least begun."""
    deaths: int = 0

    def spend(self) -> None:
        """Live through the day."""
        self.plan()
        self.open()
        for _ in range(STEPS):
            try:
                self.step()
            except LedgerUnwellError:
                pass
            except (LedgerDamagedError, apsw.Error):
                self.die()

    def plan(self) -> None:
        """Choose when the trouble comes."""
        at, calls = self.dice.randrange(60), 0

        def counted(_call: str, _name: str) -> bool:
            nonlocal calls
            calls += 1
            return calls == at

        self.disk.deadly = counted if self.trouble == "killed" else never
        self.disk.full = counted if self.trouble == "full" else never
        self.disk.broken = counted if self.trouble == "sync-failed" else never

    def open(self) -> None:
        """Start a process that keeps texts."""
        self.store = ContentStore(self.disk.record.root / "content.db", KEY)

    def step(self) -> None:
        """Do one thing."""
        match self.dice.choices(range(4), (10, 5, 2, 1))[0]:
            case 0:
                first = len(self.names)
                fresh = range(first, first + self.dice.randint(1, 3))
                self.names += map(an_exchange_id, fresh)
                self.store.put_many([(self.names[one], text_of(one)) for one in fresh])
                for one in fresh:
                    self.disk.record.add(Ack("kept", one))
            case 1 if self.names:
                one = self.dice.randrange(len(self.names))
                self.erasing.add(one)
                self.store.erase(self.names[one])
                self.disk.record.add(Ack("erased", one))
            case 2:
                self.store.empty_log()
            case _:
                self.store.close()
                self.open()

    def die(self) -> None:
        """Kill the process, and start another that reads what is there."""
        self.deaths += 1
        self.past.append(self.store)
        self.disk.die_and_live_again(self.disk.record.root.parent / f"life-{self.deaths}")
        self.disk.deadly = never
        self.open()

    def end(self) -> None:
        """Let go of everything."""
        self.disk.over = True
        for store in (self.store, *self.past):
            store.close()


def faults(seed: int, days: int, images: int, trouble: Trouble) -> Iterator[Injected]:
    """Yield a power cut for each of *images* moments of each of *days* days."""
    for number in range(seed, seed + days):
        with workplace() as folder:
            day = a_day(folder, number, trouble)
            dice = Random(f"{number} images")
            for image in range(images):
                upto = dice.randint(0, len(day.disk.record.ops))
                yield Injected(
                    kind=f"texts.{trouble}",
                    seed=f"{number}:{image}",
                    violations=tuple(after_power_cut(day, upto, dice, folder / "image")),
                )


def a_day(folder: Path, seed: int, trouble: Trouble) -> Day:
    """Return a session that was lived through in the empty folder *folder*."""
    home = folder / "life-0"
    home.mkdir()
    ContentStore(home / "content.db", KEY).close()
    with recording(home) as disk:
        day = Day(disk, Random(f"{seed} {trouble}"), trouble)
        try:
            day.spend()
        finally:
            day.end()
    return day


def after_power_cut(day: Day, upto: int, dice: Random, folder: Path) -> list[str]:
    """Return what is wrong with what a power cut before operation *upto* leaves."""
    folder.mkdir()
    try:
        put_down(day.disk.record.image(upto, dice), folder)
        store = ContentStore(folder / "content.db", KEY)
        try:
            return list(_broken_promises(store, day, upto))
        finally:
            store.close()
    except (GatewayError, apsw.Error) as wrong:
        return [f"the texts can't be read: {wrong}"]
    finally:
        shutil.rmtree(folder)


def _broken_promises(store: ContentStore, day: Day, upto: int) -> Iterator[str]:
    told = store._connection.pragma("integrity_check")
    if told != "ok":
        yield f"integrity_check says {told}"
    erased = {ack.number for ack in day.disk.record.acks(upto) if ack.what == "erased"}
    for ack in day.disk.record.acks(upto):
        name = day.names[ack.number]
        found = store.get(name)
        if ack.number in erased:
            if found is not None or not store.was_erased(name):
                yield f"{ack.number} was erased, and is there again"
        elif found != text_of(ack.number) and not (
            ack.number in day.erasing and store.was_erased(name)
        ):
            yield f"{ack.number} was kept, and is not there"
