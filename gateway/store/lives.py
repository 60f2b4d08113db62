"""Which processes are alive: each holds a file for as long as it lives, however it ends.

Names are never used twice, so a name whose file nobody holds belongs to a process that is no
more, and that will never write again.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import Final

from gateway.errors import OperatorError
from gateway.ident import random_bytes
from gateway.store.files import hold

_NAME: Final = re.compile(r"[0-9]{1,10}-[0-9a-f]{16}")


class Lives:
    """The files in one folder that living processes hold."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self) -> tuple[str, int]:
        """Return a new name for this process, and the handle that must stay open.

        Raises:
            OperatorError: the folder can't be written.
        """
        name = f"{os.getpid()}-{random_bytes(8).hex()}"
        file = self._folder / name
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            while (handle := hold(file)) is None or not _is_at(handle, file):
                # Somebody who tidies up took it for a dead one's before it was held.
                if handle is not None:
                    os.close(handle)
        except OSError as wrong:
            raise OperatorError(
                f"can't write in {self._folder}: {wrong.strerror}",
                hint="give the gateway's account permission to",
            ) from wrong
        return name, handle

    def is_alive(self, name: str) -> bool:
        """Tell whether the process of that name still lives; what is no such name does not."""
        return bool(_NAME.fullmatch(name)) and not self._take(name, removes=False)

    def bury(self) -> None:
        """Remove the files of processes that are no more."""
        if self._folder.is_dir():
            for file in list(self._folder.iterdir()):
                if _NAME.fullmatch(file.name):
                    self._take(file.name, removes=True)

    def _take(self, name: str, *, removes: bool) -> bool:
        """Hold the file for a moment, in which it may be removed; tell whether that worked."""
        file = self._folder / name
        try:
            handle = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if removes:
                file.unlink(missing_ok=True)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True


def _is_at(handle: int, file: Path) -> bool:
    """Tell whether the file that *handle* holds still has its name."""
    try:
        return file.stat().st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False
