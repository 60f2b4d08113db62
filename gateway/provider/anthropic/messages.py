"""Reads what a message says: its content blocks, whole or as they are streamed.

Every block is a unit of output. What is neither text, thinking nor a call is digested as the
JSON that it is, put together from its start and its deltas as the SDKs put it together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
import orjson

from gateway.provider import dialect
from gateway.provider.anthropic.errors import error_of, stop_of
from gateway.provider.model import (
    Answer,
    Choice,
    Made,
    Resource,
    Shown,
    ToolCall,
    Unit,
    Usage,
)
from gateway.provider.readers import NonsenseError
from gateway.provider.units import json_unit, raw_unit

THOUGHTS: Final = frozenset({"thinking", "redacted_thinking"})
CALLS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_PLAIN: Final = frozenset({"text", *THOUGHTS, *CALLS})


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    text: Any = None
    thinking: Any = None
    data: Any = None
    id: Any = None
    name: Any = None
    input: msgspec.Raw = msgspec.Raw()
    citations: Any = None


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_details: Any = None
    container: Any = None


class _Message(msgspec.Struct, gc=False):
    id: Any = None
    model: Any = None
    content: list[msgspec.Raw] | None = None
    stop_reason: str | None = None
    stop_details: Any = None
    usage: Any = None
    container: Any = None
    type: Any = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: msgspec.Raw = msgspec.Raw()
    delta: _Delta | None = None
    usage: Any = None
    error: Any = None


class _Kind(msgspec.Struct, gc=False):
    type: str = ""


_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_message: Final = msgspec.json.Decoder(_Message).decode
_decode_block: Final = msgspec.json.Decoder(_Block).decode
_decode_kind: Final = msgspec.json.Decoder(_Kind).decode


class _HeardBlock:
    """One content block as it grows; *words* are text, thinking or pieces of arguments."""

    __slots__ = ("citations", "deltas", "id", "kind", "name", "raw", "start", "words")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.id = ""
        self.name = ""
        self.start = ""
        self.raw = b""
        """The start of a block that nobody here can read."""
        self.words: list[str] = []
        self.citations: list[Any] = []
        self.deltas: list[dict[str, Any]] = []
        """Deltas that are no words of its kind."""

    def others(self) -> Iterator[Unit]:
        """Yield what this block holds beside text, thinking and calls."""
        if self.kind.endswith("_tool_result"):
            yield json_unit("tool-result", 0, self.joined())
        elif self.kind not in _PLAIN:
            yield json_unit("other", 0, self.joined())
        elif self.deltas:
            yield json_unit("other", 0, self.deltas)

    def joined(self) -> dict[str, Any]:
        """Return a block that can't be read, its deltas put together: texts end to end."""
        block = json_object(self.raw) if self.raw else {"type": self.kind}
        if self.words:
            block["input"] = _value_of("".join(self.words))
        for delta in self.deltas:
            for key, value in delta.items():
                known = block.get(key)
                if isinstance(known, str) and isinstance(value, str) and key != "type":
                    block[key] = known + value
                elif value is not None and key != "type":
                    block[key] = value
        return block


class MessageListener:
    """Hears the events of one streamed message; one that is *kept* can be gone on from."""

    def __init__(self, *, kept: bool = False) -> None:
        self._kept = kept
        self._blocks: dict[int, _HeardBlock] = {}
        self._id: str | None = None
        self._model: str | None = None
        self._stop_reason: str | None = None
        self._stop_details: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._made: dict[Resource, None] = {}
        self._strange: list[Unit] = []
        """Events of kinds that are newer than this reader."""
        self._done = False
        self._error: object = None
        self._hearing: dict[str, Callable[[_Event, bytes], bool]] = {
            "content_block_delta": self._hear_delta,
            "content_block_start": self._hear_block,
            "content_block_stop": _hear_nothing,
            "ping": _hear_nothing,
            "message_start": self._hear_start,
            "message_delta": self._hear_end,
            "message_stop": self._hear_stop,
            "error": self._hear_error,
        }

    def hear(self, data: bytes) -> bool:
        """Take one event's data; tell whether it carries content."""
        try:
            event = _decode_event(data)
        except msgspec.ValidationError:
            if _decode_kind(data).type in self._hearing:
                raise
            return self._hear_strange(data)
        hearing = self._hearing.get(event.type)
        return self._hear_strange(data) if hearing is None else hearing(event, data)

    def take(self, message: _Message) -> bool:
        """Take in a message, whole or as far as it goes; tell whether it carries content."""
        self._id = message.id if isinstance(message.id, str) else None
        self._model = message.model if isinstance(message.model, str) else None
        self._stopped(message.stop_reason, message.stop_details, message.container)
        self._count(message.usage)
        if self._kept and self._id is not None:
            self._made[Resource(kind="message", id=self._id)] = None
        content = False
        for index, block in enumerate(message.content or ()):
            content = self._begin_block(index, bytes(block)) or content
        return content

    def end(self) -> None:
        """Take note that the format's own end was seen."""
        self._done = True

    @property
    def ending(self) -> bool:
        """Whether the message has stopped, is about to, or an error has come."""
        return self._done or self._stop_reason is not None or self._error is not None

    def answer(self) -> Answer:
        """Return what was heard; whole once the message has stopped."""
        refused = self._stop_reason == "refusal"
        return Answer(
            readable=True,
            whole=self._done and self._error is None,
            id=self._id,
            model=self._model,
            choices=(self._choice(),) if self._id or self._blocks else (),
            units=(*self._citations(), *self._strange),
            usage=usage_of(self._usage),
            error=error_of(self._error) or (self._category() if refused else None),
            made=tuple(Made(resource=resource) for resource in self._made),
            stop=stop_of(self._error) or ("refusal" if refused else None),
        )

    def _hear_start(self, event: _Event, data: bytes) -> bool:
        return event.message is not None and self.take(event.message)

    def _hear_block(self, event: _Event, data: bytes) -> bool:
        block = bytes(event.content_block)
        return bool(block) and self._begin_block(event.index, block)

    def _hear_delta(self, event: _Event, data: bytes) -> bool:
        delta = event.delta
        if delta is None:
            return False
        words = delta.text or delta.thinking or delta.partial_json
        if words:
            heard = self._blocks.get(event.index)
            if heard is None:
                kind = "text" if delta.text else "thinking" if delta.thinking else "tool_use"
                heard = self._blocks[event.index] = _HeardBlock(kind)
            heard.words.append(words)
            return True
        if delta.type in _EMPTY_DELTAS:
            return False
        said = json_object(data)["delta"]
        heard = self._blocks.setdefault(event.index, _HeardBlock("unknown"))
        if delta.type == "citations_delta":
            heard.citations.append(said.get("citation"))
        else:
            heard.deltas.append(said)
        return True

    def _hear_end(self, event: _Event, data: bytes) -> bool:
        if event.delta is not None:
            self._stopped(
                event.delta.stop_reason, event.delta.stop_details, event.delta.container
            )
        self._count(event.usage)
        return False

    def _hear_stop(self, event: _Event, data: bytes) -> bool:
        self.end()
        return False

    def _hear_error(self, event: _Event, data: bytes) -> bool:
        self._error = event.error or {}
        return False

    def _hear_strange(self, data: bytes) -> bool:
        # It may carry anything, so it waits for the receipt, and the receipt lists it.
        self._strange.append(raw_unit("other", len(self._strange), data))
        return True

    def _begin_block(self, index: int, raw: bytes) -> bool:
        """Begin a block with what its start says; tell whether that is content."""
        block = _decode_block(raw)
        heard = _HeardBlock(block.type)
        if block.type not in _PLAIN:
            heard.raw = raw
            for file in files_in(json_object(raw)):
                self._made[Resource(kind="file", id=file)] = None
            if model := _model_after(block.type, raw):
                # From here on another model speaks.
                self._model = model
            self._blocks[index] = heard
            return True
        self._blocks[index] = heard
        if block.type in CALLS:
            heard.start = dialect.raw_text(block.input)
            heard.id = block.id if isinstance(block.id, str) else ""
            heard.name = block.name if isinstance(block.name, str) else ""
            return True
        if isinstance(block.citations, list):
            heard.citations.extend(block.citations)
        words = {"text": block.text, "thinking": block.thinking}.get(block.type, block.data)
        if isinstance(words, str) and words:
            heard.words.append(words)
            return True
        return bool(heard.citations)

    def _stopped(self, reason: str | None, details: object, container: object) -> None:
        """Keep why the message stops, and the container that its tools ran in."""
        self._stop_reason = reason or self._stop_reason
        if isinstance(details, dict):
            self._stop_details = details
        if isinstance(container, dict) and isinstance(container.get("id"), str):
            self._made[Resource(kind="container", id=container["id"])] = None

    def _count(self, usage: object) -> None:
        """Keep the newest of each counter; they are cumulative."""
        if isinstance(usage, dict):
            self._usage |= {key: count for key, count in usage.items() if count is not None}

    def _category(self) -> str | None:
        category = self._stop_details.get("category")
        return category[:64] if isinstance(category, str) and category else None

    def _heard(self) -> list[_HeardBlock]:
        return [block for _, block in sorted(self._blocks.items())]

    def _citations(self) -> Iterator[Unit]:
        """Yield what each text rests on: no part of the text, and no row holds it."""
        for block in self._heard():
            if block.citations:
                yield json_unit("other", 0, block.citations)

    def _shown(self, blocks: Iterable[_HeardBlock]) -> Shown | None:
        """Return the thinking that can be read; compatible servers show all there is."""
        told = ["".join(one.words) for one in blocks if one.kind == "thinking" and one.words]
        model = self._model or ""
        is_summary = "claude" in model and not any(one in model for one in _OWN_WORDS)
        return Shown("\n\n".join(told), is_summary) if told else None

    def _choice(self) -> Choice:
        blocks = self._heard()
        why = self._stop_details.get("explanation") if self._stop_reason == "refusal" else None
        return Choice(
            index=0,
            text="".join(
                word for block in blocks if block.kind == "text" for word in block.words
            ),
            reasoning=tuple(
                "".join(block.words)
                for block in blocks
                if block.kind in THOUGHTS and block.words
            ),
            shown=self._shown(blocks),
            tool_calls=tuple(
                ToolCall(
                    id=block.id,
                    name=block.name,
                    arguments="".join(block.words) or block.start or "{}",
                )
                for block in blocks
                if block.kind in CALLS
            ),
            refusal=why if isinstance(why, str) and why else None,
            finish_reason=self._stop_reason,
            others=tuple(unit for block in blocks for unit in block.others()),
        )


_OWN_WORDS: Final = ("claude-3-7",)
"""Models of Anthropic's that show their thinking itself; newer ones show a summary of it."""

_EMPTY_DELTAS: Final = frozenset(
    {"text_delta", "thinking_delta", "input_json_delta", "signature_delta"}
)
"""Deltas that carry no words when their words are empty; one that we don't know may."""


def read_message(body: bytes, *, kept: bool = False) -> Answer:
    """Return what a whole *body* says; one that parses has its end."""
    message = _decode_message(body)
    if message.error is not None:
        return Answer(
            readable=True,
            whole=True,
            error=error_of(message.error),
            stop=stop_of(message.error),
        )
    if message.content is None:
        raise NonsenseError("no content")
    listener = MessageListener(kept=kept)
    listener.take(message)
    listener.end()
    return listener.answer()


def usage_of(usage: Mapping[str, Any]) -> Usage | None:
    """Return the counts that *usage* holds; of input, all three counters added.

    What compacting the context and asking an advisor took is not in them and is added.
    """
    if not usage:
        return None
    listed = usage.get("iterations")
    beside = [
        one
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict) and one.get("type") in _BESIDE
    ]

    def added(*names: str) -> int | None:
        counts = [dialect.count_of(one, name) for one in (usage, *beside) for name in names]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    return Usage(
        input_tokens=added(
            "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"
        ),
        output_tokens=added("output_tokens"),
        cached_input_tokens=added("cache_read_input_tokens"),
        reasoning_tokens=dialect.count_of(usage, "output_tokens_details", "thinking_tokens"),
    )


_BESIDE: Final = frozenset({"compaction", "advisor_message"})
"""Iterations whose tokens the counters of the message leave out."""


def files_in(value: object) -> Iterator[str]:
    """Yield the id of every file that *value* names, in order."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if isinstance(one.get("file_id"), str):
                yield one["file_id"]
            left.extend(reversed(one.values()))
        elif isinstance(one, list):
            left.extend(reversed(one))


def _model_after(kind: str, raw: bytes) -> str | None:
    """Return the model that goes on after a block that tells of a *fallback*."""
    if kind != "fallback":
        return None
    to = json_object(raw).get("to")
    model = to.get("model") if isinstance(to, dict) else None
    return model if isinstance(model, str) else None


def json_object(raw: bytes) -> dict[str, Any]:
    """Return the object that *raw* is, of which a decoder has seen the outside.

    Raises:
        NonsenseError: what is inside is no JSON.
    """
    try:
        value: dict[str, Any] = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise NonsenseError("no JSON") from exc
    return value


def _value_of(text: str) -> Any:
    """Return what *text* says in JSON, or the text itself where it was broken off."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _hear_nothing(event: _Event, data: bytes) -> bool:
    return False
