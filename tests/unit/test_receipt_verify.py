"""Laws of the verifier."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import msgspec
import pytest

from gateway.canonical import canonical_json
from gateway.errors import (
    BadDigestError,
    BadProofError,
    BadSignatureError,
    EvidenceError,
    MalformedReceiptError,
)
from gateway.ident import Sha256
from gateway.receipt.bundle import format_bundle
from gateway.receipt.envelope import seal_statement, seal_unnamed, verify_envelope
from gateway.receipt.keys import (
    Ed25519Signer,
    LogSigner,
    P256Signer,
    Predecessor,
    RevokedKey,
    WitnessSigner,
    format_trust,
    generate_pem,
)
from gateway.receipt.model import Manifest
from gateway.receipt.sigstore import wrap_leaf, write_manifest, write_trust_signature
from gateway.receipt.statement import write_opening, write_statement
from gateway.receipt.verify import (
    document_keys,
    read_checkpoint,
    verify_bundle,
    verify_checkpoint,
    verify_inclusion_of,
    verify_leaf,
    verify_manifest,
    verify_trust,
)
from gateway.tlog.cosignature import add_cosignatures, cosign
from gateway.tlog.merkle import leaf_hash, root_of
from gateway.tlog.note import parse_note, sign_note
from tests.support.evidence import (
    AT,
    AUTHORITY,
    AUTHORIZATION,
    KEY_AUTHORIZATION,
    LOG_SIGNER,
    MANIFEST_SIGNER,
    OPENING,
    ORIGIN,
    RECEIPT,
    RECEIPT_SIGNER,
    SUBJECTS,
    TRUST,
    a_bundle,
    a_manifest,
    a_note,
)

LEAF = write_statement(RECEIPT, SUBJECTS, RECEIPT_SIGNER)
BUNDLE = a_bundle(LEAF, authorization=AUTHORIZATION)
MANIFEST, MANIFEST_LEAF = write_manifest(a_manifest(), MANIFEST_SIGNER)


def test_a_good_bundle_verifies() -> None:
    """A bundle gives its statement, its place and the checkpoint that covers it."""
    told: list[str] = []
    verified = verify_bundle(format_bundle(BUNDLE), TRUST, lambda check, _: told.append(check))

    assert verified.statement == RECEIPT
    assert (verified.index, verified.checkpoint.size, verified.leaf) == (5, 11, LEAF)
    assert verified.keyid == RECEIPT_SIGNER.keyid
    assert told == ["checkpoint", "authorised", "signature", "inclusion"]


def test_an_opening_is_evidence_under_a_checkpoint() -> None:
    """An opening has no signature; inclusion under a signed checkpoint stands for it."""
    opened = verify_bundle(format_bundle(a_bundle(write_opening(OPENING))), TRUST)

    assert opened.statement == OPENING
    assert opened.keyid is None


def test_a_manifest_verifies_as_a_file_and_as_a_leaf() -> None:
    """The Sigstore bundle and the leaf give the same manifest."""
    told: list[str] = []
    statement, payload_sha256 = verify_manifest(MANIFEST, TRUST)
    encoded = format_bundle(a_bundle(MANIFEST_LEAF))
    leaf = verify_bundle(encoded, TRUST, lambda _, found: told.append(found)).statement

    assert statement == a_manifest()
    assert isinstance(leaf, Manifest)
    assert leaf.payload_sha256 == payload_sha256
    assert told[1].startswith("manifest key")


def test_roles_are_not_exchanged() -> None:
    """A receipt key signs no manifest and a manifest key no receipt."""
    payload = canonical_json(a_manifest())
    as_receipt = write_statement(RECEIPT, SUBJECTS, MANIFEST_SIGNER)
    as_manifest = seal_statement(payload, RECEIPT_SIGNER)
    unnamed_receipt = seal_unnamed(payload, RECEIPT_SIGNER)

    for leaf in (as_receipt, as_manifest, unnamed_receipt):
        with pytest.raises(BadSignatureError):
            verify_leaf(leaf, 0, AUTHORITY)


def test_a_trusted_key_signs_only_its_form() -> None:
    """A manifest key's signature under a receipt's payload makes no receipt."""
    payload = verify_leaf_payload(LEAF)

    with pytest.raises(BadSignatureError):
        verify_leaf(seal_unnamed(payload, MANIFEST_SIGNER), 0, AUTHORITY)
    with pytest.raises(MalformedReceiptError):
        verify_manifest(
            wrap_leaf(seal_unnamed(payload, MANIFEST_SIGNER), MANIFEST_SIGNER.keyid), TRUST
        )


def verify_leaf_payload(leaf: bytes) -> bytes:
    """Return the payload of *leaf*, checked under the receipt key."""
    return verify_envelope(leaf, {RECEIPT_SIGNER.keyid: RECEIPT_SIGNER.public})


def test_strangers_are_not_believed() -> None:
    """Keys outside the trust file verify nothing, under whatever hint."""
    receipt = write_statement(RECEIPT, SUBJECTS, Ed25519Signer(generate_pem("ed25519")))
    stranger = P256Signer(generate_pem("p256"))
    _, leaf = write_manifest(a_manifest(), stranger)

    with pytest.raises(BadSignatureError):
        verify_leaf(receipt, 0, AUTHORITY)
    with pytest.raises(BadSignatureError):
        verify_leaf(leaf, 0, AUTHORITY)
    with pytest.raises(BadSignatureError):
        verify_manifest(wrap_leaf(leaf, stranger.keyid), TRUST)
    with pytest.raises(BadSignatureError):
        verify_manifest(wrap_leaf(leaf, MANIFEST_SIGNER.keyid), TRUST)


def test_another_log_is_not_believed() -> None:
    """A checkpoint by another key, or of another origin, covers nothing."""
    other_key = LogSigner(generate_pem("ed25519"), ORIGIN)
    other_name = LogSigner(generate_pem("ed25519"), "other.example/log")

    for signer in (other_key, other_name):
        with pytest.raises(EvidenceError, match=r"of `other|no signature by"):
            verify_checkpoint(a_note([b"leaf"], signer), TRUST)


def test_a_key_does_not_vouch_for_another_origin() -> None:
    """A note signed by the log's key but naming another origin is refused."""
    note = sign_note(f"other.example/log\n1\n{'A' * 43}=\n", [LOG_SIGNER])
    with pytest.raises(BadProofError):
        verify_checkpoint(note, TRUST)


def test_a_leaf_is_included_where_it_is_alone() -> None:
    """A proof for one leaf or index shows nothing about another."""
    assert verify_inclusion_of(LEAF, BUNDLE.proof, TRUST).size == 11
    with pytest.raises(BadProofError):
        verify_inclusion_of(LEAF + b" ", BUNDLE.proof, TRUST)
    with pytest.raises(BadProofError):
        verify_inclusion_of(LEAF, replace(BUNDLE.proof, index=6), TRUST)


def test_a_signed_leaf_outside_the_log_fails() -> None:
    """A good signature alone makes no good bundle."""
    other = write_statement(
        msgspec.structs.replace(RECEIPT, opening=9), SUBJECTS, RECEIPT_SIGNER
    )

    with pytest.raises(BadProofError):
        verify_bundle(format_bundle(replace(BUNDLE, leaf=other)), TRUST)


def test_the_authorisation_comes_first() -> None:
    """A statement that stands before its key's authorisation is not evidence."""
    for index, at in ((2, 5), (0, 1)):
        early = a_bundle(LEAF, index=index, authorization=AUTHORIZATION, authorised_at=at)
        with pytest.raises(BadSignatureError, match=f"not authorised before leaf {index}"):
            verify_bundle(format_bundle(early), TRUST)


def test_a_bundle_needs_its_authorisation_and_no_other() -> None:
    """Without it, with another key's, or beside a leaf that needs none, nothing verifies."""
    stranger = Ed25519Signer(generate_pem("ed25519"))
    of_stranger = msgspec.structs.replace(
        KEY_AUTHORIZATION, keyid=Sha256(stranger.keyid), key=stranger.public.pem
    )
    others = write_statement(of_stranger, (), MANIFEST_SIGNER)
    of_manifest_key = write_statement(
        msgspec.structs.replace(
            KEY_AUTHORIZATION,
            keyid=Sha256(MANIFEST_SIGNER.keyid),
            key=MANIFEST_SIGNER.public.pem,
            role="manifest",
        ),
        (),
        MANIFEST_SIGNER,
    )
    self_made = write_statement(of_stranger, (), stranger)
    for leaf, authorization, error in (
        (LEAF, None, BadSignatureError),
        (LEAF, others, BadSignatureError),
        (LEAF, of_manifest_key, MalformedReceiptError),
        (LEAF, write_statement(RECEIPT, SUBJECTS, RECEIPT_SIGNER), BadSignatureError),
        (write_statement(RECEIPT, SUBJECTS, stranger), self_made, BadSignatureError),
        (write_opening(OPENING), AUTHORIZATION, BadSignatureError),
        (MANIFEST_LEAF, AUTHORIZATION, BadSignatureError),
    ):
        bundle = a_bundle(leaf, authorization=authorization)
        with pytest.raises(error):
            verify_bundle(format_bundle(bundle), TRUST)


def test_an_authorisation_outside_the_log_fails() -> None:
    """A signature of the manifest key alone authorises nobody: it must be a leaf, and there."""
    assert BUNDLE.authorization is not None
    for changed in (
        {"index": 3},
        {"hashes": BUNDLE.authorization.hashes[:-1]},
        {"hashes": BUNDLE.proof.hashes},
    ):
        bent_bundle = replace(BUNDLE, authorization=replace(BUNDLE.authorization, **changed))
        with pytest.raises(BadProofError):
            verify_bundle(format_bundle(bent_bundle), TRUST)


@pytest.mark.parametrize("since", [0, 3, 5, 6])
def test_a_revoked_key_ends_where_the_trust_file_says(since: int) -> None:
    """From the leaf that the trust file names on, nothing by the key is evidence."""
    revoked = (RevokedKey(keyid=Sha256(RECEIPT_SIGNER.keyid), since=since),)
    trust = msgspec.structs.replace(TRUST, revoked=revoked)

    if since > 5:
        assert verify_bundle(format_bundle(BUNDLE), trust).index == 5
    else:
        with pytest.raises(BadSignatureError, match=f"revoked since leaf {since}"):
            verify_bundle(format_bundle(BUNDLE), trust)


def test_a_bundle_of_an_authorisation_is_one_like_any_other() -> None:
    """What a manifest key says of keys is shown without an authorisation."""
    shown = verify_bundle(format_bundle(a_bundle(AUTHORIZATION)), TRUST)

    assert (shown.statement, shown.keyid) == (KEY_AUTHORIZATION, MANIFEST_SIGNER.keyid)


def test_a_manifest_key_counts_for_its_interval() -> None:
    """With its place known a manifest counts where its key might sign, else unless revoked."""
    ended = msgspec.structs.replace(TRUST.manifest_keys[0], until=6)
    trust = msgspec.structs.replace(TRUST, manifest_keys=(ended,))
    stolen = msgspec.structs.replace(
        trust, revoked=(RevokedKey(keyid=Sha256(MANIFEST_SIGNER.keyid), since=6),)
    )

    assert verify_manifest(MANIFEST, trust) == verify_manifest(MANIFEST, trust, 5)
    assert verify_manifest(MANIFEST, stolen, 5) == verify_manifest(MANIFEST, trust)
    assert document_keys(trust).keys() == {MANIFEST_SIGNER.keyid}
    assert not document_keys(stolen)
    with pytest.raises(BadSignatureError, match="revoked since leaf 6"):
        verify_manifest(MANIFEST, trust, 6)
    with pytest.raises(BadSignatureError, match="wrong hands"):
        verify_manifest(MANIFEST, stolen)


WITNESSES = [WitnessSigner(generate_pem("ed25519"), f"witness.example/w{n}") for n in range(3)]
WATCHED = msgspec.structs.replace(
    TRUST, witnesses=tuple(one.vkey for one in WITNESSES), quorum=2
)


def cosigned(note: str, witnesses: list[WitnessSigner]) -> str:
    """Return *note* with the cosignatures of *witnesses*."""
    text, _ = parse_note(note)
    return add_cosignatures(note, [cosign(text, one, 1_800_000_000) for one in witnesses])


def test_a_quorum_of_witnesses_must_have_cosigned() -> None:
    """With a quorum in the trust file, a checkpoint that too few cosigned shows nothing."""
    told: list[str] = []
    for witnesses in ([], WITNESSES[:1], [WITNESSES[0], WITNESSES[0]]):
        note = cosigned(BUNDLE.proof.checkpoint, witnesses)
        bundle = replace(BUNDLE, proof=replace(BUNDLE.proof, checkpoint=note))
        with pytest.raises(BadSignatureError, match="of the trusted witnesses"):
            verify_bundle(format_bundle(bundle), WATCHED)
        with pytest.raises(BadSignatureError):
            verify_checkpoint(note, WATCHED)
        assert read_checkpoint(note, WATCHED).size == 11
    note = cosigned(BUNDLE.proof.checkpoint, WITNESSES[1:])
    bundle = replace(BUNDLE, proof=replace(BUNDLE.proof, checkpoint=note))
    shown = verify_bundle(format_bundle(bundle), WATCHED, lambda check, _: told.append(check))

    assert [one.name for one in shown.cosigned] == [one.name for one in WITNESSES[1:]]
    assert "witnesses" in told


OLD_LOG = LogSigner(generate_pem("ed25519"), "old.example/log")
FROZEN = Predecessor(
    origin=OLD_LOG.name,
    log=OLD_LOG.vkey,
    size=3,
    root=Sha256(root_of([leaf_hash(b"leaf")] * 3).hex()),
    trusted=True,
)


def test_a_predecessor_counts_up_to_where_it_was_frozen() -> None:
    """Its checkpoints verify up to the frozen size; at that size with the frozen root alone."""
    trust = msgspec.structs.replace(TRUST, predecessors=(FROZEN,))
    stolen = msgspec.structs.replace(
        TRUST, predecessors=(msgspec.structs.replace(FROZEN, trusted=False),)
    )
    for count in (1, 3):
        note = a_note([b"leaf"] * count, OLD_LOG)

        assert verify_checkpoint(note, trust).origin == OLD_LOG.name
        with pytest.raises(BadSignatureError, match="wrong hands"):
            verify_checkpoint(note, stolen)
        with pytest.raises(BadProofError, match="not of"):
            verify_checkpoint(note, TRUST)
    for leaves in ([b"leaf"] * 4, [b"leaf", b"leaf", b"other"]):
        with pytest.raises(BadProofError, match="was frozen at 3"):
            verify_checkpoint(a_note(leaves, OLD_LOG), trust)
    impostor = LogSigner(generate_pem("ed25519"), OLD_LOG.name)
    with pytest.raises(BadSignatureError):
        verify_checkpoint(a_note([b"leaf"], impostor), trust)


def test_the_root_vouches_for_what_it_signed_alone() -> None:
    """Another statement by the root, or about another log, vouches for no trust file."""
    root = P256Signer(generate_pem("p256"))
    trust_file = format_trust(TRUST)
    good = write_trust_signature(trust_file, ORIGIN, AT, root)
    assert verify_trust(trust_file, good, root.public) == (TRUST, AT)

    with pytest.raises(BadSignatureError, match="not by the root"):
        verify_trust(trust_file, good, MANIFEST_SIGNER.public)
    with pytest.raises(BadDigestError):
        verify_trust(trust_file + b" ", good, root.public)
    _, leaf = write_manifest(a_manifest(), root)
    elsewhere = write_trust_signature(trust_file, "other.example/log", AT, root)
    for signature in (wrap_leaf(leaf, root.keyid), elsewhere):
        with pytest.raises(MalformedReceiptError):
            verify_trust(trust_file, signature, root.public)


MASKS = (0x01, 0x20, 0x80)


def bent(content: bytes, at: int, mask: int) -> bytes:
    """Return *content* with some bits of one byte turned."""
    return content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]


@pytest.mark.parametrize("mask", MASKS)
def test_no_byte_of_a_leaf_can_change(mask: int) -> None:
    """A leaf with any one byte changed does not verify."""
    for leaf in (LEAF, MANIFEST_LEAF):
        for at in range(len(leaf)):
            with pytest.raises(EvidenceError):
                verify_leaf(bent(leaf, at, mask), 0, AUTHORITY)


@pytest.mark.parametrize("mask", MASKS)
def test_no_byte_of_a_bundle_can_change(mask: int) -> None:
    """A bundle with any one byte changed does not verify: leaf, proof or checkpoint."""
    encoded = format_bundle(BUNDLE)
    for at in range(len(encoded)):
        with pytest.raises(EvidenceError):
            verify_bundle(bent(encoded, at, mask), TRUST)


@pytest.mark.parametrize("mask", MASKS)
def test_no_byte_of_a_manifest_can_change(mask: int) -> None:
    """A manifest with any one byte changed does not verify."""
    for at in range(len(MANIFEST)):
        with pytest.raises(EvidenceError):
            verify_manifest(bent(MANIFEST, at, mask), TRUST)


@pytest.mark.parametrize("mask", MASKS)
def test_no_byte_of_a_checkpoint_can_change(mask: int) -> None:
    """A signed note with any one byte changed does not open."""
    note = BUNDLE.proof.checkpoint.encode()
    for at in range(len(note)):
        with pytest.raises(EvidenceError):
            verify_checkpoint(bent(note, at, mask).decode("utf-8", "surrogateescape"), TRUST)


def test_the_verifier_loads_no_server() -> None:
    """Importing the verifier loads no server, store, settings or policy engine."""
    heavy = "{'aiohttp', 'apsw', 'yaml', 'structlog', 'sqlite_utils', 'asyncio'}"
    rooms = "('gateway.policy', 'gateway.store', 'gateway.proxy', 'gateway.settings')"
    program = (
        "import sys, gateway.receipt.verify\n"
        f"print([m for m in sys.modules if m in {heavy} or m.startswith({rooms})])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert found.stdout == "[]\n"
