"""Laws of manifests as Sigstore bundles."""

from __future__ import annotations

import base64
import json

import pytest

from gateway.canonical import sha256_hex
from gateway.errors import MalformedReceiptError
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.receipt.envelope import open_envelope, seal_statement
from gateway.receipt.sigstore import (
    open_manifest,
    wrap_leaf,
    write_manifest,
    write_trust_signature,
)
from tests.support.evidence import AT, MANIFEST_SIGNER, RECEIPT_SIGNER, a_manifest

BUNDLE, LEAF = write_manifest(a_manifest(), MANIFEST_SIGNER)


def test_a_manifest_opens_to_its_leaf() -> None:
    """The bundle holds the leaf verbatim and hints at its key."""
    assert open_manifest(BUNDLE) == (LEAF, MANIFEST_SIGNER.keyid)


def test_the_bundle_has_the_fields_that_sigstore_wants() -> None:
    """Media type, hint, an empty list of log entries and one signature without a name."""
    bundle = json.loads(BUNDLE)
    hint = base64.b64encode(bytes.fromhex(MANIFEST_SIGNER.keyid)).decode()

    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert bundle["verificationMaterial"] == {"publicKey": {"hint": hint}, "tlogEntries": []}
    assert [list(one) for one in bundle["dsseEnvelope"]["signatures"]] == [["sig"]]


def test_what_is_no_manifest_is_not_signed() -> None:
    """A statement of another kind is not sealed as a manifest."""
    with pytest.raises(MalformedReceiptError):
        write_manifest({**a_manifest(), "subject": []}, MANIFEST_SIGNER)


@pytest.mark.parametrize(
    "bundle",
    [
        b"",
        b"{}",
        LEAF,
        BUNDLE + b"\n",
        BUNDLE.replace(b"v0.3", b"v0.2"),
        BUNDLE.replace(b'"tlogEntries":[]', b'"tlogEntries":[1]'),
        BUNDLE.replace(b'"hint":"', b'"hint":"!'),
        BUNDLE.replace(b'"sig"', b'"keyid":"a","sig"'),
        wrap_leaf(seal_statement(b"{}", RECEIPT_SIGNER), RECEIPT_SIGNER.keyid),
        wrap_leaf(b"{}", MANIFEST_SIGNER.keyid),
        b" " * BUNDLE_BYTES_MAX + BUNDLE,
    ],
)
def test_what_is_no_bundle_is_refused(bundle: bytes) -> None:
    """A bundle that departs from its one form is malformed."""
    with pytest.raises(MalformedReceiptError):
        open_manifest(bundle)


def test_a_trust_file_is_signed_like_a_manifest() -> None:
    """The root's signature is a Sigstore bundle about `trust.json`, by its digest."""
    bundle = write_trust_signature(b"trust\n", "log.example/one", AT, MANIFEST_SIGNER)
    leaf, keyid = open_manifest(bundle)
    statement = json.loads(open_envelope(leaf).payload)

    assert keyid == MANIFEST_SIGNER.keyid
    assert statement["predicateType"] == "https://tos-gateway.example/trust/v2"
    assert statement["predicate"] == {"at": AT, "origin": "log.example/one"}
    assert statement["subject"] == [
        {"name": "trust.json", "digest": {"sha256": sha256_hex(b"trust\n")}}
    ]
