"""What the index keeps of each leaf: one row, of few words."""

from __future__ import annotations

from typing import Final, Literal, assert_never

import msgspec

from gateway.errors import MalformedReceiptError
from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.receipt.model import (
    Abandonment,
    Activation,
    AgreementFacts,
    DeclarationFacts,
    Derivation,
    Erasure,
    KeyAuthorization,
    KeyRevocation,
    LogSuccession,
    Manifest,
    Members,
    Opening,
    OrganisationFacts,
    Receipt,
    Refusal,
    ResourceFacts,
    Statement,
    Takeover,
    TermsChange,
    Verdict,
    Withdrawal,
)
from gateway.receipt.statement import read_leaf
from gateway.store.index.chunks import Chunk, chunk_of
from gateway.store.index.stages import StageFacts, parents_of, stage_of

Kind = Literal[
    "opening",
    "receipt",
    "refusal",
    "abandonment",
    "declaration",
    "verdict",
    "withdrawal",
    "agreement",
    "organisation",
    "activation",
    "terms-change",
    "key-authorization",
    "key-revocation",
    "log-succession",
    "erasure",
    "takeover",
    "derivation",
    "members",
    "manifest",
    "unreadable",
]
"""What a leaf is; `unreadable` is for one that this release has no reader for."""

CLOSING: Final = ("receipt", "refusal", "abandonment")
"""The kinds that end an exchange."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What the index knows about one leaf; the leaf itself is the evidence."""

    index: int
    kind: Kind
    at: str | None = None
    """When it was written: for a receipt, when the answer had ended."""
    exchange: ExchangeId | None = None
    opening: int | None = None
    project: str | None = None
    principal: str | None = None
    provider: str | None = None
    model: str | None = None
    """The model asked for."""
    model_reported: str | None = None
    model_manifest: Sha256 | None = None
    operation: str | None = None
    purpose: str | None = None
    declaration: DeclarationId | None = None
    effect: str | None = None
    ended: str | None = None
    readable: bool | None = None
    approved: bool | None = None
    obligations: tuple[str, ...] = ()
    manifest: Sha256 | None = None
    """The manifest that this leaf is, or that it withdraws."""
    made: tuple[ResourceFacts, ...] = ()
    """Resources that it tells of; kept in a table of their own."""
    stop: str | None = None
    """How the provider said no, if it did."""
    transform: str | None = None
    """What made the rows of a derivation."""
    tags: tuple[str, ...] = ()
    stage: StageFacts | None = None
    """What a manifest says of itself; kept in tables of its own, as are the next two."""
    members: Chunk | None = None
    parents: tuple[int, ...] = ()
    """The leaves that the rows of a derivation were made from."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A resource at a provider, and the exchange that had it made or first told of it."""

    leaf: int
    kind: str
    id: str
    role: str | None = None
    of: str | None = None
    exchange: ExchangeId
    project: str
    principal: str
    declaration: DeclarationId | None = None


def row_of(index: int, leaf: bytes) -> Row:
    """Return what the index keeps of the leaf at *index*."""
    try:
        return _row_of(index, read_leaf(leaf))
    except MalformedReceiptError:
        # Fsck names it; a search must still be able to go past it.
        return Row(index=index, kind="unreadable")


def _row_of(index: int, statement: Statement) -> Row:
    match statement:
        case Opening():
            return Row(
                index=index,
                kind="opening",
                at=statement.at,
                exchange=statement.exchange,
                project=statement.project,
                principal=statement.principal,
                provider=statement.provider,
                operation=statement.operation,
                purpose=statement.purpose,
                declaration=statement.declaration,
            )
        case Receipt() | Refusal():
            receipt = statement if isinstance(statement, Receipt) else None
            return Row(
                index=index,
                kind="refusal" if receipt is None else "receipt",
                at=statement.received if receipt is None else receipt.finished,
                exchange=statement.exchange,
                opening=statement.opening,
                project=statement.caller.project,
                principal=statement.caller.principal,
                provider=statement.provider.name,
                model=statement.model.requested,
                model_reported=statement.model.reported,
                model_manifest=statement.model.manifest,
                operation=statement.operation,
                purpose=statement.declared.use.purpose,
                declaration=statement.declared.declaration,
                effect=statement.ruling.effect,
                ended=None if receipt is None else receipt.ended,
                readable=None if receipt is None else receipt.readable,
                obligations=statement.ruling.obligations,
                made=() if receipt is None else receipt.made,
                stop=None if receipt is None else receipt.stop,
                tags=() if receipt is None else receipt.tags,
            )
        case Abandonment():
            return Row(
                index=index,
                kind="abandonment",
                at=statement.found,
                exchange=statement.exchange,
                opening=statement.opening,
            )
        case DeclarationFacts():
            return Row(
                index=index,
                kind="declaration",
                at=statement.at,
                project=statement.project,
                principal=statement.owner,
                purpose=statement.use.purpose,
                declaration=statement.declaration,
            )
        case Verdict():
            return Row(
                index=index,
                kind="verdict",
                at=statement.at,
                exchange=statement.exchange,
                principal=statement.by,
                declaration=statement.declaration,
                approved=statement.approved,
            )
        case Withdrawal():
            return Row(
                index=index,
                kind="withdrawal",
                at=statement.at,
                exchange=statement.exchange or statement.derivation,
                principal=statement.by,
                declaration=statement.declaration,
                manifest=statement.manifest,
            )
        case (
            AgreementFacts()
            | OrganisationFacts()
            | Activation()
            | TermsChange()
            | KeyAuthorization()
            | KeyRevocation()
            | LogSuccession()
            | Erasure()
        ):
            return Row(
                index=index,
                kind=KINDS[type(statement)],
                at=statement.at,
                principal=statement.by,
            )
        case Takeover():
            return Row(index=index, kind="takeover", at=statement.at)
        case Derivation():
            return Row(
                index=index,
                kind="derivation",
                at=statement.at,
                exchange=statement.derivation,
                project=statement.caller.project,
                principal=statement.caller.principal,
                purpose=statement.declared.use.purpose,
                declaration=statement.declared.declaration,
                transform=statement.transform.name,
                tags=statement.tags,
                parents=parents_of(statement),
            )
        case Members():
            return Row(
                index=index,
                kind="members",
                at=statement.at,
                manifest=statement.manifest,
                members=chunk_of(statement),
            )
        case Manifest():
            return Row(
                index=index,
                kind="manifest",
                manifest=statement.payload_sha256,
                stage=stage_of(statement),
            )
        case _:
            assert_never(statement)


KINDS: Final[dict[type[Statement], Kind]] = {
    Opening: "opening",
    Receipt: "receipt",
    Refusal: "refusal",
    Abandonment: "abandonment",
    DeclarationFacts: "declaration",
    Verdict: "verdict",
    Withdrawal: "withdrawal",
    AgreementFacts: "agreement",
    OrganisationFacts: "organisation",
    Activation: "activation",
    TermsChange: "terms-change",
    KeyAuthorization: "key-authorization",
    KeyRevocation: "key-revocation",
    LogSuccession: "log-succession",
    Erasure: "erasure",
    Takeover: "takeover",
    Derivation: "derivation",
    Members: "members",
    Manifest: "manifest",
}
"""What each statement is called, in the index and wherever leaves are counted."""
