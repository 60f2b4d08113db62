"""Where exchanges stand while they are under way.

An exchange outlives its caller: the door's server cancels no handler when a connection is lost
(`proxy/server.py`, held by a test), so an exchange runs to its end in the task it began in. A
stopping gateway waits for the hall to empty, up to a limit; `recover` finds the rest.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Hall:
    """Counts the exchanges under way; `with hall:` around each."""

    def __init__(self) -> None:
        # OWNED BY: the event loop.
        self.count = 0
        self._emptied: asyncio.Event | None = None

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.count -= 1
        if self.count == 0 and self._emptied is not None:
            self._emptied.set()

    async def drain(self, timeout_s: float) -> int:
        """Wait until the hall is empty, at most *timeout_s*; return how many were left."""
        if self.count:
            self._emptied = asyncio.Event()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._emptied.wait()
            except TimeoutError:
                pass
        return self.count
