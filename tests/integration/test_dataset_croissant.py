"""What a dataset says of itself in Croissant is read, and held to, by others' loader."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.canonical import canonical_json
from gateway.dataset.manifest import CROISSANT, ROWS
from gateway.receipt.model import RowKind
from tests.support.dataset import House
from tests.support.derived import build, derive, messages, parent
from tests.support.described import ROW, a_folder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def loaded(folder: Path) -> Any:
    """Return *folder* as others' loader has it."""
    import mlcroissant  # noqa: PLC0415  # slow, and no other file needs it

    return mlcroissant.Dataset(str(folder))


@pytest.mark.parametrize("kind", ROW)
def test_the_library_finds_nothing_to_say(
    kind: RowKind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every kind of dataset validates as Croissant 1.1: no error, and no warning either."""
    with caplog.at_level(logging.WARNING):
        read = loaded(a_folder(tmp_path, kind))

    assert read.metadata.ctx.is_v1_1()
    assert not read.metadata.ctx.issues.errors
    assert not read.metadata.ctx.issues.warnings
    here = threading.get_ident()
    said = [one for one in caplog.records if one.thread == here]
    assert not [one for one in said if one.levelno >= logging.WARNING]


@pytest.mark.parametrize("kind", ROW)
def test_records_come_out_as_they_went_in(kind: RowKind, tmp_path: Path) -> None:
    """Each part's rows are read under its name, words and speakers in their places."""
    read = loaded(a_folder(tmp_path, kind))

    column = "messages" if kind == "messages" else "prompt"
    for part, rows in (("train", 2), ("test", 1)):
        records = list(read.records(part))
        assert rows == len(records)
        spoken = [
            (turn[f"{part}/{column}/role"], turn[f"{part}/{column}/content"])
            for turn in records[0][f"{part}/{column}"]
        ]
        expected = [
            (
                said["role"].encode(),
                None if said["content"] is None else said["content"].encode(),
            )
            for said in ROW[kind][column]
        ]
        assert expected == spoken


def test_each_record_is_joined_to_what_vouches_for_it(tmp_path: Path) -> None:
    """The record set of receipts names a leaf of the log for every row of every part."""
    read = loaded(a_folder(tmp_path, "preference"))

    receipts = list(read.records("receipts"))
    assert [0, 1, 2] == [one["receipts/row"] for one in receipts]
    assert {7} == {one["receipts/index"] for one in receipts}
    assert {b"id"} == {one["receipts/derivation"] for one in receipts}


def test_a_file_that_was_changed_is_not_loaded(tmp_path: Path) -> None:
    """Loading holds the rows to the digest in the metadata."""
    written = a_folder(tmp_path)
    with (tmp_path / ROWS).open("ab") as rows:
        rows.write(canonical_json(ROW["messages"]) + b"\n")

    import mlcroissant  # noqa: PLC0415  # as above

    with pytest.raises(mlcroissant.GenerationError, match="Download"):
        list(loaded(written).records("train"))


def test_nothing_is_granted_by_default(tmp_path: Path) -> None:
    """The licence is none that permits; the offer is the declared use, with every duty."""
    said = msgspec.json.decode(a_folder(tmp_path).read_bytes())

    assert "terms-of-the-teachers" == said["license"]["name"]
    permission = said["usageInfo"]["odrl:permission"]
    assert "tos:purpose/train.sft" == permission["odrl:action"]["@id"]
    assert {
        "tos:use/audience": "internal",
        "tos:use/commercial": False,
    } == {
        one["odrl:leftOperand"]["@id"]: one["odrl:rightOperand"]
        for one in permission["odrl:constraint"]
    }
    assert ["attribute=Built with Llama", "keep-ai-label"] == sorted(
        duty["name"] for duty in permission["odrl:duty"]
    )


def test_where_rows_come_from_is_said(tmp_path: Path) -> None:
    """Teachers, written words, students above, the snapshot before and the log are sources."""
    said = msgspec.json.decode(a_folder(tmp_path, "preference").read_bytes())

    sources = [(one["prov:label"], one.get("sha256")) for one in said["prov:wasDerivedFrom"]]
    assert ("answers of parser judging: in 1 rows", None) in sources
    assert ("written words, our own: in 1 rows", None) in sources
    assert ("previous snapshot invoices-0", "d" * 64) in sources
    assert ("ledger checkpoint ledger", "e" * 64) in sources
    (written,) = (one for one in said["prov:wasDerivedFrom"] if "license" in one)
    assert "CC-BY-4.0" == written["license"]["name"]
    assert "terms-of-the-teachers" == said["license"]["name"]
    done = [one["prov:label"] for one in said["prov:wasGeneratedBy"]]
    assert ["every row ruled on again by the gate", "compose `pair` 2: made 3 rows"] == done


def test_a_dataset_in_one_part_has_one(tmp_path: Path) -> None:
    """Where nothing was kept apart, no part is named that has no file."""
    read = loaded(a_folder(tmp_path, held_out=False))

    assert ["splits", "train", "receipts"] == [one.id for one in read.metadata.record_sets]
    assert 3 == len(list(read.records("train")))


def test_a_dataset_that_was_built_describes_itself(tmp_path: Path) -> None:
    """What a build writes is valid, and gives the rows of both parts and their receipts."""
    house = House(tmp_path / "house")
    declaration = house.declare()
    answer = house.answer(declaration)
    rows = [messages(f"question {n} {'many ' * n}", f"answer {n}") for n in range(8)]
    derive(house, declaration, [(row, [parent(house, answer)]) for row in rows], name="clean")
    built = build(house, declaration, of="clean", held_out="0.4")
    house.close()

    read = loaded(built.folder / CROISSANT)

    issues = read.metadata.ctx.issues
    assert not issues.errors | issues.warnings
    counted = {one.id: len(list(read.records(one.id))) for one in read.metadata.record_sets}
    parts = {split.name: split.rows for split in built.manifest.found.splits}
    assert parts == {"train": counted["train"], "held-out": counted["test"]}
    assert 8 == counted["receipts"]
