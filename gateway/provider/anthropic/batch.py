"""Anthropic's message batches: an array of requests, and their results line by line.

From the API reference, "Create a Message Batch" and "Retrieve Message Batch results".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.provider.batch import BatchLine, Handing, LineError, ResultLine, Unseen
from gateway.provider.model import ProviderCall, Resource

_REQUESTS: Final = Handing(form="array", array=(frozenset({"requests"}),), begins=True)
_CREATE: Final = "/v1/messages/batches"
_RESULTS: Final = "/v1/messages/batches/{batch}/results"


class _Request(msgspec.Struct, gc=False):
    custom_id: str
    params: msgspec.Raw


class _Outcome(msgspec.Struct, gc=False):
    type: str
    message: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None


class _Result(msgspec.Struct, gc=False):
    custom_id: str
    result: _Outcome


_request: Final = msgspec.json.Decoder(_Request).decode
_result: Final = msgspec.json.Decoder(_Result).decode


class AnthropicBatches:
    """Batches of messages."""

    def handing(self, call: ProviderCall, headers: Mapping[str, str]) -> Handing | None:
        """Return how *call* hands requests in: all at once, and the batch begins with it."""
        return _REQUESTS if _is(call, "POST", _CREATE) else None

    def begun(self, call: ProviderCall) -> Resource | None:
        """Return nothing: a batch begins with its requests."""
        return None

    def asked_at(self, call: ProviderCall) -> str | None:
        """Return nothing: each line says where it asks."""
        return None

    def results(self, call: ProviderCall) -> Resource | None:
        """Return the batch whose results *call* fetches."""
        if call.found is None or not _is(call, "GET", _RESULTS):
            return None
        return call.found.names[0]

    def refused(self, call: ProviderCall) -> Unseen | None:
        """Return nothing: there is one way to hand requests in."""
        return None

    def read_line(self, call: ProviderCall, content: bytes) -> BatchLine:
        """Return what one request asks for: a message, like any other.

        Raises:
            LineError: it can't be read.
        """
        try:
            asked = _request(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
            raise LineError("is no request with custom_id and params") from wrong
        return BatchLine(
            custom_id=asked.custom_id,
            method="POST",
            path="/v1/messages",
            query="" if call.found is None else call.found.query,
            body=bytes(asked.params),
        )

    def read_result(self, content: bytes) -> ResultLine | None:
        """Return what one line of the results says."""
        try:
            told = _result(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        outcome = told.result
        if outcome.type == "succeeded" and bytes(outcome.message):
            return ResultLine(custom_id=told.custom_id, status=200, body=bytes(outcome.message))
        return ResultLine(custom_id=told.custom_id, error=_error_of(outcome))

    def answers_in(self, call: ProviderCall, document: bytes) -> list[bytes] | None:
        """Return nothing: results are lines."""
        return None


def _error_of(outcome: _Outcome) -> str:
    """Return the name of the error, or how else the request ended: `canceled`, `expired`."""
    error = outcome.error
    inner = error.get("error") if isinstance(error, dict) else None
    for told in (inner, error):
        kind = told.get("type") if isinstance(told, dict) else None
        if isinstance(kind, str) and kind:
            return kind
    return outcome.type


def _is(call: ProviderCall, method: str, path: str) -> bool:
    found = call.found
    return found is not None and found.route.path == path and method in found.route.methods
