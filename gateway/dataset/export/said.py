"""Read the messages of a row, telling what of them a form of plain turns can't hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_KEYS: Final = frozenset(
    {"role", "content", "name", "reasoning_content", "tool_calls", "tool_call_id"}
)


def words_of(message: Mapping[str, Any], lost: set[str]) -> str:
    """Return the words of *message*, adding to *lost* what else it held."""
    if message.keys() - _KEYS:
        lost.add("message-keys")
    if message.get("name") is not None:
        lost.add("names")
    if message.get("reasoning_content"):
        lost.add("reasoning")
    return text_of(message.get("content"), lost)


def text_of(content: object, lost: set[str]) -> str:
    """Return *content* as one text, adding to *lost* what is none."""
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            lost.add("parts")
            return "".join(_part(part, lost) for part in content)
        case _:
            lost.add("not-text")
            return ""


def calls_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tool calls of *message* that have the shape of one."""
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _part(part: object, lost: set[str]) -> str:
    text = part.get("text") if isinstance(part, dict) else None
    if not isinstance(text, str):
        lost.add("not-text")
        return ""
    return text
