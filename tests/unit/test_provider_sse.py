"""The twin of `gateway.provider.sse`."""

from __future__ import annotations

import pytest

from gateway.provider.sse import EventSplitter


def data_of(*pieces: bytes) -> list[bytes | None]:
    """Return the data of every event of a stream that comes in *pieces*."""
    splitter = EventSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    last = splitter.finish()
    return [data for *_, data in (events if last is None else [*events, last])]


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (b"data: one\n\n", [b"one"]),
        (b"data:one\n\n", [b"one"]),
        (b"data:  one\n\n", [b" one"]),
        (b"data: one\ndata: two\n\n", [b"one\ntwo"]),
        (b"data\n\n", [None]),
        (b"data: \n\n", [None]),
        (b": comment\n\n", [None]),
        (b"event: e\nid: 1\nretry: 2\ndata: one\n\n", [b"one"]),
        (b"data: one\r\n\r\ndata: two\r\n\r\n", [b"one", b"two"]),
        (b"data: one\r\rdata: two\r\r", [b"one", b"two"]),
        (b"data: one\n\r\ndata: two\r\n\n", [b"one", b"two"]),
        (b"data: one\n\ndata: two\n\n", [b"one", b"two"]),
        (b"event: a\ndata: one\n\ndata: two\n\n", [b"one", b"two"]),
        (b"\xef\xbb\xbfdata: one\n\n", [b"one"]),
        (b"data: \xef\xbb\xbf\n\n\xef\xbb\xbfdata: two\n\n", [b"\xef\xbb\xbf", None]),
        (b"data: cut", [b"cut"]),
        (b"data: cut\r", [b"cut"]),
        (b"\n\n\n\ndata: one\n\n", [None, None, b"one"]),
        (b"", []),
    ],
)
def test_the_grammar_is_whatwgs(stream: bytes, said: list[bytes | None]) -> None:
    """Line ends, fields, comments, the mark at the start, an unfinished end: all are known."""
    assert said == data_of(stream)
    assert said == data_of(*(stream[i : i + 1] for i in range(len(stream))))


def test_an_event_knows_where_it_lies() -> None:
    """Each event begins where the one before it ends, its blank line included."""
    splitter = EventSplitter()

    assert splitter.feed(b"data: a\n\n: b\r\n\r\nda") == [(0, 9, b"a"), (9, 16, None)]
    assert splitter.feed(b"ta: c") == []
    assert splitter.feed(b"\n\n") == [(16, 25, b"c")]
    assert splitter.finish() is None


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
@pytest.mark.parametrize("step", [1, 7, 64])
def test_an_event_over_its_bound_ends_the_reading(end: bytes, step: int) -> None:
    """Events before one that is too large are read, those after it are not."""
    stream = b"data: a" + end + b"data: " + b"b" * 20 + end + b"data: c" + end
    splitter = EventSplitter(event_bytes_max=16)
    heard = []
    for at in range(0, len(stream), step):
        if not splitter.overflown:
            heard += splitter.feed(stream[at : at + step])

    assert [data for *_, data in heard] == [b"a"]
    assert splitter.overflown
    assert splitter.finish() is None


def test_a_large_chunk_of_small_events_is_fine() -> None:
    """The bound is on one event, not on what comes at once."""
    splitter = EventSplitter(event_bytes_max=16)

    assert len(splitter.feed(b"data: a\n\n" * 10)) == 10
    assert len(splitter.feed(b"data: a\r\n\r\n" * 10)) == 10
    assert not splitter.overflown
