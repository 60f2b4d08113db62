"""Which receipt keys are in the hands of a living process on this machine.

A process that holds a key keeps a file of its id locked; the lock ends with the process,
however that comes. What the file tells is only ever used to end a key whose holder is gone.
"""

from __future__ import annotations

import os
from enum import Enum, auto
from pathlib import Path

from gateway.errors import KeyUnreadableError
from gateway.store.files import hold, sync_folder

_FOLDER_MODE = 0o700


class Holder(Enum):
    """Who holds a key."""

    ALIVE = auto()
    GONE = auto()
    UNKNOWN = auto()
    """Nobody claimed it here: a process on another machine, or before a restored backup."""


class Claims:
    """The files that say which process holds which key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, keyid: str) -> int:
        """Claim the key *keyid* for this process; return the handle that says so.

        Raises:
            KeyUnreadableError: the data folder can't be written.
        """
        try:
            self._folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            handle = hold(self._folder / keyid)
            sync_folder(self._folder)
        except OSError as wrong:
            raise KeyUnreadableError(
                f"can't write in `{self._folder}`: {wrong.strerror}",
                hint="check that the data folder is writable and has space",
            ) from wrong
        if handle is None:
            raise KeyUnreadableError(f"the key {keyid[:16]}… is another process's")
        return handle

    def release(self, keyid: str, handle: int) -> None:
        """Let go of a key that has ended."""
        self.forget(keyid)
        os.close(handle)

    def abandon(self, handle: int) -> None:
        """Let go of a key that may be authorised and is not known to have ended."""
        os.close(handle)

    def forget(self, keyid: str) -> None:
        """Remove what is left of a key that has ended."""
        (self._folder / keyid).unlink(missing_ok=True)
        self._asking(keyid).unlink(missing_ok=True)

    def ask_for_another(self, keyid: str) -> None:
        """Ask whoever holds *keyid* to take another key.

        Raises:
            KeyUnreadableError: the data folder can't be written.
        """
        try:
            self._asking(keyid).touch()
        except OSError as wrong:
            raise KeyUnreadableError(
                f"can't write in `{self._folder}`: {wrong.strerror}",
                hint="check that the data folder is writable and has space",
            ) from wrong

    def is_asked_for_another(self, keyid: str) -> bool:
        """Tell whether the holder of *keyid* should take another key."""
        return self._asking(keyid).exists()

    def _asking(self, keyid: str) -> Path:
        return self._folder / f"{keyid}.renew"

    def holder(self, keyid: str) -> Holder:
        """Tell whether a living process on this machine holds *keyid*."""
        path = self._folder / keyid
        if not path.exists():
            return Holder.UNKNOWN
        handle = hold(path)
        if handle is None:
            return Holder.ALIVE
        os.close(handle)
        return Holder.GONE
