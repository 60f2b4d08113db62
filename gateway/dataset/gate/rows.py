"""What of an admitted exchange, or derivation, is a row: its text, opened and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.canonical import salted_sha256, sha256_hex
from gateway.dataset.digests import Digests
from gateway.dataset.gate.refusals import LeftOut
from gateway.dataset.shape import check_shape
from gateway.errors import MalformedReceiptError
from gateway.ident import Sha256
from gateway.receipt.model import Commitment, Derivation, OutputFacts, Receipt

_WHOLE: Final = frozenset(
    {
        "completed",
        "end_turn",
        "eos",
        "function_call",
        "stop",
        "stop_sequence",
        "tool_calls",
        "tool_use",
    }
)
"""Finish reasons after which an answer is whole, in the dialects that are read."""

_WORDS: Final = frozenset({"text", "reasoning", "tool-call", "refusal"})
"""Kinds of units that a conversation is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row that may be learned from: its bytes, and what opens the receipt's commitment."""

    choice: int
    """Of an exchange the choice; of a derivation the place in it."""
    line: bytes
    sha256: Sha256
    salt: bytes
    reasoned: bool = False


class Kept(Protocol):
    """What was kept of an exchange's text."""

    @property
    def salt(self) -> bytes:
        """Return what opens its commitments."""
        ...

    @property
    def rows(self) -> Mapping[int, bytes]:
        """Return the canonical row of each choice."""
        ...

    @property
    def reasoned(self) -> Mapping[int, bytes]:
        """Return the rows of those choices whose reasoning was shown, with it."""
        ...


class Rows:
    """Reads rows, each once; with *reasoning*, those that hold what their providers showed."""

    def __init__(self, *, reasoning: bool) -> None:
        self._reasoning = reasoning
        self._seen = Digests()

    def remember(self, rows: Iterable[bytes]) -> None:
        """Take the rows with these SHA-256 digests as taken already."""
        for digest in rows:
            self._seen.add(digest)

    def of_answer(
        self, receipt: Receipt, kept: Kept | None, *, erased: bool = False
    ) -> Iterator[tuple[int, Row | LeftOut]]:
        """Yield each choice of an admitted exchange with its row, or why it has none."""
        units = _first_units(receipt.outputs)
        if not units:
            yield 0, LeftOut("row.empty")
        for choice, first in units.items():
            why = _no_row(receipt, choice)
            if why is None and self._reasoning:
                why = _not_open(first)
            if why is None and kept is None:
                why = LeftOut("content-erased" if erased else "content-missing")
            if why is not None or kept is None:
                yield choice, why or LeftOut("content-missing")
            else:
                yield choice, self._row_of_choice(choice, first, kept)

    def of_derivation(
        self, derivation: Derivation, place: int, kept: Kept | None, *, erased: bool = False
    ) -> Row | LeftOut:
        """Return row *place* of a derivation, which was admitted, or why there is none."""
        made = derivation.rows[place]
        if not made.parents and derivation.written is None:
            return LeftOut("parent-unresolved", "it was made of nothing, and nobody wrote it")
        if kept is None:
            return LeftOut("content-erased" if erased else "content-missing")
        row = self._row(place, kept.rows.get(place), made.row, kept.salt)
        if isinstance(row, Row):
            try:
                check_shape(row.line, made.kind)
            except MalformedReceiptError as exc:
                return LeftOut("row.not-text", exc.message)
        return row

    def _row_of_choice(self, choice: int, first: OutputFacts, kept: Kept) -> Row | LeftOut:
        if self._reasoning:
            row = self._row(choice, kept.reasoned.get(choice), first.reasoned, kept.salt)
            return dataclasses.replace(row, reasoned=True) if isinstance(row, Row) else row
        return self._row(choice, kept.rows.get(choice), first.row, kept.salt)

    def _row(
        self, place: int, line: bytes | None, committed: Commitment | None, salt: bytes
    ) -> Row | LeftOut:
        if committed is None:
            return LeftOut("row.not-text")
        if line is None:
            return LeftOut("content-missing", f"no row was kept for choice {place}")
        if b"\n" in line or salted_sha256(salt, line) != committed.value:
            return LeftOut("row-mismatch")
        sha256 = sha256_hex(line)
        if not self._seen.add(bytes.fromhex(sha256)):
            return LeftOut("duplicate")
        return Row(choice=place, line=line, sha256=sha256, salt=salt)


def _first_units(outputs: tuple[OutputFacts, ...]) -> dict[int, OutputFacts]:
    """Return the unit of each choice that carries the commitment to its row, else its first."""
    units: dict[int, OutputFacts] = {}
    for unit in outputs:
        if unit.choice not in units or (unit.row and not units[unit.choice].row):
            units[unit.choice] = unit
    return units


def _not_open(first: OutputFacts) -> LeftOut | None:
    """Tell why a choice's reasoning is not to be learned from, or `None`.

    A summary is what a provider shows instead of the reasoning, which it keeps to itself.
    """
    if first.reasoned is None or first.reasoning_kind is None:
        return LeftOut("reasoning-not-open")
    if first.reasoning_kind != "visible":
        return LeftOut("reasoning-not-open", f"the provider showed a {first.reasoning_kind}")
    return None


def _no_row(receipt: Receipt, choice: int) -> LeftOut | None:
    """Tell why a choice makes no row: its receipt commits to none, and shows why."""
    units = [unit for unit in receipt.outputs if unit.choice == choice]
    if any(unit.row for unit in units):
        return None
    finish = _finish(receipt, choice)
    if any(unit.kind == "refusal" for unit in units) or finish == "refusal":
        return LeftOut("row.refused")
    if finish == "content_filter":
        return LeftOut("row.filtered")
    if finish and finish not in _WHOLE:
        return LeftOut("row.truncated", finish)
    if any(unit.kind not in _WORDS for unit in units):
        return LeftOut("row.not-text")
    if not any(unit.bytes for unit in units if unit.kind in {"text", "tool-call"}):
        return LeftOut("row.empty")
    return LeftOut("row.not-text")


def _finish(receipt: Receipt, choice: int) -> str:
    """Return why a choice ended, where the receipt leaves no doubt which reason is whose."""
    reasons, choices = receipt.finish_reasons, sorted({u.choice for u in receipt.outputs})
    if len(reasons) == len(choices):
        return reasons[choices.index(choice)]
    return reasons[0] if len(set(reasons)) == 1 else ""
