"""What the floors above need of a store, and what is durable when a call returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How far the ledger has come: its size and the compact range that folds to its root."""

    size: int
    frontier: tuple[bytes, ...]
    """Roots of the full subtrees, largest first; each 32 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """Where leaves went: consecutive indices from *first*; *before* is the size found."""

    first: int
    head: Head


class LedgerStore(Protocol):
    """Keeps leaves in order. One thread calls it; several processes may share the file."""

    def append(
        self, leaves: Sequence[bytes], hashes: Sequence[bytes] | None = None
    ) -> Appended:
        """Add *leaves* at the end in one transaction; durable, with the head, on return.

        *hashes* are their RFC 6962 leaf hashes, where somebody has made them already.

        The caller never retries after an error whose effect is unknown.

        Raises:
            LedgerUnwellError: nothing was added (the disk is full, the file is busy).
            LedgerDamagedError: the durable state is unknown or wrong; the process must end.
        """
        ...

    def head(self) -> Head:
        """Return the durable head."""
        ...

    def leaves(self, first: int, stop: int) -> Iterator[bytes]:
        """Yield leaves *first* up to, not including, *stop*, in order, in constant memory."""
        ...

    def publish(self, size: int, note: str) -> None:
        """Keep *note* as the newest checkpoint; an older size than the kept one is ignored."""
        ...

    def checkpoint(self) -> str | None:
        """Return the newest published checkpoint, a signed note, or `None`."""
        ...

    def close(self) -> None:
        """Let go of the file; further calls are errors."""
        ...


@runtime_checkable
class Settles(Protocol):
    """A store that may show what a process before this one never made durable."""

    def settle(self) -> None:
        """Make durable what is shown; before that no checkpoint of it may be signed.

        Raises:
            LedgerUnwellError: it can't be done at present.
            LedgerDamagedError: it may or may not have been; the process must end.
        """
        ...


@runtime_checkable
class TileStore(Protocol):
    """Keeps full tiles of 256 hashes: derived from the leaves, and rebuilt where missing."""

    def tile(self, level: int, number: int) -> bytes | None:
        """Return the 256 hashes of a full tile, joined, or `None` if it is not kept."""
        ...

    def tile_roots(self, level: int, first: int, stop: int) -> dict[int, bytes]:
        """Return the roots of the kept tiles *first* up to, not including, *stop*."""
        ...

    def keep_tile(self, level: int, number: int, hashes: bytes) -> None:
        """Keep a full tile; it need not be durable, and one already kept stays."""
        ...
