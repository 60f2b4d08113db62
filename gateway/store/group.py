"""One thread that makes durable whatever is waiting, together.

A lone caller never waits for others. While callers come in groups, the thread lets a moment
pass before it commits fewer than the last time, so that one sync of the disk serves more of
them. A caller that is
cancelled stops waiting, but what it handed in is committed all the same.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

from gateway.errors import GatewayError, LedgerDamagedError, LedgerUnwellError
from gateway.limits import GATHER_S

Item = TypeVar("Item")
Result = TypeVar("Result")

_Waiting = tuple[Item, "asyncio.Future[Result] | concurrent.futures.Future[Result]"]


class GroupCommit(Generic[Item, Result]):
    """Hands groups of items to *commit* on a thread of its own, and the results back.

    *commit* returns one result an item, or raises one of our errors, which then belongs to
    every item of the group. A result that nobody waits for any more goes to *unclaimed*.
    """

    def __init__(
        self,
        name: str,
        commit: Callable[[list[Item]], Sequence[Result]],
        *,
        group_max: int,
        waiting_max: int,
        unclaimed: Callable[[Result], None] = lambda _: None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._name = name
        self._commit = commit
        self._group_max = group_max
        self._waiting_max = waiting_max
        self._unclaimed = unclaimed
        self._pause = pause
        # OWNED BY: submit() at the tail, the thread at the head. `None` is the last item.
        self._waiting: SimpleQueue[_Waiting[Item, Result] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._open = False

    @property
    def running(self) -> bool:
        """Whether the thread takes items."""
        return self._open

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._open = True
        self._thread.start()

    def stop(self) -> None:
        """Commit what is waiting, then end the thread."""
        with self._lock:
            was_open, self._open = self._open, False
            if was_open:
                self._waiting.put(None)
        if self._thread is not None:
            self._thread.join()

    async def submit(self, item: Item) -> Result:
        """Return the result for *item* once its group is durable.

        Raises:
            LedgerUnwellError: too many are waiting, or the thread was stopped.
            GatewayError: what *commit* raised for the group.
        """
        return await self.submit_soon(item)

    def submit_soon(self, item: Item) -> asyncio.Future[Result]:
        """Hand *item* in; what is returned will have the result. See `submit`."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._put(item, future)
        return future

    def submit_and_wait(self, item: Item) -> Result:
        """Return the result for *item* once its group is durable; blocks this thread."""
        future: concurrent.futures.Future[Result] = concurrent.futures.Future()
        self._put(item, future)
        return future.result()

    def _put(
        self, item: Item, future: asyncio.Future[Result] | concurrent.futures.Future[Result]
    ) -> None:
        if self._waiting.qsize() >= self._waiting_max:
            raise LedgerUnwellError(
                f"{self._waiting_max} statements are waiting to be written",
                hint="the disk does not keep up; send less, or give the gateway a faster one",
            )
        with self._lock:
            if not self._open:
                raise LedgerUnwellError("the gateway is stopping and writes nothing more")
            self._waiting.put((item, future))

    def _run(self) -> None:
        group: list[_Waiting[Item, Result]] = []
        last_size = 1
        try:
            while (first := self._waiting.get()) is not None:
                group = [first]
                if 1 < last_size > self._waiting.qsize() + 1:
                    self._pause(GATHER_S)
                last = self._gather(group)
                last_size = len(group)
                self._commit_group(group)
                group = []
                if last:
                    return
        finally:
            with self._lock:
                self._open = False
            self._refuse_rest(group)

    def _gather(self, group: list[_Waiting[Item, Result]]) -> bool:
        """Add to *group* what else is waiting; tell whether the last item was seen."""
        for _ in range(min(self._waiting.qsize(), self._group_max - 1)):
            following = self._waiting.get()
            if following is None:
                return True
            group.append(following)
        return False

    def _commit_group(self, group: list[_Waiting[Item, Result]]) -> None:
        try:
            results = self._commit([item for item, _ in group])
        except GatewayError as error:
            _fail_all(group, error)
            return

        def give(place: int, future: _AnyFuture[Result]) -> None:
            if future.done():
                self._unclaimed(results[place])
            else:
                future.set_result(results[place])

        _hand_out(group, give)

    def _refuse_rest(self, group: list[_Waiting[Item, Result]]) -> None:
        """Let nobody wait for a thread that has ended, for whatever reason."""
        while not self._waiting.empty():
            if (one := self._waiting.get()) is not None:
                group.append(one)
        ended = LedgerDamagedError(
            "the writing thread has ended; what was waiting may or may not be written",
            hint="start the gateway again; it reads the truth from the disk",
        )
        _fail_all(group, ended)


_AnyFuture = asyncio.Future[Result] | concurrent.futures.Future[Result]


def _hand_out(
    group: Sequence[_Waiting[Item, Result]], give: Callable[[int, _AnyFuture[Result]], None]
) -> None:
    """Call *give* for every place of *group*, once in each loop that waits for some."""
    by_loop: dict[asyncio.AbstractEventLoop, list[int]] = {}
    for place, (_, future) in enumerate(group):
        if isinstance(future, concurrent.futures.Future):
            give(place, future)
        else:
            by_loop.setdefault(future.get_loop(), []).append(place)

    def give_all(places: list[int]) -> None:
        for place in places:
            give(place, group[place][1])

    for loop, places in by_loop.items():
        try:
            loop.call_soon_threadsafe(give_all, places)
        except RuntimeError:
            # The loop has been closed: nobody waits there any more.
            give_all(places)


def _fail_all(group: Sequence[_Waiting[Item, Result]], error: GatewayError) -> None:
    def fail(place: int, future: _AnyFuture[Result]) -> None:
        if not future.done():
            future.set_exception(error)

    _hand_out(group, fail)
