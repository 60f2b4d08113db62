"""Carry out erasures: texts are destroyed for good, the leaves that prove an exchange stay.

An erasure is a leaf first; then keys and bodies go; then it is remembered as carried out. What
a crash or a restored backup left in between is made up for by `apply_erasures`, which every
start and every command calls. It covers what was opened before its leaf, nothing later.

With a text go the rows that pipelines made of it, at any distance, whenever they were recorded.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from gateway.canonical import sha256_hex
from gateway.clock import rfc3339
from gateway.day import parse_day
from gateway.ident import ExchangeId, made_at_ms
from gateway.ledger.reading.reader import Reader
from gateway.limits import DERIVATIONS_READ_AT_ONCE, EXCHANGES_ERASED_AT_ONCE
from gateway.policy.obligation import DELETE_BY, days_to_keep
from gateway.provider.model import Operation
from gateway.receipt.model import Derivation, Erasure, Parent, Receipt
from gateway.receipt.statement import read_leaf
from gateway.store.content import Contents
from gateway.store.index.index import Index
from gateway.store.index.rows import Kind, Row

_UNDER_WAY_MS: Final = 60_000

Progress = Callable[[int, int], None]
"""Called with the leaf that is reached, and the one at which it ends."""


def apply_erasures(reader: Reader, contents: Contents, progress: Progress | None = None) -> int:
    """Carry out every erasure in the ledger that was not yet; return how many texts went.

    Raises:
        LedgerUnwellError: index or texts can't be written, or somebody reads the texts at this
            moment; what is left is done by the next call.
    """
    reader.catch_up()
    done, erased = _applied(reader, contents), 0
    for at in reader.index.statements(["erasure"], done):
        leaf = reader.leaf(at)
        erasure = read_leaf(leaf)
        if isinstance(erasure, Erasure):
            erased += _apply(reader, contents, erasure, at, progress)
            erased += _erase_made_of_erased(reader, contents)
            erased += _erase_unstated(reader, contents, erasure)
        contents.empty_log()
        contents.note_applied(at, sha256_hex(leaf))
    return erased


def covered(reader: Reader, erasure: Erasure, size: int) -> Iterator[ExchangeId]:
    """Yield the exchanges that *erasure* names, of those opened in the first *size* leaves."""
    for row in _openings(reader.index, erasure, size):
        if row.exchange is not None:
            yield row.exchange


def count_covered(reader: Reader, contents: Contents, erasure: Erasure) -> tuple[int, int]:
    """Return how many exchanges *erasure* would cover today, and of how many there is text."""
    exchanges = texts = 0
    named = covered(reader, erasure, reader.size())
    while batch := list(itertools.islice(named, EXCHANGES_ERASED_AT_ONCE)):
        exchanges += len(batch)
        texts += len(contents.kept_of(batch))
    return exchanges, texts


def count_made_of(reader: Reader, contents: Contents, erasure: Erasure) -> int:
    """Return how many rows of others' pipelines would go with the texts that *erasure* covers.

    Rows that the erasure names itself, as whoever recorded them, are among its texts already;
    those of which nothing is kept are counted no more.
    """
    size = reader.size()

    def named(one: ExchangeId) -> bool:
        return _is_named(reader.index, erasure, one, size)

    def gone_then(names: Sequence[ExchangeId]) -> set[ExchangeId]:
        return contents.erased_of(names) | {one for one in names if named(one)}

    count = 0
    today, then = _made_of(reader, contents.erased_of), _made_of(reader, gone_then)
    # Twice over the same leaves: what is gone already is not to be counted as going.
    for (_, one, before), (_, _, after) in zip(today, then, strict=True):
        more = after - before
        if more and not named(one.derivation) and contents.kept_of([one.derivation]):
            count += len(more)
    return count


def erase_overdue(
    reader: Reader, contents: Contents, today: dt.date, state: Callable[[], object]
) -> int:
    """Erase texts that the terms let nobody keep any longer; return how many went.

    The gate refuses them from that day on, whether or not they are gone yet. So does what was
    kept of an exchange that was abandoned go: a crash came between its text and its receipt,
    so nothing will ever say for how long it may be kept. Where there is something to erase,
    *state* writes the erasure down first; its leaf names *today* as `overdue`.

    Raises:
        LedgerUnwellError: ledger, index or texts can't be written at present.
    """
    erased = apply_erasures(reader, contents)
    if next(_overdue(reader, contents, today.isoformat(), reader.size()), None) is None:
        return erased
    state()
    return erased + apply_erasures(reader, contents)


def is_overdue(receipt: Receipt, today: dt.date) -> bool:
    """Tell whether the days are over for which the output may be kept."""
    days = days_to_keep(receipt.ruling.obligations)
    if days is None:
        return False
    try:
        made = dt.date.fromisoformat(receipt.received[:10])
    except ValueError:
        # Nobody can tell how old it is, so nobody can say that it may still be kept.
        return True
    return today > made + dt.timedelta(days=days)


def _applied(reader: Reader, contents: Contents) -> int:
    """Return from which leaf on erasures may not have been carried out yet."""
    applied = contents.applied()
    if applied is None:
        return 0
    at, sha256 = applied
    if at < reader.size() and sha256_hex(reader.leaf(at)) == sha256:
        return at + 1
    # These texts were with another copy of the ledger: carried out twice does no harm.
    return 0


def _apply(
    reader: Reader, contents: Contents, erasure: Erasure, at: int, progress: Progress | None
) -> int:
    if erasure.overdue is not None:
        return _erase(contents, _overdue(reader, contents, erasure.overdue, at))
    erased, openings = 0, _openings(reader.index, erasure, at)
    while batch := list(itertools.islice(openings, EXCHANGES_ERASED_AT_ONCE)):
        named = [row.exchange for row in batch if row.exchange is not None]
        # Of an exchange that has not ended, the text may be on its way; of a batch, items may
        # come long after its end.
        ahead = [
            row.exchange
            for row in batch
            if row.exchange is not None
            and (
                row.operation == Operation.BATCH
                or reader.index.is_unclosed(row.exchange, row.index)
            )
        ]
        erased += contents.erase_all(named, ahead=ahead)
        if progress is not None:
            progress(batch[-1].index, at)
    return erased


def _erase(contents: Contents, exchanges: Iterator[ExchangeId]) -> int:
    erased = 0
    while batch := list(itertools.islice(exchanges, EXCHANGES_ERASED_AT_ONCE)):
        erased += contents.erase_all(batch)
    return erased


def _erase_made_of_erased(reader: Reader, contents: Contents) -> int:
    """Erase rows that were made of erased text; return of how many derivations some went.

    A parent's leaf stands before what was made of it, so one look at each derivation, in order,
    finds those at any distance. Which rows were judged by an erased answer plays no part: none
    of its words stand in them. What a pipeline records after this look finds its parents'
    texts gone, and erases its own (`dataset/derivation/recording.py`).
    """
    reader.catch_up()
    return sum(
        contents.erase_rows(one.derivation, reached)
        for _, one, reached in _made_of(reader, contents.erased_of)
    )


def _made_of(
    reader: Reader, without: Callable[[Sequence[ExchangeId]], set[ExchangeId]]
) -> Iterator[tuple[int, Derivation, set[int]]]:
    """Yield each derivation, and which of its rows were made of a text that is gone.

    *without* tells which of some exchanges and derivations have no text any more.
    """
    gone = set[tuple[int, int]]()
    rows = reader.index.select(kind="derivation")
    while batch := list(itertools.islice(rows, DERIVATIONS_READ_AT_ONCE)):
        read = [(row.index, read_leaf(reader.leaf(row.index))) for row in batch]
        made = [(index, one) for index, one in read if isinstance(one, Derivation)]
        named = {id_ for _, one in made for parent in one.parents if (id_ := _text_of(parent))}
        lacking = without(sorted(named))
        for index, one in made:
            lost = [
                _text_of(parent) in lacking or (parent.index, parent.choice) in gone
                for parent in one.parents
            ]
            reached = {
                place
                for place, row in enumerate(one.rows)
                if any(lost[at] and one.parents[at].role != "judge" for at in row.parents)
            }
            gone.update((index, place) for place in reached)
            yield index, one, reached


def _erase_unstated(reader: Reader, contents: Contents, erasure: Erasure) -> int:
    """Erase texts of rows whose leaf never came; return how many went.

    A crash came between the two, so nothing says whose they are: they might be of what the
    erasure names. Those of the minute before it may have a leaf yet.
    """
    erased, after = 0, ""
    while page := contents.derivations_kept(after, EXCHANGES_ERASED_AT_ONCE):
        after = page[-1]
        old = (one for one in page if rfc3339(made_at_ms(one) + _UNDER_WAY_MS) < erasure.at)
        unstated = [one for one in old if reader.derivation(one) is None]
        erased += contents.erase_all(unstated) if unstated else 0
    return erased


def _text_of(parent: Parent) -> ExchangeId | None:
    """Return under what the text of *parent* is kept, if any is."""
    return parent.exchange or parent.derivation


def _openings(index: Index, erasure: Erasure, size: int) -> Iterator[Row]:
    """Yield the openings, and derivations, in the first *size* leaves that *erasure* names."""
    if erasure.exchange is not None:
        # An item has no opening of its own; its receipt is where it begins.
        named = erasure.exchange
        opening = index.opening_of(named) or index.find(named) or index.derivation(named)
        if opening is not None and opening.index < size:
            yield opening
        return
    if erasure.principal is erasure.project is erasure.before is None:
        return
    kinds: tuple[Kind, ...] = ("opening", "derivation")
    for kind in kinds:
        rows = index.select(
            kind=kind,
            principal=erasure.principal,
            project=erasure.project,
            until=erasure.before,
        )
        for row in itertools.takewhile(lambda row: row.index < size, rows):
            if erasure.before is None or (row.at or "") < erasure.before:
                yield row


def _is_named(index: Index, erasure: Erasure, one: ExchangeId, size: int) -> bool:
    """Tell whether an exchange, or a derivation, is among those that *erasure* names."""
    if erasure.exchange is not None:
        return one == erasure.exchange
    row = index.opening_of(one) or index.derivation(one)
    return (
        row is not None
        and row.index < size
        and erasure.principal in (None, row.principal)
        and erasure.project in (None, row.project)
        and (erasure.before is None or (row.at or "") < erasure.before)
    )


def _overdue(reader: Reader, contents: Contents, day: str, size: int) -> Iterator[ExchangeId]:
    """Yield exchanges with a text that may not be kept on *day*, in the first *size* leaves."""
    index, today = reader.index, parse_day(day)
    if today is None:
        return
    for row in _with_text(index.select(kind="receipt", obligation=DELETE_BY), contents, size):
        receipt = read_leaf(reader.leaf(row.index))
        if isinstance(receipt, Receipt) and is_overdue(receipt, today):
            yield receipt.exchange
    for row in _with_text(index.select(kind="abandonment"), contents, size):
        if row.exchange is not None:
            yield row.exchange


def _with_text(rows: Iterator[Row], contents: Contents, size: int) -> Iterator[Row]:
    """Yield those of *rows* in the first *size* leaves of whose exchange there is a text."""
    early = itertools.takewhile(lambda row: row.index < size, rows)
    while batch := list(itertools.islice(early, EXCHANGES_ERASED_AT_ONCE)):
        kept = contents.kept_of([row.exchange for row in batch if row.exchange is not None])
        yield from (row for row in batch if row.exchange in kept)
