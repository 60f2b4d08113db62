"""What was asked of a provider and what came back, read from bytes into facts.

A dialect knows one wire format. It opens no socket and keeps no state but its readers'.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import msgspec

from gateway.ident import Sha256


class Operation(enum.StrEnum):
    """What is asked of a provider."""

    CHAT = "chat"
    """A conversation is continued: chat completions, responses, messages, generated content."""
    COMPLETION = "completion"
    """A text is continued, as older APIs have it."""
    EMBEDDING = "embedding"
    MODERATION = "moderation"
    IMAGE = "image"
    SPEECH = "speech"
    TRANSCRIPTION = "transcription"
    """Speech becomes text, in its own language or in another."""
    TOKEN_COUNT = "token-count"  # noqa: S105  no credential
    FILE = "file"
    """Something is kept with the provider, listed, read or deleted there."""
    BATCH = "batch"
    """Many things are asked at once, to be answered later."""
    RETRIEVAL = "retrieval"
    """What was made before is read again, or for the first time: a stored or later answer."""
    FINE_TUNING = "fine-tuning"
    """A model of the provider is customised inside its own service."""
    SESSION = "session"
    """Both sides talk over one connection."""
    LISTING = "listing"
    """What there is: models and the like."""
    OPAQUE = "opaque"
    """Anything that no reader here understands; digested, never trainable."""


GENERATES: Final = frozenset(
    {
        Operation.CHAT,
        Operation.COMPLETION,
        Operation.EMBEDDING,
        Operation.MODERATION,
        Operation.IMAGE,
        Operation.SPEECH,
        Operation.TRANSCRIPTION,
        Operation.SESSION,
        Operation.FINE_TUNING,
        Operation.OPAQUE,
    }
)
"""Operations by which a model makes something, or might; others only tell, keep or count."""


class Taking(enum.Enum):
    """How the body of a request is taken in."""

    HELD = "held"
    """Whole, and read before anything is forwarded."""
    PASSING = "passing"
    """Digested as it passes; nothing of it is read."""
    JUDGED = "judged"
    """Put aside and read item by item; it leaves only once every item was ruled on."""


class Resource(msgspec.Struct, frozen=True):
    """Something kept with a provider, by its id there: it belongs to who had it made."""

    kind: str
    """`file`, `upload`, `batch`, `response`, `completion`, `conversation`, …"""
    id: str


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A resource that an answer tells of, as made by its request or for an earlier one."""

    resource: Resource
    role: str = ""
    """What it is of the other: `output`, `errors` of a batch."""
    of: Resource | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation of a wire format: where it is asked for, and what is made of it here."""

    methods: tuple[str, ...]
    path: str
    """As it is documented; `{file}` stands for one segment, which names a resource."""
    operation: Operation
    taking: Taking = Taking.PASSING
    asked: str = ""
    """What is read of the request, for people."""
    answered: str = ""
    """What is read of the answer, for people."""
    receipted: str = ""
    """Which output units a receipt lists, for people."""
    lists: str | None = None
    """The kind of resources whose list the answer is."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A route that a request took, where exactly, and the resources that its path names."""

    route: Route
    path: str
    """As it was sent, without the provider's prefix."""
    query: str = ""
    names: tuple[Resource, ...] = ()


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
    uses: tuple[Resource, ...] = ()
    """What it names in path or body: each must belong to who asks."""
    lists: str | None = None
    """The kind of resources whose list is asked for."""
    body: dict[str, Any] | None = None
    found: Found | None = None
    """The route that it took; `None` where nobody asked over HTTP."""

    def __repr__(self) -> str:
        """Return what it is, and no word of what was said."""
        return f"ProviderCall({self.provider}, {self.operation}, {self.model})"


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a tool that the model asks for; *arguments* is the JSON text as sent."""

    id: str
    name: str
    arguments: str


UnitKind = Literal[
    "embedding", "image", "audio", "link", "tool-result", "moderation", "transcript", "other"
]
"""`link`: an address that leads to the output; `other`: a part that nobody here can read."""


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of output that is no plain text, by its digest.

    Of an embedding, the digest is over its numbers as little-endian 32-bit floats; of images
    and audio, over the decoded bytes; of anything else, over the JSON or text as canonical
    JSON has it.
    """

    kind: UnitKind
    index: int
    """Its place among those that were asked for; the choice it belongs to, if it does."""
    bytes: int
    sha256: Sha256


class Shown(msgspec.Struct, frozen=True):
    """Reasoning that a provider shows with an answer, in the open."""

    text: str
    is_summary: bool
    """A summary that the provider chose to give; else the model's words as it returns them."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One answer among the *n* that were asked for; *text* holds its visible words, joined."""

    index: int
    text: str = ""
    reasoning: tuple[str, ...] = ()
    """Reasoning or thinking blocks, in order, as the provider chose to show them."""
    shown: Shown | None = None
    """What of it can be read; blocks that are told only in secret are no part of it."""
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None
    finish_reason: str | None = None
    others: tuple[Unit, ...] = ()
    """Whatever else it holds; a choice that holds any has no row."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts as the provider reported them; `None` where it said nothing."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    seconds: int | None = None
    """Of audio, rounded up, where the provider counts those."""


Stop = Literal["rate-limit", "quota", "refusal", "policy"]
"""How a provider says no: too much at once, too much in all, the model declined, a filter or
the usage policy stopped it. Nobody gets round it by asking with another key."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as far as it came; *whole* only if the format's own end was seen."""

    readable: bool
    whole: bool
    id: str | None = None
    model: str | None = None
    choices: tuple[Choice, ...] = ()
    units: tuple[Unit, ...] = ()
    """Outputs that belong to no choice: embeddings, images, audio, moderations."""
    usage: Usage | None = None
    error: str | None = None
    """The provider's own name for what went wrong (`overloaded_error`)."""
    made: tuple[Made, ...] = ()
    """Resources that it tells of."""
    pending: bool = False
    """Nothing is here yet: the provider makes the output now, to be fetched later."""
    provider: str | None = None
    """Who made the output, where an aggregator says so."""
    stop: Stop | None = None
    """Set where the provider declined to go on."""


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


OPAQUE_ROUTE: Final = Route(
    methods=("*",),
    path="…",
    operation=Operation.OPAQUE,
    asked="nothing",
    answered="nothing",
    receipted="the body's bytes",
)
"""Where everything leads that no reader understands."""


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
    again_s: int | None = None
    """In how many seconds it may be asked again, where that is known."""
    never_again: bool = False
    """Asking the same again soon is of no use."""


class UnteachableError(ValueError):
    """An exchange that has no form as a training row; the message is a stable reason code."""


class Dialect(Protocol):
    """One wire format."""

    name: str

    ROUTES: tuple[Route, ...]
    """Every operation that is known here; whatever else is asked for is opaque."""

    def found(self, method: str, path: str, query: str = "") -> Found:
        """Return the route of a request; *path* excludes the provider's prefix and the query.

        A method and path that are not known lead to `OPAQUE_ROUTE`.
        """
        ...

    def read_request(
        self, provider: str, found: Found, content_type: str, body: bytes | None
    ) -> ProviderCall:
        """Return what is asked on a route that was *found*.

        *body* is `None` where nobody holds it: the route takes it as it passes, or puts it
        aside to read it item by item.

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

    def credential_header(self, secret: str, path: str = "") -> tuple[str, str]:
        """Return the header (lower-case name, value) that carries *secret* to *path*."""
        ...

    def query_upstream(self, query: str) -> str:
        """Return *query* without a credential, everything else as it was sent."""
        ...

    CREDENTIAL_HEADERS: frozenset[str]
    """Lower-case names of the headers in which a caller's key may come."""
