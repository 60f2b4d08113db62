"""Chat completions, whole and streamed; legacy completions answer in nearly the same words.

Read too is what compatible servers add: reasoning under several names, content in parts,
images, counts in other places. Whatever else a message holds is listed as a unit that nobody
here can read, and a choice that holds any has no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
import orjson

from gateway.limits import FALLBACKS_MAX
from gateway.provider import dialect
from gateway.provider.model import (
    Answer,
    Choice,
    Made,
    ProviderCall,
    Resource,
    Shown,
    Stop,
    ToolCall,
    Unit,
    UnitKind,
    Usage,
)
from gateway.provider.openai.facts import (
    error_name,
    named_in,
    refused,
    stop_of,
    text_or_none,
    usage_of,
)
from gateway.provider.openai.routes import CHAT
from gateway.provider.readers import NonsenseError
from gateway.provider.units import base64_unit, json_unit, pieces_unit

FINISHED: Final = frozenset({"stop", "tool_calls", "eos", "end_turn", "stop_sequence"})
"""Finish reasons after which a choice is all there; the last three are compatible servers'."""


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _Custom(msgspec.Struct, gc=False):
    name: str | None = None
    input: str | None = None


class Call(msgspec.Struct, gc=False):
    """A tool call, or a part of one."""

    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None


class Said(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A delta of a stream or a message of a body: they differ in nothing that is read here.

    Only what nearly every answer holds is a field, because each makes every chunk slower. One
    that is not listed might hold anything, so it is looked at in `_decode_any`.
    """

    role: Any = None
    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Call] | None = None
    function_call: _Function | None = None
    annotations: Any = None
    more: dict[str, Any] | None = None
    """Whatever else there is."""


_KNOWN: Final = frozenset(Said.__struct_fields__) - {"more"}
_SAYS_NOTHING: Final = frozenset({"name", "prefix", "tool_call_id", "obfuscation"})
"""Fields of a message that are no output."""


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: Said | None = None
    message: Said | None = None
    text: str | None = None
    """A legacy completion's words."""
    finish_reason: str | None = None


class _Completion(msgspec.Struct, gc=False):
    """A chunk of a stream or a whole body; whatever else it holds is not read."""

    choices: list[_Choice] | None = None
    usage: Any = None
    id: Any = None
    model: Any = None
    error: Any = None
    provider: Any = None
    x_groq: Any = None
    timings: Any = None
    citations: Any = None
    search_results: Any = None


_decode_strict: Final = msgspec.json.Decoder(_Completion).decode
_ANYTHING: Final = msgspec.json.Decoder(dict[str, Any])


def _decode(data: bytes) -> _Completion:
    try:
        return _decode_strict(data)
    except msgspec.ValidationError:
        return _decode_any(data)


def _decode_any(data: bytes) -> _Completion:
    """Return a completion some of whose messages hold what is not known here."""
    completion = _ANYTHING.decode(data)
    choices = completion.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        for key in ("delta", "message"):
            said = choice.get(key) if isinstance(choice, dict) else None
            if isinstance(said, dict):
                known = {name: value for name, value in said.items() if name in _KNOWN}
                more = {
                    name: value
                    for name, value in said.items()
                    if value and name not in _KNOWN and name not in _SAYS_NOTHING
                }
                choice[key] = known | {"more": more or None}
    return msgspec.convert(completion, _Completion)


_RAN: Final = frozenset({"annotations", "citations", "context", "executed_tools"})
"""Fields that hold what tools gave which the provider ran itself."""


class _HeardCall:
    """One tool call as it grows."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class HeardChoice:
    """One choice as it grows."""

    __slots__ = (
        "calls",
        "details",
        "finish_reason",
        "reasoning",
        "refusal",
        "sound",
        "text",
        "transcript",
        "units",
        "unread",
    )

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: dict[int, _HeardCall] = {}
        self.finish_reason: str | None = None
        # What few choices hold is made when it is needed.
        self.details: list[Any] | None = None
        self.sound: list[str] | None = None
        self.transcript: list[str] | None = None
        self.units: list[Callable[[int], Unit]] | None = None
        self.unread: dict[str, list[Any]] | None = None

    def hear(self, said: Said) -> bool:
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
        if said.annotations:
            content = True
            self._leave("annotations", said.annotations)
        if said.more is not None:
            content = True
            for name, value in said.more.items():
                self._hear_more(name, value)
        return content

    def choice(self, index: int) -> Choice:
        """Return what was heard.

        Raises:
            NonsenseError: something that was said in base64 is none.
        """
        return Choice(
            index=index,
            text="".join(self.text),
            reasoning=self._reasoning() if self.reasoning or self.details else (),
            shown=self._shown() if self.reasoning or self.details else None,
            tool_calls=self._tool_calls() if self.calls else (),
            refusal="".join(self.refusal) or None,
            finish_reason=self.finish_reason,
            others=tuple(self._others(index))
            if self.units or self.unread or self.sound or self.transcript
            else (),
        )

    def _reasoning(self) -> tuple[str, ...]:
        """Return the reasoning that was shown, and after it what is told only in secret.

        OpenRouter says what it can show twice, as one text and in details.
        """
        shown = list(self.reasoning)
        secret = []
        for detail in self.details or ():
            if not isinstance(detail, dict):
                continue
            told = detail.get("text") or detail.get("summary")
            if isinstance(told, str) and not self.reasoning:
                shown.append(told)
            if isinstance(detail.get("data"), str) and detail["data"]:
                secret.append(detail["data"])
        return ("".join(shown), *secret) if shown else tuple(secret)

    def _shown(self) -> Shown | None:
        """Return the reasoning that can be read; of details that say so it is a summary."""
        details = [one for one in self.details or () if isinstance(one, dict)]
        told = [one.get("text") or one.get("summary") for one in details]
        text = "".join(self.reasoning) or "".join(one for one in told if isinstance(one, str))
        is_summary = any(
            one.get("type") == "reasoning.summary" or one.get("summary") for one in details
        )
        return Shown(text, is_summary) if text else None

    def _tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(id=call.id, name=call.name, arguments="".join(call.arguments))
            for _, call in sorted(self.calls.items())
        )

    def _others(self, index: int) -> Iterator[Unit]:
        for unit in self.units or ():
            yield unit(index)
        if self.sound:
            yield pieces_unit("audio", index, self.sound)
        if self.transcript:
            yield json_unit("transcript", index, "".join(self.transcript))
        for name, values in sorted((self.unread or {}).items()):
            kind: UnitKind = "tool-result" if name in _RAN else "other"
            yield json_unit(kind, index, values[0] if len(values) == 1 else values)

    def _hear_parts(self, parts: Iterable[Any]) -> None:
        """Take in content that comes in parts, as Mistral's reasoning models send it."""
        for part in parts:
            if not isinstance(part, dict):
                self._leave("part", part)
            elif part.get("type", "text") == "text" and isinstance(part.get("text"), str):
                self.text.append(part["text"])
            elif isinstance(part.get("thinking"), list):
                for thought in part["thinking"]:
                    if isinstance(thought, dict) and isinstance(thought.get("text"), str):
                        self.reasoning.append(thought["text"])
                    else:
                        self._leave("part", thought)
            elif isinstance(part.get("thinking"), str):
                self.reasoning.append(part["thinking"])
            elif isinstance(part.get("refusal"), str):
                self.refusal.append(part["refusal"])
            elif "image_url" in part:
                self._hear_image(part)
            else:
                self._leave("part", part)

    def _hear_more(self, name: str, value: Any) -> None:
        """Take in what few answers hold."""
        if name == "reasoning_details" and isinstance(value, list):
            if self.details is None:
                self.details = []
            self.details += value
        elif name == "audio" and isinstance(value, dict):
            if self.sound is None or self.transcript is None:
                self.sound, self.transcript = [], []
            if isinstance(value.get("data"), str):
                self.sound.append(value["data"])
            if isinstance(value.get("transcript"), str):
                self.transcript.append(value["transcript"])
        elif name == "images" and isinstance(value, list):
            for image in value:
                self._hear_image(image)
        else:
            self._leave(name, value)

    def _hear_image(self, image: object) -> None:
        """Take in an image as a part of a message has it: inside its address, or behind it."""
        where = image.get("image_url") if isinstance(image, dict) else None
        url = where.get("url") if isinstance(where, dict) else where
        if not isinstance(url, str):
            self._leave("image", image)
            return
        if self.units is None:
            self.units = []
        self.units.append(lambda index: linked_image(index, url))

    def _leave(self, name: str, value: object) -> None:
        """Take note of something that nobody here can read."""
        if self.unread is None:
            self.unread = {}
        self.unread.setdefault(name, []).append(value)

    def _hear_call(self, call: Call) -> None:
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


def linked_image(index: int, url: str) -> Unit:
    """Return the image that *url* holds in itself, or the link that it is.

    Raises:
        NonsenseError: it says that it holds one in base64 and does not.
    """
    head, comma, content = url.partition(",")
    if head.startswith("data:") and head.endswith(";base64") and comma:
        kind: UnitKind = "image" if head.startswith("data:image/") else "other"
        return base64_unit(kind, index, content)
    return json_unit("link", index, url)


class ChatListener:
    """Hears the chunks of one streamed completion."""

    def __init__(self, call: ProviderCall) -> None:
        self._call = call
        self._heard: dict[int, HeardChoice] = {}
        self._done = False
        self._id: str | None = None
        self._model: str | None = None
        self._provider: str | None = None
        self._usage: Any = None
        self._timings: Any = None
        self._found: dict[str, Any] = {}
        self._error: str | None = None
        self._stop: Stop | None = None

    def hear(self, data: bytes) -> bool:
        """Take one event's data; tell whether it carries content."""
        try:
            return self.take(_decode_strict(data))
        except msgspec.DecodeError as exc:
            if data.startswith(b"[DONE]"):
                self.end()
                return False
            if not isinstance(exc, msgspec.ValidationError):
                raise
        return self.take(_decode_any(data))

    def take(self, chunk: _Completion) -> bool:
        """Take in a decoded chunk or body; tell whether it carries content."""
        if self._id is None or self._model is None:
            # Azure's first chunk names neither; the first that says something counts.
            self._id = self._id or text_or_none(chunk.id)
            self._model = self._model or text_or_none(chunk.model)
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.error is not None:
            self._error, self._stop = error_name(chunk.error), stop_of(chunk.error)
        if (
            chunk.provider is not None
            or chunk.x_groq is not None
            or chunk.timings is not None
            or chunk.citations
            or chunk.search_results
        ):
            self._take_more(chunk)
        content = False
        for choice in chunk.choices or ():
            heard = self._heard.get(choice.index)
            if heard is None:
                heard = self._heard[choice.index] = HeardChoice()
            if choice.finish_reason:
                heard.finish_reason = choice.finish_reason
            said = choice.delta or choice.message
            if said is not None and heard.hear(said):
                content = True
            if choice.text:
                heard.text.append(choice.text)
                content = True
        return content

    def _take_more(self, chunk: _Completion) -> None:
        """Take in what only some servers say."""
        self._provider = self._provider or text_or_none(chunk.provider)
        if isinstance(chunk.x_groq, dict):
            if self._usage is None:
                self._usage = chunk.x_groq.get("usage")
            if error := chunk.x_groq.get("error"):
                self._error, self._stop = error_name(error), stop_of(error)
        if chunk.timings is not None:
            self._timings = chunk.timings
        for name in ("citations", "search_results"):
            # Each chunk has all that were found so far.
            self._found[name] = getattr(chunk, name) or self._found.get(name)

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
        choices = tuple([heard.choice(i) for i, heard in sorted(self._heard.items())])
        return Answer(
            readable=True,
            whole=self._error is None and (self._done or self._finished()),
            id=self._id,
            model=self._model,
            choices=choices,
            units=tuple(
                json_unit("tool-result", 0, found)
                for _, found in sorted(self._found.items())
                if found
            )
            if self._found
            else (),
            usage=self._counted(),
            error=self._error,
            made=self._made(),
            provider=self._provider,
            stop=self._stop or stop_of_choices(choices),
        )

    def _finished(self) -> bool:
        return len(self._heard) >= _expected(self._call) and all(
            heard.finish_reason for heard in self._heard.values()
        )

    def _counted(self) -> Usage | None:
        if self._usage is not None or not isinstance(self._timings, dict):
            return usage_of(self._usage)
        # llama.cpp counts what it did, and apart from that what it had done before.
        cached = dialect.count_of(self._timings, "cache_n")
        fresh = dialect.count_of(self._timings, "prompt_n")
        return Usage(
            input_tokens=None if fresh is None else fresh + (cached or 0),
            output_tokens=dialect.count_of(self._timings, "predicted_n"),
            cached_input_tokens=cached,
        )

    def _made(self) -> tuple[Made, ...]:
        """Return the stored completion, where one was asked for."""
        found, asked = self._call.found, self._call.body
        if (
            self._id is None
            or found is None
            or found.route.path != CHAT
            or asked is None
            or asked.get("store") is not True
        ):
            return ()
        return (Made(resource=Resource("completion", self._id)),)


def stop_of_choices(choices: Iterable[Choice]) -> Stop | None:
    """Tell whether the model refused one of *choices*, or a filter behind it stopped one."""
    for choice in choices:
        if choice.refusal is not None or choice.finish_reason == "refusal":
            return "refusal"
        if choice.finish_reason in _FILTERED:
            return "policy"
    return None


_FILTERED: Final = frozenset({"content_filter", "safety"})


def _expected(call: ProviderCall) -> int:
    """Return how many choices were asked for."""
    asked = call.body or {}
    count, prompts = asked.get("n"), asked.get("prompt")
    each = count if isinstance(count, int) else 1
    if isinstance(prompts, list) and prompts and isinstance(prompts[0], (str, list)):
        return each * len(prompts)
    return each


def read_completion(call: ProviderCall, body: bytes) -> Answer:
    """Return what a whole *body* says; one that parses has its end."""
    completion = _decode(body)
    if completion.error is not None:
        return refused(completion.error)
    if completion.choices is None:
        raise NonsenseError("no choices")
    choices = completion.choices
    if len({choice.index for choice in choices}) < len(choices):
        # Each is an answer of its own, whatever number its server gave it.
        for place, choice in enumerate(choices):
            choice.index = place
    listener = ChatListener(call)
    listener.take(completion)
    listener.end()
    return listener.answer()


def wants_of(asked: Mapping[str, Any]) -> tuple[frozenset[str], tuple[Resource, ...]]:
    """Return what else a request asks for, beside text, and the files that it names."""
    features = set()
    tools = asked.get("tools")
    if tools or asked.get("functions"):
        features.add("tools")
    if (
        asked.get("web_search_options")
        or dialect.searches_the_web(tools)
        or _goes_online(asked)
    ):
        features.add("grounding")
    modalities = asked.get("modalities")
    wanted = modalities if isinstance(modalities, list) else ()
    if asked.get("audio") or "audio" in wanted:
        features.add("voice")
    if "image" in wanted:
        features.add("image-output")
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
    files: list[object] = [tools] if tools else []
    for part in _parts_of(asked.get("messages")):
        kind = part.get("type")
        if kind == "image_url":
            features.add("images")
        elif kind == "file":
            files.append(part)
    return frozenset(features), named_in(files) if files else ()


def _goes_online(asked: Mapping[str, Any]) -> bool:
    """Tell whether an aggregator is to search the web, by the model's name or a plug-in."""
    model, plugins = asked.get("model"), asked.get("plugins")
    return (isinstance(model, str) and model.endswith(":online")) or any(
        isinstance(plugin, dict) and plugin.get("id") == "web"
        for plugin in (plugins if isinstance(plugins, list) else ())
    )


def fallbacks_of(asked: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Return the models that an aggregator may turn to, from its list `models`."""
    listed = asked.get("models")
    if listed is None:
        return ()
    if not isinstance(listed, list) or len(listed) > FALLBACKS_MAX:
        return (None,)
    return tuple(dict.fromkeys(one if isinstance(one, str) else None for one in listed))


def _parts_of(messages: object) -> Iterator[dict[str, Any]]:
    """Yield the content parts of *messages*, as far as they have the shape of any."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict):
                yield part
