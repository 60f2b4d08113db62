"""A query index over the ledger's leaves: what people and gates search by.

It holds nothing that the leaves don't say, and is made again from them whenever it is missing,
damaged, or belongs to another ledger. Whoever can write it can hide a statement from a search,
not from the ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal, assert_never

from gateway.canonical import sha256_hex
from gateway.errors import LedgerDamagedError, MalformedReceiptError
from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.limits import LEAVES_READ_AT_ONCE
from gateway.receipt.envelope import open_envelope
from gateway.receipt.model import (
    Abandonment,
    Activation,
    AgreementFacts,
    DeclarationFacts,
    Erasure,
    KeyAuthorization,
    KeyRevocation,
    LogSuccession,
    Manifest,
    Opening,
    OrganisationFacts,
    Receipt,
    Refusal,
    Statement,
    Takeover,
    TermsChange,
    Verdict,
    Withdrawal,
)
from gateway.receipt.statement import is_opening, read_leaf, read_payload
from gateway.store.ports import LedgerStore
from gateway.store.tables import Database, Migrations, immediate, open_database, translated

Kind = Literal[
    "opening",
    "receipt",
    "refusal",
    "abandonment",
    "declaration",
    "verdict",
    "withdrawal",
    "agreement",
    "organisation",
    "activation",
    "terms-change",
    "key-authorization",
    "key-revocation",
    "log-succession",
    "erasure",
    "takeover",
    "manifest",
    "unreadable",
]
"""What a leaf is; `unreadable` is for one that this release has no reader for."""

CLOSING: Final = ("receipt", "refusal", "abandonment")
"""The kinds that end an exchange."""

Progress = Callable[[int, int], None]
"""Called with how many leaves are done, and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the index knows about one leaf; the leaf itself is the evidence."""

    index: int
    kind: Kind
    at: str | None = None
    """When it was written: for a receipt, when the answer had ended."""
    exchange: ExchangeId | None = None
    opening: int | None = None
    project: str | None = None
    principal: str | None = None
    provider: str | None = None
    model: str | None = None
    """The model asked for."""
    model_reported: str | None = None
    model_manifest: Sha256 | None = None
    operation: str | None = None
    purpose: str | None = None
    declaration: DeclarationId | None = None
    effect: str | None = None
    ended: str | None = None
    readable: bool | None = None
    approved: bool | None = None
    obligations: tuple[str, ...] = ()
    manifest: Sha256 | None = None
    """The manifest that this leaf is, or that it withdraws."""
    payload_sha256: Sha256 | None = None


_FIELDS: Final = tuple(field.name for field in fields(Row))
_COLUMNS: Final = ("leaf", *_FIELDS[1:])
"""The fields of a row by their columns; `index` is a word of SQL."""

_OBLIGATIONS_AT: Final = _FIELDS.index("obligations")
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM statement"  # noqa: S608 — names of ours
_INSERT: Final = f"INSERT INTO statement VALUES ({', '.join('?' for _ in _COLUMNS)})"  # noqa: S608
_PAGE: Final = 1_000
_BATCH: Final = 4 * LEAVES_READ_AT_ONCE

migrations = Migrations("index")


@migrations()
def statements_and_watermark(database: Database) -> None:
    """Make the tables of the first release."""
    database.table("statement").create(
        {
            "leaf": int,
            "kind": str,
            "at": str,
            "exchange": str,
            "opening": int,
            "project": str,
            "principal": str,
            "provider": str,
            "model": str,
            "model_reported": str,
            "model_manifest": str,
            "operation": str,
            "purpose": str,
            "declaration": str,
            "effect": str,
            "ended": str,
            "readable": int,
            "approved": int,
            "obligations": str,
            "manifest": str,
            "payload_sha256": str,
        },
        pk="leaf",
        strict=True,
    )
    for columns in (["exchange"], ["kind", "project"], ["declaration"], ["payload_sha256"]):
        database.table("statement").create_index(columns)
    # An opening stands here until its closing statement comes.
    database.table("unclosed").create(
        {"opening": int, "exchange": str}, pk="opening", strict=True
    )
    database.table("watermark").create(
        {"one": int, "size": int, "last_sha256": str}, pk="one", strict=True
    )
    database.table("watermark").insert({"one": 1, "size": 0, "last_sha256": ""})


@migrations()
def obligations_with_values(database: Database) -> None:
    """Begin anew: obligations may hold blanks now, and stand divided by commas."""
    for name in ("statement", "unclosed"):
        database.table(name).delete_where()
    database.table("watermark").update(1, {"size": 0, "last_sha256": ""})


class Index:
    """The query index in one file; any thread may use it, one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._same_ledger = False
        try:
            self._database = open_database(path, migrations)
        except LedgerDamagedError:
            # It holds nothing of its own: the leaves say it all again.
            path.unlink()
            path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
            self._database = open_database(path, migrations)

    @property
    def size(self) -> int:
        """How many leaves are indexed."""
        return self._watermark()[0]

    def catch_up(self, leaves: LedgerStore, progress: Progress | None = None) -> int:
        """Index what was added since; return how many leaves. Safe in several processes.

        Raises:
            LedgerUnwellError: the index can't be written at present.
        """
        done = 0
        if self._same_ledger and self.size == leaves.head().size:
            return done
        while True:
            with self._lock, self._writing():
                size, goal = self._watermark_of(leaves), leaves.head().size
                stop = min(size + _BATCH, goal)
                self._same_ledger = True
                if size >= goal:
                    return done
                self._add(size, leaves.leaves(size, stop))
                done += stop - size
            if progress is not None:
                progress(stop, goal)

    def find(self, exchange: ExchangeId) -> Row | None:
        """Return the statement that closed *exchange*, or `None`."""
        rows = self._rows(
            "exchange = ? AND kind IN (?, ?, ?) ORDER BY leaf", exchange, *CLOSING
        )
        return rows[0] if rows else None

    def opening_of(self, exchange: ExchangeId) -> Row | None:
        """Return the opening of *exchange*, or `None`."""
        rows = self._rows("exchange = ? AND kind = 'opening'", exchange)
        return rows[0] if rows else None

    def unclosed(self) -> list[tuple[ExchangeId, int]]:
        """Return every opening without a closing statement: exchange and leaf index."""
        with self._lock, translated(self.path):
            rows = self._database.conn.execute(
                "SELECT exchange, opening FROM unclosed ORDER BY opening"
            ).fetchall()
        return [(ExchangeId(exchange), opening) for exchange, opening in rows]

    def by_payload(self, sha256: Sha256) -> Row | None:
        """Return the statement whose payload has that digest: a manifest by its name."""
        rows = self._rows("payload_sha256 = ? ORDER BY leaf", sha256)
        return rows[0] if rows else None

    def about(
        self,
        *,
        declaration: DeclarationId | None = None,
        exchange: ExchangeId | None = None,
        manifest: Sha256 | None = None,
    ) -> list[Row]:
        """Return the verdicts and withdrawals about one subject, in order."""
        column, subject = _subject(declaration, exchange, manifest)
        return self._rows(
            f"{column} = ? AND kind IN ('verdict', 'withdrawal') ORDER BY leaf", subject
        )

    def statements(self, kinds: Iterable[Kind] | None = None) -> Iterator[int]:
        """Yield the leaf indices of all statements of *kinds*, in order."""
        wanted = None if kinds is None else tuple(kinds)
        for row in self._pages([("kind", wanted)] if wanted is not None else []):
            yield row.index

    def select(
        self,
        *,
        kind: Kind | None = None,
        project: str | None = None,
        principal: str | None = None,
        purpose: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        declaration: str | None = None,
        effect: str | None = None,
        obligation: str | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> Iterator[Row]:
        """Yield rows that fit every filter, in order; a purpose covers those below it.

        *obligation* is the name of one, whatever its value.

        *since* and *until* are days or instants (`2026-11-22`, `2026-11-22T04`), both included.
        """
        equal = {
            "kind": kind,
            "project": project,
            "principal": principal,
            "provider": provider,
            "declaration": declaration,
            "effect": effect,
        }
        filters: list[tuple[str, tuple[str, ...]]] = [
            (column, (value,)) for column, value in equal.items() if value is not None
        ]
        raw: list[tuple[str, tuple[str, ...]]] = []
        if purpose is not None:
            raw.append(("(purpose = ? OR purpose GLOB ?)", (purpose, f"{purpose}.*")))
        if model is not None:
            raw.append(("(model = ? OR model_reported = ?)", (model, model)))
        if obligation is not None:
            raw.append(("(',' || obligations) GLOB ?", (f"*,{obligation}*",)))
        if since is not None:
            raw.append(("at >= ?", (since,)))
        if until is not None:
            # The text of an instant begins with that of its day, its hour and its minute.
            raw.append((f"substr(at, 1, {len(until)}) <= ?", (until,)))
        return self._pages(filters, raw)

    def kinds(self) -> dict[str, int]:
        """Return how many leaves of each kind are indexed."""
        with self._lock, translated(self.path):
            rows = self._database.conn.execute(
                "SELECT kind, count(*) FROM statement GROUP BY kind"
            ).fetchall()
        return dict(rows)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with translated(self.path), immediate(self._database):
            yield

    def _watermark(self) -> tuple[int, str]:
        with self._lock, translated(self.path):
            row = self._database.conn.execute(
                "SELECT size, last_sha256 FROM watermark"
            ).fetchone()
        return int(row[0]), str(row[1])

    def _watermark_of(self, leaves: LedgerStore) -> int:
        """Return how far *leaves* is indexed; 0, after clearing up, if this is another's."""
        size, last_sha256 = self._watermark()
        if size == 0:
            return 0
        if size <= leaves.head().size:
            (last,) = leaves.leaves(size - 1, size)
            if hashlib.sha256(last).hexdigest() == last_sha256:
                return size
        for table in ("statement", "unclosed"):
            self._database.conn.execute(f"DELETE FROM {table}")  # noqa: S608 — names of ours
        self._note_watermark(0, "")
        return 0

    def _note_watermark(self, size: int, last_sha256: str) -> None:
        self._database.conn.execute(
            "UPDATE watermark SET size = ?, last_sha256 = ?", (size, last_sha256)
        )

    def _add(self, first: int, leaves: Iterable[bytes]) -> None:
        rows, last = [], b""
        for index, leaf in enumerate(leaves, first):
            rows.append(row_of(index, leaf))
            last = leaf
        connection = self._database.conn
        connection.executemany(_INSERT, map(_values, rows))
        connection.executemany(
            "INSERT INTO unclosed VALUES (?, ?)",
            [(row.index, row.exchange) for row in rows if row.kind == "opening"],
        )
        connection.executemany(
            "DELETE FROM unclosed WHERE opening = ? AND exchange = ?",
            [(row.opening, row.exchange) for row in rows if row.kind in CLOSING],
        )
        self._note_watermark(first + len(rows), hashlib.sha256(last).hexdigest())

    def _rows(self, where: str, *values: object) -> list[Row]:
        with self._lock, translated(self.path):
            found = self._database.conn.execute(f"{_SELECT} WHERE {where}", values).fetchall()
        return [_row(values) for values in found]

    def _pages(
        self,
        filters: list[tuple[str, tuple[str, ...]]],
        raw: list[tuple[str, tuple[str, ...]]] | None = None,
    ) -> Iterator[Row]:
        """Yield matching rows page by page, so that no lock is held while others work."""
        terms = ["leaf > ?"]
        values: list[str] = []
        for column, wanted in filters:
            terms.append(f"{column} IN ({', '.join('?' for _ in wanted)})")
            values += wanted
        for term, wanted in raw or []:
            terms.append(term)
            values += wanted
        where = f"{' AND '.join(terms)} ORDER BY leaf LIMIT {_PAGE}"
        last = -1
        while rows := self._rows(where, last, *values):
            yield from rows
            last = rows[-1].index


def row_of(index: int, leaf: bytes) -> Row:
    """Return what the index keeps of the leaf at *index*."""
    try:
        if is_opening(leaf):
            return _row_of(index, read_leaf(leaf), None)
        payload = open_envelope(leaf).payload
        return _row_of(index, read_payload(payload), sha256_hex(payload))
    except MalformedReceiptError:
        # Fsck names it; a search must still be able to go past it.
        return Row(index=index, kind="unreadable")


def _row_of(index: int, statement: Statement, payload: Sha256 | None) -> Row:
    match statement:
        case Opening():
            return Row(
                index=index,
                kind="opening",
                at=statement.at,
                exchange=statement.exchange,
                project=statement.project,
                principal=statement.principal,
                provider=statement.provider,
                operation=statement.operation,
                purpose=statement.purpose,
                declaration=statement.declaration,
            )
        case Receipt() | Refusal():
            receipt = statement if isinstance(statement, Receipt) else None
            return Row(
                index=index,
                kind="refusal" if receipt is None else "receipt",
                at=statement.received if receipt is None else receipt.finished,
                exchange=statement.exchange,
                opening=statement.opening,
                project=statement.caller.project,
                principal=statement.caller.principal,
                provider=statement.provider.name,
                model=statement.model.requested,
                model_reported=statement.model.reported,
                model_manifest=statement.model.manifest,
                operation=statement.operation,
                purpose=statement.declared.use.purpose,
                declaration=statement.declared.declaration,
                effect=statement.ruling.effect,
                ended=None if receipt is None else receipt.ended,
                readable=None if receipt is None else receipt.readable,
                obligations=statement.ruling.obligations,
                payload_sha256=payload,
            )
        case Abandonment():
            return Row(
                index=index,
                kind="abandonment",
                at=statement.found,
                exchange=statement.exchange,
                opening=statement.opening,
                payload_sha256=payload,
            )
        case DeclarationFacts():
            return Row(
                index=index,
                kind="declaration",
                at=statement.at,
                project=statement.project,
                principal=statement.owner,
                purpose=statement.use.purpose,
                declaration=statement.declaration,
                payload_sha256=payload,
            )
        case Verdict():
            return Row(
                index=index,
                kind="verdict",
                at=statement.at,
                exchange=statement.exchange,
                principal=statement.by,
                declaration=statement.declaration,
                approved=statement.approved,
                payload_sha256=payload,
            )
        case Withdrawal():
            return Row(
                index=index,
                kind="withdrawal",
                at=statement.at,
                exchange=statement.exchange,
                principal=statement.by,
                declaration=statement.declaration,
                manifest=statement.manifest,
                payload_sha256=payload,
            )
        case (
            AgreementFacts()
            | OrganisationFacts()
            | Activation()
            | TermsChange()
            | KeyAuthorization()
            | KeyRevocation()
            | LogSuccession()
            | Erasure()
        ):
            return Row(
                index=index,
                kind=KINDS[type(statement)],
                at=statement.at,
                principal=statement.by,
                payload_sha256=payload,
            )
        case Takeover():
            return Row(index=index, kind="takeover", at=statement.at, payload_sha256=payload)
        case Manifest():
            return Row(
                index=index,
                kind="manifest",
                manifest=statement.payload_sha256,
                payload_sha256=statement.payload_sha256,
            )
        case _:
            assert_never(statement)


KINDS: Final[dict[type[Statement], Kind]] = {
    Opening: "opening",
    Receipt: "receipt",
    Refusal: "refusal",
    Abandonment: "abandonment",
    DeclarationFacts: "declaration",
    Verdict: "verdict",
    Withdrawal: "withdrawal",
    AgreementFacts: "agreement",
    OrganisationFacts: "organisation",
    Activation: "activation",
    TermsChange: "terms-change",
    KeyAuthorization: "key-authorization",
    KeyRevocation: "key-revocation",
    LogSuccession: "log-succession",
    Erasure: "erasure",
    Takeover: "takeover",
    Manifest: "manifest",
}
"""What each statement is called, in the index and wherever leaves are counted."""


def _subject(
    declaration: DeclarationId | None, exchange: ExchangeId | None, manifest: Sha256 | None
) -> tuple[str, str]:
    if declaration is not None:
        return "declaration", declaration
    if exchange is not None:
        return "exchange", exchange
    if manifest is not None:
        return "manifest", manifest
    raise ValueError("a declaration, an exchange or a manifest must be named")


def _values(row: Row) -> tuple[object, ...]:
    values = [getattr(row, name) for name in _FIELDS]
    # No obligation holds a comma (`policy/obligation.py`).
    values[_OBLIGATIONS_AT] = ",".join(row.obligations)
    return tuple(values)


def _row(values: tuple[object, ...]) -> Row:
    named = dict(zip(_FIELDS, values, strict=True))
    for truth in ("readable", "approved"):
        if named[truth] is not None:
            named[truth] = bool(named[truth])
    named["obligations"] = tuple(filter(None, str(named["obligations"]).split(",")))
    return Row(**named)  # type: ignore[arg-type]  # the columns are those of Row
