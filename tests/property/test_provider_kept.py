"""Laws of whatever Anthropic's and Google's APIs are asked and answer, beyond words."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MalformedBodyError
from gateway.provider.catalogue import DIALECTS
from gateway.provider.model import Dialect, Operation, Route, Taking
from tests.support.recordings import RECORDINGS, Recording

ROUTES: list[tuple[Dialect, Route]] = [
    (DIALECTS[name], route)
    for name in ("anthropic", "gemini")
    for route in DIALECTS[name].ROUTES
]
KEYS = st.sampled_from(
    [
        "agent",
        "arguments",
        "cachedContent",
        "candidates",
        "config",
        "container",
        "content",
        "contents",
        "data",
        "delta",
        "done",
        "embedding",
        "embeddings",
        "environment",
        "error",
        "event_type",
        "fallbacks",
        "file",
        "fileData",
        "fileSearch",
        "fileSearchStoreNames",
        "fileUri",
        "file_id",
        "files",
        "functionCall",
        "functionDeclarations",
        "generateContentRequest",
        "generationConfig",
        "id",
        "index",
        "inlineData",
        "inlinedResponses",
        "input",
        "interaction",
        "messages",
        "metadata",
        "mimeType",
        "model",
        "name",
        "outputs",
        "parameters",
        "parts",
        "predictions",
        "previous_message_id",
        "previous_interaction_id",
        "processing_status",
        "requests",
        "response",
        "responseModalities",
        "response_modalities",
        "responsesFile",
        "role",
        "skills",
        "source",
        "status",
        "step",
        "steps",
        "stream",
        "summary",
        "systemInstruction",
        "text",
        "thinkingConfig",
        "thread",
        "tools",
        "type",
        "uri",
        "values",
    ]
)
WORDS = st.sampled_from(
    [
        "a",
        "files/f",
        "cachedContents/c",
        "https://generativelanguage.googleapis.com/v1beta/files/f",
        "step.start",
        "step.delta",
        "interaction.created",
        "text",
        "audio",
        "image",
        "custom",
        "aGk=",
        "user",
        "model",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | WORDS | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)


def path_of(route: Route) -> str:
    """Return a path that leads to *route*."""
    parts = [f"x{at}" if part.startswith("{") else part for at, part in enumerate(_cut(route))]
    return "".join(parts)


def _cut(route: Route) -> list[str]:
    path, parts = route.path, []
    while "{" in path:
        before, _, rest = path.partition("{")
        kind, _, path = rest.partition("}")
        parts += [before, "{" + kind]
    return [*parts, path]


def test_every_route_leads_to_itself() -> None:
    """No route stands before another that is narrower."""
    for dialect, route in ROUTES:
        for method in route.methods:
            found = dialect.found(method, path_of(route))

            assert found.route is route
            kinds = [part[1:] for part in _cut(route) if part.startswith("{")]
            assert [name.kind for name in found.names] == [
                kind for kind in kinds if kind != "…"
            ]


@given(st.sampled_from(ROUTES), values | st.dictionaries(KEYS, values, max_size=6))
def test_any_body_is_read_or_refused(known: tuple[Dialect, Route], value: object) -> None:
    """Whatever a body holds, it is a request, or the caller is told what to change."""
    dialect, route = known
    found = dialect.found(route.methods[0], path_of(route))
    body = json.dumps(value).encode()
    refused: MalformedBodyError | None = None
    try:
        call = dialect.read_request("p", found, "application/json", body)
    except MalformedBodyError as exc:
        refused = exc
        call = dialect.read_request("p", found, "application/json", None)

    assert refused is None or route.taking is Taking.HELD
    assert all(used.id for used in call.uses)
    assert len(set(call.uses)) == len(call.uses)
    # What can't be read is not taken for what it seems: nothing of it is trained on.
    assert call.operation is (route.operation if refused is None else Operation.OPAQUE)


@given(
    st.sampled_from(ROUTES),
    st.lists(values | st.dictionaries(KEYS, values, max_size=6), max_size=3),
    st.sampled_from([200, 204, 400, 429, 500]),
    st.sampled_from(["application/json", "text/event-stream", ""]),
)
def test_any_answer_is_read_or_opaque(
    known: tuple[Dialect, Route], told: list[Any], status: int, kind: str
) -> None:
    """Whatever comes back on any route, a reader gives an answer."""
    dialect, route = known
    found = dialect.found(route.methods[0], path_of(route))
    call = dialect.read_request("p", found, "application/json", b'{"thread": {}}')
    bodies = [json.dumps(told).encode(), *(json.dumps(one).encode() for one in told)]
    stream = b"".join(b"data: %b\n\n" % body for body in bodies)
    for body in (*bodies, stream, b""):
        reader = dialect.answer_reader(call, status, kind)
        released = [reader.feed(body[:7]), reader.feed(body[7:])]
        answer = reader.finish()

        assert sorted(released) == released
        assert released[-1] <= len(body)
        assert answer.readable or not (answer.whole or answer.choices or answer.units)


@given(st.sampled_from(RECORDINGS), st.data())
def test_a_byte_that_is_not_the_providers_does_not_raise(
    recording: Recording, data: st.DataObject
) -> None:
    """One byte changed anywhere is another answer, or none."""
    stream = bytearray(recording.stream)
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place] = data.draw(st.integers(0, 255))
    reader = recording.dialect.answer_reader(recording.call, 200, recording.kind)
    released = reader.feed(bytes(stream))
    answer = reader.finish()

    assert released <= len(stream)
    assert answer.readable or not answer.choices
