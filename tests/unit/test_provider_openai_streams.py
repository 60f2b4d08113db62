"""Streams of every operation of OpenAI's, and of servers like it, as they were recorded."""

from __future__ import annotations

import pytest

from tests.support.recordings_openai import DIALECT, STREAMS, Stream


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: str(stream.name))
def test_a_recorded_stream_is_read(stream: Stream) -> None:
    """Fed event by event, a stream says what the provider meant, and holds back the end."""
    reader = DIALECT.answer_reader(stream.call, 200, "text/event-stream")
    released = [reader.feed(piece) for piece, _ in stream.pieces]
    answer = reader.finish()

    assert answer.readable
    assert answer.choices == stream.choices
    assert answer.units == stream.units
    assert answer.usage == stream.usage
    assert (answer.whole, answer.error) == (stream.whole, stream.error)
    assert (answer.stop, answer.provider) == (stream.stop, stream.provider)
    assert answer.made == stream.made
    assert released == sorted(released)
    assert released[-1] <= stream.last_content_at


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: str(stream.name))
def test_events_go_out_as_early_as_they_may(stream: Stream) -> None:
    """Before the first content each event goes at once; after it, up to the newest content."""
    reader = DIALECT.answer_reader(stream.call, 200, "text/event-stream")
    begin = end = content_at = 0
    spoke = False
    for piece, content in stream.pieces:
        begin, end = end, end + len(piece)
        if content:
            spoke, content_at = True, begin
        released = reader.feed(piece)

        assert released == content_at if spoke else released in (begin, end)
