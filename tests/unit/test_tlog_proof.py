"""Laws of proofs as text."""

from __future__ import annotations

import pytest

from gateway.errors import BadProofError
from gateway.limits import NOTE_BYTES_MAX
from gateway.tlog.proof import (
    HEADER,
    ConsistencyProof,
    InclusionProof,
    format_consistency,
    format_proof,
    parse_consistency,
    parse_proof,
)
from gateway.tlog.text import format_base64

PROOF = InclusionProof(4, (bytes(32), bytes([1] * 32)), "o\n5\nroot\n\n— o sig\n")
TEXT = format_proof(PROOF)
LINE = format_base64(bytes(32)) + "\n"


def test_what_is_written_is_read() -> None:
    """A proof is read back from its text, its checkpoint verbatim."""
    assert parse_proof(TEXT) == PROOF


def test_a_log_of_one_leaf_needs_no_hash() -> None:
    """A proof without hashes is a proof."""
    alone = InclusionProof(0, (), "note\n")

    assert alone == parse_proof(format_proof(alone))


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEADER,
        f"{HEADER}\n\nnote",
        TEXT.replace("@v1", "@v2"),
        TEXT.replace("index 4", "index 04"),
        TEXT.replace("index 4", "leaf 4"),
        TEXT.replace("index 4", "extra AAAA\nindex 4"),
        TEXT.replace("AAA=", "AAB="),
        TEXT.replace("\n\n", "\n", 1),
        f"{HEADER}\nindex 0\n{LINE * 64}\nnote\n",
        TEXT + "a" * 2 * NOTE_BYTES_MAX,
    ],
)
def test_what_is_no_proof_is_refused(text: str) -> None:
    """A proof that departs from its one form is malformed."""
    with pytest.raises(BadProofError):
        parse_proof(text)


GROWTH = ConsistencyProof(4, (bytes(32), bytes([1] * 32)), "o\n9\nroot\n\n— o sig\n")
GROWN = format_consistency(GROWTH)


def test_a_consistency_proof_is_what_a_witness_takes() -> None:
    """A consistency proof is read back from its text, its checkpoint verbatim."""
    second = format_base64(bytes([1] * 32))

    assert parse_consistency(GROWN) == GROWTH
    assert f"old 4\n{LINE}{second}\n\no\n9\nroot\n\n— o sig\n" == GROWN


@pytest.mark.parametrize("size", [0, 9])
def test_growth_out_of_nothing_needs_no_hash(size: int) -> None:
    """A consistency proof without hashes is a proof."""
    alone = ConsistencyProof(size, (), "note\n")

    assert alone == parse_consistency(format_consistency(alone))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "old 4",
        "old 4\n",
        GROWN.replace("old 4", "old 04"),
        GROWN.replace("old 4", "old +4"),
        GROWN.replace("old 4", "new 4"),
        GROWN.replace("old 4", f"old {2**63}"),
        GROWN.replace("AAA=", "AAB="),
        GROWN.replace("\n\n", "\n", 1),
        f"old 0\n{LINE * 64}\nnote\n",
        GROWN + "a" * 2 * NOTE_BYTES_MAX,
    ],
)
def test_what_is_no_consistency_proof_is_refused(text: str) -> None:
    """A consistency proof that departs from its one form is malformed."""
    with pytest.raises(BadProofError):
        parse_consistency(text)
