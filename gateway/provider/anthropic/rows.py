"""Turns a conversation into a training row in OpenAI's shape.

`tool_use` becomes `tool_calls`, each `tool_result` a message of role `tool`; thinking and
citations are dropped.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from gateway.provider import dialect
from gateway.provider.anthropic.messages import CALLS, THOUGHTS
from gateway.provider.model import Choice, Operation, ProviderCall, ToolCall, UnteachableError

FINISHED: Final = frozenset({"end_turn", "stop_sequence", "tool_use"})
"""Stop reasons after which an answer is all there."""

_TURN: Final = re.compile(r"\n\n(Human|Assistant):")
"""What divides the turns of an older prompt."""


def row_of(call: ProviderCall, choice: Choice) -> dict[str, Any]:
    """Return the conversation and *choice* as a training row.

    Raises:
        UnteachableError: the exchange holds something that no row can carry.
    """
    asked = call.body or {}
    if call.operation is Operation.COMPLETION:
        messages = _turns_of(asked.get("prompt"))
        dialect.continue_prefix(messages, dialect.answer_message(choice, FINISHED))
        return {"messages": messages}
    thread = asked.get("thread")
    if isinstance(thread, dict) and "previous_message_id" in thread:
        raise UnteachableError("row.not-whole-prompt")
    said = asked.get("messages")
    if not isinstance(said, list) or not said:
        raise UnteachableError("row.no-messages")
    messages = []
    if system := dialect.joined_text(asked.get("system")):
        messages.append({"role": "system", "content": system})
    for message in said:
        messages.extend(_messages_in_row(message))
    if not messages:
        raise UnteachableError("row.no-messages")
    dialect.continue_prefix(messages, dialect.answer_message(choice, FINISHED))
    tools = _tools_in_row(asked.get("tools"))
    return {"messages": messages, "tools": tools} if tools else {"messages": messages}


def _turns_of(prompt: object) -> list[dict[str, Any]]:
    """Return the turns of an older *prompt* as messages; what comes before is the system's.

    Raises:
        UnteachableError: it has none.
    """
    if not isinstance(prompt, str):
        raise UnteachableError("row.malformed")
    system, *turns = _TURN.split(prompt)
    if not turns:
        raise UnteachableError("row.no-messages")
    messages: list[dict[str, Any]] = []
    if system.strip():
        messages.append({"role": "system", "content": system.strip()})
    for role, words in zip(turns[::2], turns[1::2], strict=True):
        said = words.removeprefix(" ")
        if role == "Human":
            messages.append({"role": "user", "content": said})
        elif said:
            messages.append({"role": "assistant", "content": said})
    if not messages:
        raise UnteachableError("row.no-messages")
    return messages


def _messages_in_row(said: object) -> list[dict[str, Any]]:
    """Return a message of the request as messages of a row.

    Raises:
        UnteachableError: it holds what no row can carry, or has no such shape.
    """
    if not isinstance(said, dict):
        raise UnteachableError("row.malformed")
    content = said.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise UnteachableError("row.malformed")
    match said.get("role"):
        case "assistant":
            return [_assistant_in_row(blocks)]
        case "user":
            return _user_in_row(blocks)
        case "system":
            return [{"role": "system", "content": dialect.joined_text(blocks)}]
        case _:
            raise UnteachableError("row.malformed")


def _assistant_in_row(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    words, calls = [], []
    for block in blocks:
        kind = block.get("type")
        if kind in THOUGHTS:
            continue
        if kind == "tool_use":
            if "input" not in block:
                raise UnteachableError("row.malformed")
            call = ToolCall(
                id=str(block.get("id") or ""),
                name=str(block.get("name") or ""),
                arguments=orjson.dumps(block["input"]).decode(),
            )
            calls.append(dialect.call_in_row(call))
        elif kind in CALLS or str(kind).endswith("_tool_result"):
            raise UnteachableError("row.server-tool")
        else:
            words.append(block)
    message: dict[str, Any] = {"role": "assistant", "content": dialect.joined_text(words)}
    if calls:
        message |= {"content": message["content"] or None, "tool_calls": calls}
    return message


def _user_in_row(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a user's turn in its order: words as role `user`, results as role `tool`."""
    messages: list[dict[str, Any]] = []
    for block in blocks:
        if block.get("type") == "tool_result":
            if not isinstance(block.get("tool_use_id"), str):
                raise UnteachableError("row.malformed")
            words = dialect.joined_text(block.get("content"))
            messages.append(
                {"role": "tool", "content": words, "tool_call_id": block["tool_use_id"]}
            )
            continue
        words = dialect.joined_text([block])
        if messages and messages[-1]["role"] == "user":
            messages[-1]["content"] += words
        else:
            messages.append({"role": "user", "content": words})
    return messages


def _tools_in_row(tools: object) -> list[dict[str, Any]]:
    """Return the tools that the caller defined, in OpenAI's shape."""
    rows = []
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and "input_schema" in tool:
            words = {"name": tool.get("name"), "description": tool.get("description")}
            function = {key: word for key, word in words.items() if word is not None}
            function["parameters"] = tool["input_schema"]
            rows.append({"type": "function", "function": function})
    return rows
