"""OpenAI's batches: a file of requests, a batch made of it, files of answers and of errors.

From the API reference, "Batch": "The request input object" and "The request output object".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.provider.batch import BatchLine, Handing, LineError, ResultLine, Unseen
from gateway.provider.model import ProviderCall, Resource

_FILES: Final = Handing(form="form-part", part="file", only=("purpose", "batch"))


class _Request(msgspec.Struct, gc=False):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Response(msgspec.Struct, gc=False):
    status_code: int | None = None
    request_id: Any = None
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Result(msgspec.Struct, gc=False):
    custom_id: str
    response: _Response | None = None
    error: Any = None


_request: Final = msgspec.json.Decoder(_Request).decode
_result: Final = msgspec.json.Decoder(_Result).decode


class OpenAIBatches:
    """Batches as OpenAI has them, and all who took them over."""

    def handing(self, call: ProviderCall, headers: Mapping[str, str]) -> Handing | None:
        """Return how *call* hands lines in: as a file, where its purpose is a batch."""
        return _FILES if _is(call, "POST", "/files") else None

    def begun(self, call: ProviderCall) -> Resource | None:
        """Return the file that *call* begins a batch of."""
        if not _is(call, "POST", "/batches"):
            return None
        named = (call.body or {}).get("input_file_id")
        return Resource("file", named if isinstance(named, str) else "")

    def asked_at(self, call: ProviderCall) -> str | None:
        """Return nothing: each line says where it asks."""
        return None

    def results(self, call: ProviderCall) -> Resource | None:
        """Return the file whose content *call* fetches."""
        if call.found is None or not _is(call, "GET", "/files/{file}/content"):
            return None
        return call.found.names[0]

    def refused(self, call: ProviderCall) -> Unseen | None:
        """Return why an upload in parts is refused: no part of it is a line."""
        purpose = (call.body or {}).get("purpose")
        if _is(call, "POST", "/uploads") and purpose == "batch":
            return Unseen(
                "a batch is not taken in parts",
                "send it whole with `POST /v1/files` and `purpose=batch`",
                "batch.in_parts",
            )
        return None

    def read_line(self, call: ProviderCall, content: bytes) -> BatchLine:
        """Return what one line asks for.

        Raises:
            LineError: it can't be read.
        """
        try:
            asked = _request(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
            raise LineError("is no request with custom_id, method, url and body") from wrong
        path, _, query = asked.url.partition("?")
        return BatchLine(
            custom_id=asked.custom_id,
            method=asked.method,
            path=path,
            query=query,
            body=bytes(asked.body),
        )

    def read_result(self, content: bytes) -> ResultLine | None:
        """Return what one line of an output or error file says."""
        try:
            told = _result(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        answered = told.response
        if answered is None or answered.status_code is None:
            return ResultLine(custom_id=told.custom_id, error=_error_of(told.error))
        request_id = answered.request_id
        return ResultLine(
            custom_id=told.custom_id,
            status=answered.status_code,
            request_id=request_id if isinstance(request_id, str) else None,
            body=bytes(answered.body),
            error=None if told.error is None else _error_of(told.error),
        )

    def answers_in(self, call: ProviderCall, document: bytes) -> list[bytes] | None:
        """Return nothing: results are lines."""
        return None


def _error_of(error: object) -> str:
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) and code else "batch_error"


def _is(call: ProviderCall, method: str, path: str) -> bool:
    found = call.found
    return found is not None and found.route.path == path and method in found.route.methods
