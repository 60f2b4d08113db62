"""Laws of bundles."""

from __future__ import annotations

import pytest

from gateway.errors import MalformedReceiptError
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.receipt.bundle import format_bundle, parse_bundle
from tests.support.evidence import a_bundle

BUNDLE = a_bundle(b"any leaf", authorization=b"another leaf")
ENCODED = format_bundle(BUNDLE)


def test_a_bundle_is_read_as_written() -> None:
    """A bundle gives back its leaf, its proof and the authorisation, if there is one."""
    alone = a_bundle(b"any leaf")

    assert parse_bundle(ENCODED) == BUNDLE
    assert parse_bundle(format_bundle(alone)) == alone


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
        ENCODED.replace(b"bundle.v2", b"bundle.v1"),
        ENCODED.replace(b'"leaf":"', b'"leaf":"!'),
        ENCODED.replace(b'"index":2', b'"index":-2'),
        ENCODED.replace(b'"index":2', b'"index":02'),
        ENCODED.replace(b'"hashes":["', b'"hashes":["!'),
        ENCODED.replace(b'"hashes":["', b'"hashes":["AAAA","'),
        ENCODED.replace(b'"hashes":[', b'"hashes":[' + 64 * (b'"' + 43 * b"A" + b'=",')),
        ENCODED.replace(b'{"authorization":{', b'{"authorization":{"at":1,'),
        ENCODED.replace(b'{"authorization":{', b'{"authorization":null,"x":{'),
        ENCODED.replace(b"tlog-proof@v1", b"tlog-proof@v2"),
        b" " * BUNDLE_BYTES_MAX + ENCODED,
    ],
)
def test_what_is_no_bundle_is_refused(encoded: bytes) -> None:
    """A bundle that departs from its one form is malformed."""
    with pytest.raises(MalformedReceiptError):
        parse_bundle(encoded)
