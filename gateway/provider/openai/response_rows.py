"""Training rows out of responses: input items become messages, the output the last of them.

A row has the shape of a chat completion. Items that follow each other in one turn of the
assistant's are one message; its reasoning is dropped. Where an earlier response, a conversation
or a stored prompt holds a part of what was asked, there is no row: the prompt is not all here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.provider import dialect
from gateway.provider.model import Choice, ToolCall, UnteachableError
from gateway.provider.openai.responses import FINISHED
from gateway.provider.openai.rows import custom_names

_ELSEWHERE: Final = ("previous_response_id", "conversation", "prompt")
"""Parts of a request that stand for words which are not in it."""

_LEFT_OUT: Final = frozenset({"item_reference", "compaction"})
"""Items that stand for words which are not here, or which nobody can read."""

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_WORDS: Final = frozenset({"input_text", "output_text", "text"})


def row_of_response(asked: Mapping[str, Any], choice: Choice) -> dict[str, Any]:
    """Return what was *asked* and *choice* as a training row.

    Raises:
        UnteachableError: the exchange holds something that no row can carry.
    """
    if any(asked.get(name) for name in _ELSEWHERE):
        raise UnteachableError("row.not-whole-prompt")
    tools = _tools_in_row(asked.get("tools") or [])
    messages: list[dict[str, Any]] = []
    instructions = asked.get("instructions")
    if instructions:
        if not isinstance(instructions, str):
            raise UnteachableError("row.malformed")
        messages.append({"role": "system", "content": instructions})
    said = asked.get("input")
    if isinstance(said, str) and said:
        messages.append({"role": "user", "content": said})
    elif isinstance(said, list) and said:
        for item in said:
            _add(messages, item)
    else:
        raise UnteachableError("row.no-messages")
    messages.append(dialect.answer_message(choice, FINISHED, custom_names(tools)))
    return {"messages": messages, "tools": tools} if tools else {"messages": messages}


def _add(messages: list[dict[str, Any]], item: object) -> None:
    """Add what *item* says to *messages*.

    Raises:
        UnteachableError: it says what no row can carry, or has no such shape.
    """
    if not isinstance(item, dict):
        raise UnteachableError("row.malformed")
    kind = item.get("type") or "message"
    if not isinstance(kind, str):
        raise UnteachableError("row.malformed")
    match kind:
        case "message":
            _add_message(messages, item)
        case "function_call" | "custom_tool_call":
            _add_call(messages, item, free=kind == "custom_tool_call")
        case "function_call_output" | "custom_tool_call_output":
            if not isinstance(item.get("call_id"), str):
                raise UnteachableError("row.malformed")
            words = _joined(item.get("output"))
            messages.append({"role": "tool", "content": words, "tool_call_id": item["call_id"]})
        case "reasoning":
            pass
        case _ if kind in _LEFT_OUT:
            raise UnteachableError("row.not-whole-prompt")
        case (
            "input_text" | "input_image" | "input_file" | "input_audio" | "computer_call_output"
        ):
            raise UnteachableError("row.not-text")
        case _:
            raise UnteachableError("row.server-tool")


def _add_message(messages: list[dict[str, Any]], item: Mapping[str, Any]) -> None:
    role = _ROLES.get(str(item.get("role")))
    if role is None:
        raise UnteachableError("row.malformed")
    words = _joined(item.get("content"))
    last = messages[-1] if messages else None
    if role == "assistant" and last is not None and last["role"] == "assistant":
        # One turn of the assistant's may come in several items.
        last["content"] = (last["content"] or "") + words
        return
    messages.append({"role": role, "content": words})


def _add_call(messages: list[dict[str, Any]], item: Mapping[str, Any], *, free: bool) -> None:
    id_, name = item.get("call_id"), item.get("name")
    given = item.get("input" if free else "arguments")
    if not isinstance(id_, str) or not isinstance(name, str) or not isinstance(given, str):
        raise UnteachableError("row.malformed")
    call = dialect.call_in_row(
        ToolCall(id=id_, name=name, arguments=given), frozenset({name} if free else ())
    )
    last = messages[-1] if messages else None
    if last is None or last["role"] != "assistant":
        last = {"role": "assistant", "content": None}
        messages.append(last)
    last["content"] = last["content"] or None
    last.setdefault("tool_calls", []).append(call)


def _joined(content: object) -> str:
    """Return the words of *content*: a text, or parts that are text, joined as they stand."""
    if not isinstance(content, list):
        return dialect.joined_text(content)
    parts = []
    for part in content:
        if not isinstance(part, dict):
            raise UnteachableError("row.malformed")
        kind = part.get("type")
        parts.append(part | {"type": "text"} if str(kind) in _WORDS else part)
    return dialect.joined_text(parts)


def _tools_in_row(tools: object) -> list[dict[str, Any]]:
    """Return *tools* in the shape that chat completions have for them.

    Raises:
        UnteachableError: one is the provider's own, or has no shape that a row knows.
    """
    if not isinstance(tools, list):
        raise UnteachableError("row.malformed")
    return list(map(_tool_in_row, _each(tools)))


def _each(tools: Iterable[Any]) -> Iterable[dict[str, Any]]:
    for tool in tools:
        if not isinstance(tool, dict):
            raise UnteachableError("row.malformed")
        yield tool


def _tool_in_row(tool: dict[str, Any]) -> dict[str, Any]:
    kind = tool.get("type")
    if kind not in ("function", "custom"):
        known = isinstance(kind, str) and kind
        raise UnteachableError("row.server-tool" if known else "row.malformed")
    if not isinstance(tool.get("name"), str):
        raise UnteachableError("row.malformed")
    defined = {name: value for name, value in tool.items() if name != "type"}
    return {"type": kind, kind: defined}
