"""Laws of keys and trust."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.errors import BadProofError, BadSignatureError, KeyUnreadableError
from gateway.errors import MalformedReceiptError as Malformed
from gateway.limits import TRUST_BYTES_MAX
from gateway.receipt.keys import (
    Ed25519Signer,
    LogSigner,
    P256Signer,
    PublicKey,
    Trust,
    format_trust,
    generate_pem,
    parse_public_pem,
    parse_trust,
    trusted_keys,
)
from gateway.tlog.note import parse_vkey
from tests.support.evidence import LOG_SIGNER, MANIFEST_SIGNER, RECEIPT_SIGNER, TRUST

Signing = type[Ed25519Signer] | type[P256Signer]


@pytest.mark.parametrize("signer", [RECEIPT_SIGNER, MANIFEST_SIGNER])
def test_a_signature_fits_its_key_and_message(signer: Ed25519Signer | P256Signer) -> None:
    """A signature verifies under its own key over its own message alone."""
    signature = signer.sign(b"message")
    stranger = type(signer)(
        generate_pem("ed25519" if isinstance(signer, Ed25519Signer) else "p256")
    )

    signer.public.verify(signature, b"message")
    with pytest.raises(BadSignatureError):
        signer.public.verify(signature, b"massage")
    with pytest.raises(BadSignatureError):
        stranger.public.verify(signature, b"message")
    with pytest.raises(BadSignatureError):
        signer.public.verify(b"", b"message")


def test_the_log_signs_what_its_vkey_verifies() -> None:
    """A log's signature verifies under the vkey that is handed out."""
    parse_vkey(LOG_SIGNER.vkey).verify(b"text\n", LOG_SIGNER.sign(b"text\n"))


def test_a_public_key_is_read_back() -> None:
    """The PEM of a public key gives the same key id."""
    assert parse_public_pem(RECEIPT_SIGNER.public.pem).keyid == RECEIPT_SIGNER.keyid
    assert parse_public_pem(MANIFEST_SIGNER.public.pem).keyid == MANIFEST_SIGNER.keyid


def test_a_key_keeps_to_its_kind() -> None:
    """A key of another kind does not sign in a role that is not its own."""
    with pytest.raises(KeyUnreadableError):
        Ed25519Signer(generate_pem("p256"))
    with pytest.raises(KeyUnreadableError):
        P256Signer(generate_pem("ed25519"))
    with pytest.raises(KeyUnreadableError):
        LogSigner(generate_pem("p256"), "log")


def test_another_curve_does_not_sign() -> None:
    """Manifests are signed on P-256, on no other curve."""
    key = ec.generate_private_key(ec.SECP384R1())

    with pytest.raises(KeyUnreadableError):
        P256Signer(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(Malformed):
        parse_public_pem(PublicKey(key.public_key()).pem)


def test_a_log_has_a_name_for_a_key() -> None:
    """An origin with a blank can't be signed under."""
    with pytest.raises(BadProofError):
        LogSigner(generate_pem("ed25519"), "my log")


@pytest.mark.parametrize("pem", [b"", b"nonsense", generate_pem("ed25519")[:-40]])
def test_what_is_no_key_is_refused(pem: bytes) -> None:
    """Bytes that hold no key give an error for the operator."""
    with pytest.raises(KeyUnreadableError):
        Ed25519Signer(pem)


def test_an_encrypted_key_is_refused() -> None:
    """A key behind a password is not asked for one."""
    key = load_pem_private_key(generate_pem("ed25519"), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))

    with pytest.raises(KeyUnreadableError):
        Ed25519Signer(pem)


def test_trust_is_read_as_written() -> None:
    """A trust file says what was put into it."""
    assert parse_trust(format_trust(TRUST)) == TRUST


def test_keys_are_found_by_role() -> None:
    """Each key of a trust file stands in its own role."""
    keys = trusted_keys(TRUST)

    assert [RECEIPT_SIGNER.keyid] == list(keys.receipt)
    assert [MANIFEST_SIGNER.keyid] == list(keys.manifest)
    assert keys.log.key_id == LOG_SIGNER.key_id


RSA = (
    rsa.generate_private_key(65537, 2048)
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "another.example/log"},
        {"log": "nonsense"},
        {"receipt_keys": []},
        {"receipt_keys": ["nonsense"]},
        {"receipt_keys": [RSA]},
        {"receipt_keys": ["\ud800"]},
        {"receipt_keys": [MANIFEST_SIGNER.public.pem]},
        {"manifest_keys": [RECEIPT_SIGNER.public.pem]},
    ],
)
def test_keys_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    """A trust file whose keys don't fit their roles is trusted in nothing."""
    with pytest.raises(Malformed):
        trusted_keys(msgspec.structs.replace(TRUST, **change))


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b" " * TRUST_BYTES_MAX + format_trust(TRUST),
        format_trust(TRUST).replace(b'"origin"', b'"orogin"'),
        format_trust(TRUST).replace(b"{", b'{"origin":"twice",', 1),
    ],
)
def test_what_is_no_trust_file_is_refused(encoded: bytes) -> None:
    """Bytes that are not a trust file give one error with a hint."""
    with pytest.raises(Malformed) as caught:
        parse_trust(encoded)

    assert caught.value.problem == "trust.malformed"
    assert caught.value.hint


def test_manifests_may_be_trusted_from_nobody() -> None:
    """A trust file without manifest keys still verifies receipts."""
    narrow = Trust(
        origin=TRUST.origin, log=TRUST.log, receipt_keys=TRUST.receipt_keys, manifest_keys=[]
    )

    assert not trusted_keys(narrow).manifest
