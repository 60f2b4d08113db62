"""Laws of envelopes."""

from __future__ import annotations

import pytest

from gateway.errors import BadSignatureError, MalformedReceiptError
from gateway.limits import LEAF_BYTES_MAX
from gateway.receipt.envelope import (
    Envelope,
    Signature,
    open_envelope,
    pae,
    seal_statement,
    seal_unnamed,
    verify_envelope,
)
from gateway.receipt.keys import Ed25519Signer, generate_pem
from gateway.receipt.model import PAYLOAD_TYPE
from tests.support.evidence import MANIFEST_SIGNER, RECEIPT_SIGNER

PAYLOAD = '{"any":"päyload"}'.encode()
LEAF = seal_statement(PAYLOAD, RECEIPT_SIGNER)
KEYS = {RECEIPT_SIGNER.keyid: RECEIPT_SIGNER.public}


def test_the_signed_bytes_are_those_of_dsse() -> None:
    """The encoding counts bytes, not characters, and parts with single spaces."""
    assert pae("téxt", b"a b") == "DSSEv1 5 téxt 3 a b".encode()


def test_an_envelope_opens_to_what_was_sealed() -> None:
    """Payload, type and the key's id come back."""
    signature = RECEIPT_SIGNER.sign(pae(PAYLOAD_TYPE, PAYLOAD))
    expected = Envelope(PAYLOAD, PAYLOAD_TYPE, (Signature(RECEIPT_SIGNER.keyid, signature),))

    assert open_envelope(LEAF) == expected
    assert verify_envelope(LEAF, KEYS) == PAYLOAD


def test_a_stranger_is_not_believed() -> None:
    """A key that is not among the trusted ones verifies nothing."""
    stranger = Ed25519Signer(generate_pem("ed25519"))

    with pytest.raises(BadSignatureError):
        verify_envelope(seal_statement(PAYLOAD, stranger), KEYS)
    with pytest.raises(BadSignatureError):
        verify_envelope(LEAF, {})


def test_a_named_key_must_be_the_one() -> None:
    """A signature by one trusted key in the name of another fails."""
    other = Ed25519Signer(generate_pem("ed25519"))
    claimed = LEAF.replace(RECEIPT_SIGNER.keyid.encode(), other.keyid.encode())

    with pytest.raises(BadSignatureError):
        verify_envelope(claimed, {**KEYS, other.keyid: other.public})


def test_an_unnamed_key_is_looked_for() -> None:
    """An envelope without a key's name verifies if any trusted key signed it."""
    leaf = seal_unnamed(PAYLOAD, MANIFEST_SIGNER)
    both = {**KEYS, MANIFEST_SIGNER.keyid: MANIFEST_SIGNER.public}

    assert open_envelope(leaf).signatures[0].keyid is None
    assert verify_envelope(leaf, both) == PAYLOAD
    with pytest.raises(BadSignatureError):
        verify_envelope(leaf, KEYS)


@pytest.mark.parametrize(
    "leaf",
    [
        b"",
        b"{}",
        b"\xff",
        LEAF + b"\n",
        b" " + LEAF,
        LEAF.replace(b",", b", ", 1),
        LEAF.replace(b"{", b'{"extra":1,', 1),
        LEAF.replace(b"{", b'{"payload":"",', 1),
        LEAF.replace(b"in-toto", b"in-tota"),
        LEAF.replace(b'"keyid":"', b'"keyid":null,"was":"'),
        LEAF.replace(RECEIPT_SIGNER.keyid.encode(), RECEIPT_SIGNER.keyid.upper().encode()),
        LEAF.replace(b"==", b""),
        LEAF.replace(b"}]}", b'},{"sig":"AAAA"}]}'),
        LEAF[: LEAF.index(b"[")] + b"[]}",
        LEAF[:-1],
        b"[" * 60_000,
        LEAF + bytes(LEAF_BYTES_MAX),
    ],
)
def test_an_envelope_has_one_spelling(leaf: bytes) -> None:
    """Blanks, another order, a second signature or unknown keys make it malformed."""
    with pytest.raises(MalformedReceiptError):
        open_envelope(leaf)


def test_a_statement_too_long_for_a_leaf_is_not_sealed() -> None:
    """What tiles could not hold never becomes a leaf."""
    with pytest.raises(MalformedReceiptError) as caught:
        seal_statement(bytes(LEAF_BYTES_MAX * 3 // 4), RECEIPT_SIGNER)

    assert caught.value.problem == "receipt.too_large"
