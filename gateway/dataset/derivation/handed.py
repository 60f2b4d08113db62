"""Rows as pipelines hand them in: checked, and written in the one way there is.

A conversation to its answer (`messages`, the last one the assistant's), a prompt with a better
and a worse answer (`prompt`, `chosen`, `rejected`), or a prompt alone with the name of what
verifies answers to it (`prompt`, `verifier`). A row holds nothing else: what nobody reads here
could carry anything past the gate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from gateway.canonical import canonical_json
from gateway.errors import GateRefusedError
from gateway.limits import DERIVED_TEXT_BYTES_MAX
from gateway.receipt.model import RowKind

ROW_MALFORMED: Final = "derive.row_malformed"

_NEEDED: Final[dict[RowKind, frozenset[str]]] = {
    "preference": frozenset({"prompt", "chosen", "rejected"}),
    "prompt": frozenset({"prompt", "verifier"}),
    "messages": frozenset({"messages"}),
}
_MAY: Final[dict[RowKind, frozenset[str]]] = {
    "preference": frozenset({"tools"}),
    "prompt": frozenset({"answer", "tools"}),
    "messages": frozenset({"tools"}),
}
KEYS: Final = frozenset[str]().union(*_NEEDED.values(), *_MAY.values())
"""Every key that a row of any kind may have."""

_CONVERSATIONS: Final = frozenset({"messages", "prompt", "chosen", "rejected"})
_ROLES: Final = ("system", "user", "assistant", "tool")
_MESSAGE: Final = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})
_VERIFIER_CHARS_MAX: Final = 128


def kind_of(row: Mapping[str, Any]) -> RowKind:
    """Return which kind of row *row* is, by its keys.

    Raises:
        GateRefusedError: `derive.row_malformed`, it is none.
    """
    for kind, needed in _NEEDED.items():
        if needed <= row.keys():
            odd = sorted(map(str, row.keys() - needed - _MAY[kind]))
            if odd:
                raise malformed(
                    f"`{odd[0][:40]}` is no part of a row of kind `{kind}`",
                    f"it has {', '.join(sorted(needed))} and may have "
                    f"{', '.join(sorted(_MAY[kind]))}",
                )
            return kind
    raise malformed(
        f"a row with {_listed(row)} is of no kind",
        "write messages; or prompt, chosen and rejected; or prompt and verifier",
    )


def line_of(row: object) -> tuple[RowKind, bytes]:
    """Return the kind of *row* and its canonical JSON.

    Raises:
        GateRefusedError: `derive.row_malformed`, it is no row.
    """
    if not isinstance(row, Mapping):
        raise malformed(f"a {type(row).__name__} is no row", "a row is a dict")
    kind = kind_of(row)
    tools = row.get("tools")
    if "tools" in row and not (isinstance(tools, list) and tools and _all_objects(tools)):
        raise malformed("`tools` is a list of tools", "leave it out where there are none")
    match kind:
        case "messages":
            _check_conversation(row["messages"], "messages", ends_with="assistant")
        case "preference":
            _check_conversation(row["prompt"], "prompt")
            for side in ("chosen", "rejected"):
                _check_conversation(row[side], side, ends_with="assistant")
                if len(row[side]) != 1:
                    raise malformed(
                        f"`{side}` is one message, the answer", "the rest is prompt"
                    )
            if row["chosen"] == row["rejected"]:
                raise malformed("both answers are the same", "a pair has a better and a worse")
        case "prompt":
            _check_conversation(row["prompt"], "prompt")
            _check_verifier(row)
    try:
        line = canonical_json(dict(row))
    except (TypeError, ValueError) as exc:
        raise malformed(f"the row has no form as JSON: {exc}", "texts, numbers, lists") from exc
    # The writer puts null in their place; where it wrote none, there is none.
    if b"null" in line and _holds_no_number(row):
        raise no_number()
    if len(line) > DERIVED_TEXT_BYTES_MAX:
        raise malformed(
            f"a row of {len(line)} bytes is too long", f"{DERIVED_TEXT_BYTES_MAX} is the most"
        )
    return kind, line


def read_line(line: bytes) -> dict[str, Any]:
    """Return the row that *line*, which was kept as canonical JSON, spells."""
    row: dict[str, Any] = orjson.loads(line)
    return row


def pair_of(chosen: Mapping[str, Any], rejected: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pair that two answers to one prompt make, both rows of kind `messages`.

    Raises:
        GateRefusedError: `derive.row_malformed`, they answer different prompts.
    """
    for side in (chosen, rejected):
        if kind_of(side) != "messages":
            raise malformed("a pair is made of two conversations", "take rows with `messages`")
    asked = [(one["messages"][:-1], one.get("tools")) for one in (chosen, rejected)]
    if asked[0] != asked[1]:
        raise malformed(
            "the two answers are to different prompts",
            "a pair is made of two answers to the same conversation, with the same tools",
        )
    pair = {
        "prompt": chosen["messages"][:-1],
        "chosen": chosen["messages"][-1:],
        "rejected": rejected["messages"][-1:],
    }
    return pair | ({"tools": chosen["tools"]} if chosen.get("tools") else {})


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of *row* that is the row, without other columns and empty places.

    Tables put nulls where a row has no such field. Only places go that a row may do without:
    `content` stays, it may be null beside tool calls.
    """
    plain: dict[str, Any] = {}
    for key, value in row.items():
        if key not in KEYS or value is None or (key == "tools" and value == []):
            continue
        conversation = key in _CONVERSATIONS and isinstance(value, Sequence)
        plain[key] = [_plain_message(one) for one in value] if conversation else value
    return plain


def no_number() -> GateRefusedError:
    """Return the error for a row that holds what is no number in JSON."""
    return malformed(
        "a row holds NaN or Infinity, which JSON has no form for",
        "leave the place out, or write a text",
    )


def malformed(message: str, hint: str) -> GateRefusedError:
    """Return the error that says why something is no row."""
    return GateRefusedError(message, hint=hint, code=ROW_MALFORMED)


def _holds_no_number(value: object) -> bool:
    """Tell whether NaN or an infinity stands anywhere in *value*, which was written as JSON."""
    match value:
        case float():
            return not math.isfinite(value)
        case Mapping():
            return any(map(_holds_no_number, value.values()))
        case list() | tuple():
            return any(map(_holds_no_number, value))
        case _:
            return False


def _all_objects(values: Sequence[Any]) -> bool:
    return all(isinstance(one, dict) for one in values)


def _check_conversation(said: object, where: str, *, ends_with: str | None = None) -> None:
    if not isinstance(said, list) or not said or not _all_objects(said):
        raise malformed(f"`{where}` is a list of messages", "each with a role and its content")
    for number, message in enumerate(said):
        _check_message(message, f"message {number} of `{where}`")
    last = said[-1]["role"]
    if ends_with is not None and last != ends_with:
        raise malformed(
            f"the last message of `{where}` is of role `{last}`",
            f"what is learned is the {ends_with}'s answer, so it stands last",
        )
    if ends_with is None and last == "assistant":
        raise malformed(
            f"`{where}` ends with an answer", "a prompt ends before it; the answer stands apart"
        )


def _check_message(message: Mapping[str, Any], where: str) -> None:
    odd = sorted(map(str, message.keys() - _MESSAGE))
    if odd:
        told = (
            "reasoning is taken from receipts alone, which say that it was shown"
            if odd[0] == "reasoning_content"
            else f"a message has {', '.join(sorted(_MESSAGE))}"
        )
        raise malformed(f"{where} has `{odd[0][:40]}`", told)
    role, calls = message.get("role"), message.get("tool_calls")
    if role not in _ROLES:
        raise malformed(f"{where} has no role", f"write one of {', '.join(_ROLES)}")
    if "tool_calls" in message and not (
        role == "assistant" and isinstance(calls, list) and calls and _all_objects(calls)
    ):
        raise malformed(f"{where} has no list of calls", "leave `tool_calls` out")
    content = message.get("content")
    if not isinstance(content, str) and not (content is None and calls):
        raise malformed(f"{where} has no text", "content is a text")
    for name in ("name", "tool_call_id"):
        if name in message and not isinstance(message[name], str):
            raise malformed(f"{where}: `{name}` is a text", "or leave it out")
    if (role == "tool") != ("tool_call_id" in message):
        raise malformed(
            f"{where}: a tool's result names its call, and nothing else does", "`tool_call_id`"
        )


def _check_verifier(row: Mapping[str, Any]) -> None:
    verifier = row["verifier"]
    if (
        not isinstance(verifier, str)
        or not 0 < len(verifier) <= _VERIFIER_CHARS_MAX
        or not verifier.isprintable()
    ):
        raise malformed("`verifier` is the name of one", "like exact-match or unit-tests-2")
    if "answer" in row and not isinstance(row["answer"], str):
        raise malformed("`answer` is a text", "what the verifier compares with, or nothing")


def _plain_message(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return message
    return {
        key: value
        for key, value in message.items()
        if key == "content" or not (value is None or (key == "tool_calls" and value == []))
    }


def _listed(row: Mapping[str, Any]) -> str:
    return ", ".join(f"`{str(key)[:20]}`" for key in list(row)[:4]) or "nothing"
