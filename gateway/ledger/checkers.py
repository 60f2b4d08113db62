"""Let several processes check parts of one large thing, and hear them out in order.

What is checked must be the same whoever checks it: the parts are named by plain values, each
process reads for itself, and answers and refusals come back in the order of the parts. A
process that ends from outside is an error, never a part that passed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from gateway.errors import CheckInterruptedError
from gateway.limits import CHECKERS_MAX, PARTS_AHEAD_PER_CHECKER

if TYPE_CHECKING:
    from concurrent.futures import Future

Part = TypeVar("Part")
Answer = TypeVar("Answer")

_END: Final[Any] = object()


def checkers_at_hand() -> int:
    """Return how many processes may check at once: one a core, within reason."""
    return min(len(os.sched_getaffinity(0)), CHECKERS_MAX)


class Checkers(Generic[Part, Answer]):
    """Some processes that check parts while other work goes on; it ends with its context."""

    def __init__(
        self,
        check: Callable[[Part], Answer],
        count: int,
        ahead: int = PARTS_AHEAD_PER_CHECKER,
    ) -> None:
        """Begin *count* processes; *check* is a module's function, or a partial of one."""
        # Whoever checks alone, as most do, loads none of this.
        import multiprocessing  # noqa: PLC0415
        from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415

        self._check = check
        self._others = set(multiprocessing.active_children())
        # Processes start anew: what a fork would hand down (locks, open files) is not theirs.
        self._pool = ProcessPoolExecutor(
            count, mp_context=multiprocessing.get_context("spawn"), initializer=_follow_parent
        )
        self._waiting: deque[Future[Answer]] = deque()
        self._ahead = count * ahead

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; what they were not yet asked stays unasked."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """How many parts were handed out whose answers were not heard."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether as many parts are handed out as may be."""
        return len(self._waiting) >= self._ahead

    @property
    def answered(self) -> bool:
        """Whether the answer for the first part that waits can be heard at once."""
        return bool(self._waiting) and self._waiting[0].done()

    def hand_out(self, part: Part) -> None:
        """Let one of the processes check *part*.

        Raises:
            CheckInterruptedError: a process was ended from outside, or could not be started.
        """
        with self._interrupted():
            self._waiting.append(self._pool.submit(self._check, part))

    def hear(self) -> Answer:
        """Return the answer for the first part that waits, or raise what its check raised.

        Raises:
            CheckInterruptedError: a process was ended from outside.
        """
        with self._interrupted():
            return self._waiting.popleft().result()

    @contextlib.contextmanager
    def _interrupted(self) -> Iterator[None]:
        import multiprocessing  # noqa: PLC0415  as above
        from concurrent.futures.process import BrokenProcessPool  # noqa: PLC0415  as above

        try:
            yield
        except (BrokenProcessPool, OSError) as broken:
            # One that was still starting when another ended is not ended by the pool, which
            # then waits for it for ever.
            for child in set(multiprocessing.active_children()) - self._others:
                child.kill()
            raise CheckInterruptedError(
                f"a process that was checking ended before it had answered: {broken}",
                hint="nothing was decided; check again, with more memory if it ran out",
            ) from broken


def check_in_order(
    check: Callable[[Part], Answer], parts: Iterable[Part], count: int
) -> Iterator[Answer]:
    """Yield what *check* answers for each of *parts*, in their order, from *count* processes.

    *check* is a module's function, or a partial of one. What it raises for a part is raised
    here once all parts before have answered.

    Raises:
        CheckInterruptedError: a process was ended from outside, or could not be started.
    """
    left = iter(parts)
    with Checkers(check, count) as checkers:
        while True:
            while not checkers.full and (part := next(left, _END)) is not _END:
                checkers.hand_out(part)
            if not checkers.waiting:
                return
            yield checkers.hear()


def _follow_parent() -> None:
    """Leave interruptions to the parent, and end when it ends, however it ends."""
    import multiprocessing  # noqa: PLC0415  as above

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    from multiprocessing.connection import wait  # noqa: PLC0415  as above

    wait([sentinel])
    os._exit(1)
