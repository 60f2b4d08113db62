"""Power fails under the embedded ledger, at any moment, after a day with or without troubles.

A session appends, publishes and copies back over a disk that records; then images of what the
power may have left are opened with the real ledger and held against what was promised.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Literal

import apsw

from gateway.errors import GatewayError, LedgerDamagedError, LedgerUnwellError
from gateway.store.sqlite import SqliteLedger, connect
from gateway.tlog.checkpoint import Checkpoint, format_checkpoint
from gateway.tlog.merkle import Frontier, leaf_hash
from gateway.tlog.note import sign_note
from tests.faults.found import wrong_with
from tests.support.evidence import LOG_SIGNER, ORIGIN
from tests.support.faults import Injected, workplace
from tests.support.powerloss import Ack, RecordingDisk, never, nothing, put_down, recording

Trouble = Literal["none", "killed", "sync-failed", "full"]
TROUBLES: Final[tuple[Trouble, ...]] = ("none", "killed", "sync-failed", "full")
Mutant = Literal["normal", "off", "ack-before-commit", "trusting"]
MUTANTS: Final[dict[Mutant, Trouble]] = {
    "normal": "none",
    "off": "none",
    "ack-before-commit": "none",
    "trusting": "sync-failed",
}
"""Ways to build the ledger wrongly, and the trouble after which images must give each away."""

STEPS: Final = 40
LEAF_BYTES: Final = (200, 2_400)
LEAVES_AT_ONCE_MAX: Final = 7


@dataclass(slots=True)
class Day:
    """One session: what was offered to the ledger, and what it may be found to hold."""

    disk: RecordingDisk
    dice: Random
    trouble: Trouble
    mutant: Mutant | None
    stores: list[SqliteLedger] = field(default_factory=list)
    settled: list[SqliteLedger] = field(default_factory=list)
    past: list[SqliteLedger] = field(default_factory=list)
    """Those of processes that were killed."""
    offered: defaultdict[int, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """Every leaf that was ever to be at an index."""
    tree: Frontier = field(default_factory=Frontier)
    appended: int = 0
    count: int = 0
    calls: int = 0
    deaths: int = 0

    @property
    def path(self) -> Path:
        """Return where the ledger is in this life."""
        return self.disk.record.root / "ledger.db"

    def spend(self) -> None:
        """Live through the day."""
        self.plan()
        self.open()
        for _ in range(STEPS):
            self.step()
        if self.trouble == "full":
            self.disk.full = never
            # There is room again, and nobody has to start anything anew.
            self.append(self.dice.choice(self.stores))

    def plan(self) -> None:
        """Choose when the trouble comes."""
        at = self.dice.randrange(150)
        full_for = self.dice.choice((1, 1, 5, 40))

        def counted(_call: str, _name: str) -> bool:
            self.calls += 1
            return self.calls == at

        def full(_call: str, _name: str) -> bool:
            self.calls += 1
            return at <= self.calls < at + full_for

        def broken(_call: str, _name: str) -> bool:
            self.calls += 1
            return self.calls == at // 3

        self.disk.deadly = counted if self.trouble == "killed" else never
        self.disk.full = full if self.trouble == "full" else never
        self.disk.broken = broken if self.trouble == "sync-failed" else never

    def open(self) -> None:
        """Start one or two processes on the ledger."""
        self.stores = []
        for _ in range(self.dice.choice((1, 1, 2))):
            store = SqliteLedger(self.path, origin=ORIGIN)
            if self.mutant in {"normal", "off"}:
                store._writing.execute(f"PRAGMA synchronous = {self.mutant}")
            # This one builds on what a process before it may have failed to sync.
            store._log_renewed = self.mutant == "trusting"
            self.stores.append(store)
        self.look()

    def look(self) -> None:
        """See what the ledger holds, as a process does that starts."""
        store = self.stores[0]
        size = store.head().size
        self.tree = Frontier()
        for leaf in store.leaves(0, size):
            self.tree.push(leaf_hash(leaf))

    def step(self) -> None:
        """Do one thing, and go on after whatever it leads to."""
        store = self.dice.choice(self.stores)
        try:
            match self.dice.choices(range(5), (12, 3, 3, 2, 1))[0]:
                case 0:
                    self.append(store)
                case 1:
                    self.publish(store)
                case 2:
                    self.copy_back(store)
                case 3:
                    store._broom.writer_must_help = True
                case _:
                    self.reopen()
        except LedgerUnwellError:
            # Nothing was added, and later there is room again.
            pass
        except LedgerDamagedError:
            assert self.trouble in {"killed", "sync-failed"}, "a full disk is no damage"
            self.die()

    def append(self, store: SqliteLedger) -> None:
        """Append a group; it is promised when the call returns."""
        leaves = [self.leaf() for _ in range(self.dice.randint(1, LEAVES_AT_ONCE_MAX))]
        first = self.tree.size
        for index, leaf in enumerate(leaves, first):
            self.offered[index].add(leaf)
        if self.mutant == "ack-before-commit":
            self.promise(first, leaves)
        appended = store.append(leaves)
        assert appended.first == first, "the ledger grew by what nobody offered"
        if self.mutant != "ack-before-commit":
            self.promise(first, leaves)
        for leaf in leaves:
            self.tree.push(leaf_hash(leaf))
        self.appended += len(leaves)

    def promise(self, first: int, leaves: list[bytes]) -> None:
        """Tell callers that their leaves are durable."""
        for index, leaf in enumerate(leaves, first):
            self.disk.record.add(Ack("leaf", index, leaf))

    def publish(self, store: SqliteLedger) -> None:
        """Sign a checkpoint; it is in others' hands when the call returns."""
        if store not in self.settled and self.mutant != "trusting":
            # As a publisher does before it signs for the first time.
            store.settle()
            self.settled.append(store)
        size, root = self.tree.size, self.tree.root()
        text = format_checkpoint(Checkpoint(ORIGIN, size, root))
        store.publish(size, sign_note(text, [LOG_SIGNER]))
        self.disk.record.add(Ack("note", size, root))

    def copy_back(self, store: SqliteLedger) -> None:
        """Copy the log back as the broom does, while others append and publish."""
        if not store._log_renewed:
            # The broom is first asked after an append.
            return
        others: list[GatewayError] = []
        within = False

        def meanwhile() -> None:
            nonlocal within
            if within or others or self.dice.random() < 0.8:
                return
            within = True
            try:
                self.dice.choice((self.append, self.append, self.publish))(store)
            except GatewayError as wrong:
                others.append(wrong)
            finally:
                within = False

        with contextlib.closing(connect(self.path)) as broom:
            self.disk.meanwhile = meanwhile
            try:
                pages = store._broom.copy_back(broom)
            finally:
                self.disk.meanwhile = nothing
        store._broom.writer_must_help = pages > self.dice.randrange(40)
        if others:
            raise others[0]

    def leaf(self) -> bytes:
        """Return a leaf like no other."""
        self.count += 1
        return (b"%d " % self.count).ljust(self.dice.randint(*LEAF_BYTES), b".")

    def reopen(self) -> None:
        """End the processes in good order, and start others."""
        try:
            for store in self.stores:
                store.close()
        except apsw.Error:
            # The last to leave copies the log back, and that can fail too.
            self.die()
        else:
            self.open()

    def die(self) -> None:
        """Kill every process on the ledger, and start others that read what is there."""
        self.deaths += 1
        self.past += self.stores
        self.disk.die_and_live_again(self.disk.record.root.parent / f"life-{self.deaths}")
        self.disk.deadly = never
        if self.dice.random() < 0.5:
            # Somebody looks at the ledger before the gateway starts again.
            SqliteLedger(self.path, origin=ORIGIN).close()
        self.open()

    def end(self) -> None:
        """Let go of everything."""
        self.disk.over = True
        for store in (*self.stores, *self.past):
            store.close()


def a_day(
    folder: Path, seed: int, trouble: Trouble = "none", mutant: Mutant | None = None
) -> Day:
    """Return a session that was lived through in the empty folder *folder*."""
    dice = Random(f"{seed} {trouble}")
    home = folder / "life-0"
    home.mkdir(parents=True)
    SqliteLedger.create(home / "ledger.db", ORIGIN).close()
    with recording(home) as disk:
        day = Day(disk, dice, trouble, mutant)
        try:
            day.spend()
        finally:
            day.end()
    return day


def faults(
    seed: int, days: int, images: int, trouble: Trouble, mutant: Mutant | None = None
) -> Iterator[Injected]:
    """Yield a power cut for each of *images* moments of each of *days* days."""
    for number in range(seed, seed + days):
        with workplace() as folder:
            day = a_day(folder, number, trouble, mutant)
            dice = Random(f"{number} images")
            for image in range(images):
                upto = dice.randint(0, len(day.disk.record.ops))
                yield Injected(
                    kind=f"power.{trouble}",
                    seed=f"{number}:{image}",
                    violations=tuple(after_power_cut(day, upto, dice, folder / "image")),
                )


def after_power_cut(day: Day, upto: int, dice: Random, folder: Path) -> list[str]:
    """Return what is wrong with what a power cut before operation *upto* leaves."""
    folder.mkdir()
    try:
        put_down(day.disk.record.image(upto, dice), folder)
        acks = day.disk.record.acks(upto)
        return list(wrong_with(folder, acks, lambda index, leaf: leaf in day.offered[index]))
    finally:
        shutil.rmtree(folder)
