"""A ledger to break: faults at the port, faults at the disk, and a check of the whole house."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import apsw
import msgspec

from gateway.clock import Clock, FrozenClock
from gateway.errors import LedgerDamagedError, LedgerUnwellError
from gateway.ident import ExchangeId, new_exchange_id
from gateway.ledger.custody.fsck import Report, fsck
from gateway.ledger.ports import Sequencing
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.sequencing.sequencer import Sequencer
from gateway.receipt.model import Abandonment, Predicate, Receipt
from gateway.receipt.statement import write_opening, write_statement
from gateway.store.ports import Appended, Head, LedgerStore
from gateway.store.sqlite import SqliteLedger
from tests.support.evidence import (
    ABANDONMENT,
    LOG_SIGNER,
    OPENING,
    ORIGIN,
    RECEIPT,
    RECEIPT_SIGNER,
    SUBJECTS,
    TRUST,
    an_authority,
)

When = Literal["before", "after"]
NOW_MS: Final = 1_795_000_000_000


class LedgerUnderTest:
    """A ledger in a folder, opened as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "ledger.db"
        self.checkpoint_file = folder / "checkpoint"
        self.store = SqliteLedger.create(self.path, ORIGIN)

    def reopen(self) -> SqliteLedger:
        """Open the file anew, as after a restart."""
        self.store.close()
        self.store = SqliteLedger(self.path, origin=ORIGIN)
        return self.store

    def sequencer(
        self, store: LedgerStore | None = None, clock: Clock | None = None, **more: Any
    ) -> Sequencer:
        """Return a sequencer over the ledger, not started."""
        kept = store or self.store
        return Sequencer(kept, self.publisher(kept, clock), **more)

    def publisher(
        self, store: LedgerStore | None = None, clock: Clock | None = None, **more: Any
    ) -> Publisher:
        """Return a publisher of the ledger's checkpoints, not started."""
        return Publisher(
            store or self.store,
            LOG_SIGNER,
            ORIGIN,
            clock or FrozenClock(),
            publish_file=self.checkpoint_file,
            **more,
        )

    def leaves(self) -> list[bytes]:
        """Return all leaves, read by a connection of their own."""
        with contextlib.closing(SqliteLedger(self.path)) as beside:
            return list(beside.leaves(0, beside.head().size))

    def fsck(self) -> Report:
        """Check the whole ledger, against the published checkpoint too."""
        published = [self.checkpoint_file.read_text()] if self.checkpoint_file.exists() else []
        with contextlib.closing(SqliteLedger(self.path)) as beside:
            return fsck(beside, TRUST, published=published, authority=an_authority())

    def check(self) -> Report:
        """Check the whole ledger and insist that nothing is found."""
        report = self.fsck()

        assert [str(finding) for finding in report.findings] == []
        return report


def an_exchange_id(number: int) -> ExchangeId:
    """Return a fresh exchange id."""
    return new_exchange_id(NOW_MS + number)


def an_opening(exchange: ExchangeId, **changed: Any) -> bytes:
    """Return an opening as a leaf."""
    return write_opening(msgspec.structs.replace(OPENING, exchange=exchange, **changed))


def a_receipt(exchange: ExchangeId, opening: int, **changed: Any) -> bytes:
    """Return a signed receipt as a leaf."""
    receipt: Receipt = msgspec.structs.replace(
        RECEIPT, exchange=exchange, opening=opening, **changed
    )
    return write_statement(receipt, SUBJECTS, RECEIPT_SIGNER)


def an_abandonment(exchange: ExchangeId, opening: int) -> bytes:
    """Return a signed abandonment as a leaf."""
    abandonment: Abandonment = msgspec.structs.replace(
        ABANDONMENT, exchange=exchange, opening=opening
    )
    return a_statement(abandonment)


def a_statement(predicate: Predicate) -> bytes:
    """Return a signed statement about its own name as a leaf."""
    return write_statement(predicate, (), RECEIPT_SIGNER)


def exchanges(count: int, first: int = 0) -> list[bytes]:
    """Return the leaves of *count* exchanges, opening and receipt in turn."""
    leaves: list[bytes] = []
    for number in range(count):
        exchange = an_exchange_id(first + number)
        leaves.append(an_opening(exchange))
        leaves.append(a_receipt(exchange, first + len(leaves) - 1))
    return leaves


class FaultStore:
    """A real store, each call of which can fail once before or after it took effect."""

    CALLS: Final = ("append", "head", "leaves", "publish", "checkpoint")

    def __init__(self, store: SqliteLedger) -> None:
        self._store = store
        self._fault: tuple[str, When] | None = None
        self.failed = 0

    def fail_once(self, call: str, when: When) -> None:
        """Let the next *call* fail."""
        self._fault = (call, when)

    def append(
        self, leaves: Sequence[bytes], hashes: Sequence[bytes] | None = None
    ) -> Appended:
        """Append, or fail."""
        with self._failing("append"):
            return self._store.append(leaves, hashes)

    def head(self) -> Head:
        """Return the head, or fail."""
        with self._failing("head"):
            return self._store.head()

    def leaves(self, first: int, stop: int) -> Iterator[bytes]:
        """Yield leaves, or fail."""
        with self._failing("leaves"):
            yield from self._store.leaves(first, stop)

    def publish(self, size: int, note: str) -> None:
        """Publish, or fail."""
        with self._failing("publish"):
            self._store.publish(size, note)

    def checkpoint(self) -> str | None:
        """Return the checkpoint, or fail."""
        with self._failing("checkpoint"):
            return self._store.checkpoint()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    @contextlib.contextmanager
    def _failing(self, call: str) -> Iterator[None]:
        when = self._fault[1] if self._fault is not None and self._fault[0] == call else None
        if when is not None:
            self._fault = None
            self.failed += 1
        if when == "before":
            raise LedgerUnwellError("this call was told to fail; nothing happened")
        yield
        if when == "after":
            # Whoever did not hear the answer can't know what is true now.
            raise LedgerDamagedError("this call was told to fail; it took effect")


class BrittleDisk(apsw.VFS):
    """SQLite's window on the disk, which can be told to be full or to fail to sync."""

    NAME: Final = "brittle"

    def __init__(self, usual: str) -> None:
        super().__init__(self.NAME, usual)
        self.usual = usual
        self.full = False
        self.sync_fails = False

    def xOpen(  # noqa: N802 — SQLite's word
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> BrittleFile:
        """Open a file that listens to this disk."""
        return BrittleFile(self, name, flags)


class BrittleFile(apsw.VFSFile):
    """One file of a brittle disk."""

    def __init__(
        self, disk: BrittleDisk, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        super().__init__(disk.usual, name, flags)
        self._disk = disk

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 — SQLite's word
        """Write, unless the disk is full."""
        if self._disk.full:
            raise apsw.FullError("no space left")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802 — SQLite's word
        """Sync, unless the disk can't."""
        if self._disk.sync_fails:
            raise apsw.IOError("sync failed")
        super().xSync(flags)


@contextlib.contextmanager
def brittle_disk() -> Iterator[BrittleDisk]:
    """Let everything that is opened meanwhile stand on a brittle disk."""
    usual = apsw.vfs_names()[0]
    disk = BrittleDisk(usual)
    apsw.set_default_vfs(BrittleDisk.NAME)
    try:
        yield disk
    finally:
        apsw.set_default_vfs(usual)
        disk.unregister()


async def append_all(sequencer: Sequencing, leaves: Sequence[bytes]) -> list[int]:
    """Append *leaves* at once, from as many callers; return their indices in that order."""
    placed = await asyncio.gather(*(sequencer.append(leaf) for leaf in leaves))
    return [one.index for one in placed]
