"""Laws of places within a stretch."""

from __future__ import annotations

import zlib

import pytest

from gateway.store.index.places import (
    ALL,
    PLACES_BYTES,
    STRETCH,
    after,
    pack,
    places_of,
    unpack,
)


@pytest.mark.parametrize("places", [(), (0,), (STRETCH - 1,), (3, 70, 8000), range(STRETCH)])
def test_places_come_back(places: tuple[int, ...]) -> None:
    """What is packed is unpacked as the same places, in order, in no more bytes."""
    bits = sum(1 << place for place in places)
    kept = pack(bits.to_bytes(PLACES_BYTES, "little"))

    assert list(places) == list(places_of(unpack(kept)))
    assert len(kept) <= PLACES_BYTES


def test_noise_is_kept_as_it_is() -> None:
    """Bits that don't get smaller are kept in their own size."""
    bits = 1
    for _ in range(STRETCH // 8):
        bits = (bits * 6364136223846793005 + 1442695040888963407) & ALL
    kept = pack(bits.to_bytes(PLACES_BYTES, "little"))

    assert PLACES_BYTES == len(kept)
    assert bits == unpack(kept)


def test_what_comes_before_is_left_out() -> None:
    """Only places after the given one are left."""
    bits = 1 << 3 | 1 << 4 | 1 << 9

    assert [9] == list(places_of(after(bits, 4)))
    assert [] == list(places_of(after(bits, 9)))


@pytest.mark.parametrize("kept", [b"", b"noise", zlib.compress(b"short")])
def test_other_bytes_are_no_places(kept: bytes) -> None:
    """What is damaged is said to be."""
    with pytest.raises(ValueError, match="not the bits"):
        unpack(kept)
