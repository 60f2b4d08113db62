"""Every system call of a writing process fails once, or is its last; then the power may go too.

Each fault is injected into a real process (`tests/support/writer.py`), which is started again
afterwards as an operator would. What both did was recorded, so that beside the folder as it is
found, the folders are looked at that a power cut might have left at any moment.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final, Literal

from gateway.clock import FrozenClock
from gateway.errors import GatewayError
from gateway.store.keys import load_keyring
from gateway.store.sqlite import SqliteLedger
from tests.faults.found import wrong_with
from tests.support.evidence import ORIGIN, WRITER
from tests.support.faults import Injected, workplace
from tests.support.powerloss import Ack, Names, Op, Record, Sync, SyncFolder, put_down
from tests.support.syscalls import CHANGES, Fault, Player, Stage, every_fault
from tests.support.writer import leaf_of, small_file

Job = Literal["ledger", "checkpoints", "load", "files", "init"]
JOBS: Final[tuple[Job, ...]] = ("ledger", "checkpoints", "load", "files", "init")
WRITES: Final = (
    "write",
    "pwrite64",
    "ftruncate",
    "rename",
    "link",
    "unlink",
    "mkdir",
    "openat",
)
SYNCS: Final = ("fsync", "fdatasync")
LEAVES_BEFORE: Final = 7
LEAVES_AT_ONCE: Final = 5


class Play:
    """One job, failed once and done again, and what may be found after it."""

    def __init__(self, stage: Stage, job: Job, folder: Path) -> None:
        self.stage = stage
        self.job = job
        self.folder = folder
        folder.mkdir()
        self.before: list[bytes] = []
        if job == "init":
            (folder / "gateway.yaml").write_text("listen: 127.0.0.1:0\ndata: .\n")
        elif job != "files":
            self.before = [b"before %d" % number for number in range(LEAVES_BEFORE)]
            store = SqliteLedger.create(folder / "ledger.db", ORIGIN)
            store.append(self.before)
            store.close()
        self.record = Record(folder)

    def act(self, tag: str, fault: Fault | None = None) -> list[list[str]]:
        """Let the job be done; return what was said."""
        said = self.stage.run(self.job, self.folder, tag, fault=fault, recorded=True)
        Player(self.record).play(self.stage.trace)
        return said

    def wrong_with(self, folder: Path, acks: Sequence[Ack]) -> Iterator[str]:
        """Yield what is wrong with what is found in *folder*."""
        match self.job:
            case "files":
                yield from wrong_with_files(folder, acks)
            case "init":
                yield from wrong_with_installation(folder, acks)
            case _:
                yield from wrong_with(folder, acks, self.offered)

    def offered(self, index: int, leaf: bytes) -> bool:
        """Tell whether *leaf* was offered for *index*."""
        if index < len(self.before):
            return leaf == self.before[index]
        name = leaf.partition(b" ")[0].decode("latin-1")
        tag, slash, number = name.rpartition("/")
        return bool(slash) and number.isdecimal() and leaf == leaf_of(tag, int(number))

    def wrong_after_power_cut(self, dice: Random, folder: Path) -> list[str]:
        """Return what is wrong with what a power cut at any moment leaves."""
        upto = dice.randint(0, len(self.record.ops))
        folder.mkdir()
        try:
            put_down(self.record.image(upto, dice), folder)
            return [
                f"power cut at {upto}: {one}"
                for one in self.wrong_with(folder, self.record.acks(upto))
            ]
        finally:
            shutil.rmtree(folder)


def faults(
    job: Job,
    seed: int,
    count: int | None = None,
    *,
    images: int = 2,
    only: str | None = None,
) -> Iterator[Injected]:
    """Yield what came of every fault of *job*, or of *count* of them chosen by *seed*.

    Each brings *images* power cuts with it. *only* names a single fault.
    """
    dice = Random(f"{seed} {job}")
    with workplace() as place, Stage(place) as stage:
        chosen = planned(stage, job, place)
        if count is not None and count < len(chosen):
            chosen = dice.sample(chosen, count)
        for fault in chosen:
            if only is None or only == str(fault):
                yield from _inject(Play(stage, job, place / "play"), fault, images)
                shutil.rmtree(place / "play")


def planned(stage: Stage, job: Job, place: Path) -> list[Fault]:
    """Return every fault that can be injected into *job*."""
    play = Play(stage, job, place / "plan")
    play.act("plan")
    calls = stage.calls()
    shutil.rmtree(place / "plan")
    return list(every_fault(calls, CHANGES, ("EIO", "ENOSPC", "KILL")))


def _inject(play: Play, fault: Fault, images: int) -> Iterator[Injected]:
    seed = f"{fault}"
    said = play.act("first", fault)
    wrong = list(_promised_after_damage(said))
    beside = play.folder.parent / "beside"
    shutil.copytree(play.folder, beside)
    wrong += play.wrong_with(beside, play.record.acks(len(play.record.ops)))
    shutil.rmtree(beside)
    again = play.act("second")
    wrong += _refused(play.job, again)
    wrong += play.wrong_with(play.folder, play.record.acks(len(play.record.ops)))
    yield Injected(kind=f"calls.{play.job}", seed=seed, violations=tuple(wrong))
    dice = Random(seed)
    for number in range(images):
        cut = tuple(play.wrong_after_power_cut(dice, play.folder.parent / "image"))
        yield Injected(kind=f"calls.{play.job}.power", seed=f"{seed}:{number}", violations=cut)


def _promised_after_damage(said: list[list[str]]) -> Iterator[str]:
    damaged = False
    for words in said:
        damaged = damaged or words[0] == "DAMAGED"
        if damaged and words[0] == "ACK":
            yield f"{' '.join(words)}: promised after the state was unknown"


def _refused(job: Job, said: list[list[str]]) -> Iterator[str]:
    """Yield what a process can't do that starts after the fault, which has gone."""
    for words in said:
        if words[0] in {"FAILED", "DAMAGED"} and job != "init":
            yield f"after the fault: {' '.join(words)}"


def wrong_with_files(folder: Path, acks: Sequence[Ack]) -> Iterator[str]:
    """Yield what is wrong with small files: each is whole, and not older than promised."""
    order = [f"{tag}.{number}" for tag in ("first", "second") for number in range(3)]
    oldest: dict[str, int] = {}
    for ack in acks:
        kind, _, name = ack.what.partition(" ")
        if kind == "kept":
            tag = ack.content.decode()
            oldest[name] = order.index(tag) if name == "replaced" else 0
    for name, at_least in oldest.items():
        if not (folder / name).exists():
            yield f"`{name}` was promised and is not there"
        elif name == "replaced":
            tag = (folder / name).read_bytes().partition(b" ")[0].decode("latin-1")
            if tag not in order or order.index(tag) < at_least:
                yield f"`{name}` is older than promised"
    for path in folder.iterdir():
        if path.name.startswith("."):
            # What a crash left of a file on its way; nobody reads it.
            continue
        content = path.read_bytes()
        if content != small_file(content.partition(b" ")[0].decode("latin-1") + " "):
            yield f"`{path.name}` is neither the old file nor the new one"


def wrong_with_installation(folder: Path, acks: Sequence[Ack]) -> Iterator[str]:
    """Yield what is wrong with a data folder: what was made is whole, and loads."""
    made = any(ack.what == "made" for ack in acks)
    if not made and not (folder / "ledger.db").exists():
        return
    try:
        keyring = load_keyring(folder, WRITER, FrozenClock())
        SqliteLedger(folder / "ledger.db", origin=keyring.trust.origin).close()
    except GatewayError as wrong:
        yield f"the installation does not open: {wrong}"


# -- the test of the test -----------------------------------------------------------------

Mutant = Literal["no-folder-sync", "no-file-sync", "rename-first"]
MUTANTS: Final[tuple[Mutant, ...]] = ("no-folder-sync", "no-file-sync", "rename-first")
"""Ways to write a small file wrongly, as a record of them would look."""


def mutant_faults(mutant: Mutant, seed: int, images: int) -> Iterator[Injected]:
    """Yield power cuts under small files that are written wrongly."""
    with workplace() as place, Stage(place) as stage:
        play = Play(stage, "files", place / "play")
        play.act("first")
        play.record.ops = list(_mutated(play.record.ops, mutant))
        dice = Random(f"{seed} {mutant}")
        for number in range(images):
            cut = tuple(play.wrong_after_power_cut(dice, place / "image"))
            yield Injected(kind=f"calls.{mutant}", seed=f"{seed}:{number}", violations=cut)


def _mutated(ops: Sequence[Op], mutant: Mutant) -> Iterator[Op]:
    """Yield *ops* as they would be without a step that matters."""
    late: list[Op] = []
    for op in ops:
        match op:
            case SyncFolder() if mutant == "no-folder-sync":
                continue
            case Sync() if mutant == "no-file-sync":
                continue
            case Sync() if mutant == "rename-first":
                late.append(op)
            case Names() if len(op.leads_to) == 2:
                yield op
                yield from late
                late = []
            case _:
                yield op
