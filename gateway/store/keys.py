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
    LogSigner,
    P256Signer,
    Trust,
    TrustedManifestKey,
    format_trust,
    generate_pem,
    parse_trust,
)
from gateway.receipt.model import Writer
from gateway.store.claims import Claims
from gateway.store.files import write_once
from gateway.store.process_key import ProcessKey
from gateway.tlog.note import check_name

SECRET_BYTES: Final = 32

_FOLDER_MODE: Final = 0o700
_TRUST_MODE: Final = 0o644
_MAKERS: Final[dict[str, Callable[[], bytes]]] = {
    "log.key": lambda: generate_pem("ed25519"),
    "manifest.key": lambda: generate_pem("p256"),
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
    manifest: P256Signer = field(repr=False)
    commitment: bytes = field(repr=False)
    """Keys the commitments to texts that must not be guessed."""
    content: bytes = field(repr=False)
    """Wraps the keys of stored contents."""
    trust: Trust

    @property
    def receipt(self) -> Signer:
        """The receipt key to sign with now; whoever signs later asks again."""
        return self.process.current


def make_keys(
    data_dir: Path, origin: str, *, witnesses: Sequence[str] = (), quorum: int = 0
) -> None:
    """Make the keys of a new installation and its trust file; durable on return.

    The trust file asks for cosignatures by *quorum* of *witnesses* (vkeys).

    Raises:
        KeyUnreadableError: there are keys already, none can be made, or *origin* names no log.
    """
    folder, trust_file = data_dir / "keys", data_dir / "trust.json"
    try:
        check_name(origin)
        made = {name: make() for name, make in _MAKERS.items()}
        trust = _trust_of(origin, made, witnesses, quorum)
        for path in (*(folder / name for name in made), trust_file):
            if path.exists():
                raise _already_there(path)
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        for name, content in made.items():
            write_once(folder / name, content, mode=KEY_FILE_MODE_MAX)
        write_once(trust_file, format_trust(trust), mode=_TRUST_MODE)
    except BadProofError as bad:
        raise KeyUnreadableError(
            f"not an origin: `{origin[:80]}`",
            hint="write a name like receipts.example.com/acme, without blanks and plus signs",
        ) from bad
    except FileExistsError as there:
        raise _already_there(Path(str(there.filename2 or there.filename))) from there
    except OSError as wrong:
        raise KeyUnreadableError(
            f"the keys can't be written to `{folder}`: {wrong.strerror}",
            hint="check that the data folder is writable and has space",
        ) from wrong


def load_keyring(data_dir: Path, writer: Writer, clock: Clock) -> Keyring:
    """Return the keys of the installation in *data_dir*, for the process *writer*.

    Raises:
        KeyUnreadableError: a key is missing, malformed, readable by others, or does not fit
            the trust file.
    """
    folder = data_dir / "keys"
    trust = _load(data_dir / "trust.json", parse_trust, mode_max=0o777)
    manifest, claims = _load(folder / "manifest.key", P256Signer), Claims(data_dir / "signing")
    keyring = Keyring(
        log=_load(folder / "log.key", lambda pem: LogSigner(pem, trust.origin)),
        process=ProcessKey(manifest, claims, clock, writer),
        claims=claims,
        manifest=manifest,
        commitment=_load(folder / "commitment.key", _secret),
        content=_load(folder / "content.key", _secret),
        trust=trust,
    )
    _check_fit(keyring, data_dir)
    return keyring


def _trust_of(
    origin: str, made: dict[str, bytes], witnesses: Sequence[str], quorum: int
) -> Trust:
    return Trust(
        origin=origin,
        log=LogSigner(made["log.key"], origin).vkey,
        witnesses=tuple(witnesses),
        quorum=quorum,
        manifest_keys=(
            TrustedManifestKey(key=P256Signer(made["manifest.key"]).public.pem, since=0),
        ),
    )


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
