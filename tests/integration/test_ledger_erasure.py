"""Texts are erased when somebody says so, or when the terms do; on their day and not before."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.clock import day_of
from gateway.errors import LedgerUnwellError
from gateway.ident import ExchangeId, Sha256, new_exchange_id
from gateway.ledger.custody.erasure import apply_erasures, count_covered, covered, erase_overdue
from gateway.ledger.reading.reader import Reader
from gateway.receipt.model import Abandonment, Erasure, Receipt
from gateway.receipt.statement import read_leaf
from gateway.store import sqlite
from gateway.store.content import Content, ContentStore
from gateway.store.index.index import Index
from tests.support.dataset import WRITER, House
from tests.support.store import a_receipt, an_exchange_id, an_opening

DAY = dt.timedelta(days=1)
THIRD = an_exchange_id(3)
SAID = Content(request=b"the words" * 999, salt=b"s", rows={0: b"a row"})


class Shelf:
    """A house, its index and its texts."""

    def __init__(self, folder: Path) -> None:
        self.house = House(folder)
        self.index = Index(folder / "index.db")
        self.reader = Reader(self.house.ledger, self.index)
        self.content = ContentStore(folder / "content.db", b"c" * 32)
        self.today = day_of(self.house.clock.now_ms())
        self.declaration = self.house.declare()

    def close(self) -> None:
        """Let go of every file."""
        self.content.close()
        self.index.close()
        self.house.close()

    def keep(self, *obligations: str, **changes: Any) -> ExchangeId:
        """Answer a call under *obligations*, and keep its text."""
        receipt = self.house.receipt(self.declaration, "good day", **changes)
        ruling = msgspec.structs.replace(receipt.ruling, obligations=obligations)
        receipt = msgspec.structs.replace(receipt, ruling=ruling)
        self.content.put_many([(receipt.exchange, Content(request=b"r", salt=b"s", rows={}))])
        self.house.state(receipt)
        return receipt.exchange

    def erase(self, on: dt.date) -> int:
        """Erase what is overdue on that day."""
        return erase_overdue(
            self.reader,
            self.content,
            on,
            lambda: self.say(overdue=on.isoformat()),
        )

    def say(self, **named: Any) -> int:
        """State an erasure; return its leaf index."""
        return self.house.state(
            Erasure(reason="asked for", by="R. Osei", at="", writer=WRITER, **named)
        )

    def erasures(self) -> int:
        """Return how many erasures the ledger holds."""
        self.reader.catch_up()
        return self.index.kinds().get("erasure", 0)

    def ask(
        self, which: int | ExchangeId, *, text: bool = True, ended: bool = True, **opening: Any
    ) -> Any:
        """Open an exchange, keep its text and end it, each if asked to; return its id."""
        exchange = an_exchange_id(which) if isinstance(which, int) else which
        at = self.house.ledger.append([an_opening(exchange, **opening)]).first
        if text:
            self.content.put_many([(exchange, SAID)])
        if ended:
            self.house.ledger.append([a_receipt(exchange, at)])
        return exchange

    def kept(self, *exchanges: ExchangeId) -> list[bool]:
        """Tell of each exchange whether its text is there."""
        return [self.content.get(one) is not None for one in exchanges]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    """Return a house with texts."""
    with contextlib.closing(Shelf(tmp_path)) as shelf:
        yield shelf


def test_a_text_goes_when_its_days_are_over_and_not_before(shelf: Shelf) -> None:
    """It stays through its last day; of several numbers of days the smallest counts."""
    short = shelf.keep("delete-by-days=30", "keep-ai-label")
    long = shelf.keep("delete-by-days=60", "delete-by-days=40")
    free = shelf.keep("keep-ai-label")
    counts = [shelf.erase(shelf.today + days * DAY) for days in (0, 30, 31, 40, 41, 9999)]

    assert [0, 0, 1, 0, 1, 0] == counts
    assert [True, True, False] == [shelf.content.was_erased(one) for one in (short, long, free)]
    assert shelf.content.get(free) is not None


def test_what_was_answered_since_the_last_look_is_found(shelf: Shelf) -> None:
    """Nobody needs to have asked for a receipt before its text can be erased."""
    shelf.erase(shelf.today)
    late = shelf.keep("delete-by-days=1")

    assert 1 == shelf.erase(shelf.today + 2 * DAY)
    assert shelf.content.was_erased(late)


def test_days_count_from_when_it_was_asked(shelf: Shelf) -> None:
    """The gate counts from the request, and so does the eraser, over midnight too."""
    tomorrow = (shelf.today + DAY).isoformat() + "T00:00:01.000Z"
    shelf.keep("delete-by-days=1", finished=tomorrow)

    assert 1 == shelf.erase(shelf.today + 2 * DAY)


@pytest.mark.parametrize(
    ("obligation", "received", "erased"),
    [
        ("delete-by-days=soon", "", 0),
        ("delete-by-days", "", 0),
        ("delete-by-days-or-so=1", "", 0),
        ("delete-by-days=30", "yesterday", 1),
    ],
)
def test_an_odd_receipt_stops_nobody(
    shelf: Shelf, obligation: str, received: str, erased: int
) -> None:
    """What nobody can read is passed over, and what follows it is erased on its day."""
    shelf.keep(obligation, **({"received": received} if received else {}))
    shelf.keep("delete-by-days=1")

    assert 1 + erased == shelf.erase(shelf.today + 2 * DAY)


def test_what_a_crash_left_without_a_receipt_goes(shelf: Shelf) -> None:
    """Text that was kept just before its exchange was abandoned is under no receipt."""
    exchange = new_exchange_id(0)
    shelf.content.put_many([(exchange, Content(request=b"r", salt=b"s", rows={}))])
    before = shelf.erase(shelf.today)
    shelf.house.state(
        Abandonment(exchange=exchange, opening=0, why="killed", found="", writer=WRITER)
    )

    assert (0, 1, 0) == (before, shelf.erase(shelf.today), shelf.erase(shelf.today))
    assert shelf.content.get(exchange) is None


def test_receipts_stay(shelf: Shelf) -> None:
    """Erasing a text takes nothing from the ledger."""
    exchange = shelf.keep("delete-by-days=1")
    shelf.erase(shelf.today + 2 * DAY)
    found = shelf.reader.find(exchange)

    assert found is not None
    assert isinstance(read_leaf(found[1]), Receipt)


def test_an_erasure_of_a_day_is_one_leaf(shelf: Shelf) -> None:
    """Days on which nothing goes leave no leaf, the others leave one."""
    shelf.keep("delete-by-days=1")
    shelf.keep("delete-by-days=1")
    erased = [shelf.erase(shelf.today + days * DAY) for days in (0, 1, 2, 2, 3)]

    assert [0, 0, 2, 0, 0] == erased
    assert 1 == shelf.erasures()


@pytest.mark.parametrize(
    ("named", "left"),
    [
        ({"principal": "ada"}, [False, False, True, True]),
        ({"project": "search"}, [False, True, False, True]),
        ({"exchange": THIRD}, [True, True, False, True]),
        ({"before": "2026-11-22"}, [False, False, True, True]),
        ({"before": "2026-11-23"}, [False, False, False, True]),
        ({"principal": "ada", "before": "2026-11-21"}, [False, True, True, True]),
        ({"principal": "nobody"}, [True, True, True, True]),
        ({}, [True, True, True, True]),
    ],
)
def test_what_is_named_goes(shelf: Shelf, named: dict[str, Any], left: list[bool]) -> None:
    """Exactly the texts go that an erasure names, and only once."""
    exchanges = [
        shelf.ask(1, principal="ada", project="search", at="2026-11-20T10:00:00.000Z"),
        shelf.ask(2, principal="ada", project="other", at="2026-11-21T10:00:00.000Z"),
        shelf.ask(THIRD, principal="bob", project="search", at="2026-11-22T00:00:00.000Z"),
        shelf.ask(4, principal="eve", project="third", at="2026-11-23T10:00:00.000Z"),
    ]
    erasure = Erasure(reason="", by="", at="", writer=WRITER, **named)
    shelf.reader.catch_up()
    count = left.count(False)
    would = count_covered(shelf.reader, shelf.content, erasure)
    shelf.say(**named)

    assert (count, count) == would
    assert [count, 0] == [apply_erasures(shelf.reader, shelf.content) for _ in range(2)]
    assert left == shelf.kept(*exchanges)


def test_what_comes_later_is_not_covered(shelf: Shelf) -> None:
    """An exchange opened after the leaf keeps its text, however late it is carried out."""
    before = shelf.ask(1, principal="ada")
    at = shelf.say(principal="ada")
    after = shelf.ask(2, principal="ada")
    apply_erasures(shelf.reader, shelf.content)
    erasure = read_leaf(shelf.reader.leaf(at))

    assert [False, True] == shelf.kept(before, after)
    assert isinstance(erasure, Erasure)
    assert [before] == list(covered(shelf.reader, erasure, at))


def test_a_text_under_way_never_arrives(shelf: Shelf) -> None:
    """An exchange that is open while it is erased keeps nothing when it ends."""
    under_way = shelf.ask(1, principal="ada", text=False, ended=False)
    textless = shelf.ask(2, principal="ada", text=False)
    shelf.say(principal="ada")
    apply_erasures(shelf.reader, shelf.content)
    shelf.content.put_many([(under_way, SAID)])

    assert [False] == shelf.kept(under_way)
    assert [True, False] == [shelf.content.was_erased(one) for one in (under_way, textless)]


def test_what_a_crash_left_undone_is_done_by_the_next(shelf: Shelf, tmp_path: Path) -> None:
    """An erasure that stands in the ledger alone is carried out by whoever comes next."""
    exchange = shelf.ask(1, principal="ada")
    shelf.say(principal="ada")
    shelf.content.close()
    shelf.content = ContentStore(tmp_path / "content.db", b"c" * 32)

    assert [True] == shelf.kept(exchange)
    assert [1, 0] == [apply_erasures(shelf.reader, shelf.content) for _ in range(2)]
    assert [False] == shelf.kept(exchange)


def test_texts_of_another_copy_are_looked_through_again(shelf: Shelf) -> None:
    """Where the texts remember an erasure that is not in the ledger, all are carried out."""
    exchange = shelf.ask(1, principal="ada")
    shelf.say(principal="ada")
    shelf.content.note_applied(999, Sha256("0" * 64))

    assert 1 == apply_erasures(shelf.reader, shelf.content)
    assert [False] == shelf.kept(exchange)


def test_it_counts_as_done_only_when_it_is_out_of_the_files(
    shelf: Shelf, tmp_path: Path
) -> None:
    """While a reader keeps the old pages alive it fails; the next time it is made up for."""
    exchange = shelf.ask(1, principal="ada")
    with contextlib.closing(sqlite.connect(shelf.content.path)) as beside:
        ((key, body),) = beside.execute("SELECT key, body FROM content").fetchall()
        assert isinstance(key, bytes)
        assert isinstance(body, bytes)
        beside.execute("BEGIN")
        beside.execute("SELECT count(*) FROM content").fetchall()
        shelf.say(exchange=exchange)
        with pytest.raises(LedgerUnwellError):
            apply_erasures(shelf.reader, shelf.content)
        undone = shelf.content.applied()
        beside.execute("COMMIT")
    apply_erasures(shelf.reader, shelf.content)
    on_disk = b"".join(path.read_bytes() for path in tmp_path.glob("content.db*"))

    assert undone is None
    assert shelf.content.applied() is not None
    assert key not in on_disk
    assert body[-100:] not in on_disk


@pytest.mark.parametrize("named", [{"overdue": "someday"}, {"before": "someday"}])
def test_an_odd_erasure_stops_nobody(shelf: Shelf, named: dict[str, Any]) -> None:
    """An erasure that nobody can read is passed over, and what follows it is carried out."""
    exchange = shelf.ask(1, principal="ada", at="~")
    shelf.say(**named)
    shelf.say(principal="ada")

    assert 1 == apply_erasures(shelf.reader, shelf.content)
    assert [False] == shelf.kept(exchange)
