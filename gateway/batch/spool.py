"""A request body that is put aside until all of it was read: on the disk, and unreadable there.

The file has no name, so that it is gone with the process whatever ends that, and its bytes are
encrypted under a key that is only in memory, so that nothing is left of them on the disk.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from gateway.errors import SpoolError
from gateway.ident import random_bytes
from gateway.limits import MIB, SPOOLS_AT_ONCE, UPLOADS_KEPT_MAX

AT_ONCE: Final = 1 * MIB
_KEY_BYTES: Final = 32
_BLOCK_BYTES: Final = 16


class Spool:
    """Bytes put aside, in order; any stretch of them can be read back."""

    def __init__(self, folder: Path) -> None:
        """Make the file, for this account alone.

        Raises:
            SpoolError: it can't be made.
        """
        self._key = AES(random_bytes(_KEY_BYTES))
        self._encryptor = Cipher(self._key, CTR(bytes(_BLOCK_BYTES))).encryptor()
        self._waiting = bytearray()
        self._written = 0
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        except OSError as exc:
            raise _unwell(folder, exc) from exc
        self._folder = folder

    @property
    def size(self) -> int:
        """How many bytes were put aside."""
        return self._written + len(self._waiting)

    async def add(self, chunk: bytes) -> None:
        """Put *chunk* behind what is there.

        Raises:
            SpoolError: the disk does not take it.
        """
        self._waiting += chunk
        if len(self._waiting) >= AT_ONCE:
            await asyncio.to_thread(self._flush)

    async def end(self) -> None:
        """Put aside what still waits.

        Raises:
            SpoolError: the disk does not take it.
        """
        await asyncio.to_thread(self._flush)

    async def read(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes from *start* to *stop*, once all of them were put aside.

        Raises:
            SpoolError: the disk does not give them back.
        """
        stop = self._written if stop is None else stop
        before = start % _BLOCK_BYTES
        counter = (start // _BLOCK_BYTES).to_bytes(_BLOCK_BYTES, "big")
        decryptor = Cipher(self._key, CTR(counter)).decryptor()
        decryptor.update(bytes(before))
        while start < stop:
            sealed = await asyncio.to_thread(self._read, start, min(AT_ONCE, stop - start))
            start += len(sealed)
            yield decryptor.update(sealed)

    async def without(self, cut: Iterable[tuple[int, int]]) -> AsyncIterator[bytes]:
        """Yield all bytes but those of the stretches *cut*, which are in order.

        Raises:
            SpoolError: the disk does not give them back.
        """
        at = 0
        for start, stop in cut:
            async for chunk in self.read(at, start):
                yield chunk
            at = stop
        async for chunk in self.read(at):
            yield chunk

    def close(self) -> None:
        """Let go of the file, which is gone then."""
        self._file.close()

    def _flush(self) -> None:
        sealed = memoryview(self._encryptor.update(bytes(self._waiting)))
        try:
            while sealed:
                count = self._file.write(sealed)
                sealed = sealed[count:]
        except OSError as exc:
            raise _unwell(self._folder, exc) from exc
        self._written += len(self._waiting)
        self._waiting.clear()

    def _read(self, start: int, count: int) -> bytes:
        try:
            self._file.seek(start)
            found = self._file.read(count)
        except OSError as exc:
            raise _unwell(self._folder, exc) from exc
        if not found:
            raise SpoolError(f"what was put aside in {self._folder} is not there any more")
        return found


class Spools:
    """Makes spools, few at once; keeps those of uploads whose last piece has not come yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._room = asyncio.Semaphore(SPOOLS_AT_ONCE)
        # OWNED BY: the event loop.
        self._kept: dict[tuple[str, ...], Spool] = {}

    async def new(self) -> Spool:
        """Return a new one, once there is room.

        Raises:
            SpoolError: the disk does not take it.
        """
        if len(self._kept) >= UPLOADS_KEPT_MAX:
            # Whoever began it has probably gone.
            self.release(self._kept.pop(next(iter(self._kept))))
        await self._room.acquire()
        try:
            return Spool(self._folder)
        except BaseException:
            self._room.release()
            raise

    def keep(self, name: tuple[str, ...], spool: Spool) -> None:
        """Keep what came of the upload of that name until the rest comes."""
        before = self._kept.pop(name, None)
        if before is not None:
            self.release(before)
        self._kept[name] = spool

    def kept(self, name: tuple[str, ...]) -> Spool | None:
        """Return what came of the upload of that name, which is kept no longer."""
        return self._kept.pop(name, None)

    def release(self, spool: Spool) -> None:
        """Let go of what was put aside."""
        spool.close()
        self._room.release()


def _unwell(folder: Path, wrong: OSError) -> SpoolError:
    return SpoolError(
        f"nothing can be put aside in {folder}: {wrong.strerror}",
        hint="give the gateway's disk more room, and its account permission to write there",
    )
