"""OpenAI's realtime sessions: speech, text and calls in events, one JSON object each.

Names of the first version (`response.text.delta`) and of the second
(`response.output_text.delta`) are both read. What the caller said, as the provider wrote it
down, is an answer of its own.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Any, Final

from gateway.limits import PARTS_PER_TURN_MAX, TURNS_UNDER_WAY_MAX
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
from gateway.provider.model import (
    Answer,
    Choice,
    ProviderCall,
    Stop,
    ToolCall,
    Unit,
    Usage,
)
from gateway.provider.openai.facts import error_name, stop_of
from gateway.provider.readers import NonsenseError
from gateway.provider.units import bytes_unit, json_unit

Place = tuple[str, int]
"""An output item's id, and a part of its content."""

_TEXT: Final = frozenset({"response.output_text", "response.text"})
_AUDIO: Final = frozenset({"response.output_audio", "response.audio"})
_SPOKEN: Final = frozenset({"response.output_audio_transcript", "response.audio_transcript"})
_ARGUMENTS: Final = frozenset(
    {"response.function_call_arguments", "response.mcp_call_arguments"}
)
_HEARD: Final = "conversation.item.input_audio_transcription"
_CALLS: Final = frozenset({"function_call", "mcp_call"})
_BUSY: Final = "conversation_already_has_active_response"
_REQUESTS_WAITING_MAX: Final = 64


class RealtimeTalk:
    """One realtime session."""

    def __init__(self, call: ProviderCall) -> None:
        self._call = call
        self._wanted = call
        self._request: bytes | None = None
        self._requests: list[bytes] = []
        self._model: str | None = None
        self._error: str | None = None
        self._turns: dict[str, _Spoken | _Heard] = {}
        self._unread = False

    # -- the caller -----------------------------------------------------------------------

    def wanted(self, message: bytes) -> ProviderCall:
        """Return what is asked for from *message* on; see `Talk.wanted`."""
        said = dialect.json_object(message)
        kind = text_at(said, "type")
        call = self._call
        self._request = None
        if kind in {"session.update", "transcription_session.update"}:
            session = said.get("session")
            call = with_more(
                call,
                model=text_at(session, "model") or None,
                features=_features_of(session),
                fallbacks=_other_models(session),
            )
        elif kind == "response.create":
            response = said.get("response")
            call = with_more(
                call,
                model=text_at(response, "model") or None,
                features=_features_of(response),
            )
            self._request = message
        if b"image" in message or b"\\u" in message:
            shown = (one.get("type") == "input_image" for one in objects_in(said))
            call = with_more(call, features=frozenset({"images"} if any(shown) else ()))
        self._wanted = call
        return call

    @property
    def asks(self) -> bool:
        """Whether the message that was just read is a request."""
        return self._request is not None

    def passed(self) -> None:
        """Take note that the message that was just read goes on."""
        self._call = self._wanted
        if self._request is not None and len(self._requests) < _REQUESTS_WAITING_MAX:
            self._requests.append(self._request)
        self._request = None

    # -- the provider ---------------------------------------------------------------------

    def hear(self, message: bytes) -> Sequence[Turn]:
        """Take a message of the provider; see `Talk.hear`."""
        event = object_of(message)
        kind = text_at(event, "type")
        if event is None or not kind:
            self._unread = True
            return ()
        if kind in {"session.created", "session.updated"}:
            self._model = text_at(event, "session", "model") or self._model
        elif kind == "error":
            self._error = error_name(event.get("error"))
            self._forget_request(event.get("error"))
        elif kind.startswith(_HEARD):
            return self._hear_transcript(kind, event, message)
        elif kind.startswith("response."):
            return self._hear_response(kind, event, message)
        return ()

    def _forget_request(self, error: object) -> None:
        """Forget a request that the provider will not answer."""
        event = text_at(error, "event_id")
        for request in self._requests:
            if event and text_at(object_of(request), "event_id") == event:
                self._requests.remove(request)
                return
        if text_at(error, "code") == _BUSY and self._requests:
            self._requests.pop()

    def _hear_response(
        self, kind: str, event: dict[str, Any], message: bytes
    ) -> Sequence[Turn]:
        id_ = text_at(event, "response_id") or text_at(event, "response", "id")
        turn = self._turns.get(id_)
        if turn is None:
            request = self._requests.pop(0) if self._requests else b""
            turn = _Spoken(id_, request, self._call, self._model)
            if not self._keep(id_, turn):
                return ()
        turn.digest.add(message)
        turn.take(kind, event)
        if kind != "response.done":
            return ()
        del self._turns[id_]
        return (turn,)

    def _hear_transcript(
        self, kind: str, event: dict[str, Any], message: bytes
    ) -> Sequence[Turn]:
        id_ = f"heard {text_at(event, 'item_id')} {event.get('content_index')}"
        turn = self._turns.get(id_)
        if turn is None:
            turn = _Heard(self._call)
            if not self._keep(id_, turn):
                return ()
        turn.digest.add(message)
        turn.take(kind.removeprefix(_HEARD), event)
        if not kind.endswith((".completed", ".failed")):
            return ()
        del self._turns[id_]
        return (turn,)

    def _keep(self, id_: str, turn: _Spoken | _Heard) -> bool:
        """Keep a turn that begins, unless there are too many to follow."""
        if len(self._turns) >= TURNS_UNDER_WAY_MAX:
            self._unread = True
            return False
        self._turns[id_] = turn
        return True

    def under_way(self) -> Sequence[Turn]:
        """Return the answers that have begun and not ended."""
        return tuple(self._turns.values())

    def between(self) -> Answer:
        """Return the model that the session says it has, and its last error."""
        return Answer(
            readable=not self._unread, whole=True, model=self._model, error=self._error
        )


class _Spoken:
    """A response as its events come."""

    def __init__(self, id_: str, request: bytes, call: ProviderCall, model: str | None) -> None:
        self.request = request
        self.call = call
        self.digest = PartDigest()
        self._id = id_
        self._model = model
        self._texts: dict[Place, list[str]] = {}
        self._spoken: dict[Place, list[str]] = {}
        self._audio: dict[Place, PartDigest] = {}
        self._calls: dict[str, _Called] = {}
        self._done: dict[str, Any] = {}
        self._readable = True

    def take(self, kind: str, event: dict[str, Any]) -> None:
        """Take one event of the response."""
        if kind == "response.done":
            done = event.get("response")
            self._done = done if isinstance(done, dict) else {}
            return
        if kind in {"response.output_item.added", "response.output_item.done"}:
            self._take_item(event.get("item"))
            return
        name, dot, last = kind.rpartition(".")
        if not dot or last != "delta":
            return
        index = event.get("content_index")
        place = text_at(event, "item_id"), index if isinstance(index, int) else 0
        delta = text_at(event, "delta")
        if len(self._texts) + len(self._spoken) + len(self._audio) > PARTS_PER_TURN_MAX:
            self._readable = False
        elif name in _TEXT:
            self._texts.setdefault(place, []).append(delta)
        elif name in _SPOKEN:
            self._spoken.setdefault(place, []).append(delta)
        elif name in _AUDIO:
            try:
                content = binascii.a2b_base64(delta.encode("ascii"), strict_mode=True)
            except (binascii.Error, UnicodeEncodeError):
                self._readable = False
            else:
                self._audio.setdefault(place, PartDigest()).add(content)
        elif name in _ARGUMENTS:
            self._called(place[0]).arguments.append(delta)

    def _called(self, item: str) -> _Called:
        if len(self._calls) >= PARTS_PER_TURN_MAX:
            self._readable = False
            return _Called()
        return self._calls.setdefault(item, _Called())

    def _take_item(self, item: object) -> None:
        if dig(item, "type") in _CALLS:
            called = self._called(text_at(item, "id"))
            called.name = text_at(item, "name")
            called.call_id = text_at(item, "call_id") or text_at(item, "id")
            if whole := text_at(item, "arguments"):
                called.arguments = [whole]

    def answer(self) -> Answer:
        """Return the response: what its end lists, and what came before that."""
        done = self._done
        usage = done.get("usage")
        error = dig(done, "status_details", "error")
        output = done.get("output")
        items = output if isinstance(output, list) else []
        others = [
            Unit(kind="audio", index=0, bytes=one.bytes, sha256=one.sha256())
            for one in self._audio.values()
        ]
        others += [
            bytes_unit("transcript", 0, "".join(words).encode("utf-8", "replace"))
            for words in self._spoken.values()
        ]
        others += _strange(items)
        for item in items:
            self._take_item(item)
        calls = [
            ToolCall(id=one.call_id, name=one.name, arguments="".join(one.arguments))
            for one in self._calls.values()
        ]
        choice = Choice(
            index=0,
            text="".join("".join(words) for words in self._texts.values()),
            tool_calls=tuple(calls),
            finish_reason=text_at(done, "status_details", "reason")
            or text_at(done, "status")
            or None,
            others=tuple(others),
        )
        return Answer(
            readable=self._readable,
            whole=bool(done),
            id=self._id or None,
            model=self._model,
            choices=(choice,),
            usage=_usage_of(usage),
            error=error_name(error) if error else None,
            stop=_stop_of(done, error),
        )


class _Called:
    """A tool call as it comes."""

    def __init__(self) -> None:
        self.call_id = ""
        self.name = ""
        self.arguments: list[str] = []


class _Heard:
    """What the caller said, as the provider writes it down."""

    request = b""

    def __init__(self, call: ProviderCall) -> None:
        self.call = call
        self.digest = PartDigest()
        self._words: list[str] = []
        self._whole: str | None = None
        self._usage: Usage | None = None
        self._error: str | None = None
        self._parts = 0

    def take(self, kind: str, event: dict[str, Any]) -> None:
        """Take one event of the transcript."""
        if kind == ".delta":
            self._words.append(text_at(event, "delta"))
        elif kind == ".completed":
            self._whole = text_at(event, "transcript")
            self._usage = _usage_of(event.get("usage"))
        elif kind == ".failed":
            self._error = error_name(event.get("error"))

    def answer(self) -> Answer:
        """Return what was written down."""
        words = "".join(self._words) if self._whole is None else self._whole
        return Answer(
            readable=True,
            whole=self._whole is not None or self._error is not None,
            units=(bytes_unit("transcript", 0, words.encode("utf-8", "replace")),),
            usage=self._usage,
            error=self._error,
        )


def _features_of(session: object) -> frozenset[str]:
    """Return what the settings of a session, or of one response, ask for beside words."""
    features = set()
    if dig(session, "tools"):
        features.add("tools")
    if dig(session, "reasoning"):
        features.add("reasoning")
    made_of = dig(session, "output_modalities") or dig(session, "modalities")
    if isinstance(made_of, list) and "audio" in made_of:
        features.add("voice")
    return frozenset(features)


def _other_models(session: object) -> tuple[str, ...]:
    """Return the models that a session has beside the one that talks: those that listen."""
    named = (
        text_at(session, "audio", "input", "transcription", "model"),
        text_at(session, "input_audio_transcription", "model"),
    )
    return tuple(name for name in named if name)


def _strange(items: list[Any]) -> list[Unit]:
    """Return as units those of *items* that are neither messages nor calls."""
    units = []
    for item in items[:PARTS_PER_TURN_MAX]:
        if dig(item, "type") in {"message", *_CALLS}:
            continue
        try:
            units.append(json_unit("other", 0, item))
        except NonsenseError:
            continue
    return units


def _usage_of(usage: object) -> Usage | None:
    count = dialect.count_of
    if not isinstance(usage, dict) or count(usage, "output_tokens") is None:
        return None
    return Usage(
        input_tokens=count(usage, "input_tokens"),
        output_tokens=count(usage, "output_tokens"),
        cached_input_tokens=count(usage, "input_token_details", "cached_tokens"),
        reasoning_tokens=count(usage, "output_token_details", "reasoning_tokens"),
    )


def _stop_of(done: dict[str, Any], error: object) -> Stop | None:
    if text_at(done, "status_details", "reason") == "content_filter":
        return "policy"
    return stop_of(error)
