"""What signals ask of a process that serves, and the loop that it runs on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class Told:
    """What signals ask of the process; whoever waits is woken."""

    def __init__(self) -> None:
        # OWNED BY: the event loop.
        self.to_stop = False
        self._to_reload = False
        self._stirred = asyncio.Event()

    def stop(self) -> None:
        """Ask the process to end."""
        self.to_stop = True
        self._stirred.set()

    def reload(self) -> None:
        """Ask for the policies on disk to be put in force."""
        self._to_reload = True
        self._stirred.set()

    def stir(self) -> None:
        """Wake whoever waits: there may be something to do."""
        self._stirred.set()

    def takes_reload(self) -> bool:
        """Tell whether that was asked since the last time."""
        asked, self._to_reload = self._to_reload, False
        return asked

    async def something(self, timeout_s: float) -> None:
        """Wait until something is asked, at most *timeout_s*."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stirred.wait(), timeout_s)
        self._stirred.clear()


@contextlib.contextmanager
def quick_loop() -> Iterator[asyncio.Runner]:
    """Run on uvloop where there is one."""
    try:
        import uvloop  # noqa: PLC0415  absent on some platforms
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner
