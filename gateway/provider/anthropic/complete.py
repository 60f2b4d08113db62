"""Reads the older completions: one text, whole or as it is streamed.

Written after https://platform.claude.com/docs/en/api/complete.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.provider.anthropic.errors import error_of, stop_of
from gateway.provider.model import Answer, Choice
from gateway.provider.readers import NonsenseError


class _Completion(msgspec.Struct, gc=False):
    """A whole body or an event; whatever else it holds is not read."""

    type: str = ""
    id: Any = None
    model: Any = None
    completion: str | None = None
    stop_reason: str | None = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_Completion).decode


class CompletionListener:
    """Hears the events of one streamed completion."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._id: str | None = None
        self._model: str | None = None
        self._stop_reason: str | None = None
        self._error: object = None

    def hear(self, data: bytes) -> bool:
        """Take one event's data; tell whether it carries content."""
        return self.take(_decode(data))

    def take(self, completion: _Completion) -> bool:
        """Take in a decoded event or body; tell whether it carries content."""
        if isinstance(completion.id, str):
            self._id = completion.id
        if isinstance(completion.model, str):
            self._model = completion.model
        self._stop_reason = completion.stop_reason or self._stop_reason
        if completion.type == "error" or completion.error is not None:
            self._error = completion.error or {}
        if completion.completion:
            self._words.append(completion.completion)
        return bool(completion.completion)

    @property
    def ending(self) -> bool:
        """Whether the completion has stopped, or an error has come."""
        return self._stop_reason is not None or self._error is not None

    def answer(self) -> Answer:
        """Return what was heard; whole once the completion has stopped."""
        refused = self._stop_reason == "refusal"
        choice = Choice(index=0, text="".join(self._words), finish_reason=self._stop_reason)
        return Answer(
            readable=True,
            whole=self._stop_reason is not None and self._error is None,
            id=self._id,
            model=self._model,
            choices=(choice,) if self._id or self._words else (),
            error=error_of(self._error),
            stop=stop_of(self._error) or ("refusal" if refused else None),
        )


def read_completion(body: bytes) -> Answer:
    """Return what a whole *body* says; one that parses has its end."""
    completion = _decode(body)
    if completion.error is None and completion.completion is None:
        raise NonsenseError("no completion")
    listener = CompletionListener()
    listener.take(completion)
    return msgspec.structs.replace(listener.answer(), whole=True)
