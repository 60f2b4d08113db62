"""Reads generated content: candidates and their parts, whole or as they are streamed.

Written after https://ai.google.dev/api/generate-content. Every part is a unit of output. Where
a stream continues a text, a thought or a sound, the pieces are one unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from gateway.provider import dialect
from gateway.provider.gemini.errors import error_of, stop_of
from gateway.provider.model import (
    Answer,
    Choice,
    Shown,
    Stop,
    ToolCall,
    Unit,
    UnitKind,
    Usage,
)
from gateway.provider.readers import NonsenseError
from gateway.provider.units import base64_unit, json_unit, pieces_unit, raw_unit

FILTERED: Final = frozenset(
    {
        "BLOCKLIST",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "IMAGE_SAFETY",
        "JAILBREAK",
        "LANGUAGE",
        "MODEL_ARMOR",
        "PROHIBITED_CONTENT",
        "PUP_LIMITED_DISABLED",
        "RECITATION",
        "SAFETY",
        "SPII",
    }
)
"""Finish reasons by which the provider takes out what its policy does not allow."""


class _Call(msgspec.Struct, gc=False, rename="camel"):
    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = msgspec.Raw()
    partial_args: Any = None
    will_continue: bool | None = None


class _Blob(msgspec.Struct, gc=False, rename="camel"):
    mime_type: str = ""
    data: str = ""
    display_name: Any = None


class _Part(msgspec.Struct, gc=False, rename="camel"):
    """What a part may hold; of its data, one."""

    text: str | None = None
    thought: bool | None = None
    function_call: _Call | None = None
    inline_data: _Blob | None = None
    file_data: dict[str, Any] | None = None
    executable_code: dict[str, Any] | None = None
    code_execution_result: dict[str, Any] | None = None
    tool_call: dict[str, Any] | None = None
    tool_response: dict[str, Any] | None = None


class _KnownPart(_Part, gc=False, rename="camel", forbid_unknown_fields=True):
    """A part that holds nothing of which nobody here has heard; these are no output."""

    thought_signature: Any = None
    video_metadata: Any = None
    media_resolution: Any = None
    part_metadata: Any = None


class _Content(msgspec.Struct, gc=False):
    parts: list[msgspec.Raw] | None = None


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    index: int = 0
    content: _Content | None = None
    finish_reason: str | None = None
    grounding_metadata: dict[str, Any] | None = None
    citation_metadata: dict[str, Any] | None = None
    url_context_metadata: dict[str, Any] | None = None


class _Feedback(msgspec.Struct, gc=False, rename="camel"):
    block_reason: str | None = None


class _Response(msgspec.Struct, gc=False, rename="camel"):
    """A whole body, or one of the responses of a stream; nothing else of it is read."""

    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: Any = None
    model_version: Any = None
    response_id: Any = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_Response).decode
_decode_part: Final = msgspec.json.Decoder(_Part).decode
_decode_known_part: Final = msgspec.json.Decoder(_KnownPart).decode


def shown_of(thoughts: Iterable[str]) -> Shown | None:
    """Return thoughts as they are shown: Google's interface gives summaries of them."""
    text = "\n\n".join(filter(None, thoughts))
    return Shown(text, is_summary=True) if text else None


class _Sound:
    """Sound as it grows: the pieces of a stream are one."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []


class _HeardCandidate:
    """One candidate as it grows."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.finish_reason: str | None = None
        self.metadata: dict[str, dict[str, Any]] = {}
        """What its words rest on; the newest counts."""
        self._text: list[str] = []
        self._thoughts: list[list[str]] = []
        self._thinking = False
        self._calls: list[ToolCall] = []
        self._others: list[Unit | _Sound] = []

    def hear(self, raw: bytes) -> bool:
        """Take in a part; tell whether it carries content."""
        try:
            part: _Part = _decode_known_part(raw)
        except msgspec.ValidationError:
            part = _decode_part(raw)
            self._others.append(raw_unit("other", self.index, raw))
            self._hear_words(part)
            return True
        return self._hear_words(part) or self._hear_others(part, raw)

    def choice(self) -> Choice:
        """Return what was heard."""
        rests_on = [
            json_unit("tool-result", self.index, self.metadata[name])
            for name in ("grounding_metadata", "url_context_metadata")
            if self.metadata.get(name)
        ]
        return Choice(
            index=self.index,
            text="".join(self._text),
            reasoning=tuple("".join(thought) for thought in self._thoughts),
            shown=shown_of("".join(thought) for thought in self._thoughts),
            tool_calls=tuple(self._calls),
            finish_reason=self.finish_reason,
            others=(
                *(
                    pieces_unit("audio", self.index, other.pieces)
                    if isinstance(other, _Sound)
                    else other
                    for other in self._others
                ),
                *rests_on,
            ),
        )

    def _hear_words(self, part: _Part) -> bool:
        """Take in text or a thought."""
        if not part.text:
            return False
        if not part.thought:
            self._thinking = False
            self._text.append(part.text)
        elif self._thinking:
            self._thoughts[-1].append(part.text)
        else:
            self._thinking = True
            self._thoughts.append([part.text])
        return True

    def _hear_others(self, part: _Part, raw: bytes) -> bool:
        """Take in a call, bytes, or what the provider ran itself."""
        if part.function_call is not None:
            self._hear_call(part.function_call, raw)
        elif part.inline_data is not None:
            self._hear_bytes(part.inline_data)
        elif part.code_execution_result is not None or part.tool_response is not None:
            self._others.append(raw_unit("tool-result", self.index, raw))
        elif part.file_data is not None:
            uri = part.file_data.get("fileUri")
            self._others.append(json_unit("link", self.index, uri))
        elif part.executable_code is not None or part.tool_call is not None:
            self._others.append(raw_unit("other", self.index, raw))
        else:
            # Nothing but a signature, or nothing at all.
            return False
        self._thinking = False
        return True

    def _hear_call(self, call: _Call, raw: bytes) -> None:
        if call.partial_args is not None or call.will_continue:
            # Arguments in pieces: no call is whole in any of them.
            self._others.append(raw_unit("other", self.index, raw))
            return
        arguments = dialect.raw_text(call.args) or "{}"
        self._calls.append(
            ToolCall(id=call.id or "", name=call.name or "", arguments=arguments)
        )

    def _hear_bytes(self, blob: _Blob) -> None:
        if not blob.mime_type.startswith("audio/"):
            kind: UnitKind = "image" if blob.mime_type.startswith("image/") else "other"
            self._others.append(base64_unit(kind, self.index, blob.data))
            return
        last = self._others[-1] if self._others else None
        if not isinstance(last, _Sound) or last.kind != blob.mime_type:
            last = _Sound(blob.mime_type)
            self._others.append(last)
        last.pieces.append(blob.data)


class ContentListener:
    """Hears the responses of one stream."""

    def __init__(self, expected: int = 1) -> None:
        self._expected = expected
        self._heard: dict[int, _HeardCandidate] = {}
        self._block_reason: str | None = None
        self._usage: Any = None
        self._id: str | None = None
        self._model: str | None = None
        self._error: object = None

    def hear(self, data: bytes) -> bool:
        """Take one response; tell whether it carries content."""
        return self.take(_decode(data))

    def take(self, response: _Response) -> bool:
        """Take in a decoded response; tell whether it carries content."""
        if isinstance(response.response_id, str) and self._id is None:
            self._id = response.response_id
        if isinstance(response.model_version, str):
            self._model = response.model_version
        if response.usage_metadata is not None:
            self._usage = response.usage_metadata
        if response.prompt_feedback is not None:
            self._block_reason = response.prompt_feedback.block_reason or self._block_reason
        if response.error is not None:
            self._error = response.error
        content = False
        for candidate in response.candidates or ():
            content = self._hear_candidate(candidate) or content
        return content

    @property
    def ending(self) -> bool:
        """Whether a candidate is finished, the prompt was blocked, or an error has come."""
        return (
            self._block_reason is not None
            or self._error is not None
            or any(heard.finish_reason for heard in self._heard.values())
        )

    def answer(self) -> Answer:
        """Return what was heard; whole once every candidate is finished, or none will come."""
        candidates = [heard for _, heard in sorted(self._heard.items())]
        filtered = any(heard.finish_reason in FILTERED for heard in candidates)
        blocked = self._block_reason is not None
        stop: Stop | None = "policy" if blocked or filtered else None
        finished = len(candidates) >= self._expected and all(
            heard.finish_reason for heard in candidates
        )
        return Answer(
            readable=True,
            whole=self._error is None and (blocked or finished),
            id=self._id,
            model=self._model,
            choices=tuple(heard.choice() for heard in candidates),
            units=tuple(
                json_unit("other", heard.index, heard.metadata["citation_metadata"])
                for heard in candidates
                if heard.metadata.get("citation_metadata")
            ),
            usage=usage_of(self._usage),
            error=error_of(self._error) or self._block_reason,
            stop=stop_of(self._error) or stop,
        )

    def _hear_candidate(self, candidate: _Candidate) -> bool:
        heard = self._heard.get(candidate.index)
        if heard is None:
            heard = self._heard[candidate.index] = _HeardCandidate(candidate.index)
        if candidate.finish_reason:
            heard.finish_reason = candidate.finish_reason
        content = False
        for name in ("grounding_metadata", "citation_metadata", "url_context_metadata"):
            if said := getattr(candidate, name):
                heard.metadata[name] = said
                content = True
        parts = candidate.content.parts if candidate.content is not None else None
        for part in parts or ():
            content = heard.hear(bytes(part)) or content
        return content


def read_content(body: bytes) -> Answer:
    """Return what a whole *body* says; one that parses has its end.

    Raises:
        NonsenseError: it is no such response.
    """
    response = _decode(body)
    if not any(
        (response.candidates, response.prompt_feedback, response.error, response.usage_metadata)
    ):
        raise NonsenseError("no candidates")
    listener = ContentListener()
    listener.take(response)
    return msgspec.structs.replace(listener.answer(), whole=True)


def usage_of(usage: object) -> Usage | None:
    """Return the counts of *usage*; what the model thought is counted with what it said."""
    if not isinstance(usage, dict):
        return None
    return usage_from(
        usage,
        asked=("promptTokenCount", "toolUsePromptTokenCount"),
        said=("candidatesTokenCount", "thoughtsTokenCount"),
        cached="cachedContentTokenCount",
        thought="thoughtsTokenCount",
    )


def usage_from(
    usage: Mapping[str, Any],
    *,
    asked: tuple[str, ...],
    said: tuple[str, ...],
    cached: str,
    thought: str,
) -> Usage:
    """Return the counts that stand in *usage* under these names, those of each side added."""

    def added(names: tuple[str, ...]) -> int | None:
        counts = [dialect.count_of(usage, name) for name in names]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    return Usage(
        input_tokens=added(asked),
        output_tokens=added(said),
        cached_input_tokens=dialect.count_of(usage, cached),
        reasoning_tokens=dialect.count_of(usage, thought),
    )
