"""What operators see while it runs: one JSON object a line, events from a closed list.

The log may be lost; the ledger is the evidence. Never prompt or answer text, never a
credential: fields whose names could carry one are redacted whatever their value.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any, Final, TextIO, cast

import orjson
import structlog

from gateway.clock import SystemClock, rfc3339

EVENTS: Final[dict[str, str]] = {
    "gateway.started": "the door is open; says where, and which ledger and policies are used",
    "gateway.stopped": "the door is closed; says how many exchanges had to be left",
    "exchange.sealed": "an exchange ended and its closing statement is durable",
    "exchange.broken": "a bug of ours broke an exchange; it is closed as abandoned",
    "exchange.recovered": "openings that a crash had left were closed as abandoned",
    "ledger.unwell": "a statement could not be written; callers are refused until it can be",
    "ledger.failed": "the ledger's durable state is unknown; the process must end",
    "policies.loaded": "a policy library is in force",
    "policies.kept_old": "a policy library did not load; the old one stays in force",
    "tokens.uncounted": "no tiktoken vocabulary is at hand; cut answers go uncounted",
}
"""Every event and what it tells; kept equal to `docs/reference/events.md` by a test."""

_CLOCK: Final = SystemClock()
_SECRET: Final = ("authorization", "api_key", "api-key", "credential", "secret", "password")
_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def redact(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Blank out every field whose name could carry a credential."""
    for name in event:
        if _is_secret(name):
            event[name] = "[redacted]"
    return event


@functools.lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    lowered = name.lower()
    return any(word in lowered for word in _SECRET)


def _stamp(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event["at"] = rfc3339(_CLOCK.now_ms())
    return event


Logger = structlog.typing.FilteringBoundLogger
"""What everybody is handed who may log."""


def build_logger(level: str, stream: TextIO | None = None) -> Logger:
    """Return the logger of a process: JSON lines, or words where *stream* is a terminal."""
    out = stream or sys.stdout
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        _stamp,
        redact,
    ]
    if out.isatty():
        render: structlog.typing.Processor = structlog.dev.ConsoleRenderer(
            timestamp_key="at", pad_event_to=20
        )
        factory: Any = structlog.PrintLoggerFactory(file=out)
    elif hasattr(out, "buffer"):
        render = structlog.processors.JSONRenderer(serializer=_dumps)
        factory = structlog.BytesLoggerFactory(file=out.buffer)
    else:
        render = structlog.processors.JSONRenderer()
        factory = structlog.PrintLoggerFactory(file=out)
    return cast(
        Logger,
        structlog.wrap_logger(
            factory(),
            processors=[*shared, render],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
            cache_logger_on_first_use=True,
        ),
    )


def _dumps(event: Any, **_: Any) -> bytes:
    return orjson.dumps(event, default=str)
