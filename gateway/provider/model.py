"""What was asked of a provider and what came back, read from bytes into facts.

A dialect knows one wire format. It opens no socket and keeps no state but its readers'.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec


class Operation(enum.StrEnum):
    """What is asked of a provider."""

    CHAT = "chat"
    """A conversation is continued: OpenAI chat completions, Anthropic messages."""
    OPAQUE = "opaque"
    """Anything that no reader here understands; digested, never trainable."""


class ProviderCall(msgspec.Struct, frozen=True, kw_only=True):
    """A request as its dialect reads it; *body* is the parsed JSON where it was readable."""

    provider: str
    operation: Operation
    model: str | None = None
    streaming: bool = False
    features: frozenset[str] = frozenset()
    """What else the request asks for: `tools`, `reasoning`, `images`, `logprobs`, `n`."""
    fallbacks: tuple[str | None, ...] = ()
    """Other models that may answer instead, by the request's own leave; `None`: any."""
    body: dict[str, Any] | None = None

    def __repr__(self) -> str:
        """Return what it is, and no word of what was said."""
        return f"ProviderCall({self.provider}, {self.operation}, {self.model})"


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a tool that the model asks for; *arguments* is the JSON text as sent."""

    id: str
    name: str
    arguments: str


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One answer among the *n* that were asked for; *text* holds its visible words, joined."""

    index: int
    text: str = ""
    reasoning: tuple[str, ...] = ()
    """Reasoning or thinking blocks, in order, as the provider chose to show them."""
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None
    finish_reason: str | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts as the provider reported them; `None` where it said nothing."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as far as it came; *whole* only if the format's own end was seen."""

    readable: bool
    whole: bool
    id: str | None = None
    model: str | None = None
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    error: str | None = None
    """The provider's own name for what went wrong (`overloaded_error`)."""


class AnswerReader(Protocol):
    """Reads one answer as its bytes arrive (content-encoding already undone)."""

    def feed(self, chunk: bytes) -> int:
        """Take the next bytes; return how many of all bytes so far may go out unsealed.

        For a stream that is everything before the newest content event; for a body that is
        held whole it is 0. The number never falls.
        """
        ...

    def finish(self) -> Answer:
        """Return what was read; called once, at the end or where the answer broke off."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a caller is told when the gateway itself answers, in any dialect."""

    status: int
    code: str
    """Dotted, stable: `use.forbidden`, `use.held`, `declaration.malformed`, …"""
    message: str
    exchange: str | None = None
    reasons: tuple[Mapping[str, Any], ...] = ()
    """JSON-ready: clause, policy, because, citation, change (what would change it)."""
    next_step: str | None = None
    sentences: tuple[str, ...] = ()
    """The ruling in sentences, as `gateway policy explain` says it."""


class UnteachableError(ValueError):
    """An exchange that has no form as a training row; the message is a stable reason code."""


class Dialect(Protocol):
    """One wire format."""

    name: str

    def reads(self, method: str, path: str) -> bool:
        """Tell whether a request there is one whose body is read; others stay opaque."""
        ...

    def read_request(
        self, provider: str, method: str, path: str, content_type: str, body: bytes | None
    ) -> ProviderCall:
        """Return what is asked; *path* excludes the provider's prefix and the query.

        *body* is `None` where it was too large to hold: then the call is opaque. What this
        dialect has no reader for is opaque too.

        Raises:
            MalformedBodyError: an operation that is read here has a body that can't be.
        """
        ...

    def answer_reader(self, call: ProviderCall, status: int, content_type: str) -> AnswerReader:
        """Return a reader for the answer to *call*."""
        ...

    def row_of(self, call: ProviderCall, choice: Choice) -> dict[str, Any]:
        """Return `{"messages": […]}` (and `tools`) in OpenAI's shape, the answer last.

        Raises:
            UnteachableError: the exchange holds something that no row can carry.
        """
        ...

    def problem_body(self, problem: Problem) -> bytes:
        """Return the JSON error object that this dialect's SDK turns into its exception."""
        ...

    def credential_of(self, headers: Mapping[str, str], query: str) -> str | None:
        """Return the key where the SDK puts it, or `None`; header names are lower case."""
        ...

    def credential_header(self, secret: str) -> tuple[str, str]:
        """Return the header (lower-case name, value) that carries *secret* upstream."""
        ...

    CREDENTIAL_HEADERS: frozenset[str]
    """Lower-case names of the headers in which a caller's key may come."""
