"""Take turns with other processes that share a data folder.

Who holds a turn has it alone until it lets go, or ends: the system takes the lock back.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from gateway.errors import LedgerUnwellError

_ASKED_EVERY_S: Final = 0.005

SLOTS: Final = 16
"""Names share so many locks: two that fall together only wait for each other."""


def slot_of(name: str) -> int:
    """Return which of the locks *name* has."""
    return hashlib.sha256(name.encode()).digest()[0] % SLOTS


class FileTurns:
    """Turns by locks on files of one folder, which is made where it is missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # OWNED BY: the event loop. Who waits here waits in order, and keeps no thread busy.
        self._here = [asyncio.Lock() for _ in range(SLOTS)]

    @contextlib.asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Hold the turn of *name* alone, in this and in every process.

        Raises:
            LedgerUnwellError: the lock can't be had at all.
        """
        slot = slot_of(name)
        async with self._here[slot]:
            handle = self._opened(slot)
            try:
                # A thread that waited for the lock could be the one that its holder needs.
                while not _locked(handle, self._folder):  # noqa: ASYNC110 — another process
                    await asyncio.sleep(_ASKED_EVERY_S)
                yield
            finally:
                os.close(handle)

    def _opened(self, slot: int) -> int:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            return os.open(
                self._folder / f"{slot}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as exc:
            raise LedgerUnwellError(
                f"no lock can be made in {self._folder}: {exc.strerror}",
                hint="let the gateway's account write there",
            ) from exc


def _locked(handle: int, folder: Path) -> bool:
    """Take the lock; tell whether nobody else has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in {errno.EAGAIN, errno.EACCES}:
            return False
        raise LedgerUnwellError(f"{folder} can't be locked: {exc.strerror}") from exc
    return True
