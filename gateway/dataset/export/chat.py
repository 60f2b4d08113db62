"""Forms that hold whole messages as OpenAI has them: nothing is lost, columns move.

They are what OpenAI's own training takes, and TRL's: messages, a prompt with its completion, a
prompt with a better and a worse answer, a prompt alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dataset.export.lost import Converted


def as_it_is(row: Mapping[str, Any]) -> Converted:
    """Return the row in its own form."""
    return Converted(dict(row))


def unchanged(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was written in the row's own form."""
    return dict(written)


def to_completion(row: Mapping[str, Any]) -> Converted:
    """Return a row of messages as the prompt and what completes it, the last message."""
    *prompt, answer = row["messages"]
    rest = {name: value for name, value in row.items() if name != "messages"}
    return Converted(rest | {"prompt": prompt, "completion": [answer]})


def from_completion(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of messages that a prompt and its completion were made of."""
    parts = ("prompt", "completion")
    rest = {name: value for name, value in written.items() if name not in parts}
    return rest | {"messages": [*written["prompt"], *written["completion"]]}


def to_openai_preference(row: Mapping[str, Any]) -> Converted:
    """Return a pair of answers as OpenAI's preference tuning takes it."""
    asked: dict[str, Any] = {"messages": row["prompt"]}
    if "tools" in row:
        asked |= {"parallel_tool_calls": True, "tools": row["tools"]}
    return Converted(
        {
            "input": asked,
            "non_preferred_output": row["rejected"],
            "preferred_output": row["chosen"],
        }
    )


def from_openai_preference(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pair of answers that OpenAI's form was made of."""
    asked = written["input"]
    return {
        "chosen": written["preferred_output"],
        "prompt": asked["messages"],
        "rejected": written["non_preferred_output"],
    } | ({"tools": asked["tools"]} if "tools" in asked else {})
