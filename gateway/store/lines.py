"""What was handed in to be asked for later, line by line: what was found of each, and its text.

It stands with the contents, since it goes as they go: each set of lines has a key of its own,
wrapped under the installation's wrapping key, and erasing the exchange that handed it in
destroys key and texts. What was found of each line is no text, and stays.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import apsw
import msgspec
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import LedgerDamagedError
from gateway.ident import ExchangeId, random_bytes
from gateway.limits import BODY_BYTES_MAX
from gateway.store.content import KEY_BYTES, ContentStore, decrypt, encrypt

_ZSTD_LEVEL: Final = 3
NAME_BYTES: Final = 16
TABLES: Final = ("handed", "line", "asking")
_MOVED_AT_ONCE: Final = 256


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line: its place from 0, its caller's own name for it, and what is kept of it."""

    number: int
    name: str | None
    found: bytes
    """The canonical JSON of what was found of it."""
    kind: int | None
    """What it asks for, as the set numbers it; `None`: it was not forwarded."""
    text: bytes | None = None
    """Its request, where rows may be made of it; read back by `Lines.texts` alone."""

    def __repr__(self) -> str:
        """Return which line it is, and no word of what it says."""
        return f"Line({self.number})"


class Handed(msgspec.Struct, frozen=True, kw_only=True):
    """A set of lines as a whole."""

    exchange: ExchangeId
    """Which handed it in."""
    at: str
    until: str | None
    """The last day on which texts of it may be kept; `None`: it has none."""
    about: bytes
    """Whatever who handed it in wants to know of it later."""


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """An exchange that asked for the lines that another handed in."""

    exchange: ExchangeId
    input: ExchangeId
    about: bytes


class Lines(Protocol):
    """Keeps lines; every method may block, and any thread may call it."""

    def begin(self, exchange: ExchangeId, at: str) -> LineKey:
        """Begin a set; whatever is added is sealed with the key that this returns."""
        ...

    def add(self, exchange: ExchangeId, key: LineKey, lines: Sequence[Line]) -> None:
        """Keep *lines* of a set; durable on return."""
        ...

    def finish(self, handed: Handed) -> None:
        """Note that a set is whole, and what there is to know of it; durable on return."""
        ...

    def drop_texts(self, exchange: ExchangeId) -> None:
        """Destroy the texts of a set that never left; what was found stays."""
        ...

    def handed(self, exchange: ExchangeId) -> Handed | None:
        """Return the set that *exchange* handed in, if it is whole."""
        ...

    def ask(self, asking: Asking) -> None:
        """Note who asks for a set; durable on return."""
        ...

    def asked(self, exchange: ExchangeId) -> Asking | None:
        """Return what *exchange* asked for, or `None`."""
        ...

    def named(self, exchange: ExchangeId, names: Sequence[str]) -> dict[str, Line]:
        """Return the forwarded lines of a set by those of *names* that they have."""
        ...

    def numbered(self, exchange: ExchangeId, numbers: Sequence[int]) -> list[Line]:
        """Return the forwarded lines of a set at those places."""
        ...

    def texts(self, exchange: ExchangeId, numbers: Sequence[int]) -> dict[int, bytes]:
        """Return the texts of the lines of a set at those places; of some there may be none.

        Raises:
            LedgerDamagedError: a text can't be opened with this wrapping key.
        """
        ...

    def forwarded(self, exchange: ExchangeId) -> list[int]:
        """Return the numbers of the lines of a set that were forwarded, in order."""
        ...

    def found(self, exchange: ExchangeId, after: int, count: int) -> list[tuple[int, bytes]]:
        """Return what was found of up to *count* lines behind number *after*, in order."""
        ...

    def with_texts(self) -> list[tuple[ExchangeId, str, str | None]]:
        """Return the sets of which there are texts: since when, and until which day."""
        ...


class LineKey:
    """Seals and opens the texts of one set."""

    def __init__(self, exchange: ExchangeId, key: bytes) -> None:
        self._about = f"line {exchange} ".encode()
        self._cipher = AESGCM(key)
        self._pack = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress

    def sealed(self, line: Line) -> bytes | None:
        """Return the text of *line*, sealed as that."""
        if line.text is None:
            return None
        return encrypt(self._cipher, self._pack(line.text), self._about + b"%d" % line.number)

    def opened(self, number: int, body: bytes) -> bytes:
        """Return the text of line *number*.

        Raises:
            ValueError: it can't be opened.
        """
        try:
            packed = decrypt(self._cipher, body, self._about + b"%d" % number)
            return zstandard.ZstdDecompressor().decompress(
                packed, max_output_size=BODY_BYTES_MAX
            )
        except (InvalidTag, zstandard.ZstdError) as wrong:
            raise ValueError("sealed with another key") from wrong


def new_key(wrapping: AESGCM, exchange: ExchangeId) -> tuple[LineKey, bytes]:
    """Return a fresh key for the lines of *exchange*, and the same wrapped."""
    key = random_bytes(KEY_BYTES)
    return LineKey(exchange, key), encrypt(wrapping, key, f"lines {exchange}".encode())


def unwrapped(wrapping: AESGCM, exchange: ExchangeId, wrapped: bytes) -> LineKey:
    """Return the key of the lines of *exchange*.

    Raises:
        LedgerDamagedError: it was wrapped with another key.
    """
    try:
        return LineKey(exchange, decrypt(wrapping, wrapped, f"lines {exchange}".encode()))
    except InvalidTag as wrong:
        raise unopened(exchange) from wrong


def unopened(exchange: ExchangeId) -> LedgerDamagedError:
    """Return what to raise where a text can't be opened."""
    return LedgerDamagedError(
        f"the lines of `{exchange}` can't be opened",
        hint="check that keys/content.key is the one they were written with",
    )


def name_key(name: str) -> bytes:
    """Return what a line is found by: callers' names may be long."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:NAME_BYTES]


Row = tuple[bytes | None, int, bytes, int | None]
"""Key of the name, number, what was found, kind."""


def read_lines(rows: Sequence[Row]) -> list[tuple[bytes | None, Line]]:
    """Return lines from their *rows*, each with the key of its name."""
    return [
        (
            None if name is None else bytes(name),
            Line(number=number, name=None, found=bytes(found), kind=kind),
        )
        for name, number, found, kind in rows
    ]


def read_texts(
    wrapping: AESGCM,
    exchange: ExchangeId,
    wrapped: bytes | None,
    rows: Sequence[tuple[int, bytes]],
) -> dict[int, bytes]:
    """Return texts from *rows* of numbers and sealed texts; without a key there are none.

    Raises:
        LedgerDamagedError: one can't be opened with this wrapping key.
    """
    if wrapped is None:
        return {}
    key = unwrapped(wrapping, exchange, bytes(wrapped))
    try:
        return {number: key.opened(number, bytes(body)) for number, body in rows}
    except ValueError as wrong:
        raise unopened(exchange) from wrong


_SELECT: Final = "SELECT name, number, found, kind FROM line WHERE exchange = ? AND"


class FileLines:
    """Lines in the file of the contents."""

    def __init__(self, contents: ContentStore) -> None:
        self._contents = contents

    def begin(self, exchange: ExchangeId, at: str) -> LineKey:
        """Begin a set; whatever is added is sealed with the key that this returns."""
        key, wrapped = new_key(self._contents.wrapping, exchange)
        with self._contents.writing() as connection:
            connection.execute(
                "INSERT INTO handed VALUES (?, ?, NULL, ?, NULL)", (exchange, at, wrapped)
            )
        return key

    def add(self, exchange: ExchangeId, key: LineKey, lines: Sequence[Line]) -> None:
        """Keep *lines* of a set; durable on return."""
        rows = [
            (
                exchange,
                line.number,
                None if line.name is None or line.kind is None else name_key(line.name),
                line.found,
                line.kind,
                key.sealed(line),
            )
            for line in lines
        ]
        with self._contents.writing() as connection:
            connection.executemany("INSERT INTO line VALUES (?, ?, ?, ?, ?, ?)", rows)

    def finish(self, handed: Handed) -> None:
        """Note that a set is whole, and what there is to know of it; durable on return."""
        with self._contents.writing() as connection:
            connection.execute(
                "UPDATE handed SET until = ?2, about = ?3,"
                " key = iif(?2 IS NULL, NULL, key) WHERE exchange = ?1",
                (handed.exchange, handed.until, handed.about),
            )

    def drop_texts(self, exchange: ExchangeId) -> None:
        """Destroy the texts of a set that never left; what was found stays."""
        with self._contents.writing() as connection:
            connection.execute("UPDATE handed SET key = NULL WHERE exchange = ?", (exchange,))
            connection.execute(
                "UPDATE line SET body = NULL WHERE exchange = ? AND body IS NOT NULL",
                (exchange,),
            )

    def handed(self, exchange: ExchangeId) -> Handed | None:
        """Return the set that *exchange* handed in, if it is whole."""
        rows = self._contents.read(
            "SELECT at, until, about FROM handed WHERE exchange = ? AND about IS NOT NULL",
            (exchange,),
        )
        return handed_of(exchange, rows)

    def ask(self, asking: Asking) -> None:
        """Note who asks for a set; durable on return."""
        with self._contents.writing() as connection:
            connection.execute(
                "INSERT INTO asking VALUES (?, ?, ?)",
                (asking.exchange, asking.input, asking.about),
            )

    def asked(self, exchange: ExchangeId) -> Asking | None:
        """Return what *exchange* asked for, or `None`."""
        rows = self._contents.read(
            "SELECT input, about FROM asking WHERE exchange = ?", (exchange,)
        )
        return asking_of(exchange, rows)

    def named(self, exchange: ExchangeId, names: Sequence[str]) -> dict[str, Line]:
        """Return the forwarded lines of a set by those of *names* that they have."""
        keys = {name_key(name): name for name in names}
        marks = ", ".join("?" for _ in keys)
        rows = self._contents.read(f"{_SELECT} name IN ({marks})", (exchange, *keys))
        return {keys[key]: line for key, line in read_lines(rows) if key is not None}

    def numbered(self, exchange: ExchangeId, numbers: Sequence[int]) -> list[Line]:
        """Return the forwarded lines of a set at those places."""
        where = f"{_SELECT} number IN carray(?) AND kind IS NOT NULL"
        rows = self._contents.read(where, (exchange, _places(numbers)))
        return [line for _, line in read_lines(rows)]

    def texts(self, exchange: ExchangeId, numbers: Sequence[int]) -> dict[int, bytes]:
        """Return the texts of the lines of a set at those places; of some there may be none."""
        wrapped = self._contents.read("SELECT key FROM handed WHERE exchange = ?", (exchange,))
        rows = self._contents.read(
            "SELECT number, body FROM line WHERE exchange = ? AND number IN carray(?)"
            " AND body IS NOT NULL",
            (exchange, _places(numbers)),
        )
        key = wrapped[0][0] if wrapped else None
        return read_texts(self._contents.wrapping, exchange, key, rows)

    def forwarded(self, exchange: ExchangeId) -> list[int]:
        """Return the numbers of the lines of a set that were forwarded, in order."""
        rows = self._contents.read(
            "SELECT number FROM line WHERE exchange = ? AND kind IS NOT NULL ORDER BY number",
            (exchange,),
        )
        return [number for (number,) in rows]

    def found(self, exchange: ExchangeId, after: int, count: int) -> list[tuple[int, bytes]]:
        """Return what was found of up to *count* lines behind number *after*, in order."""
        return self._contents.read(
            "SELECT number, found FROM line WHERE exchange = ? AND number > ?"
            " ORDER BY number LIMIT ?",
            (exchange, after, count),
        )

    def with_texts(self) -> list[tuple[ExchangeId, str, str | None]]:
        """Return the sets of which there are texts: since when, and until which day."""
        return self._contents.read(
            "SELECT exchange, at, until FROM handed WHERE key IS NOT NULL ORDER BY exchange"
        )

    def rows(self) -> Iterator[tuple[str, list[Any]]]:
        """Yield everything as it is kept, some rows of a table at a time, to be moved."""
        for table in TABLES:
            last = 0
            while True:
                rows = self._contents.read(
                    f"SELECT rowid, * FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT ?",  # noqa: S608 — ours
                    (last, _MOVED_AT_ONCE),
                )
                if not rows:
                    break
                last = rows[-1][0]
                yield table, [row[1:] for row in rows]


def _places(numbers: Sequence[int]) -> object:
    return apsw.carray(array("q", numbers))


def handed_of(
    exchange: ExchangeId, rows: Sequence[tuple[str, str | None, bytes]]
) -> Handed | None:
    """Return the set of *exchange* from its row, if there is one."""
    if not rows:
        return None
    at, until, about = rows[0]
    return Handed(exchange=exchange, at=at, until=until, about=bytes(about))


def asking_of(exchange: ExchangeId, rows: Sequence[tuple[str, bytes]]) -> Asking | None:
    """Return what *exchange* asked for from its row, if there is one."""
    if not rows:
        return None
    return Asking(exchange=exchange, input=ExchangeId(rows[0][0]), about=bytes(rows[0][1]))
