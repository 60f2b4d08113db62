"""Laws of what counts for all processes of a data folder."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from gateway.budget.model import Change, Charge, Counted, Full, Window
from gateway.clock import FrozenClock
from gateway.errors import LedgerDamagedError, LedgerUnwellError
from gateway.limits import AMOUNT_MAX, COUNTER_WAIT_S_MAX, COUNTERS_MAX
from gateway.store.counters import FileCounters

NOW_MS = 1_795_000_030_500
"""Half a minute into a minute of 2026-11-18."""
MINUTE_MS = 60_000


@pytest.fixture
def clock() -> FrozenClock:
    """Return a clock that stands."""
    return FrozenClock(NOW_MS)


@pytest.fixture
def counters(tmp_path: Path, clock: FrozenClock) -> Iterator[FileCounters]:
    """Return counters in a new file."""
    with contextlib.closing(FileCounters(tmp_path / "counters", clock)) as one:
        yield one


def charge(
    amount: int = 1, at_most: int = 10, name: str = "project a requests/minute"
) -> Charge:
    """Return a charge of a minute's counter."""
    window: Window = "day" if name.endswith("day") else "minute"
    return Charge(counter=name, window=window, amount=amount, at_most=at_most)


def used(counters: FileCounters) -> dict[str, int]:
    """Return what every counter holds."""
    return {one.counter: one.used for one in counters.counted()}


async def test_a_limit_holds_exactly(counters: FileCounters, clock: FrozenClock) -> None:
    """The last that fits is taken, one more is not; the next window begins anew."""
    for _ in range(10):
        assert isinstance(await counters.take([charge()]), tuple)
    full = await counters.take([charge()])

    assert Full(place=0, used=10, frees_ms=MINUTE_MS - NOW_MS % MINUTE_MS) == full
    clock.move_ms(MINUTE_MS)
    assert (NOW_MS - NOW_MS % MINUTE_MS + MINUTE_MS,) == await counters.take([charge(10)])
    assert isinstance(await counters.take([charge()]), Full)


async def test_all_charges_are_made_or_none(counters: FileCounters) -> None:
    """A charge for which there is no room undoes those before and after it."""
    few, many = charge(1, 2, "key a tokens/day"), charge(6, 10)
    assert isinstance(await counters.take([many, few]), tuple)
    full = await counters.take([few, many])

    assert isinstance(full, Full)
    assert (1, 6) == (full.place, full.used)
    assert {"key a tokens/day": 1, "project a requests/minute": 6} == used(counters)
    full = await counters.take([charge(1, 0, "key b tokens/day"), many])
    assert Full(place=0, used=0, frees_ms=full.frees_ms) == full  # type: ignore[union-attr]
    assert 2 == len(used(counters))


async def test_what_was_taken_is_changed_in_its_own_window(
    counters: FileCounters, clock: FrozenClock
) -> None:
    """A change finds the window it is for, and no other; nothing falls below nothing."""
    (start,) = await counters.take([charge(5)])  # type: ignore[misc]
    name = charge().counter
    await counters.change([Change(counter=name, start=start, amount=-2)])
    await counters.change([Change(counter="nobody's", start=start, amount=5)])

    assert {name: 3} == used(counters)
    await counters.change([Change(counter=name, start=start, amount=-9)])
    assert {name: 0} == used(counters)
    clock.move_ms(MINUTE_MS)
    assert {} == used(counters)
    await counters.take([charge(4)])
    await counters.change([Change(counter=name, start=start, amount=-4)])
    assert {name: 4} == used(counters)


async def test_a_count_may_pass_its_limit_afterwards(counters: FileCounters) -> None:
    """An answer that came to more than was held is counted in full, and closes the window."""
    (start,) = await counters.take([charge(5)])  # type: ignore[misc]
    await counters.change([Change(counter=charge().counter, start=start, amount=AMOUNT_MAX)])

    assert isinstance(await counters.take([charge(1, AMOUNT_MAX)]), Full)
    for _ in range(2000):
        await counters.change(
            [Change(counter=charge().counter, start=start, amount=AMOUNT_MAX)]
        )
    assert [AMOUNT_MAX * 1000] == list(used(counters).values())


async def test_a_clock_that_is_put_back_forgets_nothing(
    counters: FileCounters, clock: FrozenClock
) -> None:
    """What was counted in a window that seems to come later still counts."""
    await counters.take([charge(10)])
    clock.move_ms(-10 * MINUTE_MS)
    full = await counters.take([charge()])

    assert isinstance(full, Full)
    assert 10 == full.used


async def test_processes_and_restarts_share_what_is_counted(
    counters: FileCounters, clock: FrozenClock
) -> None:
    """Another process, or the next, goes on with the same sums."""
    await counters.take([charge(9)])
    with contextlib.closing(FileCounters(counters.path, clock)) as other:
        assert used(counters) == used(other)
        await other.take([charge(1)])
        assert isinstance(await counters.take([charge(1)]), Full)
    assert 0o600 == counters.path.stat().st_mode & 0o777
    assert [
        Counted(
            counter=charge().counter,
            used=10,
            start=NOW_MS - NOW_MS % MINUTE_MS,
            end=NOW_MS - NOW_MS % MINUTE_MS + MINUTE_MS,
        )
    ] == counters.counted()


async def test_rows_are_used_again(counters: FileCounters, clock: FrozenClock) -> None:
    """Counters whose window is over make room, so names that come and go fill nothing."""
    for round_ in range(3):
        for number in range(COUNTERS_MAX // 2):
            name = f"key k{round_}-{number} requests/minute"
            assert isinstance(await counters.take([charge(1, 5, name)]), tuple)
        clock.move_ms(MINUTE_MS)
    assert {} == used(counters)


async def test_a_full_file_refuses_and_counts_on(
    counters: FileCounters, clock: FrozenClock
) -> None:
    """Where there is no room for another counter nothing is asked; known ones go on."""
    await counters.take([charge()])

    async def fill() -> None:
        for number in range(COUNTERS_MAX + 1):
            await counters.take([charge(1, 5, f"key k{number} tokens/day")])

    with pytest.raises(LedgerUnwellError):
        await fill()
    assert isinstance(await counters.take([charge()]), tuple)
    assert 2 == used(counters)[charge().counter]


@pytest.mark.parametrize("content", [b"something else", b"gwcount1", b"gwcount1" + b"\0" * 999])
def test_a_strange_file_is_refused(content: bytes, tmp_path: Path, clock: FrozenClock) -> None:
    """What is no file of counters is never counted in, nor overwritten."""
    path = tmp_path / "counters"
    path.write_bytes(content)
    with pytest.raises(LedgerDamagedError):
        FileCounters(path, clock)

    assert content == path.read_bytes()


def test_a_file_that_was_begun_is_finished(tmp_path: Path, clock: FrozenClock) -> None:
    """A kill while the file was made leaves one that the next process makes whole."""
    path = tmp_path / "counters"
    for length in (0, 100):
        path.write_bytes(b"\0" * length)
        FileCounters(path, clock).close()

        assert b"gwcount1" == path.read_bytes()[:8]


def test_no_file_where_none_can_be(tmp_path: Path, clock: FrozenClock) -> None:
    """A place that can't hold a file is the operator's to mend."""
    with pytest.raises(LedgerUnwellError):
        FileCounters(tmp_path / "missing" / "counters", clock)


async def test_a_lock_that_is_held_makes_wait_and_then_refuses(
    counters: FileCounters,
) -> None:
    """A process that was stopped with the lock in hand doesn't stop others for ever."""
    handle = os.open(counters.path, os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    waiting = asyncio.ensure_future(counters.take([charge()]))
    await asyncio.sleep(0)

    assert not waiting.done()
    fcntl.flock(handle, fcntl.LOCK_UN)
    assert isinstance(await waiting, tuple)
    fcntl.flock(handle, fcntl.LOCK_EX)
    began = time.monotonic()
    with pytest.raises(LedgerUnwellError):
        await counters.take([charge()])
    assert COUNTER_WAIT_S_MAX - 0.1 < time.monotonic() - began < 60
    os.close(handle)
    assert {charge().counter: 1} == used(counters)


def _take_many(
    path: str, count: int, together: Barrier, results: multiprocessing.SimpleQueue[int]
) -> None:
    async def run() -> int:
        counters = FileCounters(Path(path), FrozenClock(NOW_MS))
        taken = 0
        for _ in range(count):
            both = [charge(3, 1000), charge(1, 10**6, "key a tokens/day")]
            taken += isinstance(await counters.take(both), tuple)
        return taken

    together.wait(200)
    results.put(asyncio.run(run()))


def test_processes_together_never_pass_a_limit(counters: FileCounters) -> None:
    """Of four processes that take at once exactly as many succeed as there is room for."""
    fork = multiprocessing.get_context("spawn")
    results, together = fork.SimpleQueue(), fork.Barrier(4)
    processes = [
        fork.Process(target=_take_many, args=(str(counters.path), 200, together, results))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert 333 == sum(results.get() for _ in processes)
    assert {charge().counter: 999, "key a tokens/day": 333} == used(counters)


_KILLED = """
import asyncio, sys
from pathlib import Path
from gateway.budget.model import Charge
from gateway.clock import FrozenClock
from gateway.store.counters import FileCounters

async def run():
    counters = FileCounters(Path(sys.argv[1]), FrozenClock(%d))
    while True:
        await counters.take([
            Charge(counter=name, window="minute", amount=1, at_most=10**9)
            for name in ("key a requests/minute", "key b requests/minute")
        ])
        print("x", flush=True)

asyncio.run(run())
"""


@pytest.mark.crash
def test_a_kill_leaves_too_much_counted_never_too_little(
    counters: FileCounters, tmp_path: Path
) -> None:
    """Whenever a process is killed, all that it took is counted, and the lock is free."""
    made, found = 0, {"": 0}
    for _ in range(15):
        with subprocess.Popen(
            [sys.executable, "-c", _KILLED % NOW_MS, str(counters.path)],
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.read(2)
            time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            made += 1 + process.stdout.read().count(b"x")
        found = used(counters)

        assert found["key a requests/minute"] >= made
        assert found["key b requests/minute"] >= made
        made = min(found.values())
    assert max(found.values()) - made <= 15
    assert isinstance(asyncio.run(counters.take([charge()])), tuple)
