"""Where exchanges stand while they are under way.

An exchange outlives its caller: whoever awaits it may be cancelled, the exchange runs to its
end. A stopping gateway waits for the hall to empty, up to a limit; `recover` finds the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Hall:
    """Owns the task of every exchange."""

    def __init__(self) -> None:
        # OWNED BY: see_through() and the tasks' own ends.
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def count(self) -> int:
        """How many exchanges are under way."""
        return len(self._tasks)

    async def see_through(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* to its end even if whoever awaits it is cancelled."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def drain(self, timeout_s: float) -> int:
        """Wait until the hall is empty, at most *timeout_s*; return how many were left."""
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=timeout_s)
            return len(left)
        return 0
