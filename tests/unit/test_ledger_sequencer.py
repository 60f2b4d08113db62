"""Laws of the sequencer."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.clock import FrozenClock
from gateway.errors import LedgerDamagedError, LedgerUnwellError
from gateway.ledger.ports import Foreign
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.sequencing.sequencer import Sequencer
from gateway.limits import LEAF_BYTES_MAX
from gateway.receipt.verify import verify_checkpoint
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.merkle import leaf_hash, root_of
from tests.support.evidence import LOG_SIGNER, TRUST
from tests.support.store import FaultStore, LedgerUnderTest, append_all, exchanges


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerUnderTest]:
    """Return an empty ledger."""
    one = LedgerUnderTest(tmp_path)
    yield one
    one.store.close()


@contextlib.contextmanager
def running(sequencer: Sequencer, *, seen: int | None = None) -> Iterator[Sequencer]:
    """Run *sequencer* for a while."""
    sequencer.start(seen=seen)
    try:
        yield sequencer
    finally:
        sequencer.stop()


async def test_every_leaf_gets_its_own_place(ledger: LedgerUnderTest) -> None:
    """Callers at the same time get different indices without a gap, each for its own leaf."""
    leaves = exchanges(150)
    with running(ledger.sequencer()) as sequencer:
        placed = await append_all(sequencer, leaves)

    assert sorted(placed) == list(range(300))
    stored = ledger.leaves()
    assert [stored[index] for index in placed] == leaves


async def test_a_leaf_is_durable_when_append_returns(ledger: LedgerUnderTest) -> None:
    """Another connection reads the leaf as soon as the caller has its index."""
    with running(ledger.sequencer()) as sequencer:
        for leaf in exchanges(5):
            index = (await sequencer.append(leaf)).index

            with contextlib.closing(SqliteLedger(ledger.path)) as beside:
                assert list(beside.leaves(index, index + 1)) == [leaf]


async def test_a_checkpoint_follows(ledger: LedgerUnderTest) -> None:
    """What was sequenced is integrated soon, by a note that verifies and is on disk."""
    clock = FrozenClock()
    with running(ledger.sequencer(clock=clock)) as sequencer:
        leaves = exchanges(3)
        placed = await append_all(sequencer, leaves)
        note = await sequencer.integrated(max(placed))
        again = await sequencer.integrated(0)

        checkpoint = verify_checkpoint(note, TRUST)
        assert checkpoint.size == 6
        assert checkpoint.root == root_of(map(leaf_hash, ledger.leaves()))
        assert again == note
        assert sequencer.healthy
        assert sequencer.checkpointed_at_ms == clock.now_ms()
        assert ledger.checkpoint_file.read_text() == note
        assert ledger.store.checkpoint() == note


async def test_stopping_signs_for_the_last_leaf(ledger: LedgerUnderTest) -> None:
    """Whoever stops a sequencer finds a checkpoint over everything, and no open wait."""
    sequencer = ledger.sequencer()
    sequencer.start()
    await append_all(sequencer, exchanges(2))
    waiting = asyncio.ensure_future(sequencer.integrated(99))
    await asyncio.sleep(0)
    await asyncio.to_thread(sequencer.stop)

    assert verify_checkpoint(ledger.checkpoint_file.read_text(), TRUST).size == 4
    with pytest.raises(LedgerUnwellError, match="stopping"):
        await waiting
    with pytest.raises(LedgerUnwellError, match="stopping"):
        await sequencer.append(b"late")
    assert not sequencer.healthy


async def test_a_cancelled_caller_loses_no_leaf(ledger: LedgerUnderTest) -> None:
    """A leaf whose caller was cancelled while it waited is in the ledger all the same."""
    leaves = exchanges(20)
    with running(ledger.sequencer()) as sequencer:
        tasks = [asyncio.ensure_future(sequencer.append(leaf)) for leaf in leaves]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    assert sorted(ledger.leaves()) == sorted(leaves)


def test_commands_append_without_a_thread(ledger: LedgerUnderTest) -> None:
    """A sequencer that was not started appends and signs in the calling thread."""
    sequencer = ledger.sequencer()
    leaves = exchanges(2)

    assert [sequencer.append_and_wait(leaf).index for leaf in leaves] == [0, 1, 2, 3]
    assert verify_checkpoint(sequencer.checkpoint_now(), TRUST).size == 4
    assert sequencer.checkpoint_now() == ledger.checkpoint_file.read_text()
    ledger.check()


async def test_a_started_sequencer_serves_threads_too(ledger: LedgerUnderTest) -> None:
    """A blocking append goes through the same thread as all others."""
    with running(ledger.sequencer()) as sequencer:
        assert (await asyncio.to_thread(sequencer.append_and_wait, b"leaf")).index == 0


async def test_what_others_added_is_handed_over_once(ledger: LedgerUnderTest) -> None:
    """Leaves of other processes come with the next append, each once, in order."""
    told: list[Foreign] = []
    other = LedgerUnderTest.__new__(LedgerUnderTest)
    other.folder, other.path, other.checkpoint_file = (
        ledger.folder,
        ledger.path,
        ledger.checkpoint_file,
    )
    other.store = SqliteLedger(ledger.path)
    ledger.store.append([b"zero", b"one"])
    with running(ledger.sequencer(on_foreign=told.append), seen=1) as sequencer:
        first = await sequencer.append(b"two")
        other.sequencer().append_and_wait(b"three")
        other.sequencer().append_and_wait(b"four")
        second = await sequencer.append(b"five")
        third = await sequencer.append(b"six")
    other.store.close()

    assert (first.index, first.foreign) == (2, ((1, b"one"),))
    assert (second.index, second.foreign) == (5, ((3, b"three"), (4, b"four")))
    assert (third.index, third.foreign) == (6, ())
    assert told == [first.foreign, second.foreign]


async def test_what_nobody_took_is_handed_over_later(ledger: LedgerUnderTest) -> None:
    """Where the caller who was to get others' leaves is gone, the next one gets them."""
    ledger.store.append([b"foreign"])
    with running(ledger.sequencer(), seen=0) as sequencer:
        gone = asyncio.ensure_future(sequencer.append(b"mine"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        following = [await sequencer.append(leaf) for leaf in (b"next", b"last")]

        assert [one for placed in following for one in placed.foreign] == [(0, b"foreign")]


async def test_a_leaf_that_is_too_long_is_refused(ledger: LedgerUnderTest) -> None:
    """A leaf longer than the format allows is refused before it can reach the ledger."""
    with running(ledger.sequencer()) as sequencer:
        with pytest.raises(LedgerUnwellError, match="longer than"):
            await sequencer.append(bytes(LEAF_BYTES_MAX + 1))
        with pytest.raises(LedgerUnwellError, match="longer than"):
            sequencer.append_and_wait(bytes(LEAF_BYTES_MAX + 1))
        assert (await sequencer.append(bytes(LEAF_BYTES_MAX))).index == 0


@pytest.mark.parametrize("kept", ["file", "both"])
def test_an_older_copy_is_refused(ledger: LedgerUnderTest, kept: str) -> None:
    """A ledger restored from an older copy is refused, and no checkpoint is signed for it."""
    sequencer = ledger.sequencer()
    sequencer.append_and_wait(b"one")
    ledger.store.close()
    copy = ledger.folder / "copy.db"
    shutil.copy(ledger.path, copy)
    ledger.store = SqliteLedger(ledger.path)
    sequencer = ledger.sequencer()
    for leaf in (b"two", b"three"):
        sequencer.append_and_wait(leaf)
    note = sequencer.checkpoint_now()
    ledger.store.close()
    shutil.copy(copy, ledger.path)
    ledger.store = SqliteLedger(ledger.path)
    if kept == "both":
        ledger.store.publish(3, note)
        ledger.checkpoint_file.unlink()

    for attempt in (
        lambda: ledger.sequencer().start(),
        lambda: ledger.sequencer().append_and_wait(b"four"),
        lambda: ledger.sequencer().checkpoint_now(),
    ):
        with pytest.raises(LedgerDamagedError, match="older than its last published") as raised:
            attempt()
        assert "never an older one" in raised.value.hint
    assert ledger.store.head().size == 1


@pytest.mark.parametrize("bound", [0, 50_000])
def test_another_history_is_refused(ledger: LedgerUnderTest, bound: int) -> None:
    """A ledger that has grown, but not out of what was published, is refused."""
    first = ledger.sequencer()
    for leaf in exchanges(200):
        first.append_and_wait(leaf)
    note = first.checkpoint_now()
    ledger.store.close()
    ledger.path.unlink()
    other = LedgerUnderTest(ledger.folder)
    other.store.append(exchanges(300, first=1))
    other.checkpoint_file.write_text(note)

    with pytest.raises(LedgerDamagedError, match="another root"):
        other.publisher(recheck_max=bound).check()
    other.store.close()


@pytest.mark.parametrize("bound", [0, 50_000])
def test_a_grown_ledger_is_accepted(ledger: LedgerUnderTest, bound: int) -> None:
    """A ledger that grew after its last checkpoint, by whatever amount, is the same one."""
    leaves = exchanges(400)
    first = ledger.sequencer()
    ledger.store.append(leaves[:300])
    first.checkpoint_now()
    ledger.store.append(leaves[300:])

    head = ledger.publisher(recheck_max=bound).check()

    assert head.size == 800


def test_a_checkpoint_that_is_none_is_refused(ledger: LedgerUnderTest) -> None:
    """A checkpoint file that can't be read as one stops the start and says what to do."""
    ledger.checkpoint_file.write_text("nothing of the sort")

    with pytest.raises(LedgerDamagedError, match="is not one"):
        ledger.sequencer().start()


def test_another_ledgers_checkpoint_is_refused(ledger: LedgerUnderTest) -> None:
    """A checkpoint of another origin does not vouch for this ledger."""
    ledger.sequencer().checkpoint_now()
    stranger = Publisher(ledger.store, LOG_SIGNER, "o.example/else", FrozenClock())

    with pytest.raises(LedgerDamagedError, match="belongs to the ledger"):
        stranger.check()


async def test_a_checkpoint_that_cant_be_kept_makes_unwell(ledger: LedgerUnderTest) -> None:
    """Where the checkpoint can't be written health is not green, until it can be again."""
    (ledger.checkpoint_file / "in the way").mkdir(parents=True)
    store = FaultStore(ledger.store)
    publisher = Publisher(
        store, LOG_SIGNER, LOG_SIGNER.name, FrozenClock(), publish_file=ledger.folder / "none"
    )
    sequencer = Sequencer(store, publisher)
    with running(sequencer):
        store.fail_once("publish", "before")
        await sequencer.append(b"leaf")
        with pytest.raises(LedgerUnwellError):
            await sequencer.integrated(0)
        assert store.failed == 1
        assert verify_checkpoint(await sequencer.integrated(0), TRUST).size == 1
        assert sequencer.healthy
        assert sequencer.trouble is None


async def test_after_an_unknown_effect_nothing_is_taken(ledger: LedgerUnderTest) -> None:
    """A commit whose effect is unknown ends all appending, until a restart reads the truth."""
    store = FaultStore(ledger.store)
    with running(ledger.sequencer(store)) as sequencer:
        store.fail_once("append", "after")
        with pytest.raises(LedgerDamagedError):
            await sequencer.append(b"one")
        with pytest.raises(LedgerDamagedError):
            await sequencer.append(b"two")
        with pytest.raises(LedgerDamagedError):
            sequencer.append_and_wait(b"three")
        assert not sequencer.healthy
        assert isinstance(sequencer.trouble, LedgerDamagedError)

    assert ledger.leaves() == [b"one"]
