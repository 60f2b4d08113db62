"""Laws of keys and trust."""

from __future__ import annotations

import base64

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
from gateway.ident import Sha256
from gateway.limits import TRUST_BYTES_MAX
from gateway.receipt.keys import (
    Ed25519Signer,
    LogSigner,
    P256Signer,
    Predecessor,
    PublicKey,
    RevokedKey,
    TrustedManifestKey,
    WitnessSigner,
    format_trust,
    generate_pem,
    parse_public_pem,
    parse_trust,
    trusted_keys,
)
from gateway.tlog.cosignature import cosigned_bytes, parse_cosignature_vkey
from gateway.tlog.note import parse_vkey
from tests.support.evidence import LOG_SIGNER, MANIFEST_SIGNER, ORIGIN, RECEIPT_SIGNER, TRUST

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


@pytest.mark.parametrize(
    "pem", [b"", b"nonsense", generate_pem("ed25519")[:-40]], ids=["empty", "nonsense", "cut"]
)
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

    assert [MANIFEST_SIGNER.keyid] == list(keys.manifest)
    assert keys.log.key_id == LOG_SIGNER.key_id


RSA = (
    rsa.generate_private_key(65537, 2048)
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)


OLD_LOG = LogSigner(generate_pem("ed25519"), "old.example/log")
WITNESS = WitnessSigner(generate_pem("ed25519"), "witness.example/w1").vkey


def a_key(
    key: str = MANIFEST_SIGNER.public.pem, since: int = 0, until: int | None = None
) -> TrustedManifestKey:
    """Return a manifest key as a trust file names it."""
    return TrustedManifestKey(key=key, since=since, until=until)


def a_revoked(keyid: str = "ab" * 32, since: int = 7) -> RevokedKey:
    """Return a revoked key as a trust file names it."""
    return RevokedKey(keyid=Sha256(keyid), since=since)


def a_predecessor(
    origin: str = OLD_LOG.name,
    log: str = OLD_LOG.vkey,
    size: int = 7,
    root: str = "ab" * 32,
) -> Predecessor:
    """Return a frozen log as a trust file names it."""
    return Predecessor(origin=origin, log=log, size=size, root=Sha256(root), trusted=True)


FULL = msgspec.structs.replace(
    TRUST,
    witnesses=(WITNESS,),
    quorum=1,
    manifest_keys=(a_key(until=9),),
    revoked=(a_revoked(),),
    predecessors=(a_predecessor(),),
)
"""A trust file with something under every key."""


def test_every_key_of_a_trust_file_is_read_as_written() -> None:
    """Witnesses, intervals, revoked keys and predecessors come back as they were put in."""
    keys = trusted_keys(parse_trust(format_trust(FULL)))

    assert parse_trust(format_trust(FULL)) == FULL
    assert [one.name for one in keys.witnesses] == ["witness.example/w1"]
    assert keys.revoked == {"ab" * 32: 7}
    assert keys.manifest[MANIFEST_SIGNER.keyid].until == 9
    assert (keys.frozen[OLD_LOG.name].size, keys.frozen[OLD_LOG.name].trusted) == (7, True)


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "another.example/log"},
        {"log": "nonsense"},
        {"manifest_keys": (a_key("nonsense"),)},
        {"manifest_keys": (a_key(RSA),)},
        {"manifest_keys": (a_key("\ud800"),)},
        {"manifest_keys": (a_key(RECEIPT_SIGNER.public.pem),)},
        {"manifest_keys": (a_key(), a_key())},
        {"manifest_keys": (a_key(since=-1),)},
        {"manifest_keys": (a_key(since=5, until=4),)},
        {"revoked": (a_revoked("ab"),)},
        {"revoked": (a_revoked(since=-1),)},
        {"revoked": (a_revoked(), a_revoked())},
        {"witnesses": ("nonsense",)},
        {"witnesses": (LOG_SIGNER.vkey,)},
        {"witnesses": (WITNESS, WITNESS)},
        {"quorum": 1},
        {"quorum": -1},
        {"predecessors": (a_predecessor(origin="other.example/log"),)},
        {"predecessors": (a_predecessor(size=-1),)},
        {"predecessors": (a_predecessor(root="ab"),)},
        {"predecessors": (a_predecessor(), a_predecessor())},
        {"predecessors": (a_predecessor(ORIGIN, LOG_SIGNER.vkey),)},
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
        format_trust(TRUST).replace(b'"since": 0', b'"since": 0, "since": 0'),
        format_trust(TRUST).replace(b'"quorum": 0,', b""),
        format_trust(TRUST).replace(b"trust/v2", b"trust/v1"),
    ],
)
def test_what_is_no_trust_file_is_refused(encoded: bytes) -> None:
    """Bytes that are not a trust file give one error with a hint."""
    with pytest.raises(Malformed) as caught:
        parse_trust(encoded)

    assert caught.value.problem == "trust.malformed"
    assert caught.value.hint


def test_manifests_may_be_trusted_from_nobody() -> None:
    """A trust file without manifest keys trusts nobody's statements, and says so."""
    narrow = msgspec.structs.replace(TRUST, manifest_keys=())

    assert not trusted_keys(narrow).manifest


def test_a_key_elsewhere_signs_for_a_log() -> None:
    """A log's key may be anything that signs, as long as it is Ed25519."""
    log = LogSigner(RECEIPT_SIGNER, ORIGIN)

    parse_vkey(log.vkey).verify(b"text\n", log.sign(b"text\n"))
    assert RECEIPT_SIGNER.public.raw in base64.b64decode(log.vkey.split("+", 2)[2])
    with pytest.raises(KeyUnreadableError, match="must be Ed25519"):
        LogSigner(MANIFEST_SIGNER, ORIGIN)


def test_a_witness_signs_under_its_own_type_of_key() -> None:
    """A witness's key is Ed25519, and its vkey says that it is no log's."""
    witness = WitnessSigner(generate_pem("ed25519"), "witness.example/w1")
    verifier = parse_cosignature_vkey(witness.vkey)

    verifier.verify("text\n", 7, witness.sign(cosigned_bytes("text\n", 7)))
    with pytest.raises(KeyUnreadableError, match="must be Ed25519"):
        WitnessSigner(generate_pem("p256"), "witness.example/w1")


def test_what_ecdsa_signs_hangs_on_no_random_number() -> None:
    """The same message gives the same signature."""
    assert MANIFEST_SIGNER.sign(b"message") == MANIFEST_SIGNER.sign(b"message")
