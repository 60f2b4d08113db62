"""Laws of the tree."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.errors import BadProofError
from gateway.tlog.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

HASHES = [leaf_hash(b"%d" % number) for number in range(20)]


def subtree(first: int, stop: int) -> bytes:
    """Return the root of leaves *first* up to *stop*."""
    return root_of(HASHES[first:stop])


def test_an_empty_tree_has_the_root_of_nothing() -> None:
    """A frontier without leaves has the digest of no bytes as its root."""
    assert Frontier().root() == EMPTY_ROOT
    assert root_of([]) == EMPTY_ROOT


def test_leaves_and_nodes_hash_apart() -> None:
    """No leaf can be passed off as an inner node."""
    assert leaf_hash(HASHES[0] + HASHES[1]) != node_hash(HASHES[0], HASHES[1])


def test_a_frontier_goes_on_from_what_was_kept() -> None:
    """A frontier made of size and hashes grows as the one they were taken from."""
    first = Frontier()
    for one in HASHES[:11]:
        first.push(one)
    second = Frontier(first.size, first.hashes)
    for one in HASHES[11:]:
        second.push(one)

    assert second.root() == root_of(HASHES)
    assert second.size == 20


def test_a_copy_grows_on_its_own() -> None:
    """Pushing to a copy leaves the frontier it came from as it was."""
    one = Frontier(1, HASHES[:1])
    other = one.copy()
    other.push(HASHES[1])

    assert (one.size, other.size) == (1, 2)
    assert one.root() == HASHES[0]


@pytest.mark.parametrize(
    ("size", "hashes"),
    [(-1, []), (3, HASHES[:1]), (1, []), (1, [b"short"]), (2**63, HASHES[:1])],
)
def test_a_frontier_that_can_not_be_is_refused(size: int, hashes: list[bytes]) -> None:
    """A frontier has one 32-byte hash for each bit of its size, below 2^63."""
    with pytest.raises(BadProofError):
        Frontier(size, hashes)


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0), (0, 2**63)])
def test_no_proof_for_a_leaf_outside(index: int, size: int) -> None:
    """A leaf outside the tree has no inclusion proof, and none is believed."""
    with pytest.raises(BadProofError):
        inclusion_proof(index, size, subtree)
    with pytest.raises(BadProofError):
        verify_inclusion(HASHES[0], index, size, [], HASHES[0])


def longer(proof: list[bytes]) -> list[bytes]:
    """Return *proof* with one hash too many."""
    return [*proof, HASHES[0]]


def shorter(proof: list[bytes]) -> list[bytes]:
    """Return *proof* without its last hash."""
    return proof[:-1]


def swapped(proof: list[bytes]) -> list[bytes]:
    """Return *proof* upside down."""
    return proof[::-1]


def clipped(proof: list[bytes]) -> list[bytes]:
    """Return *proof* with a hash that is one byte short."""
    return [proof[0][:-1], *proof[1:]]


BENDS = [longer, shorter, swapped, clipped]
Bend = Callable[[list[bytes]], list[bytes]]


@pytest.mark.parametrize("bend", BENDS)
@pytest.mark.parametrize(("index", "size"), [(0, 3), (2, 7), (6, 7), (18, 19), (0, 16)])
def test_a_bent_inclusion_proof_fails(bend: Bend, index: int, size: int) -> None:
    """An inclusion proof must have exactly its hashes in exactly their order."""
    proof = inclusion_proof(index, size, subtree)
    bent = bend(proof)
    root = subtree(0, size)

    verify_inclusion(HASHES[index], index, size, proof, root)
    if bent != proof:
        with pytest.raises(BadProofError):
            verify_inclusion(HASHES[index], index, size, bent, root)


@pytest.mark.parametrize("bend", BENDS)
@pytest.mark.parametrize(("old", "size"), [(1, 3), (3, 7), (6, 7), (4, 8), (8, 19), (7, 20)])
def test_a_bent_consistency_proof_fails(bend: Bend, old: int, size: int) -> None:
    """A consistency proof must have exactly its hashes in exactly their order."""
    proof = consistency_proof(old, size, subtree)
    bent = bend(proof)
    roots = subtree(0, old), subtree(0, size)

    verify_consistency(old, roots[0], size, roots[1], proof)
    if bent != proof:
        with pytest.raises(BadProofError):
            verify_consistency(old, roots[0], size, roots[1], bent)


def test_a_forked_tree_is_not_consistent() -> None:
    """A tree that changed an old leaf is not the old tree grown."""
    forked = [leaf_hash(b"other"), *HASHES[1:]]
    proof = consistency_proof(6, 12, lambda first, stop: root_of(forked[first:stop]))

    with pytest.raises(BadProofError):
        verify_consistency(6, subtree(0, 6), 12, root_of(forked[:12]), proof)
    with pytest.raises(BadProofError):
        verify_consistency(6, root_of(forked[:6]), 12, subtree(0, 12), proof)


def test_an_empty_tree_grows_into_any() -> None:
    """Every tree is consistent with the empty one, without a hash to show."""
    assert consistency_proof(0, 9, subtree) == []

    verify_consistency(0, EMPTY_ROOT, 9, subtree(0, 9), [])
    with pytest.raises(BadProofError):
        verify_consistency(0, HASHES[0], 9, subtree(0, 9), [])


def test_a_tree_is_consistent_with_itself_alone() -> None:
    """Trees of one size are consistent if their roots are equal, without a hash to show."""
    assert consistency_proof(9, 9, subtree) == []

    verify_consistency(9, subtree(0, 9), 9, subtree(0, 9), [])
    with pytest.raises(BadProofError):
        verify_consistency(9, subtree(0, 9), 9, subtree(1, 10), [])
    with pytest.raises(BadProofError):
        verify_consistency(9, subtree(0, 9), 9, subtree(0, 9), [HASHES[0]])


@pytest.mark.parametrize(("old", "size"), [(3, 2), (-1, 2), (1, 2**63)])
def test_a_tree_does_not_shrink(old: int, size: int) -> None:
    """No consistency proof leads from a larger tree to a smaller one."""
    with pytest.raises(BadProofError):
        consistency_proof(old, size, subtree)
    with pytest.raises(BadProofError):
        verify_consistency(old, HASHES[0], size, HASHES[0], [])


def test_a_missing_consistency_proof_fails() -> None:
    """Where the old tree is no full subtree, an empty proof shows nothing."""
    with pytest.raises(BadProofError):
        verify_consistency(3, subtree(0, 3), 7, subtree(0, 7), [])
