"""Copies of the newest checkpoint on other media, so that a restored backup is noticed.

Each is read before anything is signed, and written before a checkpoint is published. A medium
may be slow, full or gone: then publishing goes on, and an alarm tells until it is well again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import orjson

from gateway.errors import LedgerDamagedError, LedgerUnwellError
from gateway.limits import COPY_TIMEOUT_S, NOTE_BYTES_MAX
from gateway.store.files import write_durably

_SILENT: Final = "its medium does not answer"


class Copy:
    """One copy; its medium is touched by one thread at a time, and waited for only so long."""

    def __init__(self, path: Path, *, timeout_s: float = COPY_TIMEOUT_S) -> None:
        self.path = path
        self.trouble = ""
        """Why it is not the newest checkpoint."""
        self._timeout_s = timeout_s
        self._thread: threading.Thread | None = None

    def read(self) -> str | None:
        """Return the checkpoint that is kept there, or `None` if there is none.

        Raises:
            LedgerUnwellError: it can't be read now.
        """
        found: list[str | None] = []
        problem = self._within(lambda: found.append(_read(self.path)))
        if problem == "":
            return found[0]
        raise LedgerUnwellError(
            f"the copy of the checkpoint `{self.path}` can't be read: {problem}",
            hint="bring its medium back, or take it out of `checkpoint.copies` to do without",
        )

    def write(self, note: str) -> None:
        """Keep *note* there; where that fails, `trouble` says why."""
        self.trouble = self._within(lambda: write_durably(self.path, note.encode()))

    def _within(self, do: Callable[[], None]) -> str:
        """Do it on a thread of its own; return what went wrong, if anything."""
        if self._thread is not None and self._thread.is_alive():
            return _SILENT
        problems: list[str] = []

        def run() -> None:
            try:
                do()
            except (OSError, ValueError) as wrong:
                reason = wrong.strerror if isinstance(wrong, OSError) else None
                problems.append(reason or str(wrong))

        self._thread = threading.Thread(target=run, name=f"copy {self.path}", daemon=True)
        self._thread.start()
        self._thread.join(self._timeout_s)
        if self._thread.is_alive():
            return _SILENT
        return problems[0] if problems else ""


class Copies:
    """All copies of one ledger's checkpoint, and the memory of which were ever written.

    Without that memory a medium that is not mounted would look like one that is new.
    """

    def __init__(self, copies: Sequence[Copy], memory: Path | None = None) -> None:
        self.all = tuple(copies)
        self.fresh: tuple[Path, ...] = ()
        """Copies that were not there when the ledger was compared; they protect from now on."""
        self._memory = memory
        self._written: set[str] | None = None

    def read(self, *, published: bool) -> Iterator[tuple[str, str]]:
        """Yield what each copy says, with its name; *published* says if there must be any.

        Raises:
            LedgerUnwellError: one can't be read, or is gone.
        """
        fresh: list[Path] = []
        written = self._remembered() if self.all else set()
        for copy in self.all:
            note = copy.read()
            if note is not None:
                yield f"the copy of the checkpoint `{copy.path}`", note
            elif str(copy.path) in written:
                raise LedgerUnwellError(
                    f"the copy of the checkpoint `{copy.path}` is gone",
                    hint="mount its medium, or take it out of `checkpoint.copies` to do"
                    " without it",
                )
            elif published:
                fresh.append(copy.path)
        self.fresh = tuple(fresh)

    def write(self, note: str) -> None:
        """Keep *note* in every copy that can be written now."""
        if not self.all:
            return
        written = self._remembered()
        for copy in self.all:
            copy.write(note)
        now = written | {str(copy.path) for copy in self.all if not copy.trouble}
        if now != written:
            self._remember(now)

    @property
    def behind(self) -> list[Copy]:
        """The copies that do not hold the newest checkpoint."""
        return [copy for copy in self.all if copy.trouble]

    def _remembered(self) -> set[str]:
        if self._written is None:
            self._written = set()
            if self._memory is not None:
                try:
                    listed = orjson.loads(_read(self._memory) or "[]")
                    self._written = {str(path) for path in listed}
                except (OSError, ValueError, TypeError) as wrong:
                    raise LedgerDamagedError(
                        f"`{self._memory}` does not list the copies of the checkpoint: {wrong}",
                        hint="remove it if every copy in `checkpoint.copies` is there",
                    ) from wrong
        return self._written

    def _remember(self, written: set[str]) -> None:
        self._written = written
        if self._memory is None:
            return
        try:
            write_durably(self._memory, orjson.dumps(sorted(written)))
        except OSError as wrong:
            raise LedgerUnwellError(
                f"`{self._memory}` can't be written: {wrong.strerror}",
                hint="free space, and let the gateway's account write to the data folder",
            ) from wrong


def _read(path: Path) -> str | None:
    """Return the text at *path*, or `None` where there is no file."""
    try:
        with path.open("rb") as file:
            return file.read(NOTE_BYTES_MAX + 1).decode()
    except FileNotFoundError:
        return None
