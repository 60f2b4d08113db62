"""Sets of leaves, in chunks of 65,536 in a row: what a dataset was made from, as bits."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from gateway.ident import Sha256
from gateway.receipt.model import Members

CHUNK: Final = 65_536
"""Leaves in a row whose members are kept together."""
CHUNK_BYTES: Final = CHUNK // 8
_SPARSE_MAX: Final = CHUNK_BYTES // 2 - 1
"""Up to so many places are kept one by one, two bytes each; more as bits."""
_FEW: Final = 2_048
"""So few places are looked at without numpy."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Members of a dataset among the leaves of one chunk."""

    manifest: Sha256
    number: int
    bits: bytes
    """Of each byte the lowest first."""


def chunk_of(members: Members) -> Chunk | None:
    """Return the members that a leaf lists; `None` where its bits can't be read."""
    if members.first < 0 or members.first % CHUNK:
        return None
    unpacking = zlib.decompressobj()
    try:
        packed = base64.b64decode(members.bits, validate=True)
        bits = unpacking.decompress(packed, CHUNK_BYTES)
    except (binascii.Error, ValueError, zlib.error):
        return None
    if unpacking.unconsumed_tail or not unpacking.eof:
        return None
    return Chunk(manifest=members.manifest, number=members.first // CHUNK, bits=bits)


def pack_chunk(bits: bytes) -> tuple[int, bytes]:
    """Return how many bits are set, and the bits as they are kept."""
    count = int.from_bytes(bits, "little").bit_count()
    if count > _SPARSE_MAX:
        return count, bits.ljust(CHUNK_BYTES, b"\0")
    return count, b"".join(place.to_bytes(2, "little") for place in places_in(bits))


def unpack_chunk(kept: bytes) -> bytes:
    """Return the bits of a chunk, all 8,192 bytes of them."""
    if len(kept) == CHUNK_BYTES:
        return kept
    bits = bytearray(CHUNK_BYTES)
    for at in range(0, len(kept), 2):
        place = int.from_bytes(kept[at : at + 2], "little")
        bits[place >> 3] |= 1 << (place & 7)
    return bytes(bits)


def has_place(kept: bytes, place: int) -> bool:
    """Tell whether a kept chunk holds *place*."""
    if len(kept) == CHUNK_BYTES:
        return bool(kept[place >> 3] >> (place & 7) & 1)
    low, high = 0, len(kept) // 2
    while low < high:
        middle = (low + high) // 2
        found = int.from_bytes(kept[2 * middle : 2 * middle + 2], "little")
        if found == place:
            return True
        low, high = (middle + 1, high) if found < place else (low, middle)
    return False


def places_in(bits: bytes) -> Iterator[int]:
    """Yield the places that are set, rising."""
    for at, byte in enumerate(bits):
        if byte:
            yield from ((at << 3) + bit for bit in range(8) if byte >> bit & 1)


def common(kept: Sequence[bytes], bits: bytes) -> list[int]:
    """Return how many places of each kept chunk are set in *bits*, a chunk's 8,192 bytes."""
    counts = [0] * len(kept)
    wanted = int.from_bytes(bits, "little")
    sparse = []
    for number, one in enumerate(kept):
        if len(one) == CHUNK_BYTES:
            counts[number] = (int.from_bytes(one, "little") & wanted).bit_count()
        elif one:
            sparse.append(number)
    places = b"".join(kept[number] for number in sparse)
    if len(places) <= 2 * _FEW:
        for number in sparse:
            for place in struct.unpack(f"<{len(kept[number]) // 2}H", kept[number]):
                counts[number] += bits[place >> 3] >> (place & 7) & 1
        return counts
    import numpy as np  # noqa: PLC0415  # it takes a tenth of a second to load

    # All of them at once: each alone would cost more in calls than in counting.
    is_set = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little")
    found = is_set[np.frombuffer(places, dtype="<u2")].astype(np.int64)
    starts = np.cumsum([0, *(len(kept[number]) // 2 for number in sparse[:-1])])
    for number, count in zip(sparse, np.add.reduceat(found, starts).tolist(), strict=True):
        counts[number] = count
    return counts
