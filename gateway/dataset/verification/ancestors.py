"""The leaves above the rows of a dataset folder: checked once in order, then found by index.

Of each leaf its index, its place in the file and eight bytes of its digest are remembered, so
that a million of them take some megabytes. What is read again later is held against that
digest: rows are judged by the leaves that were checked.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from gateway.dataset.manifest import ABOVE, ABOVE_TILES, tile_file
from gateway.dataset.verification.tree import Tree
from gateway.errors import BadDigestError, BadProofError, EvidenceError, MalformedReceiptError
from gateway.receipt.authority import Authority
from gateway.receipt.model import DERIVATION_TYPE, PAYLOAD_TYPE, PROVENANCE_TYPE, RECEIPT_TYPE
from gateway.receipt.verify import verify_leaf
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import HASH_BYTES
from gateway.tlog.tile import TILE_WIDTH

INDEX_BYTES: Final = 8
LENGTH_BYTES: Final = 2
"""Before each leaf stand its index and its length, big end first."""

_HEAD_BYTES: Final = INDEX_BYTES + LENGTH_BYTES
_HELD_BYTES_MAX: Final = 2 << 20
"""Leaves that are kept once they were found: rows of one batch have the same parents."""

_AGAIN: Final = "take the dataset from its source again"


class Ancestors:
    """The leaves above the rows of one folder, in rising order of their indices."""

    def __init__(
        self,
        path: Path,
        checkpoint: Checkpoint,
        authority: Authority,
        *,
        every_signature: bool = False,
        checked: bool = False,
    ) -> None:
        """Check every leaf in the folder at *path*: its place in the log, its key, its kind.

        *checked*: another process has checked the file of that digest (`sha256`), so only
        where each leaf stands is read again.

        Raises:
            EvidenceError: one does not verify; the message names the file and the leaf.
        """
        self.indices = array("Q")
        self._places = array("Q")
        self._begins = array("Q")
        self._held: dict[int, bytes] = {}
        self._held_bytes = 0
        self._authority = authority
        self._every_signature = every_signature
        self._file: BinaryIO = (path / ABOVE).open("rb", 1 << 20)
        try:
            if checked:
                self.sha256 = self._scan()
            else:
                tree = Tree(path, checkpoint, ABOVE_TILES)
                try:
                    self.sha256 = self._check(tree, checkpoint.size)
                finally:
                    tree.close()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.indices)

    def place_of(self, index: int) -> int | None:
        """Return which in the file the leaf at *index* of the log is, or `None`."""
        place = bisect_left(self.indices, index)
        there = place < len(self.indices) and self.indices[place] == index
        return place if there else None

    def find(self, index: int) -> bytes:
        """Return the leaf at *index* of the log.

        Raises:
            MalformedReceiptError: it is not among them.
            BadDigestError: the file is another one than a moment ago.
        """
        held = self._held.get(index)
        if held is not None:
            return held
        place = self.place_of(index)
        if place is None:
            raise MalformedReceiptError(f"{ABOVE}: leaf {index} is missing")
        begins = self._places[place]
        leaf = os.pread(self._file.fileno(), self._places[place + 1] - begins, begins)
        leaf = leaf[_HEAD_BYTES:]
        if _begin(hashlib.sha256(b"\x00" + leaf).digest()) != self._begins[place]:
            raise BadDigestError(f"{ABOVE}: leaf {index}: changed while it was read")
        self._held_bytes += len(leaf)
        if self._held_bytes > _HELD_BYTES_MAX:
            self._held.clear()
            self._held_bytes = len(leaf)
        self._held[index] = leaf
        return leaf

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _check(self, tree: Tree, size: int) -> str:
        """Check all of the file and return its digest."""
        digest, tile_number, tile, last, place = hashlib.sha256(), -1, b"", -1, 0
        for index, head, leaf in self._frames():
            if not last < index < size:
                raise MalformedReceiptError(f"{_name(index)}: out of order")
            digest.update(head)
            digest.update(leaf)
            if index // TILE_WIDTH != tile_number:
                tile_number = index // TILE_WIDTH
                tile = tree.tile(tile_number)
            hashed = hashlib.sha256(b"\x00" + leaf).digest()
            at = index % TILE_WIDTH * HASH_BYTES
            if tile[at : at + HASH_BYTES] != hashed:
                raise BadProofError(
                    f"{_name(index)}: it is not the one under the checkpoint",
                    hint=_AGAIN,
                    code="dataset.leaf_changed",
                )
            self._check_key(index, leaf)
            self.indices.append(index)
            self._places.append(place)
            self._begins.append(_begin(hashed))
            last, place = index, place + len(head) + len(leaf)
        self._places.append(place)
        for level, (at, end) in enumerate(zip(tree.offsets(size), tree.ends, strict=True)):
            if at != end:
                name = tile_file(level, ABOVE_TILES)
                raise MalformedReceiptError(
                    f"{name}: byte {min(at, end)}: what follows belongs to no leaf above"
                )
        return digest.hexdigest()

    def _scan(self) -> str:
        """Take note of where each leaf stands; return the digest of the file."""
        digest, place = hashlib.sha256(), 0
        for index, head, leaf in self._frames():
            digest.update(head + leaf)
            self.indices.append(index)
            self._places.append(place)
            self._begins.append(_begin(hashlib.sha256(b"\x00" + leaf).digest()))
            place += len(head) + len(leaf)
        self._places.append(place)
        return digest.hexdigest()

    def _frames(self) -> Iterator[tuple[int, bytes, bytes]]:
        while head := self._file.read(_HEAD_BYTES):
            index = int.from_bytes(head[:INDEX_BYTES], "big")
            size = int.from_bytes(head[INDEX_BYTES:], "big")
            leaf = self._file.read(size)
            if len(head) != _HEAD_BYTES or not size or len(leaf) != size:
                raise MalformedReceiptError(f"{_name(index)}: the file ends before it does")
            yield index, head, leaf

    def _check_key(self, index: int, leaf: bytes) -> None:
        """Check that the leaf is of a kind that stands above rows, by a key good there."""
        try:
            try:
                envelope = _ENVELOPE.decode(leaf)
                kind = _KIND.decode(envelope.payload).predicate_type
            except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
                raise MalformedReceiptError(f"not a signed statement: {exc}") from exc
            if kind not in _KINDS or envelope.payload_type != PAYLOAD_TYPE:
                raise MalformedReceiptError("not a receipt, a derivation or a manifest")
            (signature,) = envelope.signatures
            # A manifest's key is found by its signature; there are few of them.
            if self._every_signature or kind == PROVENANCE_TYPE:
                verify_leaf(leaf, index, self._authority)
            elif signature.keyid is None:
                raise MalformedReceiptError("it does not name the key that signed it")
            else:
                self._authority.receipt_key(signature.keyid, index)
        except EvidenceError as exc:
            raise type(exc)(
                f"{_name(index)}: {exc.message}", hint=exc.hint, code=exc.problem
            ) from exc


class _Signature(msgspec.Struct, frozen=True):
    keyid: str | None = None


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    payload: bytes
    payload_type: str
    signatures: tuple[_Signature]


class _Kind(msgspec.Struct, frozen=True, rename="camel"):
    predicate_type: str


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_KIND: Final = msgspec.json.Decoder(_Kind)
_KINDS: Final = frozenset({RECEIPT_TYPE, DERIVATION_TYPE, PROVENANCE_TYPE})


def _begin(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")


def _name(index: int) -> str:
    return f"{ABOVE}: leaf {index}"
