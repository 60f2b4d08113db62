"""Every kind of statement that can be a leaf of the ledger, and how its bytes are written.

An opening is plain canonical JSON; the checkpoint that covers it is its signature. All others
are in-toto Statements v1 (https://in-toto.io/Statement/v1) in a DSSE envelope. Field names on
the wire are camelCase. The bytes are described in `docs/formats/`.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from gateway.ident import DeclarationId, DerivationId, ExchangeId, Sha256
from gateway.intent.model import IntendedUse

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
PREDICATES: Final = "https://tos-gateway.example/"
"""Where our predicate types live; a reserved name that nobody can own (RFC 2606)."""

RECEIPT_TYPE: Final = PREDICATES + "usage-receipt/v1"
REFUSAL_TYPE: Final = PREDICATES + "refusal/v1"
ABANDONMENT_TYPE: Final = PREDICATES + "abandonment/v1"
DECLARATION_TYPE: Final = PREDICATES + "declaration/v1"
VERDICT_TYPE: Final = PREDICATES + "verdict/v1"
WITHDRAWAL_TYPE: Final = PREDICATES + "withdrawal/v1"
AGREEMENT_TYPE: Final = PREDICATES + "agreement/v1"
ORGANISATION_TYPE: Final = PREDICATES + "organisation/v1"
ACTIVATION_TYPE: Final = PREDICATES + "library-activation/v1"
TERMS_CHANGE_TYPE: Final = PREDICATES + "terms-change/v1"
KEY_AUTHORIZATION_TYPE: Final = PREDICATES + "key-authorization/v1"
KEY_REVOCATION_TYPE: Final = PREDICATES + "key-revocation/v1"
LOG_SUCCESSION_TYPE: Final = PREDICATES + "log-succession/v1"
ERASURE_TYPE: Final = PREDICATES + "erasure/v1"
TAKEOVER_TYPE: Final = PREDICATES + "takeover/v1"
DERIVATION_TYPE: Final = PREDICATES + "derivation/v1"
MEMBERS_TYPE: Final = PREDICATES + "dataset-members/v1"
PROVENANCE_TYPE: Final = "https://slsa.dev/provenance/v1"
"""Manifests of datasets, trainings and exports; `buildDefinition.buildType` tells which."""

DATASET_BUILD: Final = PREDICATES + "buildtypes/dataset/v1"
TRAINING_BUILD: Final = PREDICATES + "buildtypes/training/v1"
EXPORT_BUILD: Final = PREDICATES + "buildtypes/export/v1"

OPENING_KIND: Final = "opening/v1"

EffectName = Literal["permit", "hold", "forbid"]
KeyRole = Literal["receipt", "manifest"]
RevocationReason = Literal["superseded", "process-ended", "stolen", "lost"]
OutputKind = Literal[
    "text",
    "reasoning",
    "tool-call",
    "refusal",
    "embedding",
    "image",
    "audio",
    "transcript",
    "moderation",
    "tool-result",
    "link",
    "other",
]
StopName = Literal["rate-limit", "quota", "refusal", "policy"]
TransformKind = Literal[
    "rewrite", "filter", "judge", "translate", "extract", "compose", "written"
]
"""What was done: rows put into other words; some kept, others not; judged by somebody or
something; put into another language; a part taken out; several made one; written by people."""

RowKind = Literal["messages", "preference", "prompt"]
"""The shape of a row: a conversation to its answer; a prompt with a better and a worse answer;
a prompt alone, with what verifies answers to it."""

ParentRole = Literal["source", "rewriter", "judge", "chosen", "rejected", "prompt"]
"""What a parent was to a row. The words of all but a `judge` stand in it, or words made of
them do; a judge decided whether it stands, or which side is the better one."""

ReasoningKind = Literal["summary", "visible"]
"""Reasoning that a provider showed: a summary that it chose to give, or the model's own words
as it returns them."""

Ended = Literal["complete", "cut-short-by-caller", "cut-short-by-provider", "provider-failed"]


class Wire(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename="camel",
):
    """What all wire structs share: immutable, named fields, unknown keys refused."""


class Subject(Wire, frozen=True, kw_only=True):
    """Something that a statement is about, named by digest."""

    name: str
    digest: dict[str, str]


class Reason(Wire, frozen=True, kw_only=True):
    """One clause that led to an effect."""

    policy: str
    clause: str
    effect: EffectName
    because: str = ""
    source: str = ""
    """The citation: document, section."""
    missing: tuple[str, ...] = ()
    """Facts that were not declared and left the clause undecided."""
    agreement: str | None = None
    """The registered agreement that lifts the clause, so that it permits."""


class PolicyPin(Wire, frozen=True, kw_only=True):
    """A policy that was ruled under, pinned by the digest of its bytes."""

    policy: str
    version: int
    sha256: Sha256


class Ruling(Wire, frozen=True, kw_only=True):
    """What was decided, under which policies, and by whose verdict where it was held."""

    effect: EffectName
    reasons: tuple[Reason, ...]
    policies: tuple[PolicyPin, ...]
    obligations: tuple[str, ...] = ()
    day: str
    """The day whose policies were in force, `YYYY-MM-DD`."""
    verdict: int | None = None
    """Leaf index of the verdict that let a held use pass."""
    library: Sha256 | None = None
    """Digest of the policy library in force; its activation is a leaf."""
    agreements: tuple[str, ...] = ()
    """The agreements that hold for the credential in use, that day or later, lifting or not."""


class Caller(Wire, frozen=True, kw_only=True):
    """Who asked; *principal* is a name given by a gateway key, or a keyed fingerprint."""

    principal: str
    project: str


class Declared(Wire, frozen=True, kw_only=True):
    """What the exchange was for: a declaration's id and its words."""

    use: IntendedUse
    declaration: DeclarationId | None = None


class ProviderFacts(Wire, frozen=True, kw_only=True):
    """Who answered."""

    name: str
    endpoint: str
    route: str | None = None
    """How its model was reached: `first-party`, `aggregator`, `host`, `self-hosted`, …"""
    agreement: str | None = None
    """The agreement that the operator says its credential was issued under; lifts nothing."""
    account_tier: str | None = None
    """Under what sort of account it was called: `free`, `paid`, `enterprise`, …"""
    status: int | None = None
    request_id: str | None = None


class ModelFacts(Wire, frozen=True, kw_only=True):
    """Which model was asked for and which one says it answered."""

    requested: str | None = None
    reported: str | None = None
    manifest: Sha256 | None = None
    """For a student of ours: SHA-256 of its training manifest's payload."""
    provider: str | None = None
    """Who made the answer, as an aggregator says."""


class Commitment(Wire, frozen=True, kw_only=True):
    """A digest that only the holder of a salt or a key can open."""

    alg: Literal["sha256-salted", "hmac-sha256"]
    value: Sha256


class RequestFacts(Wire, frozen=True, kw_only=True):
    """What was asked, without its words."""

    bytes: int
    commitment: Commitment | None = None


class OutputFacts(Wire, frozen=True, kw_only=True):
    """One unit of what came back: a choice's text, a reasoning block, a tool call, an image.

    Units that may be learned from carry a plain digest, so that a row can be matched to them;
    others carry a commitment, because short texts could be guessed: to the text itself where
    it is one, and else to the unit's SHA-256 in hex.
    """

    choice: int
    kind: OutputKind
    bytes: int
    sha256: Sha256 | None = None
    commitment: Commitment | None = None
    row: Commitment | None = None
    """On a choice's first unit: commitment to the canonical training row made of it."""
    reasoned: Commitment | None = None
    """Beside *row*: commitment to the same row with the reasoning that the provider showed."""
    reasoning_kind: ReasoningKind | None = None
    """Beside *reasoned*: what was shown; the policies' fact `reasoning-kind`."""


class UsageFacts(Wire, frozen=True, kw_only=True):
    """Token counts; *counted_by* says whose."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    counted_by: Literal["provider", "tiktoken"] = "provider"


class ResourceFacts(Wire, frozen=True, kw_only=True):
    """Something kept at the provider that the answer tells of; it belongs to the caller."""

    kind: str
    """`file`, `upload`, `batch`, `response`, `completion`, …"""
    id: str
    role: str | None = None
    """What it is of the other: `output`, `errors`."""
    of: str | None = None
    """`kind/id` of the resource that it was made for."""


class ItemFacts(Wire, frozen=True, kw_only=True):
    """What one of many things is that an exchange asked for: a batch's line, say.

    The receipt's own exchange id follows from *of* and *number* (`ident.item_id`), so that each
    item has one receipt however often it is fetched.
    """

    of: ExchangeId
    """The exchange that asked for it, whose opening the receipt names."""
    number: int
    """Its place among them, from 0; of a batch, the line of the input."""
    custom_id: str | None = None
    """The caller's own name for it."""
    input: ExchangeId | None = None
    """The exchange that handed in its request, where that is another one."""
    fetched: ExchangeId | None = None
    """The exchange that brought its answer, where that is another one."""


class AttemptFacts(Wire, frozen=True, kw_only=True):
    """Which of several attempts at the same thing this was, as the caller's SDK says."""

    number: int
    """0: the first."""
    of: Commitment | None = None
    """The same for all of them: a commitment to the idempotency key, or to the request."""


class LinesFacts(Wire, frozen=True, kw_only=True):
    """What was judged item by item before it left."""

    count: int
    forwarded: int
    root: Sha256
    """RFC 6962 root over the canonical JSON of what was found of each, in order."""


class RewrittenFacts(Wire, frozen=True, kw_only=True):
    """The provider's own bytes, where the caller got others.

    Those differ in addresses, which lead to the gateway instead of past it, or are a list
    without what belongs to somebody else.
    """

    sha256: Sha256
    bytes: int


class Writer(Wire, frozen=True, kw_only=True):
    """The process that wrote the statement."""

    instance: str
    version: str


class Receipt(Wire, frozen=True, kw_only=True):
    """The predicate of a usage receipt: one exchange that reached its provider."""

    exchange: ExchangeId
    caller: Caller
    declared: Declared
    ruling: Ruling
    provider: ProviderFacts
    model: ModelFacts
    operation: str
    streaming: bool
    readable: bool
    """False: the answer was digested but not read; nothing of it is ever trainable."""
    request: RequestFacts
    outputs: tuple[OutputFacts, ...] = ()
    outputs_left_out: int = 0
    """Units beyond the listed ones (`limits.OUTPUTS_PER_EXCHANGE_MAX`); never trainable."""
    outputs_root: Sha256 | None = None
    """Where some are left out: RFC 6962 root over the canonical JSON of all units, in order."""
    response_bytes: int = 0
    """How many bytes the subject `response.body` digests: those handed to the caller, where it
    hung up before the last of them."""
    usage: UsageFacts | None = None
    finish_reasons: tuple[str, ...] = ()
    error: str | None = None
    features: tuple[str, ...] = ()
    made: tuple[ResourceFacts, ...] = ()
    made_left_out: int = 0
    stop: StopName | None = None
    """Set where the provider declined to go on."""
    item: ItemFacts | None = None
    """Set where this is one of many things that another exchange asked for."""
    items: int | None = None
    """How many items a session has had; of others nobody knows before they are fetched."""
    lines: LinesFacts | None = None
    attempt: AttemptFacts | None = None
    rewritten: RewrittenFacts | None = None
    tags: tuple[str, ...] = ()
    """Names that the caller gave it, in their order; what datasets are selected by."""
    ended: Ended
    opening: int
    """Leaf index of the opening; of an item, that of the exchange that asked for it."""
    received: str
    finished: str
    writer: Writer


class Refusal(Wire, frozen=True, kw_only=True):
    """The predicate of a refusal: a use that was held or forbidden; nothing was dialled."""

    exchange: ExchangeId
    caller: Caller
    declared: Declared
    ruling: Ruling
    provider: ProviderFacts
    model: ModelFacts
    operation: str
    streaming: bool = False
    features: tuple[str, ...] = ()
    request: RequestFacts
    lines: LinesFacts | None = None
    """Set where it was judged item by item; none of them was forwarded."""
    opening: int | None = None
    """Set where the law changed between the ruling and its opening."""
    item: ItemFacts | None = None
    """Set where a session, which was opened before, asked for it; the session ended with it."""
    received: str
    writer: Writer


class Abandonment(Wire, frozen=True, kw_only=True):
    """The predicate that closes an exchange whose end nobody saw."""

    exchange: ExchangeId
    opening: int
    why: str
    """`process-ended`, `ledger-failed`, `gateway-failed` (a bug of ours)."""
    found: str
    writer: Writer


class DeclarationFacts(Wire, frozen=True, kw_only=True):
    """The predicate of a registered declaration."""

    declaration: DeclarationId
    project: str
    use: IntendedUse
    owner: str
    expires: str | None = None
    at: str
    writer: Writer


class Covered(Wire, frozen=True, kw_only=True):
    """The holding clauses of one policy that a verdict answers."""

    policy: str
    clauses: tuple[str, ...]


class Verdict(Wire, frozen=True, kw_only=True):
    """The predicate of a verdict: a person's yes or no about a declaration or exchange."""

    approved: bool
    by: str
    reason: str
    declaration: DeclarationId | None = None
    exchange: ExchangeId | None = None
    covers: tuple[Covered, ...] = ()
    """For a declaration: exactly these holding clauses are answered, no others."""
    at: str
    writer: Writer


class Withdrawal(Wire, frozen=True, kw_only=True):
    """The predicate of a withdrawal: something may no longer be used; the last word on it."""

    by: str
    reason: str
    declaration: DeclarationId | None = None
    exchange: ExchangeId | None = None
    derivation: DerivationId | None = None
    manifest: Sha256 | None = None
    agreement: str | None = None
    at: str
    writer: Writer


class Scope(Wire, frozen=True, kw_only=True):
    """What an agreement is about; an empty list limits nothing."""

    purposes: tuple[str, ...]
    """Never empty; a purpose covers those below it."""
    projects: tuple[str, ...] = ()
    students: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


class AgreementFacts(Wire, frozen=True, kw_only=True):
    """The predicate of a registered agreement: an order form, or a written permission.

    It lifts exactly the clauses that it names, for its scope, for calls with the credentials
    that it names, from its first day to its last.
    """

    agreement: str
    policy: str
    lifts: tuple[str, ...]
    scope: Scope
    evidence: Sha256
    """SHA-256 of the document that shows it."""
    evidence_name: str
    signer: str
    """Who signed it for the provider."""
    by: str
    """Who registered it."""
    credentials: tuple[Sha256, ...]
    """The provider's keys that it holds for, as HMACs under the installation's key."""
    starts: str
    expires: str
    """The last day."""
    at: str
    writer: Writer


class OrganisationFacts(Wire, frozen=True, kw_only=True):
    """The predicate of what a named person states of the organisation; the newest word counts.

    Numbers hold for the month in which they were measured.
    """

    facts: dict[str, str | bool | int]
    measured: str | None = None
    """`YYYY-MM`."""
    basis: str
    by: str
    at: str
    writer: Writer


class Activation(Wire, frozen=True, kw_only=True):
    """The predicate that puts a policy library in force, from this leaf on."""

    library: Sha256
    policies: int
    overlays: tuple[str, ...] = ()
    previous: Sha256 | None = None
    by: str
    at: str
    writer: Writer


class TermsChange(Wire, frozen=True, kw_only=True):
    """The predicate that says: a document changed near what a policy cites.

    Until a newer version of the policy is in force, its permits for training hold.
    """

    policy: str
    version: int
    document: str
    sections: tuple[str, ...]
    snapshot: Sha256
    """SHA-256 of the new text, as the watch normalises it."""
    by: str
    at: str
    writer: Writer


class KeyAuthorization(Wire, frozen=True, kw_only=True):
    """The predicate that lets a key sign from the next leaf on; a manifest key signs it."""

    keyid: Sha256
    key: str
    """The public key, SubjectPublicKeyInfo in PEM."""
    role: KeyRole
    expires: str
    """When its holder will have let go of it; leaf indices decide, this is for people."""
    by: str
    at: str
    writer: Writer


class KeyRevocation(Wire, frozen=True, kw_only=True):
    """The predicate that ends a key: nothing by it counts from leaf *since* on.

    Without *since*, from this very leaf on: then whatever the key's holder had signed before
    stands before it. An earlier leaf is for a key in the wrong hands.
    """

    keyid: Sha256
    role: KeyRole
    since: int | None = None
    reason: RevocationReason
    by: str
    at: str
    writer: Writer


class FrozenLog(Wire, frozen=True, kw_only=True):
    """The last checkpoint of a log that grows no more under its name."""

    origin: str
    log: str
    """Its verifier key (vkey)."""
    size: int
    root: Sha256
    note: Sha256
    """SHA-256 of its last checkpoint, the whole signed note."""


class LogSuccession(Wire, frozen=True, kw_only=True):
    """The predicate of a successor's first leaf of its own: whose leaves it begins with."""

    origin: str
    log: str
    """The successor's verifier key (vkey)."""
    predecessor: FrozenLog
    reason: str
    by: str
    at: str
    writer: Writer


class Erasure(Wire, frozen=True, kw_only=True):
    """The predicate of an erasure: the texts of what it names are destroyed, the leaves stay.

    Exactly one of *principal*, *project* and *exchange* is named, or *before* or *overdue*
    alone. It covers what was opened at a lower leaf index, and nothing that comes later.
    """

    principal: str | None = None
    project: str | None = None
    exchange: ExchangeId | None = None
    before: str | None = None
    """Only exchanges opened before this day, `YYYY-MM-DD`."""
    overdue: str | None = None
    """On this day, texts were erased whose `delete-by-days` were over."""
    reason: str
    by: str
    at: str
    writer: Writer


class Takeover(Wire, frozen=True, kw_only=True):
    """The predicate of a sequencer's first leaf after it took over from another."""

    epoch: int
    """Rises by one with every takeover; leaves of an older epoch are no longer taken."""
    at: str
    writer: Writer


class Transform(Wire, frozen=True, kw_only=True):
    """What made rows of others, named so that it can be found again."""

    name: str
    version: str
    kind: TransformKind
    code: Sha256 | None = None
    """SHA-256 of its source, where it was at hand."""
    settings: Sha256 | None = None
    """SHA-256 of the canonical JSON of what it was called with, where it was said."""


class Parent(Wire, frozen=True, kw_only=True):
    """Something that a row was made from: exactly one of the three, by its place in the log."""

    role: ParentRole = "source"
    exchange: ExchangeId | None = None
    derivation: DerivationId | None = None
    manifest: Sha256 | None = None
    """A student of ours, run in the pipeline itself: its training manifest."""
    choice: int = 0
    """Of an exchange the choice, of a derivation the place of the row in it."""
    index: int
    """Leaf index of the receipt, the derivation or the manifest; lower than the row's own."""


class DerivedRow(Wire, frozen=True, kw_only=True):
    """One row that was made; the parents are places in the derivation's list of them."""

    kind: RowKind = "messages"
    row: Commitment
    """To the row's canonical JSON; the salt lives with the text."""
    bytes: int
    parents: tuple[int, ...] = ()
    verdict: str | None = None
    """Of a judged row: what was found, in a word or a number."""


class Written(Wire, frozen=True, kw_only=True):
    """Who answers for rows that people wrote, or that came from outside."""

    by: str
    """The person who says so."""
    licence: str
    source: str
    """Where they come from, in words: who wrote them, or the address they were found at."""


class Derivation(Wire, frozen=True, kw_only=True):
    """The predicate of a derivation: rows that a pipeline made, each with its parents.

    Rows without parents are people's own words, and *written* says whose.
    """

    derivation: DerivationId
    caller: Caller
    declared: Declared
    """The use that the pipeline was run for."""
    transform: Transform
    written: Written | None = None
    parents: tuple[Parent, ...] = ()
    rows: tuple[DerivedRow, ...]
    tags: tuple[str, ...] = ()
    at: str
    writer: Writer


class Members(Wire, frozen=True, kw_only=True):
    """The predicate that lists what a dataset was made from: leaves, as bits.

    All parts stand in the log before the manifest that they name. Bit *i* of *bits* (of each
    byte the lowest first) is leaf *first* + *i*; *first* is a multiple of 65,536, and no part
    goes beyond that many leaves.
    """

    manifest: Sha256
    """SHA-256 of the dataset manifest's payload."""
    dataset: str
    part: int
    parts: int
    first: int
    bits: str
    """Base64 of the zlib-compressed bitmap, without zero bytes at its end."""
    at: str
    writer: Writer


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest of a dataset, a training or an export, named by its payload's digest."""

    build_type: str
    payload_sha256: Sha256
    statement: dict[str, Any]


class Opening(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag=OPENING_KIND,
):
    """Written before the provider is dialled: we are about to ask."""

    exchange: ExchangeId
    at: str
    principal: str
    project: str
    provider: str
    operation: str
    purpose: str
    declaration: DeclarationId | None = None
    ruling_sha256: Sha256
    writer: str


Predicate = (
    Receipt
    | Refusal
    | Abandonment
    | DeclarationFacts
    | Verdict
    | Withdrawal
    | AgreementFacts
    | OrganisationFacts
    | Activation
    | TermsChange
    | KeyAuthorization
    | KeyRevocation
    | LogSuccession
    | Erasure
    | Takeover
    | Derivation
    | Members
)
Statement = Opening | Predicate | Manifest
"""What a leaf can be."""
