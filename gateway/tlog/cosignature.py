"""Cosignatures of checkpoints (c2sp.org/tlog-cosignature, v1): witnesses and quorums.

A witness signs the text of a checkpoint and a time, after checking that the log only grew.
Keys are Ed25519, type 0x04. A cosignature stands in a note as a signature line of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.errors import BadProofError, BadSignatureError
from gateway.tlog.note import (
    NoteSigner,
    format_signature,
    format_vkey,
    key_id_of,
    parse_note,
    parse_typed_vkey,
    text_bytes,
)
from gateway.tlog.text import SIZE_MAX

COSIGNATURE_KEY: Final = b"\x04"
"""The signature type of a witness's key; the first byte of a vkey's key part."""

_KEY_ID_BYTES: Final = 4
_TIME_BYTES: Final = 8
_SIGNATURE_BYTES: Final = 64
_COSIGNATURE_BYTES: Final = _KEY_ID_BYTES + _TIME_BYTES + _SIGNATURE_BYTES


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A witness's word, checked: whose, and when in seconds since 1970."""

    name: str
    time: int


class CosignatureVerifier:
    """A witness's public key, as written in a vkey."""

    __slots__ = ("_key", "key_id", "name", "public_key_raw", "vkey")

    def __init__(self, name: str, public_key_raw: bytes) -> None:
        self.vkey = format_cosignature_vkey(name, public_key_raw)
        self.name = name
        self.key_id = cosignature_key_id(name, public_key_raw)
        self.public_key_raw = public_key_raw
        self._key = Ed25519PublicKey.from_public_bytes(public_key_raw)

    def verify(self, text: str, time: int, signature: bytes) -> None:
        """Check *signature* over the checkpoint *text* at *time*.

        Raises:
            BadSignatureError: it was not made by this key over this text at this time.
        """
        try:
            self._key.verify(signature, cosigned_bytes(text, time))
        except InvalidSignature as bad:
            raise BadSignatureError(
                f"the checkpoint was not cosigned by `{self.name}`"
            ) from bad


def cosigned_bytes(text: str, time: int) -> bytes:
    """Return what a witness signs: a line that names the purpose, a time, and the *text*.

    Raises:
        BadProofError: the text can't stand in a note, or the time is out of range.
    """
    if not 0 <= time <= SIZE_MAX:
        raise BadProofError(f"the time of a cosignature is out of range: {time}")
    return b"cosignature/v1\ntime %d\n%b" % (time, text_bytes(text))


def cosignature_key_id(name: str, public_key_raw: bytes) -> bytes:
    """Return the four bytes that stand for a witness's key under *name*."""
    return key_id_of(name, public_key_raw, COSIGNATURE_KEY)


def format_cosignature_vkey(name: str, public_key_raw: bytes) -> str:
    """Return a witness's `<name>+<key id>+<base64 key>`."""
    return format_vkey(name, public_key_raw, COSIGNATURE_KEY)


def parse_cosignature_vkey(vkey: str) -> CosignatureVerifier:
    """Return the verifier that a witness's *vkey* describes.

    Raises:
        BadProofError: it is not a vkey of an Ed25519 witness key, type 0x04.
    """
    name, key = parse_typed_vkey(vkey, COSIGNATURE_KEY, "a witness's verifier key")
    return CosignatureVerifier(name, key)


def cosign(text: str, signer: NoteSigner, time: int) -> str:
    """Return the signature line, with its newline, by which *signer* cosigns *text* at *time*.

    *signer* must carry the key id of a witness's key (`cosignature_key_id`).

    Raises:
        BadProofError: the text can't stand in a note, or the time is out of range.
    """
    signature = signer.sign(cosigned_bytes(text, time))
    stamped = time.to_bytes(_TIME_BYTES, "big") + signature
    return format_signature(signer.name, signer.key_id + stamped)


def cosigned_by(note: str, witnesses: Sequence[CosignatureVerifier]) -> tuple[Cosigned, ...]:
    """Return which of *witnesses* cosigned *note*, in their order, each at its latest time.

    Lines by others are carried, not judged. Not checked here: the log's own signature.

    Raises:
        BadProofError: it is not a signed note.
        BadSignatureError: a line claims to be by one of *witnesses* and does not verify.
    """
    text, signatures = parse_note(note)
    found: list[Cosigned] = []
    for witness in witnesses:
        times = [
            _checked(witness, text, signature)
            for name, signature in signatures
            if name == witness.name and signature.startswith(witness.key_id)
        ]
        if times:
            found.append(Cosigned(witness.name, max(times)))
    return tuple(found)


def check_quorum(
    note: str, witnesses: Sequence[CosignatureVerifier], quorum: int
) -> tuple[Cosigned, ...]:
    """Return who of *witnesses* cosigned *note* after checking that they are enough.

    Raises:
        BadProofError: it is not a signed note.
        BadSignatureError: fewer than *quorum* cosigned it, or a cosignature does not verify.
    """
    found = cosigned_by(note, witnesses)
    if len(found) < quorum:
        raise BadSignatureError(
            f"the checkpoint is cosigned by {len(found)} of the trusted witnesses; "
            f"{quorum} are asked for",
            hint="ask the log's operator for a checkpoint that enough witnesses have cosigned",
        )
    return found


def add_cosignatures(note: str, lines: Sequence[str]) -> str:
    """Return *note* with the signature *lines* after those that it has; twice is once.

    Raises:
        BadProofError: the result is not a signed note.
    """
    held = set(note.splitlines(keepends=True))
    more = [line for line in dict.fromkeys(lines) if line not in held]
    whole = note + "".join(more)
    if parse_note(whole)[0] != parse_note(note)[0]:
        raise BadProofError("a cosignature is one signature line")
    return whole


def _checked(witness: CosignatureVerifier, text: str, signature: bytes) -> int:
    if len(signature) != _COSIGNATURE_BYTES:
        raise BadSignatureError(f"the cosignature by `{witness.name}` is not 72 bytes long")
    time = int.from_bytes(signature[_KEY_ID_BYTES:][:_TIME_BYTES], "big")
    if time > SIZE_MAX:
        raise BadSignatureError(f"the cosignature by `{witness.name}` names no possible time")
    witness.verify(text, time, signature[_KEY_ID_BYTES + _TIME_BYTES :])
    return time
