"""The system calls of a writing process: counted, failed, made its last, and recorded.

Jobs run in forks of one process (`tests/support/writer.py`); strace attaches to each before it
begins. Where a job was recorded, a `Player` adds what it did to a `Record`, so that the power
can be cut at any of its calls.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.support.nursery import Child
from tests.support.powerloss import (
    SECTOR,
    Ack,
    Record,
    Sync,
    SyncFolder,
    Truncate,
    Write,
)
from tests.support.tools import needed
from tests.support.writer import leaf_of

CHANGES: Final = (
    "openat",
    "write",
    "pwrite64",
    "fdatasync",
    "fsync",
    "ftruncate",
    "rename",
    "link",
    "unlink",
    "mkdir",
)
"""Every call by which these processes change what is on the disk."""

JOB_S_MAX: Final = 200.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What becomes of the *at*th *call* of each thread: an error's name, or `KILL`."""

    call: str
    at: int
    becomes: str

    def option(self) -> str:
        """Return what strace is told."""
        what = "signal=KILL" if self.becomes == "KILL" else f"error={self.becomes}"
        return f"inject={self.call}:{what}:when={self.at}"

    def __str__(self) -> str:
        """Return it on one word."""
        return f"{self.call}.{self.at}.{self.becomes}"


class Stage:
    """Where writing processes are started, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._strace = needed("strace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.writer"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._go = folder / "go"
        os.mkfifo(self._go)
        self._told = folder / "told"
        self.trace = folder / "trace"
        """What strace wrote of the last job that was recorded."""

    def __enter__(self) -> Self:
        """Return the stage itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process that all others are forks of."""
        self._process.kill()
        self._process.communicate()

    def run(
        self,
        kind: str,
        folder: Path,
        tag: str,
        *,
        fault: Fault | None = None,
        recorded: bool = False,
    ) -> list[list[str]]:
        """Let a process do a job; return what it said, a list of words a line."""
        self._told.unlink(missing_ok=True)
        child = self._spawn(
            {
                "kind": kind,
                "folder": str(folder),
                "tag": tag,
                "go": str(self._go),
                "told": str(self._told),
            }
        )
        options = ["-e", f"trace={','.join((*CHANGES, 'lseek') if recorded else CHANGES)}"]
        if recorded:
            options += ["-y", "-xx", "-s", "10000000"]
        if fault is not None:
            options += ["-e", fault.option()]
        watching = subprocess.Popen(
            [self._strace, "-f", "-o", self.trace, *options, "-p", str(child.pid)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert watching.stderr is not None
        said = watching.stderr.readline()
        assert "attached" in said, said
        drain = threading.Thread(target=watching.stderr.read)
        drain.start()
        go = os.open(self._go, os.O_WRONLY | os.O_NONBLOCK)
        os.write(go, b"go")
        os.close(go)
        watching.wait(JOB_S_MAX)
        drain.join()
        watching.stderr.close()
        child.wait(JOB_S_MAX)
        return self._words()

    def calls(self) -> Counter[str]:
        """Return how often the busiest thread of the last job made each call."""
        by_thread: Counter[tuple[str, str]] = Counter()
        for line in self.trace.read_text("latin-1").splitlines():
            found = re.match(r"(\d+) +(\w+)\(", line)
            if found:
                by_thread[found[1], found[2]] += 1
        most: Counter[str] = Counter()
        for (_, call), count in by_thread.items():
            most[call] = max(most[call], count)
        return most

    def _words(self) -> list[list[str]]:
        if not self._told.exists():
            return []
        # A line without its end was never said.
        return [line.split() for line in self._told.read_text().split("\n")[:-1]]

    def _spawn(self, job: dict[str, Any]) -> Child:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Child(int(self._process.stdout.readline()))


def every_fault(
    calls: Counter[str], kinds: Sequence[str], becomes: Sequence[str]
) -> Iterator[Fault]:
    """Yield every way in which one of *calls*, of those *kinds*, can go wrong."""
    for call in kinds:
        for at in range(1, calls[call] + 1):
            for what in becomes:
                yield Fault(call, at, what)


# -- a trace, played into a record ------------------------------------------------------------

_BEGUN: Final = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED: Final = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (.*)$")
_WHOLE: Final = re.compile(r"(\d+) +(\w+)\((.*)\) += (.*)$")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_HANDLE: Final = re.compile(r"(\d+)<((?:\\x[0-9a-f]{2}|[^>\\])*)>")


@dataclass(slots=True)
class Player:
    """Adds what one process did, as strace saw it, to a record."""

    record: Record
    offsets: dict[int, int] = field(default_factory=dict)
    """Where sequential writes of each handle go."""
    _begun: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    _unknown: list[tuple[str, str]] = field(default_factory=list)
    """Calls that were under way when the process was killed, and what they were given."""

    def play(self, trace: Path) -> None:
        """Play a whole trace; the folder is as the process left it."""
        for line in trace.read_text("latin-1").splitlines():
            if begun := _BEGUN.match(line):
                self._begun[begun[1]] = (self.record.now(), begun[2], begun[3])
            elif resumed := _RESUMED.match(line):
                since, _, before = self._begun.pop(resumed[1])
                self._done(resumed[2], before + resumed[3], resumed[4], since)
            elif whole := _WHOLE.match(line):
                self._done(whole[2], whole[3], whole[4], self.record.now())
        for call, given in (*self._unknown, *(one[1:] for one in self._begun.values())):
            self._found(call, given)

    def _done(self, call: str, given: str, result: str, since: int) -> None:
        number = result.partition(" ")[0]
        failed = number.startswith("-")
        if number == "?":
            self._unknown.append((call, given))
            return
        if failed and call not in {"fsync", "fdatasync"}:
            return
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(given)]
        handle = _HANDLE.match(given)
        match call:
            case "openat":
                self._open(number, given, texts[0])
            case "write" if handle is not None:
                self._write(handle, texts[0][: int(number)])
            case "pwrite64" if handle is not None:
                offset = int(given.rpartition(", ")[2])
                self._put(_path(handle), texts[0][: int(number)], offset)
            case "lseek" if handle is not None:
                self.offsets[int(handle[1])] = int(number)
            case "ftruncate" if handle is not None:
                size = int(given.rpartition(", ")[2])
                if (name := self._name(_path(handle))) is not None:
                    self.record.add(Truncate(self._number(name), size))
            case "fsync" | "fdatasync" if handle is not None:
                self._sync(_path(handle), since, failed=failed)
            case "rename":
                old, new = (self._name(_decoded(text)) for text in texts)
                if old is not None and new is not None:
                    self.record.renamed(old, new)
            case "link":
                old, new = (self._name(_decoded(text)) for text in texts)
                if old is not None and new is not None:
                    self.record.linked(old, new)
            case "unlink":
                if (name := self._name(_decoded(texts[0]))) is not None:
                    self.record.unlinked(name)
            case _:
                pass

    def _found(self, call: str, given: str) -> None:
        """Add what a call did that a kill came upon, if it did anything: the folder says."""
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(given)]
        handle = _HANDLE.match(given)
        names = [self._name(_decoded(text)) for text in texts] if handle is None else []
        match call, names:
            case "rename", [str(old), str(new)] if not self._is_there(old):
                self.record.renamed(old, new)
            case "link", [str(old), str(new)] if self._is_there(new):
                self.record.linked(old, new)
            case "unlink", [str(name)] if not self._is_there(name):
                self.record.unlinked(name)
            case "openat", [str(name)] if "O_DIRECTORY" not in given and self._is_there(name):
                self._look_at(name)
            case (("write" | "pwrite64" | "ftruncate"), _) if handle is not None:
                if (written := self._name(_path(handle))) in self.record.live:
                    self._look_at(str(written))
            case _:
                # A sync that nobody heard of makes nothing durable that could be relied on.
                pass

    def _is_there(self, name: str) -> bool:
        return (self.record.root / name).is_file()

    def _look_at(self, name: str) -> None:
        """Add what tells the file from what was recorded of it."""
        number = self.record.opened(name, makes=True)
        found, known = (self.record.root / name).read_bytes(), self.record.content(number)
        if len(found) != len(known):
            self.record.add(Truncate(number, len(found)))
            known = known[: len(found)].ljust(len(found), b"\0")
        for at in range(0, len(found), SECTOR):
            if found[at : at + SECTOR] != known[at : at + SECTOR]:
                self.record.add(Write(number, at, found[at : at + SECTOR]))

    def _open(self, number: str, given: str, path: bytes) -> None:
        handle = int(number.partition("<")[0])
        self.offsets[handle] = 0
        name = self._name(_decoded(path))
        if name is None or "O_DIRECTORY" in given:
            return
        if "O_CREAT" in given or name in self.record.live:
            file = self.record.opened(name, makes="O_CREAT" in given)
            if "O_TRUNC" in given:
                self.record.add(Truncate(file, 0))

    def _write(self, handle: re.Match[str], data: bytes) -> None:
        number = int(handle[1])
        path = _path(handle)
        if path.name == "told":
            self._promised(data.decode().split())
            return
        offset = self.offsets.get(number, 0)
        self.offsets[number] = offset + len(data)
        self._put(path, data, offset)

    def _promised(self, words: list[str]) -> None:
        match words:
            case ["ACK", first, count, tag]:
                for number in range(int(count)):
                    leaf = leaf_of(tag, number)
                    self.record.add(Ack("leaf", int(first) + number, leaf))
            case ["NOTE", size, root]:
                self.record.add(Ack("note", int(size), bytes.fromhex(root)))
            case ["KEPT", name, tag]:
                self.record.add(Ack(f"kept {name}", 0, tag.encode()))
            case ["MADE"]:
                self.record.add(Ack("made", 0))
            case _:
                pass

    def _put(self, path: Path, data: bytes, offset: int) -> None:
        if (name := self._name(path)) is not None:
            self.record.add(Write(self._number(name), offset, data))

    def _sync(self, path: Path, since: int, *, failed: bool) -> None:
        name = self._name(path)
        if name is None:
            return
        if name in self.record.live:
            self.record.add(Sync(self._number(name), since, failed=failed))
        elif not failed:
            self.record.add(SyncFolder(name, since))

    def _number(self, name: str) -> int:
        return self.record.live[name]

    def _name(self, path: Path) -> str | None:
        """Return the name of *path* in the record, or `None` if it is none of ours."""
        if not path.is_relative_to(self.record.root) or path.name.endswith("-shm"):
            return None
        return self.record.name_of(path)


def _path(handle: re.Match[str]) -> Path:
    text = handle[2]
    if "\\x" in text:
        return _decoded(bytes.fromhex(text.replace("\\x", "")))
    return Path(text)


def _decoded(path: bytes) -> Path:
    return Path(os.fsdecode(path))
