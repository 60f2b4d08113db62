"""Several processes that learn together: how they find each other, and that they agree.

The first rank goes through the gate and alone writes files and the ledger. The others wait for
a course, compare every file of it with its digest, tell each other what they found, and learn
only if all found the same. They talk over the loopback, or over what a launcher from outside
(`torchrun`, `accelerate launch`) set up.

Not here: what is learned, and how (`engine.py`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec

from gateway.canonical import sha256_hex
from gateway.clock import Clock, SystemClock
from gateway.errors import BadDigestError, GateError, GatewayError, OperatorError
from gateway.student.course import Course
from gateway.student.offline import seal_off

JOIN_S: Final = 300
"""How long a rank waits for another to be there at all: importing takes a while."""

WAIT_H: Final = 24
"""How long a rank waits for another at work: the first one may be at the gate for hours."""

GONE_S: Final = 60.0
"""How long a rank that broke off may take to be gone."""

RANK_LOST: Final = "student.rank_lost"

_LOOPBACK: Final = "127.0.0.1"

_OURS: Final = (
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "GLOO_SOCKET_IFNAME",
    "RANK",
    "LOCAL_RANK",
)
"""What tells a process that it is one of several."""


class Orders(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the first rank tells the others."""

    course: Course | None = None
    begin: str | None = None
    """The checkpoint to go on from."""
    begin_step: int = 0
    code: int = 0
    """Where there is no course any more: how the run ended."""


def launched() -> tuple[int, int] | None:
    """Return (rank, ranks) if a launcher started this process as one of several."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))  # noqa: TID251  # the launcher's words
    return (int(os.environ["RANK"]), ranks) if ranks > 1 else None  # noqa: TID251  # as above


class Team:
    """All ranks of a run, as the first one sees them."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.ended = False

    def learn(self, course: Course, begin: Any, tokenizer: Any, crew: Any) -> Any:
        """Have every rank learn *course*; return what the first one says of it.

        Raises:
            BadDigestError: a rank has other rows than the gate wrote.
            OperatorError: a rank is gone.
        """
        from gateway.student import engine  # noqa: PLC0415  # slow; the gate comes first

        try:
            if self.ranks > 1:
                _broadcast(
                    Orders(
                        course=course,
                        begin=str(begin.path) if begin else None,
                        begin_step=begin.step if begin else 0,
                    )
                )
            _agree(course, self.ranks)
        except RuntimeError as error:
            raise _lost("the ranks lost each other", error) from error
        return engine.learn(course, begin, tokenizer, crew)

    def dismiss(self, code: int) -> None:
        """Tell the others that there is nothing left to learn."""
        if self.ranks > 1 and not self.ended:
            self.ended = True
            # All is learned; a rank that is gone already need not hear it.
            with contextlib.suppress(RuntimeError):
                _broadcast(Orders(code=code))


@contextlib.contextmanager
def assembled(ranks: int) -> Iterator[Team]:
    """Give the team of *ranks*; the processes that are missing are started, and ended after.

    Raises:
        OperatorError: one of them did not come, or went before the end.
    """
    team = Team(ranks)
    if ranks == 1:
        yield team
        return
    from torch import distributed  # noqa: PLC0415  # slow; only where several learn

    others: list[subprocess.Popen[bytes]] = []
    before = dict(os.environ)  # noqa: TID251  # put back as it was
    _forget()
    try:
        if launched() is None:
            others = _start_others(ranks)
        else:
            _join()
        yield team
        team.dismiss(0)
    except BaseException as error:
        lost = isinstance(error, OperatorError) and error.problem == RANK_LOST
        gone = _first_gone(others) if lost else None
        # The others would wait for a word that does not come, whatever signal they catch.
        for other in others:
            other.kill()
        if gone is not None:
            raise gone from error
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for name in _OURS:
            os.environ.pop(name, None)  # noqa: TID251  # as above
        os.environ.update(before)  # noqa: TID251  # as above
        _forget()
        for other in others:
            with contextlib.suppress(subprocess.TimeoutExpired):
                other.wait(timeout=JOIN_S)
            if other.poll() is None:
                other.kill()
                other.wait()


def accompany(clock: Clock | None = None, port: int | None = None) -> int:
    """Be one of the ranks that are not the first, until it says that all is done.

    The first rank is met at *port* of this machine, or where a launcher says. Where it is lost,
    the process ends.

    Raises:
        BadDigestError: the rows that this rank sees are not what the gate wrote.
    """
    seal_off()
    from pathlib import Path  # noqa: PLC0415  # beside what is slow

    from torch import distributed  # noqa: PLC0415  # slow

    from gateway.student import engine  # noqa: PLC0415  # as above
    from gateway.student.bases import load_tokenizer  # noqa: PLC0415  # as above

    crew = engine.Crew(clock=clock or SystemClock())
    # A terminal or a service tells all processes at once to end; all save in the same step.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: crew.stop.set())
    _join(port)
    try:
        while True:
            orders = _listen()
            if orders.course is None:
                return orders.code
            _agree(orders.course, distributed.get_world_size())
            begin = (
                engine.Checkpoint(orders.begin_step, Path(orders.begin))
                if orders.begin
                else None
            )
            tokenizer = load_tokenizer(Path(orders.course.tokenizer))
            # What every rank finds wrong, the first one says, in one line and for all. Of what
            # only this one does, the first would never hear: this process must end.
            with contextlib.suppress(GateError):
                engine.learn(orders.course, begin, tokenizer, crew)
    except (OperatorError, RuntimeError) as error:
        if isinstance(error, OperatorError) and error.problem != RANK_LOST:
            rank, _ = launched() or (0, 1)
            # What it writes to may be on the very disk that is full; it must end all the same.
            with contextlib.suppress(OSError):
                sys.stderr.write(f"gateway: rank {rank}: {error}\n")
                sys.stderr.flush()
        # Whoever takes a broken group apart may wait for it forever, and nobody would know.
        os._exit(1)
    finally:
        distributed.destroy_process_group()


def _forget() -> None:
    """Have the launcher's library look again whether there are others."""
    from accelerate.state import AcceleratorState  # noqa: PLC0415  # slow

    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001  # it has no other


def _agree(course: Course, ranks: int) -> None:
    """Compare what every rank has on disk with what the gate wrote, on all ranks.

    Raises:
        BadDigestError: some rank has something else; every rank raises it.
    """
    fault: BadDigestError | None = None
    try:
        course.check()
    except (BadDigestError, OSError) as error:
        fault = error if isinstance(error, BadDigestError) else BadDigestError(str(error))
    if ranks > 1:
        from torch import distributed  # noqa: PLC0415  # slow; only where several learn

        mine = sha256_hex(msgspec.json.encode(course)) if fault is None else str(fault)
        found: list[Any] = [None] * ranks
        distributed.all_gather_object(found, mine)
        if fault is None and len(set(found)) > 1:
            other = next(rank for rank, said in enumerate(found) if said != mine)
            fault = BadDigestError(
                f"rank {other} has other token rows than the gate wrote: {found[other]}",
                hint="every rank must see the same run folder",
            )
    if fault is not None:
        raise fault


def _start_others(ranks: int) -> list[subprocess.Popen[bytes]]:
    """Start the ranks after the first on this machine, and wait until all are there."""
    from torch import distributed  # noqa: PLC0415  # slow; only where several learn

    # Told a port alone, the store would listen on every address of this machine.
    listening = socket.create_server((_LOOPBACK, 0))
    port = listening.getsockname()[1]
    store = distributed.TCPStore(
        _LOOPBACK,
        port,
        ranks,
        is_master=True,
        timeout=timedelta(seconds=JOIN_S),
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )
    common = {
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": _LOOPBACK,
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    others = []
    for rank in range(1, ranks):
        own = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        others.append(
            # The words are ours: a module of this package, and a port.
            subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "gateway.student.ranks", str(port)],
                env=os.environ | own,  # noqa: TID251  # all of ours, and their place
                stdout=subprocess.DEVNULL,
            )
        )
    os.environ.update(common | {"RANK": "0", "LOCAL_RANK": "0"})  # noqa: TID251  # as above
    try:
        _enter(store, 0, ranks)
    except OperatorError:
        for other in others:
            other.kill()
        raise
    return others


def _join(port: int | None = None) -> None:
    from torch import distributed  # noqa: PLC0415  # slow; only where several learn

    if port is None:
        _enter(None, -1, -1)
        return
    rank, ranks = launched() or (0, 1)
    wait = timedelta(seconds=JOIN_S)
    _enter(distributed.TCPStore(_LOOPBACK, port, ranks, False, wait), rank, ranks)  # noqa: FBT003


def _enter(store: Any, rank: int, ranks: int) -> None:
    """Meet the others in *store*, or where a launcher says."""
    from torch import distributed  # noqa: PLC0415  # slow; only where several learn

    try:
        distributed.init_process_group(
            _backend(),
            store=store,
            rank=rank,
            world_size=ranks,
            timeout=timedelta(hours=WAIT_H),
        )
    except RuntimeError as error:
        raise _lost("not all ranks came", error) from error


def _backend() -> str:
    from torch import cuda  # noqa: PLC0415  # slow; only where several learn

    return "cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo"


def _broadcast(orders: Orders) -> None:
    from torch import distributed  # noqa: PLC0415  # slow; only where several learn

    distributed.broadcast_object_list([msgspec.json.encode(orders)], src=0)


def _listen() -> Orders:
    from torch import distributed  # noqa: PLC0415  # slow; only where several learn

    heard: list[Any] = [None]
    distributed.broadcast_object_list(heard, src=0)
    return msgspec.json.decode(heard[0], type=Orders)


def _lost(what: str, error: Exception) -> OperatorError:
    return OperatorError(
        f"{what}: {(str(error).splitlines() or ['?'])[0][:200]}",
        hint="see what they printed; then go on with --resume",
        code=RANK_LOST,
    )


def _first_gone(others: Sequence[subprocess.Popen[bytes]]) -> OperatorError | None:
    """Return what became of the rank that the others lost; `None` where all are there."""
    ended: list[tuple[int, int]] = []
    for rank, other in enumerate(others, start=1):
        with contextlib.suppress(subprocess.TimeoutExpired):
            ended.append((other.wait(timeout=GONE_S), rank))
    # Where one is killed the others end by themselves, with a code that is no signal.
    code, rank = min(ended, default=(0, 0))
    if not code:
        return None
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return OperatorError(
        f"rank {rank} was lost: {how}",
        hint="see what it printed, and whether memory ran out; then go on with --resume",
        code=RANK_LOST,
    )


if __name__ == "__main__":
    try:
        sys.exit(accompany(port=int(sys.argv[1])))
    except (GatewayError, RuntimeError):
        # The first rank knows, and says it in one line for all of them.
        sys.exit(1)
