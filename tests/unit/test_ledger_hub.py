"""Laws of the hub, and of the sequencer that a worker has of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.errors import (
    ExchangeClosedError,
    LedgerDamagedError,
    LedgerUncertainError,
    LedgerUnwellError,
)
from gateway.ident import ExchangeId, Sha256
from gateway.ledger.ports import Sequencing
from gateway.ledger.sequencing.hub import brief_of
from gateway.limits import LEAF_BYTES_MAX
from gateway.receipt.model import Withdrawal
from gateway.store.sqlite import SqliteLedger
from tests.support.evidence import WITHDRAWAL
from tests.support.house import eventually
from tests.support.hub import Worker, a_hub, a_ledger, a_worker
from tests.support.store import (
    LedgerUnderTest,
    a_receipt,
    a_statement,
    an_abandonment,
    an_exchange_id,
    an_opening,
    append_all,
)

LIBRARY = Sha256("a" * 64)
ONE, TWO, THREE = (an_exchange_id(number) for number in range(3))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerUnderTest]:
    """Return an empty ledger."""
    with a_ledger(tmp_path) as ledger:
        yield ledger


def a_withdrawal(number: int = 0) -> bytes:
    """Return a leaf that registers are made of."""
    changed: Withdrawal = msgspec.structs.replace(WITHDRAWAL, reason=f"no {number}")
    return a_statement(changed)


def an_opening_of(worker: Worker, number: int) -> bytes:
    """Return an opening of *worker*'s."""
    return an_opening(an_exchange_id(number), writer=worker.name)


def added_beside(ledger: LedgerUnderTest, leaf: bytes) -> int:
    """Add *leaf* as a command does: through the file; return where."""
    with contextlib.closing(SqliteLedger(ledger.path)) as beside:
        return beside.append([leaf]).first


async def test_workers_share_one_order(ledger: LedgerUnderTest) -> None:
    """Leaves of two workers get different indices without a gap, each for its own leaf."""
    async with a_hub(ledger) as hub, a_worker(hub) as one, a_worker(hub) as other:
        ours = [an_opening_of(one, number) for number in range(100)]
        theirs = [an_opening_of(other, 100 + number) for number in range(100)]
        placed, also = await asyncio.gather(
            append_all(one.sequencer, ours), append_all(other.sequencer, theirs)
        )
        stored = ledger.leaves()

    assert list(range(200)) == sorted([*placed, *also])
    assert [stored[index] for index in [*placed, *also]] == [*ours, *theirs]
    assert placed == sorted(placed)


async def test_a_leaf_is_durable_when_append_returns(ledger: LedgerUnderTest) -> None:
    """Another connection reads the leaf as soon as the worker has its index."""
    async with a_hub(ledger) as hub, a_worker(hub) as worker:
        leaf = an_opening_of(worker, 0)
        index = (await worker.sequencer.append(leaf)).index
        assert leaf == ledger.leaves()[index]


async def test_what_others_added_before_is_known_first(ledger: LedgerUnderTest) -> None:
    """Before an append returns its worker has every relevant leaf with a lower index."""
    async with a_hub(ledger) as hub, a_worker(hub) as one, a_worker(hub) as other:
        by_command = added_beside(ledger, a_withdrawal(1))
        placed = (await one.sequencer.append(an_opening_of(one, 0))).index
        known = [index for index, _ in one.foreign]
        by_other = (await other.sequencer.append(a_withdrawal(2))).index
        await one.sequencer.append(an_opening_of(one, 1))
        both = [index for index, _ in one.foreign]
        theirs = [index for index, _ in other.foreign]

    assert by_command < placed
    assert [by_command] == known
    assert [by_command, by_other] == both
    assert [by_command] == theirs
    assert [by_command, by_other] == hub.relevant


async def test_a_worker_that_comes_late_is_told_what_it_has_not_seen(
    ledger: LedgerUnderTest,
) -> None:
    """Relevant leaves from the first that a worker has not folded come before its welcome."""
    early, late = (added_beside(ledger, a_withdrawal(number)) for number in range(2))
    async with a_hub(ledger) as hub, a_worker(hub, seen=1) as worker:
        told = [index for index, _ in worker.foreign]

    assert (0, 1) == (early, late)
    assert [1] == told


async def test_asking_is_enough_to_learn_what_others_added(ledger: LedgerUnderTest) -> None:
    """A refresh tells of a leaf that was added beside the hub, and writes none."""
    async with a_hub(ledger) as hub, a_worker(hub) as worker:
        index = added_beside(ledger, a_withdrawal())
        await asyncio.to_thread(worker.sequencer.refresh)
        told = [known for known, _ in worker.foreign]

    assert [index] == told
    assert 1 == len(ledger.leaves())


async def test_an_exchange_is_closed_once(ledger: LedgerUnderTest) -> None:
    """A second closing statement is refused, as is one for what was never opened."""
    async with a_hub(ledger) as hub, a_worker(hub) as worker:
        opening = (await worker.sequencer.append(an_opening_of(worker, 0))).index
        with pytest.raises(ExchangeClosedError):
            await worker.sequencer.append(an_abandonment(TWO, opening))
        with pytest.raises(ExchangeClosedError):
            await worker.sequencer.append(an_abandonment(TWO, 99))
        leaf = an_opening(THREE, writer=worker.name)
        opening = (await worker.sequencer.append(leaf)).index
        await worker.sequencer.append(a_receipt(THREE, opening))
        with pytest.raises(ExchangeClosedError):
            await worker.sequencer.append(an_abandonment(THREE, opening))

    assert 3 == len(ledger.leaves())


async def test_two_closings_at_once_are_one(ledger: LedgerUnderTest) -> None:
    """While a closing statement is being written no other is taken for its exchange."""
    async with a_hub(ledger) as hub, a_worker(hub) as worker:
        leaf = an_opening(ONE, writer=worker.name)
        opening = (await worker.sequencer.append(leaf)).index
        done = await asyncio.gather(
            worker.sequencer.append(a_receipt(ONE, opening)),
            worker.sequencer.append(an_abandonment(ONE, opening)),
            hub.hub.append(an_abandonment(ONE, opening)),
            worker.sequencer.append(an_abandonment(ONE, opening)),
            return_exceptions=True,
        )

    assert [LedgerUnwellError] * 3 == [type(one) for one in done if isinstance(one, Exception)]
    assert 2 == len(ledger.leaves())


async def test_what_dead_workers_opened_is_abandoned_and_nothing_else(
    ledger: LedgerUnderTest,
) -> None:
    """Of two workers that lost their connection, the dead one's exchanges are closed."""
    async with a_hub(ledger) as hub, a_worker(hub) as living:
        async with a_worker(hub) as dead:
            for number, worker in enumerate((living, dead, dead)):
                await worker.sequencer.append(an_opening_of(worker, number))
        hub.alive.discard(dead.name)
        await eventually(lambda: len(hub.hub.names) == 1)
        swept = await hub.hub.sweep(hub.abandon)
        left = ledger.leaves()[3:]
        again = await hub.hub.sweep(hub.abandon)

    assert 2 == swept
    assert {1, 2} == {brief_of(leaf).opening for leaf in left}
    assert 0 == again


async def test_a_worker_that_only_lost_its_line_keeps_its_exchanges(
    ledger: LedgerUnderTest,
) -> None:
    """What is open of a living worker stays open, however its connection ended."""
    async with a_hub(ledger) as hub, a_worker(hub) as worker:
        await worker.sequencer.append(an_opening_of(worker, 0))
        hub.lines[0].abort()
        await eventually(lambda: worker.lost == 1)
        swept = await hub.hub.sweep(hub.abandon)
        await worker.found.wait()
        placed = (await worker.sequencer.append(an_opening_of(worker, 1))).index

    assert 0 == swept
    assert 1 == placed


async def test_without_its_hub_a_worker_fails_at_once(ledger: LedgerUnderTest) -> None:
    """Appends fail while the hub is away, and work again once it is back."""
    async with a_hub(ledger) as hub, a_worker(hub) as worker:
        await hub.lose()
        await eventually(lambda: worker.lost == 1)
        with pytest.raises(LedgerUnwellError) as failed:
            await worker.sequencer.append(an_opening_of(worker, 0))
        unwell = worker.sequencer.healthy
        hub.begin()
        await asyncio.wait_for(worker.found.wait(), 30)
        index = (await worker.sequencer.append(an_opening_of(worker, 1))).index

    assert LedgerUncertainError is not type(failed.value)
    assert not unwell
    assert 1 == worker.lost
    assert 0 == index


async def test_an_opening_in_doubt_is_closed_by_the_next_hub(ledger: LedgerUnderTest) -> None:
    """What was asked before the hub went is uncertain; if it stands, it does not stay open."""
    async with a_hub(ledger) as hub, a_worker(hub) as worker:
        asked = [an_opening_of(worker, number) for number in range(50)]
        waiting = [asyncio.ensure_future(worker.sequencer.append(one)) for one in asked]
        await asyncio.sleep(0.005)
        await hub.lose()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        hub.begin()
        hub.hub.resume(
            (ExchangeId(an_exchange), index)
            for index, leaf in enumerate(ledger.leaves())
            if (an_exchange := brief_of(leaf).exchange) is not None
        )
        worker.found.clear()
        await asyncio.wait_for(worker.found.wait(), 30)
        stood = len(ledger.leaves())
        swept = await hub.hub.sweep(hub.abandon)

    doubtful = [one for one in done if isinstance(one, LedgerUncertainError)]
    placed = [one for one in done if not isinstance(one, BaseException)]
    assert len(asked) == len(doubtful) + len(placed)
    assert stood - len(placed) == swept


async def test_a_receipt_in_doubt_is_not_followed_by_a_second_end(
    ledger: LedgerUnderTest,
) -> None:
    """If the receipt stands, the abandonment that its worker sends later is refused."""
    async with a_hub(ledger) as hub, a_worker(hub) as worker:
        leaf = an_opening(ONE, writer=worker.name)
        opening = (await worker.sequencer.append(leaf)).index
        await hub.hub.append(a_receipt(ONE, opening))
        await hub.lose()
        hub.begin()
        worker.found.clear()
        await asyncio.wait_for(worker.found.wait(), 30)
        with pytest.raises(ExchangeClosedError):
            await worker.sequencer.append(an_abandonment(ONE, opening))


async def test_no_later_leaf_is_heard_of_before_policies_are_adopted(
    ledger: LedgerUnderTest,
) -> None:
    """An append after an activation returns when its worker rules by the new library."""
    async with a_hub(ledger) as hub, a_worker(hub) as worker:
        worker.loading.clear()
        await hub.hub.put_in_force(a_withdrawal(), LIBRARY)
        waiting = asyncio.ensure_future(worker.sequencer.append(an_opening_of(worker, 0)))
        await asyncio.wait([waiting], timeout=0.2)
        early = waiting.done()
        worker.loading.set()
        index = (await waiting).index

    assert not early
    assert [LIBRARY] == worker.adopted
    assert 1 == index


async def test_a_new_worker_is_told_what_is_in_force(ledger: LedgerUnderTest) -> None:
    """Whoever comes later rules by the same library."""
    async with a_hub(ledger) as hub:
        hub.library = LIBRARY
        async with a_worker(hub) as worker:
            assert [LIBRARY] == worker.adopted


async def test_another_release_is_turned_away(ledger: LedgerUnderTest) -> None:
    """A worker whose package is not the hub's ends, so that it is started anew."""
    async with a_hub(ledger) as hub:
        worker = Worker(hub.path, release="0.0.9")
        worker.sequencer.start()
        with pytest.raises(LedgerDamagedError):
            await worker.sequencer.connected()
        with pytest.raises(LedgerDamagedError):
            await worker.sequencer.append(an_opening_of(worker, 0))
        worker.sequencer.let_go()


async def test_a_ledger_that_shrank_is_noticed(ledger: LedgerUnderTest) -> None:
    """A worker that has seen more leaves than there are takes part in nothing more."""
    async with a_hub(ledger) as hub:
        worker = Worker(hub.path)
        worker.sequencer.start(seen=7)
        with pytest.raises(LedgerDamagedError):
            await worker.sequencer.connected()
        worker.sequencer.let_go()


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x09\xff" + bytes(8), b"\xff" * 64]
)
async def test_whoever_talks_otherwise_is_cut_off(ledger: LedgerUnderTest, said: bytes) -> None:
    """A stranger on the socket is cut off, and the hub goes on."""
    async with a_hub(ledger) as hub, a_worker(hub) as worker:
        reader, writer = await asyncio.open_unix_connection(str(hub.path))
        writer.write(said)
        with contextlib.suppress(ConnectionError):
            assert b"" == await asyncio.wait_for(reader.read(), 30)
        writer.close()
        assert 0 == (await worker.sequencer.append(an_opening_of(worker, 0))).index


async def test_a_leaf_that_is_too_long_never_leaves_its_worker(ledger: LedgerUnderTest) -> None:
    """A leaf beyond the limit is refused, and the next is taken."""
    async with a_hub(ledger) as hub, a_worker(hub) as worker:
        with pytest.raises(LedgerUnwellError):
            await worker.sequencer.append(bytes(LEAF_BYTES_MAX + 1))
        await worker.sequencer.append(an_opening_of(worker, 0))


async def test_what_a_worker_must_say_first_stands_first(ledger: LedgerUnderTest) -> None:
    """The leaf that authorises a key stands before anything of its worker, and once."""

    class Key:
        said = False

        def first(self) -> tuple[bytes, ...]:
            return () if self.said else (a_withdrawal(99),)

        def introduced(self, leaves: object) -> None:
            self.said = True

    async with a_hub(ledger) as hub, a_worker(hub, introduce=Key()) as worker:
        asked = [an_opening_of(worker, number) for number in range(20)]
        placed = await append_all(worker.sequencer, asked)
        stored = ledger.leaves()

    assert list(range(1, 21)) == placed
    assert a_withdrawal(99) == stored[0]
    assert 21 == len(stored)


async def test_checkpoints_come_through_the_hub(ledger: LedgerUnderTest) -> None:
    """A worker gets the hub's notes, for now and for an index."""
    async with a_hub(ledger) as hub, a_worker(hub) as worker:
        index = (await worker.sequencer.append(an_opening_of(worker, 0))).index
        covering = await worker.sequencer.integrated(index)
        newest = await asyncio.to_thread(worker.sequencer.checkpoint_now)
        waiting = asyncio.to_thread(worker.sequencer.append_and_wait, an_opening_of(worker, 1))
        second = (await waiting).index

    assert covering.splitlines()[1] == newest.splitlines()[1] == "1"
    assert 1 == second


async def test_counts_add_up_and_outlive_their_worker(ledger: LedgerUnderTest) -> None:
    """The whole is every worker's last word, and of dead ones what does not end with them."""
    async with a_hub(ledger) as hub, a_worker(hub) as one:
        async with a_worker(hub) as other:
            other.sequencer.tell_counts({"sealed": 3, "now/under-way": 2})
            await other.sequencer.whole({"sealed": 3, "now/under-way": 2})
            both = await one.sequencer.whole({"sealed": 1})
        await eventually(lambda: len(hub.hub.names) == 1)
        later = await one.sequencer.whole({"sealed": 1})

    assert (2, {"sealed": 4, "now/under-way": 2}) == (both.workers, both.counts)
    assert (1, {"sealed": 4}) == (later.workers, later.counts)


async def test_both_kinds_of_sequencer_keep_one_promise(ledger: LedgerUnderTest) -> None:
    """Hub and remote sequencer are what the floors above ask for."""

    def takes(sequencing: Sequencing) -> bool:
        return sequencing.healthy

    async with a_hub(ledger) as hub, a_worker(hub) as worker:
        hub.hub.beat()
        await asyncio.to_thread(worker.sequencer.checkpoint_now)
        assert takes(hub.hub)
        assert takes(worker.sequencer)
        assert worker.sequencer.checkpointed_at_ms >= 0


async def test_trouble_is_told(tmp_path: Path) -> None:
    """Workers hear what the hub's trouble and alarm are, and when they are over."""
    with a_ledger(tmp_path) as ledger:
        async with a_hub(ledger) as hub, a_worker(hub) as worker:
            hub.hub.alarm = "newer policies don't load"
            hub.hub.beat()
            await eventually(lambda: bool(worker.alarms) and bool(worker.alarms[-1]))
            hub.hub.alarm = ""
            hub.hub.beat()
            await eventually(lambda: not worker.alarms[-1])


def test_what_is_no_leaf_of_ours_concerns_everybody() -> None:
    """What the hub can't read it passes on: a worker may know better."""
    assert brief_of(b"").relevant
    assert brief_of(b'{"payload"').relevant
    assert brief_of(b'{"payload":"!!!"').relevant
    assert not brief_of(an_opening(ONE)).relevant
    assert not brief_of(an_abandonment(ONE, 4)).relevant
    assert brief_of(a_withdrawal()).relevant
    assert 4 == brief_of(an_abandonment(ONE, 4)).opening
