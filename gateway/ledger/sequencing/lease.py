"""One replica at a time sequences: whoever holds the lease, and for as long as it does.

A replica that takes over first compares the ledger with everything published; then its first
leaf says that it took over, in an epoch one above the last. Who has lost the lease, or stood
still beyond its end, finds out in the next transaction, which then writes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from gateway.errors import GatewayError, LedgerDamagedError
from gateway.ledger.ports import Introducing
from gateway.ledger.publishing.publisher import Publisher
from gateway.limits import LEASE_MS
from gateway.store.postgres.intake import (
    PLACED,
    RELEASED,
    Intake,
    LeaseLostError,
)
from gateway.store.postgres.leaf import handed

Opens = Callable[[int], Sequence[bytes]]
"""Returns the leaves that begin an epoch."""

_LOOK_S = 0.2
"""How long it takes at most until something that nobody called out is noticed."""
_REST_S = 2.0
"""How long who could not lead leaves it to others."""


class Leader:
    """Sequences whenever it is this replica's turn, on a thread of its own."""

    def __init__(
        self,
        intake: Intake,
        publisher: Publisher,
        opens: Opens,
        introduce: Introducing | None,
        on_placed: Callable[[], None],
    ) -> None:
        self._intake = intake
        self._publisher = publisher
        self._opens = opens
        self._introduce = introduce
        self._on_placed = on_placed
        self._stirred = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        # OWNED BY: lead_once().
        self._once: int | None = None
        # OWNED BY: the thread.
        self.epoch: int | None = None
        """The epoch that this replica sequences in, or `None`."""
        self.damage: LedgerDamagedError | None = None
        self.trouble: GatewayError | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="ledger-leader", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Sequence what waits, let go of the lease, and end the thread."""
        self._stopping.set()
        self._stirred.set()
        if self._thread is not None:
            self._thread.join()

    def stir(self) -> None:
        """Wake the thread: something was handed in, or the lease is free."""
        self._stirred.set()

    def lead_once(self) -> bool:
        """Sequence what waits in the calling thread, if nobody else does; tell whether.

        The lease is held until `let_go`, or until it runs out.

        Raises:
            LedgerDamagedError: the ledger is not the one that was published.
        """
        try:
            if self._once is None:
                epoch = self._intake.take_over()
                if epoch is None:
                    return False
                try:
                    self._publisher.check()
                    self._begin(epoch)
                except GatewayError:
                    self._intake.release(epoch)
                    raise
                self._once = epoch
            while self._intake.sequence(self._once) is not None:
                pass
        except LeaseLostError:
            self._once = None
            return False
        return True

    def let_go(self) -> None:
        """Let go of the lease that `lead_once` took."""
        if self._once is not None:
            self._intake.release(self._once)
            self._intake.call_out_as_leader(RELEASED)
            self._once = None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                epoch = None if self._intake.is_led() else self._intake.take_over()
                if epoch is not None:
                    self._lead(epoch)
                self.trouble = None
                self._wait(_LOOK_S)
            except LeaseLostError:
                continue
            except LedgerDamagedError as damage:
                # What is durable is unknown, or not what was published: a restart reads it.
                self.damage = damage
                return
            except GatewayError as trouble:
                self.trouble = trouble
                self._stopping.wait(_REST_S)

    def _lead(self, epoch: int) -> None:
        try:
            self._publisher.check()
            self.epoch, self.trouble = epoch, None
            self._begin(epoch)
            self._publisher.start()
            self._sequence(epoch)
        finally:
            self.epoch = None
            self._publisher.stop()
            self._intake.release(epoch)
            self._intake.call_out_as_leader(RELEASED)

    def _begin(self, epoch: int) -> None:
        """Write the first leaves of an epoch, before anything that was handed in."""
        opening = self._opens(epoch)
        # Only now: what was signed just above may have needed a fresh key.
        introduced = () if self._introduce is None else self._introduce.first()
        self._intake.sequence(epoch, [handed(leaf) for leaf in (*introduced, *opening)])
        if self._introduce is not None:
            self._introduce.introduced(introduced)
        self._publisher.grown()
        self._tell()

    def _sequence(self, epoch: int) -> None:
        held_at = time.monotonic()
        while True:
            # Before looking: what comes in from here on is looked for once more.
            self._stirred.clear()
            stopping = self._stopping.is_set()
            began = time.monotonic()
            if self._intake.sequence(epoch) is not None:
                held_at = began
                self.trouble = None
                self._publisher.grown()
                self._tell()
                continue
            if stopping:
                return
            if time.monotonic() - held_at > LEASE_MS / 3000:
                self._intake.renew(epoch)
                held_at = began
            self._wait(_LOOK_S)

    def _tell(self) -> None:
        self._on_placed()
        self._intake.call_out_as_leader(PLACED)

    def _wait(self, timeout_s: float) -> None:
        self._stirred.wait(timeout_s)
        self._stirred.clear()
