"""Laws of the bits that say of which leaves something holds."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from gateway.dataset.assembly.marks import Marks
from gateway.limits import MEMBERS_PER_LEAF

INDICES = st.sets(st.integers(0, 4 * MEMBERS_PER_LEAF), max_size=40)


def marks(indices: set[int]) -> Marks:
    """Return the marks of some leaves."""
    marked = Marks()
    for index in indices:
        assert marked.add(index)
        assert not marked.add(index)
    return marked


@given(INDICES, INDICES)
def test_marks_are_a_set_of_indices(some: set[int], others: set[int]) -> None:
    """Each stands once, in rising order; of two, what either has."""
    one, two = marks(some), marks(others)
    joined = b"".join(index.to_bytes(8, "big") for index in sorted(some))
    facts = one.facts()

    assert sorted(some) == list(one)
    assert sorted(some | others) == list(one | two)
    assert [index for index in sorted(some | others) if index in one] == sorted(some)
    assert (facts.count, facts.sha256) == (len(some), hashlib.sha256(joined).hexdigest())
