"""What is remembered of a batch between its requests and its answers."""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.budget.estimate import LinesSum
from gateway.exchange.allowance import Reserved
from gateway.ident import DeclarationId, ExchangeId
from gateway.intent.model import Declaration, IntendedUse
from gateway.provider.model import Dialect, Operation, ProviderCall
from gateway.receipt.model import LinesFacts, RequestFacts, Ruling


class Found(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was found of one line; its canonical JSON is a leaf of the tree in the receipt.

    Nothing of what it says is in it: of its request a commitment, under the installation's key.
    """

    number: int
    """The line, from 0, empty ones counted; of an array, the element."""
    bytes: int
    custom_id: str | None = None
    effect: str
    """`permit`, `hold`, `forbid`, or `unreadable`."""
    forwarded: bool
    operation: str | None = None
    model: str | None = None
    reasons: tuple[str, ...] = ()
    """Policy and clause of each reason why it was not permitted."""
    code: str | None = None
    """Why it was not forwarded, where that is no ruling."""
    request: RequestFacts | None = None


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What lines of one kind ask for, and how that was ruled on."""

    operation: str
    model: str | None
    streaming: bool
    features: tuple[str, ...]
    fallbacks: tuple[str | None, ...]
    method: str
    path: str
    query: str
    ruling: Ruling
    before: LinesSum = LinesSum()
    """What all of them together may come to."""

    def call(
        self, provider: str, dialect: Dialect, asked_at: str | None = None
    ) -> ProviderCall:
        """Return what such a line asks for, without its words.

        Where the batch says at which path its lines ask, they ask there.
        """
        if asked_at is not None:
            found = dialect.found(self.method, asked_at, self.query)
            bare = dialect.read_request(provider, found, "application/json", b"{}")
            return msgspec.structs.replace(
                bare,
                streaming=self.streaming,
                features=frozenset(self.features),
                fallbacks=self.fallbacks,
            )
        return ProviderCall(
            provider=provider,
            operation=Operation(self.operation),
            model=self.model,
            streaming=self.streaming,
            features=frozenset(self.features),
            fallbacks=self.fallbacks,
            found=dialect.found(self.method, self.path, self.query),
        )


class Set(msgspec.Struct, frozen=True, kw_only=True):
    """A batch's requests as they were handed in: by whom, for what, and what was found."""

    provider: str
    principal: str
    project: str
    use: IntendedUse
    declaration: DeclarationId
    declared: bool
    kinds: tuple[Kind, ...]
    lines: LinesFacts
    forwarded: bool
    """False: the whole of it was refused."""

    def declared_as(self) -> Declaration:
        """Return the declaration as it was used; the register may know more of it."""
        return Declaration(id=self.declaration, project=self.project, use=self.use)


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """How each kind of line was ruled on when a batch of them began."""

    rulings: tuple[Ruling, ...]
    asked_at: str | None = None
    """The path at which its lines ask, where the batch says so and not they."""
    reserved: Reserved | None = None
    """What is held of limits until results come; `None`: nothing limits it."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where the results of a batch come from: who asked, and what was handed in."""

    of: ExchangeId
    """The exchange that began the batch."""
    input: ExchangeId
    """The exchange that handed its requests in."""
    set: Set
    begun: Begun


encode_found: Final = msgspec.json.Encoder(order="sorted").encode
decode_found: Final = msgspec.json.Decoder(Found).decode
encode: Final = msgspec.msgpack.Encoder().encode
decode_set: Final = msgspec.msgpack.Decoder(Set).decode
decode_begun: Final = msgspec.msgpack.Decoder(Begun).decode
