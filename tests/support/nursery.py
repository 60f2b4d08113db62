"""Starts gateways quickly: one process imports the package once, and each gateway is its fork.

The fork runs `gateway serve` as the command line does; only the imports are shared.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self


class Child:
    """A process that somebody else forked; the part of `Popen` that a gateway needs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)

    def _ended(self, timeout_s: float) -> bool:
        return bool(select.select([self._handle], [], [], timeout_s)[0])

    def poll(self) -> int | None:
        """Return `None` while it runs; how it ended is not known."""
        return 0 if self._ended(0) else None

    def kill(self) -> None:
        """Kill it as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        signal.pidfd_send_signal(self._handle, signal.SIGTERM)

    def wait(self, timeout: float) -> int:
        """Wait for its end."""
        assert self._ended(timeout)
        os.close(self._handle)
        return 0


class Nursery:
    """The process that the gateways are forks of."""

    MODULE = "tests.support.nursery"

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.MODULE],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        """Return the nursery itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process; its forks live on."""
        self._process.kill()
        self._process.communicate()

    def spawn(self, folder: Path) -> Child:
        """Fork a gateway that serves what is in *folder*."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        return Child(int(self._process.stdout.readline()))


def raise_gateways(prepare: Callable[[], None] = lambda: None) -> None:
    """Fork a gateway for each folder that is read; *prepare* is called in each of them."""
    # sqlite-utils imports pandas where it finds it; a gateway is installed without it.
    sys.modules["pandas"] = None  # type: ignore[assignment]
    import gateway.app.serve  # noqa: PLC0415 - what is shared by all forks
    import gateway.cli.serve  # noqa: F401, PLC0415

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _serve(line.strip(), prepare)
        print(pid, flush=True)  # noqa: T201 - the other side reads it


def _serve(folder: str, prepare: Callable[[], None]) -> None:
    """Be a gateway; never return."""
    from gateway.cli.main import main  # noqa: PLC0415

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(folder)
    log = os.open("gateway.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    prepare()
    code = 70
    try:
        code = main(["serve"])
    finally:
        os._exit(code)


if __name__ == "__main__":
    raise_gateways()
