"""Sign checkpoints of the ledger and publish them; never one that contradicts an earlier one.

A checkpoint is published when it stands in the store and in the file that is kept beside it.
Before the first one is signed, the ledger is compared with what was published last.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from gateway.clock import Clock
from gateway.errors import (
    BadProofError,
    GatewayError,
    LedgerDamagedError,
    LedgerUnwellError,
)
from gateway.ledger.subtrees import Subtrees
from gateway.limits import CHECKPOINT_INTERVAL_MS, LEAVES_RECHECKED_AT_START_MAX
from gateway.store.files import write_durably
from gateway.store.ports import Head, LedgerStore
from gateway.tlog.checkpoint import Checkpoint, format_checkpoint, parse_checkpoint
from gateway.tlog.merkle import Frontier, leaf_hash
from gateway.tlog.note import NoteSigner, parse_note, sign_note


class Publisher:
    """Signs a checkpoint after the ledger has grown, on a thread of its own once started."""

    def __init__(
        self,
        store: LedgerStore,
        signer: NoteSigner,
        origin: str,
        clock: Clock,
        *,
        publish_file: Path | None = None,
        recheck_max: int = LEAVES_RECHECKED_AT_START_MAX,
    ) -> None:
        self._store = store
        self._signer = signer
        self._origin = origin
        self._clock = clock
        self._publish_file = publish_file
        self._recheck_max = recheck_max
        self._checked = False
        # Held while signing and writing; never taken on an event loop.
        self._integrating = threading.Lock()
        # Held for moments only, over the six fields below.
        self._noting = threading.Lock()
        self._note: str | None = None
        self._note_size = -1
        self._note_at_ms = 0
        self._trouble: GatewayError | None = None
        self._unproven = False
        """An append has failed since something was last written."""
        self._waiters: list[tuple[int, asyncio.Future[str]]] = []
        self._grown = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def checked(self) -> bool:
        """Whether the ledger has been compared with what was published last."""
        return self._checked

    @property
    def trouble(self) -> GatewayError | None:
        """What went wrong last, as long as it has not gone right again."""
        return self._trouble

    @property
    def checkpointed_at_ms(self) -> int:
        """When the newest checkpoint of this process was signed; 0 before the first."""
        return self._note_at_ms

    def check(self) -> Head:
        """Compare the ledger with the last published checkpoint; return its head.

        Raises:
            LedgerDamagedError: the ledger is older than, or other than, that checkpoint.
        """
        head = self._store.head()
        for where, note in self._published():
            known = _read_note(where, note)
            if known.origin != self._origin:
                raise LedgerDamagedError(
                    f"{where} belongs to the ledger `{known.origin}`, not `{self._origin}`",
                    hint="keep ledger, checkpoint and keys of one data folder together",
                )
            self._compare(head, known, where)
        self._checked = True
        return head

    def start(self) -> None:
        """Start the thread that signs whenever the ledger has grown."""
        self._grown.set()
        self._thread = threading.Thread(
            target=self._integrate_often, name="ledger-publisher", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Sign a last checkpoint, and end the thread."""
        self._stopping.set()
        self._grown.set()
        if self._thread is not None:
            self._thread.join()

    def grown(self) -> None:
        """Take note that the ledger has grown."""
        if not self._grown.is_set():
            self._grown.set()

    def append_failed(self, trouble: GatewayError) -> None:
        """Take note that nothing could be appended.

        Health must not wait for a caller to find out that there is room again.
        """
        with self._noting:
            self._trouble, self._unproven = trouble, True
        self._grown.set()

    async def integrated(self, index: int) -> str:
        """Return a checkpoint, a signed note, that covers *index*, once there is one.

        Raises:
            LedgerUnwellError: it can't be signed or kept at present.
        """
        with self._noting:
            if self._note is not None and self._note_size > index:
                return self._note
            future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self._waiters.append((index, future))
        self._grown.set()
        return await future

    def checkpoint_now(self) -> str:
        """Sign, publish and return a checkpoint of the ledger as it is now.

        Raises:
            LedgerUnwellError: it can't be kept.
            LedgerDamagedError: the ledger is older than, or other than, its last checkpoint.
        """
        with self._integrating:
            try:
                note, size = self._sign_newest()
            except GatewayError as trouble:
                self._trouble = trouble
                raise
            with self._noting:
                if size != self._note_size:
                    self._note_at_ms = self._clock.now_ms()
                self._note, self._note_size, self._trouble = note, size, None
                done = [future for index, future in self._waiters if index < size]
                self._waiters = [one for one in self._waiters if one[0] >= size]
        _settle(done, note)
        return note

    def _integrate_often(self) -> None:
        while not self._stopping.is_set():
            self._grown.wait()
            self._stopping.wait(CHECKPOINT_INTERVAL_MS / 1000)
            self._grown.clear()
            self._try_to_integrate()
        self._try_to_integrate()
        self._turn_away(LedgerUnwellError("the gateway is stopping and signs nothing more"))

    def _try_to_integrate(self) -> None:
        try:
            self.checkpoint_now()
        except GatewayError as trouble:
            self._turn_away(trouble)
            # Nothing else might be a reason to try again.
            self._grown.set()

    def _sign_newest(self) -> tuple[str, int]:
        # An older copy must not be signed for: others may hold the newer checkpoint.
        head = self._store.head() if self._checked else self.check()
        unproven = self._unproven
        if self._note is not None and head.size <= self._note_size and not unproven:
            return self._note, self._note_size
        root = Frontier(head.size, head.frontier).root()
        text = format_checkpoint(Checkpoint(self._origin, head.size, root))
        note = sign_note(text, [self._signer])
        self._unproven = False
        try:
            self._store.publish(head.size, note)
            if self._publish_file is not None:
                _write_note(self._publish_file, note)
        except GatewayError:
            self._unproven = self._unproven or unproven
            raise
        return note, head.size

    def _turn_away(self, trouble: GatewayError) -> None:
        with self._noting:
            waiting = [future for _, future in self._waiters]
            self._waiters = []
        _settle(waiting, trouble)

    def _compare(self, head: Head, known: Checkpoint, where: str) -> None:
        """Check that *head* is what *known* was, or has grown out of it."""
        if head.size < known.size:
            raise LedgerDamagedError(
                f"the ledger is older than its last published checkpoint: it has {head.size}"
                f" leaves, {where} says {known.size}",
                hint="restore the newest copy, never an older one",
            )
        root = Frontier(head.size, head.frontier).root()
        if head.size <= self._recheck_max:
            before, now = _roots(self._store, known.size, head.size)
        else:
            # Too long to read whole before the first request; `ledger fsck` does.
            subtrees = Subtrees(self._store)
            before, now = subtrees.root(0, known.size), subtrees.root(0, head.size)
        if before != known.root or now != root:
            raise LedgerDamagedError(
                f"the ledger is not the one that was published: its first {known.size} leaves"
                f" have another root than {where} says",
                hint="restore the newest copy; `gateway ledger fsck` shows what differs",
            )

    def _published(self) -> list[tuple[str, str]]:
        found = []
        if self._publish_file is not None and self._publish_file.exists():
            try:
                note = self._publish_file.read_text("utf-8")
            except (OSError, ValueError) as wrong:
                raise LedgerDamagedError(
                    f"the checkpoint `{self._publish_file}` can't be read: {wrong}",
                    hint="give the gateway's account permission to read it",
                ) from wrong
            found.append((f"the checkpoint `{self._publish_file}`", note))
        kept = self._store.checkpoint()
        if kept is not None:
            found.append(("the checkpoint in the ledger", kept))
        return found


def _read_note(where: str, note: str) -> Checkpoint:
    try:
        return parse_checkpoint(parse_note(note)[0])
    except BadProofError as broken:
        raise LedgerDamagedError(
            f"{where} is not one: {broken.message}",
            hint="run `gateway ledger fsck`; if all is well, remove the file: it is made again",
        ) from broken


def _roots(store: LedgerStore, size: int, head_size: int) -> tuple[bytes, bytes]:
    """Return the roots of the first *size* and of all *head_size* leaves, recomputed."""
    frontier = Frontier()
    for leaf in store.leaves(0, size):
        frontier.push(leaf_hash(leaf))
    before = frontier.root()
    for leaf in store.leaves(size, head_size):
        frontier.push(leaf_hash(leaf))
    return before, frontier.root()


def _write_note(path: Path, note: str) -> None:
    try:
        write_durably(path, note.encode())
    except OSError as wrong:
        raise LedgerUnwellError(
            f"the checkpoint can't be written to `{path}`: {wrong.strerror}",
            hint="free space, and let the gateway's account write to the data folder",
        ) from wrong


def _settle(futures: list[asyncio.Future[str]], outcome: str | GatewayError) -> None:
    def settle(future: asyncio.Future[str]) -> None:
        if future.done():
            return
        if isinstance(outcome, str):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)

    for future in futures:
        loop = future.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, future)
