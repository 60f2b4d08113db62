"""Leaves that a build reads, each shown to be under the checkpoint that the dataset will carry.

A tile is read once and checked up to the root; a leaf, against its place in its tile, and
its signature, by a key that might sign there. Where there are many, their signatures are
checked in pages, beside the other work (`signed.py`).
"""

from __future__ import annotations

import collections
from typing import Final

from gateway.dataset.above import opened
from gateway.dataset.assembly.signed import Signatures
from gateway.dataset.verification.tree import ReadTile, edge_of, full_roots, levels_of, root_of
from gateway.errors import EvidenceError, LedgerDamagedError
from gateway.receipt.authority import Authority
from gateway.receipt.model import Derivation, Receipt, Statement
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import HASH_BYTES, Frontier, leaf_hash
from gateway.tlog.tile import TILE_WIDTH, Tile

_TILES_REMEMBERED: Final = 256
"""Tiles of a level that are kept: two megabytes, of what ancestors of rows lie scattered in."""

_FSCK: Final = "run `gateway ledger fsck`; nothing was built"


class Covered:
    """What one checkpoint covers; leaves may be asked for in any order."""

    def __init__(self, covers: Checkpoint, read: ReadTile, authority: Authority) -> None:
        """Read the edges of the tree, and check that they make the root.

        Raises:
            LedgerDamagedError: they don't.
        """
        self._read = read
        self._authority = authority
        self._known: dict[int, collections.OrderedDict[int, bytes]] = {}
        self._edges: dict[int, tuple[int, bytes]] = {}
        self._newest = (-1, b"")
        frontier: list[bytes] = []
        for level in reversed(range(levels_of(covers.size))):
            edge = edge_of(level, covers.size)
            hashes = read(edge) if edge.width else b""
            self._edges[level] = (edge.index, hashes)
            self._known[level] = collections.OrderedDict()
            frontier += full_roots(hashes)
        if covers.size and Frontier(covers.size, frontier).root() != covers.root:
            raise LedgerDamagedError("the ledger's tiles don't make its checkpoint", hint=_FSCK)
        self.size = covers.size

    def tile(self, tile: Tile) -> bytes:
        """Return the hashes of *tile*, full or at the edge, checked up to the root.

        Raises:
            LedgerDamagedError: it does not lead there.
        """
        edge, hashes = self._edges[tile.level]
        if tile.index == edge:
            return hashes
        known = self._known[tile.level]
        if tile.index in known:
            known.move_to_end(tile.index)
            return known[tile.index]
        content = self._read(tile)
        above = self.tile(Tile(tile.level + 1, tile.index // TILE_WIDTH))
        if root_of(content) != _at(above, tile.index % TILE_WIDTH):
            raise LedgerDamagedError(
                f"tile {tile.index} of level {tile.level} does not lead to the checkpoint",
                hint=_FSCK,
            )
        known[tile.index] = content
        if len(known) > _TILES_REMEMBERED:
            known.popitem(last=False)
        return content

    def statement(self, index: int, leaf: bytes) -> tuple[Statement, str | None]:
        """Return the statement in *leaf*, which stands at *index*, and the key that signed it.

        Raises:
            LedgerDamagedError: the leaf is another, or no key that might sign it there did.
        """
        self.check(index, leaf)
        try:
            envelope, statement = opened(leaf)
            if envelope is None:
                return statement, None
            return statement, self._authority.signer_of(envelope, statement, index).keyid
        except EvidenceError as exc:
            raise _unverified(index, exc) from exc

    def put_off(
        self, index: int, leaf: bytes, signatures: Signatures
    ) -> tuple[Statement, str | None]:
        """Return what `statement` does; what a receipt key signed, *signatures* check later.

        Whether that key might sign there is asked at once. A manifest names no key, and a
        key's own statement is signed by no receipt key: these are few, and checked at once.

        Raises:
            LedgerDamagedError: as for `statement`.
        """
        try:
            envelope, statement = opened(leaf)
            keyid = None if envelope is None else envelope.signatures[0].keyid
            if envelope is None or keyid is None or not isinstance(statement, _WAITS):
                return self.statement(index, leaf)
            self.check(index, leaf)
            key = self._authority.receipt_key(keyid, index)
        except EvidenceError as exc:
            raise _unverified(index, exc) from exc
        signatures.add(index, envelope, key)
        return statement, keyid

    def check(self, index: int, leaf: bytes) -> None:
        """Check that *leaf* is the one that the checkpoint covers at *index*.

        Raises:
            LedgerDamagedError: it is another.
        """
        number, place = divmod(index, TILE_WIDTH)
        if number != self._newest[0]:
            self._newest = (number, self.tile(Tile(0, number)))
        if _at(self._newest[1], place) != leaf_hash(leaf):
            raise LedgerDamagedError(
                f"leaf {index} of the ledger is not the one under its checkpoint", hint=_FSCK
            )


_WAITS: Final = (Receipt, Derivation)


def _unverified(index: int, exc: EvidenceError) -> LedgerDamagedError:
    return LedgerDamagedError(
        f"leaf {index} of the ledger does not verify: {exc.message}", hint=_FSCK
    )


def _at(hashes: bytes, place: int) -> bytes:
    return hashes[place * HASH_BYTES : (place + 1) * HASH_BYTES]
