"""What limits count, in one small file that all processes of a data folder share.

A counter is a row of eight-byte numbers in a file that every process maps into its memory; who
counts holds a lock for microseconds. It outlives any process, however that ends, but not a
power cut: then what was counted in the last half minute may be forgotten. Whoever can write the
file can use more than the limits allow, and no more than that.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import mmap
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, Protocol

from gateway.budget.model import Change, Charge, Counted, Full, span
from gateway.clock import Clock
from gateway.errors import LedgerDamagedError, LedgerUnwellError
from gateway.limits import AMOUNT_MAX, COUNTER_WAIT_S_MAX, COUNTERS_MAX

FILE: Final = "counters"

_MAGIC: Final = b"gwcount1"
_ROW: Final = 24
_HIGH, _LOW, _START, _END, _USED, _LENGTH, _NAME = range(7)
"""The numbers of a row: the digest of its counter's name in two halves (0: nobody's row), when
its window began and ends, what it holds, and the name in bytes, after its length."""
_NAME_BYTES_MAX: Final = 8 * (_ROW - _NAME)
_WAYS: Final = 64
"""In how many rows one counter may stand."""
_SIZE: Final = 8 * _ROW * (1 + COUNTERS_MAX)
"""The first row is the file's head."""
_PAUSE_S: Final = 0.0005
_PAUSE_S_MAX: Final = 0.02
_KNOWN_MAX: Final = 4096
_USED_MAX: Final = AMOUNT_MAX * 1000

_Digest = tuple[int, int]


class Counters(Protocol):
    """Where amounts are counted, for all processes that share them."""

    async def take(self, charges: Sequence[Charge]) -> tuple[int, ...] | Full:
        """Add every charge, or none; return when the window of each began, in milliseconds.

        What was added stays until its window ends, whatever becomes of this process.

        Raises:
            LedgerUnwellError: it can't be counted at present; nothing was added.
        """
        ...

    async def change(self, changes: Sequence[Change]) -> None:
        """Add and take off what turned out to be other than was taken.

        Raises:
            LedgerUnwellError: it can't be counted at present; what was taken stays.
        """
        ...

    def counted(self) -> list[Counted]:
        """Return what every counter holds whose window has not ended.

        Raises:
            LedgerUnwellError: they can't be read at present.
        """
        ...

    def close(self) -> None:
        """Let go of the file or connection."""
        ...


class FileCounters:
    """Counters in a file; any number of processes, each from its event loop."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._handle = _opened(path)
        try:
            self._map = mmap.mmap(self._handle, _SIZE)
        except OSError as wrong:
            os.close(self._handle)
            raise _unwell(path, wrong) from wrong
        self._numbers = memoryview(self._map).cast("q")
        # OWNED BY: the event loop. Where counters were found before.
        self._known: dict[str, tuple[_Digest, int]] = {}

    async def take(self, charges: Sequence[Charge]) -> tuple[int, ...] | Full:
        """Add every charge, or none; see `Counters`."""
        await self._lock()
        try:
            return self._take(charges, self._clock.now_ms())
        finally:
            self._unlock()

    async def change(self, changes: Sequence[Change]) -> None:
        """Add and take off what turned out to be other than was taken; see `Counters`."""
        await self._lock()
        try:
            numbers = self._numbers
            for change in changes:
                row = self._row_of(change.counter)
                # Of a window that is over all was forgotten.
                if row is not None and numbers[row + _START] == change.start:
                    used = max(0, numbers[row + _USED] + change.amount)
                    numbers[row + _USED] = min(used, _USED_MAX)
        finally:
            self._unlock()

    def counted(self) -> list[Counted]:
        """Return what every counter holds whose window has not ended; see `Counters`."""
        numbers, now_ms = self._numbers, self._clock.now_ms()
        found = []
        for row in range(_ROW, _ROW * (1 + COUNTERS_MAX), _ROW):
            if numbers[row + _HIGH] and numbers[row + _END] > now_ms:
                first = 8 * (row + _NAME)
                name = self._map[first : first + min(numbers[row + _LENGTH], _NAME_BYTES_MAX)]
                found.append(
                    Counted(
                        counter=name.decode("utf-8", "replace"),
                        used=numbers[row + _USED],
                        start=numbers[row + _START],
                        end=numbers[row + _END],
                    )
                )
        return found

    def close(self) -> None:
        """Let go of the file."""
        self._numbers.release()
        self._map.close()
        os.close(self._handle)

    # -- with the lock --------------------------------------------------------------------

    def _take(self, charges: Sequence[Charge], now_ms: int) -> tuple[int, ...] | Full:
        numbers = self._numbers
        plan: list[tuple[int, bool, int, int, int]] = []
        taken: set[int] = set()
        for place, charge in enumerate(charges):
            start, end = span(charge.window, now_ms)
            row, used = self._row_of(charge.counter), 0
            is_new = row is None
            if row is None:
                row = self._room(charge.counter, now_ms, taken)
            elif numbers[row + _START] >= start:
                # The clock may have been put back: what was counted is not forgotten early.
                start, end = numbers[row + _START], numbers[row + _END]
                used = numbers[row + _USED]
            if used + charge.amount > charge.at_most:
                return Full(place=place, used=used, frees_ms=max(0, end - now_ms))
            taken.add(row)
            plan.append((row, is_new, start, end, used + charge.amount))
        # INVARIANT: whoever is killed between two of these leaves too much counted, never too
        # little: a window begins before the sum of the one before it is replaced, and a row
        # has its name last.
        for charge, (row, is_new, start, end, used) in zip(charges, plan, strict=True):
            if is_new:
                self._begin(row, charge.counter)
            numbers[row + _END] = end
            numbers[row + _START] = start
            numbers[row + _USED] = used
            if is_new:
                high, low = _digest(charge.counter)
                numbers[row + _LOW] = low
                numbers[row + _HIGH] = high
        return tuple(start for _, _, start, _, _ in plan)

    def _row_of(self, counter: str) -> int | None:
        """Return where *counter* stands, if it stands anywhere."""
        numbers = self._numbers
        known = self._known.get(counter)
        if known is not None:
            (high, low), row = known
            if numbers[row + _HIGH] == high and numbers[row + _LOW] == low:
                return row
        high, low = digest = _digest(counter)
        for row in _rows(digest):
            if numbers[row + _HIGH] == high and numbers[row + _LOW] == low:
                if len(self._known) >= _KNOWN_MAX:
                    self._known.clear()
                self._known[counter] = (digest, row)
                return row
        return None

    def _room(self, counter: str, now_ms: int, taken: Collection[int]) -> int:
        """Return a row whose window is over, or that never had one."""
        for row in _rows(_digest(counter)):
            if self._numbers[row + _END] <= now_ms and row not in taken:
                return row
        raise LedgerUnwellError(
            f"`{self.path}` has no room for another counter",
            hint=f"at most {COUNTERS_MAX} are kept; write limits that bind fewer names",
        )

    def _begin(self, row: int, counter: str) -> None:
        numbers, name = self._numbers, counter.encode()[:_NAME_BYTES_MAX]
        numbers[row + _HIGH] = numbers[row + _LOW] = 0
        numbers[row + _LENGTH] = len(name)
        first = 8 * (row + _NAME)
        self._map[first : first + len(name)] = name

    async def _lock(self) -> None:
        until = asyncio.get_running_loop().time() + COUNTER_WAIT_S_MAX
        pause_s = _PAUSE_S
        while True:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if asyncio.get_running_loop().time() >= until:
                    raise LedgerUnwellError(
                        f"another process holds `{self.path}` for too long",
                        hint="see whether a process of this gateway was stopped",
                    ) from None
            else:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_S_MAX)

    def _unlock(self) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_UN)


def _opened(path: Path) -> int:
    """Open the file at *path*, made whole if it is new.

    Raises:
        LedgerUnwellError: it can't be opened or made.
        LedgerDamagedError: it holds something else.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as wrong:
        raise _unwell(path, wrong) from wrong
    try:
        _make_whole(handle, path)
    except OSError as wrong:
        os.close(handle)
        raise _unwell(path, wrong) from wrong
    except LedgerDamagedError:
        os.close(handle)
        raise
    return handle


def _make_whole(handle: int, path: Path) -> None:
    fcntl.flock(handle, fcntl.LOCK_EX)
    head = os.pread(handle, len(_MAGIC), 0)
    if not head.strip(b"\0"):
        # Every page of it is there before it is mapped: writing to one for which there is no
        # space would end the process.
        os.posix_fallocate(handle, 0, _SIZE)
        os.pwrite(handle, _MAGIC, 0)
    elif head != _MAGIC or os.fstat(handle).st_size != _SIZE:
        raise LedgerDamagedError(
            f"`{path}` is not what it should be, or of another release",
            hint="remove it while no gateway runs; what was used is then counted anew",
        )
    fcntl.flock(handle, fcntl.LOCK_UN)


def _unwell(path: Path, wrong: OSError) -> LedgerUnwellError:
    return LedgerUnwellError(
        f"`{path}` can't be used: {wrong.strerror}",
        hint="check that the data folder is writable and has space",
    )


def _digest(counter: str) -> _Digest:
    digest = hashlib.blake2b(counter.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    high = int.from_bytes(digest[:8], "little", signed=True)
    # A row whose first half is 0 is nobody's.
    return high or 1, int.from_bytes(digest[8:], "little", signed=True)


def _rows(digest: _Digest) -> list[int]:
    first = digest[0] % COUNTERS_MAX
    return [_ROW * (1 + (first + way) % COUNTERS_MAX) for way in range(_WAYS)]
