"""Keys, a small log and signed statements to verify, made afresh for a test run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gateway.canonical import sha256_hex
from gateway.ident import DeclarationId, DerivationId, ExchangeId, Sha256
from gateway.intent.model import IntendedUse
from gateway.receipt.authority import Authority
from gateway.receipt.bundle import Bundle, Included
from gateway.receipt.keys import (
    Ed25519Signer,
    LogSigner,
    P256Signer,
    Trust,
    TrustedManifestKey,
    generate_pem,
)
from gateway.receipt.model import (
    DATASET_BUILD,
    PROVENANCE_TYPE,
    STATEMENT_TYPE,
    Abandonment,
    Activation,
    AgreementFacts,
    Caller,
    Commitment,
    DeclarationFacts,
    Declared,
    Derivation,
    DerivedRow,
    Erasure,
    FrozenLog,
    KeyAuthorization,
    KeyRevocation,
    LogSuccession,
    Members,
    ModelFacts,
    Opening,
    OrganisationFacts,
    OutputFacts,
    Parent,
    PolicyPin,
    Predicate,
    ProviderFacts,
    Reason,
    Receipt,
    Refusal,
    RequestFacts,
    Ruling,
    Scope,
    Statement,
    Subject,
    Takeover,
    TermsChange,
    Transform,
    UsageFacts,
    Verdict,
    Withdrawal,
    Writer,
)
from gateway.receipt.statement import MANIFEST_KEY_SIGNS, write_statement
from gateway.tlog.checkpoint import Checkpoint, format_checkpoint
from gateway.tlog.merkle import inclusion_proof, leaf_hash, root_of
from gateway.tlog.note import sign_note
from gateway.tlog.proof import InclusionProof

ORIGIN: Final = "receipts.example/acme"
RECEIPT_SIGNER: Final = Ed25519Signer(generate_pem("ed25519"))
MANIFEST_SIGNER: Final = P256Signer(generate_pem("p256"))
LOG_SIGNER: Final = LogSigner(generate_pem("ed25519"), ORIGIN)
TRUST: Final = Trust(
    origin=ORIGIN,
    log=LOG_SIGNER.vkey,
    manifest_keys=(TrustedManifestKey(key=MANIFEST_SIGNER.public.pem, since=0),),
)

EXCHANGE: Final = ExchangeId("x-01JD0000000000000000000597")
DECLARATION: Final = DeclarationId("use-0123456789abcdef0123")
WRITER: Final = Writer(instance="gw-a", version="0.1.0")
OUTPUT: Final = b"answer number 597"

AGREEMENT: Final = AgreementFacts(
    agreement="order-7",
    policy="held",
    lifts=("training",),
    scope=Scope(purposes=("train",)),
    evidence=Sha256("ab" * 32),
    evidence_name="order.pdf",
    signer="S. Vendor",
    by="R. Osei",
    credentials=(Sha256("fe" * 32),),
    starts="2020-01-01",
    expires="2099-12-31",
    at="2026-11-22T00:00:00.000Z",
    writer=WRITER,
)
"""An order form that lifts one clause for training, with one key and for a long time."""

RECEIPT: Final = Receipt(
    exchange=EXCHANGE,
    caller=Caller(principal="team-search", project="search"),
    declared=Declared(
        use=IntendedUse(purpose="train.sft", student="parser", student_kind="extractor"),
        declaration=DECLARATION,
    ),
    ruling=Ruling(
        effect="permit",
        reasons=(Reason(policy="example", clause="may-train", effect="permit"),),
        policies=(PolicyPin(policy="example", version=1, sha256=Sha256("a" * 64)),),
        day="2026-11-22",
    ),
    provider=ProviderFacts(name="example", endpoint="POST https://api.example/v1", status=200),
    model=ModelFacts(requested="m", reported="m-2026"),
    operation="chat",
    streaming=False,
    readable=True,
    request=RequestFacts(
        bytes=65, commitment=Commitment(alg="sha256-salted", value=Sha256("b" * 64))
    ),
    outputs=(OutputFacts(choice=0, kind="text", bytes=len(OUTPUT), sha256=sha256_hex(OUTPUT)),),
    response_bytes=312,
    usage=UsageFacts(input_tokens=12, output_tokens=34),
    finish_reasons=("stop",),
    ended="complete",
    opening=4,
    received="2026-11-22T04:30:00.123Z",
    finished="2026-11-22T04:30:01.456Z",
    writer=WRITER,
)
SUBJECTS: Final = (
    Subject(name="response.body", digest={"sha256": "d" * 64}),
    Subject(name="output/0", digest={"sha256": sha256_hex(OUTPUT)}),
)
ABANDONMENT: Final = Abandonment(
    exchange=EXCHANGE,
    opening=4,
    why="process-ended",
    found="2026-11-22T05:00:00Z",
    writer=WRITER,
)
OPENING: Final = Opening(
    exchange=EXCHANGE,
    at="2026-11-22T04:30:00.123Z",
    principal="team-search",
    project="search",
    provider="example",
    operation="chat",
    purpose="train.sft",
    declaration=DECLARATION,
    ruling_sha256=Sha256("c" * 64),
    writer="gw-a",
)


def a_manifest() -> dict[str, Any]:
    """Return the statement of a small dataset manifest."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": "rows.jsonl", "digest": {"sha256": "e" * 64}}],
        "predicateType": PROVENANCE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": DATASET_BUILD,
                "externalParameters": {"dataset": "acme", "threshold": 0.5},
                "resolvedDependencies": [],
            },
            "runDetails": {"builder": {"id": "https://tos-gateway.example/dataset-gate/v1"}},
        },
    }


def a_note(leaves: Sequence[bytes], signer: LogSigner = LOG_SIGNER) -> str:
    """Return the signed checkpoint of a log of *leaves*."""
    root = root_of(map(leaf_hash, leaves))
    return sign_note(format_checkpoint(Checkpoint(signer.name, len(leaves), root)), [signer])


def a_proof(leaves: Sequence[bytes], index: int) -> InclusionProof:
    """Return the proof that leaf *index* is in a log of *leaves*."""
    hashes = [leaf_hash(leaf) for leaf in leaves]
    path = inclusion_proof(index, len(leaves), lambda first, stop: root_of(hashes[first:stop]))
    return InclusionProof(index, tuple(path), a_note(leaves))


def a_bundle(
    leaf: bytes,
    size: int = 11,
    index: int = 5,
    *,
    authorization: bytes | None = None,
    authorised_at: int = 2,
) -> Bundle:
    """Return the bundle of *leaf* at *index* of a log of *size*, authorised before it."""
    leaves = [b"leaf %d" % other for other in range(size)]
    leaves[index] = leaf
    if authorization is None:
        return Bundle(leaf, a_proof(leaves, index))
    leaves[authorised_at] = authorization
    shown = a_proof(leaves, authorised_at)
    return Bundle(
        leaf, a_proof(leaves, index), Included(authorization, authorised_at, shown.hashes)
    )


REFUSAL = Refusal(
    exchange=EXCHANGE,
    caller=RECEIPT.caller,
    declared=RECEIPT.declared,
    ruling=RECEIPT.ruling,
    provider=RECEIPT.provider,
    model=RECEIPT.model,
    operation="chat",
    request=RECEIPT.request,
    received="2026-11-22T04:30:00.123Z",
    writer=WRITER,
)
DECLARED = DeclarationFacts(
    declaration=DECLARATION,
    project="search",
    use=IntendedUse(purpose="train.sft", student="übersetzer"),
    owner="Zoë",
    at="2026-11-22T04:30:00.123Z",
    writer=WRITER,
)
VERDICT = Verdict(
    approved=True, by="Ada", reason="fine\n\u2028", exchange=EXCHANGE, at="t", writer=WRITER
)
WITHDRAWAL = Withdrawal(
    by="Ada", reason="terms", manifest=Sha256("a" * 64), at="t", writer=WRITER
)
AT = "2026-11-22T04:30:00.123Z"
ORGANISATION = OrganisationFacts(
    facts={"monthly-users": 40_000, "region-supported": True, "headquarters": "DE"},
    measured="2026-10",
    basis="the product's own count",
    by="R. Osei",
    at=AT,
    writer=WRITER,
)
ACTIVATION = Activation(
    library=Sha256("ef" * 32), policies=60, by="gateway serve", at=AT, writer=WRITER
)
TERMS_CHANGE = TermsChange(
    policy="openai",
    version=1,
    document="openai-sa",
    sections=("3.3(e)",),
    snapshot=Sha256("12" * 32),
    by="R. Osei",
    at=AT,
    writer=WRITER,
)
KEY_AUTHORIZATION = KeyAuthorization(
    keyid=Sha256(RECEIPT_SIGNER.keyid),
    key=RECEIPT_SIGNER.public.pem,
    role="receipt",
    expires=AT,
    by="gateway serve",
    at=AT,
    writer=WRITER,
)
AUTHORIZATION: Final = write_statement(KEY_AUTHORIZATION, (), MANIFEST_SIGNER)
"""The leaf that authorises the receipt key above."""

KEY_REVOCATION = KeyRevocation(
    keyid=Sha256(RECEIPT_SIGNER.keyid),
    role="receipt",
    since=7,
    reason="process-ended",
    by="gateway serve",
    at=AT,
    writer=WRITER,
)
LOG_SUCCESSION = LogSuccession(
    origin="log.example/two",
    log="log.example/two+00000000+AAAA",
    predecessor=FrozenLog(
        origin="log.example/one",
        log="log.example/one+00000000+AAAA",
        size=7,
        root=Sha256("ab" * 32),
        note=Sha256("cd" * 32),
    ),
    reason="half a year is over",
    by="R. Osei",
    at=AT,
    writer=WRITER,
)
ERASURE = Erasure(principal="team-a", reason="asked for", by="R. Osei", at=AT, writer=WRITER)
TAKEOVER = Takeover(epoch=2, at=AT, writer=WRITER)
DERIVATION = Derivation(
    derivation=DerivationId(ExchangeId("d-01M7ZWXQ2G4T5V6W7X8Y9Z0ABC")),
    caller=Caller(principal="team-a", project="support"),
    declared=Declared(use=IntendedUse(purpose="data.rewrite"), declaration=DECLARATION),
    transform=Transform(name="clean", version="1.2", kind="rewrite", code=Sha256("ab" * 32)),
    parents=(
        Parent(exchange=EXCHANGE, choice=1, index=4),
        Parent(role="judge", exchange=EXCHANGE, index=4),
    ),
    rows=(
        DerivedRow(
            row=Commitment(alg="sha256-salted", value=Sha256("cd" * 32)),
            bytes=120,
            parents=(0, 1),
            verdict="good",
        ),
    ),
    tags=("nightly",),
    at=AT,
    writer=WRITER,
)
MEMBERS = Members(
    manifest=Sha256("ef" * 32),
    dataset="invoices",
    part=0,
    parts=1,
    first=0,
    bits="eJxjYAAAAAEAAQ==",
    at=AT,
    writer=WRITER,
)
EVERY: list[Predicate] = [
    RECEIPT,
    REFUSAL,
    ABANDONMENT,
    DECLARED,
    VERDICT,
    WITHDRAWAL,
    AGREEMENT,
    ORGANISATION,
    ACTIVATION,
    TERMS_CHANGE,
    KEY_AUTHORIZATION,
    KEY_REVOCATION,
    LOG_SUCCESSION,
    ERASURE,
    TAKEOVER,
    DERIVATION,
    MEMBERS,
]
"""One statement of each kind that is signed."""


def signer_of(predicate: Predicate) -> Ed25519Signer | P256Signer:
    """Return the key above that signs statements of that kind."""
    return MANIFEST_SIGNER if isinstance(predicate, MANIFEST_KEY_SIGNS) else RECEIPT_SIGNER


def an_authority(*statements: Statement, trust: Trust = TRUST) -> Authority:
    """Return whose signature counts where the receipt key was authorised before any leaf.

    *statements* are folded in as leaves 0, 1, 2, …
    """
    authority = Authority(trust)
    for index, statement in enumerate((KEY_AUTHORIZATION, *statements), -1):
        authority.admit(index, statement)
    return authority


AUTHORITY: Final = an_authority()
"""Knows the receipt key above from leaf 0 on."""
