"""What stands above a derived row: every leaf that it was made from, in any number of steps.

A derivation names its parents by their places in the log. A parent's place is lower than that
of what was made from it, so every way up ends. Each leaf is listed once for each way in which
it reached the row: by its words, or by a judgement. Whoever gives the leaves (`find`) answers
for them: a ledger's reader, or the part of a dataset folder that was shown to be in the log.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from gateway.dataset.calls import Call, call_of
from gateway.dataset.facts import Facts, read_answer
from gateway.dataset.manifest import Influence, parse_training
from gateway.errors import MalformedReceiptError
from gateway.ident import Sha256
from gateway.limits import ANCESTORS_PER_ROW_MAX
from gateway.receipt.envelope import Envelope, open_envelope
from gateway.receipt.model import (
    TRAINING_BUILD,
    Derivation,
    Manifest,
    Parent,
    Receipt,
    Statement,
)
from gateway.receipt.statement import is_opening, read_leaf, read_payload

Ancestor = Receipt | Derivation | Manifest
"""What can stand above a row: an answer, rows that were made, a student run in the pipeline."""

_ANCESTORS: Final = (Receipt, Derivation, Manifest)

Find = Callable[[int], bytes]
"""Gives the leaf at an index, or raises `MalformedReceiptError` where there is none."""

_STATEMENTS_REMEMBERED: Final = 256


class UnresolvedParentError(MalformedReceiptError):
    """A row names a parent that is not there, or is not what it is said to be."""

    code = "dataset.parent_unresolved"


class Above(msgspec.Struct, frozen=True, kw_only=True):
    """One leaf above a row, and how it reached the row."""

    index: int
    influence: Influence
    leaf: bytes
    answer: Facts | None
    """Of a receipt, the fields that decide; of anything else, `None`."""

    @property
    def statement(self) -> Ancestor:
        """What the leaf says; a receipt is read whole only when it is asked for.

        Raises:
            MalformedReceiptError: it is not written in the one way to write it.
        """
        _, statement = opened(self.leaf)
        if not isinstance(statement, _ANCESTORS):
            raise MalformedReceiptError(f"leaf {self.index}: rows are made from no such thing")
        return statement


def above_of(statement: Statement, place: int, find: Find, *, index: int) -> tuple[Above, ...]:
    """Return every leaf above row *place* of a derivation, by rising index; above others none.

    *index* is the derivation's own leaf. The law is checked on the way: a parent stands at a
    lower index than what was made from it, is what the row says it is, and has the choice, or
    the row, that is named.

    Raises:
        UnresolvedParentError: a parent breaks the law, can't be found, or there are more than
            `ANCESTORS_PER_ROW_MAX`.
    """
    if not isinstance(statement, Derivation):
        return ()
    found: dict[tuple[int, Influence], Above] = {}
    seen: set[tuple[int, int, Influence]] = set()
    waiting: list[tuple[Derivation, int, int, Influence]] = [(statement, place, index, "text")]
    while waiting:
        child, row, below, reaching = waiting.pop()
        for parent in parents_of(child, row):
            influence: Influence = "judge" if parent.role == "judge" else reaching
            known = (parent.index, parent.choice, influence)
            if not 0 <= parent.index < below:
                raise _unresolved(child, parent, f"does not stand before leaf {below}")
            leaf, answer, made = _resolved(child, parent, find)
            if known in seen:
                continue
            seen.add(known)
            if len(seen) > ANCESTORS_PER_ROW_MAX:
                raise UnresolvedParentError(
                    f"row {place} of {statement.derivation} has more than "
                    f"{ANCESTORS_PER_ROW_MAX} ancestors"
                )
            found[parent.index, influence] = Above(
                index=parent.index, influence=influence, leaf=leaf, answer=answer
            )
            if made is not None:
                waiting.append((made, parent.choice, parent.index, influence))
    return tuple(found[key] for key in sorted(found))


def parents_of(derivation: Derivation, place: int) -> Iterator[Parent]:
    """Yield the parents of row *place* of *derivation*.

    Raises:
        UnresolvedParentError: it has no such row, or the row names a parent that isn't listed.
    """
    if not 0 <= place < len(derivation.rows):
        raise UnresolvedParentError(f"{derivation.derivation} has no row {place}")
    for at in derivation.rows[place].parents:
        if not 0 <= at < len(derivation.parents):
            raise UnresolvedParentError(
                f"row {place} of {derivation.derivation} names parent {at}, which isn't listed"
            )
        yield derivation.parents[at]


def call_above(above: Above) -> tuple[Call, Sha256 | None, str | None] | None:
    """Return the call that an ancestor was, its student's manifest, and the day of the call.

    A student that was run in the pipeline itself counts as a call to it, of which no day is
    known; a derivation is no call.
    """
    match above.statement:
        case Receipt() as receipt:
            return call_of(receipt), receipt.model.manifest, receipt.received[:10]
        case Manifest() as manifest:
            return call_of_student(manifest), manifest.payload_sha256, None
        case _:
            return None


def call_of_student(manifest: Manifest) -> Call:
    """Return the call that a student's run in a pipeline counts as.

    Raises:
        MalformedReceiptError: it is not a training manifest.
    """
    student = parse_training(manifest.statement).student
    return Call(provider=student, model=None, operation="chat")


def _resolved(
    child: Derivation, parent: Parent, find: Find
) -> tuple[bytes, Facts | None, Derivation | None]:
    """Return the leaf of *parent*; of an answer its facts, of rows what made them."""
    named = (parent.exchange, parent.derivation, parent.manifest)
    if sum(name is not None for name in named) != 1:
        raise _unresolved(child, parent, "is not exactly one thing")
    try:
        leaf = find(parent.index)
        if parent.exchange is not None:
            facts = answered(leaf)
            if facts is None or facts.exchange != parent.exchange:
                raise _unresolved(child, parent, "is something else")
            if all(unit.choice != parent.choice for unit in facts.outputs):
                raise _unresolved(child, parent, f"has no choice {parent.choice}")
            return leaf, facts, None
        _, statement = opened(leaf)
    except UnresolvedParentError:
        raise
    except MalformedReceiptError as exc:
        raise _unresolved(child, parent, f"can't be found: {exc.message}") from exc
    match statement:
        case Derivation() if statement.derivation == parent.derivation:
            if not 0 <= parent.choice < len(statement.rows):
                raise _unresolved(child, parent, f"has no row {parent.choice}")
            return leaf, None, statement
        case Manifest() if statement.payload_sha256 == parent.manifest:
            if statement.build_type != TRAINING_BUILD:
                raise _unresolved(child, parent, "is not a student's training manifest")
            return leaf, None, None
        case _:
            raise _unresolved(child, parent, "is something else")


def _unresolved(child: Derivation, parent: Parent, why: str) -> UnresolvedParentError:
    name = parent.exchange or parent.derivation or (parent.manifest or "?")[:16]
    return UnresolvedParentError(
        f"{name} at leaf {parent.index}, which {child.derivation} was made from, {why}"
    )


@functools.lru_cache(maxsize=_STATEMENTS_REMEMBERED)
def answered(leaf: bytes) -> Facts | None:
    """Return the facts of the receipt in *leaf*, or `None` where it is none; see `opened`.

    Raises:
        MalformedReceiptError: it is no signed statement, or no receipt that can be read.
    """
    return read_answer(leaf)


@functools.lru_cache(maxsize=_STATEMENTS_REMEMBERED)
def opened(leaf: bytes) -> tuple[Envelope | None, Statement]:
    """Return the envelope of *leaf* and the statement in it; an opening has no envelope.

    Some are remembered: many rows of one batch come from the same answers.

    Raises:
        MalformedReceiptError: it holds no statement, or not in the one way to write it.
    """
    if is_opening(leaf):
        return None, read_leaf(leaf)
    envelope = open_envelope(leaf)
    return envelope, read_payload(envelope.payload)
