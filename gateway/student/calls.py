"""Calls of tools in what a student says: read where they are sound, left as words elsewhere.

A call is JSON with a name and arguments between two marks, as the house's template and many
others write it. It counts only if its tool was offered, and only at the end of an answer:
whatever else a student says stays text, for a caller must never run what was not offered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

BEGIN: Final = "<tool_call>"
END: Final = "</tool_call>"

_CALLS: Final = re.compile(
    rf"(?:\s*{re.escape(BEGIN)}(?:.*?){re.escape(END)})+\s*\Z", re.DOTALL
)
_CALL: Final = re.compile(rf"{re.escape(BEGIN)}(.*?){re.escape(END)}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call: the tool's name, and its arguments as JSON."""

    name: str
    arguments: str


def read_calls(
    text: str, tools: Sequence[Mapping[str, Any]] | None
) -> tuple[str, tuple[ToolCall, ...]]:
    """Return what is said before the calls, and the calls; all text and none where unsound."""
    offered = {str(tool.get("function", {}).get("name", "")) for tool in tools or ()}
    found = _CALLS.search(text) if offered else None
    if found is None:
        return text, ()
    calls: list[ToolCall] = []
    for written in _CALL.findall(found.group()):
        call = _read(written)
        if call is None or call.name not in offered:
            return text, ()
        calls.append(call)
    return text[: found.start()], tuple(calls)


def _read(written: str) -> ToolCall | None:
    try:
        read = json.loads(written)
    except ValueError:
        return None
    if not isinstance(read, dict) or not isinstance(read.get("name"), str):
        return None
    arguments = read.get("arguments", {})
    if isinstance(arguments, str):
        # Templates may write arguments as the text that a provider gave.
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    if not isinstance(arguments, dict):
        return None
    return ToolCall(read["name"], json.dumps(arguments, ensure_ascii=False))


class Holding:
    """Hands text on as it comes, but keeps back what may be a call, from where it begins."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._text = ""
        self._told = 0

    def say(self, text: str) -> None:
        """Take the next piece of text; hand on what can be no part of a call."""
        self._text += text
        begin = self._text.find(BEGIN)
        stop = begin if begin >= 0 else len(self._text) - self._begun()
        # Blanks before a call belong to it.
        self._tell(len(self._text[:stop].rstrip()))

    def end(self, content: str) -> None:
        """Hand on what of *content*, the words beside the calls, was kept back."""
        self._text = content
        self._tell(len(content))

    def _tell(self, stop: int) -> None:
        if stop > self._told:
            told, self._told = self._told, stop
            self._say(self._text[told:stop])

    def _begun(self) -> int:
        """Return how much of the end could be the beginning of a mark."""
        return max(
            (n for n in range(1, len(BEGIN)) if self._text.endswith(BEGIN[:n])), default=0
        )
