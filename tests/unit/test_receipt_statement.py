"""Laws of statements."""

from __future__ import annotations

import msgspec
import pytest

from gateway.canonical import canonical_json, sha256_hex
from gateway.errors import MalformedReceiptError
from gateway.ident import Sha256
from gateway.limits import LEAF_BYTES_MAX, OUTPUTS_PER_EXCHANGE_MAX
from gateway.receipt.envelope import open_envelope, seal_statement, seal_unnamed
from gateway.receipt.model import (
    DATASET_BUILD,
    Commitment,
    Manifest,
    OutputFacts,
    Predicate,
    Subject,
)
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import (
    PREDICATE_TYPES,
    is_opening,
    payload_sha256,
    read_leaf,
    read_payload,
    signing_key,
    statement_subjects,
    subject_of,
    write_opening,
    write_statement,
)
from tests.support.evidence import (
    ABANDONMENT,
    DECLARATION,
    DECLARED,
    EVERY,
    EXCHANGE,
    MANIFEST_SIGNER,
    OPENING,
    RECEIPT,
    RECEIPT_SIGNER,
    SUBJECTS,
    VERDICT,
    WITHDRAWAL,
    a_manifest,
    signer_of,
)

PAYLOAD = open_envelope(write_statement(RECEIPT, SUBJECTS, RECEIPT_SIGNER)).payload


def test_every_kind_is_here() -> None:
    """Each kind of statement has its predicate type, and no two share one."""
    assert {type(one) for one in EVERY} == set(PREDICATE_TYPES)
    assert len(set(PREDICATE_TYPES.values())) == len(PREDICATE_TYPES)


@pytest.mark.parametrize("predicate", EVERY, ids=lambda one: type(one).__name__)
def test_a_statement_is_read_as_written(predicate: Predicate) -> None:
    """A leaf gives back its statement and its subjects."""
    leaf = write_statement(predicate, SUBJECTS, RECEIPT_SIGNER)

    assert read_leaf(leaf) == predicate
    assert statement_subjects(leaf) == SUBJECTS
    assert not is_opening(leaf)


@pytest.mark.parametrize("predicate", EVERY, ids=lambda one: type(one).__name__)
def test_a_payload_is_canonical(predicate: Predicate) -> None:
    """The signed bytes are the house's canonical JSON."""
    payload = open_envelope(write_statement(predicate, SUBJECTS, RECEIPT_SIGNER)).payload

    assert payload == canonical_json(msgspec.json.decode(payload))


@pytest.mark.parametrize("predicate", EVERY, ids=lambda one: type(one).__name__)
def test_a_statement_is_always_about_something(predicate: Predicate) -> None:
    """Without an artefact it is about its exchange, declaration or manifest by name."""
    leaf = write_statement(predicate, [], RECEIPT_SIGNER)

    assert statement_subjects(leaf) == (subject_of(predicate),)


def test_subjects_by_name_have_the_digest_of_the_name() -> None:
    """An exchange is named by its id; a withdrawn manifest by its own digest."""
    digest = sha256_hex(EXCHANGE.encode())

    assert subject_of(ABANDONMENT) == Subject(name=EXCHANGE, digest={"sha256": digest})
    assert subject_of(VERDICT).name == EXCHANGE
    assert subject_of(msgspec.structs.replace(VERDICT, exchange=None)).name == "nothing"
    assert subject_of(DECLARED).name == DECLARATION
    assert subject_of(WITHDRAWAL).digest == {"sha256": "a" * 64}


def test_an_opening_is_read_as_written() -> None:
    """An opening is plain canonical JSON, about nothing yet."""
    leaf = write_opening(OPENING)

    assert read_leaf(leaf) == OPENING
    assert leaf == canonical_json(msgspec.json.decode(leaf))
    assert statement_subjects(leaf) == ()
    assert is_opening(leaf)
    assert len(leaf) < 400


def test_a_manifest_is_named_by_its_payload() -> None:
    """A manifest read from its leaf carries the digest that lineage uses."""
    payload = canonical_json(a_manifest())
    leaf = seal_unnamed(payload, MANIFEST_SIGNER)
    expected = Manifest(
        build_type=DATASET_BUILD, payload_sha256=sha256_hex(payload), statement=a_manifest()
    )

    assert read_leaf(leaf) == expected
    assert payload_sha256(leaf) == expected.payload_sha256


@pytest.mark.parametrize(
    "subject", [Subject(name="a", digest={}), Subject(name="a", digest={"sha256": "A" * 64})]
)
def test_a_subject_needs_its_digest(subject: Subject) -> None:
    """What is not named by SHA-256 in lower-case hex is no subject."""
    with pytest.raises(MalformedReceiptError):
        write_statement(RECEIPT, [subject], RECEIPT_SIGNER)


def test_text_that_is_not_unicode_is_not_stated() -> None:
    """A lone surrogate, such as undecodable header bytes leave, makes no statement."""
    for text in ("\ud800", "\udcff"):
        with pytest.raises(MalformedReceiptError):
            write_opening(msgspec.structs.replace(OPENING, principal=text))
        with pytest.raises(MalformedReceiptError):
            write_statement(msgspec.structs.replace(VERDICT, by=text), [], RECEIPT_SIGNER)


def test_an_opening_too_long_for_a_leaf_is_not_written() -> None:
    """What tiles could not hold never becomes a leaf."""
    with pytest.raises(MalformedReceiptError) as caught:
        write_opening(msgspec.structs.replace(OPENING, principal="a" * LEAF_BYTES_MAX))

    assert caught.value.problem == "receipt.too_large"


def test_a_full_list_of_outputs_fits_a_leaf() -> None:
    """A receipt that lists as many outputs as it may fits, with room to spare."""
    unit = OutputFacts(
        choice=100,
        kind="reasoning",
        bytes=1_000_000,
        sha256=Sha256("a" * 64),
        row=Commitment(alg="sha256-salted", value=Sha256("b" * 64)),
    )
    subject = Subject(name="reasoning/100", digest={"sha256": "a" * 64})
    full = msgspec.structs.replace(RECEIPT, outputs=(unit,) * OUTPUTS_PER_EXCHANGE_MAX)
    leaf = write_statement(full, [subject] * OUTPUTS_PER_EXCHANGE_MAX, RECEIPT_SIGNER)

    assert len(leaf) < LEAF_BYTES_MAX * 3 // 4


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"\xff",
        b"{" * 60_000,
        PAYLOAD + b" ",
        PAYLOAD.replace(b"Statement/v1", b"Statement/v0"),
        PAYLOAD.replace(b"usage-receipt/v1", b"usage-receipt/v2"),
        PAYLOAD.replace(b"usage-receipt/v1", b"refusal/v1"),
        PAYLOAD.replace(b'"opening":4', b'"opening":"4"'),
        PAYLOAD.replace(b'"opening":4', b'"opening":4,"extra":1'),
        PAYLOAD.replace(b'"opening":4', b'"opening":3,"opening":4'),
        PAYLOAD.replace(b'"opening":4', b'"opening": 4'),
        PAYLOAD.replace(b'"opening":4', b'"opening":4.0'),
        PAYLOAD.replace(b'"opening":4', b'"opening":' + b"9" * 5000),
        PAYLOAD.replace(b'"reported"', b'"\\u0072eported"'),
        PAYLOAD[: PAYLOAD.index(b'"subject"')] + b'"subject":[]}',
        canonical_json({**a_manifest(), "predicate": {}}),
        canonical_json({**a_manifest(), "predicate": []}),
        canonical_json({**a_manifest(), "predicate": {"buildDefinition": {"buildType": "x"}}}),
        canonical_json({**a_manifest(), "subject": []}),
        canonical_json(a_manifest()).replace(b"0.5", b"5e-1"),
        canonical_json(a_manifest()).replace(b"0.5", b"NaN"),
        canonical_json(a_manifest()).replace(b"0.5", b'"\xff"'),
        canonical_json(a_manifest()).replace(b"0.5", b"9" * 400),
    ],
)
def test_what_is_no_statement_is_refused(payload: bytes) -> None:
    """A payload that departs from its one form is malformed, signed or not."""
    with pytest.raises(MalformedReceiptError):
        read_payload(payload)
    with pytest.raises(MalformedReceiptError):
        read_leaf(seal_statement(payload, RECEIPT_SIGNER))


@pytest.mark.parametrize(
    "leaf",
    [
        b"",
        b"null",
        write_opening(OPENING) + b"\n",
        write_opening(OPENING).replace(b"opening/v1", b"opening/v2"),
        write_opening(OPENING).replace(b'"at"', b'"zz":1,"at"'),
        write_opening(OPENING) + b" " * LEAF_BYTES_MAX,
    ],
)
def test_what_is_no_opening_is_refused(leaf: bytes) -> None:
    """A leaf that is no envelope must be an opening in its one form."""
    with pytest.raises(MalformedReceiptError):
        read_leaf(leaf)
    with pytest.raises(MalformedReceiptError):
        statement_subjects(leaf)
    with pytest.raises(MalformedReceiptError):
        payload_sha256(leaf)


@pytest.mark.parametrize("predicate", EVERY, ids=lambda one: type(one).__name__)
def test_who_signed_is_said_of_receipt_keys_alone(predicate: Predicate) -> None:
    """A leaf tells which receipt key signed it; what others sign names none."""
    signer = signer_of(predicate)
    leaf = write_statement(predicate, (), signer)

    named = signer.keyid if signer is RECEIPT_SIGNER else None
    assert signing_key(leaf) == named
    assert signing_key(write_opening(OPENING)) is None
    assert signing_key(write_manifest(a_manifest(), MANIFEST_SIGNER)[1]) is None
