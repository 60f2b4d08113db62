"""Rows that pipelines made, and parts that were held out, in the forms of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.canonical import canonical_json
from gateway.dataset.export.forms import FORMS
from gateway.dataset.export.verify import verify_export
from gateway.errors import GateRefusedError
from gateway.intent.model import Declaration
from gateway.receipt.model import Receipt
from tests.support.dataset import House, a_library, a_policy
from tests.support.derived import build, derive, parent, preference
from tests.support.evidence import TRUST
from tests.support.export import export, rows_of

OF_PAIRS = [name for name, form in FORMS.items() if "preference" in form.kinds]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Return a house with an empty ledger, whose provider lets answers teach and judge."""
    both = a_library(open=a_policy("open", "permit", when="purpose: [train, verify]"))
    house = House(tmp_path / "house", both)
    yield house
    house.close()


def judged_pairs(
    house: House, declaration: Declaration, count: int
) -> list[tuple[Receipt, Receipt]]:
    """Append pairs of answers, each with its judge, and return the better ones and judges."""
    rows, said = [], []
    for number in range(count):
        better, worse, judge = (
            house.answer(declaration, f"{word} {number}") for word in ("good", "bad", "A")
        )
        row = preference(f"question {number}, {'of ' * number}many", f"good {number}", "bad")
        above = [
            parent(house, better, "chosen"),
            parent(house, worse, "rejected"),
            parent(house, judge, "judge"),
        ]
        rows.append((row, above))
        said.append((better, judge))
    derive(house, declaration, rows, name="pairs", transform="judge", kind="preference")
    return said


def test_pairs_go_out_in_every_form_that_holds_them(house: House) -> None:
    """Both parts keep their rows and their derivations, whatever the form."""
    declaration = house.declare("train.preference")
    judged_pairs(house, declaration, 8)
    built = build(house, declaration, of="pairs", kind="preference", held_out="0.4")
    parts = {split.name: split.rows for split in built.manifest.found.splits}
    assert parts["held-out"]

    for form in OF_PAIRS:
        done = export(house, built.folder, form)
        verified = verify_export(done.folder, TRUST)
        rows = {file.split: file.rows for file in verified.manifest.found.files}
        said = rows_of(done.folder / "receipts.jsonl")

        assert parts == rows
        assert parts["held-out"] == sum("split" in one for one in said)
        assert all(one["receipt"].startswith("d-") for one in said)


def test_one_part_can_go_out_alone(house: House) -> None:
    """What was held out is in no export of the part to train on."""
    declaration = house.declare("train.preference")
    judged_pairs(house, declaration, 8)
    built = build(house, declaration, of="pairs", kind="preference", held_out="0.4")

    done = export(house, built.folder, "trl-preference", splits=("train",))

    assert ["train.jsonl"] == [file.name for file in done.manifest.found.files]
    held_out = (built.folder / "held-out.jsonl").read_bytes().splitlines()
    assert not set(held_out) & set((done.folder / "train.jsonl").read_bytes().splitlines())
    verify_export(done.folder, TRUST)


@pytest.mark.parametrize("above", ["words", "judge"])
def test_what_stands_above_a_row_is_ruled_on_again(house: House, above: str) -> None:
    """An answer that a row was made from, or judged by, was erased: the row goes nowhere."""
    declaration = house.declare("train.preference")
    said = judged_pairs(house, declaration, 2)
    built = build(house, declaration, of="pairs", kind="preference")
    gone = said[1][0 if above == "words" else 1]
    house.texts.erase(gone.exchange)

    with pytest.raises(GateRefusedError) as caught:
        export(house, built.folder, "trl-preference")
    assert "export.row_refused" == caught.value.problem
    assert f"parent-erased ({gone.exchange})" in caught.value.message


def test_prompts_go_out_with_their_verifiers(house: House) -> None:
    """Rows for reinforcement learning keep the verifier's id and what it compares with."""
    declaration = house.declare("train.reward")
    answer = house.answer(declaration, "write a sum")
    row: dict[str, Any] = {
        "prompt": [{"role": "user", "content": "1 + 1"}],
        "verifier": "exact",
        "answer": "2",
    }
    derive(house, declaration, [(row, [parent(house, answer)])], name="sums", kind="prompt")
    built = build(house, declaration, of="sums", kind="prompt")

    done = export(house, built.folder, "prompt-only")
    columns = export(house, built.folder, "parquet")

    assert canonical_json(row) + b"\n" == (done.folder / "train.jsonl").read_bytes()
    for one in (done, columns):
        assert {} == verify_export(one.folder, TRUST).manifest.found.lost
