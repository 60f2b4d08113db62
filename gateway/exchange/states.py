"""The sheets in a request's folder: what each room needs and only the room before can give.

`Permitted` is made in `walk.py`, `Answered` in `relay.py`, `Sealed` in `seal.py` alone; the
first two of items, which were permitted with another exchange, in `items.py` (held by
`tests/tidy`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from gateway.budget.model import Limit
from gateway.exchange.body import StreamedBody
from gateway.ident import ExchangeId, Sha256
from gateway.intent.model import Declaration
from gateway.provider.model import Answer, ProviderCall, Stop
from gateway.receipt.model import (
    AttemptFacts,
    Ended,
    ItemFacts,
    LinesFacts,
    RequestFacts,
    RewrittenFacts,
    Ruling,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks, authenticated; *credential* is what goes upstream and is never shown."""

    name: str
    project: str
    roles: frozenset[str] = frozenset({"caller"})
    declaration: str | None = None
    """The default declaration of the key, if it carries one."""
    credential: str | None = field(default=None, repr=False)
    fingerprint: Sha256 | None = None
    """Of the provider's key that goes upstream, keyed: what agreements are bound to."""
    key: str | None = None
    """The id of the gateway key that was shown, if one was."""
    providers: tuple[str, ...] = ()
    """Which providers it may ask, as globs; empty: all."""
    models: tuple[str, ...] = ()
    """Which models it may ask for, as globs; empty: all, and those that nobody knows."""
    limits: tuple[Limit, ...] = ()
    """What the key itself may use at most."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request that has been admitted, declared and read; nothing is decided yet."""

    exchange: ExchangeId
    received_ms: int
    principal: Principal
    declaration: Declaration
    declared: bool
    """False: nothing was declared, so the use is plain inference."""
    call: ProviderCall
    endpoint: str
    """Method, and the upstream URL without its query."""
    body: bytes | StreamedBody
    """The bytes as they came, or what counts them as they pass."""
    attempt: AttemptFacts | None = None
    """Which of several attempts at the same thing it is, as the caller's SDK says."""
    lines: LinesFacts | None = None
    """Set where it was judged item by item."""
    item: ItemFacts | None = None
    """Set where it is one of many things that another exchange asked for."""
    tags: tuple[str, ...] = ()
    """Names that the caller gave it."""
    request: RequestFacts | None = None
    """What is known of an item's request whose bytes were not kept; *body* is empty then."""

    def __repr__(self) -> str:
        """Return which exchange it is, and no word of what was said."""
        return f"Asked({self.exchange})"


class Permitted(msgspec.Struct, frozen=True, kw_only=True):
    """The terms allow it, and its opening is durable: the provider may be dialled."""

    asked: Asked
    ruling: Ruling
    headers: tuple[tuple[bytes, bytes], ...]
    """What the caller is told of the ruling and of the duties that ride along."""
    opening: int


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A person must rule on the declaration first."""

    asked: Asked
    ruling: Ruling
    opening: int | None = None


class Forbidden(msgspec.Struct, frozen=True, kw_only=True):
    """The terms don't allow it."""

    asked: Asked
    ruling: Ruling
    opening: int | None = None


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider gave, as far as it came; not yet written down."""

    permitted: Permitted
    answer: Answer
    status: int | None
    request_id: str | None
    response_sha256: str
    response_bytes: int
    ended: Ended
    error: str | None
    """A dotted code of ours where the exchange broke, else the provider's own error name."""
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    """The head as the caller gets it."""
    sized: bool
    """The head declares the body's length."""
    held: bytes
    """The bytes that wait for the notary."""
    head_sent: bool
    """The caller has the head already, so a failure can only break the stream."""
    rewritten: RewrittenFacts | None = None
    """The provider's own bytes, where the caller gets others."""
    items: int | None = None
    """How many items a session has had."""
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    """The fields that came behind a whole body."""

    @property
    def stop(self) -> Stop | None:
        """How the provider said no, if it did: in its own words, else by the status."""
        return self.answer.stop or _STOPS.get(self.status)

    def __repr__(self) -> str:
        """Return how it ended, and no word of what was said."""
        return f"Answered({self.permitted.asked.exchange}, {self.status}, {self.ended})"


class Abandoned(msgspec.Struct, frozen=True, kw_only=True):
    """An opening whose end nobody saw."""

    exchange: ExchangeId
    opening: int
    why: str


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """Written down: the closing statement is durable at *index*."""

    exchange: ExchangeId
    index: int


_STOPS: Final[dict[int | None, Stop]] = {402: "quota", 429: "rate-limit"}

Outcome = Answered | Held | Forbidden | Abandoned
