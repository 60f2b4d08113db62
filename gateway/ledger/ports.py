"""What the floors above need of whatever gives statements their place in the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

import msgspec

from gateway.errors import GatewayError

Foreign = tuple[tuple[int, bytes], ...]
"""Leaves that other processes added, with their indices, in order."""

NONE: Final[Foreign] = ()


class Sequenced(msgspec.Struct, frozen=True):
    """Where a leaf went, and what others added since this sequencer last looked."""

    index: int
    foreign: Foreign = NONE


class Introducing(Protocol):
    """Knows what must stand in the ledger before anything that this process has signed.

    Whatever appends asks for it before each commit, and puts it in front, in the same commit.
    """

    def first(self) -> tuple[bytes, ...]:
        """Return the leaves that must stand before whatever is appended next."""
        ...

    def introduced(self, leaves: Sequence[bytes]) -> None:
        """Take note that *leaves*, which `first` returned, are durable."""
        ...


class Sequencing(Protocol):
    """Appends statements, and hands out checkpoints that cover them.

    Leaves take their places in the order in which this process appended them: that a key's
    end stands after all that it signed rests on it.

    Whoever keeps a fold over the ledger is told of what others added before any append that
    comes after it returns.
    """

    @property
    def healthy(self) -> bool:
        """Whether appends are taken, and the newest checkpoint could be signed and kept."""
        ...

    @property
    def trouble(self) -> GatewayError | None:
        """What went wrong last, as long as it has not gone right again."""
        ...

    @property
    def checkpointed_at_ms(self) -> int:
        """When the newest checkpoint of this process was signed; 0 before the first."""
        ...

    def start(self, *, seen: int | None = None) -> None:
        """Check the ledger against its last checkpoint, and begin to take statements.

        *seen* is how many leaves the owner has folded already; those after it count as
        foreign. Without it everything there now has been seen.

        Raises:
            LedgerDamagedError: the ledger is older than, or other than, its last checkpoint.
        """
        ...

    async def append(self, leaf: bytes) -> Sequenced:
        """Add *leaf*; it is durable on return, even where the caller was cancelled meanwhile.

        Raises:
            LedgerUnwellError: it was not added.
            LedgerDamagedError: it may or may not have been; nothing more is taken.
        """
        ...

    def append_and_wait(self, leaf: bytes) -> Sequenced:
        """Add *leaf*, blocking this thread; see `append`."""
        ...

    async def integrated(self, index: int) -> str:
        """Return a checkpoint, a signed note, that covers *index*, once there is one.

        Raises:
            LedgerUnwellError: it can't be signed or kept at present.
        """
        ...

    def checkpoint_now(self) -> str:
        """Sign, publish and return a checkpoint of the ledger as it is now.

        Raises:
            LedgerUnwellError: it can't be kept.
            LedgerDamagedError: the ledger is older than, or other than, its last checkpoint.
        """
        ...

    def stop(self) -> None:
        """Write what is waiting, have a last checkpoint published, and end the threads."""
        ...


@runtime_checkable
class Shared(Protocol):
    """What appends in one of several replicas, one of which gives places to all."""

    @property
    def leads(self) -> bool:
        """Whether this replica gives places at present."""
        ...

    def living(self) -> set[str]:
        """Return the instances of all replicas that live, and of this one."""
        ...

    def let_go(self) -> None:
        """Leave it to others to give places, where this was not started."""
        ...
