"""Keys in a PKCS #11 module: a smart card, a network HSM, or a cloud's key service behind one.

A key is named by a URI of RFC 7512 with `token`, `object` and `module-path`, and the PIN as
`pin-source` (a file) or `pin-value`. The private key never leaves the module.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, Hash

from gateway.errors import KeyUnreadableError
from gateway.receipt.keys import KeyKind, PublicKey

SCHEME: Final = "pkcs11:"

_PATH: Final = frozenset({"token", "object"})
_QUERY: Final = frozenset({"module-path", "pin-source", "pin-value"})
_ED25519_BYTES: Final = 32
_SCALAR_BYTES: Final = 32
_OCTET_STRING: Final = 4

_MODULES: Final = threading.Lock()
"""Modules need not bear two threads at once, and who logs in does so for the whole process."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs11Uri:
    """Where a key is: the module's file, a token in it, and the key's label."""

    module_path: str
    token: str
    object: str
    pin: str | None = field(default=None, repr=False)


def parse_pkcs11_uri(uri: str) -> Pkcs11Uri:
    """Return what *uri* names; a PIN in a file is read.

    Raises:
        KeyUnreadableError: it names no key, or something that is not understood.
    """
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    said = _attributes(path, ";", _PATH) | _attributes(query, "&", _QUERY)
    missing = [name for name in ("token", "object", "module-path") if not said.get(name)]
    if not uri.startswith(SCHEME) or missing:
        raise _bad_uri(f"it names no `{missing[0]}`" if missing else "it begins otherwise")
    if "pin-source" in said and "pin-value" in said:
        raise _bad_uri("it names the PIN twice")
    pin = said.get("pin-value")
    if "pin-source" in said:
        file = Path(said["pin-source"].removeprefix("file:"))
        try:
            pin = file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as wrong:
            raise KeyUnreadableError(f"the PIN can't be read from `{file}`") from wrong
    return Pkcs11Uri(
        module_path=said["module-path"], token=said["token"], object=said["object"], pin=pin
    )


class Pkcs11Key:
    """A private key in a module; any thread may sign, one at a time."""

    def __init__(self, uri: Pkcs11Uri, kind: KeyKind) -> None:
        """Open the module and find the key.

        Raises:
            KeyUnreadableError: the module, the token or the key is not there, or the PIN is
                another; or python-pkcs11 is not installed.
        """
        self._uri = uri
        self._kind: KeyKind = kind
        self._pkcs11 = _package()
        # Under the lock of all modules.
        self._session: Any = None
        self._key: Any = None
        self.public = self._asked(self._open)
        self.keyid = self.public.keyid

    def sign(self, message: bytes) -> bytes:
        """Return the signature over *message*: Ed25519's, or ECDSA with SHA-256 in DER.

        Raises:
            KeyUnreadableError: the module refuses, or is gone.
        """
        return self._asked(lambda: self._sign(message))

    def _sign(self, message: bytes) -> bytes:
        if self._key is None:
            # A module that was away may be back.
            self._open()
        mechanism = self._pkcs11.Mechanism
        if self._kind == "ed25519":
            return bytes(self._key.sign(message, mechanism=mechanism.EDDSA))
        digest = Hash(SHA256())
        digest.update(message)
        pair = bytes(self._key.sign(digest.finalize(), mechanism=mechanism.ECDSA))
        r, s = pair[:_SCALAR_BYTES], pair[_SCALAR_BYTES:]
        return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))

    def _open(self) -> PublicKey:
        uri, names = self._uri, self._pkcs11
        token = names.lib(uri.module_path).get_token(token_label=uri.token)
        try:
            session = token.open(user_pin=uri.pin)
        except names.exceptions.UserAlreadyLoggedIn:
            # Another key of the same token is in use here already.
            session = token.open()
        classes, kinds = names.ObjectClass, names.KeyType
        kind = kinds.EC_EDWARDS if self._kind == "ed25519" else kinds.EC
        wanted = {"label": uri.object, "key_type": kind}
        key = session.get_key(object_class=classes.PRIVATE_KEY, **wanted)
        found = session.get_key(object_class=classes.PUBLIC_KEY, **wanted)
        public = _public(bytes(found[names.Attribute.EC_POINT]), self._kind)
        if self._session is not None and public.keyid != self.keyid:
            raise KeyUnreadableError(f"the key `{uri.object}` in the module is another now")
        self._session, self._key = session, key
        return public

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        with _MODULES:
            try:
                return ask()
            except self._pkcs11.exceptions.PKCS11Error as wrong:
                self._key = None
                said = str(wrong) or type(wrong).__name__
                raise KeyUnreadableError(
                    f"the key `{self._uri.object}` of token `{self._uri.token}` can't be"
                    f" used: {said}",
                    hint="see `signing` in the settings, and that the module answers",
                ) from wrong
            except RuntimeError as wrong:
                # The binding loads modules; one that is not there is no PKCS #11 error.
                raise KeyUnreadableError(
                    f"the module `{self._uri.module_path}` can't be loaded: {wrong}",
                    hint="name the file of your PKCS #11 module as `module-path`",
                ) from wrong


def _package() -> Any:
    try:
        import pkcs11  # noqa: PLC0415  most gateways have their keys in files
    except ImportError as missing:
        raise KeyUnreadableError(
            "keys in a PKCS #11 module need a package that is not installed",
            hint="pip install 'tos-gateway[pkcs11]'",
        ) from missing
    return pkcs11


def _public(point: bytes, kind: KeyKind) -> PublicKey:
    """Return the key whose point a module gives, as a DER octet string or bare."""
    if len(point) > 2 and point[0] == _OCTET_STRING and point[1] == len(point) - 2:
        point = point[2:]
    try:
        if kind == "ed25519":
            return PublicKey(Ed25519PublicKey.from_public_bytes(point[-_ED25519_BYTES:]))
        return PublicKey(EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point))
    except ValueError as wrong:
        raise KeyUnreadableError(f"the module's key is not {kind}") from wrong


def _attributes(text: str, divided_by: str, known: frozenset[str]) -> dict[str, str]:
    said: dict[str, str] = {}
    for part in filter(None, text.split(divided_by)):
        name, equals, value = part.partition("=")
        if not equals or name not in known or name in said:
            raise _bad_uri(f"`{name}` is not understood, or stands twice")
        said[name] = unquote(value)
    return said


def _bad_uri(why: str) -> KeyUnreadableError:
    return KeyUnreadableError(
        f"not a PKCS #11 URI: {why}",
        hint="write pkcs11:token=T;object=O?module-path=FILE&pin-source=file:FILE",
    )
