"""Laws of consistency proofs as text."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import EvidenceError
from gateway.tlog.merkle import (
    consistency_proof,
    leaf_hash,
    root_of,
    verify_consistency,
)
from gateway.tlog.proof import ConsistencyProof, format_consistency, parse_consistency
from gateway.tlog.text import SIZE_MAX

NOTES = st.text(min_size=1, max_size=200)
HASHES = st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple)
SIZES = st.integers(min_value=0, max_value=SIZE_MAX)


@given(SIZES, HASHES, NOTES)
def test_what_is_written_is_read(size: int, hashes: tuple[bytes, ...], note: str) -> None:
    """Any proof is read back as it was, and written again in the same characters."""
    proof = ConsistencyProof(size, hashes, note)
    text = format_consistency(proof)

    assert proof == parse_consistency(text)


@given(st.text(max_size=300) | st.text(alphabet="old 0123456789AQgw=+/\n", max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else than our own error comes of it; what is read is written as it was."""
    with contextlib.suppress(EvidenceError):
        assert text == format_consistency(parse_consistency(text))


@given(st.data())
def test_growth_is_shown_through_text(data: st.DataObject) -> None:
    """A proof that was made, written and read shows the growth it was made for."""
    size = data.draw(st.integers(min_value=1, max_value=300))
    old = data.draw(st.integers(min_value=0, max_value=size))
    hashes = [leaf_hash(b"%d" % number) for number in range(size)]
    path = consistency_proof(old, size, lambda first, stop: root_of(hashes[first:stop]))
    read = parse_consistency(format_consistency(ConsistencyProof(old, tuple(path), "note\n")))

    verify_consistency(read.old_size, root_of(hashes[:old]), size, root_of(hashes), read.hashes)
