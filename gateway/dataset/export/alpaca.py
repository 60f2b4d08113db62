"""One question and its answer, as Alpaca has them.

What was said before the question is left away, not written as `history`: readers of this form
learn from the answers in a history too, and nothing vouches for those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dataset.export.lost import Converted
from gateway.dataset.export.said import calls_of, words_of


def to_alpaca(row: Mapping[str, Any]) -> Converted:
    """Return a row of messages as a question and its answer."""
    *before, answer = row["messages"]
    if calls_of(answer):
        return Converted(None, ("answer-is-a-call",))
    lost: set[str] = set()
    written: dict[str, Any] = {"input": "", "output": words_of(answer, lost)}
    if before and before[0].get("role") == "system":
        written["system"] = words_of(before[0], lost)
        before = before[1:]
    asked = [at for at, message in enumerate(before) if message.get("role") == "user"]
    if not asked:
        return Converted(None, ("no-question",))
    at = asked[-1]
    written["instruction"] = words_of(before[at], lost)
    others = [*before[:at], *before[at + 1 :]]
    if any(_is_of_tools(message) for message in others):
        lost.add("tool-turns")
    if any(not _is_of_tools(message) for message in others):
        lost.add("earlier-turns")
    if row.get("tools"):
        lost.add("tools")
    return Converted(written, tuple(sorted(lost)))


def from_alpaca(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of messages that a question without any loss was made of."""
    said = [("user", written["instruction"]), ("assistant", written["output"])]
    if written.get("system") is not None:
        said.insert(0, ("system", written["system"]))
    return {"messages": [{"role": role, "content": words} for role, words in said]}


def _is_of_tools(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "tool" or bool(calls_of(message))
