"""Units of output that are no plain text, each by the digest that its kind has.

Of an embedding, the digest is over its numbers as little-endian 32-bit floats; of images and
audio, over the decoded bytes; of anything else, over its JSON or text as canonical JSON has it.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Sequence
from typing import Any

import orjson

from gateway.canonical import canonical_json, sha256_hex
from gateway.provider.model import Unit, UnitKind
from gateway.provider.readers import NonsenseError


def bytes_unit(kind: UnitKind, index: int, content: bytes) -> Unit:
    """Return the unit that *content* itself is."""
    return Unit(kind=kind, index=index, bytes=len(content), sha256=sha256_hex(content))


def base64_unit(kind: UnitKind, index: int, text: str) -> Unit:
    """Return the unit whose bytes are written as *text* in base64, of either alphabet.

    Raises:
        NonsenseError: it is no base64.
    """
    return bytes_unit(kind, index, _decoded(text))


def pieces_unit(kind: UnitKind, index: int, pieces: Sequence[str]) -> Unit:
    """Return the unit whose bytes came in *pieces* of base64, each by itself or cut anywhere.

    Raises:
        NonsenseError: they are no base64.
    """
    if any(len(piece) % 4 for piece in pieces):
        return base64_unit(kind, index, "".join(pieces))
    return bytes_unit(kind, index, b"".join(map(_decoded, pieces)))


def embedding_unit(index: int, numbers: Sequence[float]) -> Unit:
    """Return the unit that a vector is.

    Raises:
        NonsenseError: a number has no 32-bit form.
    """
    try:
        content = struct.pack(f"<{len(numbers)}f", *numbers)
    except (struct.error, OverflowError) as exc:
        raise NonsenseError("a number without a 32-bit form") from exc
    return bytes_unit("embedding", index, content)


def json_unit(kind: UnitKind, index: int, value: Any) -> Unit:
    """Return the unit that a decoded *value* is.

    Raises:
        NonsenseError: it has no canonical form: it is nested too deep, say.
    """
    try:
        return bytes_unit(kind, index, canonical_json(value))
    except TypeError as exc:
        raise NonsenseError("JSON without a canonical form") from exc


def raw_unit(kind: UnitKind, index: int, raw: bytes) -> Unit:
    """Return the unit that the JSON text *raw* is.

    Raises:
        NonsenseError: it is no JSON, or has no canonical form.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise NonsenseError("no JSON") from exc
    return json_unit(kind, index, value)


def _decoded(text: str) -> bytes:
    if "-" in text or "_" in text:
        text = text.replace("-", "+").replace("_", "/")
    padding = "=" * (-len(text) % 4)
    try:
        return binascii.a2b_base64((text + padding).encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as exc:
        raise NonsenseError("no base64") from exc
