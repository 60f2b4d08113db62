"""The RFC 6962 tree: hashes, a frontier that grows leaf by leaf, proofs and their verifiers.

Not here: where hashes are kept. Who makes a proof hands in `subtree(first, stop)`, which
returns the root of leaves *first* up to, not including, *stop*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Final

from gateway.errors import BadProofError
from gateway.tlog.text import SIZE_MAX

HASH_BYTES: Final = 32

EMPTY_ROOT: Final = sha256(b"").digest()
"""The root of a tree without leaves."""

Subtree = Callable[[int, int], bytes]


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The roots of a tree's full subtrees, largest first: all that appending needs to know."""

    __slots__ = ("_roots", "size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        roots = list(hashes)
        if not 0 <= size <= SIZE_MAX or len(roots) != size.bit_count():
            raise BadProofError(f"{len(roots)} subtree roots don't make a tree of size {size}")
        _check_hashes(roots)
        self.size = size
        self._roots = roots

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The roots of the full subtrees, largest first."""
        return tuple(self._roots)

    def push(self, leaf_hash: bytes) -> None:
        """Add one leaf, given by its hash, at the end."""
        roots = self._roots
        index = self.size
        while index & 1:
            leaf_hash = sha256(b"\x01" + roots.pop() + leaf_hash).digest()
            index >>= 1
        roots.append(leaf_hash)
        self.size += 1

    def root(self) -> bytes:
        """Return the root of the whole tree."""
        if not self._roots:
            return EMPTY_ROOT
        folded = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            folded = node_hash(left, folded)
        return folded

    def copy(self) -> Frontier:
        """Return a frontier that grows on its own from here."""
        other = Frontier.__new__(Frontier)
        other.size = self.size
        other._roots = self._roots.copy()  # noqa: SLF001 — a twin of the same class
        return other


def root_of(leaf_hashes: Iterable[bytes]) -> bytes:
    """Return the root of the tree over *leaf_hashes*, in memory that does not grow."""
    frontier = Frontier()
    for one in leaf_hashes:
        frontier.push(one)
    return frontier.root()


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Return the hashes that show leaf *index* to be in the tree of *size*, lowest first.

    Raises:
        BadProofError: there is no such leaf in a tree of that size.
    """
    _check_index(index, size)
    proof = []
    first, stop = 0, size
    while stop - first > 1:
        middle = first + _split(stop - first)
        if index < middle:
            proof.append(subtree(middle, stop))
            stop = middle
        else:
            proof.append(subtree(first, middle))
            first = middle
    proof.reverse()
    return proof


def verify_inclusion(
    leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that the leaf with *leaf_hash* is at *index* of the tree of *size* with *root*.

    Raises:
        BadProofError: it is not shown to be.
    """
    _check_index(index, size)
    _check_hashes([leaf_hash, root, *proof])
    node, last, folded = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            raise BadProofError("the inclusion proof is too long for the tree's size")
        if node & 1 or node == last:
            folded = node_hash(sibling, folded)
            # The last node of a level may have no right neighbour and climb alone.
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            folded = node_hash(folded, sibling)
        node >>= 1
        last >>= 1
    if last != 0:
        raise BadProofError("the inclusion proof is too short for the tree's size")
    if folded != root:
        raise BadProofError(f"leaf {index} is not under the root of the tree of size {size}")


def consistency_proof(old_size: int, size: int, subtree: Subtree) -> list[bytes]:
    """Return the hashes that show the tree of *old_size* to be a beginning of that of *size*.

    Raises:
        BadProofError: the old tree is larger than the new one.
    """
    _check_sizes(old_size, size)
    proof: list[bytes] = []
    if old_size == 0:
        return proof
    first, stop = 0, size
    while old_size != stop:
        middle = first + _split(stop - first)
        if old_size <= middle:
            proof.append(subtree(middle, stop))
            stop = middle
        else:
            proof.append(subtree(first, middle))
            first = middle
    if first:
        proof.append(subtree(first, stop))
    proof.reverse()
    return proof


def verify_consistency(
    old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of *old_size* with *old_root* only grew into that of *size*.

    Raises:
        BadProofError: it is not shown to have done so.
    """
    _check_sizes(old_size, size)
    _check_hashes([old_root, root, *proof])
    if old_size in (0, size):
        expected = EMPTY_ROOT if old_size == 0 else root
        if proof or old_root != expected:
            raise BadProofError(f"the trees of size {old_size} and {size} don't agree")
        return
    old_folded, folded = _fold_consistency(old_size, old_root, size, proof)
    if old_folded != old_root:
        raise BadProofError(f"the tree of size {old_size} is not a beginning of size {size}")
    if folded != root:
        raise BadProofError(f"the consistency proof does not lead to the root of size {size}")


def _fold_consistency(
    old_size: int, old_root: bytes, size: int, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    # An old tree that is one full subtree is its own first hash, and is left out of the proof.
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        raise BadProofError("the consistency proof is too short for the trees' sizes")
    node, last = old_size - 1, size - 1
    while node & 1:
        node >>= 1
        last >>= 1
    old_folded = folded = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise BadProofError("the consistency proof is too long for the trees' sizes")
        if node & 1 or node == last:
            old_folded = node_hash(sibling, old_folded)
            folded = node_hash(sibling, folded)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            folded = node_hash(folded, sibling)
        node >>= 1
        last >>= 1
    if last != 0:
        raise BadProofError("the consistency proof is too short for the trees' sizes")
    return old_folded, folded


def _split(width: int) -> int:
    """Return the largest power of two below *width*, which is at least 2."""
    return 1 << (width - 1).bit_length() - 1


def _check_index(index: int, size: int) -> None:
    if not 0 <= index < size <= SIZE_MAX:
        raise BadProofError(f"there is no leaf {index} in a tree of size {size}")


def _check_sizes(old_size: int, size: int) -> None:
    if not 0 <= old_size <= size <= SIZE_MAX:
        raise BadProofError(f"a tree of size {old_size} can't grow into one of size {size}")


def _check_hashes(hashes: Iterable[bytes]) -> None:
    for one in hashes:
        if len(one) != HASH_BYTES:
            raise BadProofError(f"a hash has {len(one)} bytes, not {HASH_BYTES}")
