"""Gateways whose clock is put wherever a test likes, while they run.

`python -m tests.support.wayward` forks a gateway for each folder that is read, as the nursery
does. What is read from its clock is as many days ahead, or behind, as `wayward.days` in its
folder says at that moment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.clock import SystemClock
from tests.support.nursery import Nursery, raise_gateways

DAYS: Final = "wayward.days"
_DAY_MS: Final = 86_400_000


class WaywardNursery(Nursery):
    """The process that wayward gateways are forks of."""

    MODULE = "tests.support.wayward"


def put_clock(folder: Path, days: int) -> None:
    """Put the clock of the gateway in *folder* so many days ahead of this machine's."""
    beside = folder / f"{DAYS}.new"
    beside.write_text(str(days))
    # At one stroke: it is read at every look at the clock.
    beside.rename(folder / DAYS)


def _be_wayward() -> None:
    """Let every look at the clock of this process see what the file says."""
    usual = SystemClock.now_ms

    def now_ms(self: SystemClock) -> int:
        return usual(self) + int(Path(DAYS).read_text()) * _DAY_MS

    SystemClock.now_ms = now_ms  # type: ignore[method-assign]


if __name__ == "__main__":
    raise_gateways(_be_wayward)
