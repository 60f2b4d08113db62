"""Texts that the terms let nobody keep any longer are erased, on their day and not before."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.clock import day_of
from gateway.exchange.erase import erase_overdue
from gateway.ident import ExchangeId, new_exchange_id
from gateway.ledger.reader import Reader
from gateway.receipt.model import Abandonment, Receipt
from gateway.receipt.statement import read_leaf
from gateway.store.content import Content, ContentStore
from gateway.store.index import Index
from tests.support.dataset import WRITER, House

DAY = dt.timedelta(days=1)


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
        return erase_overdue(self.reader, self.content, on)


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
