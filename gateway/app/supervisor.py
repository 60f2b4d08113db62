"""Several doors and one sequencer: starts their processes, starts again what ends, ends them.

The supervisor holds the data folder for all of them, and the address, so that nobody else gets
either while one of them lives. It reads no request and writes no statement.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import msgspec

from gateway import settings as settings_module
from gateway.app.orders import SOCKET, Orders, Part, Said, Supervised
from gateway.app.signals import Told, quick_loop
from gateway.app.upkeep import claim
from gateway.errors import OperatorError, PortInUseError
from gateway.limits import (
    DRAIN_TIMEOUT_S,
    RESTART_CALM_S,
    RESTART_S,
    RESTART_S_MAX,
)
from gateway.log import Logger, build_logger
from gateway.settings import Sourced

_GRACE_S: Final = 10.0
"""How much longer than it promised a process may take to end."""

_NOT_STARTED: Final = 71
"""Stands for the exit code of a process that could not be started (EX_OSERR)."""

_PATH_BYTES_MAX: Final = 100
"""A socket's path can't be longer than this on every system."""

_HANDLES: Final = Path("/proc/self/fd")


def supervise(sourced: Sourced) -> int:
    """Serve with several processes until SIGTERM or SIGINT; return the exit code.

    Raises:
        GatewayError: the data folder, or the address, is not to be had.
    """
    log = build_logger(sourced.settings.log_level, shared=True)
    with contextlib.ExitStack() as held:
        served = claim(sourced)
        held.callback(os.close, served)
        host, port = settings_module.address(sourced.settings.listen, "listen")
        reserved = _reserve(host, port)
        for one in reserved:
            held.callback(one.close)
        listening, path, handles = _socket(sourced.path(sourced.settings.data) / SOCKET, held)
        supervisor = _Supervisor(
            sourced,
            log,
            served=served,
            listening=listening,
            path=path,
            handles=handles,
            port=int(reserved[0].getsockname()[1]),
        )
        return asyncio.run(supervisor.run())


def run_part(part: Part) -> int:
    """Be one of the processes that a supervisor starts; return the exit code."""
    supervised = Supervised()
    # Each loads only what it needs: how soon it can be back is how long callers are refused.
    if part == "sequencer":
        from gateway.app.sequencing import run_sequencer as run  # noqa: PLC0415
    else:
        from gateway.app.worker import run_worker as run  # noqa: PLC0415
    orders = supervised.orders()
    log = build_logger(orders.settings.log_level, shared=True)
    with quick_loop() as runner:
        return runner.run(run(orders, log))


class _Child:
    """One process, and whether it has said that it is ready."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ready = False

    def tell(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


class _Supervisor:
    def __init__(
        self,
        sourced: Sourced,
        log: Logger,
        *,
        served: int,
        listening: socket.socket,
        path: str,
        handles: list[int],
        port: int,
    ) -> None:
        self._sourced = sourced
        self._log = log
        self._served = served
        self._listening = listening
        self._path = path
        self._handles = handles
        self._port = port
        self._said = Said()
        self._told = Told()
        self._code = 0
        self._stopping: dict[Part, asyncio.Event] = {
            "sequencer": asyncio.Event(),
            "worker": asyncio.Event(),
        }
        self._children: dict[Part, set[_Child]] = {"sequencer": set(), "worker": set()}
        self._sequencing = asyncio.Event()
        self._up = False
        self._to_reload = False

    async def run(self) -> int:
        """Tend all processes until told to stop, then end them in order."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._told.stop)
        loop.add_signal_handler(signal.SIGHUP, self._told.reload)
        tending: dict[Part, list[asyncio.Task[None]]] = {
            "sequencer": [loop.create_task(self._tend("sequencer"))],
            "worker": [
                loop.create_task(self._tend("worker"))
                for _ in range(self._sourced.settings.workers)
            ],
        }
        while not self._told.to_stop:
            await self._told.something(RESTART_CALM_S)
            if self._told.takes_reload():
                self._to_reload = True
                self._pass_reload_on()
        # Doors first: what they see through still needs the sequencer.
        killed = 0
        for part in ("worker", "sequencer"):
            killed += await self._end(part, tending[part])
        self._log.info("gateway.stopped", processes_killed=killed)
        return self._code

    def _pass_reload_on(self) -> None:
        """Have the sequencer put the policies on disk in force, as soon as it is there."""
        for child in self._children["sequencer"]:
            if self._to_reload and child.ready:
                self._to_reload = False
                child.tell(signal.SIGHUP)

    async def _end(self, part: Part, tending: list[asyncio.Task[None]]) -> int:
        """End all processes of one part; return how many had to be killed."""
        self._stopping[part].set()
        self._sequencing.set()
        for child in self._children[part]:
            child.tell(signal.SIGTERM)
        _, slow = await asyncio.wait(tending, timeout=DRAIN_TIMEOUT_S + _GRACE_S)
        killed = len(self._children[part])
        for child in self._children[part]:
            child.tell(signal.SIGKILL)
        if slow:
            await asyncio.wait(slow)
        return killed

    async def _tend(self, part: Part) -> None:
        """Keep one process of *part* running."""
        pause_s, stopping = RESTART_S, self._stopping[part]
        while not stopping.is_set():
            began = asyncio.get_running_loop().time()
            code, pid = await self._see_through(part)
            if stopping.is_set():
                return
            if code > 0 and not self._up:
                # It has said what is wrong, and nothing has been served yet.
                self._code = code
                self._told.stop()
                return
            if asyncio.get_running_loop().time() - began > RESTART_CALM_S:
                pause_s = RESTART_S
            self._say_ended(part, pid, code, pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause_s)
            pause_s = min(2 * pause_s, RESTART_S_MAX)

    async def _see_through(self, part: Part) -> tuple[int, int]:
        """Start a process and wait for its end; return its exit code (or signal) and pid."""
        try:
            child, told = await self._start(part)
        except OSError:
            # The system has no room for another process just now.
            return _NOT_STARTED, 0
        code = await child.process.wait()
        await told
        self._children[part].discard(child)
        return code, child.process.pid

    def _say_ended(self, part: Part, pid: int, code: int, pause_s: float) -> None:
        ended = {"pid": pid, "code": code, "started_again_after_s": pause_s}
        if part == "sequencer":
            self._log.error("sequencer.ended", **ended)
        else:
            self._log.error("worker.ended", **ended)

    async def _start(self, part: Part) -> tuple[_Child, asyncio.Task[None]]:
        ours, theirs = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway",
                "serve",
                "--part",
                part,
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(self._served, self._listening.fileno(), theirs, *self._handles),
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        child = _Child(process)
        self._children[part].add(child)
        if self._stopping[part].is_set():
            child.tell(signal.SIGKILL)
        told = asyncio.get_running_loop().create_task(self._listen(part, child, ours))
        if part == "worker":
            # It loads what it needs meanwhile; what to serve it must hear from the sequencer.
            await self._sequencing.wait()
        orders = Orders(
            settings=self._sourced.settings,
            sources=self._sourced.sources,
            file=None if self._sourced.file is None else str(self._sourced.file.absolute()),
            socket=self._path,
            port=self._port,
            library=self._said.library,
            alarm=self._said.alarm,
            served=self._served,
            says=theirs,
            listening=self._listening.fileno(),
        )
        # Never closed: where it ends, we have ended.
        pipe = process.stdin
        if pipe is not None:
            with contextlib.suppress(ConnectionError):
                pipe.write(msgspec.json.encode(orders) + b"\n")
                await pipe.drain()
        return child, told

    async def _listen(self, part: Part, child: _Child, ours: int) -> None:
        """Hear what a process says, until it ends."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        pipe, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0)
        )
        try:
            while line := await reader.readline():
                child.ready = True
                if part == "sequencer":
                    self._said = msgspec.json.decode(line, type=Said)
                    self._sequencing.set()
                    self._pass_reload_on()
                self._note_ready()
        finally:
            pipe.close()

    def _note_ready(self) -> None:
        """Say so once all doors are open."""
        doors = sum(child.ready for child in self._children["worker"])
        if self._up or doors < self._sourced.settings.workers:
            return
        self._up = True
        host, _ = settings_module.address(self._sourced.settings.listen, "listen")
        self._log.info(
            "gateway.started",
            listen=f"{host}:{self._port}",
            data=str(self._sourced.path(self._sourced.settings.data)),
            policies=self._said.library,
            keys=self._sourced.settings.keys,
            workers=doors,
        )


def _reserve(host: str, port: int) -> list[socket.socket]:
    """Hold the address for our doors, which share it; nobody else may.

    Raises:
        PortInUseError: somebody else listens there.
        OperatorError: the address can't be listened on.
    """
    held: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, where in dict.fromkeys(found):
            for shared in (False, True):
                # First as somebody who shares with nobody: then the address is free indeed.
                one = socket.socket(family, kind, protocol)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if shared:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    held.append(one)
                one.bind((where[0], port, *where[2:]))
                port = int(one.getsockname()[1])
                if not shared:
                    one.listen(1)
                    one.close()
    except OSError as wrong:
        for one in held:
            one.close()
        if isinstance(wrong, socket.gaierror) or wrong.errno != errno.EADDRINUSE:
            raise OperatorError(
                f"can't listen on {host}:{port}: {wrong.strerror}", hint="check `listen`"
            ) from wrong
        raise PortInUseError(
            f"{host}:{port} is taken",
            hint="stop what listens there, or set `listen` to another port",
        ) from wrong
    return held


def _socket(path: Path, held: contextlib.ExitStack) -> tuple[socket.socket, str, list[int]]:
    """Make the sequencer's socket, for this account alone.

    Return it, how to reach it, and the handles that whoever reaches it so must have.

    Raises:
        OperatorError: it can't be made.
    """
    where, handles = str(path.absolute()), list[int]()
    if len(os.fsencode(where)) > _PATH_BYTES_MAX:
        if not _HANDLES.is_dir():
            raise OperatorError(
                f"the path of {path} is longer than a socket's may be",
                hint="set `data` to a folder with a shorter path, or use one worker",
            )
        # By the handle of its folder it has a short path, in whoever inherits that.
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        held.callback(os.close, folder)
        where, handles = str(_HANDLES / str(folder) / path.name), [folder]
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    held.callback(listening.close)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listening.bind(where)
    except OSError as wrong:
        raise OperatorError(
            f"can't make {path}: {wrong.strerror}",
            hint="give the gateway's account permission to write in the data folder",
        ) from wrong
    finally:
        os.umask(before)
    held.callback(path.unlink, missing_ok=True)
    listening.listen(128)
    return listening, where, handles
