"""Names what goes wrong as Google does, and tells where it declines to go on.

Written after https://ai.google.dev/gemini-api/docs/troubleshooting and
https://google.aip.dev/193.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from gateway.provider import dialect
from gateway.provider.model import Answer, Problem, Stop
from gateway.provider.readers import NonsenseError

STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""Google's names for statuses."""

_TOO_MANY: Final = 429
_ERROR_INFO: Final = "type.googleapis.com/google.rpc.ErrorInfo"
_STRUCT: Final = "type.googleapis.com/google.protobuf.Struct"

_decode: Final = msgspec.json.Decoder(dict[str, Any] | list[Any]).decode


def error_of(error: object) -> str | None:
    """Return Google's own name for an *error*, if it is one."""
    if error is None:
        return None
    status = error.get("status") if isinstance(error, dict) else None
    return status[:64] if isinstance(status, str) and status else dialect.error_name(error)


def stop_of(error: object) -> Stop | None:
    """Return how an *error* says no, if it does."""
    if not isinstance(error, dict):
        return None
    message = error.get("message")
    said = message.lower() if isinstance(message, str) else ""
    if error.get("status") == "RESOURCE_EXHAUSTED" or error.get("code") == _TOO_MANY:
        daily = any("PerDay" in quota for quota in _quotas_in(error.get("details")))
        return "quota" if daily or "credits" in said or "spending" in said else "rate-limit"
    if error.get("status") == "FAILED_PRECONDITION" and "billing" in said:
        return "quota"
    if error.get("status") == "PERMISSION_DENIED" and "suspended" in said:
        return "policy"
    return None


def read_error(body: bytes) -> Answer:
    """Return what an error's *body* says; where an array was asked for, it is one of an error.

    Raises:
        NonsenseError: it has no such shape.
    """
    told = _decode(body)
    if isinstance(told, list):
        told = told[0] if len(told) == 1 else None
    if not isinstance(told, dict):
        raise NonsenseError("no error")
    error = told.get("error") or {}
    return Answer(readable=True, whole=True, error=error_of(error), stop=stop_of(error))


def problem_body(problem: Problem) -> bytes:
    """Return the error object that Google's SDKs put into their exception."""
    details = dialect.problem_details(problem)
    words = {
        key: details.pop(key) for key in ("exchange", "next_step") if details[key] is not None
    }
    fallback = "INTERNAL" if problem.status >= 500 else "FAILED_PRECONDITION"
    info = {
        "@type": _ERROR_INFO,
        "reason": problem.code,
        "domain": "tos-gateway",
        "metadata": words,
    }
    return orjson.dumps(
        {
            "error": {
                "code": problem.status,
                "message": dialect.problem_sentence(problem),
                "status": STATUSES.get(problem.status, fallback),
                "details": [info, {"@type": _STRUCT, "value": details | words}],
            }
        }
    )


def _quotas_in(details: object) -> list[str]:
    """Return the ids of the quotas that *details* says are used up."""
    found = []
    for detail in details if isinstance(details, list) else ():
        violations = detail.get("violations") if isinstance(detail, dict) else None
        for violation in violations if isinstance(violations, list) else ():
            quota = violation.get("quotaId") if isinstance(violation, dict) else None
            if isinstance(quota, str):
                found.append(quota)
    return found
