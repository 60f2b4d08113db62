"""What a form can't hold of a row: each loss has a name, and each row says which it had.

A row that names no loss can be made again from what was written, byte for byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.limits import LOST_ROWS_LISTED_MAX

LOSSES: Final[dict[str, str]] = {
    "call-arguments": "the arguments of a call are no JSON object, and stand as text",
    "call-ids": "the ids by which results belong to their calls are gone; the order tells",
    "call-keys": "a call had keys that the form has no place for",
    "calls-unanswered": "a call that was followed by no result is gone",
    "custom-calls": "a call with free text stands as one with arguments",
    "earlier-turns": "what was said before the last question is gone",
    "form": "something is written in another way; no word is gone",
    "message-keys": "a message had keys that the form has no place for",
    "names": "names of speakers are gone",
    "not-text": "parts of a message that are no text are gone",
    "parallel-results": "results of calls made at once stand as one turn",
    "parts": "the text parts of a message stand as one text",
    "reasoning": "the reasoning that was shown is gone",
    "roles": "somebody spoke in a role that the form does not know, and speaks in another",
    "system-moved": "a later word of the system stands at the beginning",
    "tool-definitions": "a tool's definition stands in another shape",
    "tool-turns": "calls of tools and what they gave are gone",
    "tools": "the definitions of tools are gone",
    "turn-added": "an empty turn stands before a conversation that the assistant began",
    "turns-joined": "turns of one side that followed each other stand as one",
    "words-beside-calls": "words that the assistant said while it called a tool are gone",
}
"""Every loss that an export can name, and what it means. A name never changes."""

LEFT_OUT: Final[dict[str, str]] = {
    "answer-is-a-call": "the answer calls a tool, and the form has words alone",
    "no-question": "nobody asked anything that the form could hold",
}
"""Every reason for which an export has no place for a row at all."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A row in another form, with the losses it had; without a row, why it has no place."""

    row: dict[str, Any] | None
    lost: tuple[str, ...] = ()


@dataclass(slots=True)
class Lost:
    """Counts losses while rows pass, and remembers the first rows of each."""

    rows: int = 0
    """Rows that lost something."""
    by_kind: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[int]] = field(default_factory=dict)

    def add(self, number: int, converted: Converted) -> None:
        """Count what the dataset's row *number* lost."""
        if converted.row is None:
            self.left_out.update(converted.lost)
        elif converted.lost:
            self.rows += 1
            self.by_kind.update(converted.lost)
        for kind in converted.lost:
            listed = self.first.setdefault(kind, [])
            if len(listed) < LOST_ROWS_LISTED_MAX:
                listed.append(number)

    def report(self, rows: int) -> dict[str, Any]:
        """Return what `lost.json` says, of *rows* that were written."""
        return {
            "leftOut": self._told(self.left_out, LEFT_OUT),
            "lossy": self.rows,
            "lost": self._told(self.by_kind, LOSSES),
            "rows": rows,
        }

    def _told(self, counts: Mapping[str, int], meanings: Mapping[str, str]) -> dict[str, Any]:
        return {
            kind: {"first": self.first[kind], "means": meanings[kind], "rows": count}
            for kind, count in counts.items()
        }
