"""Let several processes check parts of one large thing, and hear them out in order.

What is checked must be the same whoever checks it: the parts are named by plain values, each
process reads for itself, and answers and refusals come back in the order of the parts. A
process that ends from outside is an error, never a part that passed.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from gateway.errors import CheckInterruptedError
from gateway.limits import CHECKERS_MAX, PARTS_AHEAD_PER_CHECKER

Part = TypeVar("Part")
Answer = TypeVar("Answer")


def checkers_at_hand() -> int:
    """Return how many processes may check at once: one a core, within reason."""
    return min(len(os.sched_getaffinity(0)), CHECKERS_MAX)


def check_in_order(
    check: Callable[[Part], Answer], parts: Iterable[Part], count: int
) -> Iterator[Answer]:
    """Yield what *check* answers for each of *parts*, in their order, from *count* processes.

    *check* is a module's function, or a partial of one. What it raises for a part is raised
    here once all parts before have answered.

    Raises:
        CheckInterruptedError: a process was ended from outside, or could not be started.
    """
    left, others = iter(parts), set(multiprocessing.active_children())
    # Processes start anew: what a fork would hand down (locks, open files) is not theirs.
    pool = ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=_follow_parent
    )
    waiting: deque[Future[Answer]] = deque()
    try:
        for part in itertools.islice(left, count * PARTS_AHEAD_PER_CHECKER):
            waiting.append(pool.submit(check, part))
        while waiting:
            answer = waiting.popleft().result()
            for part in itertools.islice(left, 1):
                waiting.append(pool.submit(check, part))
            yield answer
    except (BrokenProcessPool, OSError) as broken:
        # One that was still starting when another ended is not ended by the pool, which then
        # waits for it for ever.
        for child in set(multiprocessing.active_children()) - others:
            child.kill()
        raise CheckInterruptedError(
            f"a process that was checking ended before it had answered: {broken}",
            hint="nothing was decided; check again, with more memory if it ran out",
        ) from broken
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """Leave interruptions to the parent, and end when it ends, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
