"""Images and sound: made, changed, spoken, written down.

An image is a unit by its decoded bytes, or by its address where only that came; sound that
comes in events is one unit, and so is a transcript.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from gateway.provider.model import Answer, Unit, Usage
from gateway.provider.openai.facts import (
    error_name,
    refused,
    stop_of,
    text_or_none,
    usage_of,
)
from gateway.provider.readers import NonsenseError
from gateway.provider.units import base64_unit, json_unit, pieces_unit


class _Image(msgspec.Struct, gc=False):
    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None


class _Images(msgspec.Struct, gc=False):
    data: list[_Image] | None = None
    usage: Any = None
    model: Any = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    """One event of a stream of images, of sound or of words."""

    type: str = ""
    b64_json: str | None = None
    audio: str | None = None
    delta: str | None = None
    text: str | None = None
    speaker: Any = None
    start: Any = None
    end: Any = None
    usage: Any = None
    model: Any = None
    error: Any = None
    code: Any = None


_decode_images: Final = msgspec.json.Decoder(_Images).decode
_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_object: Final = msgspec.json.Decoder(dict[str, Any]).decode

_TIMED: Final = ("segments", "words", "logprobs")


def read_images(body: bytes) -> Answer:
    """Return the images in *body*."""
    said = _decode_images(body)
    if said.error is not None:
        return refused(said.error)
    if said.data is None:
        raise NonsenseError("no images")
    return Answer(
        readable=True,
        whole=True,
        model=text_or_none(said.model),
        units=tuple(_images(said.data)),
        usage=usage_of(said.usage),
    )


def _images(data: list[_Image]) -> Iterator[Unit]:
    for index, image in enumerate(data):
        if image.b64_json:
            yield base64_unit("image", index, image.b64_json)
        if image.url:
            yield json_unit("link", index, image.url)
        if image.revised_prompt:
            yield json_unit("other", index, image.revised_prompt)


def read_transcript(body: bytes) -> Answer:
    """Return the words in *body*, a JSON object, and where in the sound they are."""
    said = _decode_object(body)
    error = said.get("error")
    if error is not None:
        return refused(error)
    text = said.get("text")
    if not isinstance(text, str):
        raise NonsenseError("no text")
    timed = {name: said[name] for name in _TIMED if said.get(name)}
    units = [json_unit("transcript", 0, text)]
    if timed:
        units.append(json_unit("other", 0, timed))
    return Answer(
        readable=True,
        whole=True,
        model=text_or_none(said.get("model")),
        units=tuple(units),
        usage=heard_usage(said.get("usage"), said.get("duration")),
    )


def read_plain_transcript(body: bytes) -> Answer:
    """Return the words that *body* is: plain, or with times as subtitles have them."""
    return Answer(readable=True, whole=True, units=(json_unit("transcript", 0, body.decode()),))


def heard_usage(usage: object, duration: object = None) -> Usage | None:
    """Return the tokens that were counted, or the seconds of sound, rounded up."""
    seconds = usage.get("seconds") if isinstance(usage, dict) else None
    heard = _whole_seconds(duration if seconds is None else seconds)
    counted = usage_of(usage)
    if heard is None:
        return counted
    return msgspec.structs.replace(counted or Usage(), seconds=heard)


def _whole_seconds(said: object) -> int | None:
    if isinstance(said, bool) or not isinstance(said, (int, float)) or not 0 <= said < 1e9:
        return None
    return -int(-said // 1)


class MediaListener:
    """Hears the events of one stream of images, of sound or of words."""

    def __init__(self) -> None:
        self._images: list[str] = []
        self._sound: list[str] = []
        self._words: list[str] = []
        self._whole_text: str | None = None
        self._segments: list[Any] = []
        self._usage: Any = None
        self._model: str | None = None
        self._done = False
        self._error: object = None

    def hear(self, data: bytes) -> bool:
        """Take one event's data; tell whether it carries content that was not heard yet."""
        try:
            event = _decode_event(data)
        except msgspec.DecodeError:
            if data.startswith(b"[DONE]"):
                self._done = True
                return False
            raise
        self._model = self._model or text_or_none(event.model)
        if event.usage is not None:
            self._usage = event.usage
        if event.error is not None or event.type == "error":
            self._error = event.error or {"code": event.code}
            return False
        content = False
        if event.b64_json:
            self._images.append(event.b64_json)
            content = True
        if event.audio:
            self._sound.append(event.audio)
            content = True
        if event.type.endswith(".segment"):
            self._segments.append([event.speaker, event.start, event.end, event.text])
            content = True
        elif event.delta:
            self._words.append(event.delta)
            content = True
        elif event.text is not None and event.type.endswith(".done"):
            content = not self._words
            self._whole_text = event.text
        if event.type.endswith((".done", ".completed")):
            self._done = True
        return content

    @property
    def ending(self) -> bool:
        """Whether the stream has ended, or an error has come."""
        return self._done or self._error is not None

    def answer(self) -> Answer:
        """Return what was heard; whole once an event has said that it is the last."""
        error = self._error
        return Answer(
            readable=True,
            whole=self._done and error is None,
            model=self._model,
            units=tuple(self._units()),
            usage=heard_usage(self._usage),
            error=None if error is None else error_name(error),
            stop=None if error is None else stop_of(error),
        )

    def _units(self) -> Iterator[Unit]:
        for index, image in enumerate(self._images):
            yield base64_unit("image", index, image)
        if self._sound:
            yield pieces_unit("audio", 0, self._sound)
        if self._whole_text is not None or self._words:
            text = "".join(self._words) if self._whole_text is None else self._whole_text
            yield json_unit("transcript", 0, text)
        if self._segments:
            yield json_unit("other", 0, self._segments)
