"""Sets of places within a stretch of the ledger, as bits: small to keep, quick to intersect.

A stretch is `STRETCH` leaves in a row, so the leaves of some hours or days. For everything that
can be searched by, the index keeps which places of a stretch have it; a search is then a few
operations on whole numbers, whatever it combines.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

STRETCH: Final = 8_192
"""Leaves in a row that are indexed together."""

PLACES_BYTES: Final = STRETCH // 8
ALL: Final = (1 << STRETCH) - 1
"""Every place of a stretch."""

_ZLIB_LEVEL: Final = 1


def pack(places: bytes | bytearray) -> bytes:
    """Return the bits of a stretch, in bytes of eight places, as they are kept."""
    packed = zlib.compress(places, _ZLIB_LEVEL)
    return packed if len(packed) < PLACES_BYTES else bytes(places)


def unpack(kept: bytes) -> int:
    """Return kept bits as a number, whose bit *n* stands for place *n*.

    Raises:
        ValueError: these are no bits of a stretch.
    """
    try:
        places = kept if len(kept) == PLACES_BYTES else zlib.decompress(kept)
    except zlib.error as broken:
        raise ValueError("not the bits of a stretch") from broken
    if len(places) != PLACES_BYTES:
        raise ValueError("not the bits of a stretch")
    return int.from_bytes(places, "little")


def places_of(bits: int) -> Iterator[int]:
    """Yield the places that *bits* stand for, in order."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def after(bits: int, place: int) -> int:
    """Return *bits* without those of *place* and of the places before it."""
    return (bits >> (place + 1)) << (place + 1)
