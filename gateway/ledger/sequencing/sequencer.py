"""Give statements their place: the only code that appends to the ledger.

A statement is *sequenced* when its index is durable (`append` returns) and *integrated* when a
signed checkpoint covers it (`integrated` returns), at most one interval later. Other processes
may append too; what they added is handed to whoever keeps a fold over the ledger.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence

from gateway.errors import GatewayError, LedgerDamagedError, LedgerUnwellError
from gateway.ledger.ports import NONE, Foreign, Introducing, Sequenced
from gateway.ledger.publishing.publisher import Publisher
from gateway.limits import (
    LEAF_BYTES_MAX,
    STATEMENTS_PER_COMMIT_MAX,
    STATEMENTS_WAITING_MAX,
)
from gateway.store.group import GroupCommit
from gateway.store.ports import LedgerStore
from gateway.tlog.merkle import leaf_hash

_Hashed = tuple[bytes, bytes]


class Sequencer:
    """Appends leaves in groups, and has checkpoints published after the ledger has grown.

    Not started, it appends in the calling thread: that is what commands do.
    """

    def __init__(
        self,
        store: LedgerStore,
        publisher: Publisher,
        *,
        on_foreign: Callable[[Foreign], None] | None = None,
        introduce: Introducing | None = None,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._introduce = introduce
        self._on_foreign = on_foreign
        self._group = GroupCommit[_Hashed, Sequenced](
            "ledger-sequencer",
            self._commit,
            group_max=STATEMENTS_PER_COMMIT_MAX,
            waiting_max=STATEMENTS_WAITING_MAX,
            unclaimed=self._keep_unclaimed,
        )
        # OWNED BY: _commit().
        self._size: int | None = None
        self._damage: LedgerDamagedError | None = None
        # OWNED BY: _keep_unclaimed() at the tail, _commit() at the head.
        self._unclaimed: deque[Foreign] = deque()
        self._appending = threading.Lock()

    @property
    def healthy(self) -> bool:
        """Whether appends are taken, and the newest checkpoint could be signed and kept."""
        return self.trouble is None and self._group.running

    @property
    def trouble(self) -> GatewayError | None:
        """What went wrong last, as long as it has not gone right again."""
        return self._damage or self._publisher.trouble

    @property
    def _wrong(self) -> LedgerDamagedError | None:
        """Why nothing may be added any more: here, or because it was published otherwise."""
        return self._damage or self._publisher.damage

    @property
    def checkpointed_at_ms(self) -> int:
        """When the newest checkpoint of this process was signed; 0 before the first."""
        return self._publisher.checkpointed_at_ms

    def start(self, *, seen: int | None = None) -> None:
        """Check the ledger against its last checkpoint, and start the threads.

        *seen* is how many leaves the owner has folded already; those after it count as
        foreign. Without it everything there now has been seen.

        Raises:
            LedgerDamagedError: the ledger is older than, or other than, its last checkpoint.
        """
        head = self._publisher.check()
        self._size = head.size if seen is None else seen
        self._group.start()
        self._publisher.start()

    async def append(self, leaf: bytes) -> Sequenced:
        """Add *leaf*; it is durable on return, even where the caller was cancelled meanwhile.

        Raises:
            LedgerUnwellError: it was not added.
            LedgerDamagedError: it may or may not have been; nothing more is taken.
        """
        return await self.append_soon(leaf)

    def append_soon(self, leaf: bytes) -> asyncio.Future[Sequenced]:
        """Take *leaf* in its turn; what is returned will have its place. See `append`."""
        wrong = self._wrong
        if wrong is not None:
            raise wrong.with_traceback(None)
        if len(leaf) > LEAF_BYTES_MAX:
            raise _too_long(leaf)
        # Hashing lets other threads run; the sequencing thread should have no such stops.
        return self._group.submit_soon((leaf, leaf_hash(leaf)))

    def append_and_wait(self, leaf: bytes) -> Sequenced:
        """Add *leaf*, blocking this thread; see `append`."""
        wrong = self._wrong
        if wrong is not None:
            raise wrong.with_traceback(None)
        if len(leaf) > LEAF_BYTES_MAX:
            raise _too_long(leaf)
        if self._group.running:
            return self._group.submit_and_wait((leaf, leaf_hash(leaf)))
        with self._appending:
            if not self._publisher.checked:
                self._size = self._publisher.check().size
            return self._commit([(leaf, leaf_hash(leaf))])[0]

    async def integrated(self, index: int) -> str:
        """Return a checkpoint, a signed note, that covers *index*, once there is one.

        Raises:
            LedgerUnwellError: it can't be signed or kept at present.
        """
        return await self._publisher.integrated(index)

    def checkpoint_now(self) -> str:
        """Sign, publish and return a checkpoint of the ledger as it is now.

        Raises:
            LedgerUnwellError: it can't be kept.
            LedgerDamagedError: the ledger is older than, or other than, its last checkpoint.
        """
        return self._publisher.checkpoint_now()

    def stop(self) -> None:
        """Write what is waiting, sign a last checkpoint, and end the threads."""
        self._group.stop()
        self._publisher.stop()

    def _commit(self, hashed: list[_Hashed]) -> Sequence[Sequenced]:
        try:
            wrong = self._wrong
            if wrong is not None:
                raise wrong.with_traceback(None)
            introduced = self._introduce.first() if self._introduce is not None else ()
            appended = self._store.append(
                [*introduced, *(leaf for leaf, _ in hashed)],
                [*map(leaf_hash, introduced), *(made for _, made in hashed)],
            )
        except LedgerDamagedError as damage:
            self._damage = damage
            raise
        except LedgerUnwellError as trouble:
            self._publisher.append_failed(trouble)
            raise
        before, first = appended.first, appended.first + len(introduced)
        if self._introduce is not None and introduced:
            self._introduce.introduced(introduced)
        known, self._size = self._size, first + len(hashed)
        foreign = self._foreign(before if known is None else known, before)
        self._publisher.grown()
        results = [Sequenced(index) for index in range(first, self._size)]
        if foreign:
            results[0] = Sequenced(first, foreign)
        return results

    def _foreign(self, known: int, first: int) -> Foreign:
        """Return what others added before *first*, and what nobody took the last time."""
        if known >= first and not self._unclaimed:
            return NONE
        fresh: Foreign = NONE
        if known < first:
            fresh = tuple(enumerate(self._store.leaves(known, first), known))
            if self._on_foreign is not None:
                self._on_foreign(fresh)
        while self._unclaimed:
            fresh = self._unclaimed.pop() + fresh
        return fresh

    def _keep_unclaimed(self, result: Sequenced) -> None:
        if result.foreign:
            self._unclaimed.append(result.foreign)


def _too_long(leaf: bytes) -> LedgerUnwellError:
    return LedgerUnwellError(
        f"a leaf of {len(leaf)} bytes is longer than {LEAF_BYTES_MAX}",
        hint="name long things by digest",
    )
