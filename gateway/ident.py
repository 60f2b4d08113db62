"""Names for things: exchange ids that sort by time, and types that keep ids apart."""

from __future__ import annotations

import os
import re
from typing import Final, NewType

ExchangeId = NewType("ExchangeId", str)
"""`x-` and a ULID: 48 bits of milliseconds and 80 random bits in Crockford's base 32."""

DeclarationId = NewType("DeclarationId", str)
"""`use-` and 20 hex digits of the digest of the declared use; same words, same id."""

Sha256 = NewType("Sha256", str)
"""A SHA-256 digest as 64 lower-case hex digits."""

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = [a + b for a in _CROCKFORD for b in _CROCKFORD]
_SHIFTS: Final = tuple(range(120, -10, -10))
_RANDOM_BYTES: Final = 10
_DRAWN_AT_ONCE: Final = 256
_drawn: Final[list[bytes]] = []
_EXCHANGE: Final = re.compile(r"x-[0-9A-HJKMNP-TV-Z]{26}")
_DECLARATION: Final = re.compile(r"use-[0-9a-f]{20}")


def new_exchange_id(now_ms: int) -> ExchangeId:
    """Return a fresh id that sorts after those of earlier milliseconds."""
    if not _drawn:
        # Drawing is a system call, so a page of it is drawn at once.
        page = os.urandom(_RANDOM_BYTES * _DRAWN_AT_ONCE)
        _drawn.extend(
            page[at : at + _RANDOM_BYTES] for at in range(0, len(page), _RANDOM_BYTES)
        )
    number = (now_ms << 80) | int.from_bytes(_drawn.pop(), "big")
    return ExchangeId("x-" + "".join([_PAIRS[number >> at & 1023] for at in _SHIFTS]))


def is_exchange_id(text: str) -> bool:
    """Tell whether *text* has the shape of an exchange id."""
    return _EXCHANGE.fullmatch(text) is not None


def is_declaration_id(text: str) -> bool:
    """Tell whether *text* has the shape of a declaration id."""
    return _DECLARATION.fullmatch(text) is not None


def random_bytes(count: int) -> bytes:
    """Return *count* bytes from the operating system's generator, for salts and keys."""
    return os.urandom(count)
