"""The table has a ruling for every policy and use, and leaves none out."""

from __future__ import annotations

import csv
import io

from gateway.policy.decide import decide
from gateway.policy.model import Effect
from gateway.policy.table import Table, table_csv, table_json, table_of
from tests.support.rulings import (
    ACME,
    DAY,
    STANDARD,
    small_library,
    small_uses,
)


def small_table(standard: str = STANDARD, **texts: str) -> Table:
    """Return the table of the small library, some of its texts replaced."""
    return table_of(small_library(**texts), small_uses(standard), DAY)


def test_every_cell_is_the_ruling_on_its_use() -> None:
    """A cell's decision is what `decide` says of the row's facts."""
    table, library, standard = small_table(), small_library(), small_uses()

    for row in table.rows:
        binding = library.binding([row.row.policy], row.row.model, DAY)
        for cell, column in zip(row.cells, standard.columns, strict=True):
            for ruling, use in zip(cell.rulings, column.uses, strict=True):
                facts = row.row.asks(use)
                assert ruling.decision == decide(
                    facts, binding.policies, DAY, absent=binding.absent
                )


def test_the_rows_are_every_policy_in_groups() -> None:
    """Providers come first, then licences; no policy is left out."""
    groups = [
        (heading, [row.row.id for row in rows]) for heading, rows in small_table().groups()
    ]

    assert groups == [
        ("Providers", ["acme", "host-free", "host-other"]),
        ("Model licences", ["free"]),
    ]


def test_a_cell_is_as_strict_as_its_strictest_variant() -> None:
    """What holds of a rival shows beside what is permitted to others."""
    use, train = small_table().rows[0].cells

    assert (use.effect, use.clauses) == (Effect.PERMIT, ("may-use",))
    assert (train.effect, train.clauses) == (Effect.FORBID, ("no-rivals",))
    assert [one.decision.effect for one in train.rulings] == [Effect.PERMIT, Effect.FORBID]


def test_the_terms_of_a_model_bind_in_its_row() -> None:
    """A model that is listed is ruled on by its licence, another by nobody and forbidden."""
    _, free, other, _ = small_table().rows

    assert free.cells[0].clauses == ("granted", "model-decides")
    assert other.cells[0].clauses == ("no-policy",)


def test_a_law_is_asked_by_itself() -> None:
    """A law only adds: where it is silent, its row permits and names no clause."""
    law = ACME.replace("policy: acme", "policy: law").replace("inference, evaluate", "data")
    table = small_table(**{"overlays/law": law})

    row = next(row for row in table.rows if row.kind == "overlay")
    assert [(cell.effect, cell.clauses) for cell in row.cells] == [
        (Effect.PERMIT, ()),
        (Effect.FORBID, ("no-rivals",)),
    ]


def test_the_counts_are_of_all_cells() -> None:
    """Each cell is counted once, under its effect."""
    counts = small_table().counts()

    assert counts == {Effect.PERMIT: 5, Effect.HOLD: 0, Effect.FORBID: 3}


def test_a_spreadsheet_gets_effect_and_clauses() -> None:
    """The rows of the CSV are those of the table."""
    rows = list(csv.reader(io.StringIO(table_csv(small_table()))))

    assert rows[0] == ["group", "policy", "row", "Use it", "Train on it"]
    assert rows[1] == ["Providers", "acme", "Acme API", "permit: may-use", "forbid: no-rivals"]
    assert len(rows) == 5


def test_a_spreadsheet_gets_no_formula() -> None:
    """A title that a spreadsheet would compute is text."""
    table = small_table(
        STANDARD.replace("title: Use it", "title: '=1+1'"),
        acme=ACME.replace("title: Acme API", 'title: "@SUM(A1), \\"quoted\\""'),
    )

    rows = list(csv.reader(io.StringIO(table_csv(table))))

    assert (rows[0][3], rows[1][2]) == ("'=1+1", '\'@SUM(A1), "quoted"')


def test_machines_read_every_reason() -> None:
    """The JSON holds each variant's ruling with its reasons and obligations."""
    found = table_json(small_table())

    assert (found["day"], [use["name"] for use in found["uses"]]) == (
        "2026-11-22",
        ["use", "train"],
    )
    cell = found["rows"][0]["cells"]["use"]
    assert (found["rows"][0]["kind"], cell["effect"]) == ("provider", "permit")
    assert cell["rulings"][0]["obligations"] == ["disclose-ai"]
    assert cell["rulings"][0]["reasons"][0]["clause"] == "may-use"
