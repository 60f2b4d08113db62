"""The test of the test: the oracle finds each way in which a log can break a promise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.ident import ExchangeId
from gateway.receipt.model import Subject
from gateway.receipt.statement import write_statement
from tests.support.evidence import LOG_SIGNER, RECEIPT, RECEIPT_SIGNER, REFUSAL, a_note
from tests.support.oracle import Oracle, judge
from tests.support.store import a_statement, an_abandonment, an_exchange_id, an_opening

LOGS = [LOG_SIGNER.vkey]
BODY = b"good day"
ONE, TWO, THREE, OTHER = (an_exchange_id(number) for number in range(4))


def a_receipt(exchange: ExchangeId, opening: int, body: bytes = BODY) -> bytes:
    """Return the receipt of an exchange whose answer is *body*."""
    receipt = msgspec.structs.replace(RECEIPT, exchange=exchange, opening=opening)
    subject = Subject(name="response.body", digest={"sha256": hashlib.sha256(body).hexdigest()})
    return write_statement(receipt, [subject], RECEIPT_SIGNER)


def a_refusal(exchange: ExchangeId) -> bytes:
    """Return the refusal of an exchange."""
    return a_statement(msgspec.structs.replace(REFUSAL, exchange=exchange))


LEAVES = [
    an_opening(ONE),
    a_receipt(ONE, 0),
    an_opening(TWO),
    an_abandonment(TWO, 2),
    a_refusal(THREE),
]


@pytest.fixture
def oracle(tmp_path: Path) -> Iterator[Oracle]:
    """Return an oracle that has seen what is in order."""
    oracle = Oracle(tmp_path / "oracle.jsonl")
    oracle.answered(ONE, BODY, whole=True)
    oracle.answered(TWO, b"good", whole=False)
    oracle.refused(THREE)
    for index, leaf in enumerate(LEAVES):
        oracle.placed(index, leaf)
    for size in range(len(LEAVES) + 1):
        oracle.noted(a_note(LEAVES[:size]))
    yield oracle
    oracle.close()


def test_what_is_in_order_breaks_no_promise(oracle: Oracle) -> None:
    """An oracle finds nothing in a log that kept its promises and has grown since."""
    grown = [*LEAVES, an_opening(OTHER), an_abandonment(OTHER, 5)]

    assert [] == judge(oracle, LEAVES, LOGS)
    assert [] == judge(oracle, grown, LOGS)
    assert 1 == oracle.whole()


def test_another_process_may_tell(oracle: Oracle) -> None:
    """Whatever one teller noted, another oracle on the same file knows."""
    beside = Oracle(oracle.file)
    beside.answered(OTHER, BODY, whole=True)
    beside.close()

    assert {"answer.unopened", "answer.unreceipted"} == {
        one.code for one in judge(oracle, LEAVES, LOGS)
    }


Told = Callable[[Oracle], None]
WRONG_MEMORIES: dict[str, Told] = {
    "answer.other": lambda oracle: oracle.answered(ONE, b"good", whole=True),
    "answer.unreceipted": lambda oracle: oracle.answered(TWO, BODY, whole=True),
    "answer.unopened": lambda oracle: oracle.answered(OTHER, b"", whole=False),
    "refusal.unwritten": lambda oracle: oracle.refused(OTHER),
    "leaf.lost": lambda oracle: oracle.placed(len(LEAVES), b"gone"),
    "index.promised_twice": lambda oracle: oracle.placed(0, b"other"),
    "checkpoint.ahead": lambda oracle: oracle.noted(a_note([*LEAVES, b"gone"])),
    "checkpoint.inconsistent": lambda oracle: oracle.noted(a_note([LEAVES[0], b"other"])),
    "checkpoint.unsigned": lambda oracle: oracle.noted(a_note(LEAVES).replace("/", "+", 1)),
}


@pytest.mark.parametrize("code", WRONG_MEMORIES)
def test_a_broken_promise_is_found(oracle: Oracle, code: str) -> None:
    """Each thing that was seen and is not borne out by the log is a violation."""
    WRONG_MEMORIES[code](oracle)

    assert code in {one.code for one in judge(oracle, LEAVES, LOGS)}


WRONG_LEAVES: dict[str, list[bytes]] = {
    "opening.unclosed": [*LEAVES, an_opening(OTHER)],
    "exchange.closed_twice": [*LEAVES, an_abandonment(ONE, 0)],
    "exchange.opened_twice": [*LEAVES, an_opening(ONE)],
    "opening.missing": [*LEAVES, an_abandonment(OTHER, 0)],
    "index.reused": [*LEAVES[:4], a_refusal(OTHER)],
    "leaf.lost": LEAVES[:4],
}


@pytest.mark.parametrize("code", WRONG_LEAVES)
def test_a_wrong_log_is_found(oracle: Oracle, code: str) -> None:
    """Each log that is not what was promised is a violation."""
    found = {one.code for one in judge(oracle, WRONG_LEAVES[code], LOGS)}

    assert code in found


def test_exchanges_under_way_may_be_open(oracle: Oracle) -> None:
    """While exchanges are under way an open opening is no violation."""
    leaves = [*LEAVES, an_opening(OTHER)]

    assert [] == judge(oracle, leaves, LOGS, settled=False)
