"""Laws of OpenAI's operations, whatever is asked and whatever comes back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.canonical import canonical_json
from gateway.errors import MalformedBodyError
from gateway.provider.model import (
    OPAQUE_ROUTE,
    Answer,
    AnswerReader,
    Choice,
    ProviderCall,
    Resource,
    Route,
    Taking,
    ToolCall,
    UnteachableError,
)
from gateway.provider.openai.azure import AzureDialect
from gateway.provider.openai.form import fields_of
from gateway.provider.openai.routes import ROUTES
from tests.support.recordings_openai import DIALECT, STREAMS, Stream

AZURE = AzureDialect()
ROW_CODES = {
    "row.empty",
    "row.filtered",
    "row.legacy-functions",
    "row.malformed",
    "row.no-messages",
    "row.not-text",
    "row.not-whole-prompt",
    "row.refused",
    "row.server-tool",
    "row.truncated",
}
KEYS = st.sampled_from(
    [
        "action",
        "annotations",
        "arguments",
        "audio",
        "b64_json",
        "call_id",
        "choices",
        "citations",
        "code",
        "code_interpreter",
        "container_id",
        "content",
        "conversation",
        "custom",
        "data",
        "delta",
        "embedding",
        "encrypted_content",
        "error",
        "error_file_id",
        "file",
        "file_id",
        "finish_reason",
        "function",
        "id",
        "image_url",
        "images",
        "incomplete_details",
        "index",
        "input",
        "instructions",
        "item",
        "items",
        "message",
        "messages",
        "model",
        "name",
        "object",
        "output",
        "output_file_id",
        "output_index",
        "output_text",
        "partial_image_b64",
        "previous_response_id",
        "prompt",
        "provider",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "refusal",
        "response",
        "result",
        "result_files",
        "results",
        "role",
        "segments",
        "seconds",
        "status",
        "store",
        "stream",
        "summary",
        "text",
        "thinking",
        "thread_id",
        "timings",
        "tool_calls",
        "tools",
        "type",
        "url",
        "usage",
        "x_groq",
    ]
)
WORDS = st.sampled_from(
    [
        "a",
        "assistant",
        "completed",
        "computer_call",
        "custom",
        "custom_tool_call",
        "error",
        "function",
        "function_call",
        "function_call_output",
        "image_generation_call",
        "in_progress",
        "incomplete",
        "input_image",
        "input_text",
        "item_reference",
        "message",
        "output_text",
        "queued",
        "reasoning",
        "refusal",
        "resp_1",
        "response.completed",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.delta",
        "speech.audio.delta",
        "system",
        "text",
        "transcript.text.done",
        "transcript.text.segment",
        "user",
        "web_search_call",
        "QUFB",
        "{}",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)
objects = st.dictionaries(KEYS, values, max_size=6)
routes = st.sampled_from(ROUTES)
streams = st.sampled_from(STREAMS)
cuts = st.lists(st.integers(0, 5000), max_size=12)
kinds = st.sampled_from(["application/json", "text/event-stream", "text/plain", ""])


def path_of(route: Route) -> str:
    """Return a path on which *route* is found."""
    path = route.path
    while "{" in path:
        before, _, rest = path.partition("{")
        path = before + "some-id" + rest.partition("}")[2]
    return "/v1" + path


def called(route: Route, body: bytes, kind: str = "application/json") -> ProviderCall:
    """Return what is asked by *body* on *route*, or by none where it can't be read."""
    found = DIALECT.found(route.methods[0], path_of(route))
    held = body if route.taking is Taking.HELD else None
    try:
        return DIALECT.read_request("openai", found, kind, held)
    except MalformedBodyError:
        return DIALECT.read_request("openai", found, kind, None)


def read(reader: AnswerReader, pieces: Iterable[bytes]) -> tuple[list[int], Answer]:
    """Return what was released after each piece, and the answer."""
    released = [reader.feed(piece) for piece in pieces]
    return released, reader.finish()


def pieces_of(stream: bytes, places: Iterable[int]) -> list[bytes]:
    """Return *stream* cut at *places*."""
    inside = sorted({place % (len(stream) + 1) for place in places})
    edges = [0, *inside, len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


def reader_of(stream: Stream) -> AnswerReader:
    """Return a fresh reader for *stream*."""
    return DIALECT.answer_reader(stream.call, 200, "text/event-stream")


def written(value: object) -> bytes:
    """Return *value* as JSON that providers might send, floats that are none included."""
    return json.dumps(value).encode()


@given(streams, cuts)
def test_cuts_change_nothing_in_an_answer(stream: Stream, places: list[int]) -> None:
    """However a stream is cut into chunks, the same answer is read, and the end waits."""
    _, uncut = read(reader_of(stream), [stream.bytes])
    released, cut = read(reader_of(stream), pieces_of(stream.bytes, places))

    assert uncut == cut
    assert released == sorted(released)
    assert released[-1] <= stream.last_content_at


@given(streams, st.integers(1, 9000))
def test_a_stream_broken_off_is_not_whole(stream: Stream, place: int) -> None:
    """Wherever a stream breaks off before its last content, it is known not to be whole."""
    cut = place % stream.last_content_at if stream.last_content_at else 0
    _, answer = read(reader_of(stream), [stream.bytes[:cut]])

    assert answer.readable
    assert not answer.whole


@given(routes, st.binary(max_size=60) | objects.map(written), kinds)
def test_any_request_is_read_or_refused(route: Route, body: bytes, kind: str) -> None:
    """On every route any bytes are a request, or the caller is told what to change."""
    found = DIALECT.found(route.methods[0], path_of(route))
    refused = None
    try:
        call = DIALECT.read_request("openai", found, kind, body)
    except MalformedBodyError as exc:
        refused = exc
    else:
        assert call.operation is found.route.operation
        assert set(found.names) <= set(call.uses)
    assert refused is None or (refused.hint and "\n" not in str(refused))


@given(routes, objects, st.lists(values | objects, max_size=4), st.sampled_from([200, 429]))
def test_no_shape_of_an_answer_raises(
    route: Route, asked: dict[str, object], said: list[object], status: int
) -> None:
    """On every route whatever JSON comes back, whole or in events, gives an answer."""
    call = called(route, written(asked))
    for value in said:
        _, answer = read(
            DIALECT.answer_reader(call, status, "application/json"), [written(value)]
        )
        assert not answer.whole or answer.readable
    events = b"".join(b"data: %s\n\n" % written(value) for value in said)
    read(DIALECT.answer_reader(call, status, "text/event-stream"), [events])


@given(routes, st.lists(st.binary(max_size=30), max_size=5), kinds)
def test_no_bytes_of_an_answer_raise(route: Route, said: list[bytes], kind: str) -> None:
    """On every route any bytes give an answer."""
    released, answer = read(DIALECT.answer_reader(called(route, b"{}"), 200, kind), said)

    assert released == sorted(released)
    assert not answer.whole or answer.readable


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
calls = st.builds(ToolCall, id=texts, name=texts, arguments=texts | st.just("{}"))
choices = st.builds(
    Choice,
    index=st.just(0),
    text=texts,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    finish_reason=st.sampled_from([None, "stop", "completed", "max_output_tokens"]),
)
INPUT = st.lists(
    st.fixed_dictionaries({"type": WORDS, "content": values}, optional={"role": WORDS})
    | st.fixed_dictionaries(
        {"type": st.just("function_call"), "call_id": texts, "name": texts, "arguments": texts}
    ),
    max_size=4,
)


@given(
    st.fixed_dictionaries({"input": INPUT | texts | values}, optional={"tools": values}),
    objects,
    choices,
)
def test_any_response_has_a_row_or_a_reason(
    asked: dict[str, object], more: dict[str, object], choice: Choice
) -> None:
    """A response becomes a row that can be written, or is left out under a stable code."""
    call = called(ROUTES[1], written({**more, **asked, "model": "m"}))
    try:
        row = DIALECT.row_of(call, choice)
    except UnteachableError as exc:
        row, code = {"messages": []}, str(exc)
    else:
        code = ""
        assert row["messages"][-1]["role"] == "assistant"
    assert row == json.loads(canonical_json(row))
    assert code in {"", *ROW_CODES}


@given(st.text(max_size=30), st.binary(max_size=200))
def test_any_bytes_are_a_form_or_none(boundary: str, body: bytes) -> None:
    """Whatever a form's bytes are, its fields are read or there are none."""
    fields = fields_of(f"multipart/form-data; boundary={boundary}", body)

    assert all(isinstance(value, str) for value in fields.values())


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_a_key_in_a_query_never_leaves(query: str) -> None:
    """What goes upstream of a query of Azure's holds no key that could be read out of it."""
    left = AZURE.query_upstream(query)

    assert AZURE.credential_of({}, left) is None


@given(routes)
def test_every_route_is_found(route: Route) -> None:
    """What is asked for at a route's path leads there, and names what the path names."""
    for method in route.methods:
        found = DIALECT.found(method, path_of(route))

        assert found.route.path == route.path
        assert all(name == Resource(name.kind, "some-id") for name in found.names)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "PATCH"])
def test_elsewhere_nothing_is_known(method: str) -> None:
    """What is kept is looked for only where it is: other things may be called files too."""
    for path in (
        "/v1/agents/files",
        "/v1/organization/files/a",
        "/v1/a/b/threads",
        "/v1/files/",
    ):
        assert DIALECT.found(method, path).route is OPAQUE_ROUTE
