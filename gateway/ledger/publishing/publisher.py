"""Sign checkpoints of the ledger and publish them; never one that contradicts an earlier one.

Witnesses cosign a checkpoint before anything else, then it is kept in the copies, in the store,
and in the file beside it, which is what others read: whatever is seen last is written last.
Before the first one is signed, the ledger is compared with all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from gateway.clock import Clock
from gateway.errors import (
    BadProofError,
    GatewayError,
    LedgerDamagedError,
    LedgerUnwellError,
)
from gateway.ledger.counts import Counts
from gateway.ledger.publishing.alarms import (
    ALARMS,
    COPY_BEHIND,
    COPY_NEW,
    PUBLISHED,
    RAISED,
    UNCHECKED,
    UNWITNESSED,
    Alarm,
)
from gateway.ledger.publishing.copies import Copies
from gateway.ledger.publishing.timestamp import Stamper
from gateway.ledger.publishing.witness import Collected, Witnesses
from gateway.ledger.reading.subtrees import Subtrees
from gateway.limits import (
    CHECKPOINT_INTERVAL_MS,
    CHECKPOINT_RETRY_S,
    LEAVES_RECHECKED_AT_START_MAX,
    PUBLISHING_WAIT_S,
    WITNESSED_INTERVAL_MS,
)
from gateway.store.files import hold, write_durably
from gateway.store.ports import Head, LedgerStore, Settles
from gateway.tlog.checkpoint import Checkpoint, format_checkpoint, parse_checkpoint
from gateway.tlog.cosignature import add_cosignatures
from gateway.tlog.merkle import (
    Frontier,
    consistency_proof,
    leaf_hash,
    verify_consistency,
)
from gateway.tlog.note import NoteSigner, parse_note, sign_note

_ROUNDS: Final = 3
"""How often a newer checkpoint is signed where witnesses know one newer than ours."""

_UNCHECKED: Final = (
    "`start_unwitnessed` is set, and too few witnesses answer to know that this is the newest"
    " copy of the ledger"
)

_LOOK_S: Final = 0.005


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
        witnesses: Witnesses | None = None,
        copies: Copies | None = None,
        stamper: Stamper | None = None,
        start_unwitnessed: bool = False,
        predecessors: Collection[str] = (),
    ) -> None:
        self._store = store
        self._signer = signer
        self._origin = origin
        self._clock = clock
        self._publish_file = publish_file
        self._recheck_max = recheck_max
        self._witnesses = witnesses
        self._copies = copies or Copies(())
        self._stamper = stamper
        self._start_unwitnessed = start_unwitnessed
        # A successor begins with all leaves of the logs before it: their checkpoints hold.
        self._origins = {origin, *predecessors}
        self._interval_s = (
            WITNESSED_INTERVAL_MS if witnesses is not None else CHECKPOINT_INTERVAL_MS
        ) / 1000
        self._tree = _Tree(store)
        self._checked = False
        # Held while signing and writing; never taken on an event loop.
        self._integrating = threading.Lock()
        # OWNED BY: whoever holds the lock above.
        self._cosigned: tuple[Checkpoint, str] | None = None
        """What enough witnesses cosigned and nobody was shown yet."""
        self._unwitnessed: dict[str, str] = {}
        """Witnesses that have not cosigned what was asked last, and why."""
        self._unchecked = False
        """Too few witnesses have answered since the start to know that nothing was lost."""
        # Held for moments only, over the eight fields below.
        self._noting = threading.Lock()
        self._note: str | None = None
        self._note_size = -1
        self._note_at_ms = 0
        self._published_at_s = 0.0
        self._trouble: GatewayError | None = None
        self._damage: LedgerDamagedError | None = None
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
        """What went wrong last, as long as it has not gone right again; damage stays."""
        return self.damage or self._trouble

    @property
    def damage(self) -> LedgerDamagedError | None:
        """What was published or cosigned that the ledger contradicts, once that is known."""
        late = None if self._witnesses is None else self._witnesses.damage
        return self._damage or late

    @property
    def newest(self) -> str | None:
        """The newest checkpoint that this process published, a signed note."""
        return self._note

    def alarms(self) -> list[Alarm]:
        """Return what an operator should see to although checkpoints may go on."""
        unwitnessed = self._unwitnessed
        return [
            *([Alarm(UNCHECKED, _UNCHECKED)] if self._unchecked else ()),
            *(Alarm(UNWITNESSED, f"`{name}` {why}") for name, why in unwitnessed.items()),
            *(
                Alarm(COPY_BEHIND, f"`{copy.path}`: {copy.trouble}")
                for copy in self._copies.behind
            ),
            *(
                Alarm(COPY_NEW, f"`{path}` was not there; it can't tell an older ledger")
                for path in self._copies.fresh
            ),
            *(() if self._stamper is None else self._stamper.alarms()),
        ]

    def counts(self) -> Counts:
        """Return what metrics and health say of publishing, by names of `alarms.py`."""
        counts: Counts = {f"{RAISED}{code}": 0 for code in ALARMS}
        for alarm in self.alarms():
            counts[f"{RAISED}{alarm.code}"] += 1
        counts[PUBLISHED] = max(self._note_size, 0)
        return counts

    @property
    def checkpointed_at_ms(self) -> int:
        """When the newest checkpoint of this process was signed; 0 before the first."""
        return self._note_at_ms

    def check(self) -> Head:
        """Compare the ledger with everything published, and return its head.

        Raises:
            LedgerDamagedError: the ledger is older than, or other than, that checkpoint.
            LedgerUnwellError: a copy can't be read, or so few witnesses answer that what
                others cosigned could be missed.
        """
        with self._integrating, self._alone():
            return self._check()

    def start(self) -> None:
        """Start the thread that signs whenever the ledger has grown; after `stop`, anew."""
        self._stopping.clear()
        self._grown.set()
        if self._stamper is not None:
            self._stamper.start()
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
        if self._stamper is not None:
            self._stamper.stop()
        self.close()

    def close(self) -> None:
        """Let go of the connections to witnesses; they are made again where needed."""
        if self._witnesses is not None:
            self._witnesses.close()

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

        While the thread runs, witnesses are asked once a second, whoever wants a checkpoint:
        then it is one of the last second.

        Raises:
            LedgerUnwellError: it can't be kept, or too few witnesses cosign it.
            LedgerDamagedError: the ledger is older than, or other than, what was published
                or cosigned; nothing is published any more.
        """
        with self._noting:
            note, at_s = self._note, self._published_at_s
        runs = self._witnesses is not None and self._thread is not None
        lately = time.monotonic() - at_s < self._interval_s
        if note is not None and runs and lately and self.trouble is None:
            return note
        return self._publish_now()

    def _publish_now(self) -> str:
        with self._integrating:
            try:
                if self.damage is not None:
                    raise self.damage.with_traceback(None)
                with self._alone():
                    note, size = self._publish_newest()
            except LedgerDamagedError as damage:
                self._damage = self._damage or damage
                raise
            except GatewayError as trouble:
                self._trouble = trouble
                raise
            with self._noting:
                if size != self._note_size:
                    self._note_at_ms = self._clock.now_ms()
                self._note, self._note_size, self._trouble = note, size, None
                self._published_at_s = time.monotonic()
                done = [future for index, future in self._waiters if index < size]
                self._waiters = [one for one in self._waiters if one[0] >= size]
        _settle(done, note)
        if self._stamper is not None:
            self._stamper.offer(note)
        return note

    def keep(self, note: str) -> None:
        """Keep a checkpoint that another replica published, beside this process's data.

        Raises:
            LedgerUnwellError: it can't be kept.
            LedgerDamagedError: what is kept there is none.
        """
        if self._publish_file is None:
            return
        with self._integrating, self._alone():
            if self._publish_file.exists():
                kept = _read_note("the file", self._publish_file.read_text("utf-8", "replace"))
                if kept.size >= _read_note("the checkpoint", note).size:
                    return
            _write_note(self._publish_file, note)

    def _integrate_often(self) -> None:
        while not self._stopping.is_set():
            self._grown.wait(CHECKPOINT_RETRY_S if self._copies.behind else None)
            self._stopping.wait(self._interval_s)
            self._grown.clear()
            self._try_to_integrate()
        self._try_to_integrate()
        self._turn_away(LedgerUnwellError("the gateway is stopping and signs nothing more"))

    def _try_to_integrate(self) -> None:
        try:
            self._publish_now()
        except GatewayError as trouble:
            self._turn_away(trouble)
            # Nothing else might be a reason to try again.
            self._grown.set()

    def _publish_newest(self) -> tuple[str, int]:
        # An older copy must not be signed for: others may hold the newer checkpoint.
        head = self._store.head() if self._checked else self._check()
        if head.size < self._note_size:
            raise LedgerDamagedError(
                f"the ledger has lost leaves: {self._note_size} were published, it has"
                f" {head.size}",
                hint="restore the newest copy, never an older one",
            )
        unproven = self._unproven
        if self._note is not None and head.size == self._note_size and not unproven:
            if self._copies.behind:
                self._copies.write(self._note)
            return self._note, self._note_size
        self._unproven = False
        try:
            note, size = self._signed(head)
            self._copies.write(note)
            self._store.publish(size, note)
            if self._publish_file is not None:
                _write_note(self._publish_file, note)
        except GatewayError:
            self._unproven = self._unproven or unproven
            raise
        return note, size

    def _signed(self, head: Head) -> tuple[str, int]:
        """Return a checkpoint of *head*, or of a later one, that may be published."""
        if self._witnesses is None:
            return self._sign(_checkpoint_of(self._origin, head)), head.size
        collected = None
        for _ in range(_ROUNDS):
            now = _checkpoint_of(self._origin, head)
            if self._cosigned is None or self._cosigned[0] != now:
                collected = self._ask(now, enough=self._witnesses.quorum)
            if self._cosigned is not None and self._cosigned[0] == now:
                return self._cosigned[1], now.size
            if collected is None or not collected.ahead:
                break
            head = self._store.head()
        missing = {} if collected is None else collected.missing
        raise LedgerUnwellError(
            f"too few witnesses cosign the checkpoint; {self._witnesses.quorum} of"
            f" {len(self._witnesses.all)} must: {_reasons(missing)}",
            hint="statements are kept and go on; see to the witnesses, it is tried again",
            code=UNWITNESSED,
        )

    def _sign(self, now: Checkpoint) -> str:
        return sign_note(format_checkpoint(now), [self._signer])

    def _ask(self, now: Checkpoint, *, enough: int) -> Collected:
        """Ask the witnesses about *now*; keep what a quorum of them cosigned."""
        assert self._witnesses is not None  # noqa: S101  callers have looked
        note = self._sign(now)
        collected = self._witnesses.collect(note, now, self._tree, enough=enough)
        self._unwitnessed = collected.missing
        if len(collected.lines) >= self._witnesses.enough_to_know:
            self._unchecked = False
        if len(collected.lines) >= self._witnesses.quorum:
            self._cosigned = now, add_cosignatures(note, collected.lines)
        return collected

    def _check(self) -> Head:
        if isinstance(self._store, Settles):
            # What a kill left in memory alone must not be signed for: power could still fail.
            self._store.settle()
        head = self._store.head()
        compared: set[tuple[int, bytes]] = set()
        published = self._published()
        copies = self._copies.read(published=bool(published))
        for where, note in (*published, *copies):
            known = _read_note(where, note)
            if known.origin not in self._origins:
                raise LedgerDamagedError(
                    f"{where} belongs to the ledger `{known.origin}`, not `{self._origin}`",
                    hint="keep ledger, checkpoint and keys of one data folder together",
                )
            if (known.size, known.root) not in compared:
                self._compare(head, known, where)
                compared.add((known.size, known.root))
        self._check_with_witnesses(head)
        self._checked = True
        return head

    def _check_with_witnesses(self, head: Head) -> None:
        """Check that no witness knows more than *head*, or something else.

        Statements that were appended to an older copy would be lost with it, so that what
        can't be checked is not started, unless the operator says so.
        """
        witnesses = self._witnesses
        if witnesses is None:
            return
        enough = max(witnesses.enough_to_know, witnesses.quorum)
        collected = self._ask(_checkpoint_of(self._origin, head), enough=enough)
        self._unchecked = len(collected.lines) < witnesses.enough_to_know
        if not self._unchecked or self._start_unwitnessed:
            return
        raise LedgerUnwellError(
            "too few witnesses answer to know that this is the newest copy of the ledger;"
            f" {witnesses.enough_to_know} of {len(witnesses.all)} must:"
            f" {_reasons(collected.missing)}",
            hint="see to the witnesses; if you are sure of the copy, set"
            " `checkpoint: {start_unwitnessed: true}` for one start",
            code=UNWITNESSED,
        )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from publishing meanwhile, so that nothing goes backwards."""
        if self._publish_file is None:
            yield
            return
        path = self._publish_file.with_name("publishing")
        handle, until = None, time.monotonic() + PUBLISHING_WAIT_S
        while handle is None:
            try:
                handle = hold(path)
            except OSError as wrong:
                raise LedgerUnwellError(
                    f"the file `{path}` can't be held: {wrong.strerror}",
                    hint="free space, and let the gateway's account write to the data folder",
                ) from wrong
            if handle is None:
                if time.monotonic() > until:
                    raise LedgerUnwellError(
                        "another process of this ledger has been publishing a checkpoint for"
                        f" {PUBLISHING_WAIT_S:.0f} seconds",
                        hint=f"find out which one holds `{path}`",
                    )
                time.sleep(_LOOK_S)
        try:
            yield
        finally:
            os.close(handle)

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


class _Tree:
    """The ledger's tree, as witnesses are shown it."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._subtrees = Subtrees(store)

    def size(self) -> int:
        """Return how many leaves are durable now."""
        return self._store.head().size

    def prove_growth(self, old_size: int, now: Checkpoint) -> list[bytes]:
        """Return the proof, checked, that the tree of *old_size* grew into that of *now*.

        Raises:
            LedgerDamagedError: the ledger does not lead from the one to the other.
        """
        subtree = self._subtrees.root
        try:
            proof = consistency_proof(old_size, now.size, subtree)
            verify_consistency(old_size, subtree(0, old_size), now.size, now.root, proof)
        except BadProofError as broken:
            # A witness that refused it would be taken for one that knows another ledger.
            raise LedgerDamagedError(
                f"the ledger's own tree does not hold together: {broken.message}",
                hint="run `gateway ledger fsck`",
            ) from broken
        return proof


def _checkpoint_of(origin: str, head: Head) -> Checkpoint:
    return Checkpoint(origin, head.size, Frontier(head.size, head.frontier).root())


def _reasons(missing: dict[str, str]) -> str:
    return "; ".join(f"`{name}` {why}" for name, why in missing.items())


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
