"""Where keys are kept: private ones in files that only the gateway's account reads.

Whoever reads `keys/` can speak for the gateway. `trust.json` holds what others verify with and
may be handed to anyone.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from gateway.clock import Clock
from gateway.errors import BadProofError, KeyUnreadableError, MalformedReceiptError
from gateway.ident import random_bytes
from gateway.limits import KEY_FILE_MODE_MAX
from gateway.receipt.envelope import Signer
from gateway.receipt.keys import (
    Ed25519Signer,
    KeyKind,
    LogSigner,
    P256Signer,
    SigningKey,
    Trust,
    TrustedManifestKey,
    format_trust,
    generate_pem,
    parse_trust,
)
from gateway.receipt.model import Writer
from gateway.receipt.sigstore import write_trust_signature
from gateway.store.claims import Claims
from gateway.store.files import write_durably, write_once
from gateway.store.hsm import Pkcs11Key, parse_pkcs11_uri
from gateway.store.process_key import ProcessKey
from gateway.tlog.note import check_name

SECRET_BYTES: Final = 32
TRUST: Final = "trust.json"
TRUST_SIGNATURE: Final = "trust.sigstore.json"
ROOT_KEY: Final = "root.key"
ROOT_PUBLIC: Final = "root.pub"

_FOLDER_MODE: Final = 0o700
_TRUST_MODE: Final = 0o644
_MAKERS: Final[dict[str, Callable[[], bytes]]] = {
    "log.key": lambda: generate_pem("ed25519"),
    "manifest.key": lambda: generate_pem("p256"),
    ROOT_KEY: lambda: generate_pem("p256"),
    "commitment.key": lambda: random_bytes(SECRET_BYTES).hex().encode() + b"\n",
    "content.key": lambda: random_bytes(SECRET_BYTES).hex().encode() + b"\n",
}
"""Every private file and how it is made."""

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The keys of one installation, loaded; nothing of them is ever printed."""

    log: LogSigner = field(repr=False)
    process: ProcessKey = field(repr=False)
    """The receipt key of this process, made when it first signs."""
    claims: Claims = field(repr=False)
    """Which process holds which receipt key."""
    manifest: SigningKey = field(repr=False)
    commitment: bytes = field(repr=False)
    """Keys the commitments to texts that must not be guessed."""
    content: bytes = field(repr=False)
    """Wraps the keys of stored contents."""
    trust: Trust

    @property
    def receipt(self) -> Signer:
        """The receipt key to sign with now; whoever signs later asks again."""
        return self.process.current


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPlaces:
    """Where the long-lived keys are: PEM at hand, a PKCS #11 URI, or `None` for `keys/`."""

    log: bytes | str | None = field(default=None, repr=False)
    manifest: bytes | str | None = field(default=None, repr=False)


IN_FILES: Final = KeyPlaces()
"""The keys that `gateway init` makes."""


def make_keys(
    data_dir: Path,
    origin: str,
    at: str,
    places: KeyPlaces = IN_FILES,
    *,
    witnesses: Sequence[str] = (),
    quorum: int = 0,
) -> None:
    """Make the keys of a new installation and its signed trust file; durable on return.

    The trust file comes last: killed before that, the next call goes on with the keys that are
    there, which nothing was signed with yet.

    A key that *places* says to be elsewhere is used and not made. *at* is the time.

    The trust file asks for cosignatures by *quorum* of *witnesses* (vkeys).

    Raises:
        KeyUnreadableError: there are keys already, none can be made, or *origin* names no log.
    """
    folder, trust_file = data_dir / "keys", data_dir / TRUST
    try:
        check_name(origin)
        elsewhere = {"log.key": places.log, "manifest.key": places.manifest}
        names = [name for name in _MAKERS if elsewhere.get(name) is None]
        if trust_file.exists():
            raise _already_there(trust_file)
        kept = {name: _load(folder / name, bytes) for name in names if (folder / name).exists()}
        made = {name: kept.get(name) or _MAKERS[name]() for name in names}
        root = P256Signer(made[ROOT_KEY])
        trust = Trust(
            origin=origin,
            log=LogSigner(_log_key(places.log or made["log.key"]), origin).vkey,
            manifest_keys=(
                TrustedManifestKey(
                    key=_manifest_key(places.manifest or made["manifest.key"]).public.pem,
                    since=0,
                ),
            ),
            witnesses=tuple(witnesses),
            quorum=quorum,
        )
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        for name, content in made.items():
            if name not in kept:
                write_once(folder / name, content, mode=KEY_FILE_MODE_MAX)
        write_durably(data_dir / ROOT_PUBLIC, root.public.pem.encode(), mode=_TRUST_MODE)
        write_trust(data_dir, trust, root, at)
    except BadProofError as bad:
        raise KeyUnreadableError(
            f"not an origin: `{origin[:80]}`",
            hint="write a name like receipts.example.com/acme, without blanks and plus signs",
        ) from bad
    except OSError as wrong:
        raise KeyUnreadableError(
            f"the keys can't be written to `{folder}`: {wrong.strerror}",
            hint="check that the data folder is writable and has space",
        ) from wrong


def write_trust(data_dir: Path, trust: Trust, root: SigningKey, at: str) -> None:
    """Write the trust file and the root's signature of it; durable on return.

    Killed in between, it leaves a signature of another file, which no auditor takes; writing
    it again mends that.

    Raises:
        OSError: it can't be written.
    """
    encoded = format_trust(trust)
    signature = write_trust_signature(encoded, trust.origin, at, root)
    write_durably(data_dir / TRUST_SIGNATURE, signature, mode=_TRUST_MODE)
    write_durably(data_dir / TRUST, encoded, mode=_TRUST_MODE)


def load_root(path: Path) -> P256Signer:
    """Return the root key kept at *path*.

    Raises:
        KeyUnreadableError: it is missing, malformed, or readable by others.
    """
    return _load(path, P256Signer)


def load_trust(data_dir: Path) -> Trust:
    """Return what the trust file in *data_dir* says.

    Raises:
        KeyUnreadableError: it is missing or malformed.
    """
    return _load(data_dir / TRUST, parse_trust, mode_max=0o777)


def load_key(data_dir: Path, name: str, kind: KeyKind, place: bytes | str | None) -> SigningKey:
    """Return the key at *place*, or else the one in `keys/`*name*.

    Raises:
        KeyUnreadableError: it is missing, malformed, of another kind, or readable by others.
    """
    read = _log_key if kind == "ed25519" else _manifest_key
    if place is not None:
        return read(place)
    return _load(data_dir / "keys" / name, read)


def load_keyring(
    data_dir: Path, writer: Writer, clock: Clock, places: KeyPlaces = IN_FILES
) -> Keyring:
    """Return the keys of the installation in *data_dir*, for the process *writer*.

    Raises:
        KeyUnreadableError: a key is missing, malformed, readable by others, or does not fit
            the trust file.
    """
    folder = data_dir / "keys"
    trust, claims = load_trust(data_dir), Claims(data_dir / "signing")
    manifest = load_key(data_dir, "manifest.key", "p256", places.manifest)
    log = load_key(data_dir, "log.key", "ed25519", places.log)
    keyring = Keyring(
        log=LogSigner(log, trust.origin),
        process=ProcessKey(manifest, claims, clock, writer),
        claims=claims,
        manifest=manifest,
        commitment=_load(folder / "commitment.key", _secret),
        content=_load(folder / "content.key", _secret),
        trust=trust,
    )
    _check_fit(keyring, data_dir)
    return keyring


def _log_key(place: bytes | str) -> SigningKey:
    return Ed25519Signer(place) if isinstance(place, bytes) else _in_module(place, "ed25519")


def _manifest_key(place: bytes | str) -> SigningKey:
    return P256Signer(place) if isinstance(place, bytes) else _in_module(place, "p256")


def _in_module(uri: str, kind: KeyKind) -> SigningKey:
    return Pkcs11Key(parse_pkcs11_uri(uri), kind)


def _load(
    path: Path, read: Callable[[bytes], Key], *, mode_max: int = KEY_FILE_MODE_MAX
) -> Key:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_bytes()
    except FileNotFoundError as missing:
        raise KeyUnreadableError(
            f"there is no `{path}`",
            hint="run `gateway init` for a new installation, or restore it from a backup",
        ) from missing
    except OSError as wrong:
        raise KeyUnreadableError(
            f"`{path}` can't be read: {wrong.strerror}",
            hint="let the gateway's account, and nobody else, read it",
        ) from wrong
    if mode & ~mode_max:
        raise KeyUnreadableError(
            f"`{path}` may be read by others (mode {mode:04o})", hint=f"chmod 600 {path}"
        )
    try:
        return read(content)
    except (KeyUnreadableError, MalformedReceiptError, BadProofError) as broken:
        raise KeyUnreadableError(
            f"`{path}`: {broken.message}", hint="restore it from a backup"
        ) from broken


def _secret(content: bytes) -> bytes:
    try:
        secret = bytes.fromhex(content.decode("ascii"))
    except ValueError as broken:
        raise KeyUnreadableError("a secret is 64 hex digits") from broken
    if len(secret) != SECRET_BYTES:
        raise KeyUnreadableError("a secret is 64 hex digits")
    return secret


def _check_fit(keyring: Keyring, data_dir: Path) -> None:
    """Check that an auditor with the trust file can verify what these keys sign."""
    trust = keyring.trust
    fits = {
        "log.key": keyring.log.vkey == trust.log,
        "manifest.key": any(
            keyring.manifest.public.pem == one.key and one.until is None
            for one in trust.manifest_keys
        ),
    }
    for name, fit in fits.items():
        if not fit:
            raise KeyUnreadableError(
                f"`{data_dir / 'keys' / name}` is not a key that `trust.json` names",
                hint="keep keys and trust.json of one data folder together",
            )


def _already_there(path: Path) -> KeyUnreadableError:
    return KeyUnreadableError(
        f"`{path}` is already there; keys are made once and never replaced",
        hint="choose another `data` folder, or go on with this one",
    )
