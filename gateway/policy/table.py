"""The matrix of rulings: policies down the side, standard uses across, a ruling in each cell.

No policy is left out: what `standard-uses.yaml` has no row for gets a plain one. A use with
variants is as strict as its strictest. `page.py` makes the page for people.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.ident import Sha256
from gateway.policy.decide import Decision, decide
from gateway.policy.explain import reason_json
from gateway.policy.library import Library
from gateway.policy.model import Effect, Kind
from gateway.policy.standard import Column, Row, StandardUse, StandardUses

GROUPS: Final[Mapping[Kind, str]] = {
    "provider": "Providers",
    "licence": "Model licences",
    "overlay": "Laws to be ruled by as well",
}
"""The sorts of policies, in the order in which a table shows them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """One use of a column, ruled on."""

    use: StandardUse
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The rulings of one row on one column, the plain use's first."""

    rulings: tuple[Ruling, ...]

    @property
    def effect(self) -> Effect:
        """Return the strictest effect."""
        return max(ruling.decision.effect for ruling in self.rulings)

    @property
    def clauses(self) -> tuple[str, ...]:
        """Return the clauses that led to that effect."""
        return tuple(
            dict.fromkeys(
                reason.clause
                for ruling in self.rulings
                if ruling.decision.effect is self.effect
                for reason in ruling.decision.reasons
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One way of coming under a policy, and its rulings."""

    row: Row
    kind: Kind
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The rulings of a library on one day."""

    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    day: dt.date
    digest: Sha256

    def groups(self) -> Iterator[tuple[str, tuple[TableRow, ...]]]:
        """Yield the rows of each sort of policies with their heading."""
        for kind, heading in GROUPS.items():
            rows = tuple(row for row in self.rows if row.kind == kind)
            if rows:
                yield heading, rows

    def counts(self) -> Mapping[Effect, int]:
        """Return how many cells have each effect."""
        effects = [cell.effect for row in self.rows for cell in row.cells]
        return {effect: effects.count(effect) for effect in Effect}


def table_of(library: Library, standard: StandardUses, on: dt.date) -> Table:
    """Return the table of *library* on that day."""
    rows = [
        TableRow(
            row=row,
            kind=library.policies[row.policy][-1].kind,
            cells=tuple(
                Cell(rulings=tuple(ruling(library, row, use, on) for use in column.uses))
                for column in standard.columns
            ),
        )
        for row in standard.rows_of(library)
    ]
    order = list(GROUPS)
    return Table(
        columns=standard.columns,
        rows=tuple(sorted(rows, key=lambda one: order.index(one.kind))),
        day=on,
        digest=library.digest,
    )


def ruling(library: Library, row: Row, use: StandardUse, on: dt.date) -> Ruling:
    """Return the ruling on *use* in *row*, under its policy and the model's terms."""
    binding = row.binding(library, on)
    decision = decide(row.asks(use), binding.policies, on, absent=binding.absent)
    return Ruling(use=use, decision=decision)


def table_csv(table: Table) -> str:
    """Return the table for a spreadsheet: in each cell the effect, then its clauses."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["group", "policy", "row", *(_inert(one.title) for one in table.columns)])
    for heading, rows in table.groups():
        for row in rows:
            cells = (f"{cell.effect.word}: {', '.join(cell.clauses)}" for cell in row.cells)
            writer.writerow(
                _all_inert([heading, row.row.policy, row.row.title, *cells]),
            )
    return text.getvalue()


def table_json(table: Table) -> dict[str, Any]:
    """Return the table JSON-ready, every ruling with its reasons."""
    return {
        "day": table.day.isoformat(),
        "library": table.digest,
        "uses": [{"name": one.name, "title": one.title} for one in table.columns],
        "rows": [
            {
                "id": row.row.id,
                "title": row.row.title,
                "policy": row.row.policy,
                "kind": row.kind,
                "cells": {
                    column.name: _cell_json(cell)
                    for column, cell in zip(table.columns, row.cells, strict=True)
                },
            }
            for row in table.rows
        ],
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "effect": cell.effect.word,
        "rulings": [
            {
                "use": one.use.name,
                "effect": one.decision.effect.word,
                "reasons": [reason_json(reason) for reason in one.decision.reasons],
                "missing": list(one.decision.missing),
                "obligations": list(one.decision.obligations),
            }
            for one in cell.rulings
        ],
    }


def _all_inert(cells: Iterable[str]) -> list[str]:
    return [_inert(cell) for cell in cells]


def _inert(text: str) -> str:
    """Return *text* so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
