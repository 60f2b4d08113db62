"""What operators see while it runs: one JSON object a line, events from a closed list.

The log may be lost; the ledger is the evidence. Never prompt or answer text, never a
credential: fields whose names could carry one are redacted whatever their value.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO, cast

import orjson
import structlog

from gateway.clock import SystemClock, rfc3339
from gateway.limits import (
    FRAMES_LOGGED_MAX,
    LOG_BYTES_WAITING_MAX,
    LOG_WAIT_S,
    PIPE_BYTES_AT_ONCE,
)

EVENTS: Final[dict[str, str]] = {
    "gateway.started": "the door is open; says where, and which ledger and policies are used",
    "gateway.stopped": "the door is closed; says how many exchanges had to be left",
    "worker.started": "one of several doors is open",
    "worker.stopped": "one of several doors is closed; says how many exchanges had to be left",
    "worker.ended": "a door's process ended unasked; its exchanges are closed as abandoned",
    "sequencer.started": "the process that writes the ledger for all doors takes statements",
    "sequencer.ended": "that process ended unasked; until it is back every door refuses",
    "sequencer.lost": "a door has lost that process; what waited for it may be written or not",
    "provider.unreachable": "a provider could not be connected to; says why, in one line",
    "exchange.sealed": "an exchange ended and its closing statement is durable",
    "exchange.broken": "a bug of ours broke an exchange; it is closed as abandoned",
    "exchange.recovered": "openings that a crash had left were closed as abandoned",
    "receipt_key.renewed": "the process signs with another receipt key; the old one has ended",
    "receipt_key.kept": "no other receipt key could be taken, the old one stays; tried again",
    "receipt_key.not_ended": "the end of a receipt key could not be written; at the next start",
    "receipt_key.ended": "keys of processes that are gone have ended; says how many",
    "limit.reached": "a request was refused, for a limit was reached; says which, and how far",
    "resource.refused": "somebody asked a provider for what belongs to another, or to nobody",
    "ledger.unwell": "a statement could not be written; callers are refused until it can be",
    "ledger.failed": "the ledger's durable state is unknown; the process must end",
    "ledger.unread": "another process wrote a leaf that can't be read here; the rest counts",
    "policies.loaded": "a policy library is in force",
    "policies.kept_old": "newer policies don't load, the old ones stay; legal must act",
    "content.erased": "texts were erased that the terms let nobody keep any longer",
    "content.kept_too_long": "texts whose days are over could not be erased; tried again",
    "checkpoint.unwitnessed": "a witness has not cosigned the newest checkpoint; says why",
    "checkpoint.unchecked": "started on the operator's word, as too few witnesses answer",
    "checkpoint.copy_behind": "a copy of the checkpoint can't be written; tried again",
    "checkpoint.copy_new": "a copy was not there, so the ledger was not compared with it",
    "checkpoint.unstamped": "a checkpoint's timestamp is overdue; tried again",
    "checkpoint.well": "what was wrong with publishing checkpoints is right again",
    "witness.started": "a witness answers; says where, and what its vkey is",
    "witness.cosigned": "a witness cosigned a log's checkpoint; its size is durable there",
    "witness.contradicted": "a log signed what contradicts its past; the note is the evidence",
    "witness.unwell": "a witness can't read or keep what it cosigned, and cosigns nothing",
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
    for name in _secrets_among(tuple(event)):
        event[name] = "[redacted]"
    return event


@functools.lru_cache(maxsize=1024)
def _secrets_among(names: tuple[str, ...]) -> tuple[str, ...]:
    # One kind of event has the same names every time.
    return tuple(name for name in names if any(word in name.lower() for word in _SECRET))


def _stamp(
    _: Any, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    event["level"] = method
    event["at"] = rfc3339(_CLOCK.now_ms())
    return event


class Lines:
    """Writes lines a few at a time: at once if they matter, else when a page is full or soon.

    A system call for each exchange's line would cost more than making the line.
    """

    def __init__(self, out: BinaryIO, at_once_max: int | None = None) -> None:
        self._out = out
        self._at_once_max = at_once_max
        self._lock = threading.Lock()
        # OWNED BY: whoever holds the lock.
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._begun = threading.Event()
        self._flusher: threading.Thread | None = None

    def info(self, line: bytes) -> None:
        """Write *line* with the next page."""
        with self._lock:
            self._waiting.append(line)
            self._bytes += len(line)
            if self._bytes > LOG_BYTES_WAITING_MAX:
                self._write()
            elif len(self._waiting) == 1:
                self._begun.set()
                if self._flusher is None:
                    self._flusher = threading.Thread(target=self._flush_soon, daemon=True)
                    self._flusher.start()

    debug = info

    def warning(self, line: bytes) -> None:
        """Write *line* now, and what waits before it."""
        with self._lock:
            self._waiting.append(line)
            self._write()

    error = critical = exception = msg = warning

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            self._write()

    def _flush_soon(self) -> None:
        """Write each page that was begun a while ago; the thread's whole work."""
        while self._begun.wait():
            self._begun.clear()
            time.sleep(LOG_WAIT_S)
            self.flush()

    def _write(self) -> None:
        lines, self._waiting, self._bytes = self._waiting, [], 0
        # The disk is full, or whoever read us is gone: then the log is lost, and no more.
        with contextlib.suppress(OSError, ValueError):
            for page in _pages(lines, self._at_once_max):
                self._out.write(page)
                self._out.flush()


def _pages(lines: list[bytes], at_once_max: int | None) -> Iterator[bytes]:
    """Yield whole lines, as many at a time as may be written at once."""
    page: list[bytes] = []
    size = 0
    for line in lines:
        if page and at_once_max is not None and size + len(line) >= at_once_max:
            yield b"\n".join([*page, b""])
            page, size = [], 0
        page.append(line)
        size += len(line) + 1
    if page:
        yield b"\n".join([*page, b""])


def frames(broken: BaseException) -> list[str]:
    """Return where *broken* was raised, outermost first, and no word of what it says.

    What a bug says may be made of anything: of a key, or of a prompt.
    """
    found = traceback.extract_tb(broken.__traceback__)
    return [
        f"{'/'.join(Path(one.filename).parts[-2:])}:{one.lineno} {one.name}"
        for one in found[-FRAMES_LOGGED_MAX:]
    ]


Logger = structlog.typing.FilteringBoundLogger
"""What everybody is handed who may log."""


def build_logger(level: str, stream: TextIO | None = None, *, shared: bool = False) -> Logger:
    """Return the logger of a process: JSON lines, or words where *stream* is a terminal.

    *shared*: other processes write there too; what is written at once then stays in one piece.
    """
    out = stream or sys.stdout
    first: list[structlog.typing.Processor] = [_stamp, redact]
    if out.isatty():
        render: structlog.typing.Processor = structlog.dev.ConsoleRenderer(
            timestamp_key="at", pad_event_to=20
        )
        factory: Any = structlog.PrintLoggerFactory(file=out)
    elif hasattr(out, "buffer"):
        render = structlog.processors.JSONRenderer(serializer=_dumps)
        lines = Lines(out.buffer, PIPE_BYTES_AT_ONCE if shared else None)
        atexit.register(lines.flush)
        factory = lambda *_: lines  # noqa: E731  structlog asks for a function
    else:
        render = structlog.processors.JSONRenderer()
        factory = structlog.PrintLoggerFactory(file=out)
    return cast(
        Logger,
        structlog.wrap_logger(
            factory(),
            processors=[*first, render],
            wrapper_class=_straight(structlog.make_filtering_bound_logger(_LEVELS[level])),
        ).bind(),
    )


def _straight(wrapper: type[Any]) -> type[Any]:
    """Return *wrapper* without what binding context costs each line: none is ever bound."""

    class Straight(wrapper):  # type: ignore[misc]  # structlog makes the class at run time
        def _proxy_to_logger(
            self, method_name: str, event: str | None = None, **fields: Any
        ) -> Any:
            line: Any = fields
            line["event"] = event
            for processor in self._processors:
                line = processor(self._logger, method_name, line)
            return getattr(self._logger, method_name)(line)

    return Straight


def _dumps(event: Any, **_: Any) -> bytes:
    try:
        return orjson.dumps(event, default=str)
    except TypeError:
        # A stranger's text that is not Unicode, or a number without end.
        return orjson.dumps(
            {
                name: str(value).encode("utf-8", "replace").decode()
                for name, value in event.items()
            }
        )
