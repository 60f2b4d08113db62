"""The twin of `gateway.provider.openai.responses` and `response_rows`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.provider.model import (
    Answer,
    Choice,
    Made,
    Operation,
    ProviderCall,
    Resource,
    Shown,
    ToolCall,
    UnteachableError,
)
from tests.support.recordings_openai import (
    CITED,
    COUNTS,
    DIALECT,
    FOUND,
    LOOK,
    MADE,
    MESSAGE,
    RESPONSE,
    SQL,
    THOUGHT,
    USED,
    call_of,
    response_call,
    unit,
    whole_response,
)

OPAQUE = Answer(readable=False, whole=False)
SAID = Choice(index=0, text="hi", finish_reason="completed")
WEATHER = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}


def read(body: object, status: int = 200, call: ProviderCall | None = None) -> Answer:
    """Return what a whole *body* is read as."""
    reader = DIALECT.answer_reader(call or response_call(), status, "application/json")
    assert reader.feed(body if isinstance(body, bytes) else json.dumps(body).encode()) == 0
    return reader.finish()


def again(path: str = "/v1/responses/resp_1", method: str = "GET") -> ProviderCall:
    """Return that a response is read again."""
    return DIALECT.read_request("openai", DIALECT.found(method, path), "", None)


def row(choice: Choice = SAID, **asked: Any) -> dict[str, Any]:
    """Return the row of *choice* in answer to a request."""
    return DIALECT.row_of(response_call(**asked), choice)


def why(choice: Choice = SAID, **asked: Any) -> str:
    """Return why there is no row."""
    with pytest.raises(UnteachableError) as caught:
        row(choice, **asked)
    return str(caught.value)


@pytest.mark.parametrize(
    ("asked", "features"),
    [
        ({}, set()),
        ({"tools": [WEATHER]}, {"tools"}),
        ({"tools": [{"type": "web_search_preview"}]}, {"tools", "grounding"}),
        ({"tools": [{"type": "image_generation"}]}, {"tools", "image-output"}),
        ({"tools": {"type": "x"}}, {"tools"}),
        ({"reasoning": {"effort": "low"}}, {"reasoning"}),
        ({"reasoning": {"effort": "none"}}, set()),
        ({"reasoning": {"summary": "auto"}}, {"reasoning"}),
        ({"reasoning": {"generate_summary": "auto"}}, {"reasoning"}),
        ({"reasoning": 3, "include": 4}, set()),
        ({"include": ["reasoning.encrypted_content"]}, {"reasoning"}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs"}),
        ({"top_logprobs": 3}, {"logprobs"}),
        ({"input": [{"content": [{"type": "input_image"}]}]}, {"images"}),
        ({"input": [3, {"content": [3]}, {"output": [{"type": "input_image"}]}]}, {"images"}),
    ],
)
def test_features_are_seen(asked: dict[str, Any], features: set[str]) -> None:
    """What a request asks for beside text is listed."""
    assert response_call(**asked).features == features
    assert response_call(stream=True).streaming


def test_what_a_request_builds_on_is_named() -> None:
    """Earlier responses, conversations, files, containers and stores must be the caller's."""
    call = response_call(
        previous_response_id="resp_0",
        conversation={"id": "conv_1"},
        input=[
            {"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]},
            {"role": "user", "content": [{"type": "input_image", "file_id": "file-2"}]},
        ],
        tools=[
            {"type": "code_interpreter", "container": "cntr_1"},
            {
                "type": "code_interpreter",
                "container": {"type": "auto", "file_ids": ["file-3", "file-1", 3]},
            },
            {"type": "file_search", "vector_store_ids": ["vs_1"]},
            3,
        ],
    )

    assert set(call.uses) == {
        Resource("response", "resp_0"),
        Resource("conversation", "conv_1"),
        Resource("container", "cntr_1"),
        Resource("file", "file-1"),
        Resource("file", "file-2"),
        Resource("file", "file-3"),
        Resource("vector-store", "vs_1"),
    }
    assert len(call.uses) == 7
    assert response_call(conversation="conv_1").uses == (Resource("conversation", "conv_1"),)
    assert response_call(previous_response_id="", conversation=3, tools=[{}]).uses == ()


def test_a_whole_response_is_read() -> None:
    """Words, reasoning in the open and in secret, calls and counts are read."""
    answer = read(whole_response(THOUGHT, MESSAGE, LOOK, SQL))

    assert answer == Answer(
        readable=True,
        whole=True,
        id="resp_1",
        model="gpt-x-2026-08-01",
        choices=(
            Choice(
                index=0,
                text="Grüße, 世界",
                reasoning=("Let me think.", "gAAAB"),
                shown=Shown("Let me think.", is_summary=True),
                tool_calls=(
                    ToolCall(id="call_1", name="look", arguments='{"a":1}'),
                    ToolCall(id="call_2", name="sql", arguments="select"),
                ),
                finish_reason="completed",
            ),
        ),
        usage=USED,
        made=MADE,
    )


def test_every_item_is_a_unit() -> None:
    """What the provider ran is a result, what the caller is to run a call, all else listed."""
    shell = {
        "type": "shell_call",
        "id": "sh_1",
        "call_id": "call_3",
        "action": {"commands": ["ls"]},
    }
    compaction = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAC"}
    result = {"type": "shell_call_output", "output": []}
    odd_part = {"type": "output_audio", "data": "AAAA"}
    odd = [
        3,
        {"type": 3},
        {"type": "unheard", "x": [1]},
        {"type": "image_generation_call", "result": {"a": 1}},
        {"type": "image_generation_call", "result": None},
        {"type": "function_call", "arguments": {"b": 1}},
        {"type": "custom_tool_call"},
        {"type": "message", "content": [odd_part, 3, {"type": "output_text", "text": 3}]},
        {"type": "message", "content": "plain"},
        {"type": "message", "content": 3},
        {"type": "reasoning", "summary": [3, {"text": ""}], "content": 3},
    ]
    answer = read(whole_response(FOUND, shell, compaction, result, *odd))
    (choice,) = answer.choices

    assert choice.text == "Found.plain"
    assert choice.tool_calls == (
        ToolCall(id="call_3", name="shell_call", arguments='{"action":{"commands":["ls"]}}'),
        ToolCall(id="", name="", arguments='{"b":1}'),
        ToolCall(id="", name="", arguments=""),
    )
    assert choice.others == (
        unit("tool-result", 0, CITED),
        unit("other", 0, compaction),
        unit("tool-result", 0, result),
        unit("other", 0, 3),
        unit("other", 0, {"type": 3}),
        unit("other", 0, {"type": "unheard", "x": [1]}),
        unit("other", 0, {"a": 1}),
        unit("other", 0, odd_part),
        unit("other", 0, 3),
        unit("other", 0, {"type": "output_text", "text": 3}),
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        {},
        {"output": 3},
        whole_response({"type": "image_generation_call", "result": "no base64!"}),
        whole_response({"type": "shell_call", "action": 2**70}),
        whole_response({"type": "function_call", "arguments": {"a": 2**70}}),
    ],
)
def test_nonsense_is_opaque(body: object) -> None:
    """A body that is no response is an answer nobody can learn from."""
    assert read(body) == OPAQUE


def test_what_is_made_in_the_background_is_pending() -> None:
    """A response that is only begun has no output yet, but can be fetched later."""
    call = response_call(background=True)
    answer = read(RESPONSE | {"status": "queued"}, call=call)

    assert (answer.pending, answer.choices, answer.made) == (True, (), MADE)
    assert not read(RESPONSE | {"status": "queued"}).pending
    assert read(RESPONSE | {"background": True}, call=again()).pending


def test_a_response_read_again_is_read_alike() -> None:
    """What is fetched or cancelled is read as it is when it is made, but is not made anew."""
    call = again()
    told = read(whole_response(MESSAGE), call=call)

    assert call.operation is Operation.RETRIEVAL
    assert call.uses == (Resource("response", "resp_1"),)
    assert told.choices == read(whole_response(MESSAGE)).choices
    assert (told.usage, told.made) == (USED, ())
    cancelled = read(
        RESPONSE | {"status": "cancelled"}, call=again("/v1/responses/resp_1/cancel", "POST")
    )
    assert cancelled.choices == (Choice(index=0, finish_reason="cancelled"),)
    streamed = DIALECT.found("GET", "/v1/responses/resp_1", "stream=true&starting_after=4")
    assert DIALECT.read_request("openai", streamed, "", None).streaming


@pytest.mark.parametrize(
    ("response", "asked", "made"),
    [
        ({}, {}, MADE),
        ({"store": False}, {}, ()),
        ({"id": None}, {}, ()),
        ({"object": "response.compaction"}, {}, ()),
    ],
)
def test_a_response_is_kept_unless_somebody_says_no(
    response: dict[str, Any], asked: dict[str, Any], made: tuple[Made, ...]
) -> None:
    """The provider keeps every response that it was not told to forget."""
    assert read(whole_response(MESSAGE) | response, call=response_call(**asked)).made == made
    bare = {name: value for name, value in whole_response(MESSAGE).items() if name != "store"}
    assert read(bare, call=response_call(store=False)).made == ()


def test_a_container_that_was_there_before_is_not_made() -> None:
    """A container that the request names belongs to somebody already."""
    item = {"type": "code_interpreter_call", "container_id": "cntr_1"}
    named = response_call(tools=[{"type": "code_interpreter", "container": "cntr_1"}])
    of = Resource("response", "resp_1")

    assert read(whole_response(item), call=named).made == MADE
    assert read(whole_response(item, item)).made == (
        *MADE,
        Made(resource=Resource("container", "cntr_1"), of=of),
    )


@pytest.mark.parametrize(
    ("told", "finish", "stop", "error"),
    [
        ({"status": "incomplete"}, "incomplete", None, None),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            "content_filter",
            "policy",
            None,
        ),
        ({"error": {"code": "invalid_prompt"}}, "completed", "policy", "invalid_prompt"),
        ({"error": {"code": "server_error"}}, "completed", None, "server_error"),
    ],
)
def test_how_a_response_ended_is_read(
    told: dict[str, Any], finish: str, stop: str | None, error: str | None
) -> None:
    """An end before the end has its reason, and a provider's no is known as such."""
    answer = read(whole_response(MESSAGE) | told)

    assert answer.choices[0].finish_reason == finish
    assert (answer.stop, answer.error) == (stop, error)


def test_a_compacted_response_has_no_row() -> None:
    """What only its provider can read is listed, and nobody learns from it."""
    call = call_of("/v1/responses/compact", input="hello")
    body = {"id": "resp_2", "object": "response.compaction", "output": [], "usage": COUNTS}
    answer = read(body, call=call)

    assert (answer.made, answer.usage) == ((), USED)
    with pytest.raises(UnteachableError, match=r"row.truncated"):
        DIALECT.row_of(call, answer.choices[0])


def test_a_row_is_a_chat() -> None:
    """Input items become messages and tools, in the shape of chat completions."""
    asked = [
        {"role": "developer", "content": "be brief"},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_text", "text": "b"},
            ],
        },
        THOUGHT,
        MESSAGE,
        LOOK,
        SQL,
        {"type": "function_call_output", "call_id": "call_1", "output": "found"},
        {
            "type": "custom_tool_call_output",
            "call_id": "call_2",
            "output": [{"type": "input_text", "text": "3"}],
        },
        LOOK | {"call_id": "call_3"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "so"}]},
        {"role": "user", "content": "go"},
    ]
    sql = {"type": "custom", "name": "sql", "description": "d"}
    answer = Choice(
        index=0,
        text="again",
        reasoning=("hidden",),
        tool_calls=(ToolCall(id="call_4", name="sql", arguments="select 4"),),
        finish_reason="completed",
    )

    def call(id_: str) -> dict[str, Any]:
        function = {"name": "look", "arguments": '{"a":1}'}
        return {"id": id_, "type": "function", "function": function}

    def free(id_: str, words: str) -> dict[str, Any]:
        return {"id": id_, "type": "custom", "custom": {"name": "sql", "input": words}}

    assert row(answer, input=asked, instructions="You are kind.", tools=[WEATHER, sql]) == {
        "messages": [
            {"role": "system", "content": "You are kind."},
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "ab"},
            {
                "role": "assistant",
                "content": "Grüße, 世界",
                "tool_calls": [call("call_1"), free("call_2", "select")],
            },
            {"role": "tool", "content": "found", "tool_call_id": "call_1"},
            {"role": "tool", "content": "3", "tool_call_id": "call_2"},
            {"role": "assistant", "content": "so", "tool_calls": [call("call_3")]},
            {"role": "user", "content": "go"},
            {
                "role": "assistant",
                "content": "again",
                "tool_calls": [free("call_4", "select 4")],
            },
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "parameters": {"type": "object"},
                    "strict": True,
                },
            },
            {"type": "custom", "custom": {"name": "sql", "description": "d"}},
        ],
    }
    assert row(input="hello") == {
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "hi"},
        ]
    }


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"previous_response_id": "resp_0"}, "row.not-whole-prompt"),
        ({"conversation": "conv_1"}, "row.not-whole-prompt"),
        ({"prompt": {"id": "pmpt_1"}}, "row.not-whole-prompt"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "row.not-whole-prompt"),
        ({"input": [{"type": "compaction"}]}, "row.not-whole-prompt"),
        ({"input": ""}, "row.no-messages"),
        ({"input": []}, "row.no-messages"),
        ({"input": {"a": 1}}, "row.no-messages"),
        ({"instructions": [{"role": "user"}]}, "row.malformed"),
        ({"input": [3]}, "row.malformed"),
        ({"input": [{"type": ["a"]}]}, "row.malformed"),
        ({"input": [{"role": "oracle", "content": "x"}]}, "row.malformed"),
        ({"input": [{"role": "user", "content": [3]}]}, "row.malformed"),
        ({"input": [{"type": "function_call"}]}, "row.malformed"),
        ({"input": [{"type": "function_call_output"}]}, "row.malformed"),
        ({"input": [LOOK | {"arguments": "{"}]}, "row.malformed"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "row.not-text",
        ),
        ({"input": [{"type": "input_image"}]}, "row.not-text"),
        ({"input": [{"type": "computer_call_output"}]}, "row.not-text"),
        (
            {"input": [{"role": "assistant", "content": [{"type": "refusal"}]}]},
            "row.refused",
        ),
        ({"input": [{"type": "web_search_call"}]}, "row.server-tool"),
        ({"tools": [{"type": "web_search"}]}, "row.server-tool"),
        ({"tools": [{"type": "function"}]}, "row.malformed"),
        ({"tools": [{}]}, "row.malformed"),
        ({"tools": [3]}, "row.malformed"),
        ({"tools": {"a": 1}}, "row.malformed"),
    ],
)
def test_some_responses_have_no_row(asked: dict[str, Any], code: str) -> None:
    """What no row can carry is named by a stable code."""
    assert why(**asked) == code


@pytest.mark.parametrize(
    ("choice", "code"),
    [
        (Choice(index=0, text="x", finish_reason="max_output_tokens"), "row.truncated"),
        (Choice(index=0, text="x", finish_reason="content_filter"), "row.filtered"),
        (Choice(index=0, refusal="no", finish_reason="completed"), "row.refused"),
        (
            Choice(
                index=0, text="x", finish_reason="completed", others=(unit("image", 0, b"x"),)
            ),
            "row.not-text",
        ),
        (
            Choice(
                index=0,
                text="x",
                finish_reason="completed",
                others=(unit("tool-result", 0, 1),),
            ),
            "row.server-tool",
        ),
    ],
)
def test_some_outputs_have_no_row(choice: Choice, code: str) -> None:
    """An output that is cut off, refused, or more than words, teaches nothing."""
    assert why(choice) == code
