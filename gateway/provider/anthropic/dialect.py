"""The dialect of Anthropic's messages.

Read: `POST …/v1/messages`. Counting tokens, batches and everything else are opaque.
Rows are in OpenAI's shape: `tool_use` becomes `tool_calls`, each `tool_result` a message of
role `tool`, and thinking is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
import orjson

from gateway.provider import dialect
from gateway.provider.model import (
    Answer,
    AnswerReader,
    Choice,
    Found,
    Operation,
    Problem,
    ProviderCall,
    Route,
    Taking,
    ToolCall,
    UnteachableError,
    Usage,
)
from gateway.provider.readers import NonsenseError, OpaqueReader, StreamReader, WholeReader
from gateway.provider.route import Routes

FINISHED: Final = frozenset({"end_turn", "stop_sequence", "tool_use"})
"""Stop reasons after which an answer is all there."""

ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

_THOUGHTS: Final = frozenset({"thinking", "redacted_thinking"})
_CALLS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        methods=("POST",),
        path="/v1/messages",
        operation=Operation.CHAT,
        taking=Taking.HELD,
        asked="model, streaming, features, messages, tools",
        answered="choices, usage, finish reasons",
        receipted="each choice's text, reasoning, tool calls, refusal",
    ),
)
_ROUTES: Final = Routes(ROUTES, r"(?:/[^/]+)*")


class AnthropicDialect:
    """Reads and writes Anthropic's wire format."""

    name = "anthropic"
    CREDENTIAL_HEADERS = dialect.CREDENTIAL_HEADERS
    ROUTES: tuple[Route, ...] = ROUTES

    def found(self, method: str, path: str, query: str = "") -> Found:
        """Return the route of a request."""
        return _ROUTES.found(method, path, query)

    def read_request(
        self, provider: str, found: Found, content_type: str, body: bytes | None
    ) -> ProviderCall:
        """Return what is asked.

        Raises:
            MalformedBodyError: a message whose body is no JSON object.
        """
        if body is None or found.route.operation is not Operation.CHAT:
            return dialect.opaque(provider, found)
        asked = dialect.json_object(body)
        return ProviderCall(
            provider=provider,
            operation=Operation.CHAT,
            model=dialect.text_of(asked, "model"),
            streaming=asked.get("stream") is True,
            features=_features_of(asked),
            body=asked,
            found=found,
        )

    def answer_reader(self, call: ProviderCall, status: int, content_type: str) -> AnswerReader:
        """Return a reader for the answer to *call*."""
        if call.operation is not Operation.CHAT:
            return OpaqueReader()
        if status >= 400:
            return WholeReader(_read_error)
        kind = content_type.lower()
        if "event-stream" in kind or (call.streaming and "json" not in kind):
            return StreamReader(MessageListener())
        return WholeReader(_read_message)

    def row_of(self, call: ProviderCall, choice: Choice) -> dict[str, Any]:
        """Return the conversation and *choice* as a training row.

        Raises:
            UnteachableError: the exchange holds something that no row can carry.
        """
        asked = call.body or {}
        said = asked.get("messages")
        if not isinstance(said, list) or not said:
            raise UnteachableError("row.no-messages")
        messages: list[dict[str, Any]] = []
        if system := dialect.joined_text(asked.get("system")):
            messages.append({"role": "system", "content": system})
        for message in said:
            messages.extend(_messages_in_row(message))
        if not messages:
            raise UnteachableError("row.no-messages")
        dialect.continue_prefix(messages, dialect.answer_message(choice, FINISHED))
        tools = _tools_in_row(asked.get("tools"))
        return {"messages": messages, "tools": tools} if tools else {"messages": messages}

    def problem_body(self, problem: Problem) -> bytes:
        """Return the error object that Anthropic's SDK puts into its exception."""
        fallback = "api_error" if problem.status >= 500 else "invalid_request_error"
        return orjson.dumps(
            {
                "type": "error",
                "error": {
                    "type": ERROR_TYPES.get(problem.status, fallback),
                    "message": dialect.problem_sentence(problem),
                    **dialect.problem_details(problem),
                },
                "request_id": problem.exchange,
            }
        )

    def credential_of(self, headers: Mapping[str, str], query: str) -> str | None:
        """Return the bearer token that SDKs from 2.0 on send, or the `x-api-key` of others."""
        return dialect.bearer_of(headers) or headers.get("x-api-key") or None

    def credential_header(self, secret: str) -> tuple[str, str]:
        """Return *secret* as `x-api-key`, which every version of the API takes."""
        return "x-api-key", secret

    def query_upstream(self, query: str) -> str:
        """Return *query* as it is: no credential comes in it."""
        return query


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    text: Any = None
    thinking: Any = None
    data: Any = None
    id: Any = None
    name: Any = None
    input: msgspec.Raw = msgspec.Raw()


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_details: Any = None


class _Message(msgspec.Struct, gc=False):
    id: Any = None
    model: Any = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    stop_details: Any = None
    usage: Any = None
    type: Any = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Any = None
    error: Any = None


class _Kind(msgspec.Struct, gc=False):
    type: str = ""


_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_message: Final = msgspec.json.Decoder(_Message).decode
_decode_kind: Final = msgspec.json.Decoder(_Kind).decode


class _HeardBlock:
    """One content block as it grows; *words* are text, thinking or pieces of arguments."""

    __slots__ = ("id", "kind", "name", "start", "words")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.id = ""
        self.name = ""
        self.start = ""
        self.words: list[str] = []


class MessageListener:
    """Hears the events of one streamed message."""

    def __init__(self) -> None:
        self._blocks: dict[int, _HeardBlock] = {}
        self._id: str | None = None
        self._model: str | None = None
        self._stop_reason: str | None = None
        self._stop_details: Any = None
        self._usage: dict[str, Any] = {}
        self._done = False
        self._error: str | None = None
        self._hearing: dict[str, Callable[[_Event], bool]] = {
            "content_block_delta": self._hear_delta,
            "content_block_start": self._hear_block,
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
            # An event of a type that is newer than this reader may have any shape.
            return False
        hearing = self._hearing.get(event.type)
        return hearing is not None and hearing(event)

    def take(self, message: _Message) -> bool:
        """Take in a message, whole or as far as it goes; tell whether it carries content."""
        self._id = message.id if isinstance(message.id, str) else None
        self._model = message.model if isinstance(message.model, str) else None
        self._stop_reason = message.stop_reason or self._stop_reason
        self._stop_details = message.stop_details or self._stop_details
        self._count(message.usage)
        content = False
        for index, block in enumerate(message.content or ()):
            content = self._begin_block(index, block) or content
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
        return Answer(
            readable=True,
            whole=self._done and self._error is None,
            id=self._id,
            model=self._model,
            choices=(self._choice(),) if self._id or self._blocks else (),
            usage=_usage_of(self._usage),
            error=self._error,
        )

    def _hear_start(self, event: _Event) -> bool:
        return event.message is not None and self.take(event.message)

    def _hear_block(self, event: _Event) -> bool:
        block = event.content_block
        return block is not None and self._begin_block(event.index, block)

    def _hear_delta(self, event: _Event) -> bool:
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
        return delta.type not in _EMPTY_DELTAS

    def _hear_end(self, event: _Event) -> bool:
        if event.delta is not None:
            self._stop_reason = event.delta.stop_reason or self._stop_reason
            self._stop_details = event.delta.stop_details or self._stop_details
        self._count(event.usage)
        return False

    def _hear_stop(self, event: _Event) -> bool:
        self.end()
        return False

    def _hear_error(self, event: _Event) -> bool:
        self._error = dialect.error_name(event.error)
        return False

    def _begin_block(self, index: int, block: _Block) -> bool:
        """Begin a block with what its start says; tell whether that is content."""
        start = dialect.raw_text(block.input) if block.type in _CALLS else ""
        heard = self._blocks[index] = _HeardBlock(block.type)
        heard.start = start
        heard.id = block.id if isinstance(block.id, str) else ""
        heard.name = block.name if isinstance(block.name, str) else ""
        if block.type not in ("text", *_THOUGHTS):
            return True
        words = {"text": block.text, "thinking": block.thinking}.get(block.type, block.data)
        if isinstance(words, str) and words:
            heard.words.append(words)
            return True
        return False

    def _count(self, usage: object) -> None:
        """Keep the newest of each counter; they are cumulative."""
        if isinstance(usage, dict):
            self._usage |= {key: count for key, count in usage.items() if count is not None}

    def _choice(self) -> Choice:
        blocks = [block for _, block in sorted(self._blocks.items())]
        details = self._stop_details if isinstance(self._stop_details, dict) else {}
        why = details.get("explanation") if self._stop_reason == "refusal" else None
        return Choice(
            index=0,
            text="".join(
                word for block in blocks if block.kind == "text" for word in block.words
            ),
            reasoning=tuple(
                "".join(block.words)
                for block in blocks
                if block.kind in _THOUGHTS and block.words
            ),
            tool_calls=tuple(
                ToolCall(
                    id=block.id,
                    name=block.name,
                    arguments="".join(block.words) or block.start or "{}",
                )
                for block in blocks
                if block.kind in _CALLS
            ),
            refusal=why if isinstance(why, str) and why else None,
            finish_reason=self._stop_reason,
        )


_EMPTY_DELTAS: Final = frozenset(
    {"text_delta", "thinking_delta", "input_json_delta", "signature_delta", "citations_delta"}
)
"""Deltas that carry no words when their words are empty; one that we don't know may."""


def _usage_of(usage: Mapping[str, Any]) -> Usage | None:
    if not usage:
        return None
    parts = [
        dialect.count_of(usage, name)
        for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    ]
    known = [part for part in parts if part is not None]
    return Usage(
        input_tokens=sum(known) if known else None,
        output_tokens=dialect.count_of(usage, "output_tokens"),
        cached_input_tokens=parts[2],
        reasoning_tokens=dialect.count_of(usage, "output_tokens_details", "thinking_tokens"),
    )


def _read_message(body: bytes) -> Answer:
    """Return what a whole *body* says; one that parses has its end."""
    message = _decode_message(body)
    if message.error is not None:
        return Answer(readable=True, whole=True, error=dialect.error_name(message.error))
    if message.content is None:
        raise NonsenseError("no content")
    listener = MessageListener()
    listener.take(message)
    listener.end()
    return listener.answer()


def _read_error(body: bytes) -> Answer:
    """Return what an error's *body* says."""
    return Answer(
        readable=True, whole=True, error=dialect.error_name(_decode_message(body).error)
    )


def _features_of(asked: Mapping[str, Any]) -> frozenset[str]:
    """Return what else a request asks for, beside text."""
    features = set()
    tools = asked.get("tools")
    if tools:
        features.add("tools")
    if dialect.searches_the_web(tools):
        features.add("grounding")
    thinking = asked.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") != "disabled":
        features.add("reasoning")
    if any(block.get("type") == "image" for block in _blocks_of(asked.get("messages"))):
        features.add("images")
    return frozenset(features)


def _blocks_of(messages: object) -> Iterable[dict[str, Any]]:
    """Yield the content blocks of *messages*, those inside tool results too."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict):
                yield block
                if block.get("type") == "tool_result":
                    yield from _blocks_of([block])


def _messages_in_row(said: object) -> list[dict[str, Any]]:
    """Return a message of the request as messages of a row.

    Raises:
        UnteachableError: it holds what no row can carry, or has no such shape.
    """
    if not isinstance(said, dict):
        raise UnteachableError("row.malformed")
    content = said.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise UnteachableError("row.malformed")
    match said.get("role"):
        case "assistant":
            return [_assistant_in_row(blocks)]
        case "user":
            return _user_in_row(blocks)
        case "system":
            return [{"role": "system", "content": dialect.joined_text(blocks)}]
        case _:
            raise UnteachableError("row.malformed")


def _assistant_in_row(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    words, calls = [], []
    for block in blocks:
        kind = block.get("type")
        if kind in _THOUGHTS:
            continue
        if kind == "tool_use":
            if "input" not in block:
                raise UnteachableError("row.malformed")
            call = ToolCall(
                id=str(block.get("id") or ""),
                name=str(block.get("name") or ""),
                arguments=orjson.dumps(block["input"]).decode(),
            )
            calls.append(dialect.call_in_row(call))
        elif kind in _CALLS or str(kind).endswith("_tool_result"):
            raise UnteachableError("row.server-tool")
        else:
            words.append(block)
    message: dict[str, Any] = {"role": "assistant", "content": dialect.joined_text(words)}
    if calls:
        message |= {"content": message["content"] or None, "tool_calls": calls}
    return message


def _user_in_row(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a user's turn in its order: words as role `user`, results as role `tool`."""
    messages: list[dict[str, Any]] = []
    for block in blocks:
        if block.get("type") == "tool_result":
            if not isinstance(block.get("tool_use_id"), str):
                raise UnteachableError("row.malformed")
            words = dialect.joined_text(block.get("content"))
            messages.append(
                {"role": "tool", "content": words, "tool_call_id": block["tool_use_id"]}
            )
            continue
        words = dialect.joined_text([block])
        if messages and messages[-1]["role"] == "user":
            messages[-1]["content"] += words
        else:
            messages.append({"role": "user", "content": words})
    return messages


def _tools_in_row(tools: object) -> list[dict[str, Any]]:
    """Return the tools that the caller defined, in OpenAI's shape."""
    rows = []
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and "input_schema" in tool:
            words = {"name": tool.get("name"), "description": tool.get("description")}
            function = {key: word for key, word in words.items() if word is not None}
            function["parameters"] = tool["input_schema"]
            rows.append({"type": "function", "function": function})
    return rows
