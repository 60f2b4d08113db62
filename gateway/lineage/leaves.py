"""Sets of leaves as the log states them: what a dataset was made from, bit by bit.

The parts of such a list are leaves themselves (`Members`); the manifest that they name says how
many leaves there are, and their digest. So a set is complete or it is refused: what is not in
it was not used.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from gateway.dataset.manifest import MembersFacts
from gateway.errors import BadDigestError, MalformedReceiptError
from gateway.receipt.model import Members
from gateway.tlog.text import SIZE_MAX

PART_LEAVES: Final = 65_536
"""How many leaves one part of a list is about."""

_PART_BYTES: Final = PART_LEAVES // 8
_BITS: Final = tuple(bytes(bit for bit in range(8) if byte >> bit & 1) for byte in range(256))


class LeafSet:
    """A set of leaf indices; it takes at most 8 KiB for each 65,536 leaves that it touches."""

    def __init__(self, parts: Mapping[int, bytes] | None = None) -> None:
        self._parts = {
            first: bits for first, bits in (parts or {}).items() if bits.strip(b"\0")
        }

    @classmethod
    def of(cls, indices: Iterable[int]) -> LeafSet:
        """Return the set of *indices*."""
        parts: dict[int, bytearray] = {}
        for index in indices:
            first, place = index - index % PART_LEAVES, index % PART_LEAVES
            parts.setdefault(first, bytearray(_PART_BYTES))[place >> 3] |= 1 << (place & 7)
        return cls({first: bytes(bits) for first, bits in parts.items()})

    @classmethod
    def listed(cls, parts: Iterable[Members], facts: MembersFacts) -> LeafSet:
        """Return the set that *parts* list, which the manifest says are *facts*.

        Raises:
            MalformedReceiptError: a part can't be read, or stands there twice.
            BadDigestError: parts are missing, or they are not what the manifest says.
        """
        bits: dict[int, bytes] = {}
        count = 0
        for part in parts:
            if part.first in bits or not _begins(part.first):
                raise MalformedReceiptError(
                    f"members of `{part.dataset}`: a part twice, or at no place for one"
                )
            bits[part.first] = _unpacked(part)
            count += 1
            expected = part.parts
            if expected < 1 or not 0 <= part.part < expected:
                raise MalformedReceiptError(f"members of `{part.dataset}`: a part of none")
        found = cls(bits)
        if len(found) != facts.count or found.sha256() != facts.sha256:
            raise BadDigestError(
                f"the list of what it was made from has {len(found)} leaves in {count} parts,"
                f" not the {facts.count} that the manifest says",
                hint="every part of the list belongs into the evidence",
            )
        return found

    def __contains__(self, index: int) -> bool:
        """Tell whether leaf *index* is in the set."""
        bits = self._parts.get(index - index % PART_LEAVES, b"")
        place = index % PART_LEAVES
        return place >> 3 < len(bits) and bool(bits[place >> 3] >> (place & 7) & 1)

    def __len__(self) -> int:
        """Return how many leaves there are in the set."""
        return sum(int.from_bytes(bits).bit_count() for bits in self._parts.values())

    def __iter__(self) -> Iterator[int]:
        """Yield the leaf indices, rising."""
        for first, bits in sorted(self._parts.items()):
            for at, byte in enumerate(bits):
                if byte:
                    for bit in _BITS[byte]:
                        yield first + 8 * at + bit

    def __and__(self, other: LeafSet) -> LeafSet:
        """Return what is in both sets."""
        both = self._parts.keys() & other._parts.keys()
        return LeafSet({first: _bits(self._at(first) & other._at(first)) for first in both})

    def __or__(self, other: LeafSet) -> LeafSet:
        """Return what is in either set."""
        either = self._parts.keys() | other._parts.keys()
        return LeafSet({first: _bits(self._at(first) | other._at(first)) for first in either})

    def __sub__(self, other: LeafSet) -> LeafSet:
        """Return what is in this set and not in the other."""
        return LeafSet(
            {first: _bits(self._at(first) & ~other._at(first)) for first in self._parts}
        )

    def below(self, size: int) -> LeafSet:
        """Return what of it is below leaf *size*."""
        mask = (1 << size % PART_LEAVES) - 1
        last = size - size % PART_LEAVES
        parts = {first: bits for first, bits in self._parts.items() if first < last}
        if last in self._parts:
            parts[last] = _bits(self._at(last) & mask)
        return LeafSet(parts)

    def _at(self, first: int) -> int:
        return int.from_bytes(self._parts.get(first, b""), "little")

    def __eq__(self, other: object) -> bool:
        """Tell whether both sets hold the same leaves."""
        return isinstance(other, LeafSet) and not len(self - other) and not len(other - self)

    __hash__ = None  # type: ignore[assignment]  # equal sets may be written differently

    def sha256(self) -> str:
        """Return the digest of the indices in rising order, each as 8 bytes, big end first."""
        import numpy as np  # noqa: PLC0415  # it takes a tenth of a second to load

        digest = hashlib.sha256()
        for first, bits in sorted(self._parts.items()):
            places = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little").nonzero()
            digest.update((places[0] + first).astype(">u8").tobytes())
        return digest.hexdigest()

    def packed(self) -> dict[str, str]:
        """Return the set as JSON-ready text: for each first leaf the bits, as in `Members`."""
        return {
            str(first): base64.b64encode(zlib.compress(bits.rstrip(b"\0"), 9)).decode()
            for first, bits in sorted(self._parts.items())
        }

    @classmethod
    def unpacked(cls, packed: Mapping[str, str]) -> LeafSet:
        """Return the set that `packed` wrote.

        Raises:
            MalformedReceiptError: it is not one, or not written in the one way.
        """
        try:
            found = cls({int(first): _inflated(bits) for first, bits in packed.items()})
        except (ValueError, zlib.error) as exc:
            raise MalformedReceiptError("a set of leaves can't be read") from exc
        if not all(_begins(first) for first in found._parts):
            raise MalformedReceiptError("a set of leaves begins at no place for one")
        return found


def _begins(first: int) -> bool:
    """Tell whether a part may begin at that leaf."""
    return 0 <= first <= SIZE_MAX and first % PART_LEAVES == 0


def _bits(number: int) -> bytes:
    return number.to_bytes(_PART_BYTES, "little")


def _unpacked(part: Members) -> bytes:
    try:
        return _inflated(part.bits)
    except (ValueError, zlib.error) as exc:
        raise MalformedReceiptError(
            f"members of `{part.dataset}`, part {part.part}: can't be read"
        ) from exc


def _inflated(bits: str) -> bytes:
    """Return bits as they were before they were packed; never more than a part's."""
    unpacker = zlib.decompressobj()
    found = unpacker.decompress(base64.b64decode(bits, validate=True), _PART_BYTES)
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("not the bits of one part")
    return found
