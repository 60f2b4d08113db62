"""Write statements as leaves and read leaves as statements.

Reading checks shape, not signatures (`verify.py` does). There is one way to write a statement,
and only that way is read: what is read would be written as the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, assert_never

import msgspec
import orjson

from gateway.canonical import canonical_json, sha256_hex
from gateway.errors import MalformedReceiptError
from gateway.ident import Sha256
from gateway.limits import LEAF_BYTES_MAX
from gateway.receipt.envelope import Signer, open_envelope, seal_statement
from gateway.receipt.model import (
    ABANDONMENT_TYPE,
    ACTIVATION_TYPE,
    AGREEMENT_TYPE,
    DATASET_BUILD,
    DECLARATION_TYPE,
    DERIVATION_TYPE,
    ERASURE_TYPE,
    EXPORT_BUILD,
    KEY_AUTHORIZATION_TYPE,
    KEY_REVOCATION_TYPE,
    LOG_SUCCESSION_TYPE,
    MEMBERS_TYPE,
    ORGANISATION_TYPE,
    PROVENANCE_TYPE,
    RECEIPT_TYPE,
    REFUSAL_TYPE,
    STATEMENT_TYPE,
    TAKEOVER_TYPE,
    TERMS_CHANGE_TYPE,
    TRAINING_BUILD,
    VERDICT_TYPE,
    WITHDRAWAL_TYPE,
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
    Predicate,
    Receipt,
    Refusal,
    Statement,
    Subject,
    Takeover,
    TermsChange,
    Verdict,
    Withdrawal,
)
from gateway.tlog.text import shown

PREDICATE_TYPES: Final[dict[type[Predicate], str]] = {
    Receipt: RECEIPT_TYPE,
    Refusal: REFUSAL_TYPE,
    Abandonment: ABANDONMENT_TYPE,
    DeclarationFacts: DECLARATION_TYPE,
    Verdict: VERDICT_TYPE,
    Withdrawal: WITHDRAWAL_TYPE,
    AgreementFacts: AGREEMENT_TYPE,
    OrganisationFacts: ORGANISATION_TYPE,
    Activation: ACTIVATION_TYPE,
    TermsChange: TERMS_CHANGE_TYPE,
    KeyAuthorization: KEY_AUTHORIZATION_TYPE,
    KeyRevocation: KEY_REVOCATION_TYPE,
    LogSuccession: LOG_SUCCESSION_TYPE,
    Erasure: ERASURE_TYPE,
    Takeover: TAKEOVER_TYPE,
    Derivation: DERIVATION_TYPE,
    Members: MEMBERS_TYPE,
}
"""Which predicate type each kind of statement carries on the wire."""

MANIFEST_KEY_SIGNS: Final = (Manifest, KeyAuthorization, KeyRevocation, LogSuccession)
"""The kinds that a manifest key signs; all others that are signed, a receipt key does."""

BUILD_TYPES: Final = frozenset({DATASET_BUILD, TRAINING_BUILD, EXPORT_BUILD})

_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_PAYLOAD_START: Final = f'{{"_type":"{STATEMENT_TYPE}"'.encode()
_HEX: Final = "0123456789abcdef"


def write_statement(predicate: Predicate, subjects: Sequence[Subject], signer: Signer) -> bytes:
    """Return the leaf that states *predicate* about *subjects*, signed.

    Where nothing was made that could be named, the statement is about its own exchange or
    declaration, because in-toto asks for a subject.

    Raises:
        MalformedReceiptError: it would be too long for a leaf, a subject has no digest, or
            a text in it is not Unicode.
    """
    about = tuple(subjects) or (subject_of(predicate),)
    _check_subjects(about)
    payload = _write_payload(
        _encode(predicate), PREDICATE_TYPES[type(predicate)], _encode(about)
    )
    return seal_statement(payload, signer)


def subject_of(predicate: Predicate) -> Subject:
    """Return what *predicate* is about: an artefact it digests, else a thing by its name."""
    match predicate:
        case Withdrawal(manifest=str() as manifest):
            return Subject(name="manifest", digest={"sha256": manifest})
        case Receipt() | Refusal() | Abandonment():
            name: str = predicate.exchange
        case DeclarationFacts():
            name = predicate.declaration
        case Verdict():
            name = predicate.exchange or predicate.declaration or "nothing"
        case Withdrawal():
            about = (
                predicate.exchange,
                predicate.derivation,
                predicate.declaration,
                predicate.agreement,
            )
            name = next((one for one in about if one), "nothing")
        case AgreementFacts():
            return Subject(name=predicate.evidence_name, digest={"sha256": predicate.evidence})
        case OrganisationFacts():
            name = "organisation"
        case Activation():
            return Subject(name="library", digest={"sha256": predicate.library})
        case TermsChange():
            return Subject(name=predicate.document, digest={"sha256": predicate.snapshot})
        case KeyAuthorization() | KeyRevocation():
            return Subject(name=f"{predicate.role} key", digest={"sha256": predicate.keyid})
        case LogSuccession():
            frozen = predicate.predecessor
            return Subject(name=frozen.origin, digest={"sha256": frozen.note})
        case Erasure():
            who = (predicate.exchange, predicate.principal, predicate.project)
            named = (*who, predicate.before, predicate.overdue)
            name = next((one for one in named if one), "nothing")
        case Takeover():
            name = "sequencer"
        case Derivation():
            name = predicate.derivation
        case Members():
            return Subject(name=predicate.dataset, digest={"sha256": predicate.manifest})
        case _:
            assert_never(predicate)
    return Subject(name=name, digest={"sha256": sha256_hex(name.encode())})


def write_opening(opening: Opening) -> bytes:
    """Return the leaf of *opening*: canonical JSON without a signature of its own.

    Raises:
        MalformedReceiptError: it would be too long for a leaf, or a text in it is not Unicode.
    """
    leaf = _encode(opening)
    if len(leaf) > LEAF_BYTES_MAX:
        raise MalformedReceiptError(
            f"the opening makes a leaf of {len(leaf)} bytes; {LEAF_BYTES_MAX} is the most",
            code="receipt.too_large",
        )
    return leaf


def read_leaf(leaf: bytes) -> Statement:
    """Return the statement that *leaf* holds, unverified.

    Raises:
        MalformedReceiptError: it holds none, or not in the one way to write it.
    """
    if leaf.startswith(_ENVELOPE_START):
        return read_payload(open_envelope(leaf).payload)
    return _read_opening(leaf)


def is_opening(leaf: bytes) -> bool:
    """Tell whether *leaf* is not an envelope, and so can only be an opening."""
    return not leaf.startswith(_ENVELOPE_START)


def read_payload(payload: bytes) -> Statement:
    """Return the statement that the payload of an envelope spells.

    Raises:
        MalformedReceiptError: it spells none, or not in the one way to write it.
    """
    wire = _read_wire(payload)
    if wire.predicate_type == PROVENANCE_TYPE:
        return _read_manifest(payload)
    decoder = _DECODERS.get(wire.predicate_type)
    if decoder is None:
        raise MalformedReceiptError(
            f"unknown kind of statement: `{shown(wire.predicate_type)}`",
            hint="a newer gateway may know it",
        )
    try:
        predicate = decoder.decode(wire.predicate)
    except (msgspec.MsgspecError, ValueError, RecursionError) as broken:
        raise MalformedReceiptError(f"not a statement: {shown(broken)}") from broken
    again = _write_payload(
        _ENCODER.encode(predicate), wire.predicate_type, _ENCODER.encode(wire.subject)
    )
    if again != payload:
        raise MalformedReceiptError("the statement is not written in the canonical form")
    return predicate


def statement_subjects(leaf: bytes) -> tuple[Subject, ...]:
    """Return what the statement in *leaf* is about; an opening is about nothing yet.

    Raises:
        MalformedReceiptError: it holds no statement.
    """
    if is_opening(leaf):
        _read_opening(leaf)
        return ()
    return _read_wire(open_envelope(leaf).payload).subject


def signing_key(leaf: bytes) -> str | None:
    """Return the receipt key that *leaf* says signed it, or `None` where none did.

    Openings are not signed; manifests and what is said of keys and logs are signed by others.

    Raises:
        MalformedReceiptError: it holds no statement.
    """
    if is_opening(leaf) or isinstance(read_leaf(leaf), MANIFEST_KEY_SIGNS):
        return None
    return open_envelope(leaf).signatures[0].keyid


def payload_sha256(leaf: bytes) -> Sha256:
    """Return the SHA-256 of the payload in *leaf*: the name of a manifest in lineage.

    Raises:
        MalformedReceiptError: it is not an envelope.
    """
    return sha256_hex(open_envelope(leaf).payload)


class _Wire(msgspec.Struct, forbid_unknown_fields=True):
    type: str = msgspec.field(name="_type")
    predicate: msgspec.Raw
    predicate_type: str = msgspec.field(name="predicateType")
    subject: tuple[Subject, ...]


_WIRE: Final = msgspec.json.Decoder(_Wire)
_OPENING: Final = msgspec.json.Decoder(Opening)
_DECODERS: Final[dict[str, msgspec.json.Decoder[Predicate]]] = {
    name: msgspec.json.Decoder(kind) for kind, name in PREDICATE_TYPES.items()
}
_ENVELOPE_START: Final = b'{"payload"'


def _encode(statement: object) -> bytes:
    try:
        return _ENCODER.encode(statement)
    except UnicodeEncodeError as broken:
        raise MalformedReceiptError("a text in the statement is not Unicode") from broken


def _write_payload(predicate: bytes, predicate_type: str, subjects: bytes) -> bytes:
    return b'%b,"predicate":%b,"predicateType":"%b","subject":%b}' % (
        _PAYLOAD_START,
        predicate,
        predicate_type.encode(),
        subjects,
    )


def _read_wire(payload: bytes) -> _Wire:
    try:
        wire = _WIRE.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as broken:
        raise MalformedReceiptError(f"not a statement: {shown(broken)}") from broken
    if wire.type != STATEMENT_TYPE:
        raise MalformedReceiptError(f"not an in-toto Statement v1: `{shown(wire.type)}`")
    _check_subjects(wire.subject)
    return wire


def _read_opening(leaf: bytes) -> Opening:
    if len(leaf) > LEAF_BYTES_MAX:
        raise MalformedReceiptError(f"a leaf is at most {LEAF_BYTES_MAX} bytes")
    try:
        opening = _OPENING.decode(leaf)
    except (msgspec.MsgspecError, ValueError, RecursionError) as broken:
        raise MalformedReceiptError(
            f"neither an envelope nor an opening: {shown(broken)}"
        ) from broken
    if _ENCODER.encode(opening) != leaf:
        raise MalformedReceiptError("the opening is not written in the canonical form")
    return opening


def _read_manifest(payload: bytes) -> Manifest:
    try:
        statement: dict[str, Any] = orjson.loads(payload)
        again = canonical_json(statement)
    except (ValueError, TypeError, RecursionError) as broken:
        raise MalformedReceiptError(f"not a manifest: {shown(broken)}") from broken
    if again != payload:
        raise MalformedReceiptError("the manifest is not written in the canonical form")
    match statement["predicate"]:
        case {"buildDefinition": {"buildType": str() as build_type}}:
            if build_type in BUILD_TYPES:
                return Manifest(
                    build_type=build_type,
                    payload_sha256=sha256_hex(payload),
                    statement=statement,
                )
            raise MalformedReceiptError(f"unknown kind of manifest: `{shown(build_type)}`")
        case _:
            raise MalformedReceiptError("the manifest names no `buildDefinition.buildType`")


def _check_subjects(subjects: Sequence[Subject]) -> None:
    if not subjects:
        raise MalformedReceiptError("the statement names no subject")
    for subject in subjects:
        digest = subject.digest.get("sha256", "")
        if len(digest) != 64 or digest.strip(_HEX):
            raise MalformedReceiptError(
                f"subject `{shown(subject.name)}` has no `sha256` of 64 hex digits"
            )
