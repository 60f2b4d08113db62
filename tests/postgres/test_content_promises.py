"""What contents and gateway keys promise, kept in a file and in a database alike."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.clock import FrozenClock
from gateway.errors import LedgerDamagedError, LedgerUnwellError, NotFoundError
from gateway.ident import ExchangeId, Sha256
from gateway.store.access import AccessKeys
from gateway.store.content import Content, ContentStore, Sealed
from gateway.store.postgres.access import PostgresAccessKeys
from gateway.store.postgres.content import PostgresContents
from gateway.store.postgres.ledger import PostgresLedger
from tests.support.evidence import ORIGIN
from tests.support.store import an_exchange_id

KEY = bytes(range(32))
DAY_MS = 86_400_000
IDS = [an_exchange_id(number) for number in range(200)]
KINDS = ["file", pytest.param("database", marks=pytest.mark.postgres)]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Somewhere contents and gateway keys are, opened as often as a test likes."""

    contents: Callable[[bytes], ContentStore]
    keys: Callable[[], AccessKeys]


@pytest.fixture
def clock() -> FrozenClock:
    """Return a clock that stands on 2026-11-18."""
    return FrozenClock(1_795_000_000_000)


@pytest.fixture(params=KINDS)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FrozenClock
) -> Iterator[Place]:
    """Return a place of each kind in turn."""
    with contextlib.ExitStack() as opened:
        if request.param == "file":
            yield Place(
                contents=lambda key: ContentStore(tmp_path / "content.db", key),
                keys=lambda: AccessKeys(tmp_path / "access.db", clock),
            )
            return
        url: str = request.getfixturevalue("url")
        opened.enter_context(contextlib.closing(PostgresLedger.create(url, ORIGIN)))

        def ledger() -> PostgresLedger:
            return opened.enter_context(contextlib.closing(PostgresLedger(url)))

        yield Place(
            contents=lambda key: PostgresContents(ledger(), key),
            keys=lambda: PostgresAccessKeys(ledger(), clock),
        )


@pytest.fixture
def contents(place: Place) -> Iterator[ContentStore]:
    """Return a store of contents without any."""
    with contextlib.closing(place.contents(KEY)) as one:
        yield one


def some(number: int = 0) -> Content:
    """Return a content that differs by *number*."""
    return Content(request=b"{%d}" % number * 50, salt=bytes(16), rows={0: b"row", 3: b"more"})


async def test_what_was_put_is_there(contents: ContentStore, place: Place) -> None:
    """A content is durable when `put` returns, and comes back whole, everywhere."""
    await asyncio.gather(*(contents.put(IDS[n], some(n)) for n in range(20)))
    contents.put_many([(IDS[99], some(99))])

    with contextlib.closing(place.contents(KEY)) as again:
        assert [again.get(IDS[n]) for n in range(20)] == [some(n) for n in range(20)]
        assert again.get(IDS[99]) == some(99)
        assert again.get(IDS[-1]) is None
        named = [IDS[n] for n in (3, 99, -1)]
        assert again.kept_of(named) == set(named[:2])


async def test_what_is_erased_stays_erased(contents: ContentStore, place: Place) -> None:
    """Key and body are gone everywhere, and nothing is put in their place."""
    gone, ahead, stays = (IDS[n] for n in (1, 2, 3))
    await contents.put(gone, some(1))
    await contents.put(stays, some(3))

    assert contents.erase_all([gone, stays][:1], ahead=[ahead]) == 1
    assert contents.erase_all([gone]) == 0
    contents.empty_log()
    with contextlib.closing(place.contents(KEY)) as again:
        for exchange in (gone, ahead):
            await again.put(exchange, some())
            assert again.get(exchange) is None
            assert again.was_erased(exchange)
        assert again.get(stays) == some(3)
        assert not again.was_erased(stays)
        assert again.erase(stays)
        assert not again.erase(stays)


async def test_the_first_put_stands(contents: ContentStore) -> None:
    """What is kept of an exchange is never replaced."""
    exchange = IDS[1]
    await contents.put(exchange, some(1))
    await contents.put(exchange, some(2))

    assert contents.get(exchange) == some(1)


async def test_another_key_opens_nothing(contents: ContentStore, place: Place) -> None:
    """Without the wrapping key it was written with a content can't be read."""
    await contents.put(IDS[1], some())

    with (
        contextlib.closing(place.contents(bytes(32))) as other,
        pytest.raises(LedgerDamagedError, match="can't be opened"),
    ):
        other.get(IDS[1])


def test_the_last_erasure_is_remembered(contents: ContentStore, place: Place) -> None:
    """How far erasures were carried out is known to whoever opens it next."""
    assert contents.applied() is None
    for leaf in (3, 9):
        contents.note_applied(leaf, Sha256(f"{leaf:064x}"))

    with contextlib.closing(place.contents(KEY)) as again:
        assert again.applied() == (9, Sha256(f"{9:064x}"))


async def test_sealed_contents_can_be_handed_on(contents: ContentStore) -> None:
    """All contents are listed once, in order, sealed, those that were erased too."""
    for number in range(5):
        await contents.put(IDS[number], some(number))
    contents.erase(IDS[2])
    listed: list[Sealed] = []
    while page := contents.sealed(listed[-1][0] if listed else "", 2):
        listed += page

    assert [row[0] for row in listed] == [IDS[number] for number in range(5)]
    assert [row[1] is None for row in listed] == [False, False, True, False, False]


def test_a_key_counts_everywhere_until_it_is_revoked(place: Place) -> None:
    """A key made here is known there at once, and so is its end."""
    with contextlib.closing(place.keys()) as here, contextlib.closing(place.keys()) as there:
        secret = here.new("ada", "search", ["caller", "legal"], declaration="use-1")
        found = there.find(secret)
        assert found is not None
        assert (found.principal, found.project) == ("ada", "search")
        assert found.roles == {"caller", "legal"}
        assert there.find(secret + "x") is None
        assert [key.id for key in there.list()] == [found.id]

        here.revoke(found.id)
        assert there.find(secret) is None
        here.revoke(found.id)
        with pytest.raises(NotFoundError):
            there.revoke("key-000000000000")


def test_a_key_ends_after_its_last_day(place: Place, clock: FrozenClock) -> None:
    """A key is good on its last day, and not on the next."""
    with contextlib.closing(place.keys()) as keys:
        secret = keys.new("ada", "search", expires="2026-11-18")
        assert keys.find(secret) is not None
        clock.move_ms(DAY_MS)
        assert keys.find(secret) is None


@pytest.mark.postgres
def test_keys_that_come_twice_stay_revoked(url: str, clock: FrozenClock) -> None:
    """Taken in again, from either side, a key that was revoked once is revoked."""
    with contextlib.closing(PostgresLedger.create(url, ORIGIN)) as ledger:
        keys = PostgresAccessKeys(ledger, clock)
        secret = keys.new("ada", "search")
        before = keys.rows()
        keys.revoke(str(before[0]["id"]))
        after = keys.rows()
        for rows in (before, after, before):
            keys.take(rows)
            assert keys.find(secret) is None


@pytest.mark.postgres
def test_a_database_that_is_away_is_said_once(url: str, clock: FrozenClock) -> None:
    """While the database can't be reached nobody is let in, and nobody waits in line."""
    with contextlib.closing(PostgresLedger.create(url, ORIGIN)) as ledger:
        keys = PostgresAccessKeys(ledger, clock)
        secret = keys.new("ada", "search")
        keys._session._url = "postgresql://127.0.0.1:1/nowhere"
        keys._session._drop()
        for _ in range(2):
            with pytest.raises(LedgerUnwellError, match="can't be reached"):
                keys.find(secret)
        keys._session._url = url
        with pytest.raises(LedgerUnwellError, match="can't be reached"):
            keys.find(secret)
        clock.move_ms(1000)
        assert keys.find(secret) is not None


def test_derivations_are_told_from_exchanges(contents: ContentStore) -> None:
    """Those that have a text are listed in order, page by page, and nothing else is."""
    made = [ExchangeId(f"d{one[1:]}") for one in sorted(IDS[:5])]
    contents.put_many([(one, some()) for one in (*made, *IDS[:5])])
    contents.erase_all(made[1:2])
    first = contents.derivations_kept("", 2)

    assert [made[0], made[2]] == first
    assert made[3:] == contents.derivations_kept(first[-1], 9)
    assert [] == contents.derivations_kept(made[-1], 9)


def test_rows_are_erased_one_by_one(contents: ContentStore, place: Place) -> None:
    """Of several rows those named go, under another key; with the last of them all goes."""
    contents.put_many([(IDS[0], some(0)), (IDS[1], some(1))])
    sealed = contents.sealed("", 1)[0]

    assert 0 == contents.erase_rows(IDS[0], {1, 2}) == contents.erase_rows(IDS[0], ())
    assert sealed == contents.sealed("", 1)[0]
    assert 1 == contents.erase_rows(IDS[0], {1, 3})
    assert 0 == contents.erase_rows(IDS[0], {3})
    assert sealed[1] != contents.sealed("", 1)[0][1]
    with contextlib.closing(place.contents(KEY)) as again:
        kept = again.get(IDS[0])
        assert kept is not None
        assert {0: b"row"} == kept.rows
        assert set() == again.erased_of(IDS[:3]) == again.erased_of([])
        assert 1 == again.erase_rows(IDS[0], {0})
        assert {IDS[0]} == again.erased_of(IDS[:3])
        assert 0 == again.erase_rows(IDS[0], {0})
        assert some(1) == again.get(IDS[1])
