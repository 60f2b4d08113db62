"""Names for things: exchange ids that sort by time, and types that keep ids apart."""

from __future__ import annotations

import base64
import os
import re
from typing import Final, NewType

ExchangeId = NewType("ExchangeId", str)
"""`x-` and 26 characters of Crockford's base 32: 48 bits of milliseconds, 80 random bits, and
two zero bits; ids sort as their times do."""

DeclarationId = NewType("DeclarationId", str)
"""`use-` and 20 hex digits of the digest of the declared use; same words, same id."""

Sha256 = NewType("Sha256", str)
"""A SHA-256 digest as 64 lower-case hex digits."""

_CROCKFORD: Final = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"
)
_EXCHANGE: Final = re.compile(r"x-[0-9A-HJKMNP-TV-Z]{26}")
_DECLARATION: Final = re.compile(r"use-[0-9a-f]{20}")


def new_exchange_id(now_ms: int) -> ExchangeId:
    """Return a fresh id that sorts after those of earlier milliseconds."""
    text = base64.b32encode(now_ms.to_bytes(6, "big") + os.urandom(10))
    return ExchangeId("x-" + text[:26].translate(_CROCKFORD).decode())


def is_exchange_id(text: str) -> bool:
    """Tell whether *text* has the shape of an exchange id."""
    return _EXCHANGE.fullmatch(text) is not None


def is_declaration_id(text: str) -> bool:
    """Tell whether *text* has the shape of a declaration id."""
    return _DECLARATION.fullmatch(text) is not None


def random_bytes(count: int) -> bytes:
    """Return *count* bytes from the operating system's generator, for salts and keys."""
    return os.urandom(count)
