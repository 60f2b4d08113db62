"""An event loop whose clock a test stops and moves: no timer rings unless it says so."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Outcome = TypeVar("Outcome")


class StandingLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock that goes like any other until it is told to stand."""

    stands_at: float | None = None

    def time(self) -> float:
        """Return the loop's time."""
        return super().time() if self.stands_at is None else self.stands_at

    def stand(self) -> None:
        """Stop the clock."""
        self.stands_at = super().time()

    def go_on(self) -> None:
        """Let the clock go again, by what it would be."""
        self.stands_at = None

    def move(self, seconds: float) -> None:
        """Move a clock that stands."""
        assert self.stands_at is not None
        self.stands_at += seconds


def on_standing_loop(work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run *work* on such a loop, which it has from `standing`."""
    with asyncio.Runner(loop_factory=StandingLoop) as runner:
        return runner.run(work)


def standing() -> StandingLoop:
    """Return the loop that runs, its clock stopped."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, StandingLoop)
    loop.stand()
    return loop
