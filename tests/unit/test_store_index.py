"""Laws of the query index."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.canonical import canonical_json
from gateway.errors import LedgerDamagedError
from gateway.ident import DeclarationId, Sha256
from gateway.intent.model import IntendedUse
from gateway.receipt.envelope import seal_unnamed
from gateway.receipt.model import (
    Caller,
    DeclarationFacts,
    Declared,
    Predicate,
    ResourceFacts,
    Verdict,
    Withdrawal,
)
from gateway.receipt.statement import payload_sha256
from gateway.store.index.index import Index
from gateway.store.index.places import STRETCH
from gateway.store.index.rows import row_of
from gateway.store.index.schema import statements_and_watermark
from gateway.store.sqlite import SqliteLedger
from gateway.store.tables import Migrations, open_database
from tests.support.evidence import (
    DECLARATION,
    MANIFEST_SIGNER,
    OPENING,
    RECEIPT,
    WRITER,
    a_manifest,
)
from tests.support.store import (
    FaultStore,
    LedgerUnderTest,
    a_receipt,
    a_statement,
    an_abandonment,
    an_exchange_id,
    an_opening,
    exchanges,
)

AT = "2026-11-22T06:00:00.000Z"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerUnderTest]:
    """Return an empty ledger."""
    one = LedgerUnderTest(tmp_path)
    yield one
    one.store.close()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """Return an empty index."""
    with contextlib.closing(Index(tmp_path / "index.db")) as one:
        yield one


def test_an_exchange_is_found_by_its_id(ledger: LedgerUnderTest, index: Index) -> None:
    """Opening and closing statement of an exchange are found, with what the receipt says."""
    ledger.store.append(exchanges(3))
    exchange = an_exchange_id(7)
    opened = ledger.store.append([an_opening(exchange)]).first
    ledger.store.append([a_receipt(exchange, opened)])

    assert index.catch_up(ledger.store) == 8
    assert index.catch_up(ledger.store) == 0
    found = index.find(exchange)
    assert found is not None
    assert (found.index, found.kind, found.opening) == (7, "receipt", 6)
    assert (found.project, found.principal, found.provider) == (
        "search",
        "team-search",
        "example",
    )
    assert (found.model, found.model_reported, found.purpose) == ("m", "m-2026", "train.sft")
    assert (found.effect, found.ended, found.readable) == ("permit", "complete", True)
    assert found.at == RECEIPT.finished
    opening = index.opening_of(exchange)
    assert opening is not None
    assert opening.index == 6
    assert index.find(an_exchange_id(99)) is None
    assert index.opening_of(an_exchange_id(99)) is None


def test_open_exchanges_are_listed(ledger: LedgerUnderTest, index: Index) -> None:
    """An opening is listed until a receipt, refusal or abandonment closes it."""
    one, two = an_exchange_id(1), an_exchange_id(2)
    ledger.store.append([an_opening(one), an_opening(two)])
    index.catch_up(ledger.store)
    assert index.unclosed() == [(one, 0), (two, 1)]

    ledger.store.append([an_abandonment(one, 0)])
    index.catch_up(ledger.store)

    assert index.unclosed() == [(two, 1)]


def test_what_is_under_way_is_known_by_who_asks(ledger: LedgerUnderTest, index: Index) -> None:
    """Open exchanges of one principal and project with one provider, and of nobody else."""
    one, two = an_exchange_id(1), an_exchange_id(2)
    ledger.store.append([an_opening(one), an_opening(two, principal="else")])
    index.catch_up(ledger.store)
    who = (OPENING.provider, OPENING.principal, OPENING.project)

    assert {one} == index.under_way(*who)
    assert set() == index.under_way(who[0], who[1], "other")
    assert set() == index.under_way("other", who[1], who[2])
    ledger.store.append([an_abandonment(one, 0)])
    index.catch_up(ledger.store)
    assert set() == index.under_way(*who)


def test_a_resource_is_whose_statement_told_of_it_first(
    ledger: LedgerUnderTest, index: Index
) -> None:
    """Later statements change nothing; other providers and kinds have ids of their own."""
    one, two = an_exchange_id(1), an_exchange_id(2)
    made = (
        ResourceFacts(kind="file", id="f"),
        ResourceFacts(kind="file", id="g", role="output", of="batch/b"),
        ResourceFacts(kind="batch", id="f"),
    )
    bob = Caller(principal="bob", project="search")
    ledger.store.append(
        [
            an_opening(one),
            a_receipt(one, 0, made=made),
            an_opening(two),
            a_receipt(two, 2, made=made, caller=bob),
        ]
    )
    index.catch_up(ledger.store)
    named = RECEIPT.provider.name

    found = index.resources(named, "file", ["f", "g", "h"])
    assert {"f", "g"} == set(found)
    assert {(one, "team-search")} == {
        (kept.exchange, kept.principal) for kept in found.values()
    }
    assert ("output", "batch/b") == (found["g"].role, found["g"].of)
    assert {"f": found["f"]} == index.resources(named, "file", ["f"])
    assert ["batch", "file"] == sorted(k.kind for k in index.resources_named(named, ["f", "x"]))
    assert {} == index.resources("other", "file", ["f"])
    assert {} == index.resources(named, "file", [])
    assert 2 == len(
        index.resources(named, "file", [str(at) for at in range(3000)] + ["f", "g"])
    )


def test_verdicts_and_withdrawals_are_found_by_subject(
    ledger: LedgerUnderTest, index: Index
) -> None:
    """What people said about a declaration, an exchange or a manifest is found in order."""
    exchange, manifest = an_exchange_id(1), Sha256("f" * 64)
    said: list[Predicate] = [
        Verdict(
            approved=True, by="ada", reason="ok", declaration=DECLARATION, at=AT, writer=WRITER
        ),
        Verdict(approved=False, by="ada", reason="no", exchange=exchange, at=AT, writer=WRITER),
        Withdrawal(by="bob", reason="gone", declaration=DECLARATION, at=AT, writer=WRITER),
        Withdrawal(by="bob", reason="gone", manifest=manifest, at=AT, writer=WRITER),
    ]
    ledger.store.append([a_statement(one) for one in said])
    index.catch_up(ledger.store)

    about = index.about(declaration=DECLARATION)
    assert [(row.index, row.kind, row.approved) for row in about] == [
        (0, "verdict", True),
        (2, "withdrawal", None),
    ]
    assert [row.index for row in index.about(exchange=exchange)] == [1]
    assert [row.principal for row in index.about(manifest=manifest)] == ["bob"]
    assert list(index.statements(["withdrawal", "verdict"])) == [0, 1, 2, 3]
    assert list(index.statements(["withdrawal"])) == [2, 3]
    assert list(index.statements([])) == []
    with pytest.raises(ValueError, match="must be named"):
        index.about()


def test_a_manifest_is_found_by_its_name(ledger: LedgerUnderTest, index: Index) -> None:
    """A manifest's name is the digest of its payload."""
    leaf = seal_unnamed(canonical_json(a_manifest()), MANIFEST_SIGNER)
    ledger.store.append([b"noise", leaf])
    index.catch_up(ledger.store)

    found = index.by_payload(payload_sha256(leaf))
    assert found is not None
    assert (found.index, found.kind, found.manifest) == (1, "manifest", payload_sha256(leaf))
    assert index.by_payload(payload_sha256(a_receipt(an_exchange_id(1), 0))) is None
    assert index.by_payload(Sha256("0" * 64)) is None


def test_filters_narrow(ledger: LedgerUnderTest, index: Index) -> None:
    """Every filter leaves only what fits; a purpose covers those below it."""
    use = DeclarationFacts(
        declaration=DeclarationId("use-" + "1" * 20),
        project="other",
        use=IntendedUse(purpose="evaluate"),
        owner="ada",
        at=AT,
        writer=WRITER,
    )
    evaluate = Declared(use=IntendedUse(purpose="evaluate"))
    caller = msgspec.structs.replace(RECEIPT.caller, project="other")
    exchange = an_exchange_id(5)
    ledger.store.append(
        [
            *exchanges(2),
            an_opening(exchange, purpose="evaluate", project="other"),
            a_receipt(
                exchange, 4, declared=evaluate, caller=caller, finished="2026-11-23T01:00:00Z"
            ),
            a_statement(use),
        ]
    )
    index.catch_up(ledger.store)

    def places(**filters: str) -> list[int]:
        return [row.index for row in index.select(**filters)]  # type: ignore[arg-type]  # a kind is text

    assert places() == [0, 1, 2, 3, 4, 5, 6]
    assert places(kind="receipt") == [1, 3, 5]
    assert places(kind="receipt", project="search") == [1, 3]
    assert places(purpose="train") == [0, 1, 2, 3]
    assert places(purpose="train.sft", kind="receipt") == [1, 3]
    assert places(purpose="evaluate") == [4, 5, 6]
    assert places(model="m") == places(model="m-2026") == [1, 3, 5]
    assert places(provider="nobody") == []
    assert places(since="2026-11-23") == [5]
    assert places(until="2026-11-22", kind="receipt") == [1, 3]
    assert places(until="2026-11-23", kind="receipt") == [1, 3, 5]
    assert places(declaration=DECLARATION, effect="permit") == [1, 3]
    assert places(principal="ada") == [6]


def test_pages_make_no_difference(ledger: LedgerUnderTest, index: Index) -> None:
    """A selection longer than a page is whole and in order."""
    ledger.store.append(exchanges(1300))
    index.catch_up(ledger.store)

    assert [row.index for row in index.select(kind="opening")] == list(range(0, 2600, 2))


def test_an_unreadable_leaf_is_passed_over(ledger: LedgerUnderTest, index: Index) -> None:
    """A leaf that no reader knows is indexed as such, and stops nobody."""
    ledger.store.append([b"from the future", *exchanges(1)])

    assert index.catch_up(ledger.store) == 3
    assert index.kinds() == {"unreadable": 1, "opening": 1, "receipt": 1}


def test_another_ledgers_index_is_made_again(
    ledger: LedgerUnderTest, index: Index, tmp_path: Path
) -> None:
    """An index that belongs to another ledger, or to a longer one, is made again."""
    with contextlib.closing(SqliteLedger.create(tmp_path / "other.db", "o.example/x")) as other:
        other.append(exchanges(10, first=500))
        index.catch_up(other)
    ledger.store.append(exchanges(2))

    with contextlib.closing(Index(tmp_path / "index.db")) as again:
        assert again.catch_up(ledger.store) == 4
        assert again.size == 4
        assert [row.index for row in again.select()] == [0, 1, 2, 3]


def test_a_damaged_index_is_made_again(ledger: LedgerUnderTest, tmp_path: Path) -> None:
    """A file that is no index is replaced, since the leaves say it all."""
    (tmp_path / "index.db").write_bytes(b"something else altogether\n" * 99)
    ledger.store.append(exchanges(2))

    with contextlib.closing(Index(tmp_path / "index.db")) as index:
        assert index.catch_up(ledger.store) == 4


def test_two_may_catch_up_at_once(ledger: LedgerUnderTest, tmp_path: Path) -> None:
    """Two who index the same leaves at the same time end with each leaf once."""
    ledger.store.append(exchanges(500))
    done: list[int] = []
    together = threading.Barrier(3)

    def catch_up() -> None:
        with (
            contextlib.closing(Index(tmp_path / "index.db")) as mine,
            contextlib.closing(SqliteLedger(ledger.path)) as store,
        ):
            together.wait(100)
            done.append(mine.catch_up(store))

    threads = [threading.Thread(target=catch_up) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(done) == 1000
    with contextlib.closing(Index(tmp_path / "index.db")) as index:
        assert index.kinds() == {"opening": 500, "receipt": 500}


def test_a_failed_catch_up_leaves_nothing_behind(ledger: LedgerUnderTest, index: Index) -> None:
    """Words that were new when it failed are numbered anew, and everything is found."""
    ledger.store.append(exchanges(2))
    store = FaultStore(ledger.store)
    store.fail_once("head", "after")
    with pytest.raises(LedgerDamagedError):
        index.catch_up(store)
    store.fail_once("leaves", "after")
    with pytest.raises(LedgerDamagedError):
        index.catch_up(store)

    assert index.size == 0
    assert index.catch_up(store) == 4
    assert [row.index for row in index.select(project="search")] == [0, 1, 2, 3]
    assert index.recount() == index.kinds() == {"opening": 2, "receipt": 2}


def test_damaged_places_are_said_to_be(ledger: LedgerUnderTest, index: Index) -> None:
    """A search over places that can't be read says so; it does not find less."""
    rows = [row_of(n, leaf) for n, leaf in enumerate(exchanges(STRETCH // 2))]
    index.add(rows, b"")
    with contextlib.closing(sqlite3.connect(index.path)) as connection, connection:
        connection.execute("UPDATE places SET bits = X'00'")

    with pytest.raises(LedgerDamagedError, match="remove it"):
        list(index.select(project="search"))


def test_progress_is_told(ledger: LedgerUnderTest, index: Index) -> None:
    """Whoever waits is told how far it is."""
    for first in range(0, 4200, 600):
        ledger.store.append(exchanges(600, first))
    steps: list[tuple[int, int]] = []
    index.catch_up(ledger.store, lambda *step: steps.append(step))

    assert steps == [(8192, 8400), (8400, 8400)]


def test_a_row_says_what_the_leaf_says() -> None:
    """Obligations and truth values survive the way through the file."""
    ruling = msgspec.structs.replace(RECEIPT.ruling, obligations=("label", "retain-30d"))
    row = row_of(3, a_receipt(an_exchange_id(1), 2, ruling=ruling, readable=False))

    assert row.obligations == ("label", "retain-30d")
    assert row.readable is False


def test_an_index_of_the_first_release_is_made_again(
    ledger: LedgerUnderTest, tmp_path: Path
) -> None:
    """What it said of obligations is read anew from the leaves; nothing stands twice."""
    ledger.store.append(exchanges(600))
    path = tmp_path / "old.db"
    first = Migrations("index")
    first()(statements_and_watermark)
    with contextlib.closing(open_database(path, first)) as old:
        row = {"leaf": 0, "kind": "receipt", "obligations": "label retain-30d"}
        old.table("statement").insert(row, pk="leaf")
        old.table("unclosed").insert({"opening": 1, "exchange": "x-gone"})
        old.table("watermark").update(1, {"size": 1, "last_sha256": "ab" * 32})
    with contextlib.closing(Index(path)) as index:
        assert index.size == 0
        index.catch_up(ledger.store)
        assert index.kinds() == {"opening": 600, "receipt": 600}
        assert index.unclosed() == []


def test_an_index_of_an_older_release_learns_of_stops(tmp_path: Path) -> None:
    """What was indexed stays, and what comes can be searched by how its provider said no."""
    path = tmp_path / "index.db"
    with contextlib.closing(Index(path)):
        pass
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP VIEW statement")
        for name in ("stop", "transform", "tags"):
            connection.execute(f"ALTER TABLE coded DROP COLUMN {name}")
        connection.execute(
            "DELETE FROM _sqlite_migrations WHERE name IN ('stops', 'tags_and_transforms')"
        )
        connection.execute("CREATE VIEW statement AS SELECT leaf FROM coded")
    with contextlib.closing(Index(path)) as index:
        assert [] == list(index.select(stop="quota"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        columns = connection.execute("SELECT * FROM statement").description

    assert ["stop", "transform", "tags"] == [name for name, *_ in columns[-3:]]
