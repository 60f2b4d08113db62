"""The twin of `gateway.provider.anthropic`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import MalformedBodyError
from gateway.provider.anthropic.dialect import AnthropicDialect
from gateway.provider.model import (
    Answer,
    Choice,
    Operation,
    Problem,
    ProviderCall,
    Resource,
    Shown,
    Taking,
    ToolCall,
    UnteachableError,
    Usage,
)
from gateway.provider.units import json_unit
from tests.support.recordings import RECORDINGS, Recording, anthropic_call, event

DIALECT = AnthropicDialect()
OPAQUE = Answer(readable=False, whole=False)
HELLO = {"role": "user", "content": "hello"}
SAID = Choice(index=0, text="hi", finish_reason="end_turn")
LOOK = {"name": "look", "description": "Look.", "input_schema": {"type": "object"}}


def read(body: object, status: int = 200) -> Answer:
    """Return what a whole *body* is read as."""
    reader = DIALECT.answer_reader(anthropic_call(), status, "application/json")
    assert reader.feed(body if isinstance(body, bytes) else json.dumps(body).encode()) == 0
    return reader.finish()


def message(*blocks: dict[str, Any], stop: str = "end_turn", **more: Any) -> dict[str, Any]:
    """Return the body of a message."""
    said = {"id": "msg_1", "type": "message", "role": "assistant", "model": "c"}
    return said | {"content": list(blocks), "stop_reason": stop} | more


def row(choice: Choice, **asked: Any) -> dict[str, Any]:
    """Return the row of *choice* in answer to a request."""
    return DIALECT.row_of(anthropic_call(**asked), choice)


def why(choice: Choice, **asked: Any) -> str:
    """Return why there is no row."""
    with pytest.raises(UnteachableError) as caught:
        row(choice, **asked)
    return str(caught.value)


BATCH, FILE, SKILL = Resource("batch", "b1"), Resource("file", "f1"), Resource("skill", "s1")


@pytest.mark.parametrize(
    ("method", "path", "operation", "taking", "names", "lists"),
    [
        ("POST", "/v1/messages", "chat", Taking.HELD, (), None),
        ("POST", "/deep/below/v1/messages", "chat", Taking.HELD, (), None),
        ("GET", "/v1/messages", "opaque", Taking.PASSING, (), None),
        ("POST", "/v1/messages/", "opaque", Taking.PASSING, (), None),
        ("POST", "/v1/messages/count_tokens", "token-count", Taking.HELD, (), None),
        ("POST", "/v1/complete", "completion", Taking.HELD, (), None),
        ("POST", "/v1/messages/batches", "batch", Taking.JUDGED, (), None),
        ("GET", "/v1/messages/batches", "batch", Taking.PASSING, (), "batch"),
        ("GET", "/v1/messages/batches/b1", "batch", Taking.PASSING, (BATCH,), None),
        ("DELETE", "/v1/messages/batches/b1", "batch", Taking.PASSING, (BATCH,), None),
        ("POST", "/v1/messages/batches/b1/cancel", "batch", Taking.PASSING, (BATCH,), None),
        ("GET", "/v1/messages/batches/b1/results", "retrieval", Taking.PASSING, (BATCH,), None),
        ("POST", "/v1/files", "file", Taking.PASSING, (), None),
        ("GET", "/v1/files", "file", Taking.PASSING, (), "file"),
        ("GET", "/v1/files/f1", "file", Taking.PASSING, (FILE,), None),
        ("GET", "/v1/files/f1/content", "retrieval", Taking.PASSING, (FILE,), None),
        ("GET", "/v1/models", "listing", Taking.PASSING, (), None),
        ("GET", "/v1/models/c-x", "listing", Taking.PASSING, (), None),
        ("POST", "/v1/skills", "opaque", Taking.PASSING, (), None),
        ("GET", "/v1/skills", "opaque", Taking.PASSING, (), "skill"),
        ("POST", "/v1/skills/s1/versions", "opaque", Taking.PASSING, (SKILL,), None),
        ("GET", "/v1/skills/s1/versions/2/content", "opaque", Taking.PASSING, (SKILL,), None),
        ("GET", "/v1/organizations/me", "opaque", Taking.PASSING, (), None),
    ],
)
def test_every_operation_has_its_route(
    method: str,
    path: str,
    operation: str,
    taking: Taking,
    names: tuple[Resource, ...],
    lists: str | None,
) -> None:
    """An operation is known by method and path, with the things that the path names."""
    found = DIALECT.found(method, path)
    call = DIALECT.read_request("anthropic", found, "application/json", b'{"model": "m"}')

    assert (call.operation, found.route.taking) == (operation, taking)
    assert (call.uses, call.lists) == (names, lists)
    assert call.model == ("m" if taking is Taking.HELD else None)
    unread = DIALECT.read_request("anthropic", found, "", None).operation
    assert unread == ("opaque" if taking is Taking.HELD else operation)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": {}}'])
def test_a_malformed_request_says_what_to_change(body: bytes) -> None:
    """A message that is no JSON object is the caller's to mend."""
    with pytest.raises(MalformedBodyError) as caught:
        DIALECT.read_request("anthropic", DIALECT.found("POST", "/v1/messages"), "", body)

    assert caught.value.hint


@pytest.mark.parametrize(
    ("asked", "features"),
    [
        ({}, set()),
        ({"tools": [LOOK]}, {"tools"}),
        ({"thinking": {"type": "adaptive"}}, {"reasoning"}),
        ({"thinking": {"type": "disabled"}}, set()),
        ({"messages": [{"content": [3, {"type": "image"}]}]}, {"images"}),
        (
            {
                "messages": [
                    {"content": [{"type": "tool_result", "content": [{"type": "image"}]}]}
                ]
            },
            {"images"},
        ),
        ({"messages": {"a": 1}}, set()),
        ({"messages": [3]}, set()),
    ],
)
def test_features_are_seen(asked: dict[str, Any], features: set[str]) -> None:
    """What a request asks for beside text is listed."""
    assert features == anthropic_call(**asked).features
    assert anthropic_call(stream=True).streaming


def test_a_whole_answer_is_read() -> None:
    """Text, thinking and tool calls are read; arguments are the JSON text as it was sent."""
    body = message(
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "a", "citations": None},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"n": 1}},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "content": [{"url": "x"}]},
        {"type": "text", "text": "b"},
        usage={
            "input_tokens": 1,
            "cache_read_input_tokens": 2,
            "output_tokens": 4,
            "output_tokens_details": {"thinking_tokens": 3},
        },
    )
    raw = json.dumps(body).replace('{"n": 1}', '{"n":  1e400}').encode()

    answer = read(raw)

    assert answer == Answer(
        readable=True,
        whole=True,
        id="msg_1",
        model="c",
        choices=(
            Choice(
                index=0,
                text="ab",
                reasoning=("hm", "xyz"),
                shown=Shown("hm", is_summary=False),
                tool_calls=(
                    ToolCall(id="toolu_1", name="look", arguments='{"n":  1e400}'),
                    ToolCall(id="srvtoolu_1", name="web_search", arguments="{}"),
                ),
                finish_reason="end_turn",
                others=(
                    json_unit(
                        "tool-result",
                        0,
                        {"type": "web_search_tool_result", "content": [{"url": "x"}]},
                    ),
                ),
            ),
        ),
        usage=Usage(input_tokens=3, output_tokens=4, cached_input_tokens=2, reasoning_tokens=3),
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b'{"content": 3}', b"\xff"])
def test_nonsense_is_opaque(body: bytes) -> None:
    """A body that is no message is an answer nobody can learn from."""
    assert read(body) == OPAQUE


def test_errors_have_their_providers_name() -> None:
    """An error is named as the provider named it, whatever the status says."""
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}

    for status in (200, 529):
        assert read(body, status) == Answer(readable=True, whole=True, error="overloaded_error")
    assert read({}, 500).error == "error"


@pytest.mark.parametrize(
    ("streaming", "kind", "streamed"),
    [
        (True, "text/event-stream", True),
        (True, "", True),
        (True, "application/json", False),
        (False, "", False),
    ],
)
def test_what_comes_back_decides_how_it_is_read(
    streaming: bool,  # noqa: FBT001 - a column of the table above
    kind: str,
    streamed: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    """The answer's own type counts, and what was asked for where it says nothing."""
    reader = DIALECT.answer_reader(anthropic_call(stream=streaming), 200, kind)

    assert (reader.feed(event("ping")) > 0) is streamed


def test_an_opaque_call_has_an_opaque_answer() -> None:
    """Nothing is read of an answer to what was not read."""
    call = ProviderCall(provider="anthropic", operation=Operation.OPAQUE)
    reader = DIALECT.answer_reader(call, 200, "application/json")
    reader.feed(json.dumps(message({"type": "text", "text": "hi"})).encode())

    assert reader.finish() == OPAQUE


def streamed(*events: bytes) -> tuple[list[int], Answer]:
    """Return what went out after each event, and the answer."""
    reader = DIALECT.answer_reader(anthropic_call(stream=True), 200, "text/event-stream")
    return [reader.feed(said) for said in events], reader.finish()


def test_a_stream_that_lost_its_head_is_read_as_far_as_it_goes() -> None:
    """Deltas of a block whose start was not seen are told apart by their own kind."""
    deltas = [
        {"type": "thinking_delta", "thinking": "hm"},
        {"type": "text_delta", "text": "hi"},
        {"type": "input_json_delta", "partial_json": "{}"},
    ]
    _, answer = streamed(
        *(event("content_block_delta", index=i, delta=d) for i, d in enumerate(deltas)),
        event("content_block_delta", index=3),
        event("content_block_start", index=4),
        event("message_start"),
        event("message_delta"),
    )

    assert answer.choices == (
        Choice(
            index=0,
            text="hi",
            reasoning=("hm",),
            shown=Shown("hm", is_summary=False),
            tool_calls=(ToolCall(id="", name="", arguments="{}"),),
        ),
    )
    assert answer.usage is None


def test_a_message_may_start_with_content() -> None:
    """Blocks that come with the start of a message are content like any other."""
    went, answer = streamed(
        event("ping"), event("message_start", message=message({"type": "text", "text": "hi"}))
    )

    assert went[0] == went[1] > 0
    assert answer.choices[0].text == "hi"


def test_a_delta_of_a_new_kind_waits() -> None:
    """A delta that this reader does not know may carry content, so it is held back."""
    went, answer = streamed(
        event("content_block_start", index=0, content_block={"type": "compaction"}),
        event(
            "content_block_delta", index=0, delta={"type": "compaction_delta", "content": "x"}
        ),
        event("content_block_delta", index=0, delta={"type": "signature_delta"}),
    )

    assert went[0] == 0 < went[1] == went[2]
    assert answer.readable


def test_a_known_event_of_a_bad_shape_is_nonsense() -> None:
    """A new kind of event may look like anything, a known one may not."""
    assert streamed(event("brand_new", delta="x", index=[]))[1].readable
    assert not streamed(event("content_block_delta", delta="x"))[1].readable


def test_a_row_is_the_conversation_and_its_answer() -> None:
    """Blocks become messages in OpenAI's shape, in their order; thinking is dropped."""
    asked = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "x"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "found"},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_2",
                    "content": [{"type": "text", "text": "too"}],
                },
                {"type": "tool_result", "tool_use_id": "toolu_3"},
                {"type": "text", "text": "go on"},
            ],
        },
        {"role": "system", "content": "be quick"},
    ]
    answer = Choice(
        index=0,
        text="again",
        reasoning=("hidden",),
        tool_calls=(ToolCall(id="toolu_4", name="look", arguments="{}"),),
        finish_reason="tool_use",
    )
    call = {"id": "toolu_1", "type": "function"}
    again = {
        "id": "toolu_4",
        "type": "function",
        "function": {"name": "look", "arguments": "{}"},
    }
    web = {"type": "web_search_20250305", "name": "web_search"}

    assert row(
        answer,
        system=[{"type": "text", "text": "be brief"}],
        messages=asked,
        tools=[LOOK, web, {"name": "bare", "input_schema": {}}, 3],
    ) == {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "ab"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    call | {"function": {"name": "look", "arguments": '{"at":"x"}'}}
                ],
            },
            {"role": "tool", "content": "found", "tool_call_id": "toolu_1"},
            {"role": "tool", "content": "too", "tool_call_id": "toolu_2"},
            {"role": "tool", "content": "", "tool_call_id": "toolu_3"},
            {"role": "user", "content": "go on"},
            {"role": "system", "content": "be quick"},
            {"role": "assistant", "content": "again", "tool_calls": [again]},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "Look.",
                    "parameters": {"type": "object"},
                },
            },
            {"type": "function", "function": {"name": "bare", "parameters": {}}},
        ],
    }


def test_words_put_into_its_mouth_begin_the_answer() -> None:
    """An assistant's last words in the request and the answer are one message."""
    begun = {"role": "assistant", "content": "I say "}

    assert row(SAID, system="s", messages=[HELLO, begun]) == {
        "messages": [
            {"role": "system", "content": "s"},
            HELLO,
            {"role": "assistant", "content": "I say hi"},
        ]
    }


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (3, "row.malformed"),
        ({"role": "user"}, "row.malformed"),
        ({"role": "user", "content": [3]}, "row.malformed"),
        ({"role": "oracle", "content": "x"}, "row.malformed"),
        ({"role": "user", "content": [{"type": "image"}]}, "row.not-text"),
        ({"role": "user", "content": [{"type": "document"}]}, "row.not-text"),
        ({"role": "user", "content": [{"type": "tool_result"}]}, "row.malformed"),
        (
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image"}]}
                ],
            },
            "row.not-text",
        ),
        ({"role": "assistant", "content": [{"type": "tool_use", "id": "a"}]}, "row.malformed"),
        (
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "input": {}}]},
            "row.malformed",
        ),
        ({"role": "assistant", "content": [{"type": "server_tool_use"}]}, "row.server-tool"),
        ({"role": "assistant", "content": [{"type": "mcp_tool_result"}]}, "row.server-tool"),
    ],
)
def test_some_conversations_have_no_row(said: object, code: str) -> None:
    """What no row can carry is named by a stable code."""
    assert code == why(SAID, messages=[HELLO, said])


def test_a_request_without_messages_has_no_row() -> None:
    """A request that says nothing has nothing to learn from."""
    for messages in ([], "hello", [{"role": "user", "content": []}]):
        assert why(SAID, messages=messages) == "row.no-messages"


@pytest.mark.parametrize(
    ("choice", "code"),
    [
        (Choice(index=0, text="x", finish_reason="refusal"), "row.refused"),
        (Choice(index=0, text="x", finish_reason="max_tokens"), "row.truncated"),
        (Choice(index=0, text="x", finish_reason="pause_turn"), "row.truncated"),
        (Choice(index=0, finish_reason="end_turn"), "row.empty"),
        (
            Choice(
                index=0,
                tool_calls=(ToolCall(id="srvtoolu_1", name="web_search", arguments="{}"),),
                finish_reason="end_turn",
            ),
            "row.server-tool",
        ),
    ],
)
def test_some_answers_have_no_row(choice: Choice, code: str) -> None:
    """An answer that is refused, cut off, empty or not all the model's teaches nothing."""
    assert code == why(choice)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (409, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (529, "overloaded_error"),
    ],
)
def test_a_problem_has_the_shape_of_anthropics_errors(status: int, kind: str) -> None:
    """The SDK finds type and one helpful sentence where it looks for them."""
    problem = Problem(status=status, code="use.held", message="wait", exchange="x-1")

    assert json.loads(DIALECT.problem_body(problem)) == {
        "type": "error",
        "error": {
            "type": kind,
            "message": "wait [exchange x-1]",
            "code": "use.held",
            "exchange": "x-1",
            "reasons": [],
            "next_step": None,
        },
        "request_id": "x-1",
    }


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"authorization": "Bearer k"}, "k"),
        ({"x-api-key": "k"}, "k"),
        ({"authorization": "Bearer a", "x-api-key": "b"}, "a"),
        ({}, None),
    ],
)
def test_the_key_is_found_where_any_sdk_puts_it(
    headers: dict[str, str], key: str | None
) -> None:
    """SDKs from 2.0 on send a bearer token, older ones `x-api-key`; upstream goes one."""
    assert key == DIALECT.credential_of(headers, "")
    assert {"authorization", "x-api-key"} <= DIALECT.CREDENTIAL_HEADERS
    assert DIALECT.query_upstream("key=k&beta=true") == "key=k&beta=true"
    assert DIALECT.credential_header("k") == ("x-api-key", "k")
    for token in ("sk-ant-oat01-x", "eyJhbGciOiJ9.e30.x"):
        assert DIALECT.credential_header(token) == ("authorization", f"Bearer {token}")


@pytest.mark.parametrize(
    "recording",
    [recording for recording in RECORDINGS if isinstance(recording.dialect, AnthropicDialect)],
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
