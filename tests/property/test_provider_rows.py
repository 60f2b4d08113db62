"""Laws of training rows, whatever was asked and answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.canonical import canonical_json
from gateway.errors import MalformedBodyError
from gateway.provider.catalogue import DIALECTS
from gateway.provider.model import Choice, Dialect, ToolCall, UnteachableError

PATHS = {
    "openai": "/v1/chat/completions",
    "azure": "/openai/v1/chat/completions",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/m:generateContent",
}
CODES = {
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
        "model",
        "messages",
        "role",
        "parts",
        "functionCall",
        "function_response",
        "args",
        "response",
        "content",
        "type",
        "text",
        "system",
        "tools",
        "tool_calls",
        "id",
        "name",
        "input",
        "function",
        "arguments",
        "tool_use_id",
        "tool_call_id",
        "prefix",
        "input_schema",
        "custom",
        "modalities",
        "functions",
        "n",
        "stream",
        "thinking",
    ]
)
WORDS = st.sampled_from(
    [
        "user",
        "model",
        "assistant",
        "system",
        "tool",
        "text",
        "tool_use",
        "tool_result",
        "image",
        "a",
        "{}",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | WORDS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": WORDS, "content": values}, optional={"tool_calls": values, "parts": values}
    ),
    min_size=1,
    max_size=4,
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
calls = st.builds(ToolCall, id=texts, name=texts, arguments=texts | st.just("{}"))
choices = st.builds(
    Choice,
    index=st.just(0),
    text=texts,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    finish_reason=st.sampled_from(
        [None, "stop", "end_turn", "tool_use", "tool_calls", "length", "STOP", "SAFETY"]
    ),
)
dialects = st.sampled_from(list(DIALECTS.values()))


@given(dialects, st.binary(max_size=40) | values.map(lambda v: json.dumps(v).encode()))
def test_any_request_is_read_or_refused(dialect: Dialect, body: bytes) -> None:
    """Any bytes are a request, or the caller is told what to change."""
    refused = None
    try:
        dialect.read_request("p", dialect.found("POST", PATHS[dialect.name]), "", body)
    except MalformedBodyError as exc:
        refused = exc

    assert refused is None or (refused.hint and "\n" not in str(refused))


@given(dialects, messages | values, st.dictionaries(KEYS, values, max_size=3), choices)
def test_any_exchange_has_a_row_or_a_reason(
    dialect: Dialect, said: object, more: dict[str, Any], choice: Choice
) -> None:
    """An exchange becomes a row that can be written, or is left out under a stable code."""
    body = json.dumps({**more, "model": "m", "messages": said, "contents": said}).encode()
    call = dialect.read_request("p", dialect.found("POST", PATHS[dialect.name]), "", body)
    try:
        row = dialect.row_of(call, choice)
    except UnteachableError as exc:
        row, code = {"messages": []}, str(exc)
    else:
        code = ""
        last = row["messages"][-1]

        assert last["role"] == "assistant"
        assert (last["content"] or "").endswith(choice.text)
    assert row == json.loads(canonical_json(row))
    assert {"messages"} <= row.keys() <= {"messages", "tools"}
    assert code in {"", *CODES}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda d: d.name)
def test_reasoning_is_never_taught(dialect: Dialect) -> None:
    """No row holds what a provider showed of its model's reasoning."""
    said = {"role": "user", "content": "q", "parts": [{"text": "q"}]}
    body = json.dumps({"model": "m", "messages": [said], "contents": [said]}).encode()
    call = dialect.read_request("p", dialect.found("POST", PATHS[dialect.name]), "", body)
    end = "STOP" if dialect.name == "gemini" else "stop_sequence"
    choice = Choice(index=0, text="a", reasoning=("SECRET",), finish_reason=end)

    assert b"SECRET" not in canonical_json(dialect.row_of(call, choice))
