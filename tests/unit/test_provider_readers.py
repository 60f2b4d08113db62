"""The twin of `gateway.provider.readers`."""

from __future__ import annotations

from gateway.canonical import sha256_hex
from gateway.provider.encoding import UNREADABLE
from gateway.provider.model import Answer, Unit
from gateway.provider.readers import (
    BodyReader,
    NonsenseError,
    OpaqueReader,
    StreamReader,
    WholeReader,
)

OPAQUE = Answer(readable=False, whole=False)
HEARD = Answer(readable=True, whole=True, id="a")


class Parrot:
    """Hears content in `c`, nothing in `n`, the end in `e`, and nonsense in anything else."""

    def __init__(self) -> None:
        self.ending = False

    def hear(self, data: bytes) -> bool:
        """Tell whether *data* is content."""
        if data not in (b"c", b"n", b"e"):
            raise NonsenseError
        self.ending = self.ending or data == b"e"
        return data == b"c"

    def answer(self) -> Answer:
        """Return the same answer always."""
        return HEARD


def heard(body: bytes) -> Answer:
    """Return an answer for a body of `ok`."""
    if body != b"ok":
        raise NonsenseError
    return HEARD


def test_an_opaque_reader_looks_one_chunk_ahead() -> None:
    """Everything but the newest chunk may go out, and nothing is read."""
    reader = OpaqueReader()

    assert [reader.feed(chunk) for chunk in (b"ab", b"", b"c", b"def")] == [0, 0, 2, 3]
    assert reader.finish() == OPAQUE


def test_a_body_that_is_one_unit_passes() -> None:
    """Its digest is made as it passes, and the newest chunk waits."""
    reader = BodyReader("audio")

    assert [reader.feed(chunk) for chunk in (b"ab", b"", b"c")] == [0, 0, 2]
    unit = Unit(kind="audio", index=0, bytes=3, sha256=sha256_hex(b"abc"))
    assert reader.finish() == Answer(readable=True, whole=True, units=(unit,))
    assert BodyReader("audio").finish() == Answer(readable=True, whole=True)


def test_a_body_waits_for_its_end() -> None:
    """Nothing of a body that is read whole goes out before it is read."""
    reader = WholeReader(heard)

    assert [reader.feed(b"o"), reader.feed(b"k")] == [0, 0]
    assert reader.finish() == HEARD


def test_a_body_of_nonsense_is_opaque() -> None:
    """A body that can't be read is an answer nobody can learn from, not an error."""
    reader = WholeReader(heard)
    reader.feed(b"no")

    assert reader.finish() == OPAQUE


def test_a_body_over_its_bound_turns_opaque() -> None:
    """From where a body is too large to hold, only the newest chunk is."""
    reader = WholeReader(heard, body_bytes_max=3)

    assert [reader.feed(chunk) for chunk in (b"ab", b"cd", b"", b"e")] == [0, 2, 2, 4]
    assert reader.finish() == OPAQUE


def test_a_stream_holds_back_its_newest_content() -> None:
    """What comes before the newest content event may go, what follows it may not."""
    reader = StreamReader(Parrot())
    c, n = b"data: c\n\n", b"data: n\n\n"

    assert [reader.feed(chunk) for chunk in (n, c, n, c, n, b"da")] == [9, 9, 9, 27, 27, 27]
    assert reader.finish() == HEARD


def test_an_answer_without_content_does_not_show_its_end() -> None:
    """Where nothing is said, everything from the first mark of the end on is held back."""
    reader = StreamReader(Parrot())
    event = len(b"data: n\n\n")

    assert event == reader.feed(b"data: n\n\n")
    assert event == reader.feed(b"data: e\n\n")
    assert event == reader.feed(b"data: n\n\n")


def test_a_stream_turns_opaque_at_nonsense() -> None:
    """After nonsense everything but the newest chunk goes, and no choice is kept."""
    reader = StreamReader(Parrot())
    chunks = (b"data: c\n\n", b"data: x\n\n", b"", b"data: c\n\n")

    assert [reader.feed(chunk) for chunk in chunks] == [0, 9, 9, 18]
    assert reader.finish() == Answer(readable=False, whole=False, id="a")


def test_what_is_released_never_shrinks() -> None:
    """Nonsense after events that went out at once takes nothing back."""
    reader = StreamReader(Parrot())

    assert reader.feed(b"data: n\n\ndata: x\n\n") == 9
    assert reader.feed(b"d") == 18


def test_a_stream_over_its_bound_turns_opaque() -> None:
    """A stream of more than can be held is passed on unread."""
    reader = StreamReader(Parrot(), stream_bytes_max=20)

    assert [reader.feed(b"data: c\n\n") for _ in range(4)] == [0, 9, 18, 27]
    assert not reader.finish().readable


def test_a_stream_may_end_without_a_blank_line() -> None:
    """An unfinished event counts if it can be read and is left out if not."""
    for end in (b"data: c", b"data: x"):
        reader = StreamReader(Parrot())
        reader.feed(end)

        assert reader.finish() == HEARD


def test_a_body_that_can_not_be_decoded_is_no_unit() -> None:
    """Of a body whose encoding is damaged nobody knows what it decodes to."""
    reader = BodyReader("audio")
    reader.feed(b"RIFF")
    reader.feed(UNREADABLE + b"\x8b")

    assert reader.finish() == OPAQUE
