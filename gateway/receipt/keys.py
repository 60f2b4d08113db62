"""Keys in memory: what signs statements and notes, what verifies, and whom an auditor trusts.

Not here: where keys are kept (`store/keys.py`). Private keys come and go as PKCS #8 PEM.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final, Literal, Protocol

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from gateway.errors import (
    BadProofError,
    BadSignatureError,
    KeyUnreadableError,
    MalformedReceiptError,
)
from gateway.ident import Sha256
from gateway.limits import TRUST_BYTES_MAX
from gateway.tlog.cosignature import (
    CosignatureVerifier,
    cosignature_key_id,
    format_cosignature_vkey,
    parse_cosignature_vkey,
)
from gateway.tlog.note import NoteVerifier, check_name, format_vkey, key_id_of, parse_vkey
from gateway.tlog.text import shown

KeyKind = Literal["ed25519", "p256"]

TRUST_FORMAT: Final = "trust/v2"

_KEYID: Final = re.compile(r"[0-9a-f]{64}")
_TRUST_HINT: Final = "ask the log's operator for its `trust.json`"


class PublicKey:
    """A key that statement signatures are checked with."""

    __slots__ = ("_key", "keyid", "kind", "pem")

    def __init__(self, key: Ed25519PublicKey | EllipticCurvePublicKey) -> None:
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self._key = key
        self.kind: KeyKind = "ed25519" if isinstance(key, Ed25519PublicKey) else "p256"
        self.keyid = sha256(spki).hexdigest()
        self.pem = pem.decode("ascii")

    @property
    def raw(self) -> bytes:
        """The 32 bytes of an Ed25519 key.

        Raises:
            KeyUnreadableError: it is of another kind.
        """
        if not isinstance(self._key, Ed25519PublicKey):
            raise KeyUnreadableError("a log's key must be Ed25519", hint="see `gateway init`")
        return self._key.public_bytes(Encoding.Raw, PublicFormat.Raw)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check *signature* over *message*.

        Raises:
            BadSignatureError: it was not made by this key over this message.
        """
        try:
            if isinstance(self._key, Ed25519PublicKey):
                self._key.verify(signature, message)
            else:
                self._key.verify(signature, message, ECDSA(SHA256()))
        except InvalidSignature as bad:
            raise BadSignatureError(f"the signature by key {self.keyid[:16]}… is bad") from bad


class SigningKey(Protocol):
    """A private key wherever it is: in a file, in a module, or with a cloud's key service.

    Calls block; whoever signs on an event loop keeps keys in memory instead.
    """

    @property
    def keyid(self) -> str:
        """SHA-256 of the public key's SubjectPublicKeyInfo DER, in hex."""
        ...

    @property
    def public(self) -> PublicKey:
        """What its signatures are checked with."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the signature over *message*: Ed25519's 64 bytes, or ECDSA's DER.

        Raises:
            KeyUnreadableError: what holds the key can't be reached, or refuses.
        """
        ...


class Ed25519Signer:
    """Signs receipts and the other statements that the gateway makes by itself."""

    __slots__ = ("_key", "keyid", "public")

    def __init__(self, pem: bytes) -> None:
        key = _load_private(pem)
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnreadableError("this key must be Ed25519", hint="see `gateway init`")
        self._key = key
        self.public = PublicKey(key.public_key())
        self.keyid = self.public.keyid

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature over *message*."""
        return self._key.sign(message)


class P256Signer:
    """Signs manifests: ECDSA over P-256 with SHA-256, which Sigstore's tools take."""

    __slots__ = ("_key", "keyid", "public")

    def __init__(self, pem: bytes) -> None:
        key = _load_private(pem)
        if not isinstance(key, EllipticCurvePrivateKey) or not _on_p256(key):
            raise KeyUnreadableError("this key must be ECDSA P-256", hint="see `gateway init`")
        self._key = key
        self.public = PublicKey(key.public_key())
        self.keyid = self.public.keyid

    def sign(self, message: bytes) -> bytes:
        """Return the ECDSA signature over *message*, in DER."""
        # Deterministic (RFC 6979): no signature hangs on the quality of a random number.
        return self._key.sign(message, ECDSA(SHA256(), deterministic_signing=True))


class LogSigner:
    """Signs a log's checkpoints under its origin."""

    __slots__ = ("_key", "key_id", "name", "vkey")

    def __init__(self, key: bytes | SigningKey, origin: str) -> None:
        """Take the private *key*, as PEM or wherever it is."""
        check_name(origin)
        self._key: SigningKey = Ed25519Signer(key) if isinstance(key, bytes) else key
        public = self._key.public.raw
        self.name = origin
        self.key_id = key_id_of(origin, public)
        self.vkey = format_vkey(origin, public)

    def sign(self, text: bytes) -> bytes:
        """Return the Ed25519 signature over a note's text."""
        return self._key.sign(text)


class WitnessSigner:
    """Cosigns checkpoints of others' logs under a witness's name (`tlog/cosignature.py`)."""

    __slots__ = ("_key", "key_id", "name", "vkey")

    def __init__(self, pem: bytes, name: str) -> None:
        key = _load_private(pem)
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnreadableError("a witness's key must be Ed25519")
        check_name(name)
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._key = key
        self.name = name
        self.key_id = cosignature_key_id(name, public)
        self.vkey = format_cosignature_vkey(name, public)

    def sign(self, text: bytes) -> bytes:
        """Return the Ed25519 signature over what a witness signs of a checkpoint."""
        return self._key.sign(text)


def generate_pem(kind: KeyKind) -> bytes:
    """Return a fresh private key in PKCS #8 PEM."""
    key: Ed25519PrivateKey | EllipticCurvePrivateKey
    if kind == "ed25519":
        key = Ed25519PrivateKey.generate()
    else:
        key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@lru_cache(maxsize=256)
def parse_public_pem(pem: str) -> PublicKey:
    """Return the public key that *pem* spells.

    Raises:
        MalformedReceiptError: it is not an Ed25519 or P-256 key in SubjectPublicKeyInfo PEM.
    """
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as broken:
        raise _bad_trust("a public key is not SubjectPublicKeyInfo PEM") from broken
    if isinstance(key, EllipticCurvePublicKey) and _on_p256(key):
        return PublicKey(key)
    if isinstance(key, Ed25519PublicKey):
        return PublicKey(key)
    raise _bad_trust("a public key is neither Ed25519 nor ECDSA P-256")


class TrustedManifestKey(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"
):
    """A manifest key and the leaves that it may sign: from *since* up to, not with, *until*."""

    key: str
    """SubjectPublicKeyInfo in PEM."""
    since: int
    until: int | None = None


class RevokedKey(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"
):
    """A key in the wrong hands: nothing by it counts from leaf *since* on."""

    keyid: Sha256
    since: int


class Predecessor(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"
):
    """A frozen log whose leaves the log begins with: its name, its last size and root."""

    origin: str
    log: str
    """Its verifier key (vkey)."""
    size: int
    root: Sha256
    trusted: bool
    """Whether checkpoints under its name still count; not where its key was stolen."""


class Trust(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"
):
    """Whom an auditor trusts: one log, its witnesses, and the keys that authorise others."""

    format: Literal["trust/v2"] = TRUST_FORMAT
    origin: str
    log: str
    """The log's verifier key (vkey); its name is the origin."""
    witnesses: tuple[str, ...] = ()
    """Verifier keys (vkeys) of witnesses."""
    quorum: int = 0
    """How many of them must have cosigned a checkpoint."""
    manifest_keys: tuple[TrustedManifestKey, ...]
    revoked: tuple[RevokedKey, ...] = ()
    predecessors: tuple[Predecessor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestKey:
    """A manifest key and the leaves that it may sign, ready to verify with."""

    key: PublicKey
    since: int
    until: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenLogKey:
    """The key of a frozen log, ready to verify with."""

    verifier: NoteVerifier
    size: int
    root: bytes
    trusted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKeys:
    """The keys that a trust file names, ready to verify with."""

    log: NoteVerifier
    witnesses: tuple[CosignatureVerifier, ...]
    manifest: Mapping[str, ManifestKey]
    """By keyid."""
    revoked: Mapping[str, int]
    """From which leaf on a key counts for nothing, by keyid."""
    frozen: Mapping[str, FrozenLogKey]
    """Predecessors by origin."""


def parse_trust(encoded: bytes) -> Trust:
    """Return what a trust file says.

    Raises:
        MalformedReceiptError: it is not one, or its keys don't fit together.
    """
    if len(encoded) > TRUST_BYTES_MAX:
        raise _bad_trust(f"a trust file is at most {TRUST_BYTES_MAX} bytes")
    try:
        trust = msgspec.json.decode(encoded, type=Trust)
        said = json.loads(encoded, object_pairs_hook=_once)
    except (msgspec.MsgspecError, ValueError, RecursionError) as broken:
        raise _bad_trust(f"not a trust file: {shown(broken)}") from broken
    # What a file does not say it must not be taken to say: every key is written out.
    if said != json.loads(msgspec.json.encode(trust)):
        raise _bad_trust("a trust file names every key of its format")
    trusted_keys(trust)
    return trust


def format_trust(trust: Trust) -> bytes:
    """Return *trust* as the JSON that an auditor is given."""
    return msgspec.json.format(msgspec.json.encode(trust), indent=2) + b"\n"


@lru_cache(maxsize=16)
def trusted_keys(trust: Trust) -> TrustedKeys:
    """Return the keys of *trust*, ready to verify with.

    Raises:
        MalformedReceiptError: a key can't be read, stands twice, or does not fit its role.
    """
    try:
        log = parse_vkey(trust.log)
        witnesses = tuple(map(parse_cosignature_vkey, trust.witnesses))
        frozen = {one.origin: _frozen(one) for one in trust.predecessors}
    except BadProofError as broken:
        raise _bad_trust(broken.message) from broken
    if log.name != trust.origin:
        raise _bad_trust(f"the log's key is named `{log.name}`, the origin `{trust.origin}`")
    if len(frozen) != len(trust.predecessors) or trust.origin in frozen:
        raise _bad_trust("a log stands twice in the trust file")
    # A quorum counts departments: nobody may count twice, and the log not at all.
    if len({one.name for one in witnesses}) != len(witnesses):
        raise _bad_trust("a witness's name stands twice in the trust file")
    logs = {one.public_key_raw for one in (log, *(one.verifier for one in frozen.values()))}
    others = {one.public_key_raw for one in witnesses} - logs
    if len(others) != len(witnesses):
        raise _bad_trust("a witness's key stands twice in the trust file")
    if not 0 <= trust.quorum <= len(witnesses):
        raise _bad_trust(f"a quorum of {trust.quorum} of {len(witnesses)} witnesses can't be")
    manifest = {one.key.keyid: one for one in map(_manifest_key, trust.manifest_keys)}
    if len(manifest) != len(trust.manifest_keys):
        raise _bad_trust("a manifest key stands twice in the trust file")
    revoked: dict[str, int] = {one.keyid: one.since for one in trust.revoked}
    if len(revoked) != len(trust.revoked):
        raise _bad_trust("a revoked key stands twice in the trust file")
    for keyid, since in revoked.items():
        if since < 0 or not _KEYID.fullmatch(keyid):
            raise _bad_trust("a revoked key is 64 hex digits and a leaf")
    return TrustedKeys(
        log=log, witnesses=witnesses, manifest=manifest, revoked=revoked, frozen=frozen
    )


def _manifest_key(said: TrustedManifestKey) -> ManifestKey:
    key = parse_public_pem(said.key)
    if key.kind != "p256":
        raise _bad_trust("`manifestKeys` must hold ECDSA P-256 keys")
    if said.since < 0 or (said.until is not None and said.until < said.since):
        raise _bad_trust("a manifest key ends before it begins")
    return ManifestKey(key=key, since=said.since, until=said.until)


def _frozen(said: Predecessor) -> FrozenLogKey:
    verifier = parse_vkey(said.log)
    if verifier.name != said.origin:
        raise _bad_trust(
            f"a predecessor's key is named `{verifier.name}`, its origin `{said.origin}`"
        )
    if said.size < 0 or not _KEYID.fullmatch(said.root):
        raise _bad_trust("a predecessor has a size, and a root of 64 hex digits")
    return FrozenLogKey(
        verifier=verifier,
        size=said.size,
        root=bytes.fromhex(said.root),
        trusted=said.trusted,
    )


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the object of *pairs*, in which no key stands twice."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def _load_private(pem: bytes) -> object:
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as broken:
        raise KeyUnreadableError(
            "a private key is not unencrypted PKCS #8 PEM", hint="restore it from a backup"
        ) from broken


def _on_p256(key: EllipticCurvePrivateKey | EllipticCurvePublicKey) -> bool:
    return isinstance(key.curve, SECP256R1)


def _bad_trust(message: str) -> MalformedReceiptError:
    return MalformedReceiptError(message, hint=_TRUST_HINT, code="trust.malformed")
