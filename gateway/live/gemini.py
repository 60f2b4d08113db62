"""Google's live sessions: JSON in text or binary frames, one turn of the model at a time."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Any, Final

import orjson

from gateway.limits import BODY_BYTES_HELD_MAX, PARTS_PER_TURN_MAX
from gateway.live.talk import (
    PartDigest,
    Turn,
    dig,
    object_of,
    objects_in,
    text_at,
    with_more,
)
from gateway.provider import dialect
from gateway.provider.model import Answer, Choice, ProviderCall, ToolCall, Unit, Usage
from gateway.provider.readers import NonsenseError
from gateway.provider.units import bytes_unit, json_unit

_SOUND: Final = "audio/"
_PICTURE: Final = "image/"
_SEARCHES: Final = ("googleSearch", "google_search", "googleSearchRetrieval", "urlContext")
_OF_A_TURN: Final = ("modelTurn", "outputTranscription", "inputTranscription")
_NAMELESS: Final = "models/"


class GeminiTalk:
    """One live session."""

    def __init__(self, call: ProviderCall) -> None:
        self._call = call
        self._wanted = call
        self._request: bytes | None = None
        self._asks = False
        self._asked = b""
        self._turn: _ModelTurn | None = None
        self._usage: Usage | None = None
        self._unread = False

    def wanted(self, message: bytes) -> ProviderCall:
        """Return what is asked for from *message* on; see `Talk.wanted`."""
        said = dialect.json_object(message)
        call = self._call
        self._request = None
        content = said.get("clientContent") or said.get("client_content")
        self._asks = bool(dig(content, "turnComplete") or dig(content, "turn_complete"))
        if (setup := said.get("setup")) is not None:
            model = text_at(setup, "model").rpartition(_NAMELESS)[2]
            call = with_more(call, model=model or None, features=_features_of(setup))
        for key in ("clientContent", "client_content", "realtimeInput", "realtime_input"):
            if key in said:
                self._request = message
                seen = any(map(_is_seen, objects_in(said)))
                call = with_more(call, features=frozenset({"images"} if seen else ()))
        self._wanted = call
        return call

    @property
    def asks(self) -> bool:
        """Whether the message that was just read ends the caller's turn."""
        return self._asks

    def passed(self) -> None:
        """Take note that the message that was just read goes on."""
        self._call = self._wanted
        if self._request is not None:
            self._asked = self._request
            self._request = None

    def hear(self, message: bytes) -> Sequence[Turn]:
        """Take a message of the provider; see `Talk.hear`."""
        event = object_of(message)
        if event is None:
            self._unread = True
            return ()
        content = event.get("serverContent")
        content = content if isinstance(content, dict) else {}
        calls = event.get("toolCall")
        if self._turn is None:
            if not (calls or any(key in content for key in _OF_A_TURN)):
                usage = _usage_of(event.get("usageMetadata"))
                self._usage = _sum(self._usage, usage)
                return ()
            self._turn = _ModelTurn(self._asked, self._call)
            self._asked = b""
        turn = self._turn
        turn.digest.add(message)
        turn.take(event, content)
        if not content.get("turnComplete"):
            return ()
        self._turn = None
        return (turn,)

    def under_way(self) -> Sequence[Turn]:
        """Return the turn that has begun and not ended."""
        return () if self._turn is None else (self._turn,)

    def between(self) -> Answer:
        """Return the counts that came outside of any turn."""
        return Answer(readable=not self._unread, whole=True, usage=self._usage)


class _ModelTurn:
    """One turn of the model."""

    def __init__(self, request: bytes, call: ProviderCall) -> None:
        self.request = request
        self.call = call
        self.digest = PartDigest()
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._spoken: list[str] = []
        self._heard: list[str] = []
        self._audio: PartDigest | None = None
        self._others: list[Unit] = []
        self._calls: list[ToolCall] = []
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._whole = False
        self._readable = True

    def take(self, event: dict[str, Any], content: dict[str, Any]) -> None:
        """Take one message of the turn; *content* is what it says of it."""
        self._usage = _usage_of(event.get("usageMetadata")) or self._usage
        if (
            self.digest.bytes > BODY_BYTES_HELD_MAX
            or len(self._calls) + len(self._others) > PARTS_PER_TURN_MAX
        ):
            self._readable = False
        else:
            parts = dig(content, "modelTurn", "parts")
            for part in parts if isinstance(parts, list) else ():
                self._take_part(part)
            self._spoken.append(text_at(content, "outputTranscription", "text"))
            self._heard.append(text_at(content, "inputTranscription", "text"))
            calls = dig(event, "toolCall", "functionCalls")
            for one in calls if isinstance(calls, list) else ():
                self._take_call(one)
        if content.get("interrupted"):
            self._finish = "interrupted"
        if content.get("turnComplete"):
            self._whole = True
            self._finish = self._finish or text_at(content, "turnCompleteReason") or None

    def _take_part(self, part: object) -> None:
        text = dig(part, "text")
        inline = dig(part, "inlineData")
        if isinstance(text, str):
            (self._thoughts if dig(part, "thought") is True else self._texts).append(text)
        elif inline is not None:
            self._take_inline(inline)
        elif (call := dig(part, "functionCall")) is not None:
            self._take_call(call)
        elif isinstance(part, dict) and part:
            ran = "executableCode" in part or "codeExecutionResult" in part
            try:
                self._others.append(json_unit("tool-result" if ran else "other", 0, part))
            except NonsenseError:
                self._readable = False

    def _take_inline(self, inline: object) -> None:
        kind = text_at(inline, "mimeType")
        try:
            content = binascii.a2b_base64(text_at(inline, "data").encode("ascii"))
        except (binascii.Error, UnicodeEncodeError):
            self._readable = False
            return
        if kind.startswith(_SOUND):
            if self._audio is None:
                self._audio = PartDigest()
            self._audio.add(content)
        else:
            is_image = kind.startswith(_PICTURE)
            self._others.append(bytes_unit("image" if is_image else "other", 0, content))

    def _take_call(self, call: object) -> None:
        arguments = dig(call, "args")
        self._calls.append(
            ToolCall(
                id=text_at(call, "id"),
                name=text_at(call, "name"),
                arguments=orjson.dumps({} if arguments is None else arguments).decode(),
            )
        )

    def answer(self) -> Answer:
        """Return the turn as far as it came."""
        others = list(self._others)
        if self._audio is not None:
            sound = self._audio
            others.append(Unit(kind="audio", index=0, bytes=sound.bytes, sha256=sound.sha256()))
        others += [
            bytes_unit("transcript", 0, said.encode("utf-8", "replace"))
            for words in (self._spoken, self._heard)
            if (said := "".join(words))
        ]
        thoughts = "".join(self._thoughts)
        choice = Choice(
            index=0,
            text="".join(self._texts),
            reasoning=(thoughts,) if thoughts else (),
            tool_calls=tuple(self._calls),
            finish_reason=self._finish,
            others=tuple(others),
        )
        return Answer(
            readable=self._readable, whole=self._whole, choices=(choice,), usage=self._usage
        )


def _is_seen(one: dict[str, Any]) -> bool:
    """Tell whether *one* holds a picture, or a film."""
    kind = one.get("mimeType") or one.get("mime_type")
    return "video" in one or (isinstance(kind, str) and kind.startswith(("image/", "video/")))


def _features_of(setup: object) -> frozenset[str]:
    """Return what a setup asks for beside words."""
    features = set()
    tools = dig(setup, "tools")
    if tools:
        features.add("tools")
    if isinstance(tools, list) and any(
        name in tool for tool in tools if isinstance(tool, dict) for name in _SEARCHES
    ):
        features.add("grounding")
    config = dig(setup, "generationConfig") or dig(setup, "generation_config")
    made_of = dig(config, "responseModalities") or dig(config, "response_modalities")
    named = {str(one).upper() for one in made_of} if isinstance(made_of, list) else set()
    if "AUDIO" in named or not named:
        features.add("voice")
    if "IMAGE" in named:
        features.add("image-output")
    if dig(config, "thinkingConfig") or dig(config, "thinking_config"):
        features.add("reasoning")
    return frozenset(features)


def _usage_of(usage: object) -> Usage | None:
    count = dialect.count_of
    if not isinstance(usage, dict):
        return None
    output = count(usage, "responseTokenCount")
    return Usage(
        input_tokens=count(usage, "promptTokenCount"),
        output_tokens=count(usage, "candidatesTokenCount") if output is None else output,
        cached_input_tokens=count(usage, "cachedContentTokenCount"),
        reasoning_tokens=count(usage, "thoughtsTokenCount"),
    )


def _sum(some: Usage | None, more: Usage | None) -> Usage | None:
    if some is None or more is None:
        return some or more
    return Usage(
        input_tokens=_plus(some.input_tokens, more.input_tokens),
        output_tokens=_plus(some.output_tokens, more.output_tokens),
        cached_input_tokens=_plus(some.cached_input_tokens, more.cached_input_tokens),
        reasoning_tokens=_plus(some.reasoning_tokens, more.reasoning_tokens),
    )


def _plus(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other
