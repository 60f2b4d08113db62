"""What the dialects share: where a key may come, request bodies, training rows, problems."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import orjson

from gateway import limits
from gateway.errors import MalformedBodyError
from gateway.provider.model import (
    OPAQUE_ROUTE,
    Choice,
    Found,
    Operation,
    Problem,
    ProviderCall,
    ToolCall,
    UnteachableError,
)

CREDENTIAL_HEADERS: Final = frozenset(
    {"authorization", "api-key", "x-api-key", "x-goog-api-key"}
)
"""Every header in which some SDK puts its key. All are one set, so that a gateway key sent in
the wrong one never reaches a provider."""

_COUNT_MAX: Final = 1 << 53
"""A count that JSON can't carry exactly is none."""

_REASONS_TOLD_MAX: Final = 3

_ODD_CALL_IDS: Final = ("srvtoolu_", "mcptoolu_")
"""How the ids of calls begin that the provider itself carries out."""


def opaque(provider: str, found: Found) -> ProviderCall:
    """Return a call of which nothing is read."""
    return ProviderCall(
        provider=provider, operation=Operation.OPAQUE, uses=found.names, found=found
    )


def nowhere(path: str, query: str) -> Found:
    """Return that no route is known for *path*."""
    return Found(route=OPAQUE_ROUTE, path=path, query=query)


def json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a request's *body* is.

    Raises:
        MalformedBodyError: it is not one, nested deeper than `limits.JSON_DEPTH_MAX`, or says
            something twice.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise MalformedBodyError(
            f"the request body is not JSON: {exc.msg} at line {exc.lineno} column {exc.colno}",
            hint="send one JSON object in UTF-8",
        ) from exc
    if not isinstance(value, dict):
        raise MalformedBodyError(
            "the request body is JSON but no object", hint="send one JSON object"
        )
    if body.count(b"{") + body.count(b"[") > limits.JSON_DEPTH_MAX and _too_deep(value):
        raise MalformedBodyError(
            f"the request body is nested deeper than {limits.JSON_DEPTH_MAX} levels",
            hint="flatten it, or send deep structures as text",
        )
    _check_names(body, value)
    return value


def text_of(body: Mapping[str, Any], key: str) -> str | None:
    """Return the text that *body* holds under *key*, or `None` where it says nothing.

    Raises:
        MalformedBodyError: there is something else than text.
    """
    value = body.get(key)
    if value is None or isinstance(value, str):
        return value
    raise MalformedBodyError(f"`{key}` is not a text", hint=f'write "{key}": "…"')


def searches_the_web(tools: object) -> bool:
    """Tell whether one of *tools* is the provider's own search, so that answers rest on it."""
    return isinstance(tools, list) and any(
        isinstance(tool, dict) and str(tool.get("type", "")).startswith("web_search")
        for tool in tools
    )


def bearer_of(headers: Mapping[str, str]) -> str | None:
    """Return the token of an `Authorization: Bearer` header."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def error_name(error: object) -> str:
    """Return the provider's own word for *error*: its type, else its code."""
    if isinstance(error, dict):
        for key in ("type", "code", "status"):
            word = error.get(key)
            if isinstance(word, (str, int)) and word:
                return str(word)[:64]
    return "error"


def count_of(usage: object, *path: str) -> int | None:
    """Return the count at *path* inside *usage*, or `None` if there is none."""
    for key in path:
        usage = usage.get(key) if isinstance(usage, dict) else None
    if isinstance(usage, bool) or not isinstance(usage, int):
        return None
    return usage if 0 <= usage < _COUNT_MAX else None


def joined_text(content: object) -> str:
    """Return the words of *content*: a text, or text blocks joined as they stand.

    Raises:
        UnteachableError: a block is no text.
    """
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list):
        raise UnteachableError("row.malformed")
    words = []
    for block in content:
        if not isinstance(block, dict):
            raise UnteachableError("row.malformed")
        if block.get("type") == "refusal":
            raise UnteachableError("row.refused")
        if block.get("type") != "text":
            raise UnteachableError("row.not-text")
        if not isinstance(block.get("text"), str):
            raise UnteachableError("row.malformed")
        words.append(block["text"])
    return "".join(words)


def answer_message(
    choice: Choice, finished: frozenset[str], custom: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Return *choice* as the last message of a row, in OpenAI's shape and without reasoning.

    *finished* are the reasons after which an answer is whole, *custom* the names of tools that
    take free text.

    Raises:
        UnteachableError: there is nothing to learn from it, or not all of it.
    """
    if choice.refusal or choice.finish_reason == "refusal":
        raise UnteachableError("row.refused")
    if choice.finish_reason == "content_filter":
        raise UnteachableError("row.filtered")
    if choice.finish_reason not in finished:
        raise UnteachableError("row.truncated")
    if choice.others:
        ran = any(unit.kind == "tool-result" for unit in choice.others)
        raise UnteachableError("row.server-tool" if ran else "row.not-text")
    if not choice.text.strip() and not choice.tool_calls:
        raise UnteachableError("row.empty")
    message: dict[str, Any] = {"role": "assistant", "content": choice.text or None}
    if choice.tool_calls:
        message["tool_calls"] = [call_in_row(call, custom) for call in choice.tool_calls]
    return message


def continue_prefix(messages: list[dict[str, Any]], answer: dict[str, Any]) -> None:
    """Put *answer* after *messages*; words that the caller put into its mouth begin it."""
    last = messages[-1]
    if last["role"] == "assistant" and "tool_calls" not in last:
        messages.pop()
        answer["content"] = (last["content"] or "") + (answer["content"] or "")
    messages.append(answer)


def call_in_row(call: ToolCall, custom: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return *call* in OpenAI's shape.

    Raises:
        UnteachableError: the provider carried it out itself, or its arguments are no JSON.
    """
    if call.id.startswith(_ODD_CALL_IDS):
        raise UnteachableError("row.server-tool")
    if not call.id or not call.name:
        raise UnteachableError("row.malformed")
    if call.name in custom:
        free = {"name": call.name, "input": call.arguments}
        return {"id": call.id, "type": "custom", "custom": free}
    arguments = call.arguments or "{}"
    try:
        orjson.loads(arguments)
    except orjson.JSONDecodeError as exc:
        raise UnteachableError("row.malformed") from exc
    said = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": said}


def problem_sentence(problem: Problem) -> str:
    """Return *problem* as the one sentence that an SDK's exception will show."""
    parts = [problem.message]
    changes = []
    for reason in problem.reasons[:_REASONS_TOLD_MAX]:
        because = _one_line(reason.get("because"))
        where = "/".join(filter(None, (_one_line(reason.get(k)) for k in ("policy", "clause"))))
        if because or where:
            parts.append(
                f"because {because} ({where})" if because and where else because or where
            )
        if change := _one_line(reason.get("change")):
            changes.append(change)
    if problem.next_step:
        parts.append(f"next: {_one_line(problem.next_step)}")
    elif changes:
        parts.append(f"what would change it: {changes[0]}")
    told = "; ".join(part.strip().removesuffix(".") for part in parts)
    return f"{told} [exchange {problem.exchange}]" if problem.exchange else told


def problem_details(problem: Problem) -> dict[str, Any]:
    """Return what rides inside an error object beside its sentence."""
    details: dict[str, Any] = {
        "code": problem.code,
        "exchange": problem.exchange,
        "reasons": [dict(reason) for reason in problem.reasons],
        "next_step": problem.next_step,
    }
    return details | ({"sentences": list(problem.sentences)} if problem.sentences else {})


def raw_text(raw: msgspec.Raw) -> str:
    """Return the JSON text that *raw* is, exactly as it was sent."""
    return bytes(raw).decode()


def _one_line(value: object) -> str:
    return " ".join(str(value).split()) if value else ""


def _check_names(body: bytes, value: dict[str, Any]) -> None:
    """Refuse a *body* in which a name stands twice in one object.

    Readers differ over which of both counts, and what is ruled on must be what is answered.
    Some take names for the same that differ in case; at the top nobody needs such.

    Raises:
        MalformedBodyError: one does.
    """
    try:
        if orjson.dumps(value) != body:
            # Written back it would be the same if it were compact and said everything once.
            _once(body.decode())
        elif len({name.casefold() for name in value}) == len(value):
            return
        _object_of([(name.casefold(), None) for name in value])
    except _TwiceError as twice:
        raise MalformedBodyError(
            f"`{twice}` stands twice in one object of the request body",
            hint="send it once: readers differ over which of both counts",
        ) from twice


class _TwiceError(Exception):
    """A name that stands twice in one object."""


def _object_of(pairs: list[tuple[str, Any]]) -> None:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise _TwiceError(_one_line(name)[:64])
        names.add(name)


_once: Final = json.JSONDecoder(
    # Only names count, and a number may have more digits than Python turns into one.
    object_pairs_hook=_object_of,
    parse_int=len,
    parse_float=len,
).decode


def _too_deep(value: object) -> bool:
    """Tell whether *value* is nested deeper than `limits.JSON_DEPTH_MAX`."""
    level: list[Any] = [value]
    for _ in range(limits.JSON_DEPTH_MAX):
        level = [
            inner
            for outer in level
            for inner in _inside(outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
