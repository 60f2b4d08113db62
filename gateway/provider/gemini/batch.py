"""Gemini's batches: requests inline or in an uploaded file, answers inline or in another file.

Written after https://ai.google.dev/gemini-api/docs/batch-api and https://ai.google.dev/api/files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from gateway.provider.batch import BatchLine, Handing, LineError, ResultLine, Unseen
from gateway.provider.gemini.routes import (
    BATCH,
    CHANGE_BATCHES,
    COMPATIBLE,
    CREATE_BATCHES,
    CREATE_FILES,
    DOWNLOADS,
)
from gateway.provider.model import ProviderCall, Resource

_INLINE: Final = Handing(
    form="array",
    array=(
        frozenset({"batch"}),
        frozenset({"inputConfig", "input_config"}),
        frozenset({"requests"}),
        frozenset({"requests"}),
    ),
    begins=True,
)
_VERBS: Final = {
    "batchGenerateContent": "generateContent",
    "asyncBatchEmbedContent": "embedContent",
}
_LATER: Final = "/v1beta/models/-:generateContent"
"""Where a line asks whose model is not known yet."""
_OPENAI: Final = "/batches"
"""Where a batch begins in OpenAI's shape."""
_WHOLE: Final = frozenset({"upload", "finalize"})


class _Request(msgspec.Struct, gc=False):
    request: msgspec.Raw
    key: str | None = None
    metadata: Any = None


class _Result(msgspec.Struct, gc=False):
    response: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None
    key: str | None = None


class _Answers(msgspec.Struct, gc=False, rename="camel"):
    inlined_responses: list[msgspec.Raw] | None = None


class _Output(msgspec.Struct, gc=False, rename="camel"):
    inlined_responses: _Answers | None = None
    inlined_embed_content_responses: _Answers | None = None


class _Metadata(msgspec.Struct, gc=False):
    output: _Output | None = None


class _Operation(msgspec.Struct, gc=False):
    response: _Output | None = None
    metadata: _Metadata | None = None


_request: Final = msgspec.json.Decoder(_Request).decode
_result: Final = msgspec.json.Decoder(_Result).decode
_operation: Final = msgspec.json.Decoder(_Operation).decode
_UNREAD: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class GeminiBatches:
    """Batches of generated content and of embeddings."""

    def handing(self, call: ProviderCall, headers: Mapping[str, str]) -> Handing | None:
        """Return how *call* hands requests in: inline, or as the bytes of a file of lines."""
        found = call.found
        if found is None:
            return None
        if found.route in CREATE_BATCHES:
            return _INLINE
        if found.route not in CREATE_FILES or "jsonl" not in _kind_of(headers):
            return None
        upload = parse_qs(found.query).get("upload_id")
        command = _command_of(headers)
        if upload is None and not command:
            return Handing(form="lines")
        if upload is None or "upload" not in command:
            return None
        return Handing(
            form="lines",
            upload=Resource("upload", upload[0]),
            first=headers.get("x-goog-upload-offset", "0").strip() == "0",
            last=command >= _WHOLE,
        )

    def begun(self, call: ProviderCall) -> Resource | None:
        """Return the file that *call*, whose body was read, begins a batch of."""
        batch = (call.body or {}).get("batch")
        given = _any(batch, "inputConfig", "input_config")
        named = _any(given, "fileName", "file_name")
        if not isinstance(named, str):
            return None
        return Resource("file", named.removeprefix("files/"))

    def asked_at(self, call: ProviderCall) -> str | None:
        """Return the path at which the lines ask: of the model that the batch is of."""
        path = "" if call.found is None else call.found.path
        model, _, verb = path.rpartition(":")
        return f"{model}:{_VERBS[verb]}" if verb in _VERBS else None

    def results(self, call: ProviderCall) -> Resource | None:
        """Return the batch, or the file, whose answers *call* fetches."""
        found = call.found
        if found is None or not (found.route is BATCH or found.route in DOWNLOADS):
            return None
        return found.names[0]

    def refused(self, call: ProviderCall) -> Unseen | None:
        """Return why requests are not exchanged for others, nor handed in in OpenAI's shape."""
        found = call.found
        if found is None:
            return None
        if found.route in CHANGE_BATCHES:
            return Unseen(
                "a batch could be given other requests than those that were judged",
                "cancel it, and begin another",
                "batch.unjudged",
            )
        begins = found.route.path == _OPENAI and "POST" in found.route.methods
        if begins and COMPATIBLE.match(found.path):
            # Its file may be of lines that were read in Google's shape.
            return Unseen(
                "batches in OpenAI's shape are not judged here",
                "begin it with `batchGenerateContent`",
                "batch.unjudged",
            )
        return None

    def read_line(self, call: ProviderCall, content: bytes) -> BatchLine:
        """Return what one request asks for, of the model that the path names.

        Raises:
            LineError: it can't be read.
        """
        try:
            asked = _request(content)
        except _UNREAD as wrong:
            raise LineError("is no request with its `request`") from wrong
        path = self.asked_at(call)
        inline = path is not None
        name = asked.key if not inline else _any(asked.metadata, "key")
        if not inline and name is None:
            raise LineError("has no `key`")
        return BatchLine(
            custom_id=name if isinstance(name, str) else None,
            by_place=inline,
            method="POST",
            path=path or _LATER,
            model_later=path is None,
            body=bytes(asked.request),
        )

    def read_result(self, content: bytes) -> ResultLine | None:
        """Return what one answer says, of a file or of those that stand in a batch."""
        try:
            told = _result(content)
        except _UNREAD:
            return None
        body = bytes(told.response)
        if body:
            return ResultLine(custom_id=told.key, status=200, body=body)
        return ResultLine(custom_id=told.key, error=_error_of(told.error))

    def answers_in(self, call: ProviderCall, document: bytes) -> list[bytes] | None:
        """Return the answers that a batch holds itself, in the order of its requests."""
        if call.found is None or call.found.route is not BATCH:
            return None
        try:
            told = _operation(document)
        except _UNREAD:
            return []
        output = told.response or (None if told.metadata is None else told.metadata.output)
        if output is None:
            return []
        held = output.inlined_responses or output.inlined_embed_content_responses
        return [bytes(one) for one in (held and held.inlined_responses) or ()]


def _any(value: object, *names: str) -> Any:
    """Return the first of *names* that *value* has."""
    if not isinstance(value, dict):
        return None
    return next((value[name] for name in names if name in value), None)


def _command_of(headers: Mapping[str, str]) -> frozenset[str]:
    said = headers.get("x-goog-upload-command", "")
    return frozenset(part.strip().lower() for part in said.split(",") if part.strip())


def _kind_of(headers: Mapping[str, str]) -> str:
    told = headers.get("x-goog-upload-header-content-type") or headers.get("content-type", "")
    return told.lower()


def _error_of(error: object) -> str:
    status = _any(error, "status", "code")
    return str(status) if status is not None else "error"
