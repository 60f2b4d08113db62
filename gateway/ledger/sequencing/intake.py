"""Appending in a replica: hand in, and wait for the place that one of the replicas gives.

Every replica hands its statements in by itself and for itself; the one that holds the lease
(`lease.py`) gives places and signs checkpoints, which all others read. Where the database or
the leader goes away meanwhile, statements wait; they are taken back, or found, by their ids.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from gateway.clock import Clock
from gateway.errors import (
    EvidenceError,
    ExchangeClosedError,
    GatewayError,
    LedgerDamagedError,
    LedgerUnwellError,
    OperatorError,
)
from gateway.ledger.ports import NONE, Foreign, Introducing, Sequenced
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.sequencing.lease import Leader, Opens
from gateway.limits import (
    HEARTBEAT_MS,
    LEAF_BYTES_MAX,
    PLACING_MS_MAX,
    PUBLISHING_WAIT_S,
    STATEMENTS_PER_COMMIT_MAX,
    STATEMENTS_WAITING_MAX,
)
from gateway.store.group import GroupCommit
from gateway.store.postgres.intake import HANDED_IN, PLACED, RELEASED, Intake, Place
from gateway.store.postgres.leaf import Handed, handed
from gateway.store.postgres.ledger import PUBLISHED
from gateway.tlog.checkpoint import Checkpoint

Verify = Callable[[str], Checkpoint]
"""Returns the checkpoint that a note holds if the log signed it."""

_LOOK_S: Final = 0.05
"""How long it takes at most until a place that nobody called out is found."""
_LISTEN_S: Final = 0.25
_OTHERS_PUBLISH_S: Final = 3.0
"""How long who needs a checkpoint leaves it to the replica that leads."""


class Replica:
    """Appends leaves through the intake, and sequences for all replicas when it leads.

    Not started, it appends in the calling thread, and leads where nobody else does: that is
    what commands do.
    """

    def __init__(
        self,
        intake: Intake,
        publisher: Publisher,
        verify: Verify,
        clock: Clock,
        opens: Opens,
        *,
        introduce: Introducing | None = None,
        on_foreign: Callable[[Foreign], None] | None = None,
    ) -> None:
        self._intake = intake
        self._publisher = publisher
        self._verify = verify
        self._clock = clock
        self._introduce = introduce
        self._on_foreign = on_foreign
        self._placed = threading.Event()
        self._leader = Leader(intake, publisher, opens, introduce, self._placed.set)
        self._group = GroupCommit[Handed, "Sequenced | OperatorError"](
            "ledger-intake",
            self._commit,
            group_max=STATEMENTS_PER_COMMIT_MAX,
            waiting_max=STATEMENTS_WAITING_MAX,
            unclaimed=self._keep_unclaimed,
        )
        # OWNED BY: _commit().
        self._size: int | None = None
        self._damage: LedgerDamagedError | None = None
        self._trouble: LedgerUnwellError | None = None
        # OWNED BY: _keep_unclaimed() at the tail, _commit() at the head.
        self._unclaimed: deque[Foreign] = deque()
        self._appending = threading.Lock()
        # Held for moments only, over the four fields below.
        self._noting = threading.Lock()
        self._note: str | None = None
        self._note_size = -1
        self._note_at_ms = 0
        self._waiters: list[tuple[int, float, asyncio.Future[str]]] = []
        self._stopping = threading.Event()
        self._pulse: threading.Thread | None = None

    @property
    def leads(self) -> bool:
        """Whether this replica gives places at present."""
        return self._leader.epoch is not None

    @property
    def healthy(self) -> bool:
        """Whether appends are taken, and the newest checkpoint could be signed and kept."""
        return self.trouble is None and self._group.running

    @property
    def trouble(self) -> GatewayError | None:
        """What went wrong last, as long as it has not gone right again."""
        published = self._publisher.trouble if self.leads else None
        return self._wrong or self._trouble or self._leader.trouble or published

    @property
    def checkpointed_at_ms(self) -> int:
        """When this process first saw the newest checkpoint; 0 before the first."""
        return self._note_at_ms

    @property
    def _wrong(self) -> LedgerDamagedError | None:
        return self._damage or self._leader.damage or self._publisher.damage

    def start(self, *, seen: int | None = None) -> None:
        """Check the ledger against its last checkpoint, and begin to take statements.

        *seen* is how many leaves the owner has folded already; those after it count as
        foreign. Without it everything there now has been seen.

        Raises:
            LedgerDamagedError: the ledger is older than, or other than, its last checkpoint.
        """
        head = self._publisher.check()
        self._size = head.size if seen is None else seen
        self._intake.beat()
        self._group.start()
        self._leader.start()
        self._pulse = threading.Thread(target=self._listen, name="ledger-pulse", daemon=True)
        self._pulse.start()

    async def append(self, leaf: bytes) -> Sequenced:
        """Add *leaf*; it is durable on return, even where the caller was cancelled meanwhile.

        Raises:
            ExchangeClosedError: it closes an exchange that is closed; it was not added.
            LedgerUnwellError: it was not added.
            LedgerDamagedError: it may or may not have been; nothing more is taken.
        """
        return _place(await self._group.submit(self._handed(leaf)))

    def append_and_wait(self, leaf: bytes) -> Sequenced:
        """Add *leaf*, blocking this thread; see `append`."""
        one = self._handed(leaf)
        if self._group.running:
            return _place(self._group.submit_and_wait(one))
        with self._appending:
            if not self._publisher.checked:
                self._size = self._publisher.check().size
            return _place(self._commit([one])[0])

    async def integrated(self, index: int) -> str:
        """Return a checkpoint, a signed note, that covers *index*, once there is one.

        Raises:
            LedgerUnwellError: it can't be signed or kept at present.
        """
        with self._noting:
            if self._note is not None and self._note_size > index:
                return self._note
            future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self._waiters.append((index, time.monotonic() + PUBLISHING_WAIT_S, future))
        return await future

    def checkpoint_now(self) -> str:
        """Have a checkpoint of the ledger as it is now published, and return it.

        Raises:
            LedgerUnwellError: it can't be kept.
            LedgerDamagedError: the ledger is older than, or other than, its last checkpoint.
        """
        size = self._intake.ledger.head().size
        until = time.monotonic() + _OTHERS_PUBLISH_S
        while time.monotonic() < until and not self.leads and self._intake.is_led():
            self._look()
            note = self._note
            if note is not None and self._note_size >= size:
                return note
            time.sleep(_LOOK_S)
        # Nobody leads, or whoever does can't publish; any replica's signature is as good.
        return self._publisher.checkpoint_now()

    def living(self) -> set[str]:
        """Return the instances of all replicas that live, and of this one."""
        return self._intake.living()

    def stop(self) -> None:
        """Write what is waiting, have a last checkpoint published, and end the threads."""
        self._group.stop()
        self._leader.stop()
        self._stopping.set()
        if self._pulse is not None:
            self._pulse.join()
            self._intake.leave()
        self._turn_away(LedgerUnwellError("the gateway is stopping and signs nothing more"))
        self.let_go()
        self._intake.close()

    def let_go(self) -> None:
        """Leave it to others to give places, where this was not started."""
        self._leader.let_go()

    # -- appending ------------------------------------------------------------------------

    def _handed(self, leaf: bytes) -> Handed:
        wrong = self._wrong
        if wrong is not None:
            raise wrong.with_traceback(None)
        if len(leaf) > LEAF_BYTES_MAX:
            raise LedgerUnwellError(
                f"a leaf of {len(leaf)} bytes is longer than {LEAF_BYTES_MAX}",
                hint="name long things by digest",
            )
        return handed(leaf)

    def _commit(self, group: Sequence[Handed]) -> Sequence[Sequenced | OperatorError]:
        try:
            wrong = self._wrong
            if wrong is not None:
                raise wrong.with_traceback(None)
            introduced = () if self._introduce is None else self._introduce.first()
            everything = [*map(handed, introduced), *group]
            self._intake.hand_in(everything)
            self._call()
            places = self._places(everything)
            results = [_outcome(one, places.get(one.id)) for one in group]
            self._hand_over(results, {place.index for place in places.values()})
            if self._introduce is not None and len(places) == len(everything):
                self._introduce.introduced(introduced)
        except LedgerDamagedError as damage:
            self._damage = damage
            raise
        except LedgerUnwellError as trouble:
            self._trouble = trouble
            raise
        self._trouble = None if places else self._unled()
        return results

    def _call(self) -> None:
        """Let whoever leads know that something was handed in."""
        self._leader.stir()
        if not self.leads:
            self._intake.call_out(HANDED_IN)

    def _places(self, group: Sequence[Handed]) -> dict[uuid.UUID, Place]:
        """Return the places of *group*; what has none in time is taken back, and has none.

        Raises:
            LedgerDamagedError: it is not known whether they will have places.
        """
        found: dict[uuid.UUID, Place] = {}
        waiting = {one.id for one in group}
        deadline = time.monotonic() + PLACING_MS_MAX / 1000
        while waiting:
            try:
                # Before looking: what is called out from here on is looked for once more.
                self._placed.clear()
                fresh = self._intake.places_of(list(waiting))
                found |= fresh
                waiting -= fresh.keys()
                if waiting and not self._group.running and not self._intake.is_led():
                    self._leader.lead_once()
            except LedgerDamagedError:
                raise
            except LedgerUnwellError as trouble:
                # They are handed in and may have places; that must be found out.
                self._trouble = trouble
            if waiting:
                if time.monotonic() > deadline:
                    self._intake.take_back(list(waiting))
                    return found | self._intake.places_of(list(waiting))
                self._placed.wait(_LOOK_S)
        return found

    def _hand_over(self, results: list[Sequenced | OperatorError], own: set[int]) -> None:
        """Tell of what others added before these were, and put it with the first of them."""
        stop = max(own, default=-1) + 1
        known = stop if self._size is None else self._size
        fresh: Foreign = NONE
        if known < stop:
            fresh = tuple(
                (index, leaf)
                for index, leaf in self._intake.relevant(known, stop)
                if index not in own
            )
            self._size = stop
            if fresh and self._on_foreign is not None:
                self._on_foreign(fresh)
        while self._unclaimed:
            fresh = self._unclaimed.pop() + fresh
        if not fresh:
            return
        for at, one in enumerate(results):
            if isinstance(one, Sequenced):
                results[at] = Sequenced(one.index, fresh)
                return
        self._unclaimed.append(fresh)

    def _keep_unclaimed(self, result: Sequenced | OperatorError) -> None:
        if isinstance(result, Sequenced) and result.foreign:
            self._unclaimed.append(result.foreign)

    def _unled(self) -> LedgerUnwellError:
        return LedgerUnwellError(
            "no replica gives statements their places",
            hint="see the logs of the other replicas; one of them holds the lease",
        )

    # -- listening ------------------------------------------------------------------------

    def _listen(self) -> None:
        beat_at = 0.0
        while not self._stopping.is_set():
            try:
                if time.monotonic() - beat_at > HEARTBEAT_MS / 1000:
                    self._intake.beat()
                    beat_at = time.monotonic()
                    # Health must not wait for a caller to find out that all is well again.
                    if self._trouble is not None and (self.leads or self._intake.is_led()):
                        self._trouble = None
                heard = self._intake.listen(_LOOK_S if self._waiters else _LISTEN_S)
                if PLACED in heard:
                    self._placed.set()
                if HANDED_IN in heard or RELEASED in heard:
                    self._leader.stir()
                if PUBLISHED in heard or self._waiters:
                    self._look()
            except LedgerDamagedError as damage:
                self._damage = damage
                self._turn_away(damage)
                return
            except LedgerUnwellError as trouble:
                self._turn_away(trouble)
                self._stopping.wait(_LISTEN_S)
            self._turn_away_late()

    def _look(self) -> None:
        """Read the newest checkpoint, keep it beside the database, and hand it to who waits."""
        note = self._intake.ledger.checkpoint()
        if note is None or note == self._note:
            return
        try:
            checkpoint = self._verify(note)
        except EvidenceError as bad:
            raise LedgerDamagedError(
                f"the checkpoint in the database is not this log's: {bad.message}",
                hint="find out who wrote it; run `gateway ledger fsck`",
            ) from bad
        if checkpoint.size > self._intake.ledger.head().size:
            raise LedgerDamagedError(
                f"the database has a checkpoint of {checkpoint.size} leaves, and fewer leaves",
                hint="go back to the server that has them all",
            )
        if checkpoint.size < self._note_size:
            return
        if not self.leads:
            self._publisher.keep(note)
        with self._noting:
            self._note, self._note_size = note, checkpoint.size
            self._note_at_ms = self._clock.now_ms()
            done = [one for one in self._waiters if one[0] < checkpoint.size]
            self._waiters = [one for one in self._waiters if one[0] >= checkpoint.size]
        for _, _, future in done:
            _settle(future, note)

    def _turn_away_late(self) -> None:
        """Let nobody wait for ever for a checkpoint, nor for one that can't be signed."""
        trouble = self._publisher.trouble if self.leads else None
        if trouble is not None:
            self._turn_away(trouble)
            return
        now = time.monotonic()
        if any(until < now for _, until, _ in self._waiters):
            self._turn_away(
                LedgerUnwellError(
                    f"no replica has signed a checkpoint for {PUBLISHING_WAIT_S:.0f} seconds",
                    hint="see the log of the replica that holds the lease",
                )
            )

    def _turn_away(self, trouble: GatewayError) -> None:
        with self._noting:
            waiting, self._waiters = self._waiters, []
        for _, _, future in waiting:
            _settle(future, trouble)


def _outcome(one: Handed, place: Place | None) -> Sequenced | OperatorError:
    if place is None:
        return LedgerUnwellError(
            "no replica gave the statement its place in time; it was taken back",
            hint="see the logs of the replicas; one of them should hold the lease",
        )
    if place.hash != one.hash and one.closes:
        return ExchangeClosedError(
            f"the exchange was closed meanwhile, by leaf {place.index}",
            hint="this replica was taken for dead; see that it reaches the database",
        )
    return Sequenced(place.index)


def _place(outcome: Sequenced | OperatorError) -> Sequenced:
    if isinstance(outcome, Sequenced):
        return outcome
    raise outcome


def _settle(future: asyncio.Future[str], outcome: str | GatewayError) -> None:
    def settle() -> None:
        if future.done():
            return
        if isinstance(outcome, str):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)

    loop = future.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)
