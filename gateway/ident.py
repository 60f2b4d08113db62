"""Names for things: exchange ids that sort by time, and types that keep ids apart."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from typing import Final, NewType

ExchangeId = NewType("ExchangeId", str)
"""`x-` and a ULID: 48 bits of milliseconds and 80 random bits in Crockford's base 32."""

DerivationId = NewType("DerivationId", ExchangeId)
"""`d-` and a ULID. What is kept of a derivation is kept as an exchange's is, under this id."""

DeclarationId = NewType("DeclarationId", str)
"""`use-` and 20 hex digits of the digest of the declared use; same words, same id."""

Sha256 = NewType("Sha256", str)
"""A SHA-256 digest as 64 lower-case hex digits."""

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_DIGIT_OF: Final = bytes(ord(_CROCKFORD[byte & 31]) for byte in range(256))
_RANDOM_DIGITS: Final = 16
_DRAWN_AT_ONCE: Final = 256
_drawn: Final[list[str]] = []
_EXCHANGE: Final = re.compile(r"x-[0-9A-HJKMNP-TV-Z]{26}")
_DERIVATION: Final = re.compile(r"d-[0-9A-HJKMNP-TV-Z]{26}")
_DECLARATION: Final = re.compile(r"use-[0-9a-f]{20}")


def new_exchange_id(now_ms: int) -> ExchangeId:
    """Return a fresh id that sorts after those of earlier milliseconds."""
    if not _drawn:
        # Drawing is a system call, so a page of it is drawn at once; five bits of each byte.
        page = os.urandom(_RANDOM_DIGITS * _DRAWN_AT_ONCE).translate(_DIGIT_OF).decode()
        _drawn.extend(
            page[at : at + _RANDOM_DIGITS] for at in range(0, len(page), _RANDOM_DIGITS)
        )
    return ExchangeId(_prefix(now_ms) + _drawn.pop())


def new_derivation_id(now_ms: int) -> DerivationId:
    """Return a fresh id that sorts after those of earlier milliseconds."""
    return DerivationId(ExchangeId(f"d{new_exchange_id(now_ms)[1:]}"))


def made_at_ms(exchange: ExchangeId) -> int:
    """Return the millisecond in which *exchange* began, as its id says."""
    at = 0
    for digit in exchange[2:12]:
        at = at << 5 | _CROCKFORD.index(digit)
    return at


def item_id(of: ExchangeId, number: int) -> ExchangeId:
    """Return the id of item *number* of exchange *of*: the same whoever asks, and its own.

    It sorts with the exchange that asked for it; its other digits are those of the SHA-256 of
    both. What comes later, or in pieces, has its receipt under such an id, once.
    """
    digest = hashlib.sha256(f"item {of} {number}".encode()).digest()
    return ExchangeId(of[:12] + digest[:_RANDOM_DIGITS].translate(_DIGIT_OF).decode())


@functools.lru_cache(maxsize=4)
def _prefix(now_ms: int) -> str:
    return "x-" + "".join(_CROCKFORD[now_ms >> at & 31] for at in range(45, -1, -5))


def is_exchange_id(text: str) -> bool:
    """Tell whether *text* has the shape of an exchange id."""
    return _EXCHANGE.fullmatch(text) is not None


def is_derivation_id(text: str) -> bool:
    """Tell whether *text* has the shape of a derivation id."""
    return _DERIVATION.fullmatch(text) is not None


def is_declaration_id(text: str) -> bool:
    """Tell whether *text* has the shape of a declaration id."""
    return _DECLARATION.fullmatch(text) is not None


def random_bytes(count: int) -> bytes:
    """Return *count* bytes from the operating system's generator, for salts and keys."""
    return os.urandom(count)
