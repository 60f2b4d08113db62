"""Laws of reading the ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.canonical import canonical_json
from gateway.errors import BadProofError, NotFoundError
from gateway.ident import Sha256
from gateway.ledger.reading.reader import Reader
from gateway.receipt.envelope import seal_unnamed
from gateway.receipt.model import Manifest, Opening, Receipt
from gateway.receipt.statement import payload_sha256
from gateway.receipt.verify import verify_bundle, verify_checkpoint
from gateway.store.index.index import Index
from gateway.tlog.merkle import verify_consistency
from tests.support.evidence import AUTHORIZATION, MANIFEST_SIGNER, TRUST, a_manifest
from tests.support.store import (
    LedgerUnderTest,
    a_receipt,
    an_exchange_id,
    an_opening,
    exchanges,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerUnderTest]:
    """Return a ledger of 400 exchanges, signed by a key that its first leaf authorises."""
    one = LedgerUnderTest(tmp_path)
    one.store.append([AUTHORIZATION, *exchanges(400, first=1)])
    yield one
    one.store.close()


@pytest.fixture
def reader(ledger: LedgerUnderTest) -> Iterator[Reader]:
    """Return a reader with an index that knows nothing yet."""
    with contextlib.closing(Index(ledger.folder / "index.db")) as index:
        yield Reader(ledger.store, index)


def test_every_bundle_verifies(ledger: LedgerUnderTest, reader: Reader) -> None:
    """Any leaf can be handed to an auditor, who needs nothing but the trust file."""
    note = ledger.sequencer().checkpoint_now()
    leaves = ledger.leaves()
    for index in range(0, 801, 37):
        verified = verify_bundle(reader.bundle(index, note), TRUST)

        assert (verified.index, verified.leaf) == (index, leaves[index])


def test_an_exchange_is_found_at_once(ledger: LedgerUnderTest, reader: Reader) -> None:
    """What was appended a moment ago is found, though nobody indexed it yet."""
    exchange = an_exchange_id(900)
    ledger.store.append([an_opening(exchange), a_receipt(exchange, 801)])
    note = ledger.sequencer().checkpoint_now()

    assert reader.find(exchange) == (802, reader.leaf(802))
    statement = verify_bundle(reader.bundle(exchange, note), TRUST).statement
    assert isinstance(statement, Receipt)
    assert statement.exchange == exchange


def test_what_is_not_there_is_not_found(ledger: LedgerUnderTest, reader: Reader) -> None:
    """Unknown exchanges and leaves are the caller's mistake, and said so."""
    note = ledger.sequencer().checkpoint_now()

    assert reader.find(an_exchange_id(999)) is None
    for index in (801, -1):
        with pytest.raises(NotFoundError):
            reader.leaf(index)
    for what in (801, an_exchange_id(999)):
        with pytest.raises(NotFoundError):
            reader.bundle(what, note)


def test_a_checkpoint_must_cover_the_leaf(ledger: LedgerUnderTest, reader: Reader) -> None:
    """A leaf after the checkpoint, or a checkpoint ahead of the ledger, proves nothing."""
    older = ledger.sequencer().checkpoint_now()
    ledger.store.append(exchanges(1, first=801))
    with pytest.raises(BadProofError):
        reader.prove(801, older)
    newer = ledger.sequencer().checkpoint_now()
    assert reader.prove(801, newer).index == 801

    ahead = newer.replace("\n803\n", "\n804\n")
    with pytest.raises(BadProofError, match="covers 804 leaves"):
        reader.prove(1, ahead)


def test_growth_is_proved(ledger: LedgerUnderTest, reader: Reader) -> None:
    """Between two checkpoints there is a proof that the log only grew."""
    older = verify_checkpoint(ledger.sequencer().checkpoint_now(), TRUST)
    ledger.store.append(exchanges(77, first=801))
    note = ledger.sequencer().checkpoint_now()
    newer = verify_checkpoint(note, TRUST)

    proof = reader.prove_growth(older.size, note)

    verify_consistency(older.size, older.root, newer.size, newer.root, proof)


def test_statements_come_in_order(ledger: LedgerUnderTest, reader: Reader) -> None:
    """Statements of the wanted kinds come with their indices, whatever was indexed before."""
    openings = list(reader.statements(kinds=["opening"]))

    assert [index for index, _ in openings] == list(range(1, 801, 2))
    assert all(isinstance(statement, Opening) for _, statement in openings)
    assert len(list(reader.statements())) == 801


def test_a_manifest_is_found_by_its_name(ledger: LedgerUnderTest, reader: Reader) -> None:
    """A manifest that is a leaf is found by the digest of its payload."""
    leaf = seal_unnamed(canonical_json(a_manifest()), MANIFEST_SIGNER)
    ledger.store.append([leaf])

    found = reader.manifest(payload_sha256(leaf))
    assert found is not None
    assert found[0] == 801
    assert isinstance(found[1], Manifest)
    assert reader.manifest(Sha256("0" * 64)) is None
