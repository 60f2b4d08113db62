"""Laws of signatures that are checked beside other work."""

from __future__ import annotations

import pytest

from gateway.dataset.assembly.signed import CHECKED_ALONE_MAX, Signatures
from gateway.errors import LedgerDamagedError
from gateway.receipt.envelope import Envelope, open_envelope
from gateway.receipt.keys import Ed25519Signer, generate_pem
from gateway.receipt.statement import write_statement
from tests.support.evidence import RECEIPT, RECEIPT_SIGNER

GOOD = open_envelope(write_statement(RECEIPT, (), RECEIPT_SIGNER))
STRANGE = open_envelope(write_statement(RECEIPT, (), Ed25519Signer(generate_pem("ed25519"))))
BENT = Envelope(GOOD.payload + b" ", GOOD.payload_type, GOOD.signatures)
MORE = 600


def check(bad: dict[int, Envelope], count: int, workers: int) -> None:
    """Have so many signatures checked, some of them bad."""
    with Signatures(workers) as signatures:
        for index in range(count):
            signatures.add(index, bad.get(index, GOOD), RECEIPT_SIGNER.public)
        signatures.finish()


@pytest.mark.parametrize("workers", [0, 1], ids=["alone", "helped"])
@pytest.mark.parametrize("wrong", [BENT, STRANGE], ids=["bent", "strange"])
@pytest.mark.parametrize("at", [0, CHECKED_ALONE_MAX + MORE - 1], ids=["first", "last"])
def test_a_bad_signature_ends_it(wrong: Envelope, at: int, workers: int) -> None:
    """Wherever it stands among many, and whoever checks it, its leaf is named."""
    with pytest.raises(LedgerDamagedError, match=f"leaf {at} of the ledger"):
        check({at: wrong}, CHECKED_ALONE_MAX + MORE, workers)


@pytest.mark.parametrize("wrong", [BENT, STRANGE], ids=["bent", "strange"])
def test_few_leaves_need_no_other_process(wrong: Envelope) -> None:
    """Where there are few, all are checked once they are there."""
    check({}, 3, 1)
    with pytest.raises(LedgerDamagedError, match="leaf 2 of the ledger"):
        check({2: wrong}, 3, 1)


def test_all_are_checked_once_it_is_finished() -> None:
    """Where nothing is bad, many end as few do."""
    check({}, CHECKED_ALONE_MAX + MORE, 1)
