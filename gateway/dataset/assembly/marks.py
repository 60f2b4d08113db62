"""Which leaves of the log something holds of, as bits: one for each, in pages that are touched.

Ten million leaves take a megabyte or two, however often each is marked.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import Final

from gateway.dataset.manifest import MembersFacts
from gateway.ident import Sha256
from gateway.limits import MEMBERS_PER_LEAF

PAGE_BYTES: Final = MEMBERS_PER_LEAF // 8

_PLACES: Final = tuple(
    tuple(bit for bit in range(8) if value >> bit & 1) for value in range(256)
)
_STEP: Final = 64
_BLANK: Final = bytes(_STEP)


class Marks:
    """Leaf indices, each once."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def add(self, index: int) -> bool:
        """Mark *index*; tell whether it was not marked yet."""
        number, place = divmod(index, MEMBERS_PER_LEAF)
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = bytearray(PAGE_BYTES)
        byte, bit = place >> 3, 1 << (place & 7)
        if page[byte] & bit:
            return False
        page[byte] |= bit
        return True

    def __contains__(self, index: int) -> bool:
        """Tell whether *index* is marked."""
        number, place = divmod(index, MEMBERS_PER_LEAF)
        page = self._pages.get(number)
        return page is not None and bool(page[place >> 3] & 1 << (place & 7))

    def __iter__(self) -> Iterator[int]:
        """Yield them, rising."""
        for first, page in self.pages():
            yield from _marked(first, page)

    def __or__(self, other: Marks) -> Marks:
        """Return what either marks."""
        both = Marks()
        for first, page in (*self.pages(), *other.pages()):
            number = first // MEMBERS_PER_LEAF
            known = int.from_bytes(both._pages.get(number, b""), "little")
            united = known | int.from_bytes(page, "little")
            both._pages[number] = bytearray(united.to_bytes(PAGE_BYTES, "little"))
        return both

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Yield the first index of each page with marks, rising, and its bits, low first."""
        for number in sorted(self._pages):
            yield number * MEMBERS_PER_LEAF, bytes(self._pages[number])

    def facts(self) -> MembersFacts:
        """Return how many there are, and the digest of them: each in eight bytes, rising."""
        count, digest = 0, hashlib.sha256()
        for first, page in self.pages():
            indices = list(_marked(first, page))
            count += len(indices)
            digest.update(struct.pack(f">{len(indices)}Q", *indices))
        return MembersFacts(count=count, sha256=Sha256(digest.hexdigest()))


def _marked(first: int, page: bytes) -> Iterator[int]:
    for at in range(0, PAGE_BYTES, _STEP):
        if page[at : at + _STEP] == _BLANK:
            continue
        for byte in range(at, at + _STEP):
            begin = first + (byte << 3)
            for bit in _PLACES[page[byte]]:
                yield begin + bit
