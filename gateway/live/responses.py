"""OpenAI's responses over WebSocket: each message of the caller is a request.

The events of its answer are those that a stream over HTTP has, so what reads that stream reads
them too. Requests and answers may run in several lanes, each named by a `stream_id`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
import orjson

from gateway.limits import BODY_BYTES_HELD_MAX, TURNS_UNDER_WAY_MAX
from gateway.live.talk import PartDigest, Turn, object_of, text_at, with_more
from gateway.provider import dialect
from gateway.provider.model import Answer, AnswerReader, Dialect, Found, Operation, ProviderCall
from gateway.provider.openai.facts import named_in

_ASKS: Final = "response.create"
_STEERS: Final = "response.steer."
_LAST: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "error"}
)
_REQUESTS_WAITING_MAX: Final = 64

Asked = tuple[str, bytes, ProviderCall]
"""A request: its lane, its message, and how it reads as one over HTTP."""


class ResponsesTalk:
    """One session; within a lane, answers follow on each other."""

    def __init__(self, call: ProviderCall, spoken: Dialect, path: str) -> None:
        self._call = call
        self._dialect = spoken
        self._found: Found = spoken.found("POST", path)
        self._wanted = call
        self._next: Asked | None = None
        self._waiting: deque[Asked] = deque()
        self._turns: dict[str, _Response] = {}
        self._model: str | None = None
        self._unread = False

    def wanted(self, message: bytes) -> ProviderCall:
        """Return what is asked for from *message* on; see `Talk.wanted`."""
        said = dialect.json_object(message)
        self._next = None
        call = msgspec.structs.replace(self._call, uses=named_in(said))
        if said.pop("type", None) == _ASKS:
            # Some clients put the request under a key of its own.
            inner = said.get("response")
            body = inner if isinstance(inner, dict) else said
            asked = self._dialect.read_request(
                call.provider, self._found, "application/json", orjson.dumps(body)
            )
            self._next = text_at(said, "stream_id"), message, asked
            call = with_more(
                call, model=asked.model, features=asked.features, fallbacks=asked.fallbacks
            )
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
        if kind.startswith(_STEERS) or not (kind.startswith("response.") or kind == "error"):
            return ()
        lane = text_at(event, "stream_id")
        turn = self._turns.get(lane)
        if turn is None:
            turn = self._begin(lane, answers=kind != "error")
            if turn is None:
                return ()
            self._turns[lane] = turn
        turn.take(message)
        if kind not in _LAST:
            return ()
        del self._turns[lane]
        self._model = turn.answer().model or self._model
        return (turn,)

    def _begin(self, lane: str, *, answers: bool) -> _Response | None:
        """Return an answer that begins in *lane*, to the request that has waited longest there.

        Where none waits, the provider goes on by itself; an error is then about no answer.
        """
        waiting = next((one for one in self._waiting if one[0] == lane), None)
        if waiting is None and not answers:
            return None
        if len(self._turns) >= TURNS_UNDER_WAY_MAX:
            self._unread = True
            return None
        request = b""
        asked = msgspec.structs.replace(self._call, operation=Operation.CHAT, found=self._found)
        if waiting is not None:
            self._waiting.remove(waiting)
            _, request, asked = waiting
        reader = self._dialect.answer_reader(asked, 200, "text/event-stream")
        call = msgspec.structs.replace(
            self._call, model=asked.model or self._call.model, features=asked.features
        )
        return _Response(request, call, reader)

    def under_way(self) -> Sequence[Turn]:
        """Return the answers that have begun and not ended."""
        return tuple(self._turns.values())

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
