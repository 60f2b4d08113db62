"""A process that writes evidence and says what it promised; made to be failed and killed.

`python -m tests.support.writer` reads jobs, a line of JSON each, and forks for each one a
process that does it; it prints that process's id. The job begins when something is written to
its fifo `go`. What is promised goes to the file `told`, a line each:

* `ACK index count tag`: so many leaves are durable from *index* on, each made by `leaf_of`;
* `NOTE size root`: a checkpoint is in others' hands;
* `KEPT name tag`: a small file is durable; `MADE`: an installation is;
* `FAILED code` or `DAMAGED code`: a call failed; after the second nothing may be promised.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from gateway.clock import SystemClock
from gateway.errors import GatewayError, LedgerDamagedError
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.sequencing.sequencer import Sequencer
from gateway.store.files import write_durably, write_once
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.checkpoint import Checkpoint, format_checkpoint, parse_checkpoint
from gateway.tlog.merkle import Frontier
from gateway.tlog.note import parse_note, sign_note
from tests.support.evidence import LOG_SIGNER, ORIGIN

GROUPS: Final = 6
SMALL_FILE: Final = 3_000


def leaf_of(tag: str, number: int) -> bytes:
    """Return a leaf that is like no other."""
    name = f"{tag}/{number} "
    return name.encode().ljust(200 + Random(name).randrange(2_000), b".")


def small_file(tag: str) -> bytes:
    """Return the content of a small file that says which it is."""
    return tag.encode().ljust(SMALL_FILE, b".")


class Teller:
    """Says on a file what was promised, as soon as it was."""

    def __init__(self, told: Path) -> None:
        self._handle = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def say(self, *words: object) -> None:
        """Say it in one write."""
        os.write(self._handle, (" ".join(map(str, words)) + "\n").encode())

    def ask(self, call: Callable[[], object]) -> bool:
        """Make a call that may fail; say how, and tell whether it did not."""
        try:
            call()
        except LedgerDamagedError as damage:
            self.say("DAMAGED", damage.problem)
            return False
        except GatewayError as wrong:
            self.say("FAILED", wrong.problem)
            return False
        return True


def write_ledger(folder: Path, tag: str, tell: Teller) -> None:
    """Commit groups, keep a checkpoint and copy the log back, on one thread."""
    store = SqliteLedger(folder / "ledger.db", origin=ORIGIN)

    def commit(group: str) -> None:
        leaves = [leaf_of(group, number) for number in range(5)]
        appended = store.append(leaves)
        tell.say("ACK", appended.first, len(leaves), group)

    for number in range(GROUPS):
        tell.ask(lambda group=f"{tag}.{number}": commit(group))  # type: ignore[misc]
        if number == 1:
            tell.ask(lambda: publish(store, tell))
        if number == 2:
            # What the broom does on a thread of its own.
            store._broom.copy_back(store._side)
            store._bytes_since_tidy_up = 1 << 30
    store.close()


def publish(store: SqliteLedger, tell: Teller) -> None:
    """Keep a checkpoint in the ledger, and hand it out."""
    store.settle()
    head = store.head()
    root = Frontier(head.size, head.frontier).root()
    text = format_checkpoint(Checkpoint(ORIGIN, head.size, root))
    store.publish(head.size, sign_note(text, [LOG_SIGNER]))
    tell.say("NOTE", head.size, root.hex())


def write_with_checkpoints(folder: Path, tag: str, tell: Teller) -> None:
    """Append one by one and publish checkpoints, as a command does."""
    store = SqliteLedger(folder / "ledger.db", origin=ORIGIN)
    publisher = Publisher(
        store, LOG_SIGNER, ORIGIN, SystemClock(), publish_file=folder / "checkpoint"
    )
    sequencer = Sequencer(store, publisher)

    def append(one: str) -> None:
        placed = sequencer.append_and_wait(leaf_of(one, 0))
        tell.say("ACK", placed.index, 1, one)

    def have_published() -> None:
        checkpoint = parse_checkpoint(parse_note(sequencer.checkpoint_now())[0])
        tell.say("NOTE", checkpoint.size, checkpoint.root.hex())

    for number in range(3):
        tell.ask(lambda one=f"{tag}.{number}": append(one))  # type: ignore[misc]
        tell.ask(have_published)
    store.close()


def write_under_load(folder: Path, tag: str, tell: Teller) -> None:
    """Append and publish on the threads that a gateway has."""
    store = SqliteLedger(folder / "ledger.db", origin=ORIGIN)
    publisher = Publisher(
        store, LOG_SIGNER, ORIGIN, SystemClock(), publish_file=folder / "checkpoint"
    )
    sequencer = Sequencer(store, publisher)
    sequencer.start()

    def append(one: str) -> None:
        placed = sequencer.append_and_wait(leaf_of(one, 0))
        tell.say("ACK", placed.index, 1, one)

    for number in range(8):
        tell.ask(lambda one=f"{tag}.{number}": append(one))  # type: ignore[misc]
        if number == 4:
            store._broom.sweep()
    sequencer.stop()
    store.close()


def write_small_files(folder: Path, tag: str, tell: Teller) -> None:
    """Replace one small file, and make another once."""
    for number in range(3):
        content = small_file(f"{tag}.{number} ")
        with contextlib.suppress(OSError):
            write_durably(folder / "replaced", content)
            tell.say("KEPT", "replaced", f"{tag}.{number}")
    with contextlib.suppress(OSError):
        write_once(folder / f"once-{tag}", small_file(f"{tag} "))
        tell.say("KEPT", f"once-{tag}", tag)


def make_installation(folder: Path, _tag: str, tell: Teller) -> None:
    """Make a data folder as `gateway init` does."""
    from gateway import settings  # noqa: PLC0415  heavy, and not needed by the others
    from gateway.app.installation import init  # noqa: PLC0415

    sourced = settings.load(folder / "gateway.yaml")
    if tell.ask(lambda: init(sourced, ORIGIN)):
        tell.say("MADE")


JOBS: Final[dict[str, Callable[[Path, str, Teller], None]]] = {
    "ledger": write_ledger,
    "checkpoints": write_with_checkpoints,
    "load": write_under_load,
    "files": write_small_files,
    "init": make_installation,
}

_PR_SET_PTRACER: Final = 0x59616D61


def _work(job: dict[str, Any], go: int) -> None:
    """Do one job in this process once something comes from *go*; never return."""
    code = 70
    try:
        # Whoever started the job may watch its system calls.
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
        select.select([go], [], [])
        os.close(go)
        JOBS[job["kind"]](Path(job["folder"]), job["tag"], Teller(Path(job["told"])))
        code = 0
    except (GatewayError, OSError) as wrong:
        Teller(Path(job["told"])).say("FAILED", type(wrong).__name__)
    finally:
        os._exit(code)


def main() -> None:
    """Fork a process for each job that is read."""
    import gateway.app.installation  # noqa: F401, PLC0415  what all of them share

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        job = json.loads(line)
        # Opened before anybody counts calls.
        go = os.open(job["go"], os.O_RDONLY | os.O_NONBLOCK)
        pid = os.fork()
        if pid == 0:
            _work(job, go)
        os.close(go)
        print(pid, flush=True)  # noqa: T201  the other side reads it


if __name__ == "__main__":
    main()
