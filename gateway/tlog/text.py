"""Read the small tokens of notes and proofs as strictly as they are written.

What `int()` and base64 decoders forgive (`+5`, `1_000`, spare bits, missing padding) is
refused, so that one value has one spelling.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

from gateway.errors import BadProofError

SIZE_MAX: Final = 2**63 - 1
"""The largest tree size; C2SP bounds it so that it fits a signed 64-bit number."""

_SHOWN_MAX: Final = 200

_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")


def shown(text: object) -> str:
    """Return *text* as it may stand in an error: one line, not too long, no controls."""
    start = str(text)[:_SHOWN_MAX]
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in start)


def format_base64(content: bytes) -> str:
    """Return *content* in standard base64 with padding, on one line."""
    return binascii.b2a_base64(content, newline=False).decode("ascii")


def parse_base64(text: str, what: str) -> bytes:
    """Return the bytes that *text* spells; *what* names it in the error.

    Raises:
        BadProofError: it is not the one standard spelling, with padding.
    """
    try:
        content = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as broken:
        raise BadProofError(f"{what} is not base64: `{shown(text)}`") from broken
    if format_base64(content) != text:
        raise BadProofError(f"{what} is not canonical base64: `{shown(text)}`")
    return content


def parse_hash(text: str, what: str) -> bytes:
    """Return the 32 bytes that *text* spells in base64.

    Raises:
        BadProofError: it spells something else.
    """
    content = parse_base64(text, what)
    if len(content) != 32:
        raise BadProofError(f"{what} has {len(content)} bytes, not 32")
    return content


def parse_decimal(text: str, what: str) -> int:
    """Return the number that *text* spells: digits only, no leading zero, below 2^63.

    Raises:
        BadProofError: it spells something else.
    """
    if not _DECIMAL.fullmatch(text) or int(text) > SIZE_MAX:
        raise BadProofError(f"{what} is not a plain decimal below 2^63: `{shown(text)}`")
    return int(text)
