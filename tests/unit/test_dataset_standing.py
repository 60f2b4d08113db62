"""Laws of standing: what was said about an output, folded into what may be done with it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.dataset.standing import Standing, standing_of
from gateway.intent.model import IntendedUse
from gateway.policy.obligation import REVIEW_FIRST
from gateway.receipt.model import Declared, Receipt, Verdict, Withdrawal, Writer
from tests.support.evidence import DECLARATION, RECEIPT

WRITER = Writer(instance="test", version="0")
FREE = msgspec.structs.replace(
    RECEIPT,
    declared=Declared(use=IntendedUse(purpose="train.sft")),
    ruling=msgspec.structs.replace(RECEIPT.ruling, effect="permit", obligations=()),
)
WATCHED = msgspec.structs.replace(
    FREE, ruling=msgspec.structs.replace(FREE.ruling, obligations=(REVIEW_FIRST,))
)


def a_verdict(word: str, **subject: Any) -> Verdict:
    """Return a yes or a no of a named person."""
    return Verdict(
        approved=word == "yes",
        by="grace",
        reason="read it",
        at="2026-11-22",
        writer=WRITER,
        **subject,
    )


OUTPUT_YES = a_verdict("yes", exchange=RECEIPT.exchange)
OUTPUT_NO = a_verdict("no", exchange=RECEIPT.exchange)
DECLARATION_YES = a_verdict("yes", declaration=DECLARATION)
DECLARATION_NO = a_verdict("no", declaration=DECLARATION)
WITHDRAWN = Withdrawal(
    by="grace", reason="asked to", exchange=RECEIPT.exchange, at="2026-11-22", writer=WRITER
)


@pytest.mark.parametrize(
    ("receipt", "said", "expected"),
    [
        (FREE, [], Standing.APPROVED),
        (WATCHED, [], Standing.WAITING),
        (WATCHED, [OUTPUT_YES], Standing.APPROVED),
        (WATCHED, [OUTPUT_NO], Standing.DECLINED),
        (WATCHED, [OUTPUT_NO, OUTPUT_YES], Standing.APPROVED),
        (FREE, [OUTPUT_NO], Standing.DECLINED),
        (FREE, [DECLARATION_NO], Standing.DECLINED),
        (FREE, [DECLARATION_NO, DECLARATION_YES], Standing.APPROVED),
        (WATCHED, [DECLARATION_YES], Standing.WAITING),
        (FREE, [DECLARATION_NO, OUTPUT_YES], Standing.DECLINED),
        (FREE, [WITHDRAWN], Standing.WITHDRAWN),
        (FREE, [WITHDRAWN, OUTPUT_YES], Standing.WITHDRAWN),
        (WATCHED, [OUTPUT_YES, WITHDRAWN], Standing.WITHDRAWN),
    ],
)
def test_the_last_word_counts_and_a_withdrawal_is_it(
    receipt: Receipt, said: list[Verdict | Withdrawal], expected: Standing
) -> None:
    """Verdicts follow each other, each subject has its own; a withdrawal ends it."""
    assert expected is standing_of(receipt, said)


def test_what_was_not_permitted_to_teach_has_no_standing() -> None:
    """No verdict makes something to learn from of an output that was for plain use."""
    plain = msgspec.structs.replace(
        FREE, declared=Declared(use=IntendedUse(purpose="evaluate"))
    )

    assert standing_of(plain, [OUTPUT_YES]) is None


def test_a_receipt_that_was_not_permitted_has_no_standing() -> None:
    """Only a permitted exchange has outputs at all."""
    held = msgspec.structs.replace(
        FREE, ruling=msgspec.structs.replace(FREE.ruling, effect="hold")
    )

    assert standing_of(held, []) is None
