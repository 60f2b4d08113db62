"""Laws of bundles."""

from __future__ import annotations

import pytest

from gateway.errors import MalformedReceiptError
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.receipt.bundle import format_bundle, parse_bundle
from tests.support.evidence import a_bundle

BUNDLE = a_bundle(b"any leaf")
ENCODED = format_bundle(BUNDLE)


def test_a_bundle_is_read_as_written() -> None:
    """A bundle gives back its leaf and its proof."""
    assert parse_bundle(ENCODED) == BUNDLE


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        ENCODED + b"\n",
        ENCODED.replace(b":", b": ", 1),
        ENCODED.replace(b"{", b'{"leaf":"",', 1),
        ENCODED.replace(b"bundle.v1", b"bundle.v2"),
        ENCODED.replace(b'"leaf":"', b'"leaf":"!'),
        ENCODED.replace(b"tlog-proof@v1", b"tlog-proof@v2"),
        b" " * BUNDLE_BYTES_MAX + ENCODED,
    ],
)
def test_what_is_no_bundle_is_refused(encoded: bytes) -> None:
    """A bundle that departs from its one form is malformed."""
    with pytest.raises(MalformedReceiptError):
        parse_bundle(encoded)
