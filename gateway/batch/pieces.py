"""Lines of a text, one by one, from chunks that end anywhere; with where each one stands."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from gateway.limits import LINE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Piece:
    """One request of a batch as it stands in the body; an empty line is none."""

    number: int
    """The line, from 0, empty ones counted; in an array, the place of the element."""
    start: int
    """Of an element but the first, where the last one ended."""
    stop: int
    """Behind it, and behind its line's end."""
    content: bytes | None
    """`None`: it is too long to be read."""
    lead: int = -1
    """Of an element, where it begins itself: what divides it from the last stands before."""


class Cut:
    """Stretches of a body, in order; those that touch are one."""

    def __init__(self) -> None:
        # A million of them are sixteen megabytes so.
        self._ends = array("Q")

    def add(self, start: int, stop: int) -> None:
        """Take the stretch in that comes next."""
        if self._ends and self._ends[-1] == start:
            self._ends[-1] = stop
        else:
            self._ends.extend((start, stop))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield each stretch: where it begins, and what stands behind it."""
        ends = iter(self._ends)
        return zip(ends, ends, strict=True)

    def __bool__(self) -> bool:
        """Tell whether there is any."""
        return bool(self._ends)

    @property
    def size(self) -> int:
        """How many bytes they are together."""
        return sum(stop - start for start, stop in self)


async def lines_of(chunks: AsyncIterator[bytes], at: int) -> AsyncIterator[Piece]:
    """Yield the lines of *chunks*, which begin at *at* of the body."""
    number, buffer, start, too_long = 0, bytearray(), at, False
    async for chunk in chunks:
        begin = 0
        while (end := chunk.find(b"\n", begin)) >= 0:
            buffer += chunk[begin:end]
            stop = at + end + 1
            piece = _piece(number, start, stop, None if too_long else buffer)
            if piece is not None:
                yield piece
            number, start, begin, too_long = number + 1, stop, end + 1, False
            buffer.clear()
        buffer += chunk[begin:]
        at += len(chunk)
        if len(buffer) > LINE_BYTES_MAX:
            too_long = True
            buffer.clear()
    piece = _piece(number, start, at, None if too_long else buffer)
    if piece is not None:
        yield piece


def _piece(number: int, start: int, stop: int, content: bytearray | None) -> Piece | None:
    if content is None or len(content) > LINE_BYTES_MAX:
        return Piece(number, start, stop, None)
    text = bytes(content.strip(b" \t\r"))
    return Piece(number, start, stop, text) if text else None
