"""Laws of the encrypted contents."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import LedgerDamagedError, LedgerUnwellError
from gateway.store import sqlite
from gateway.store.content import Content, ContentStore
from tests.support.store import an_exchange_id, brittle_disk

KEY = bytes(range(32))
EXCHANGE = an_exchange_id(500)
SECRET = b"the words that nobody else may read"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ContentStore]:
    """Return an empty store."""
    with contextlib.closing(ContentStore(tmp_path / "content.db", KEY)) as one:
        yield one


def some(number: int = 0) -> Content:
    """Return a content that differs by *number*."""
    return Content(
        request=b"{%d}" % number + SECRET * 20, salt=bytes(16), rows={0: b"row", 3: SECRET}
    )


def on_disk(folder: Path) -> bytes:
    """Return every byte of the store's files."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("content.db*")))


async def test_what_was_put_is_there(store: ContentStore) -> None:
    """A content is durable when `put` returns, and comes back whole."""
    await asyncio.gather(*(store.put(an_exchange_id(n), some(n)) for n in range(20)))
    store.put_many([(an_exchange_id(99), some(99))])
    await store.put(EXCHANGE, some(1))

    with contextlib.closing(ContentStore(store.path, KEY)) as again:
        assert again.get(EXCHANGE) == some(1)
    assert store.get(an_exchange_id(12345)) is None


async def test_nothing_is_readable_on_disk(store: ContentStore, tmp_path: Path) -> None:
    """The words stand nowhere in the files, and the same words look different each time."""
    await store.put(an_exchange_id(1), some())
    await store.put(an_exchange_id(2), some())

    assert SECRET not in on_disk(tmp_path)
    assert b"row" not in on_disk(tmp_path)


async def test_erasing_leaves_nothing(store: ContentStore, tmp_path: Path) -> None:
    """After erasing, key and body are gone from the files, and nothing can be put again."""
    await store.put(EXCHANGE, some())
    with contextlib.closing(sqlite.connect(store.path)) as connection:
        ((key, body),) = connection.execute("SELECT key, body FROM content").fetchall()
        assert isinstance(key, bytes)
        assert isinstance(body, bytes)
    assert key in on_disk(tmp_path)

    assert store.erase(EXCHANGE)
    assert not store.erase(EXCHANGE)
    await store.put(EXCHANGE, some())

    assert store.get(EXCHANGE) is None
    assert key not in on_disk(tmp_path)
    assert body[:100] not in on_disk(tmp_path)


async def test_what_never_was_can_be_erased_ahead(store: ContentStore) -> None:
    """An erasure that comes before the content keeps it out."""
    assert not store.erase(EXCHANGE)
    await store.put(EXCHANGE, some())

    assert store.get(EXCHANGE) is None


async def test_the_first_put_stands(store: ContentStore) -> None:
    """What is kept is never replaced."""
    await store.put(EXCHANGE, some(1))
    await store.put(EXCHANGE, some(2))

    assert store.get(EXCHANGE) == some(1)


async def test_another_key_opens_nothing(store: ContentStore) -> None:
    """With another wrapping key nothing opens, and the line names the file to check."""
    await store.put(EXCHANGE, some())

    with (
        contextlib.closing(ContentStore(store.path, bytes(32))) as other,
        pytest.raises(LedgerDamagedError, match="can't be opened") as raised,
    ):
        other.get(EXCHANGE)
    assert "keys/content.key" in raised.value.hint
    with pytest.raises(ValueError, match="32 bytes"):
        ContentStore(store.path, b"short")


async def test_records_cant_change_places(store: ContentStore) -> None:
    """A record moved under another exchange's name does not open."""
    other = an_exchange_id(6)
    await store.put(EXCHANGE, some())
    with contextlib.closing(sqlite.connect(store.path)) as connection:
        connection.execute("UPDATE content SET exchange = ?", (other,))

    with pytest.raises(LedgerDamagedError):
        store.get(other)


async def test_a_full_disk_keeps_nothing_and_heals(tmp_path: Path) -> None:
    """While the disk is full `put` fails; with room it succeeds."""
    with brittle_disk() as disk:
        store = ContentStore(tmp_path / "content.db", KEY)
        disk.full = True
        with pytest.raises(LedgerUnwellError, match="disk is full"):
            await store.put(EXCHANGE, some())
        disk.full = False
        await store.put(EXCHANGE, some())

        assert store.get(EXCHANGE) == some()
        store.close()


async def test_waiting_bytes_are_bounded(store: ContentStore) -> None:
    """Contents beyond the bound are refused at once, and the count goes back."""
    store._bytes_waiting = 256 * 1024 * 1024
    with pytest.raises(LedgerUnwellError, match="are waiting"):
        await store.put(EXCHANGE, some())
    store._bytes_waiting = 0
    await store.put(EXCHANGE, some())

    assert store._bytes_waiting == 0
