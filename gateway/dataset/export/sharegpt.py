"""Conversations as ShareGPT has them: turns of two sides that alternate.

A turn is asked (`human`, `observation`) or answered (`gpt`, `function_call`), as LLaMA-Factory
reads it. Definitions of tools stand beside the conversation as a JSON text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from gateway.dataset.export.lost import Converted
from gateway.dataset.export.said import calls_of, words_of

_ANSWERED: Final = frozenset({"gpt", "function_call"})
_SPEAKERS: Final = {"user": "human", "tool": "observation", "assistant": "gpt"}
_BETWEEN: Final = "\n\n"
"""What stands between turns that had to become one."""


def to_sharegpt(row: Mapping[str, Any]) -> Converted:
    """Return a row of messages as turns."""
    lost: set[str] = set()
    talk = _Talk(lost)
    for message in row["messages"]:
        talk.hear(message)
    written: dict[str, Any] = {"conversations": talk.turns()}
    if row.get("tools") is not None:
        written["tools"] = _json([_definition(tool, lost) for tool in row["tools"]])
    return Converted(written, tuple(sorted(lost)))


def from_sharegpt(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of messages that turns without any loss were made of."""
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    row: dict[str, Any] = {
        "messages": [
            {"role": roles.get(turn["from"], turn["from"]), "content": turn["value"]}
            for turn in written["conversations"]
        ]
    }
    if written.get("tools") is not None:
        row["tools"] = [
            tool if _is_wrapped(tool) else {"type": "function", "function": tool}
            for tool in orjson.loads(written["tools"])
        ]
    return row


class _Talk:
    """Puts messages into turns, one side after the other."""

    def __init__(self, lost: set[str]) -> None:
        self._lost = lost
        self._system: str | None = None
        self._turns: list[tuple[str, Any]] = []

    def hear(self, message: Mapping[str, Any]) -> None:
        """Add what *message* says."""
        words = words_of(message, self._lost)
        role = message.get("role")
        if role not in _SPEAKERS and role != "system":
            self._lost.add("roles")
            role = "system" if role == "developer" else "user"
        calls = calls_of(message)
        if calls or message.get("tool_call_id") is not None:
            self._lost.add("call-ids")
        if role == "system":
            self._add_system(words)
        elif calls:
            if words:
                self._lost.add("words-beside-calls")
            self._add("function_call", [self._call(call) for call in calls])
        else:
            self._add(_SPEAKERS[str(role)], words)

    def turns(self) -> list[dict[str, str]]:
        """Return the turns as they are written."""
        system = [] if self._system is None else [("system", self._system)]
        return [{"from": who, "value": _value(said)} for who, said in (*system, *self._turns)]

    def _add_system(self, words: str) -> None:
        if self._turns or self._system is not None:
            self._lost.add("system-moved")
            self._system = _joined(self._system, words)
        else:
            self._system = words

    def _add(self, who: str, said: Any) -> None:
        if not self._turns:
            if who in _ANSWERED:
                self._lost.add("turn-added")
                self._turns.append(("human", ""))
            self._turns.append((who, said))
            return
        last, before = self._turns[-1]
        if (last in _ANSWERED) != (who in _ANSWERED):
            self._turns.append((who, said))
            return
        self._turns[-1] = self._one(last, before, who, said)

    def _one(self, last: str, before: Any, who: str, said: Any) -> tuple[str, Any]:
        """Return two turns of the same side as one."""
        match last, who:
            case "function_call", "function_call":
                return who, before + said
            case "gpt", "function_call":
                self._lost.add("words-beside-calls")
                return who, said
            case "function_call", "gpt":
                self._lost.add("calls-unanswered")
                return who, said
            case "observation", "observation":
                self._lost.add("parallel-results")
                return who, _joined(before, said)
            case _:
                self._lost.add("turns-joined")
                return ("gpt" if who == "gpt" else "human"), _joined(before, said)

    def _call(self, call: Mapping[str, Any]) -> str:
        """Return a call as a JSON text; its arguments stand as they were written."""
        if call.keys() - {"id", "type", "function", "custom"}:
            self._lost.add("call-keys")
        custom, function = call.get("custom"), call.get("function")
        if isinstance(custom, dict):
            self._lost.add("custom-calls")
            name, given = custom.get("name"), custom.get("input")
        else:
            named = function if isinstance(function, dict) else {}
            name, given = named.get("name"), named.get("arguments")
        text = given if isinstance(given, str) else _json(given)
        if not _is_object(text):
            if not isinstance(custom, dict):
                self._lost.add("call-arguments")
            text = _json(text)
        return f'{{"name": {_json(name)}, "arguments": {text}}}'


def _value(said: Any) -> str:
    if isinstance(said, str):
        return said
    (one, *more) = said
    return f"[{', '.join(said)}]" if more else str(one)


def _joined(before: str | None, words: str) -> str:
    return _BETWEEN.join(filter(None, (before, words)))


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def _definition(tool: Any, lost: set[str]) -> Any:
    """Return a tool's definition bare, as its readers have it, or as it is."""
    function = tool.get("function") if isinstance(tool, dict) else None
    if isinstance(function, dict) and {"type", "function"} == tool.keys():
        if _is_wrapped(function) or tool["type"] != "function":
            lost.add("tool-definitions")
        return function
    if not _is_wrapped(tool):
        lost.add("tool-definitions")
    return tool


def _is_wrapped(tool: Any) -> bool:
    return isinstance(tool, dict) and isinstance(tool.get("type"), str) and tool["type"] in tool


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
