"""OpenAI's responses over WebSocket: each message of the caller is a request.

The events of its answer are those that a stream over HTTP has, so what reads that stream reads
them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import orjson

from gateway.limits import BODY_BYTES_HELD_MAX
from gateway.live.talk import PartDigest, Turn, object_of, text_at, with_more
from gateway.provider import dialect
from gateway.provider.model import Answer, AnswerReader, Dialect, Found, ProviderCall

_LAST: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "error"}
)
_ASKS: Final = "response.create"
_REQUESTS_WAITING_MAX: Final = 64


class ResponsesTalk:
    """One session; answers follow on each other."""

    def __init__(self, call: ProviderCall, spoken: Dialect, path: str) -> None:
        self._call = call
        self._dialect = spoken
        self._found: Found = spoken.found("POST", path)
        self._wanted = call
        self._next: tuple[bytes, ProviderCall] | None = None
        self._waiting: list[tuple[bytes, ProviderCall]] = []
        self._turn: _Response | None = None
        self._model: str | None = None
        self._unread = False

    def wanted(self, message: bytes) -> ProviderCall:
        """Return what is asked for from *message* on; see `Talk.wanted`."""
        said = dialect.json_object(message)
        self._next = None
        call = self._call
        if said.pop("type", None) == _ASKS:
            # Some clients put the request under a key of its own.
            inner = said.get("response")
            body = inner if isinstance(inner, dict) else said
            asked = self._dialect.read_request(
                call.provider, self._found, "application/json", orjson.dumps(body)
            )
            self._next = message, asked
            call = with_more(
                call,
                model=asked.model,
                features=asked.features,
                fallbacks=tuple(model for model in asked.fallbacks if model is not None),
            )
            if None in asked.fallbacks and None not in call.fallbacks:
                call = msgspec.structs.replace(call, fallbacks=(*call.fallbacks, None))
            call = msgspec.structs.replace(call, uses=asked.uses)
        self._wanted = call
        return call

    @property
    def asks(self) -> bool:
        """Whether the message that was just read is a request."""
        return self._next is not None

    def passed(self) -> None:
        """Take note that the message that was just read goes on."""
        self._call = self._wanted
        if self._next is not None and len(self._waiting) < _REQUESTS_WAITING_MAX:
            self._waiting.append(self._next)
        self._next = None

    def hear(self, message: bytes) -> Sequence[Turn]:
        """Take a message of the provider; see `Talk.hear`."""
        event = object_of(message)
        kind = text_at(event, "type")
        self._unread |= not kind
        if self._turn is None:
            if not kind.startswith("response.") and kind != "error":
                return ()
            request, asked = self._waiting.pop(0) if self._waiting else (b"", self._call)
            reader = self._dialect.answer_reader(asked, 200, "text/event-stream")
            self._turn = _Response(request, self._call, reader)
        turn = self._turn
        turn.take(message)
        if kind not in _LAST:
            return ()
        self._turn = None
        self._model = turn.answer().model or self._model
        return (turn,)

    def under_way(self) -> Sequence[Turn]:
        """Return the answer that has begun and not ended."""
        return () if self._turn is None else (self._turn,)

    def between(self) -> Answer:
        """Return the model that answered last."""
        return Answer(readable=not self._unread, whole=True, model=self._model)


class _Response:
    """One answer, read as a stream."""

    def __init__(self, request: bytes, call: ProviderCall, reader: AnswerReader) -> None:
        self.request = request
        self.call = call
        self.digest = PartDigest()
        self._reader = reader
        self._answer: Answer | None = None

    def take(self, message: bytes) -> None:
        """Take one event."""
        self.digest.add(message)
        if self.digest.bytes <= BODY_BYTES_HELD_MAX:
            line = message.replace(b"\r", b" ").replace(b"\n", b" ")
            self._reader.feed(b"data: " + line + b"\n\n")

    def answer(self) -> Answer:
        """Return the response as far as it came."""
        if self._answer is None:
            answer = self._reader.finish()
            if self.digest.bytes > BODY_BYTES_HELD_MAX:
                answer = Answer(readable=False, whole=False)
            self._answer = answer
        return self._answer
