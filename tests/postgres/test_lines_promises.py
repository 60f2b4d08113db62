"""What lines of batches promise, kept in a file and in a database alike."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.errors import LedgerDamagedError
from gateway.store.content import Content, ContentStore
from gateway.store.lines import Asking, FileLines, Handed, Line, Lines
from gateway.store.postgres.content import PostgresContents
from gateway.store.postgres.ledger import PostgresLedger
from gateway.store.postgres.lines import PostgresLines
from tests.support.evidence import ORIGIN
from tests.support.store import an_exchange_id

KEY = bytes(range(32))
IDS = [an_exchange_id(number) for number in range(20)]
AT = "2026-11-22T04:30:00.000Z"
KINDS = ["file", pytest.param("database", marks=pytest.mark.postgres)]
SAID = Content(request=b"{}", salt=bytes(16), rows={0: b"row"})


@dataclass(frozen=True, kw_only=True)
class Place:
    """Somewhere contents and lines are, opened with a key as often as a test likes."""

    open: Callable[[bytes], tuple[ContentStore, Lines]]


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Return a place of each kind in turn."""
    with contextlib.ExitStack() as opened:

        def in_file(key: bytes) -> tuple[ContentStore, Lines]:
            contents = ContentStore(tmp_path / "content.db", key)
            opened.callback(contents.close)
            return contents, FileLines(contents)

        if request.param == "file":
            yield Place(open=in_file)
            return
        url: str = request.getfixturevalue("url")
        opened.enter_context(contextlib.closing(PostgresLedger.create(url, ORIGIN)))

        def in_database(key: bytes) -> tuple[ContentStore, Lines]:
            ledger = opened.enter_context(contextlib.closing(PostgresLedger(url)))
            contents = PostgresContents(ledger, key)
            opened.callback(contents.close)
            return contents, PostgresLines(contents)

        yield Place(open=in_database)


def some(count: int = 5) -> list[Line]:
    """Return lines; those at odd places were not forwarded."""
    return [
        Line(
            number=number,
            name=f"name-{number}",
            found=b'{"number":%d}' % number,
            kind=None if number % 2 else 0,
            text=None if number % 2 else b"text %d" % number,
        )
        for number in range(count)
    ]


def keep(lines: Lines, at: int = 0, until: str | None = "2026-12-24") -> None:
    """Hand a set in."""
    key = lines.begin(IDS[at], AT)
    lines.add(IDS[at], key, some()[:2])
    lines.add(IDS[at], key, some()[2:])
    lines.finish(Handed(exchange=IDS[at], at=AT, until=until, about=b"about"))


def test_lines_are_found_by_name_and_place(place: Place) -> None:
    """What was handed in is there for whoever opens it; only what was forwarded is found."""
    keep(place.open(KEY)[1])
    _, lines = place.open(KEY)
    named = lines.named(IDS[0], ["name-0", "name-1", "name-4", "name-9"])

    assert {"name-0": 0, "name-4": 4} == {name: line.number for name, line in named.items()}
    assert [2] == [line.number for line in lines.numbered(IDS[0], [1, 2, 7])]
    assert {0: b"text 0", 4: b"text 4"} == lines.texts(IDS[0], [0, 1, 4, 9])
    assert [0, 2, 4] == lines.forwarded(IDS[0])
    assert [(3, b'{"number":3}'), (4, b'{"number":4}')] == lines.found(IDS[0], 2, 9)
    assert [(0, b'{"number":0}')] == lines.found(IDS[0], -1, 1)
    assert {} == lines.named(IDS[1], ["name-0"])
    handed = lines.handed(IDS[0])
    assert handed is not None
    assert (b"about", "2026-12-24") == (handed.about, handed.until)
    assert [(IDS[0], AT, "2026-12-24")] == lines.with_texts()


def test_a_set_that_never_became_whole_is_none(place: Place) -> None:
    """Nobody can ask for a set whose judging broke off; its texts are known to be there."""
    _, lines = place.open(KEY)
    lines.add(IDS[0], lines.begin(IDS[0], AT), some())

    assert lines.handed(IDS[0]) is None
    assert [(IDS[0], AT, None)] == lines.with_texts()


def test_who_asks_is_remembered(place: Place) -> None:
    """Which exchange asked for which set is known to whoever opens it."""
    _, lines = place.open(KEY)
    asking = Asking(exchange=IDS[1], input=IDS[0], about=b"rulings")
    lines.ask(asking)

    assert asking == place.open(KEY)[1].asked(IDS[1])
    assert lines.asked(IDS[0]) is None


@pytest.mark.parametrize("how", ["erased", "dropped", "never"])
def test_texts_go_for_good(place: Place, how: str) -> None:
    """Erased, dropped, or of a set that keeps none: texts are gone, what was found stays."""
    contents, lines = place.open(KEY)
    keep(lines, until=None if how == "never" else "2026-12-24")
    keep(lines, 1)
    if how == "erased":
        assert contents.kept_of(IDS[:2]) == set(IDS[:2])
        assert 1 == contents.erase_all([IDS[0]])
    elif how == "dropped":
        lines.drop_texts(IDS[0])

    again = place.open(KEY)[1]
    assert {} == again.texts(IDS[0], range(5))
    assert 3 == len(again.numbered(IDS[0], range(5)))
    assert 5 == len(again.found(IDS[0], -1, 9))
    assert {0: b"text 0"} == again.texts(IDS[1], [0])
    assert {IDS[1]} == contents.kept_of(IDS[:2])


async def test_items_go_with_their_exchange(place: Place) -> None:
    """Erasing who handed in, or asked, destroys the items' texts, and none is kept later."""
    contents, lines = place.open(KEY)
    keep(lines)
    lines.ask(Asking(exchange=IDS[1], input=IDS[0], about=b""))
    lines.ask(Asking(exchange=IDS[2], input=IDS[0], about=b""))
    for at, of in ((10, 1), (11, 2), (12, 3)):
        await contents.put(IDS[at], SAID, IDS[of])

    assert 3 == contents.erase_all([IDS[0]])
    assert [None, None, SAID] == [contents.get(IDS[at]) for at in (10, 11, 12)]
    assert 1 == contents.erase_all([IDS[3]], ahead=[IDS[3]])
    await contents.put(IDS[13], SAID, IDS[3])
    assert [None, None] == [contents.get(IDS[at]) for at in (12, 13)]


def test_another_key_opens_nothing(place: Place) -> None:
    """Without the wrapping key it was written with a text can't be read."""
    keep(place.open(KEY)[1])

    with pytest.raises(LedgerDamagedError, match="can't be opened"):
        place.open(bytes(32))[1].texts(IDS[0], [0])


@pytest.mark.postgres
def test_lines_move_with_the_ledger(tmp_path: Path, url: str) -> None:
    """What was handed in and asked for in a file is all there in the database it moves to."""
    with (
        contextlib.closing(ContentStore(tmp_path / "content.db", KEY)) as here,
        contextlib.closing(PostgresLedger.create(url, ORIGIN)) as ledger,
        contextlib.closing(PostgresContents(ledger, KEY)) as there,
    ):
        lines, moved = FileLines(here), PostgresLines(there)
        keep(lines)
        lines.ask(Asking(exchange=IDS[1], input=IDS[0], about=b"rulings"))
        for _ in range(2):
            for table, rows in lines.rows():
                moved.take(table, rows)

        assert lines.handed(IDS[0]) == moved.handed(IDS[0])
        assert lines.asked(IDS[1]) == moved.asked(IDS[1])
        assert lines.found(IDS[0], -1, 9) == moved.found(IDS[0], -1, 9)
        assert lines.named(IDS[0], ["name-2"]) == moved.named(IDS[0], ["name-2"])
        assert lines.texts(IDS[0], [0, 2]) == moved.texts(IDS[0], [0, 2])


@pytest.mark.postgres
def test_an_older_database_gets_room(url: str) -> None:
    """A database that was made before there were batches takes their lines once opened."""
    with contextlib.closing(PostgresLedger.create(url, ORIGIN)) as ledger:
        session = ledger.session()
        with session.committing() as connection, connection.transaction():
            connection.execute("DROP TABLE handed, line, asking")
            connection.execute("ALTER TABLE content DROP COLUMN of")
        with contextlib.closing(PostgresContents(ledger, KEY)) as contents:
            keep(PostgresLines(contents))

            assert {IDS[0]} == contents.kept_of(IDS[:2])


def test_an_older_file_gets_room(tmp_path: Path) -> None:
    """A file that was made before there were items takes their contents when it is opened."""
    with contextlib.closing(ContentStore(tmp_path / "content.db", KEY)) as contents:
        contents.put_many([(IDS[0], SAID)])
        with contents.writing() as connection:
            connection.execute("DROP INDEX content_of")
            connection.execute("ALTER TABLE content DROP COLUMN of")
    with contextlib.closing(ContentStore(tmp_path / "content.db", KEY)) as again:
        again.put_many([(IDS[1], SAID)])

        assert [SAID, SAID] == [again.get(IDS[0]), again.get(IDS[1])]
