"""One way to write a value as bytes, so that equal values have equal digests.

The form is JSON with sorted keys, no blanks and UTF-8. For what we sign ourselves (ASCII keys,
integers, no floats) it equals RFC 8785; rows that others wrote may hold anything JSON can.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.ident import Sha256

if TYPE_CHECKING:
    from hashlib import _Hash

_BLOCK: Final = 64
"""Bytes that SHA-256 takes at once."""


def canonical_json(value: Any) -> bytes:
    """Return the one way to write *value*: sorted keys, no blanks, UTF-8.

    Raises:
        TypeError: *value* holds something JSON has no form for.
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def sha256_hex(content: bytes) -> Sha256:
    """Return the SHA-256 of *content* in hex."""
    return Sha256(hashlib.sha256(content).hexdigest())


def digest_of(value: Any) -> Sha256:
    """Return the SHA-256 of the canonical form of *value* in hex."""
    return sha256_hex(canonical_json(value))


def salted_sha256(salt: bytes, content: bytes) -> Sha256:
    """Return SHA-256(salt ‖ content) in hex: a commitment that only the salt opens."""
    return Sha256(hashlib.sha256(salt + content).hexdigest())


def keyed_sha256(key: bytes, content: bytes) -> Sha256:
    """Return HMAC-SHA256 (RFC 2104) of *content* under *key* in hex."""
    begun, ended = _keyed(key)
    inner, outer = begun.copy(), ended.copy()
    inner.update(content)
    outer.update(inner.digest())
    return Sha256(outer.hexdigest())


@functools.lru_cache(maxsize=8)
def _keyed(key: bytes) -> tuple[_Hash, _Hash]:
    # Setting a key up costs more than digesting a page under it.
    block = (key if len(key) <= _BLOCK else hashlib.sha256(key).digest()).ljust(_BLOCK, b"\0")
    inner, outer = (bytes(one ^ pad for one in block) for pad in (0x36, 0x5C))
    return hashlib.sha256(inner), hashlib.sha256(outer)
