"""A disk that remembers what was promised of it, and every way in which power may leave it.

A `Record` lists, in order, what was written, cut, named and synced, and what was acknowledged.
`Record.image` rebuilds what may be on the disk if the power fails after the first so many of
them: what was synced is there; of what was not, each file keeps nothing, everything, some
writes, or some sectors of some writes. A sync that failed makes nothing durable, and no later
sync makes up for it: the system has forgotten that those bytes were ever to be written.

`RecordingDisk` records what SQLite does; `tests/support/syscalls.py` what a whole process does.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import apsw

SECTOR: Final = 512
"""What a disk writes whole or not at all."""


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes written into a file."""

    file: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """A file cut, or grown by zeros, to a size."""

    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """A file's content made durable, as far as it was written before position *since*."""

    file: int
    since: int
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Names:
    """Names in a folder that change together: what each leads to now, or `None` if nothing."""

    leads_to: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class SyncFolder:
    """A folder's names made durable, as far as they were given before position *since*."""

    folder: str
    since: int


@dataclass(frozen=True, slots=True)
class Ack:
    """Something was promised to somebody."""

    what: str
    number: int
    content: bytes = b""


Op = Write | Truncate | Sync | Names | SyncFolder | Ack


@dataclass(slots=True)
class _File:
    """One file while an image is made: what is durable, and what may or may not be."""

    content: bytearray
    changes: list[tuple[int, Write | Truncate, bool]] = field(default_factory=list)
    """Position, change, and whether a sync of it has failed."""
    done: list[tuple[int, Write | Truncate]] = field(default_factory=list)


class Record:
    """What happened below one folder since it was as it is now, all of it durable.

    Files are named by their paths within *root*, which can be moved: a process that was killed
    leaves its folder behind, and what the system still had of it is copied to the next one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ops: list[Op] = []
        self.lock = threading.RLock()
        self._numbers = itertools.count()
        self.live: dict[str, int] = {}
        """What each name leads to while recording."""
        self._first_content: dict[int, bytes] = {}
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.name.endswith("-shm"):
                number = next(self._numbers)
                self.live[self.name_of(path)] = number
                self._first_content[number] = path.read_bytes()
        self._first_names = dict(self.live)

    def name_of(self, path: Path) -> str:
        """Return the name by which *path* is known here."""
        return str(path.relative_to(self.root))

    def add(self, op: Op) -> None:
        """Note that *op* has taken effect."""
        with self.lock:
            self.ops.append(op)

    def now(self) -> int:
        """Return the position that comes next."""
        with self.lock:
            return len(self.ops)

    def opened(self, name: str, *, makes: bool) -> int:
        """Return the file that *name* leads to, a new one where it leads nowhere yet."""
        with self.lock:
            number = self.live.get(name)
            if number is None:
                assert makes, name
                number = next(self._numbers)
                self._lead((name, number))
            return number

    def linked(self, old: str, new: str) -> None:
        """Note that *new* leads to where *old* does."""
        with self.lock:
            self._lead((new, self.live[old]))

    def renamed(self, old: str, new: str) -> None:
        """Note that what *old* led to is at *new*, at one stroke."""
        with self.lock:
            self._lead((old, None), (new, self.live[old]))

    def unlinked(self, name: str) -> None:
        """Note that *name* leads nowhere any more."""
        with self.lock:
            if name in self.live:
                self._lead((name, None))

    def acks(self, upto: int) -> list[Ack]:
        """Return what was promised before position *upto*."""
        return [op for op in self.ops[:upto] if isinstance(op, Ack)]

    def content(self, number: int) -> bytes:
        """Return what whoever reads a file finds in it now."""
        content = bytearray(self._first_content.get(number, b""))
        for op in self.ops:
            if isinstance(op, Write | Truncate) and op.file == number:
                _apply(content, op)
        return bytes(content)

    def image(self, upto: int, dice: Random) -> dict[str, bytes]:
        """Return what may be on the disk if the power fails before position *upto*."""
        files: dict[int, _File] = {}
        names = _Names(dict(self._first_names))
        for position, op in enumerate(self.ops[:upto]):
            match op:
                case Write() | Truncate():
                    self._file(files, op.file).changes.append((position, op, False))
                case Sync():
                    _synced(self._file(files, op.file), op)
                case Names():
                    names.changes.append((position, op))
                case SyncFolder():
                    names.sync(op)
                case Ack():
                    pass
        return {
            name: _some(self._file(files, number), dice)
            for name, number in names.some(dice).items()
        }

    def _file(self, files: dict[int, _File], number: int) -> _File:
        if number not in files:
            files[number] = _File(bytearray(self._first_content.get(number, b"")))
        return files[number]

    def _lead(self, *leads_to: tuple[str, int | None]) -> None:
        _lead(self.live, Names(leads_to))
        self.ops.append(Names(leads_to))


class _Names:
    """The names of one image."""

    def __init__(self, durable: dict[str, int]) -> None:
        self.durable = durable
        self.changes: list[tuple[int, Names]] = []

    def sync(self, op: SyncFolder) -> None:
        """Make durable what was named in a folder before its sync began."""
        left = []
        for position, change in self.changes:
            if position < op.since and _folder_of(change) == op.folder:
                _lead(self.durable, change)
            else:
                left.append((position, change))
        self.changes = left

    def some(self, dice: Random) -> dict[str, int]:
        """Return the names of a disk that kept none, all or some of what was not synced."""
        found = dict(self.durable)
        mode = dice.choice(("none", "all", "some", "first"))
        first = dice.randrange(len(self.changes) + 1)
        for place, (_, change) in enumerate(self.changes):
            if (
                mode == "all"
                or (mode == "some" and dice.random() < 0.5)
                or (mode == "first" and place < first)
            ):
                _lead(found, change)
        return found


def _lead(names: dict[str, int], change: Names) -> None:
    for path, number in change.leads_to:
        if number is None:
            names.pop(path, None)
        else:
            names[path] = number


def _folder_of(change: Names) -> str:
    return str(Path(change.leads_to[0][0]).parent)


def _synced(file: _File, op: Sync) -> None:
    """Move what the sync covers to what is durable, or to what never will be."""
    left: list[tuple[int, Write | Truncate, bool]] = []
    for position, change, lost in file.changes:
        if position >= op.since or lost:
            left.append((position, change, lost))
        elif op.failed:
            left.append((position, change, True))
        else:
            file.done.append((position, change))
    file.changes = left


def _some(file: _File, dice: Random) -> bytes:
    """Return the content of a file that kept none, all, some or torn ones of its changes."""
    mode = dice.choice(("none", "all", "some", "torn"))
    chosen = list(file.done)
    for position, change, _ in file.changes:
        match mode:
            case "none":
                continue
            case "all":
                chosen.append((position, change))
            case "some":
                if dice.random() < 0.5:
                    chosen.append((position, change))
            case _:
                chosen += [(position, part) for part in _torn(change, dice)]
    content = file.content
    for _, change in sorted(chosen, key=lambda one: one[0]):
        _apply(content, change)
    return bytes(content)


def _torn(change: Write | Truncate, dice: Random) -> Iterator[Write | Truncate]:
    """Yield some sectors of a write, or a cut or none."""
    if isinstance(change, Truncate):
        if dice.random() < 0.5:
            yield change
        return
    start, stop = change.offset, change.offset + len(change.data)
    at = start
    while at < stop:
        end = min((at // SECTOR + 1) * SECTOR, stop)
        if dice.random() < 0.5:
            yield Write(change.file, at, change.data[at - start : end - start])
        at = end


def _apply(content: bytearray, change: Write | Truncate) -> None:
    match change:
        case Truncate(size=size):
            del content[size:]
            content.extend(bytes(size - len(content)))
        case Write(offset=offset, data=data):
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data


def put_down(image: dict[str, bytes], folder: Path) -> None:
    """Write an image into the empty folder *folder*."""
    for name, content in image.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        # Modes are not part of the record; keys that others may read are refused.
        target.chmod(0o600)


# -- what SQLite does -----------------------------------------------------------------------

Fails = Callable[[str, str], bool]
"""Asked with `write` or `sync` and a file's name before each: whether it fails."""


def nothing() -> None:
    """Do nothing."""


def never(_call: str, _name: str) -> bool:
    """Let nothing fail."""
    return False


class RecordingDisk(apsw.VFS):
    """SQLite's window on a folder: records what passes, and can be told to fail.

    Nothing is ever synced for real: what counts as durable is what the record says.
    """

    NAME: Final = "recording"

    def __init__(self, usual: str, record: Record) -> None:
        super().__init__(self.NAME, usual)
        self.usual = usual
        self.record = record
        self.full: Fails = never
        """Which writes find no space."""
        self.broken: Fails = never
        """Which syncs fail."""
        self.deadly: Fails = never
        """Which calls the process does not come back from."""
        self.meanwhile: Callable[[], None] = nothing
        """Called before each write and sync: what others do just then."""
        self.life = 0
        """What was opened in an earlier life fails at whatever it does."""
        self.over = False
        """From now on nothing has an effect, so that all can be closed."""
        self.errors: dict[int, int] = {}
        """How many syncs of a file have failed; every handle on it is told of each once."""

    def xOpen(  # noqa: N802 — SQLite's word
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> RecordingFile:
        """Open a file that records."""
        return RecordingFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802, FBT001 — SQLite's
        """Delete a file."""
        path = Path(filename)
        if self.over:
            return
        super().xDelete(filename, syncdir)
        if path.is_relative_to(self.record.root):
            name = self.record.name_of(path)
            self.record.unlinked(name)
            if syncdir:
                self.record.add(SyncFolder(str(Path(name).parent), self.record.now()))

    def die_and_live_again(self, folder: Path) -> None:
        """End the process that used this disk; the next finds in *folder* what it had written.

        What the system has not synced is still there for whoever reads it.
        """
        record = self.record
        self.life += 1
        folder.mkdir()
        for name in record.live:
            shutil.copyfile(record.root / name, folder / name)
        record.root = folder


class RecordingFile(apsw.VFSFile):
    """One open file of a recording disk."""

    def __init__(
        self, disk: RecordingDisk, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        super().__init__(disk.usual, name, flags)
        assert name is not None, "nothing of ours goes into a file without a name"
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name)
        self._disk = disk
        self._record = disk.record
        self._life, self._name, self._number = -1, "", -1
        self._syncs_folder = False
        if path.is_relative_to(disk.record.root):
            self._life = disk.life
            self._name = disk.record.name_of(path)
            makes = bool(flags[0] & apsw.SQLITE_OPEN_CREATE)
            self._number = disk.record.opened(self._name, makes=makes)
            # As SQLite's own: with the first sync of each handle on a log or journal.
            self._syncs_folder = makes and self._name.endswith(("-wal", "-journal"))
        self._told = disk.errors.get(self._number, 0)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 — SQLite's word
        """Write, or fail before anything is written."""
        self._disk.meanwhile()
        with self._record.lock:
            if not self._alive("write"):
                return
            if self._disk.full("write", self._name):
                raise apsw.FullError("no space left")
            super().xWrite(data, offset)
            self._record.add(Write(self._number, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 — SQLite's word
        """Cut."""
        with self._record.lock:
            if not self._alive("truncate"):
                return
            super().xTruncate(newsize)
            self._record.add(Truncate(self._number, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802 — SQLite's word
        """Sync, or fail, as every other handle on the file then does once."""
        self._disk.meanwhile()
        record, errors = self._record, self._disk.errors
        with record.lock:
            if not self._alive("sync"):
                return
            since = record.now()
            if self._disk.broken("sync", self._name):
                errors[self._number] = errors.get(self._number, 0) + 1
            if errors.get(self._number, 0) > self._told:
                self._told = errors[self._number]
                record.add(Sync(self._number, since, failed=True))
                raise apsw.IOError("sync failed")
            record.add(Sync(self._number, since))
            if self._syncs_folder:
                self._syncs_folder = False
                record.add(SyncFolder(str(Path(self._name).parent), since))

    def _alive(self, call: str) -> bool:
        """Tell whether *call* may have an effect; raise if this process is dead."""
        if self._disk.over:
            return False
        if self._life == self._disk.life and self._disk.deadly(call, self._name):
            self._disk.life += 1
        if self._life != self._disk.life:
            raise apsw.IOError("this process was killed")
        return True


@contextlib.contextmanager
def recording(folder: Path) -> Iterator[RecordingDisk]:
    """Let what SQLite opens meanwhile stand on a disk that records what is in *folder*."""
    usual = apsw.vfs_names()[0]
    disk = RecordingDisk(usual, Record(folder))
    apsw.set_default_vfs(RecordingDisk.NAME)
    try:
        yield disk
    finally:
        apsw.set_default_vfs(usual)
        disk.unregister()
