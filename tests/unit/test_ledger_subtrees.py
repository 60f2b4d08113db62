"""Laws of roots of parts of the tree."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from gateway.ledger.reading.subtrees import Subtrees
from gateway.store.ports import Appended, Head
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.merkle import (
    EMPTY_ROOT,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

SIZE = 66_000
"""More than one full tile of the second level."""


class Plain:
    """A store of leaves without tiles, which counts what is read."""

    def __init__(self, leaves: list[bytes]) -> None:
        self._leaves = leaves
        self.read = 0

    def append(
        self, leaves: Sequence[bytes], hashes: Sequence[bytes] | None = None
    ) -> Appended:
        """Refuse: nothing is added here."""
        raise AssertionError

    def head(self) -> Head:
        """Refuse: nobody asks."""
        raise AssertionError

    def leaves(self, first: int, stop: int) -> Iterator[bytes]:
        """Yield leaves and count them."""
        self.read += stop - first
        yield from self._leaves[first:stop]

    def publish(self, size: int, note: str) -> None:
        """Refuse: nothing is published."""
        raise AssertionError

    def checkpoint(self) -> str | None:
        """Refuse: nobody asks."""
        raise AssertionError

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(scope="module")
def leaves() -> list[bytes]:
    """Return the leaves of a large ledger."""
    return [number.to_bytes(4, "big") for number in range(SIZE)]


@pytest.fixture(scope="module")
def hashes(leaves: list[bytes]) -> list[bytes]:
    """Return the hashes of the leaves."""
    return [leaf_hash(leaf) for leaf in leaves]


@pytest.fixture(scope="module")
def store(
    leaves: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SqliteLedger]:
    """Return a store of the leaves, some of its tiles kept and others not."""
    path: Path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    with contextlib.closing(SqliteLedger.create(path, "o.example/x")) as one:
        for first in range(0, SIZE, 1000):
            one.append(leaves[first : first + 1000])
        one.publish(SIZE, "note")
        one._side.execute("DELETE FROM tile WHERE number % 3 = 1")
        yield one


def test_it_proves_like_one_who_knows_all(
    leaves: list[bytes], hashes: list[bytes], store: SqliteLedger
) -> None:
    """Proofs made from tiles verify, for any leaf and any size."""
    rng = Random(1)
    subtrees = Subtrees(store)
    sizes = [1, 2, 255, 256, 257, 65_535, 65_536, 65_537, SIZE, rng.randrange(1, SIZE)]
    for size in sizes:
        root = root_of(hashes[:size])
        assert subtrees.root(0, size) == root
        for index in {0, size - 1, rng.randrange(size), rng.randrange(size)}:
            proof = inclusion_proof(index, size, subtrees.root)

            verify_inclusion(leaf_hash(leaves[index]), index, size, proof, root)


def test_growth_is_proved(hashes: list[bytes], store: SqliteLedger) -> None:
    """Consistency proofs made from tiles verify."""
    subtrees = Subtrees(store)
    for old, new in ((1, 2), (255, 300), (256, SIZE), (40_001, 65_536), (65_537, SIZE)):
        proof = consistency_proof(old, new, subtrees.root)

        verify_consistency(old, root_of(hashes[:old]), new, root_of(hashes[:new]), proof)


def test_it_does_without_tiles(leaves: list[bytes], hashes: list[bytes]) -> None:
    """A store that keeps no tiles gives the same roots, at the price of reading more."""
    assert Subtrees(Plain(leaves)).root(0, 1000) == root_of(hashes[:1000])
    assert Subtrees(Plain(leaves)).root(0, 0) == EMPTY_ROOT


def test_a_second_proof_reads_little(leaves: list[bytes]) -> None:
    """What was computed for one proof is not read again for the next."""
    store = Plain(leaves)
    subtrees = Subtrees(store)
    inclusion_proof(5, 65_536, subtrees.root)
    before = store.read
    for index in range(500, 700):
        inclusion_proof(index, 65_536, subtrees.root)

    assert store.read - before <= 1024


def test_memory_is_bounded(leaves: list[bytes]) -> None:
    """However much is asked, what is remembered stays under its bound."""
    subtrees = Subtrees(Plain(leaves))
    for first in range(0, 65_536, 256):
        subtrees.root(first, first + 256)
        subtrees.root(first, first + 128)

    assert len(subtrees._read) <= 128
    assert len(subtrees._full) <= 65_536 + 512
