"""Runs gateways and commands quickly: one process imports the package, the others are forks.

A fork runs `gateway …` as the command line does; only the imports are shared.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Self


class Child:
    """A process that the nursery forked; the part of `Popen` that a gateway needs."""

    def __init__(self, pid: int, reap: Callable[[int], int] = lambda pid: 0) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._reap = reap
        self._looking = threading.Lock()
        # Its parent, the nursery, keeps its end for us: the pid is nobody else's until then.
        self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return `None` while it runs, then its exit code."""
        return self._ended(0)

    def kill(self) -> None:
        """Kill it as a power cut would."""
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self._send(signal.SIGTERM)

    def wait(self, timeout: float) -> int:
        """Wait for its end and return its exit code.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(["gateway"], timeout)
        return code

    def _send(self, number: signal.Signals) -> None:
        with self._looking:
            if self.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._handle, number)

    def _ended(self, timeout_s: float) -> int | None:
        with self._looking:
            if self.returncode is None and self._has_ended(timeout_s):
                self.returncode = self._reap(self.pid)
                os.close(self._handle)
            return self.returncode

    def _has_ended(self, timeout_s: float) -> bool:
        # Other than `select` it takes handles of any number.
        ended = select.poll()
        ended.register(self._handle, select.POLLIN)
        return bool(ended.poll(1000 * timeout_s))


class Nursery:
    """The process that the gateways are forks of."""

    MODULE = "tests.support.nursery"

    def __init__(self) -> None:
        self._asking = threading.Lock()
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

    def spawn(self, folder: Path, *words: str) -> Child:
        """Fork `gateway serve` in *folder*; what it says is appended to `gateway.log` there."""
        log = folder / "gateway.log"
        return self._fork(folder, [*words, "serve"], (log, log), os.environ)

    def run(
        self,
        folder: Path,
        words: Sequence[str],
        *,
        timeout_s: float = 200,
        environment: Mapping[str, str] = os.environ,
    ) -> subprocess.CompletedProcess[str]:
        """Run `gateway *words*` in *folder* and return what came of it.

        Raises:
            subprocess.TimeoutExpired: It had not ended, and was killed.
        """
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = self._fork(folder, words, (_path_of(out), _path_of(err)), environment)
            try:
                code = child.wait(timeout_s)
            finally:
                child.kill()
                child.wait(60)
            return subprocess.CompletedProcess(
                ["gateway", *words], code, _content(out), _content(err)
            )

    def _fork(
        self,
        folder: Path,
        words: Sequence[str],
        into: tuple[Path, Path],
        environment: Mapping[str, str],
    ) -> Child:
        wanted = {
            "folder": str(folder),
            "words": list(words),
            "into": list(map(str, into)),
            "environment": dict(environment),
        }
        return Child(self._ask(wanted), lambda pid: self._ask({"reap": pid}))

    def _ask(self, wanted: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._asking:
            self._process.stdin.write(json.dumps(wanted) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())


@functools.cache
def shared() -> Nursery:
    """Return the nursery of this process of the tests."""
    nursery = Nursery()
    atexit.register(nursery.__exit__, None, None, None)
    return nursery


def _path_of(file: IO[str]) -> Path:
    return Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def _content(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def raise_gateways(prepare: Callable[[], None] = lambda: None) -> None:
    """Fork a process for each order that is read; *prepare* is called in each of them."""
    # sqlite-utils imports pandas where it finds it; a gateway is installed without it.
    sys.modules["pandas"] = None  # type: ignore[assignment]
    import gateway.app.serve  # noqa: PLC0415 - what is shared by all forks
    import gateway.cli.serve  # noqa: F401, PLC0415
    from gateway.cli.main import GROUPS  # noqa: PLC0415

    for line in sys.stdin:
        wanted = json.loads(line)
        if "reap" in wanted:
            told = os.waitstatus_to_exitcode(os.waitpid(wanted["reap"], 0)[1])
        else:
            for word in wanted["words"]:
                if word in GROUPS:
                    importlib.import_module(GROUPS[word])
            # What is shared stays shared: no collector of a fork looks at it.
            gc.freeze()
            told = os.fork()
            if told == 0:
                _become(wanted)
                prepare()
                _leave(_gateway(wanted["words"]))
        print(told, flush=True)  # noqa: T201 - the other side reads it


def _become(wanted: dict[str, Any]) -> None:
    """Be where, with what environment and with what output was asked for."""
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    for descriptor, path in enumerate(wanted["into"], 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Whoever starts a process of Python's own starts the command anew, and not the nursery.
    found = importlib.util.find_spec("gateway.__main__")
    assert found is not None
    main = types.ModuleType("__main__")
    main.__spec__, main.__file__ = found, found.origin
    sys.modules["__main__"] = main


def _leave(code: int) -> NoReturn:
    """Do what an interpreter does at its end, but for taking itself apart."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _gateway(words: list[str]) -> int:
    from gateway.cli.main import main  # noqa: PLC0415

    sys.argv = [str(sys.modules["__main__"].__file__), *words]
    return main(words)


if __name__ == "__main__":
    raise_gateways()
