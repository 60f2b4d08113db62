"""The twin of `gateway.provider.units`."""

from __future__ import annotations

import base64
import struct

import pytest

from gateway.canonical import sha256_hex
from gateway.provider.model import Unit
from gateway.provider.readers import NonsenseError
from gateway.provider.units import (
    base64_unit,
    bytes_unit,
    embedding_unit,
    json_unit,
    raw_unit,
)

PIXELS = bytes(range(240, 256))


@pytest.mark.parametrize("count", range(5))
def test_base64_is_digested_as_what_it_stands_for(count: int) -> None:
    """Either alphabet, padded or not, has the digest of the decoded bytes."""
    content = PIXELS[-count:] if count else b""
    plain, safe = base64.b64encode(content).decode(), base64.urlsafe_b64encode(content).decode()

    for text in (plain, safe, plain.rstrip("="), safe.rstrip("=")):
        assert base64_unit("image", 2, text) == bytes_unit("image", 2, content)


@pytest.mark.parametrize("text", ["a", "a=b", "ä", "a b=", "===="])
def test_what_is_no_base64_is_nonsense(text: str) -> None:
    """Text in no alphabet stands for no bytes."""
    with pytest.raises(NonsenseError):
        base64_unit("image", 0, text)


def test_an_embedding_is_its_32_bit_numbers() -> None:
    """Digits that a 32-bit float does not hold make no other vector."""
    unit = embedding_unit(1, [0.1, -2.0])

    assert unit == Unit(
        kind="embedding", index=1, bytes=8, sha256=sha256_hex(struct.pack("<2f", 0.1, -2.0))
    )
    assert unit == embedding_unit(1, [0.10000000149011612, -2])
    with pytest.raises(NonsenseError):
        embedding_unit(0, [1e300])


def test_json_is_digested_in_its_canonical_form() -> None:
    """Blanks and the order of keys make no other unit."""
    unit = raw_unit("other", 0, b'{"b": 1,\n "a": [2.50]}')

    assert unit == json_unit("other", 0, {"a": [2.5], "b": 1})
    assert unit.sha256 == sha256_hex(b'{"a":[2.5],"b":1}')


def test_json_without_a_canonical_form_is_nonsense() -> None:
    """What can't be read, or is nested too deep to be written, has no digest."""
    deep = b"[" * 300 + b"]" * 300
    for raw in (b"{", b"", deep, b'"\\ud800"'):
        with pytest.raises(NonsenseError):
            raw_unit("other", 0, raw)
