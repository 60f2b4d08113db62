"""The twin of `gateway.provider.openai.dialect`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import MalformedBodyError
from gateway.provider.model import (
    Answer,
    Choice,
    Operation,
    Problem,
    ProviderCall,
    Shown,
    Taking,
    ToolCall,
    UnteachableError,
    Usage,
)
from gateway.provider.openai.dialect import OpenAIDialect
from tests.support.recordings import RECORDINGS, Recording, chunk, openai_call
from tests.support.recordings_openai import unit

DIALECT = OpenAIDialect()
OPAQUE = Answer(readable=False, whole=False)
HELLO = {"role": "user", "content": "hello"}
SAID = Choice(index=0, text="hi", finish_reason="stop")
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALLED = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look", "arguments": '{"at": "x"}'},
}


def read(body: object, status: int = 200, call: ProviderCall | None = None) -> Answer:
    """Return what a whole *body* is read as."""
    reader = DIALECT.answer_reader(call or openai_call(), status, "application/json")
    assert reader.feed(body if isinstance(body, bytes) else json.dumps(body).encode()) == 0
    return reader.finish()


def completion(*messages: dict[str, Any], finish: str = "stop", **more: Any) -> dict[str, Any]:
    """Return the body of a chat completion."""
    choices = [
        {"index": index, "message": {"role": "assistant", **message}, "finish_reason": finish}
        for index, message in enumerate(messages)
    ]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m",
        "choices": choices,
    } | more


def row(choice: Choice, **asked: Any) -> dict[str, Any]:
    """Return the row of *choice* in answer to a request."""
    return DIALECT.row_of(openai_call(**asked), choice)


def why(choice: Choice, **asked: Any) -> str:
    """Return why there is no row."""
    with pytest.raises(UnteachableError) as caught:
        row(choice, **asked)
    return str(caught.value)


@pytest.mark.parametrize(
    ("method", "path", "reads"),
    [
        ("POST", "/v1/chat/completions", True),
        ("POST", "/v1/responses", True),
        ("POST", "/openai/deployments/d/chat/completions", True),
        ("POST", "/any/where/chat/completions", True),
        ("PUT", "/v1/chat/completions", False),
        ("POST", "/v1/chat/completions/", False),
        ("POST", "/v1/Responses", False),
    ],
)
def test_a_conversation_is_read_wherever_it_is_held(
    method: str, path: str, *, reads: bool
) -> None:
    """What is asked for at no known path is opaque, whatever its body."""
    found = DIALECT.found(method, path)
    call = DIALECT.read_request("openai", found, "application/json", b'{"model": "m"}')

    assert reads is (found.route.taking is Taking.HELD)
    assert call.operation is (Operation.CHAT if reads else Operation.OPAQUE)
    assert call.model == ("m" if reads else None)


def test_a_body_too_large_to_hold_is_opaque() -> None:
    """A chat completion whose body was not held can't be read."""
    found = DIALECT.found("POST", "/v1/chat/completions")
    call = DIALECT.read_request("openai", found, "", None)

    assert call == ProviderCall(provider="openai", operation=Operation.OPAQUE, found=found)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"model": 3}', b"[" * 100_000]
)
def test_a_malformed_request_says_what_to_change(body: bytes) -> None:
    """A chat completion that is no JSON object is the caller's to mend."""
    with pytest.raises(MalformedBodyError) as caught:
        DIALECT.read_request("openai", DIALECT.found("POST", "/v1/chat/completions"), "", body)

    assert caught.value.hint


@pytest.mark.parametrize(
    "path", ["/v1/batches/batch_1/cancel", "/v1/fine_tuning/jobs/ftjob-1/resume"]
)
def test_what_is_done_to_a_resource_may_have_no_body(path: str) -> None:
    """The path says all there is to say, and SDKs send nothing more."""
    found = DIALECT.found("POST", path)
    call = DIALECT.read_request("openai", found, "", b"")

    assert found.names == call.uses


def test_what_is_made_must_have_a_body() -> None:
    """Where the path says nothing, an empty body is no request."""
    with pytest.raises(MalformedBodyError):
        DIALECT.read_request("openai", DIALECT.found("POST", "/v1/batches"), "", b"")


@pytest.mark.parametrize(
    ("asked", "features"),
    [
        ({}, set()),
        ({"tools": [LOOK]}, {"tools"}),
        ({"functions": [{}]}, {"tools"}),
        ({"reasoning_effort": "low"}, {"reasoning"}),
        ({"reasoning_effort": "none"}, set()),
        ({"thinking": {"type": "enabled"}}, {"reasoning"}),
        ({"logprobs": True}, {"logprobs"}),
        ({"model": "m:online"}, {"grounding"}),
        ({"plugins": [3, {"id": "web"}]}, {"grounding"}),
        ({"plugins": {"id": "web"}}, set()),
        ({"modalities": ["text", "image"]}, {"image-output"}),
        ({"modalities": ["text", "audio"]}, {"voice"}),
        ({"n": 2}, {"n"}),
        ({"n": "2", "messages": 3}, set()),
        ({"messages": [3, {"content": [3, {"type": "image_url"}]}]}, {"images"}),
    ],
)
def test_features_are_seen(asked: dict[str, Any], features: set[str]) -> None:
    """What a request asks for beside text is listed."""
    call = openai_call(**asked)

    assert features == call.features
    assert call.streaming is False
    assert openai_call(stream=True).streaming


def test_a_whole_answer_is_read() -> None:
    """Text, reasoning, tool calls, refusals and counts of every choice are read."""
    answer = read(
        completion(
            {"content": "one", "reasoning": "hm", "reasoning_content": None},
            {"content": None, "tool_calls": [CALLED]},
            {"content": None, "refusal": "no"},
            {"content": None, "function_call": {"name": "f", "arguments": "{}"}},
            usage={"prompt_tokens": 3, "completion_tokens": True, "total_tokens": 1},
        )
    )

    assert answer.readable
    assert answer.whole
    assert (answer.id, answer.model) == ("chatcmpl-1", "m")
    assert answer.usage == Usage(input_tokens=3)
    assert answer.choices == (
        Choice(
            index=0,
            text="one",
            reasoning=("hm",),
            shown=Shown("hm", is_summary=False),
            finish_reason="stop",
        ),
        Choice(
            index=1,
            tool_calls=(ToolCall(id="call_1", name="look", arguments='{"at": "x"}'),),
            finish_reason="stop",
        ),
        Choice(index=2, refusal="no", finish_reason="stop"),
        Choice(
            index=3,
            tool_calls=(ToolCall(id="", name="f", arguments="{}"),),
            finish_reason="stop",
        ),
    )


def test_choices_of_one_number_stay_apart() -> None:
    """Where a server numbers all of them alike, each is still an answer of its own."""
    body = completion({"content": "one"}, {"content": "two"})
    for choice in body["choices"]:
        choice["index"] = 0

    answer = read(body)

    assert ["one", "two"] == [choice.text for choice in answer.choices]
    assert [0, 1] == [choice.index for choice in answer.choices]


def test_calls_of_compatible_servers_are_read() -> None:
    """Calls without numbers are told apart by their ids; arguments may come as an object."""
    named = {"id": "z", "function": {"name": "h"}}
    first = {"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}
    second = {"id": "b", "function": {"name": "g", "arguments": "{"}}
    rest = {"function": {"arguments": "}"}}
    answer = read(completion({"content": None, "tool_calls": [named, first, second, rest]}))

    assert answer.choices[0].tool_calls == (
        ToolCall(id="z", name="h", arguments=""),
        ToolCall(id="a", name="f", arguments='{"x":1}'),
        ToolCall(id="b", name="g", arguments="{}"),
    )


def test_content_in_parts_is_read() -> None:
    """Content that comes as a list has its words and its thoughts told apart."""
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "hi"},
    ]
    answer = read(completion({"content": parts}))

    assert answer.choices == (
        Choice(
            index=0,
            text="hi",
            reasoning=("hm",),
            shown=Shown("hm", is_summary=False),
            finish_reason="stop",
        ),
    )


def test_whatever_else_a_message_holds_is_a_unit() -> None:
    """A part or a field of which nobody here has heard is listed, and makes no row."""
    picture = {"type": "image_url", "image_url": "data:image/png;base64,UA=="}
    parts = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "thinking", "thinking": [3]},
        {"type": "refusal", "refusal": "no"},
        picture,
        {"type": "image_url", "image_url": 4},
        {"type": "unheard"},
        5,
    ]
    message = {"content": parts, "audio": "odd", "images": "odd", "annotations": [6], "new": 7}
    details = [8, {"type": "reasoning.summary", "summary": "so"}, {"data": "secret"}]
    more = {"content": "hi", "images": [{"url": 9}], "reasoning_details": details}
    plain: dict[str, Any] = {"content": "hi", "name": "m", "tool_call_id": None, "unheard": []}
    answer = read(completion(message, more, plain))
    first, second, third = answer.choices

    assert (first.reasoning, first.refusal, answer.stop) == (("hm",), "no", "refusal")
    assert first.others == (
        unit("image", 0, b"P"),
        unit("tool-result", 0, [6]),
        unit("other", 0, "odd"),
        unit("other", 0, {"type": "image_url", "image_url": 4}),
        unit("other", 0, "odd"),
        unit("other", 0, 7),
        unit("other", 0, [3, {"type": "unheard"}, 5]),
    )
    assert (second.reasoning, second.others) == (
        ("so", "secret"),
        (unit("other", 1, {"url": 9}),),
    )
    assert third == Choice(index=2, text="hi", finish_reason="stop")
    assert why(second) == "row.not-text"
    assert read(completion({"content": [picture | {"image_url": "data:,x"}]})).readable
    broken = {"url": "data:image/png;base64,!"}
    assert read(completion({"content": [{"image_url": broken}]})) == OPAQUE
    assert read({"choices": [{"message": {"new": 1, "content": 3}}]}) == OPAQUE


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b'{"choices": 3}', b"\xff"])
def test_nonsense_is_opaque(body: bytes) -> None:
    """A body that is no chat completion is an answer nobody can learn from."""
    assert read(body) == OPAQUE


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"type": "invalid_request_error", "code": "x"}}, "invalid_request_error"),
        ({"error": {"type": None, "code": 429}}, "429"),
        ({"error": "oh"}, "error"),
        ({"detail": "Not Found"}, "error"),
    ],
)
def test_errors_have_their_providers_name(body: dict[str, Any], error: str) -> None:
    """An error answer is read whole, and named as the provider named it."""
    assert read(body, status=400) == Answer(readable=True, whole=True, error=error)


def test_an_error_may_come_with_status_200() -> None:
    """An error object in place of a completion is an error whatever the status says."""
    answer = read({"error": {"code": 502, "message": "oh"}})

    assert answer == Answer(readable=True, whole=True, error="502")


@pytest.mark.parametrize(
    ("streaming", "kind", "streamed"),
    [
        (True, "text/event-stream; charset=utf-8", True),
        (True, "", True),
        (True, "application/json", False),
        (False, "text/event-stream", True),
        (False, "", False),
    ],
)
def test_what_comes_back_decides_how_it_is_read(
    streaming: bool,  # noqa: FBT001 - a column of the table above
    kind: str,
    streamed: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    """The answer's own type counts, and what was asked for where it says nothing."""
    reader = DIALECT.answer_reader(openai_call(stream=streaming), 200, kind)
    went = reader.feed(chunk({"role": "assistant"}))

    assert (went > 0) is streamed


def test_an_opaque_call_has_an_opaque_answer() -> None:
    """Nothing is read of an answer to what was not read."""
    call = ProviderCall(provider="openai", operation=Operation.OPAQUE)
    reader = DIALECT.answer_reader(call, 200, "application/json")
    reader.feed(json.dumps(completion({"content": "hi"})).encode())

    assert reader.finish() == OPAQUE


def test_a_stream_without_done_is_whole_once_all_is_finished() -> None:
    """A stream ends at `[DONE]`, or where every choice that was asked for is finished."""
    for n, whole in ((1, True), (2, False)):
        reader = DIALECT.answer_reader(openai_call(stream=True, n=n), 200, "text/event-stream")
        reader.feed(chunk({"content": "hi"}) + chunk({}, "stop"))

        assert reader.finish().whole is whole


def test_an_event_of_nonsense_makes_a_stream_opaque() -> None:
    """From an event that is neither a chunk nor `[DONE]` on, nothing is believed."""
    reader = DIALECT.answer_reader(openai_call(stream=True), 200, "text/event-stream")
    reader.feed(chunk({"content": "hi"}) + b"data: [NOT YET]\n\n" + b"data: [DONE]\n\n")
    answer = reader.finish()

    assert (answer.readable, answer.whole, answer.choices) == (False, False, ())


def test_spoken_content_waits_too() -> None:
    """A delta of sound is content, though its words are not read."""
    reader = DIALECT.answer_reader(openai_call(stream=True), 200, "text/event-stream")

    assert reader.feed(chunk({"audio": {"data": "AAAA"}})) == 0


def test_a_row_is_the_conversation_and_its_answer() -> None:
    """Roles, words, names and tool calls are kept; reasoning is not."""
    asked = [
        {"role": "developer", "content": "be brief"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [CALLED],
            "reasoning_content": "hm",
        },
        {"role": "tool", "content": "found", "tool_call_id": "call_1"},
        {"role": "user", "content": "go", "name": "ann", "unknown": 1},
    ]
    answer = Choice(
        index=0,
        text="again",
        reasoning=("hidden",),
        tool_calls=(ToolCall(id="call_2", name="look", arguments=""),),
        finish_reason="tool_calls",
    )

    assert row(answer, messages=asked, tools=[LOOK]) == {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "ab"},
            {"role": "assistant", "content": None, "tool_calls": [CALLED]},
            {"role": "tool", "content": "found", "tool_call_id": "call_1"},
            {"role": "user", "content": "go", "name": "ann"},
            {
                "role": "assistant",
                "content": "again",
                "tool_calls": [
                    {
                        "id": "call_2",
                        "type": "function",
                        "function": {"name": "look", "arguments": "{}"},
                    }
                ],
            },
        ],
        "tools": [LOOK],
    }


def test_a_tool_of_free_text_keeps_its_shape() -> None:
    """A custom tool's input is no JSON and stays what it is, asked and answered."""
    sql = {"type": "custom", "custom": {"name": "sql"}}
    before = {"id": "c0", "type": "custom", "custom": {"name": "sql", "input": "select 0"}}
    answer = Choice(
        index=0,
        tool_calls=(ToolCall(id="c1", name="sql", arguments="select 1"),),
        finish_reason="tool_calls",
    )
    made = row(
        answer,
        messages=[HELLO, {"role": "assistant", "tool_calls": [before]}],
        tools=[sql, {"type": "custom", "custom": 3}],
    )

    assert made["messages"][1]["tool_calls"] == [before]
    assert made["messages"][2]["tool_calls"] == [
        {"id": "c1", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}
    ]


def test_reasoning_of_earlier_turns_is_not_taught() -> None:
    """Thoughts that a request hands back in parts are dropped from its row."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    said = {"role": "assistant", "content": [thought, {"type": "text", "text": "so"}]}

    assert row(SAID, messages=[said, HELLO])["messages"][0] == {
        "role": "assistant",
        "content": "so",
    }


def test_words_put_into_its_mouth_begin_the_answer() -> None:
    """Where a server continues the last message, the row has one message, not two."""
    begun = {"role": "assistant", "content": "I say ", "prefix": True}

    assert row(SAID, messages=[HELLO, begun])["messages"] == [
        HELLO,
        {"role": "assistant", "content": "I say hi"},
    ]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (3, "row.malformed"),
        ({"role": "oracle", "content": "x"}, "row.malformed"),
        ({"role": "user", "content": 3}, "row.malformed"),
        ({"role": "user", "content": [3]}, "row.malformed"),
        ({"role": "user", "content": [{"type": "text"}]}, "row.malformed"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "row.not-text"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "row.not-text"),
        ({"role": "assistant", "audio": {"id": "a"}}, "row.not-text"),
        ({"role": "assistant", "refusal": "no"}, "row.refused"),
        ({"role": "assistant", "content": [{"type": "refusal"}]}, "row.refused"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "row.legacy-functions"),
        ({"role": "function", "name": "f", "content": "x"}, "row.legacy-functions"),
        ({"role": "tool", "content": "x"}, "row.malformed"),
        ({"role": "assistant", "tool_calls": [3]}, "row.malformed"),
        ({"role": "assistant", "tool_calls": [{"id": "a"}]}, "row.malformed"),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}],
            },
            "row.malformed",
        ),
    ],
)
def test_some_conversations_have_no_row(message: object, code: str) -> None:
    """What no row can carry is named by a stable code."""
    assert code == why(SAID, messages=[message, HELLO])


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"messages": []}, "row.no-messages"),
        ({"messages": "hello"}, "row.no-messages"),
        ({"modalities": ["text", "audio"]}, "row.not-text"),
        ({"modalities": 3}, "row.not-text"),
        ({"functions": [{"name": "f"}]}, "row.legacy-functions"),
        ({"tools": {"a": 1}}, "row.malformed"),
    ],
)
def test_some_requests_have_no_row(asked: dict[str, Any], code: str) -> None:
    """A request that is no conversation in text has no row."""
    assert code == why(SAID, **asked)


@pytest.mark.parametrize(
    ("choice", "code"),
    [
        (Choice(index=0, text="x", refusal="no", finish_reason="stop"), "row.refused"),
        (Choice(index=0, text="x", finish_reason="content_filter"), "row.filtered"),
        (Choice(index=0, text="x", finish_reason="length"), "row.truncated"),
        (Choice(index=0, text="x"), "row.truncated"),
        (Choice(index=0, text=" ", finish_reason="stop"), "row.empty"),
    ],
)
def test_some_answers_have_no_row(choice: Choice, code: str) -> None:
    """An answer that is refused, cut off or empty teaches nothing."""
    assert code == why(choice)


def test_a_problem_has_the_shape_of_openais_errors() -> None:
    """The SDK finds type, code and one helpful sentence where it looks for them."""
    problem = Problem(status=403, code="use.forbidden", message="no", exchange="x-1")
    error = json.loads(DIALECT.problem_body(problem))["error"]

    assert error == {
        "message": "no [exchange x-1]",
        "type": "permission_error",
        "param": None,
        "code": "use.forbidden",
        "exchange": "x-1",
        "reasons": [],
        "next_step": None,
    }


@pytest.mark.parametrize(
    ("status", "kind"), [(503, "server_error"), (409, "invalid_request_error")]
)
def test_a_problem_of_any_status_has_a_type(status: int, kind: str) -> None:
    """A status without a name of its own has that of its family."""
    problem = Problem(status=status, code="a.b", message="oh")

    assert json.loads(DIALECT.problem_body(problem))["error"]["type"] == kind


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"authorization": "Bearer k"}, "k"),
        ({"authorization": "bearer  k "}, "k"),
        ({"authorization": "Basic k", "api-key": "a"}, "a"),
        ({"authorization": "Bearer "}, None),
        ({"api-key": ""}, None),
        ({}, None),
    ],
)
def test_the_key_is_found_where_the_sdk_puts_it(
    headers: dict[str, str], key: str | None
) -> None:
    """OpenAI's SDK sends a bearer token, Azure's may send `api-key`."""
    assert key == DIALECT.credential_of(headers, "")
    assert {"authorization", "api-key"} <= DIALECT.CREDENTIAL_HEADERS
    assert DIALECT.credential_header("k") == ("authorization", "Bearer k")


@pytest.mark.parametrize(
    "recording",
    [recording for recording in RECORDINGS if isinstance(recording.dialect, OpenAIDialect)],
    ids=lambda recording: recording.name,
)
def test_a_recorded_stream_is_read(recording: Recording) -> None:
    """Fed event by event, a stream says what the provider meant to say."""
    reader = DIALECT.answer_reader(recording.call, 200, "text/event-stream")
    for piece, _ in recording.pieces:
        reader.feed(piece)
    answer = reader.finish()

    assert recording.choices == answer.choices
    assert (recording.usage, recording.error) == (answer.usage, answer.error)
    assert recording.whole is answer.whole
