"""What everything that gives places promises: in one process, and in one of many replicas."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from gateway.clock import Clock, FrozenClock, SystemClock
from gateway.errors import LedgerDamagedError, LedgerUnwellError
from gateway.ledger.ports import Foreign, Sequencing
from gateway.ledger.sequencing.intake import Replica
from gateway.ledger.sequencing.sequencer import Sequencer
from gateway.limits import LEAF_BYTES_MAX
from gateway.receipt.model import Takeover
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import verify_checkpoint
from gateway.store.postgres.ledger import PostgresLedger
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.merkle import leaf_hash, root_of
from tests.support.evidence import ORIGIN, TRUST
from tests.support.postgres import Server
from tests.support.replica import publisher_of, replica_of
from tests.support.store import append_all, exchanges

Kind = Literal["sqlite", "postgres"]


@dataclass(kw_only=True)
class House:
    """A ledger of one kind, and everything that appends to it."""

    kind: Kind
    folder: Path
    url: str = ""
    stores: list[SqliteLedger | PostgresLedger] = field(default_factory=list)

    def store(self) -> Any:
        """Return the ledger, opened once more."""
        one: SqliteLedger | PostgresLedger = (
            SqliteLedger(self.folder / "ledger.db")
            if self.kind == "sqlite"
            else PostgresLedger(self.url)
        )
        self.stores.append(one)
        return one

    def sequencing(
        self, name: str = "a", clock: Clock | None = None, **more: Any
    ) -> Sequencer | Replica:
        """Return something that appends, not started, with a folder of its own."""
        store, folder = self.store(), self.folder / name
        folder.mkdir(exist_ok=True)
        if self.kind == "sqlite":
            return Sequencer(store, publisher_of(store, folder, clock=clock), **more)
        return replica_of(store, folder, name, clock, **more)

    def all_leaves(self) -> list[bytes]:
        """Return all leaves, read by a connection of their own."""
        store = self.store()
        return list(store.leaves(0, store.head().size))

    def published(self, name: str) -> str | None:
        """Return the checkpoint in the folder of *name*, or `None`."""
        file = self.folder / name / "checkpoint"
        return file.read_text() if file.exists() else None

    def leaves(self) -> list[bytes]:
        """Return all leaves but those that say who took over."""
        return [leaf for leaf in self.all_leaves() if not is_takeover(leaf)]


async def until(true: Callable[[], bool], within_s: float = 60) -> None:
    """Wait until *true* holds."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def is_takeover(leaf: bytes) -> bool:
    """Tell whether *leaf* begins an epoch."""
    return leaf.startswith(b"{") and isinstance(read_leaf(leaf), Takeover)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """Return an empty ledger of each kind in turn."""
    one = House(kind=request.param, folder=tmp_path)
    if one.kind == "sqlite":
        SqliteLedger.create(tmp_path / "ledger.db", ORIGIN).close()
    else:
        server: Server = request.getfixturevalue("server")
        one.url = server.new_place()
        PostgresLedger.create(one.url, ORIGIN).close()
    yield one
    for store in one.stores:
        store.close()


@contextlib.contextmanager
def running(sequencing: Sequencing, *, seen: int | None = None) -> Iterator[Sequencing]:
    """Run *sequencing* for a while."""
    sequencing.start(seen=seen)
    try:
        yield sequencing
    finally:
        sequencing.stop()


async def test_every_leaf_gets_its_own_place(house: House) -> None:
    """Callers at the same time get places in the order in which they came, without a gap."""
    leaves = exchanges(150)
    with running(house.sequencing()) as sequencing:
        placed = await append_all(sequencing, leaves)

    stored = house.all_leaves()
    assert [stored[index] for index in placed] == leaves
    assert placed == sorted(set(placed))
    assert len(house.leaves()) == 300


async def test_a_leaf_is_durable_when_append_returns(house: House) -> None:
    """Another connection reads the leaf as soon as the caller has its index."""
    store = house.store()
    with running(house.sequencing()) as sequencing:
        for leaf in exchanges(5):
            index = (await sequencing.append(leaf)).index

            assert list(store.leaves(index, index + 1)) == [leaf]


async def test_a_checkpoint_follows(house: House) -> None:
    """What was sequenced is integrated soon, by a note that verifies and is on disk."""
    clock = FrozenClock()
    with running(house.sequencing(clock=clock)) as sequencing:
        placed = await append_all(sequencing, exchanges(3))
        note = await sequencing.integrated(max(placed))
        again = await sequencing.integrated(0)

        checkpoint = verify_checkpoint(note, TRUST)
        assert checkpoint.size == max(placed) + 1
        assert checkpoint.root == root_of(map(leaf_hash, house.all_leaves()))
        assert again == note
        assert sequencing.healthy
        assert sequencing.checkpointed_at_ms == clock.now_ms()
        assert house.store().checkpoint() == note
        # The file comes last: who reads the database may be quicker.
        await until(lambda: house.published("a") == note)


async def test_stopping_signs_for_the_last_leaf(house: House) -> None:
    """Whoever stops finds a checkpoint over everything, and no open wait."""
    sequencing = house.sequencing()
    sequencing.start()
    placed = await append_all(sequencing, exchanges(2))
    waiting = asyncio.ensure_future(sequencing.integrated(99))
    await asyncio.sleep(0)
    await asyncio.to_thread(sequencing.stop)

    note = (house.folder / "a" / "checkpoint").read_text()
    assert verify_checkpoint(note, TRUST).size == max(placed) + 1
    with pytest.raises(LedgerUnwellError, match="stopping"):
        await waiting
    with pytest.raises(LedgerUnwellError, match="stopping"):
        await sequencing.append(b"late")
    assert not sequencing.healthy


async def test_a_cancelled_caller_loses_no_leaf(house: House) -> None:
    """A leaf whose caller was cancelled while it waited is in the ledger all the same."""
    leaves = exchanges(20)
    with running(house.sequencing()) as sequencing:
        tasks = [asyncio.ensure_future(sequencing.append(leaf)) for leaf in leaves]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    assert sorted(house.leaves()) == sorted(leaves)


def test_commands_append_without_a_thread(house: House) -> None:
    """What was not started appends and signs in the calling thread."""
    sequencing = house.sequencing()
    leaves = exchanges(2)

    placed = [sequencing.append_and_wait(leaf).index for leaf in leaves]

    stored = house.all_leaves()
    assert [stored[index] for index in placed] == leaves
    note = sequencing.checkpoint_now()
    assert verify_checkpoint(note, TRUST).size == len(stored)
    assert sequencing.checkpoint_now() == note == house.store().checkpoint()


async def test_a_started_one_serves_threads_too(house: House) -> None:
    """A blocking append goes the same way as all others."""
    with running(house.sequencing()) as sequencing:
        index = (await asyncio.to_thread(sequencing.append_and_wait, b"leaf")).index

    assert house.all_leaves()[index] == b"leaf"


async def test_what_others_added_is_handed_over_once(house: House) -> None:
    """Leaves of other processes come with the next append, each once, in order."""
    told: list[Foreign] = []
    house.store().append([b"zero", b"one"])
    with running(house.sequencing(on_foreign=told.append), seen=1) as sequencing:
        first = await sequencing.append(b"two")
        other = house.sequencing("b")
        await asyncio.to_thread(other.append_and_wait, b"three")
        await asyncio.to_thread(other.append_and_wait, b"four")
        second = await sequencing.append(b"five")
        third = await sequencing.append(b"six")

    for placed, new in ((first, [b"one"]), (second, [b"three", b"four"]), (third, [])):
        foreign = [leaf for _, leaf in placed.foreign if not is_takeover(leaf)]
        assert foreign == new
        assert all(index < placed.index for index, _ in placed.foreign)
    assert told == [one.foreign for one in (first, second, third) if one.foreign]
    stored = house.all_leaves()
    assert all(stored[index] == leaf for foreign in told for index, leaf in foreign)


async def test_what_nobody_took_is_handed_over_later(house: House) -> None:
    """Where the caller who was to get others' leaves is gone, the next one gets them."""
    house.store().append([b"foreign"])
    with running(house.sequencing(), seen=0) as sequencing:
        gone = asyncio.ensure_future(sequencing.append(b"mine"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        following = [await sequencing.append(leaf) for leaf in (b"next", b"last")]

        handed = [leaf for placed in following for _, leaf in placed.foreign]
        assert [leaf for leaf in handed if not is_takeover(leaf)] == [b"foreign"]


async def test_a_leaf_that_is_too_long_is_refused(house: House) -> None:
    """A leaf longer than the format allows is refused before it can reach the ledger."""
    with running(house.sequencing()) as sequencing:
        with pytest.raises(LedgerUnwellError, match="longer than"):
            await sequencing.append(bytes(LEAF_BYTES_MAX + 1))
        with pytest.raises(LedgerUnwellError, match="longer than"):
            sequencing.append_and_wait(bytes(LEAF_BYTES_MAX + 1))
        await sequencing.append(bytes(LEAF_BYTES_MAX))

    assert house.leaves() == [bytes(LEAF_BYTES_MAX)]


@pytest.mark.parametrize(
    "attempt",
    [
        lambda sequencing: sequencing.start(),
        lambda sequencing: sequencing.append_and_wait(b"four"),
        lambda sequencing: sequencing.checkpoint_now(),
    ],
    ids=["start", "append", "checkpoint"],
)
def test_an_older_ledger_is_refused(
    house: House, attempt: Callable[[Sequencing], object]
) -> None:
    """A ledger older than the checkpoint kept beside it is refused, and grows no more."""
    longer = exchanges(3)
    house.store().append(longer[:4])
    other = House(kind="sqlite", folder=house.folder / "other")
    other.folder.mkdir()
    SqliteLedger.create(other.folder / "ledger.db", ORIGIN).close()
    ahead = other.sequencing()
    for leaf in longer:
        ahead.append_and_wait(leaf)
    (house.folder / "a").mkdir()
    (house.folder / "a" / "checkpoint").write_text(ahead.checkpoint_now())
    for store in other.stores:
        store.close()

    with pytest.raises(LedgerDamagedError, match="older than its last published") as raised:
        attempt(house.sequencing())

    assert "never an older one" in raised.value.hint
    assert house.store().head().size == 4


def test_another_history_is_refused(house: House) -> None:
    """A ledger that has grown, but not out of what was published, is refused."""
    first = house.sequencing()
    for leaf in exchanges(4):
        first.append_and_wait(leaf)
    first.checkpoint_now()
    house.store().append(exchanges(3, first=9))
    note = (house.folder / "a" / "checkpoint").read_text()
    origin, size, root, *rest = note.split("\n")
    flipped = ("A" if root[0] != "A" else "B") + root[1:]
    (house.folder / "a" / "checkpoint").write_text("\n".join([origin, size, flipped, *rest]))

    with pytest.raises(LedgerDamagedError, match="another root"):
        house.sequencing().start()


def test_a_checkpoint_that_is_none_is_refused(house: House) -> None:
    """A checkpoint file that can't be read as one stops the start."""
    (house.folder / "a").mkdir()
    (house.folder / "a" / "checkpoint").write_text("nothing of the sort")

    with pytest.raises(LedgerDamagedError, match="is not one"):
        house.sequencing().start()


async def test_a_real_clock_ticks(house: House) -> None:
    """The newest checkpoint's instant is the clock's, for whoever asks how old it is."""
    clock = SystemClock()
    before = clock.now_ms()
    with running(house.sequencing(clock=clock)) as sequencing:
        index = (await sequencing.append(b"leaf")).index
        await sequencing.integrated(index)

        assert before <= sequencing.checkpointed_at_ms <= clock.now_ms()
