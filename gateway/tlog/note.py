"""Signed notes (c2sp.org/signed-note): text, an empty line, and a line per signature.

Keys are Ed25519, type 0x01. Signatures by keys that were not asked for are carried, not judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.errors import BadProofError, BadSignatureError
from gateway.limits import NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX
from gateway.tlog.text import format_base64, parse_base64, shown

ED25519_KEY: Final = b"\x01"
"""The signature type of a log's own key; the first byte of a vkey's key part."""

_ED25519_KEY_BYTES: Final = 32
_KEY_ID_BYTES: Final = 4
_KEY_ID: Final = re.compile(r"[0-9a-f]{8}")
_NAME: Final = re.compile(r"[^\s+\x00-\x1f\x7f]{1,200}")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
_SIGNATURE_START: Final = "— "
"""An em dash and a space."""


class NoteSigner(Protocol):
    """What can sign a note under one name."""

    @property
    def name(self) -> str:
        """The key's name; for a log, its origin."""
        ...

    @property
    def key_id(self) -> bytes:
        """The four bytes that tell keys of one name apart."""
        ...

    def sign(self, text: bytes) -> bytes:
        """Return the signature over *text*, which ends in a newline."""
        ...


class NoteVerifier:
    """A public key that note signatures are checked with, as written in a vkey."""

    __slots__ = ("_key", "key_id", "name", "public_key_raw")

    def __init__(self, name: str, public_key_raw: bytes) -> None:
        check_name(name)
        if len(public_key_raw) != _ED25519_KEY_BYTES:
            raise BadProofError(f"an Ed25519 key has 32 bytes, not {len(public_key_raw)}")
        self.name = name
        self.key_id = key_id_of(name, public_key_raw)
        self.public_key_raw = public_key_raw
        self._key = Ed25519PublicKey.from_public_bytes(public_key_raw)

    def verify(self, text: bytes, signature: bytes) -> None:
        """Check *signature* over *text*.

        Raises:
            BadSignatureError: it was not made by this key over this text.
        """
        try:
            self._key.verify(signature, text)
        except InvalidSignature as bad:
            raise BadSignatureError(f"the note was not signed by `{self.name}`") from bad


def key_id_of(name: str, public_key_raw: bytes, kind: bytes = ED25519_KEY) -> bytes:
    """Return the four bytes that stand for an Ed25519 key of *kind* under *name*."""
    named = name.encode() + b"\n" + kind + public_key_raw
    return sha256(named).digest()[:_KEY_ID_BYTES]


def format_vkey(name: str, public_key_raw: bytes, kind: bytes = ED25519_KEY) -> str:
    """Return `<name>+<key id>+<base64 key>`, the one line that others verify with."""
    check_name(name)
    key_id = key_id_of(name, public_key_raw, kind).hex()
    return f"{name}+{key_id}+{format_base64(kind + public_key_raw)}"


def parse_vkey(vkey: str) -> NoteVerifier:
    """Return the verifier that *vkey* describes.

    Raises:
        BadProofError: it is not a vkey of an Ed25519 log key.
    """
    return NoteVerifier(*parse_typed_vkey(vkey, ED25519_KEY, "a log's verifier key"))


def parse_typed_vkey(vkey: str, kind: bytes, what: str) -> tuple[str, bytes]:
    """Return the name and the raw Ed25519 key of a vkey of *kind*; *what* names it in errors.

    Raises:
        BadProofError: it is none, or of another kind.
    """
    parts = vkey.split("+", 2)
    if len(parts) != 3 or not _KEY_ID.fullmatch(parts[1]):
        raise BadProofError(
            f"not a verifier key: `{shown(vkey)}`", hint="write `name+key id+base64 key`"
        )
    name, key_id, encoded = parts
    check_name(name)
    key = parse_base64(encoded, "the key of a verifier key")
    if key[:1] != kind:
        raise BadProofError(f"{what} must be Ed25519, type 0x{kind.hex()}")
    if len(key) != 1 + _ED25519_KEY_BYTES:
        raise BadProofError(f"an Ed25519 key has 32 bytes, not {len(key) - 1}")
    if key_id_of(name, key[1:], kind).hex() != key_id:
        raise BadProofError(f"the key id of verifier key `{name}` does not match its key")
    return name, key[1:]


def check_name(name: str) -> None:
    """Check that *name* can name a key: no blanks, no plus, no control characters.

    Raises:
        BadProofError: it can't.
    """
    if not _NAME.fullmatch(name) or not name.isprintable():
        raise BadProofError(
            f"not a key name: `{shown(name)}`", hint="leave out blanks, plus signs and controls"
        )


def sign_note(text: str, signers: Iterable[NoteSigner]) -> str:
    """Return the note of *text*, which ends in a newline, signed by each of *signers*.

    Raises:
        BadProofError: the text can't stand in a note.
    """
    signed = text_bytes(text)
    lines = [format_signature(one.name, one.key_id + one.sign(signed)) for one in signers]
    return f"{text}\n{''.join(lines)}"


def format_signature(name: str, signature: bytes) -> str:
    """Return the signature line, with its newline, of key id ‖ *signature* by *name*."""
    return f"{_SIGNATURE_START}{name} {format_base64(signature)}\n"


def open_note(note: str, verifiers: Sequence[NoteVerifier]) -> str:
    """Return the text of *note* after checking that every one of *verifiers* signed it.

    Raises:
        BadProofError: it is not a signed note.
        BadSignatureError: a signature that was asked for is missing or does not verify.
    """
    if not verifiers:
        raise BadSignatureError("a note can't be trusted without a key to verify it")
    text, signatures = parse_note(note)
    signed = text_bytes(text)
    for verifier in verifiers:
        made = [s for name, s in signatures if name == verifier.name and _by(s, verifier)]
        if not made:
            raise BadSignatureError(f"the note carries no signature by `{verifier.name}`")
        for one in made:
            verifier.verify(signed, one[_KEY_ID_BYTES:])
    return text


def parse_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Return the text of *note* and its signatures as (name, key id ‖ signature), unverified.

    Raises:
        BadProofError: it is not a signed note.
    """
    if len(note) > NOTE_BYTES_MAX:
        raise BadProofError(f"a note is at most {NOTE_BYTES_MAX} bytes")
    head, found, tail = note.rpartition("\n\n")
    text = head + "\n"
    if not found or not tail.endswith("\n"):
        raise BadProofError("not a signed note: text, an empty line, signature lines")
    text_bytes(text)
    lines = tail[:-1].split("\n")
    if len(lines) > NOTE_SIGNATURES_MAX:
        raise BadProofError(f"a note carries at most {NOTE_SIGNATURES_MAX} signatures")
    return text, [_parse_signature(line) for line in lines]


def _parse_signature(line: str) -> tuple[str, bytes]:
    name, blank, encoded = line.removeprefix(_SIGNATURE_START).partition(" ")
    if not line.startswith(_SIGNATURE_START) or not blank:
        raise BadProofError(f"not a signature line of a note: `{shown(line)}`")
    check_name(name)
    signature = parse_base64(encoded, f"the signature by `{name}`")
    if len(signature) <= _KEY_ID_BYTES:
        raise BadProofError(f"the signature by `{name}` is empty")
    return name, signature


def _by(signature: bytes, verifier: NoteVerifier) -> bool:
    return signature.startswith(verifier.key_id)


def text_bytes(text: str) -> bytes:
    """Return the bytes of a note's *text*, which are what is signed.

    Raises:
        BadProofError: the text can't stand in a note.
    """
    if not text.endswith("\n") or _CONTROL.search(text):
        raise BadProofError("a note's text ends in a newline and holds no other controls")
    try:
        return text.encode()
    except UnicodeEncodeError as broken:
        raise BadProofError("a note's text is not Unicode") from broken
