"""Laws of reading an answer in pieces, whatever the pieces."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.provider.model import Answer, AnswerReader
from gateway.provider.sse import Event, EventSplitter
from tests.support.recordings import (
    RECORDINGS,
    Recording,
    anthropic_call,
    chunk,
    event,
    gemini_call,
    openai_call,
)

recordings = st.sampled_from(RECORDINGS)
cuts = st.lists(st.integers(0, 5000), max_size=12)

LINE_ENDS = (b"\n", b"\r\n", b"\r")
sse_bytes = st.lists(
    st.sampled_from(
        [
            b"data: ",
            b"data:",
            b"data",
            b": hm",
            b"event: x",
            b"{}",
            b"x",
            b"\xef\xbb\xbf",
            b" ",
            *LINE_ENDS,
            b"\n\n",
            b"\r\n\r\n",
        ]
    ),
    max_size=30,
).map(b"".join)

NOISE = [
    b"\n\n",
    b"\r",
    b"data: ",
    b'data: {"choices": 3}\n\n',
    b"data: [1]\n\n",
    b"data: [DONE]\n\n",
    b"[" * 3000,
    b'{"error": {}}',
    b'{"choices": []}',
    b'{"content": []}',
    chunk({"content": "so"}),
    chunk({"tool_calls": [{"function": {"arguments": {"a": 1}}}, {"id": "c"}]}),
    chunk({"content": [{"type": "text", "text": "a"}, {"thinking": [{"text": "b"}, 1]}, 2]}),
    event("message_stop"),
    event("content_block_start", index=0, content_block={"type": "tool_use", "input": 1}),
    event("content_block_delta", index=7, delta={"type": "text_delta", "text": "x"}),
    event("content_block_delta", index="odd"),
    event("content_block_start", index=0, content_block={"type": "new"}),
    event("a_new_kind"),
    b"[",
    b"]",
    b",",
    b'{"candidates": [{"content": {"parts": [{"text": "a"}, {"inlineData": {}}]}}]}',
    b'data: {"candidates": [{"content": {"parts": [{"functionCall": {}}, {}]}}]}\r\n\r\n',
    b'{"candidates": [{"content": {"parts": [{"inlineData": {"data": "!"}}]}}]}',
]
noise = st.lists(st.sampled_from(NOISE) | st.binary(max_size=20), max_size=8)


def pieces_of(stream: bytes, places: Iterable[int]) -> list[bytes]:
    """Return *stream* cut at *places*."""
    inside = sorted({place % (len(stream) + 1) for place in places})
    edges = [0, *inside, len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


def reader_of(recording: Recording) -> AnswerReader:
    """Return a fresh reader for *recording*."""
    return recording.dialect.answer_reader(recording.call, 200, recording.kind)


def read(reader: AnswerReader, pieces: Iterable[bytes]) -> tuple[list[int], Answer]:
    """Return what was released after each piece, and the answer."""
    released = [reader.feed(piece) for piece in pieces]
    return released, reader.finish()


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda r: r.name)
def test_a_recording_says_what_it_says(recording: Recording) -> None:
    """Fed event by event, an answer is what the provider meant to say."""
    _, answer = read(reader_of(recording), [piece for piece, _ in recording.pieces])

    assert recording.choices == answer.choices
    assert recording.usage == answer.usage
    assert (recording.whole, recording.error) == (answer.whole, answer.error)
    assert answer.readable
    assert answer.id in ("chatcmpl-1", "msg_1", "resp-1")
    assert answer.model in ("gpt-x-2026-08-01", "c-x-20260801", "g-x-001")


@given(recordings, cuts)
def test_cuts_change_nothing_in_an_answer(recording: Recording, places: list[int]) -> None:
    """However a stream is cut into chunks, the same answer is read."""
    _, uncut = read(reader_of(recording), [recording.stream])

    assert uncut == read(reader_of(recording), pieces_of(recording.stream, places))[1]


@given(recordings, cuts)
def test_the_last_content_waits(recording: Recording, places: list[int]) -> None:
    """What may go out never shrinks, nor passes what came, nor reaches the last content."""
    pieces = pieces_of(recording.stream, places)
    released, _ = read(reader_of(recording), pieces)

    assert sorted(released) == released
    assert released[-1] == recording.last_content_at
    came = 0
    for piece, may_go in zip(pieces, released, strict=True):
        came += len(piece)
        assert may_go <= came


@given(recordings)
def test_events_go_out_as_early_as_they_may(recording: Recording) -> None:
    """Before the first content each event goes at once; after it, up to the newest content."""
    reader = reader_of(recording)
    begin = end = content_at = 0
    spoke = False
    for piece, content in recording.pieces:
        begin, end = end, end + len(piece)
        if content:
            spoke, content_at = True, begin

        assert reader.feed(piece) == (content_at if spoke else end)


@given(recordings, st.integers(1, 5000))
def test_a_stream_broken_off_is_not_whole(recording: Recording, place: int) -> None:
    """Wherever a stream breaks off before its end was seen, what was read is a prefix."""
    cut = place % recording.last_content_at if recording.last_content_at else 0
    _, answer = read(reader_of(recording), [recording.stream[:cut]])

    assert answer.readable
    assert not answer.whole
    for heard in answer.choices:
        (meant,) = (choice for choice in recording.choices if choice.index == heard.index)
        assert meant.text.startswith(heard.text)


@given(sse_bytes, cuts)
def test_events_tile_the_stream(stream: bytes, places: list[int]) -> None:
    """However a stream is cut, it has the same events, each beginning where the last ended."""
    uncut = events_of([stream])
    cut = events_of(pieces_of(stream, places))

    assert uncut == cut
    at = 0
    for begin, end, _ in uncut:
        assert begin == at < end
        at = end
    assert at == len(stream)


@given(sse_bytes)
def test_line_ends_are_alike(stream: bytes) -> None:
    """The same lines have the same data, whichever end of line they have."""
    lines = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    said = [[data for *_, data in events_of([lines.replace(b"\n", e)])] for e in LINE_ENDS]

    assert said[0] == said[1] == said[2]


def events_of(pieces: Iterable[bytes]) -> list[Event]:
    """Return the events of a stream that comes in *pieces*, the unfinished one too."""
    splitter = EventSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    last = splitter.finish()
    return events if last is None else [*events, last]


@given(noise, cuts, st.sampled_from(["text/event-stream", "application/json", ""]))
def test_no_bytes_of_a_provider_raise(said: list[bytes], places: list[int], kind: str) -> None:
    """Whatever a provider sends, a reader gives an answer, the same for any cuts."""
    stream = b"".join(said)
    for status in (200, 500):
        for recording in _ONE_EACH:
            for call in (recording.call, openai_call(), anthropic_call(), gemini_call("")):
                readers = [recording.dialect.answer_reader(call, status, kind) for _ in "ab"]
                _, uncut = read(readers[0], [stream])
                released, cut = read(readers[1], pieces_of(stream, places))

                assert uncut == cut
                assert sorted(released) == released
                assert not cut.whole or cut.readable


_ONE_EACH = tuple({one.dialect.name: one for one in RECORDINGS}.values())
KEYS = st.sampled_from(
    [
        "candidates",
        "parts",
        "functionCall",
        "inlineData",
        "mimeType",
        "fileData",
        "finishReason",
        "promptFeedback",
        "blockReason",
        "usageMetadata",
        "promptTokenCount",
        "groundingMetadata",
        "thought",
        "citations",
        "container",
        "choices",
        "index",
        "delta",
        "message",
        "content",
        "tool_calls",
        "function",
        "id",
        "name",
        "arguments",
        "usage",
        "error",
        "type",
        "text",
        "content_block",
        "input",
        "thinking",
        "stop_reason",
        "stop_details",
        "finish_reason",
        "refusal",
        "data",
        "partial_json",
        "prompt_tokens",
        "prompt_tokens_details",
        "cached_tokens",
        "custom",
        "audio",
    ]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=4))
def test_no_shape_of_a_provider_raises(values: list[object]) -> None:
    """Whatever JSON a provider sends, a reader gives an answer."""
    for recording in _ONE_EACH:
        for value in values:
            body = json.dumps(value).encode()
            read(
                recording.dialect.answer_reader(recording.call, 200, "application/json"), [body]
            )
            read(
                recording.dialect.answer_reader(recording.call, 404, "application/json"), [body]
            )
        stream = b"".join(b"data: %s\n\n" % json.dumps(value).encode() for value in values)
        read(reader_of(recording), [stream])
