"""Laws of signatures that several processes check."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.dataset.assembly.signed import CHECKED_ALONE_MAX, check_signatures, signed_leaves
from gateway.errors import LedgerDamagedError
from gateway.receipt.keys import Ed25519Signer, generate_pem
from gateway.receipt.statement import write_statement
from tests.support.evidence import AUTHORITY, RECEIPT, RECEIPT_SIGNER

GOOD = write_statement(RECEIPT, (), RECEIPT_SIGNER)
STRANGE = write_statement(RECEIPT, (), Ed25519Signer(generate_pem("ed25519")))
AT = GOOD.index(b'"sig":"') + 12
BENT = GOOD[:AT] + (b"A" if GOOD[AT : AT + 1] != b"A" else b"B") + GOOD[AT + 1 :]
MORE = 600


def leaves(bad: dict[int, bytes] | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield more leaves than one process checks alone."""
    for index in range(CHECKED_ALONE_MAX + MORE):
        yield index, (bad or {}).get(index, GOOD)


def test_what_is_not_left_to_the_caller_was_checked() -> None:
    """All leaves come in their order; behind the first ones, each was checked elsewhere."""
    seen = list(signed_leaves(leaves(), AUTHORITY, workers=2))

    assert [index for index, _, _ in seen] == list(range(CHECKED_ALONE_MAX + MORE))
    assert [done for _, _, done in seen] == [False] * CHECKED_ALONE_MAX + [True] * MORE


@pytest.mark.parametrize("wrong", [BENT, STRANGE], ids=["bent", "strange"])
def test_a_bad_signature_ends_it(wrong: bytes) -> None:
    """It is named by its leaf, and nothing behind it comes."""
    at = CHECKED_ALONE_MAX + MORE - 5
    seen: list[int] = []

    with pytest.raises(LedgerDamagedError, match=f"leaf {at} of the ledger"):
        seen.extend(index for index, _, _ in signed_leaves(leaves({at: wrong}), AUTHORITY, 2))

    assert at > len(seen) >= CHECKED_ALONE_MAX


def test_few_leaves_need_no_other_process() -> None:
    """Where there are few, nobody else is asked, and the caller checks."""
    few = list(signed_leaves(iter([(7, BENT)]), AUTHORITY))

    assert few == [(7, BENT, False)]
    assert check_signatures((), [(7, GOOD)]) is not None
    assert check_signatures(_keys(), [(7, GOOD), (8, GOOD)]) is None


def _keys() -> tuple[tuple[str, str], ...]:
    return tuple((life.keyid, life.key.pem) for life in AUTHORITY.lives)
