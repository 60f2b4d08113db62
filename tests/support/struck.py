"""Commands that a signal strikes at a moment which is known by what they do, not by a clock.

A command runs in a fork of a process that has the training libraries loaded. By the time it is
about to do something that its order names, or has just done it, it sends a signal to itself: so
`SIGKILL` leaves the disk as it is at that very moment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.support.nursery import Nursery, raise_gateways

ORDER: Final = "TEST_STRIKE"
HANG_S: Final = 600


class Strike(msgspec.Struct, frozen=True, kw_only=True):
    """When which signal is sent: at the first event of Python's audit hooks that is meant."""

    event: str
    """Such as `os.rename`, raised right before it is done."""
    of: str
    """What stands at the end of one of its arguments."""
    done: bool = False
    """Strike right after it was done: at the event that comes next."""
    signal: str = "SIGKILL"

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.signal} {'after' if self.done else 'before'} {self.event} {self.of}"


class StruckNursery(Nursery):
    """The process that struck commands are forks of."""

    MODULE = "tests.support.struck"

    def strike(
        self, folder: Path, words: Sequence[str], strike: Strike | None
    ) -> subprocess.CompletedProcess[str]:
        """Run `gateway *words*` in *folder* until *strike*, or to its end; return what came."""
        order = {} if strike is None else {ORDER: msgspec.json.encode(strike).decode()}
        return self.run(folder, words, timeout_s=HANG_S, environment=os.environ | order)


def _be_struck() -> None:
    """Strike this process as its order says."""
    order = os.environ.pop(ORDER, None)
    if order is None:
        return
    strike = msgspec.json.decode(order, type=Strike)
    number = signal.Signals[strike.signal]
    # What is meant was seen; what is to be struck was struck.
    seen, struck = False, False

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen, struck
        if struck:
            return
        meant = event == strike.event and any(
            os.fsdecode(one).endswith(strike.of) for one in args if isinstance(one, _PATHS)
        )
        if seen or (meant and not strike.done):
            struck = True
            os.kill(os.getpid(), number)
        seen = seen or meant

    sys.addaudithook(hook)


_PATHS: Final = (str, bytes, os.PathLike)


if __name__ == "__main__":
    # Before any library that makes threads as it is imported: forks have none of them.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    from gateway.student.offline import seal_off

    seal_off()
    import gateway.student.engine
    import gateway.student.examine
    import gateway.student.picture  # noqa: F401  # what all forks share

    raise_gateways(_be_struck)
