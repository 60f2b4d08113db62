"""The dialect of OpenAI's chat completions, which many other servers speak too.

Read: `POST …/chat/completions`. Everything else is opaque.
Rows drop reasoning, call the role `developer` by its older name `system`, and join text parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import orjson

from gateway.limits import FALLBACKS_MAX
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

FINISHED: Final = frozenset({"stop", "tool_calls", "eos", "end_turn", "stop_sequence"})
"""Finish reasons after which a choice is all there; the last three are compatible servers'."""

ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        methods=("POST",),
        path="/chat/completions",
        operation=Operation.CHAT,
        taking=Taking.HELD,
        asked="model, streaming, features, messages, tools",
        answered="choices, usage, finish reasons",
        receipted="each choice's text, reasoning, tool calls, refusal",
    ),
)
_ROUTES: Final = Routes(ROUTES, r"(?:/[^/]+)*")


class OpenAIDialect:
    """Reads and writes OpenAI's wire format."""

    name = "openai"
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
            MalformedBodyError: a chat completion whose body is no JSON object.
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
            fallbacks=_fallbacks_of(asked),
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
            return StreamReader(ChatListener(call))
        return WholeReader(_read_completion)

    def row_of(self, call: ProviderCall, choice: Choice) -> dict[str, Any]:
        """Return the conversation and *choice* as a training row.

        Raises:
            UnteachableError: the exchange holds something that no row can carry.
        """
        asked = call.body or {}
        if asked.get("modalities") not in (None, ["text"]):
            raise UnteachableError("row.not-text")
        if "functions" in asked:
            raise UnteachableError("row.legacy-functions")
        said = asked.get("messages")
        if not isinstance(said, list) or not said:
            raise UnteachableError("row.no-messages")
        tools = asked.get("tools") or []
        if not isinstance(tools, list):
            raise UnteachableError("row.malformed")
        messages = [_message_in_row(message) for message in said]
        answer = dialect.answer_message(choice, FINISHED, _custom_names(tools))
        if said[-1].get("prefix") is True:
            dialect.continue_prefix(messages, answer)
        else:
            messages.append(answer)
        return {"messages": messages, "tools": tools} if tools else {"messages": messages}

    def problem_body(self, problem: Problem) -> bytes:
        """Return the error object that OpenAI's SDK puts into its exception."""
        fallback = "server_error" if problem.status >= 500 else "invalid_request_error"
        return orjson.dumps(
            {
                "error": {
                    "message": dialect.problem_sentence(problem),
                    "type": ERROR_TYPES.get(problem.status, fallback),
                    "param": None,
                    **dialect.problem_details(problem),
                }
            }
        )

    def credential_of(self, headers: Mapping[str, str], query: str) -> str | None:
        """Return the bearer token, or the `api-key` that Azure's SDK sends."""
        return dialect.bearer_of(headers) or headers.get("api-key") or None

    def credential_header(self, secret: str) -> tuple[str, str]:
        """Return *secret* as a bearer token."""
        return "authorization", f"Bearer {secret}"

    def query_upstream(self, query: str) -> str:
        """Return *query* as it is: no credential comes in it."""
        return query


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _Custom(msgspec.Struct, gc=False):
    name: str | None = None
    input: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None


class _Said(msgspec.Struct, gc=False):
    """A delta of a stream or a message of a body: they differ in nothing that is read here."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    audio: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None


class _Completion(msgspec.Struct, gc=False):
    """A chunk of a stream or a whole body; whatever else it holds is not read."""

    choices: list[_Choice] | None = None
    usage: Any = None
    id: Any = None
    model: Any = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_Completion).decode


class _HeardCall:
    """One tool call as it grows."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class _HeardChoice:
    """One choice as it grows."""

    __slots__ = ("calls", "finish_reason", "reasoning", "refusal", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: dict[int, _HeardCall] = {}
        self.finish_reason: str | None = None

    def hear(self, said: _Said) -> bool:
        """Take in what was *said*; tell whether it carries content."""
        content = False
        if said.content:
            content = True
            if isinstance(said.content, str):
                self.text.append(said.content)
            else:
                self._hear_parts(said.content)
        if reasoning := said.reasoning_content or said.reasoning:
            content = True
            self.reasoning.append(reasoning)
        if said.refusal:
            content = True
            self.refusal.append(said.refusal)
        if said.tool_calls:
            content = True
            for call in said.tool_calls:
                self._hear_call(call)
        if said.function_call is not None:
            content = True
            self._hear_function(-1, said.function_call)
        return content or bool(said.audio)

    def choice(self, index: int) -> Choice:
        """Return what was heard."""
        return Choice(
            index=index,
            text="".join(self.text),
            reasoning=("".join(self.reasoning),) if self.reasoning else (),
            tool_calls=self._tool_calls() if self.calls else (),
            refusal="".join(self.refusal) or None,
            finish_reason=self.finish_reason,
        )

    def _tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(id=call.id, name=call.name, arguments="".join(call.arguments))
            for _, call in sorted(self.calls.items())
        )

    def _hear_parts(self, parts: Iterable[Any]) -> None:
        """Take in content that comes in parts, as Mistral's reasoning models send it."""
        for part in parts:
            if not isinstance(part, dict):
                continue
            if isinstance(part.get("text"), str):
                self.text.append(part["text"])
            thinking = part.get("thinking")
            for thought in thinking if isinstance(thinking, list) else ():
                if isinstance(thought, dict) and isinstance(thought.get("text"), str):
                    self.reasoning.append(thought["text"])

    def _hear_call(self, call: _Call) -> None:
        index = call.index
        if index is None:
            # Some servers number nothing: then an id begins a call, and the rest continues it.
            last = max(self.calls, default=-1)
            index = last + 1 if call.id or last < 0 else last
        heard = self.calls.setdefault(index, _HeardCall())
        if call.id:
            heard.id = call.id
        if call.function is not None:
            self._hear_function(index, call.function)
        if call.custom is not None:
            heard.name = call.custom.name or heard.name
            heard.arguments.append(call.custom.input or "")

    def _hear_function(self, index: int, function: _Function) -> None:
        heard = self.calls.setdefault(index, _HeardCall())
        heard.name = function.name or heard.name
        if isinstance(function.arguments, str):
            heard.arguments.append(function.arguments)
        elif isinstance(function.arguments, dict):
            heard.arguments.append(orjson.dumps(function.arguments).decode())


class ChatListener:
    """Hears the chunks of one streamed chat completion."""

    def __init__(self, call: ProviderCall) -> None:
        expected = (call.body or {}).get("n")
        self._expected = expected if isinstance(expected, int) else 1
        self._heard: dict[int, _HeardChoice] = {}
        self._done = False
        self._id: str | None = None
        self._model: str | None = None
        self._usage: Any = None
        self._error: str | None = None

    def hear(self, data: bytes) -> bool:
        """Take one event's data; tell whether it carries content."""
        try:
            chunk = _decode(data)
        except msgspec.DecodeError:
            if data.startswith(b"[DONE]"):
                self.end()
                return False
            raise
        return self.take(chunk)

    def take(self, chunk: _Completion) -> bool:
        """Take in a decoded chunk or body; tell whether it carries content."""
        if self._id is None or self._model is None:
            # Azure's first chunk names neither; the first that says something counts.
            self._id = _said_text(self._id, chunk.id)
            self._model = _said_text(self._model, chunk.model)
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.error is not None:
            self._error = dialect.error_name(chunk.error)
        content = False
        for choice in chunk.choices or ():
            heard = self._heard.get(choice.index)
            if heard is None:
                heard = self._heard[choice.index] = _HeardChoice()
            if choice.finish_reason:
                heard.finish_reason = choice.finish_reason
            said = choice.delta or choice.message
            if said is not None and heard.hear(said):
                content = True
        return content

    def end(self) -> None:
        """Take note that the format's own end was seen."""
        self._done = True

    @property
    def ending(self) -> bool:
        """Whether the stream has ended, a choice has, or an error has come."""
        return (
            self._done
            or self._error is not None
            or any(heard.finish_reason for heard in self._heard.values())
        )

    def answer(self) -> Answer:
        """Return what was heard; whole after `[DONE]` or once every choice is finished."""
        return Answer(
            readable=True,
            whole=self._error is None and (self._done or self._finished()),
            id=self._id,
            model=self._model,
            choices=tuple([heard.choice(i) for i, heard in sorted(self._heard.items())]),
            usage=_usage_of(self._usage),
            error=self._error,
        )

    def _finished(self) -> bool:
        return len(self._heard) >= self._expected and all(
            heard.finish_reason for heard in self._heard.values()
        )


def _said_text(known: str | None, said: object) -> str | None:
    return known or (said if isinstance(said, str) and said else None)


def _usage_of(usage: object) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    return Usage(
        input_tokens=dialect.count_of(usage, "prompt_tokens"),
        output_tokens=dialect.count_of(usage, "completion_tokens"),
        cached_input_tokens=dialect.count_of(usage, "prompt_tokens_details", "cached_tokens"),
        reasoning_tokens=dialect.count_of(
            usage, "completion_tokens_details", "reasoning_tokens"
        ),
    )


_UNASKED: Final = ProviderCall(provider="", operation=Operation.CHAT)


def _read_completion(body: bytes) -> Answer:
    """Return what a whole *body* says; one that parses has its end."""
    completion = _decode(body)
    if completion.error is not None:
        return Answer(readable=True, whole=True, error=dialect.error_name(completion.error))
    if completion.choices is None:
        raise NonsenseError("no choices")
    listener = ChatListener(_UNASKED)
    listener.take(completion)
    listener.end()
    return listener.answer()


def _read_error(body: bytes) -> Answer:
    """Return what an error's *body* says."""
    error = _decode(body).error
    return Answer(
        readable=True, whole=True, error=dialect.error_name(error if error is not None else {})
    )


def _features_of(asked: Mapping[str, Any]) -> frozenset[str]:
    """Return what else a request asks for, beside text."""
    features = set()
    tools = asked.get("tools")
    if tools or asked.get("functions"):
        features.add("tools")
    if asked.get("web_search_options") or dialect.searches_the_web(tools):
        features.add("grounding")
    modalities = asked.get("modalities")
    if asked.get("audio") or (isinstance(modalities, list) and "audio" in modalities):
        features.add("voice")
    if (
        asked.get("reasoning_effort") not in (None, "none")
        or asked.get("reasoning")
        or asked.get("thinking")
        or asked.get("enable_thinking")
    ):
        features.add("reasoning")
    if asked.get("logprobs"):
        features.add("logprobs")
    n = asked.get("n")
    if isinstance(n, int) and n > 1:
        features.add("n")
    if any(part.get("type") == "image_url" for part in _parts_of(asked.get("messages"))):
        features.add("images")
    return frozenset(features)


def _fallbacks_of(asked: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Return the models that an aggregator may turn to, from its list `models`."""
    listed = asked.get("models")
    if listed is None:
        return ()
    if not isinstance(listed, list) or len(listed) > FALLBACKS_MAX:
        return (None,)
    return tuple(dict.fromkeys(one if isinstance(one, str) else None for one in listed))


def _parts_of(messages: object) -> Iterable[dict[str, Any]]:
    """Yield the content parts of *messages*, as far as they have the shape of any."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict):
                yield part


_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


def _message_in_row(said: object) -> dict[str, Any]:
    """Return a message of the request with nothing but what a row carries.

    Raises:
        UnteachableError: it holds what no row can carry, or has no such shape.
    """
    if not isinstance(said, dict):
        raise UnteachableError("row.malformed")
    if said.get("role") == "function" or said.get("function_call"):
        raise UnteachableError("row.legacy-functions")
    role = _ROLES.get(str(said.get("role")))
    if role is None:
        raise UnteachableError("row.malformed")
    if said.get("audio"):
        raise UnteachableError("row.not-text")
    if said.get("refusal"):
        raise UnteachableError("row.refused")
    message: dict[str, Any] = {
        "role": role,
        "content": dialect.joined_text(said.get("content")),
    }
    if isinstance(said.get("name"), str):
        message["name"] = said["name"]
    if role == "tool":
        if not isinstance(said.get("tool_call_id"), str):
            raise UnteachableError("row.malformed")
        message["tool_call_id"] = said["tool_call_id"]
    if calls := said.get("tool_calls"):
        message["content"] = message["content"] or None
        message["tool_calls"] = _calls_in_row(calls)
    return message


def _calls_in_row(calls: object) -> list[dict[str, Any]]:
    """Return tool calls of a request, checked."""
    try:
        read = msgspec.convert(calls, list[_Call])
    except msgspec.ValidationError as exc:
        raise UnteachableError("row.malformed") from exc
    rows = []
    for call in read:
        heard = _HeardChoice()
        heard.hear(_Said(tool_calls=[call]))
        (said,) = heard.choice(0).tool_calls
        custom = frozenset({said.name}) if call.custom is not None else frozenset[str]()
        rows.append(dialect.call_in_row(said, custom))
    return rows


def _custom_names(tools: Iterable[Any]) -> frozenset[str]:
    """Return the names of the tools that take free text."""
    names = set()
    for tool in tools:
        custom = tool.get("custom") if isinstance(tool, dict) else None
        if isinstance(custom, dict) and isinstance(custom.get("name"), str):
            names.add(custom["name"])
    return frozenset(names)
