"""Laws of the check of the whole ledger."""

from __future__ import annotations

import contextlib
import multiprocessing
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.ident import ExchangeId, Sha256, item_id
from gateway.ledger.custody.fsck import Report, fsck
from gateway.limits import PART_LEAVES_MAX
from gateway.receipt.envelope import seal_statement
from gateway.receipt.keys import Ed25519Signer, P256Signer, RevokedKey, generate_pem
from gateway.receipt.model import Abandonment, ItemFacts, KeyRevocation, Receipt, Refusal
from gateway.receipt.statement import write_statement
from gateway.store import sqlite
from gateway.store.index.index import Index
from gateway.tlog.merkle import leaf_hash, root_of
from tests.support.evidence import (
    EVERY,
    KEY_AUTHORIZATION,
    KEY_REVOCATION,
    MANIFEST_SIGNER,
    RECEIPT,
    RECEIPT_SIGNER,
    REFUSAL,
    SUBJECTS,
    TRUST,
    VERDICT,
    an_authority,
    signer_of,
)
from tests.support.store import (
    LedgerUnderTest,
    a_receipt,
    an_abandonment,
    an_exchange_id,
    an_opening,
    exchanges,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerUnderTest]:
    """Return a ledger of 300 exchanges with a published checkpoint."""
    one = LedgerUnderTest(tmp_path)
    leaves = exchanges(300)
    for first in range(0, 600, 70):
        one.store.append(leaves[first : first + 70])
    one.sequencer().checkpoint_now()
    yield one
    one.store.close()


def codes(ledger: LedgerUnderTest) -> set[str]:
    """Return the codes of what fsck finds."""
    return {finding.code for finding in ledger.fsck().findings}


def edit(ledger: LedgerUnderTest, statement: str, *values: bytes) -> None:
    """Change the file behind everyone's back."""
    with contextlib.closing(sqlite.connect(ledger.path)) as connection:
        connection.execute(statement, values)


def test_a_good_ledger_is_clean(ledger: LedgerUnderTest) -> None:
    """Nothing is found in a ledger that nobody touched, and the report counts it."""
    done: list[tuple[int, int]] = []
    report = fsck(
        ledger.store, TRUST, lambda *step: done.append(step), authority=an_authority()
    )

    assert report.clean
    assert (report.size, report.kinds) == (600, {"opening": 300, "receipt": 300})
    assert report.root == root_of(map(leaf_hash, ledger.leaves()))
    assert report.open == []
    assert report.checkpoints == [600]
    assert done[-1] == (600, 600)


def test_an_edited_leaf_is_found(ledger: LedgerUnderTest) -> None:
    """One changed byte shows in the leaf's own statement and in every root above it."""
    leaf = bytearray(ledger.leaves()[101])
    leaf[200] ^= 1
    edit(ledger, "UPDATE leaf SET leaf = ? WHERE seq = 101", bytes(leaf))

    findings = ledger.fsck().findings
    assert 101 in {finding.index for finding in findings}
    assert {"root.differs", "tile.differs"} <= {finding.code for finding in findings}


def test_a_leaf_replaced_with_another_is_found(ledger: LedgerUnderTest) -> None:
    """A leaf that is valid by itself, but not the one that was added, changes the root."""
    edit(ledger, "UPDATE leaf SET leaf = ? WHERE seq = 8", an_opening(an_exchange_id(4)))

    assert "root.differs" in codes(ledger)


def test_a_removed_leaf_is_found(ledger: LedgerUnderTest) -> None:
    """A gap is named, and what comes before it is checked."""
    edit(ledger, "DELETE FROM leaf WHERE seq = 300")

    findings = ledger.fsck().findings
    assert [finding.code for finding in findings] == ["ledger.damaged"]
    assert "no leaf 300" in str(findings[0])


def test_a_dropped_tail_is_found(ledger: LedgerUnderTest) -> None:
    """Leaves cut off at the end of a commit are missed by the published checkpoint."""
    edit(ledger, "DELETE FROM leaf WHERE seq >= 560")

    assert codes(ledger) == {"checkpoint.ahead"}


def test_an_edited_frontier_is_found(ledger: LedgerUnderTest) -> None:
    """A stored frontier that its leaves don't give is found, also in the middle."""
    edit(ledger, "UPDATE leaf SET frontier = zeroblob(length(frontier)) WHERE seq = 69")

    assert [str(finding) for finding in ledger.fsck().findings] == [
        "root.differs: leaf 69: the frontier kept here is another"
    ]


def test_an_edited_tile_is_found(ledger: LedgerUnderTest) -> None:
    """A kept tile that its leaves don't give is found."""
    edit(ledger, "UPDATE tile SET root = zeroblob(32) WHERE level = 0 AND number = 1")

    assert codes(ledger) == {"tile.differs"}


def test_a_forged_checkpoint_is_found(ledger: LedgerUnderTest) -> None:
    """A checkpoint that the log's key did not sign is named."""
    note = ledger.checkpoint_file.read_text().replace("\n600\n", "\n599\n")
    ledger.checkpoint_file.write_text(note)

    assert codes(ledger) == {"signature.bad"}


def test_a_strangers_receipt_is_found(ledger: LedgerUnderTest) -> None:
    """A receipt signed by a key that is not trusted is found."""
    stranger = Ed25519Signer(generate_pem("ed25519"))
    ledger.store.append([write_statement(RECEIPT, SUBJECTS, stranger)])

    assert codes(ledger) == {"signature.bad"}


@pytest.mark.parametrize("leaf", [b"", b"{}", b"\xff\x00", b'{"payload"'])
def test_a_leaf_that_is_none_is_found(ledger: LedgerUnderTest, leaf: bytes) -> None:
    """Bytes that are no statement are found where they stand."""
    ledger.store.append([leaf])

    report = ledger.fsck()
    assert [(one.code, one.index) for one in report.findings] == [("receipt.malformed", 600)]


def test_an_open_exchange_is_listed(ledger: LedgerUnderTest) -> None:
    """An opening without an end is no finding: it is listed as open."""
    exchange = an_exchange_id(900)
    ledger.store.append([an_opening(exchange)])

    assert ledger.check().open == [(exchange, 600)]


def test_an_exchange_closed_twice_is_found(ledger: LedgerUnderTest) -> None:
    """A second end of the same opening is found."""
    exchange = an_exchange_id(0)
    opened = an_opening(exchange)
    ledger.store.append([opened, a_receipt(exchange, 600), an_abandonment(exchange, 600)])

    report = ledger.fsck()
    assert [(one.code, one.index) for one in report.findings] == [
        ("exchange.closed_twice", 602)
    ]


@pytest.mark.parametrize("opening", [0, 599, 600, 10_000])
def test_a_receipt_of_another_opening_is_found(ledger: LedgerUnderTest, opening: int) -> None:
    """A closing statement must name the opening of its own exchange, before it."""
    ledger.store.append([a_receipt(an_exchange_id(901), opening)])

    assert codes(ledger) == {"opening.missing"}


def test_every_kind_is_called_alike(ledger: LedgerUnderTest) -> None:
    """The index and the check of the ledger name each kind of statement in the same way."""
    about_no_exchange = [
        one for one in EVERY if not isinstance(one, Receipt | Refusal | Abandonment)
    ]
    # Once its key has ended nothing by it counts: what ends keys comes last.
    about_no_exchange.sort(key=lambda one: isinstance(one, KeyRevocation))
    leaves = [write_statement(one, (), signer_of(one)) for one in about_no_exchange]
    *leaves, ending = leaves
    ledger.store.append([*leaves, write_statement(REFUSAL, (), RECEIPT_SIGNER), ending])
    with contextlib.closing(Index(ledger.folder / "index.db")) as index:
        index.catch_up(ledger.store)
        report = fsck(ledger.store, TRUST, index=index, authority=an_authority())

    # Whether what they name stands before them is the business of `descent`.
    named = {"parent.missing", "members.incomplete"}
    assert [] == [str(one) for one in report.findings if one.code not in named]
    assert {"agreement", "organisation", "activation", "terms-change"} <= report.kinds.keys()


def test_an_index_that_agrees_is_clean(ledger: LedgerUnderTest) -> None:
    """An index made of these leaves is no finding, nor is one that lags behind."""
    with contextlib.closing(Index(ledger.folder / "index.db")) as index:
        index.catch_up(ledger.store)
        assert fsck(ledger.store, TRUST, index=index, authority=an_authority()).clean
        ledger.store.append(exchanges(1, first=600))

        assert fsck(ledger.store, TRUST, index=index, authority=an_authority()).clean


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM coded WHERE leaf = 5",
        "INSERT INTO unclosed VALUES (5, 'x-1')",
        "UPDATE watermark SET size = 601",
    ],
)
def test_an_index_that_differs_is_found(ledger: LedgerUnderTest, change: str) -> None:
    """An index that says something else than the leaves is found."""
    with contextlib.closing(Index(ledger.folder / "index.db")) as index:
        index.catch_up(ledger.store)
        index._file.connection.execute(change)
        index._file.connection.commit()
        report = fsck(ledger.store, TRUST, index=index, authority=an_authority())

    assert {finding.code for finding in report.findings} <= {"index.differs", "index.ahead"}
    assert not report.clean


def test_findings_are_bounded(ledger: LedgerUnderTest) -> None:
    """Only the first findings are listed; all are counted."""
    ledger.store.append([b"no statement"] * 1500)

    report = ledger.fsck()
    assert len(report.findings) == 1000
    assert report.findings_count == 1500


def test_an_unknown_statement_is_found(ledger: LedgerUnderTest) -> None:
    """A signed statement of a kind that nobody knows is found, signature or not."""
    signer = Ed25519Signer(generate_pem("ed25519"))
    ledger.store.append(
        [seal_statement(b'{"_type":"https://in-toto.io/Statement/v1"}', signer)]
    )

    assert not ledger.fsck().clean


# -- keys: from which leaf on, and up to which ---------------------------------------------

OTHER = Ed25519Signer(generate_pem("ed25519"))


def authorising(signer: Ed25519Signer) -> bytes:
    """Return the leaf that lets *signer* sign from the next leaf on."""
    said = msgspec.structs.replace(
        KEY_AUTHORIZATION, keyid=Sha256(signer.keyid), key=signer.public.pem
    )
    return write_statement(said, (), MANIFEST_SIGNER)


def revoking(signer: Ed25519Signer, since: int | None) -> bytes:
    """Return the leaf that ends *signer* at leaf *since*, or where it stands."""
    said = msgspec.structs.replace(KEY_REVOCATION, keyid=Sha256(signer.keyid), since=since)
    return write_statement(said, (), MANIFEST_SIGNER)


def a_verdict(signer: Ed25519Signer) -> bytes:
    """Return some statement by *signer*."""
    return write_statement(VERDICT, (), signer)


def a_ledger(folder: Path, *leaves: bytes) -> LedgerUnderTest:
    """Return a ledger of *leaves*, each appended by itself."""
    ledger = LedgerUnderTest(folder)
    for leaf in leaves:
        ledger.store.append([leaf])
    return ledger


def told(report: Report) -> list[tuple[str, int | None]]:
    """Return code and leaf of every finding."""
    return [(finding.code, finding.index) for finding in report.findings]


def test_a_key_counts_from_the_leaf_after_its_authorisation(tmp_path: Path) -> None:
    """What a key signed before it was authorised is found, and nothing after."""
    early, ledger = a_verdict(OTHER), LedgerUnderTest(tmp_path)
    ledger.store.append([early, authorising(OTHER), a_verdict(OTHER), a_verdict(OTHER)])

    assert [("signature.bad", 0)] == told(fsck(ledger.store, TRUST))
    ledger.store.close()


def test_a_key_counts_up_to_its_revocation(tmp_path: Path) -> None:
    """What a key signed after its revocation is found, and nothing before."""
    ledger = a_ledger(
        tmp_path,
        authorising(OTHER),
        a_verdict(OTHER),
        revoking(OTHER, None),
        a_verdict(OTHER),
        authorising(OTHER),
        a_verdict(OTHER),
    )

    report = fsck(ledger.store, TRUST)

    assert [("signature.bad", 3), ("signature.bad", 5)] == told(report)
    assert 0 == report.disowned_count
    ledger.store.close()


def test_what_a_stolen_key_signed_is_listed_apart(tmp_path: Path) -> None:
    """A revocation that reaches back ends leaves as evidence; the log is whole all the same."""
    ledger = a_ledger(
        tmp_path,
        authorising(OTHER),
        authorising(RECEIPT_SIGNER),
        a_verdict(OTHER),
        a_verdict(OTHER),
        a_verdict(RECEIPT_SIGNER),
        revoking(OTHER, 3),
    )

    report = fsck(ledger.store, TRUST)

    assert (True, [3], 1) == (report.clean, report.disowned, report.disowned_count)
    ledger.store.close()


def test_a_key_that_the_trust_file_revokes_is_found(tmp_path: Path) -> None:
    """Where only the trust file ends a key, what it signed from there on is a finding."""
    leaves = [authorising(OTHER), a_verdict(OTHER), a_verdict(OTHER)]
    ledger = a_ledger(tmp_path, *leaves)
    revoked = (RevokedKey(keyid=Sha256(OTHER.keyid), since=2),)
    trust = msgspec.structs.replace(TRUST, revoked=revoked)

    assert [("signature.bad", 2)] == told(fsck(ledger.store, trust))

    ledger.store.append([revoking(OTHER, 2), a_verdict(OTHER)])
    report = fsck(ledger.store, trust)
    assert ([("signature.bad", 4)], [2]) == (told(report), report.disowned)
    ledger.store.close()


def test_a_stranger_authorises_nobody(tmp_path: Path) -> None:
    """An authorisation by a key that may not make one is found, and so is what leans on it."""
    said = msgspec.structs.replace(
        KEY_AUTHORIZATION, keyid=Sha256(OTHER.keyid), key=OTHER.public.pem
    )
    forged = write_statement(said, (), P256Signer(generate_pem("p256")))
    ledger = a_ledger(tmp_path, forged, a_verdict(OTHER))

    assert [("signature.bad", 0), ("signature.bad", 1)] == told(fsck(ledger.store, TRUST))
    ledger.store.close()


def test_a_key_that_ends_far_from_all_it_signed_is_known(tmp_path: Path) -> None:
    """A revocation is understood however many leaves lie between it and the authorisation."""
    opening = exchanges(1, 1)[0]
    leaves = [authorising(OTHER), *[opening] * PART_LEAVES_MAX, revoking(OTHER, None)]
    ledger = a_ledger(tmp_path, *leaves)

    assert [] == [code for code, _ in told(fsck(ledger.store, TRUST))]
    ledger.store.close()


# -- several processes ---------------------------------------------------------------------


@pytest.mark.crash
def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    """Whoever checks, the report is the same, in the order of the leaves."""
    leaves = [authorising(RECEIPT_SIGNER), *exchanges(750, 1)]
    leaves += [a_verdict(OTHER), leaves[2]]
    leaves += [revoking(RECEIPT_SIGNER, 1_490), a_verdict(RECEIPT_SIGNER)]
    ledger = LedgerUnderTest(tmp_path)
    for first in range(0, len(leaves), 500):
        ledger.store.append(leaves[first : first + 500])
    steps: list[tuple[int, int]] = []

    alone = fsck(ledger.store, TRUST, workers=1)
    together = fsck(ledger.store, TRUST, lambda *step: steps.append(step), workers=2)

    assert alone == together
    assert told(together) == [
        ("signature.bad", 1_501),
        ("exchange.closed_twice", 1_502),
        ("signature.bad", 1_504),
    ]
    assert [*range(1_490, 1_501, 2), 1_502] == together.disowned
    assert (len(leaves), len(leaves)) == steps[-1]
    ledger.store.close()


@pytest.mark.crash
def test_a_process_that_is_ended_is_a_finding(tmp_path: Path) -> None:
    """A part that nobody heard of again is never taken to have passed."""
    ledger = LedgerUnderTest(tmp_path)
    leaves = [authorising(RECEIPT_SIGNER), *exchanges(3_000, 1)]
    for first in range(0, len(leaves), 1_000):
        ledger.store.append(leaves[first : first + 1_000])

    def end_one(done: int, size: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    report = fsck(ledger.store, TRUST, end_one, workers=2)

    assert [("check.interrupted", None)] == told(report)
    assert not report.clean
    ledger.store.close()


@pytest.mark.crash
def test_a_check_takes_no_memory_that_grows(tmp_path: Path) -> None:
    """A ledger five times as long is checked in the same memory."""
    peaks = []
    leaf = a_verdict(RECEIPT_SIGNER)
    for count in (3_000, 15_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        ledger = a_ledger(folder, authorising(RECEIPT_SIGNER))
        for _ in range(0, count, 1_000):
            ledger.store.append([leaf] * 1_000)
        tracemalloc.start()
        assert fsck(ledger.store, TRUST, workers=1).clean
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        ledger.store.close()

    assert peaks[1] < peaks[0] + 500_000


# -- items ---------------------------------------------------------------------------------


def test_items_of_an_exchange_close_nothing(ledger: LedgerUnderTest) -> None:
    """Each thing of many that were asked for has a receipt beside the exchange's own."""
    asking = an_exchange_id(0)
    one, two = (an_item(asking, number, 600) for number in (0, 7))
    ledger.store.append([an_opening(asking), one, a_receipt(asking, 600), two])

    assert [] == ledger.check().open


def test_an_item_with_two_receipts_is_found(ledger: LedgerUnderTest) -> None:
    """An item has one receipt, however often it was fetched."""
    asking = an_exchange_id(0)
    item = an_item(asking, 3, 600)
    ledger.store.append([an_opening(asking), item, a_receipt(asking, 600), item])

    assert [("item.twice", 603)] == told(ledger.fsck())


def test_an_item_under_another_name_is_found(ledger: LedgerUnderTest) -> None:
    """What an item is called follows from what asked for it, and its number."""
    asking = an_exchange_id(0)
    item = a_receipt(item_id(asking, 2), 600, item=ItemFacts(of=asking, number=3))
    ledger.store.append([an_opening(asking), a_receipt(asking, 600), item])

    assert [("item.misnamed", 602)] == told(ledger.fsck())


@pytest.mark.parametrize("opening", [2, 601, 700])
def test_an_item_that_nobody_asked_for_is_found(ledger: LedgerUnderTest, opening: int) -> None:
    """The exchange that an item names was opened at the leaf that it names."""
    asking = an_exchange_id(0)
    ledger.store.append([an_opening(asking), a_receipt(asking, 600)])
    ledger.store.append([an_item(asking, 0, opening)])

    assert [("opening.missing", 602)] == told(ledger.fsck())


def an_item(of: ExchangeId, number: int, opening: int) -> bytes:
    """Return the receipt of an item as a leaf."""
    return a_receipt(item_id(of, number), opening, item=ItemFacts(of=of, number=number))
