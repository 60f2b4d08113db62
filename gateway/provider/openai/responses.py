"""Responses, whole, streamed, made in the background or read again.

A response is one choice: the words of its messages, its reasoning block by block, the calls
that the caller is to carry out. What the provider's own tools did, images and whatever nobody
here knows are units beside them. A stream is read from its deltas for as long as it goes on;
its last event says everything once more, and that is what counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.canonical import canonical_json
from gateway.provider.model import (
    Answer,
    Choice,
    Made,
    Operation,
    ProviderCall,
    Resource,
    Shown,
    Stop,
    ToolCall,
    Unit,
)
from gateway.provider.openai.chat import stop_of_choices
from gateway.provider.openai.facts import (
    error_name,
    named_in,
    stop_of,
    text_or_none,
    usage_of,
)
from gateway.provider.readers import NonsenseError
from gateway.provider.units import base64_unit, json_unit

FINISHED: Final = frozenset({"completed"})
"""Statuses after which a response is all there."""

_UNDER_WAY: Final = frozenset({"queued", "in_progress"})

SERVER_RUN: Final = frozenset(
    {
        "code_interpreter_call",
        "file_search_call",
        "mcp_approval_request",
        "mcp_call",
        "mcp_list_tools",
        "program",
        "program_output",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    }
)
"""Items that say what a tool did which the provider ran itself."""

CALLER_RUN: Final = frozenset(
    {"apply_patch_call", "computer_call", "local_shell_call", "shell_call"}
)
"""Items that ask the caller for something that is no function of its own."""

_RESULTS: Final = frozenset(
    {
        "apply_patch_call_output",
        "computer_call_output",
        "custom_tool_call_output",
        "function_call_output",
        "local_shell_call_output",
        "shell_call_output",
    }
)
"""Items that say what came of a call, where the provider carries out even those."""


class _Event(msgspec.Struct, gc=False):
    """One event of a stream."""

    type: str = ""
    delta: Any = None
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    item: Any = None
    partial_image_b64: Any = None
    response: Any = None
    error: Any = None
    code: Any = None
    message: Any = None


_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_object: Final = msgspec.json.Decoder(dict[str, Any]).decode

_ENDS: Final = frozenset(
    {
        "response.completed",
        "response.incomplete",
        "response.failed",
        "response.cancelled",
    }
)

_GROWING: Final[Mapping[str, tuple[str, str]]] = {
    "response.output_text.delta": ("message", "text"),
    "response.refusal.delta": ("message", "refusal"),
    "response.reasoning_text.delta": ("reasoning", "content"),
    "response.reasoning_summary_text.delta": ("reasoning", "summary"),
    "response.function_call_arguments.delta": ("function_call", "arguments"),
    "response.custom_tool_call_input.delta": ("custom_tool_call", "input"),
}
"""Deltas whose whole can be put together from them: the type of their item, and the part."""


class _Growing:
    """One output item as far as it came: as it was begun, and what was added to it."""

    __slots__ = ("done", "item", "parts")

    def __init__(self) -> None:
        self.item: dict[str, Any] = {}
        self.parts: dict[tuple[str, int], list[str]] = {}
        self.done = False

    def whole(self) -> dict[str, Any]:
        """Return the item with what was added to it."""
        if self.done or not self.parts:
            return self.item
        item = dict(self.item)
        joined = {place: "".join(words) for place, words in sorted(self.parts.items())}
        kind = item.get("type")
        if kind == "message":
            item["content"] = [
                {"type": "output_text", "text": words}
                if part == "text"
                else {"type": "refusal", "refusal": words}
                for (part, _), words in joined.items()
            ]
        elif kind == "reasoning":
            for name in ("summary", "content"):
                item[name] = [
                    {"type": name, "text": words}
                    for (part, _), words in joined.items()
                    if part == name
                ]
        else:
            item |= {part: words for (part, _), words in joined.items()}
        return item


class ResponseListener:
    """Hears the events of one streamed response."""

    def __init__(self, call: ProviderCall) -> None:
        self._call = call
        self._response: dict[str, Any] = {}
        """As the newest event tells it that tells all of it."""
        self._items: dict[int, _Growing] = {}
        self._images: list[str] = []
        self._ended = False
        self._error: object = None

    def hear(self, data: bytes) -> bool:
        """Take one event's data; tell whether it carries content that was not heard yet."""
        try:
            event = _decode_event(data)
        except msgspec.DecodeError:
            if data.startswith(b"[DONE]"):
                # Some servers end it as they end a chat completion.
                return False
            raise
        kind = event.type
        growing = _GROWING.get(kind)
        if growing is not None:
            return self._grow(event, *growing)
        if kind == "response.output_item.added":
            return self._begin(event)
        if kind == "response.output_item.done":
            return self._finish(event)
        if kind == "response.image_generation_call.partial_image":
            if isinstance(event.partial_image_b64, str):
                self._images.append(event.partial_image_b64)
            return True
        if kind == "error" or (event.error is not None and event.response is None):
            self._error = event.error or {"code": event.code}
        elif isinstance(event.response, dict):
            self._response = event.response
            self._ended = self._ended or kind in _ENDS
        # Other deltas, of code or of sound, are parts of items that come whole later.
        return kind.endswith(".delta")

    def _grow(self, event: _Event, kind: str, part: str) -> bool:
        if not isinstance(event.delta, str):
            return False
        growing = self._items.get(event.output_index)
        if growing is None:
            growing = self._items[event.output_index] = _Growing()
        if not growing.item:
            growing.item = {"type": kind}
        place = event.summary_index if part == "summary" else event.content_index
        growing.parts.setdefault((part, place), []).append(event.delta)
        return True

    def _begin(self, event: _Event) -> bool:
        if not isinstance(event.item, dict):
            raise NonsenseError("no item")
        growing = self._items.setdefault(event.output_index, _Growing())
        growing.item = event.item
        return event.item.get("type") not in {"message", "reasoning"}

    def _finish(self, event: _Event) -> bool:
        if not isinstance(event.item, dict):
            raise NonsenseError("no item")
        growing = self._items.setdefault(event.output_index, _Growing())
        heard = bool(growing.parts)
        growing.item, growing.done = event.item, True
        return not heard

    @property
    def ending(self) -> bool:
        """Whether the response has ended, or an error has come."""
        return self._ended or self._error is not None

    def answer(self) -> Answer:
        """Return what was heard: the last event's word, or else what came before it."""
        response = dict(self._response)
        if not (self._ended and response.get("output")):
            response["output"] = [item.whole() for _, item in sorted(self._items.items())]
        partial = [base64_unit("image", 0, image) for image in self._images]
        answer = _answer_of(self._call, response, self._error, partial)
        return msgspec.structs.replace(
            answer,
            whole=self._ended and self._error is None,
            pending=answer.pending and self._error is None,
        )


def read_response(call: ProviderCall, body: bytes) -> Answer:
    """Return what a whole *body* says; one that parses has its end."""
    response = _decode_object(body)
    if not isinstance(response.get("output"), list) and not response.get("error"):
        raise NonsenseError("no output")
    return _answer_of(call, response, None, ())


def _answer_of(
    call: ProviderCall, response: Mapping[str, Any], error: object, more: Iterable[Unit]
) -> Answer:
    output = response.get("output")
    items = output if isinstance(output, list) else []
    status = text_or_none(response.get("status"))
    choice = _choice_of(items, _finish_reason(response, status), more)
    error = error or response.get("error")
    stop: Stop | None = stop_of(error) if error else None
    stop = stop or stop_of_choices([choice])
    id_ = text_or_none(response.get("id"))
    background = response.get("background", (call.body or {}).get("background"))
    pending = status in _UNDER_WAY and background is True
    said = bool(items) or bool(choice.others)
    return Answer(
        readable=True,
        whole=True,
        id=id_,
        model=text_or_none(response.get("model")),
        choices=(choice,) if said or not (pending or error) else (),
        usage=usage_of(response.get("usage")),
        error=error_name(error) if error else None,
        made=tuple(_made(call, response, id_, items)),
        pending=pending,
        provider=text_or_none(response.get("provider")),
        stop=stop,
    )


def _finish_reason(response: Mapping[str, Any], status: str | None) -> str | None:
    """Return the status, or why it is incomplete."""
    details = response.get("incomplete_details")
    if status == "incomplete" and isinstance(details, dict):
        return text_or_none(details.get("reason")) or status
    return status


def _made(
    call: ProviderCall, response: Mapping[str, Any], id_: str | None, items: Iterable[Any]
) -> Iterator[Made]:
    """Yield what is kept at the provider from now on: the response, containers of its tools."""
    if id_ is None or response.get("object") == "response.compaction":
        return
    of = Resource("response", id_)
    asked = call.body or {}
    kept = response.get("store", asked.get("store")) is not False
    if kept and call.operation is Operation.CHAT:
        yield Made(resource=of)
    containers = [
        item["container_id"]
        for item in items
        if isinstance(item, dict) and text_or_none(item.get("container_id"))
    ]
    for container in dict.fromkeys(containers):
        resource = Resource("container", container)
        if resource not in call.uses:
            yield Made(resource=resource, of=of)


def _choice_of(items: Iterable[Any], finish_reason: str | None, more: Iterable[Unit]) -> Choice:
    text: list[str] = []
    reasoning: list[str] = []
    thoughts: dict[str, list[str]] = {"content": [], "summary": []}
    refusal: list[str] = []
    calls: list[ToolCall] = []
    others: list[Unit] = [*more]
    for item in items:
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(kind, str):
            others.append(json_unit("other", 0, item))
        elif kind == "message":
            _read_message(item, text, refusal, others)
        elif kind == "reasoning":
            reasoning += _reasoning_of(item)
            for name, told in thoughts.items():
                told.extend(_thoughts_of(item, name))
        elif kind in {"function_call", "custom_tool_call"}:
            calls.append(_call_of(item))
        elif kind in CALLER_RUN:
            calls.append(_own_call_of(kind, item))
        elif kind == "image_generation_call":
            others += _images_of(item)
        elif kind in SERVER_RUN or kind in _RESULTS:
            others.append(json_unit("tool-result", 0, item))
        else:
            others.append(json_unit("other", 0, item))
    return Choice(
        index=0,
        text="".join(text),
        reasoning=tuple(reasoning),
        shown=_shown(thoughts["content"], thoughts["summary"]),
        tool_calls=tuple(calls),
        refusal="".join(refusal) or None,
        finish_reason=finish_reason,
        others=tuple(others),
    )


def _read_message(
    item: Mapping[str, Any], text: list[str], refusal: list[str], others: list[Unit]
) -> None:
    content = item.get("content")
    if isinstance(content, str):
        text.append(content)
        return
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("output_text", "text") and isinstance(part.get("text"), str):
            text.append(part["text"])
            if part.get("annotations"):
                others.append(json_unit("tool-result", 0, part["annotations"]))
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            refusal.append(part["refusal"])
        else:
            others.append(json_unit("other", 0, part))


def _reasoning_of(item: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is shown of reasoning, in the open and in secret."""
    for name in ("summary", "content"):
        yield from _thoughts_of(item, name)
    secret = item.get("encrypted_content")
    if isinstance(secret, str) and secret:
        yield secret


def _thoughts_of(item: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield the texts of reasoning that stand under *name*."""
    parts = item.get(name)
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str) and part["text"]:
            yield part["text"]


def _shown(content: Sequence[str], summary: Sequence[str]) -> Shown | None:
    """Return the reasoning itself where it is shown, else its summary."""
    texts = content or summary
    return Shown("\n\n".join(texts), is_summary=not content) if texts else None


def _call_of(item: Mapping[str, Any]) -> ToolCall:
    """Return a call of a function, or of a tool that takes free text."""
    arguments = item.get("arguments", item.get("input"))
    if not isinstance(arguments, str):
        # Compatible servers may send an object, or nothing yet.
        arguments = _canonical(arguments) if arguments else ""
    id_, name = item.get("call_id"), item.get("name")
    return ToolCall(
        id=id_ if isinstance(id_, str) else "",
        name=name if isinstance(name, str) else "",
        arguments=arguments,
    )


def _own_call_of(kind: str, item: Mapping[str, Any]) -> ToolCall:
    """Return a call of something that the provider defines and the caller carries out."""
    asked = {name: value for name, value in item.items() if name not in _LABELS}
    id_ = item.get("call_id")
    return ToolCall(
        id=id_ if isinstance(id_, str) else "", name=kind, arguments=_canonical(asked)
    )


_LABELS: Final = frozenset({"call_id", "created_by", "id", "status", "type"})


def _canonical(value: object) -> str:
    try:
        return canonical_json(value).decode()
    except TypeError as exc:
        raise NonsenseError("JSON without a canonical form") from exc


def _images_of(item: Mapping[str, Any]) -> Iterator[Unit]:
    result = item.get("result")
    if isinstance(result, str) and result:
        yield base64_unit("image", 0, result)
    elif result:
        yield json_unit("other", 0, result)
    revised = item.get("revised_prompt")
    if revised:
        yield json_unit("other", 0, revised)


def features_of(asked: Mapping[str, Any]) -> frozenset[str]:
    """Return what else a request asks for, beside text."""
    features = set()
    tools = asked.get("tools")
    kinds = {
        str(tool.get("type"))
        for tool in (tools if isinstance(tools, list) else ())
        if isinstance(tool, dict)
    }
    if tools:
        features.add("tools")
    if any(kind.startswith("web_search") for kind in kinds):
        features.add("grounding")
    if "image_generation" in kinds:
        features.add("image-output")
    reasoning = asked.get("reasoning")
    if isinstance(reasoning, dict) and (
        reasoning.get("effort") not in (None, "none")
        or reasoning.get("summary")
        or reasoning.get("generate_summary")
    ):
        features.add("reasoning")
    include = asked.get("include")
    included = include if isinstance(include, list) else ()
    if "reasoning.encrypted_content" in included:
        features.add("reasoning")
    if asked.get("top_logprobs") or "message.output_text.logprobs" in included:
        features.add("logprobs")
    if any(part.get("type") == "input_image" for part in _parts_of(asked.get("input"))):
        features.add("images")
    return frozenset(features)


def uses_of(asked: Mapping[str, Any]) -> tuple[Resource, ...]:
    """Return what a request builds on: an earlier response, files, containers, stores."""
    named: list[Resource] = []
    earlier = asked.get("previous_response_id")
    if isinstance(earlier, str) and earlier:
        named.append(Resource("response", earlier))
    conversation = asked.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    if isinstance(conversation, str) and conversation:
        named.append(Resource("conversation", conversation))
    tools = asked.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        container = tool.get("container") if isinstance(tool, dict) else None
        if isinstance(container, str) and container:
            named.append(Resource("container", container))
    if tools:
        named += named_in(tools)
    for key in ("input", "prompt"):
        if isinstance(asked.get(key), (dict, list)):
            named += named_in(asked[key])
    return tuple(dict.fromkeys(named))


def _parts_of(said: object) -> Iterator[dict[str, Any]]:
    """Yield the content parts of *said*, as far as they have the shape of any."""
    for item in said if isinstance(said, list) else ():
        for name in ("content", "output"):
            parts = item.get(name) if isinstance(item, dict) else None
            for part in parts if isinstance(parts, list) else ():
                if isinstance(part, dict):
                    yield part
