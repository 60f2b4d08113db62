"""Turns generated content into a training row in OpenAI's shape.

The role `model` becomes `assistant`, each function call a tool call, each function response a
message of role `tool`; thoughts and signatures are dropped. A call that has no id of its own
gets one by its place in the conversation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

from gateway.provider import dialect
from gateway.provider.gemini.asked import objects, said
from gateway.provider.gemini.content import FILTERED
from gateway.provider.model import Choice, ProviderCall, ToolCall, UnteachableError

FINISHED: Final = frozenset({"STOP"})
"""Finish reasons after which a candidate is all there."""

_NO_DATA: Final = frozenset(
    {
        "partMetadata",
        "part_metadata",
        "thought",
        "thoughtSignature",
        "thought_signature",
    }
)


class _Turns:
    """The messages of a row as they are written, and the calls that wait for their results."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._calls = 0
        self._waiting: list[tuple[str, str]] = []

    def add(self, content: Mapping[str, Any]) -> None:
        """Write one turn.

        Raises:
            UnteachableError: it holds what no row can carry, or has no such shape.
        """
        role = content.get("role")
        parts = content.get("parts")
        if role not in ("user", "model", "function", None):
            raise UnteachableError("row.malformed")
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise UnteachableError("row.malformed")
        if role == "model":
            self._add_model([part for part in parts if part.get("thought") is not True])
            return
        for part in parts:
            response = said(part, "functionResponse")
            if response is not None:
                self._add_result(response)
            elif (words := text_of(part)) is not None:
                self._add_words(words)

    def named(self, call: ToolCall) -> ToolCall:
        """Return *call* under an id that nothing else in the row has."""
        name = call.id or f"call_{self._calls}"
        self._calls += 1
        return msgspec.structs.replace(call, id=name)

    def _add_model(self, parts: list[dict[str, Any]]) -> None:
        words, calls = [], []
        for part in parts:
            call = said(part, "functionCall")
            if isinstance(call, dict):
                arguments = orjson.dumps(call.get("args") or {}).decode()
                named = self.named(
                    ToolCall(
                        id=str(call.get("id") or ""),
                        name=str(call.get("name") or ""),
                        arguments=arguments,
                    )
                )
                self._waiting.append((named.id, named.name))
                calls.append(dialect.call_in_row(named))
            elif (text := text_of(part)) is not None:
                words.append(text)
        message: dict[str, Any] = {"role": "assistant", "content": "".join(words)}
        if calls:
            message |= {"content": message["content"] or None, "tool_calls": calls}
        self.messages.append(message)

    def _add_words(self, words: str) -> None:
        if self.messages and self.messages[-1]["role"] == "user":
            self.messages[-1]["content"] += words
        else:
            self.messages.append({"role": "user", "content": words})

    def _add_result(self, response: object) -> None:
        """Write what a tool returned, under the id of its call."""
        if not isinstance(response, dict):
            raise UnteachableError("row.malformed")
        if response.get("parts"):
            raise UnteachableError("row.not-text")
        id_, name = response.get("id"), response.get("name")
        place = next(
            (
                at
                for at, (waiting, called) in enumerate(self._waiting)
                if (waiting == id_ if id_ else called == name)
            ),
            None,
        )
        if place is None:
            raise UnteachableError("row.malformed")
        called, _ = self._waiting.pop(place)
        content = orjson.dumps(response.get("response") or {}).decode()
        self.messages.append({"role": "tool", "content": content, "tool_call_id": called})


def row_of(call: ProviderCall, choice: Choice) -> dict[str, Any]:
    """Return the conversation and *choice* as a training row.

    Raises:
        UnteachableError: the exchange holds something that no row can carry.
    """
    asked = call.body or {}
    if choice.finish_reason in FILTERED:
        raise UnteachableError("row.filtered")
    if said(asked, "cachedContent"):
        raise UnteachableError("row.not-whole-prompt")
    turns = _Turns()
    instruction = said(asked, "systemInstruction")
    system = [
        text_of(part) for one in objects(instruction) for part in objects(one.get("parts"))
    ]
    words = instruction if isinstance(instruction, str) else "".join(filter(None, system))
    if words:
        turns.messages.append({"role": "system", "content": words})
    contents = said(asked, "contents")
    if isinstance(contents, str):
        contents = {"parts": [{"text": contents}]}
    conversation = list(objects(contents))
    if not conversation:
        raise UnteachableError("row.no-messages")
    for content in conversation:
        turns.add(content)
    if not turns.messages:
        raise UnteachableError("row.no-messages")
    named = msgspec.structs.replace(
        choice, tool_calls=tuple(turns.named(one) for one in choice.tool_calls)
    )
    dialect.continue_prefix(turns.messages, dialect.answer_message(named, FINISHED))
    tools = _tools_in_row(asked.get("tools"))
    return {"messages": turns.messages} | ({"tools": tools} if tools else {})


def text_of(part: Mapping[str, Any]) -> str | None:
    """Return the words of a *part*; `None` of one that holds nothing but a thought's signature.

    Raises:
        UnteachableError: it holds something else.
    """
    if isinstance(part.get("text"), str):
        return str(part["text"])
    if not part.keys() - _NO_DATA:
        return None
    for ran in ("executableCode", "codeExecutionResult", "toolCall", "toolResponse"):
        if said(part, ran) is not None:
            raise UnteachableError("row.server-tool")
    known = ("inlineData", "fileData", "functionCall", "functionResponse")
    data = any(said(part, name) is not None for name in known)
    raise UnteachableError("row.not-text" if data else "row.malformed")


def _tools_in_row(tools: object) -> list[dict[str, Any]]:
    """Return the tools that the caller defined, in OpenAI's shape."""
    rows = []
    for tool in objects(tools):
        for declared in objects(said(tool, "functionDeclarations")):
            words = {"name": declared.get("name"), "description": declared.get("description")}
            function = {key: word for key, word in words.items() if word is not None}
            schema = said(declared, "parametersJsonSchema")
            parameters = _lower(said(declared, "parameters")) if schema is None else schema
            function["parameters"] = {} if parameters is None else parameters
            rows.append({"type": "function", "function": function})
    return rows


def _lower(schema: object) -> Any:
    """Return a *schema* with its types in lower case, as JSON Schema has them."""
    if isinstance(schema, list):
        return [_lower(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value.lower() if key == "type" and isinstance(value, str) else _lower(value)
        for key, value in schema.items()
    }
