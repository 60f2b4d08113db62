"""Laws of the small tokens."""

from __future__ import annotations

import pytest

from gateway.errors import BadProofError
from gateway.tlog.text import format_base64, parse_base64, parse_decimal, parse_hash


@pytest.mark.parametrize("text", ["", "+5", "1_000", "01", "-1", " 1", "٣", "1\n", str(2**63)])
def test_a_size_has_one_spelling(text: str) -> None:
    """What `int()` forgives is refused, and so is what does not fit 63 bits."""
    with pytest.raises(BadProofError):
        parse_decimal(text, "the size")


@pytest.mark.parametrize("number", [0, 1, 10, 2**63 - 1])
def test_a_plain_decimal_is_read(number: int) -> None:
    """Every number below 2^63 is read from its plain decimal."""
    assert number == parse_decimal(str(number), "the size")


@pytest.mark.parametrize(
    "text", ["QQ", "QQ=", "QR==", "QQ==\n", " QQ==", "Q Q==", "Q-8=", "QQ==QQ==", "é"]
)
def test_base64_has_one_spelling(text: str) -> None:
    """Missing padding, spare bits, blanks and the URL alphabet are refused."""
    with pytest.raises(BadProofError):
        parse_base64(text, "the key")


def test_a_hash_has_32_bytes() -> None:
    """Base64 of another length spells no hash."""
    with pytest.raises(BadProofError):
        parse_hash(format_base64(bytes(31)), "the root")

    assert bytes(32) == parse_hash(format_base64(bytes(32)), "the root")
