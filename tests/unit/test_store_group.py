"""Laws of the thread that commits what is waiting, together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from gateway.errors import LedgerDamagedError, LedgerUnwellError
from gateway.store.group import GroupCommit


class Notebook:
    """Something to commit to, which can be made to wait and to fail."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.entered = threading.Event()
        self.error: Exception | None = None
        self.unclaimed: list[int] = []

    def commit(self, items: list[int]) -> list[int]:
        """Note one group."""
        self.entered.set()
        self.may_go.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.groups.append(items)
        return [item * 10 for item in items]


@pytest.fixture
def notebook() -> Notebook:
    """Return an empty notebook."""
    return Notebook()


@pytest.fixture
def group(notebook: Notebook) -> Iterator[GroupCommit[int, int]]:
    """Return a running writer into the notebook."""
    one = GroupCommit[int, int](
        "test-writer",
        notebook.commit,
        group_max=4,
        waiting_max=8,
        unclaimed=notebook.unclaimed.append,
    )
    one.start()
    yield one
    notebook.may_go.set()
    one.stop()


async def hand_in(
    notebook: Notebook, group: GroupCommit[int, int], items: range
) -> list[asyncio.Task[int]]:
    """Hand in *items* while the first of them is held up in its commit."""
    notebook.may_go.clear()
    notebook.entered.clear()
    first = asyncio.ensure_future(group.submit(items[0]))
    await asyncio.to_thread(notebook.entered.wait)
    rest = [asyncio.ensure_future(group.submit(item)) for item in items[1:]]
    await asyncio.sleep(0)
    return [first, *rest]


async def test_what_waits_is_committed_together(
    notebook: Notebook, group: GroupCommit[int, int]
) -> None:
    """While one group is committed the next gathers, up to its bound, in order."""
    tasks = await hand_in(notebook, group, range(7))
    notebook.may_go.set()

    assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40, 50, 60]
    assert notebook.groups == [[0], [1, 2, 3, 4], [5, 6]]


async def test_a_cancelled_caller_loses_nothing(
    notebook: Notebook, group: GroupCommit[int, int]
) -> None:
    """What a cancelled caller handed in is committed, and its result is handed on."""
    tasks = await hand_in(notebook, group, range(3))
    tasks[1].cancel()
    await asyncio.sleep(0)
    notebook.may_go.set()

    assert await tasks[2] == 20
    assert tasks[1].cancelled()
    assert notebook.groups == [[0], [1, 2]]
    assert notebook.unclaimed == [10]


async def test_too_many_are_refused(notebook: Notebook, group: GroupCommit[int, int]) -> None:
    """Beyond the bound a caller is refused at once; those who wait are served."""
    tasks = await hand_in(notebook, group, range(9))

    with pytest.raises(LedgerUnwellError, match="8 statements are waiting"):
        await group.submit(99)
    notebook.may_go.set()

    assert await asyncio.gather(*tasks) == [item * 10 for item in range(9)]


async def test_an_error_belongs_to_its_group(
    notebook: Notebook, group: GroupCommit[int, int]
) -> None:
    """A commit that fails fails everyone in its group and nobody after."""
    notebook.error = LedgerUnwellError("the disk is full")
    tasks = await hand_in(notebook, group, range(2))
    notebook.may_go.set()

    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], LedgerUnwellError)
    assert outcomes[1] == 10
    assert await group.submit(5) == 50


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_nobody_waits_for_a_dead_thread(
    notebook: Notebook, group: GroupCommit[int, int]
) -> None:
    """Where the thread ends by a bug of ours, all who wait are told, and later ones refused."""
    notebook.error = ZeroDivisionError("a bug")
    tasks = await hand_in(notebook, group, range(3))
    notebook.may_go.set()

    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LedgerDamagedError] * 3
    with pytest.raises(LedgerUnwellError, match="stopping"):
        await group.submit(1)


async def test_stopping_serves_those_who_wait(
    notebook: Notebook, group: GroupCommit[int, int]
) -> None:
    """Stopping commits what is waiting; later callers are refused."""
    tasks = await hand_in(notebook, group, range(6))
    notebook.may_go.set()
    await asyncio.to_thread(group.stop)

    assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40, 50]
    with pytest.raises(LedgerUnwellError, match="stopping"):
        group.submit_and_wait(7)


def test_a_thread_can_wait_without_a_loop(group: GroupCommit[int, int]) -> None:
    """Commands get the same from a blocking call."""
    assert group.submit_and_wait(3) == 30


def test_a_closed_loop_is_no_obstacle(notebook: Notebook, group: GroupCommit[int, int]) -> None:
    """Results for a loop that is gone are dropped, and the next caller is served."""

    async def leave_early() -> None:
        tasks = await hand_in(notebook, group, range(1))
        tasks[0].cancel()

    asyncio.run(leave_early())
    notebook.may_go.set()

    assert group.submit_and_wait(4) == 40
    assert notebook.groups == [[0], [4]]
