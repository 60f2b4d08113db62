"""Names what goes wrong as Anthropic does, and tells where it declines to go on.

Written after https://platform.claude.com/docs/en/api/errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

from gateway.provider import dialect
from gateway.provider.model import Answer, Problem, Stop

ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

_STOPS: Final[Mapping[str, Stop]] = {
    "rate_limit_error": "rate-limit",
    "billing_error": "quota",
}
"""Errors by which the account is told to stop; that servers are overloaded is none."""

_STOPPING_WORDS: Final[tuple[tuple[str, Stop], ...]] = (
    ("credit balance is too low", "quota"),
    ("usage limits", "quota"),
    ("content filtering policy", "policy"),
    ("usage policy", "policy"),
)
"""What the message of a refused request says where its type does not."""


class _Body(msgspec.Struct, gc=False):
    error: Any = None


_decode: Final = msgspec.json.Decoder(_Body).decode


def error_of(error: object) -> str | None:
    """Return Anthropic's own name for an *error*, if it is one."""
    return None if error is None else dialect.error_name(error)


def stop_of(error: object) -> Stop | None:
    """Return how an *error* says no, if it does."""
    if not isinstance(error, dict):
        return None
    kind, message = error.get("type"), error.get("message")
    if isinstance(kind, str) and kind in _STOPS:
        return _STOPS[kind]
    said = message.lower() if isinstance(message, str) else ""
    return next((stop for words, stop in _STOPPING_WORDS if words in said), None)


def read_error(body: bytes) -> Answer:
    """Return what an error's *body* says."""
    error = _decode(body).error
    return Answer(
        readable=True, whole=True, error=dialect.error_name(error), stop=stop_of(error)
    )


def problem_body(problem: Problem) -> bytes:
    """Return the error object that Anthropic's SDK puts into its exception."""
    fallback = "api_error" if problem.status >= 500 else "invalid_request_error"
    return orjson.dumps(
        {
            "type": "error",
            "error": {
                "type": ERROR_TYPES.get(problem.status, fallback),
                "message": dialect.problem_sentence(problem),
                **dialect.problem_details(problem),
            },
            "request_id": problem.exchange,
        }
    )
