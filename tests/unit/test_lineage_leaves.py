"""Laws of sets of leaves: they are sets, and a list that is not whole is refused."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataset.manifest import MembersFacts
from gateway.errors import BadDigestError, MalformedReceiptError
from gateway.ident import Sha256
from gateway.lineage.leaves import PART_LEAVES, LeafSet
from tests.support.chain import members_of

PAYLOAD = Sha256("a" * 64)
indices = st.frozensets(st.integers(0, 5 * PART_LEAVES), max_size=40)


def facts(some: frozenset[int]) -> MembersFacts:
    """Return what a manifest says of a set."""
    joined = b"".join(index.to_bytes(8, "big") for index in sorted(some))
    return MembersFacts(count=len(some), sha256=Sha256(hashlib.sha256(joined).hexdigest()))


@given(indices, indices)
def test_it_is_a_set(one: frozenset[int], other: frozenset[int]) -> None:
    """Union, intersection, difference, size, order and membership are those of sets."""
    a, b = LeafSet.of(one), LeafSet.of(other)

    assert [sorted(one), len(one)] == [list(a), len(a)]
    assert sorted(one & other) == list(a & b)
    assert sorted(one | other) == list(a | b)
    assert sorted(one - other) == list(a - b)
    assert all((index in a) == (index in one) for index in one | other)
    assert (one == other) == (a == b)


@given(indices, st.integers(0, 6 * PART_LEAVES))
def test_a_set_can_be_cut(some: frozenset[int], size: int) -> None:
    """What is below a leaf is what is below it."""
    assert sorted(one for one in some if one < size) == list(LeafSet.of(some).below(size))


@given(indices)
def test_what_is_packed_is_unpacked(some: frozenset[int]) -> None:
    """A set survives being written."""
    assert LeafSet.of(some) == LeafSet.unpacked(LeafSet.of(some).packed())


@given(indices.filter(bool))
def test_a_list_is_whole_or_refused(some: frozenset[int]) -> None:
    """All parts give the set; without one, or with one more leaf, nothing does."""
    parts = members_of(PAYLOAD, "set", sorted(some))

    assert sorted(some) == list(LeafSet.listed(parts, facts(some)))
    with pytest.raises(BadDigestError):
        LeafSet.listed(parts[1:], facts(some))
    with pytest.raises(BadDigestError):
        LeafSet.listed(
            members_of(PAYLOAD, "set", sorted({*some, 99_999})), facts(some - {99_999})
        )


@given(st.binary(max_size=40))
def test_any_bytes_are_a_set_or_refused(bits: bytes) -> None:
    """Bits that are none, or too many, are malformed and nothing else."""
    part = msgspec.structs.replace(
        members_of(PAYLOAD, "set", [1])[0], bits=bits.decode("latin-1")
    )
    with pytest.raises((MalformedReceiptError, BadDigestError)):
        LeafSet.listed([part], facts(frozenset({1})))


def test_a_part_stands_once() -> None:
    """A part twice is refused."""
    (part,) = members_of(PAYLOAD, "set", [1])

    with pytest.raises(MalformedReceiptError, match="twice"):
        LeafSet.listed([part, part], facts(frozenset({1})))
