"""What was said, apart from the evidence that it was: encrypted, and erasable for good.

Each record has a key of its own, wrapped under the installation's wrapping key. Erasing
destroys key and body; the leaf in the ledger stays and still proves that the exchange took
place. Whoever can write the file can only lose text: a row is believed by its receipt alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import LedgerDamagedError, LedgerUnwellError
from gateway.ident import ExchangeId, Sha256, random_bytes
from gateway.limits import BODY_BYTES_MAX, STATEMENTS_PER_COMMIT_MAX, STATEMENTS_WAITING_MAX
from gateway.limits import CONTENT_BYTES_WAITING_MAX as BYTES_WAITING_MAX
from gateway.store.group import GroupCommit
from gateway.store.sqlite import connect, renew_log, transaction, translated

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_ZSTD_LEVEL: Final = 3

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS content (
  exchange TEXT PRIMARY KEY, key BLOB, body BLOB, of TEXT,
  CHECK ((key IS NULL) = (body IS NULL))
) STRICT;
CREATE TABLE IF NOT EXISTS applied (
  one INTEGER PRIMARY KEY CHECK (one = 1), leaf INTEGER NOT NULL, sha256 TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS handed (
  exchange TEXT PRIMARY KEY, at TEXT NOT NULL, until TEXT, key BLOB, about BLOB
) STRICT;
CREATE TABLE IF NOT EXISTS line (
  exchange TEXT NOT NULL, number INTEGER NOT NULL, name BLOB, found BLOB NOT NULL,
  kind INTEGER, body BLOB, PRIMARY KEY (exchange, number)
) STRICT;
CREATE INDEX IF NOT EXISTS line_named ON line (exchange, name) WHERE name IS NOT NULL;
CREATE TABLE IF NOT EXISTS asking (
  exchange TEXT PRIMARY KEY, input TEXT NOT NULL, about BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS asking_of ON asking (input);
"""
_BELONGS: Final = "CREATE INDEX IF NOT EXISTS content_of ON content (of) WHERE of IS NOT NULL"
"""Contents of items go with the exchange that asked for them."""


Sealed = tuple[str, bytes | None, bytes | None, str | None]
"""An exchange, its wrapped key and its sealed body, `None` where they were erased; of an item,
the exchange that asked for it."""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one exchange: the request as it came, and the rows made of it."""

    request: bytes
    salt: bytes
    """Opens the receipt's commitments to request and rows."""
    rows: dict[int, bytes]
    """Canonical JSON of the training row of each choice."""
    reasoned: dict[int, bytes] = msgspec.field(default_factory=dict)
    """The same rows with the reasoning that the provider showed, of choices that had any."""


Putting = tuple[ExchangeId, Content, ExchangeId | None]


class Contents:
    """Contents in one file as anybody may handle them: seen to be there, and erased."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with translated(path):
            self._connection = _open(path)
        self._lock = threading.Lock()
        self._log_renewed = False

    def was_erased(self, exchange: ExchangeId) -> bool:
        """Tell whether *exchange* was erased, so that nothing of it is kept any more."""
        with self._lock, translated(self.path):
            row = self._connection.execute(
                "SELECT key IS NULL FROM content WHERE exchange = ?", (exchange,)
            ).fetchone()
        return row is not None and bool(row[0])

    def erased_of(self, exchanges: Sequence[ExchangeId]) -> set[ExchangeId]:
        """Return those of *exchanges* that were erased, so that nothing of them is kept."""
        if not exchanges:
            return set()
        with self._lock, translated(self.path):
            rows = self._connection.execute(
                "SELECT exchange FROM content WHERE key IS NULL AND exchange IN carray(?)",
                (apsw.carray(tuple(exchanges)),),
            ).fetchall()
        return {ExchangeId(str(exchange)) for (exchange,) in rows}

    def derivations_kept(self, after: str, count: int) -> list[ExchangeId]:
        """Return up to *count* derivations behind *after* that have a text, in order."""
        with self._lock, translated(self.path):
            rows = self._connection.execute(
                "SELECT exchange FROM content WHERE exchange > max(?, 'd-')"
                " AND exchange < 'd.' AND key IS NOT NULL ORDER BY exchange LIMIT ?",
                (after, count),
            ).fetchall()
        return [ExchangeId(str(exchange)) for (exchange,) in rows]

    def kept_of(self, exchanges: Sequence[ExchangeId]) -> set[ExchangeId]:
        """Return those of *exchanges* of which there is a text."""
        with self._lock, translated(self.path):
            rows = self._connection.execute(
                "SELECT exchange FROM content WHERE key IS NOT NULL AND exchange IN carray(?1)"
                " UNION SELECT exchange FROM handed"
                " WHERE key IS NOT NULL AND exchange IN carray(?1)",
                (apsw.carray(tuple(exchanges)),),
            ).fetchall()
        return {ExchangeId(str(exchange)) for (exchange,) in rows}

    def erase(self, exchange: ExchangeId) -> bool:
        """Destroy key and body of *exchange*; tell whether there were any. Durable on return.

        From then on nothing more is kept of it.

        Raises:
            LedgerUnwellError: it is erased, but others may still hold it in memory or in the
                write-ahead log.
        """
        there_was = self.erase_all([exchange], ahead=[exchange]) > 0
        self.empty_log()
        return there_was

    def erase_all(
        self, exchanges: Sequence[ExchangeId], *, ahead: Sequence[ExchangeId] = ()
    ) -> int:
        """Destroy keys and bodies of *exchanges*, in one transaction; return how many went.

        With an exchange go the texts of its items, the lines that it handed in, and the items
        that others asked for with those. Of those *ahead*, whose text may be under way, and of
        their items, nothing is kept from then on. What went is out of the file for good after
        `empty_log`.
        """
        with self.writing() as connection:
            before = connection.total_changes()
            for which in _WITH_IT:
                connection.executemany(
                    f"UPDATE content SET key = NULL, body = NULL WHERE key IS NOT NULL AND {which}",  # noqa: E501, S608 — ours
                    [(exchange,) for exchange in exchanges],
                )
            connection.executemany(
                "UPDATE handed SET key = NULL WHERE exchange = ? AND key IS NOT NULL",
                [(exchange,) for exchange in exchanges],
            )
            erased = connection.total_changes() - before
            connection.executemany(
                "UPDATE line SET body = NULL WHERE exchange = ? AND body IS NOT NULL",
                [(exchange,) for exchange in exchanges],
            )
            connection.executemany(
                "INSERT INTO content VALUES (?, NULL, NULL, NULL) ON CONFLICT DO NOTHING",
                [(exchange,) for exchange in ahead],
            )
        return erased

    def erase_rows(self, exchange: ExchangeId, places: Collection[int]) -> int:
        """Destroy the rows in *places* of a derivation; return 1 where any of them was kept.

        Without the key to the texts the others can't be written anew, so they go, too.
        """
        return self.erase_all([exchange]) if places else 0

    def empty_log(self) -> None:
        """Take what was erased out of the write-ahead log, too.

        Raises:
            LedgerUnwellError: somebody reads the file at this moment; it must be tried again.
        """
        with self._lock, translated(self.path):
            self._renew_log()
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def sealed(self, after: str, count: int) -> list[Sealed]:
        """Return up to *count* exchanges behind *after*, each with its key and body, sealed."""
        with self._lock, translated(self.path):
            rows: list[Any] = self._connection.execute(
                "SELECT exchange, key, body, of FROM content WHERE exchange > ?"
                " ORDER BY exchange LIMIT ?",
                (after, count),
            ).fetchall()
        return rows

    def applied(self) -> tuple[int, Sha256] | None:
        """Return index and digest of the last erasure in the ledger that was carried out."""
        with self._lock, translated(self.path):
            row = self._connection.execute("SELECT leaf, sha256 FROM applied").fetchone()
        return None if row is None else (int(row[0]), Sha256(row[1]))

    def note_applied(self, leaf: int, sha256: Sha256) -> None:
        """Remember that the erasure at *leaf*, and all before it, were carried out."""
        with self.writing() as connection:
            connection.execute(
                "INSERT INTO applied VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE"
                " SET leaf = excluded.leaf, sha256 = excluded.sha256",
                (leaf, sha256),
            )

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[apsw.Connection]:
        """Hold the right to write from the first statement to the commit."""
        with self._lock, translated(self.path):
            self._renew_log()
            with transaction(self._connection):
                yield self._connection

    def read(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Return the rows that *query* finds."""
        with self._lock, translated(self.path):
            return self._connection.execute(query, values).fetchall()

    def _renew_log(self) -> None:
        if not self._log_renewed:
            renew_log(self._connection, self.path)
            self._log_renewed = True


class ContentStore(Contents):
    """Encrypted contents in one file, and the key to them; any thread may use it."""

    def __init__(self, path: Path, wrapping_key: bytes) -> None:
        super().__init__(path)
        self._take_key(wrapping_key)

    def _take_key(self, wrapping_key: bytes) -> None:
        """Seal and open texts from now on."""
        if len(wrapping_key) != KEY_BYTES:
            raise ValueError("the wrapping key has 32 bytes")
        self.wrapping = AESGCM(wrapping_key)
        self._bytes_waiting = 0
        self._group = GroupCommit[Putting, None](
            "content-writer",
            self._commit,
            group_max=STATEMENTS_PER_COMMIT_MAX,
            waiting_max=STATEMENTS_WAITING_MAX,
        )

    async def put(
        self, exchange: ExchangeId, content: Content, of: ExchangeId | None = None
    ) -> None:
        """Keep *content*; durable on return. What is kept or was erased already stays so.

        An item's is kept only while the exchange *of* which it is was not erased.

        Raises:
            LedgerUnwellError: it was not kept.
        """
        size = _bytes_of(content)
        if self._bytes_waiting + size > BYTES_WAITING_MAX:
            raise LedgerUnwellError(
                f"{self._bytes_waiting} bytes of content are waiting to be written",
                hint="the disk does not keep up; send less, or give the gateway a faster one",
            )
        if not self._group.running:
            self._group.start()
        self._bytes_waiting += size
        try:
            await self._group.submit((exchange, content, of))
        finally:
            self._bytes_waiting -= size

    def put_many(self, contents: Sequence[tuple[ExchangeId, Content]]) -> None:
        """Keep *contents* in one transaction, blocking this thread; see `put`."""
        self._commit([(exchange, content, None) for exchange, content in contents])

    def get(self, exchange: ExchangeId) -> Content | None:
        """Return what is kept of *exchange*, or `None` where nothing is, or it was erased.

        Raises:
            LedgerDamagedError: what is kept can't be opened with this wrapping key.
        """
        row = self._read(exchange)
        return None if row is None else self._opened(exchange, *row)

    def get_many(self, exchanges: Sequence[ExchangeId]) -> dict[ExchangeId, Content]:
        """Return what is kept of *exchanges*, of those of which anything is; see `get`.

        Raises:
            LedgerDamagedError: what is kept can't be opened with this wrapping key.
        """
        return {
            exchange: self._opened(exchange, key, body)
            for exchange, key, body in self._read_many(exchanges)
        }

    def erase_rows(self, exchange: ExchangeId, places: Collection[int]) -> int:
        """Destroy the rows in *places* of a derivation; return 1 where any of them was kept.

        The other rows are sealed anew under another key, in the same transaction.
        """
        kept = self.get(exchange)
        if kept is None or not kept.rows.keys() & places:
            return 0
        left = {at: line for at, line in kept.rows.items() if at not in places}
        if not left:
            return self.erase_all([exchange])
        pack = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress
        content = msgspec.structs.replace(kept, rows=left)
        self._rewrite(self._sealed(exchange, pack(_ENCODER.encode(content))))
        return 1

    def close(self) -> None:
        """Write what is waiting and let go of the file."""
        self._group.stop()
        super().close()

    def _commit(self, contents: Sequence[Putting]) -> list[None]:
        # Making a compressor costs more than compressing a page.
        pack = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress
        sealed = [
            (*self._sealed(exchange, pack(_ENCODER.encode(content))), of)
            for exchange, content, of in contents
        ]
        self._write(sealed)
        return [None] * len(sealed)

    def _read(self, exchange: ExchangeId) -> tuple[bytes, bytes] | None:
        """Return the wrapped key and the sealed body of *exchange*, if there are any."""
        with self._lock, translated(self.path):
            row = self._connection.execute(
                "SELECT key, body FROM content WHERE exchange = ?", (exchange,)
            ).fetchone()
        return None if row is None or row[0] is None else (bytes(row[0]), bytes(row[1]))

    def _read_many(
        self, exchanges: Sequence[ExchangeId]
    ) -> list[tuple[ExchangeId, bytes, bytes]]:
        """Return exchanges, wrapped keys and sealed bodies of those that there are."""
        if not exchanges:
            return []
        return self.read(
            "SELECT exchange, key, body FROM content"
            " WHERE key IS NOT NULL AND exchange IN carray(?1)",
            (apsw.carray(tuple(exchanges)),),
        )

    def _write(self, sealed: Sequence[tuple[str, bytes, bytes, str | None]]) -> None:
        """Write exchanges, wrapped keys and sealed bodies; what is there already stays."""
        with self.writing() as connection:
            connection.executemany(
                "INSERT INTO content SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS"
                " (SELECT 1 FROM content WHERE exchange = ?4 AND key IS NULL)"
                " ON CONFLICT DO NOTHING",
                sealed,
            )

    def _rewrite(self, sealed: tuple[str, bytes, bytes]) -> None:
        """Put another key and body in the place of those of a text; erased stays erased."""
        exchange, key, body = sealed
        with self.writing() as connection:
            connection.execute(
                "UPDATE content SET key = ?, body = ? WHERE exchange = ? AND key IS NOT NULL",
                (key, body, exchange),
            )

    def _sealed(self, exchange: ExchangeId, packed: bytes) -> tuple[str, bytes, bytes]:
        about = exchange.encode()
        key = random_bytes(KEY_BYTES)
        return (
            exchange,
            encrypt(self.wrapping, key, b"key " + about),
            encrypt(AESGCM(key), packed, b"body " + about),
        )

    def _opened(self, exchange: ExchangeId, wrapped: bytes, body: bytes) -> Content:
        about = exchange.encode()
        try:
            key = decrypt(self.wrapping, wrapped, b"key " + about)
            packed = decrypt(AESGCM(key), body, b"body " + about)
            plain = zstandard.ZstdDecompressor().decompress(
                packed, max_output_size=BODY_BYTES_MAX
            )
            return _DECODER.decode(plain)
        except (InvalidTag, ValueError, zstandard.ZstdError, msgspec.MsgspecError) as wrong:
            raise LedgerDamagedError(
                f"the content of `{exchange}` in `{self.path}` can't be opened",
                hint="check that keys/content.key is the one it was written with",
            ) from wrong


_WITH_IT: Final = (
    "exchange = ?",
    "of = ?",
    "of IN (SELECT exchange FROM asking WHERE input = ?)",
)

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Content)


def _open(path: Path) -> apsw.Connection:
    connection = connect(path, makes=True)
    connection.execute("PRAGMA page_size = 8192")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 1000")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute(_SCHEMA)
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(content)")}
    if "of" not in columns:
        # Written before items had receipts of their own.
        with contextlib.suppress(apsw.SQLError):
            connection.execute("ALTER TABLE content ADD COLUMN of TEXT")
    connection.execute(_BELONGS)
    return connection


def encrypt(cipher: AESGCM, plain: bytes, about: bytes) -> bytes:
    """Return *plain* so that only who has the key can read it, and only as what it is about."""
    nonce = random_bytes(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, about)


def decrypt(cipher: AESGCM, sealed: bytes, about: bytes) -> bytes:
    """Return what was sealed.

    Raises:
        InvalidTag: the key is another, or it was changed.
    """
    return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about)


def _bytes_of(content: Content) -> int:
    rows = (*content.rows.values(), *content.reasoned.values())
    return len(content.request) + sum(map(len, rows))
