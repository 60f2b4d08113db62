"""Gateways that end themselves at a step that was chosen beforehand, as `kill -9` would.

`python -m tests.support.brittle` forks a gateway for each folder that is read, as the nursery
does. Each looks at `brittle.json` in its folder whenever a task begins, and counts the steps of
the tasks that it asks for: every suspension at an await, every resumption after one, or every
line of our own code. At the chosen step the process is gone. How many there were stands in
`brittle.count`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal

from tests.support.nursery import Nursery, raise_gateways

Phase = Literal["suspend", "resume", "line"]
PHASES: Final[tuple[Phase, ...]] = ("suspend", "resume", "line")
ORDER: Final = "brittle.json"
COUNT: Final = "brittle.count"
ROOMS: Final = tuple(
    str(Path(__file__).parents[2] / "gateway" / room) + os.sep
    for room in ("exchange", "ledger", "store", "proxy", "app")
)
"""Where lines are counted."""

_REQUEST: Final = "Connection._serve"
"""The task in which the door answers one request; the campaigns insist that it has steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Where a gateway is to end: at step *at* of *phase*, 0 for never."""

    phase: Phase
    at: int = 0
    starting: bool = False
    """Count from the start of the process, and not from a new request on."""
    nonce: int = field(default_factory=time.monotonic_ns)
    """Tells two orders apart: each is counted from 1."""

    def give(self, folder: Path) -> None:
        """Leave it for the gateway in *folder*."""
        beside = folder / f"{ORDER}.new"
        beside.write_text(json.dumps(dataclasses.asdict(self)))
        (folder / COUNT).unlink(missing_ok=True)
        beside.rename(folder / ORDER)


def withdraw(folder: Path) -> None:
    """Let the gateway in *folder* live from now on."""
    (folder / ORDER).unlink(missing_ok=True)


def counted(folder: Path) -> int:
    """Return how many steps were counted so far."""
    file = folder / COUNT
    return int(file.read_text()) if file.exists() else 0


class BrittleNursery(Nursery):
    """The process that brittle gateways are forks of."""

    MODULE = "tests.support.brittle"


class _Fate:
    """Counts the steps of this process, and ends it at the chosen one."""

    def __init__(self) -> None:
        self.order: Order | None = None
        self._count = 0
        self._lock = threading.Lock()

    def begins(self, name: str) -> bool:
        """Tell whether a task of that *name* is counted, which begins now."""
        try:
            order = Order(**json.loads(Path(ORDER).read_bytes()))
        except FileNotFoundError:
            return False
        if not order.starting and name != _REQUEST and self.order is None:
            return False
        if order != self.order:
            self.order, self._count = order, 0
        if order.phase == "line":
            # Only now: reading every policy under a trace takes long.
            sys.settrace(self.trace)
        return True

    def step(self, phase: Phase) -> None:
        """Take note of a step."""
        order = self.order
        if order is None or order.phase != phase:
            return
        with self._lock:
            self._count += 1
            if self._count == order.at:
                os.kill(os.getpid(), signal.SIGKILL)

    def tell(self) -> None:
        """Say how many steps there were."""
        beside = Path(f"{COUNT}.new")
        beside.write_text(str(self._count))
        # At one stroke: somebody may be reading it.
        beside.replace(COUNT)

    def trace(self, frame: FrameType, _event: str, _arg: object) -> Any:
        """Count the lines of our rooms; what Python calls in every new frame."""
        if not frame.f_code.co_filename.startswith(ROOMS):
            return None
        return self._line

    def _line(self, _frame: FrameType, event: str, _arg: object) -> Any:
        if event == "line":
            self.step("line")
        return self._line


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine whose suspensions and resumptions are steps."""

    def __init__(self, inner: Coroutine[Any, Any, Any], fate: _Fate) -> None:
        self._inner = inner
        self._fate = fate
        self._begun = False

    def send(self, value: Any) -> Any:
        """Go on to the next suspension."""
        self._resumes()
        try:
            awaited = self._inner.send(value)
        except BaseException:
            self._fate.tell()
            raise
        self._suspends()
        return awaited

    def throw(self, *error: Any) -> Any:
        """Go on with an error to the next suspension."""
        self._resumes()
        awaited = self._inner.throw(*error)
        self._suspends()
        return awaited

    def close(self) -> None:
        """End."""
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        """Be awaited as what is counted."""
        return self._inner.__await__()

    def _resumes(self) -> None:
        if self._begun:
            self._fate.step("resume")
        self._begun = True

    def _suspends(self) -> None:
        self._fate.step("suspend")
        self._fate.tell()


def _be_brittle() -> None:
    """Let every loop of this process make tasks that are counted."""
    import uvloop  # noqa: PLC0415  what gateways run on

    fate = _Fate()
    usual = uvloop.new_event_loop

    def make(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Future[Any]:
        if fate.begins(work.__qualname__):
            work = _Counted(work, fate)
        return asyncio.Task(work, loop=loop, **more)

    def new_event_loop() -> uvloop.Loop:
        loop = usual()
        loop.set_task_factory(make)
        return loop

    uvloop.new_event_loop = new_event_loop
    # Those threads live from the start on, and do little until there are requests.
    threading.settrace(fate.trace)


if __name__ == "__main__":
    raise_gateways(_be_brittle)
