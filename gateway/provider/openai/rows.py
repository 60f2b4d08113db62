"""Training rows out of chat completions: the conversation as it was asked, the choice last.

Rows drop reasoning, call the role `developer` by its older name `system`, and join text parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from gateway.provider import dialect
from gateway.provider.model import Choice, UnteachableError
from gateway.provider.openai.chat import FINISHED, Call, HeardChoice, Said


def row_of_chat(asked: Mapping[str, Any], choice: Choice) -> dict[str, Any]:
    """Return the conversation that was *asked* and *choice* as a training row.

    Raises:
        UnteachableError: the exchange holds something that no row can carry.
    """
    if asked.get("modalities") not in (None, ["text"]):
        raise UnteachableError("row.not-text")
    if "functions" in asked:
        raise UnteachableError("row.legacy-functions")
    said = asked.get("messages")
    if not isinstance(said, list) or not said:
        raise UnteachableError("row.no-messages")
    tools = asked.get("tools") or []
    if not isinstance(tools, list):
        raise UnteachableError("row.malformed")
    messages = [_message_in_row(message) for message in said]
    answer = dialect.answer_message(choice, FINISHED, custom_names(tools))
    if said[-1].get("prefix") is True:
        dialect.continue_prefix(messages, answer)
    else:
        messages.append(answer)
    return {"messages": messages, "tools": tools} if tools else {"messages": messages}


_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


def _message_in_row(said: object) -> dict[str, Any]:
    """Return a message of the request with nothing but what a row carries.

    Raises:
        UnteachableError: it holds what no row can carry, or has no such shape.
    """
    if not isinstance(said, dict):
        raise UnteachableError("row.malformed")
    if said.get("role") == "function" or said.get("function_call"):
        raise UnteachableError("row.legacy-functions")
    role = _ROLES.get(str(said.get("role")))
    if role is None:
        raise UnteachableError("row.malformed")
    if said.get("audio"):
        raise UnteachableError("row.not-text")
    if said.get("refusal"):
        raise UnteachableError("row.refused")
    content = said.get("content")
    if isinstance(content, list):
        content = [part for part in content if not _is_thought(part)]
    message: dict[str, Any] = {"role": role, "content": dialect.joined_text(content)}
    if isinstance(said.get("name"), str):
        message["name"] = said["name"]
    if role == "tool":
        if not isinstance(said.get("tool_call_id"), str):
            raise UnteachableError("row.malformed")
        message["tool_call_id"] = said["tool_call_id"]
    if calls := said.get("tool_calls"):
        message["content"] = message["content"] or None
        message["tool_calls"] = _calls_in_row(calls)
    return message


def _is_thought(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "thinking"


def _calls_in_row(calls: object) -> list[dict[str, Any]]:
    """Return tool calls of a request, checked."""
    try:
        read = msgspec.convert(calls, list[Call])
    except msgspec.ValidationError as exc:
        raise UnteachableError("row.malformed") from exc
    rows = []
    for call in read:
        heard = HeardChoice()
        heard.hear(Said(tool_calls=[call]))
        (said,) = heard.choice(0).tool_calls
        custom = frozenset({said.name}) if call.custom is not None else frozenset[str]()
        rows.append(dialect.call_in_row(said, custom))
    return rows


def custom_names(tools: Iterable[Any]) -> frozenset[str]:
    """Return the names of the tools that take free text."""
    names = set()
    for tool in tools:
        custom = tool.get("custom") if isinstance(tool, dict) else None
        if isinstance(custom, dict) and isinstance(custom.get("name"), str):
            names.add(custom["name"])
    return frozenset(names)
