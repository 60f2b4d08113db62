"""What a dataset says of itself in Croissant is read, and held to, by others' loader."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mlcroissant
import msgspec
import pytest

from gateway.canonical import canonical_json, sha256_hex
from gateway.dataset.croissant import croissant_of
from gateway.dataset.manifest import (
    CROISSANT,
    HELD_OUT,
    LEDGER_CHECKPOINT,
    PREVIOUS_SNAPSHOT,
    RECEIPTS,
    ROWS,
    TRAINING_MANIFEST,
    DatasetManifest,
    Dependency,
    Findings,
    MadeBy,
    Metadata,
    Parameters,
    Split,
    Teacher,
    WrittenBy,
    manifest_dependency,
)
from gateway.ident import DeclarationId, Sha256
from gateway.intent.model import IntendedUse
from gateway.receipt.model import RowKind, Subject

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ASKED = {"role": "user", "content": "what is due?"}
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "look", "arguments": '{"at":"page 2"}'},
}
ROW: dict[RowKind, dict[str, Any]] = {
    "messages": {
        "messages": [
            ASKED,
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "12.00", "tool_call_id": "c1"},
            {"role": "assistant", "content": "12.00 \u20ac"},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}],
    },
    "preference": {
        "prompt": [ASKED],
        "chosen": [{"role": "assistant", "content": "12.00"}],
        "rejected": [{"role": "assistant", "content": "12"}],
    },
    "prompt": {"prompt": [ASKED], "verifier": "exact", "answer": "12.00"},
}


def a_folder(path: Path, kind: RowKind = "messages", *, held_out: bool = True) -> Path:
    """Write what Croissant speaks of, and the metadata; return where that is."""
    split = (Split(name="train", rows=2), Split(name="held-out", rows=1)) if held_out else ()
    vouched = "exchange" if kind == "messages" else "derivation"
    line = canonical_json(ROW[kind])
    receipts = [
        {"choice": 0, vouched: "id", "index": 7, "leaf": "a" * 64, "row": n, "sha256": "b" * 64}
        for n in range(3)
    ]
    files = {
        ROWS: (line + b"\n") * (2 if held_out else 3),
        RECEIPTS: b"".join(canonical_json(one) + b"\n" for one in receipts),
    } | ({HELD_OUT: line + b"\n"} if held_out else {})
    for name, content in files.items():
        (path / name).write_bytes(content)
    manifest = DatasetManifest(
        asked=Parameters(
            dataset="invoices-1",
            declaration=DeclarationId("use-0123456789abcdef0123"),
            project="search",
            kind=kind,
        ),
        found=Findings(
            rows=3,
            splits=split,
            teachers=(
                Teacher(
                    provider="openai",
                    model='gpt "x"\n<script>',
                    operation="chat",
                    rows=3,
                    receipts=3,
                    days=("2026-11-20", "2026-11-22"),
                    effect="permit",
                ),
                Teacher(
                    provider="parser",
                    manifest=Sha256("c" * 64),
                    operation="chat",
                    rows=1,
                    receipts=1,
                    days=("2026-11-22",),
                    effect="permit",
                    influence="judge",
                ),
            ),
            use=IntendedUse(purpose="train.sft", audience="internal", commercial=False),
            day="2026-11-22",
            library=Sha256("a" * 64),
            obligations=("keep-ai-label", "attribute=Built with Llama"),
            made_by=(
                ()
                if kind == "messages"
                else (MadeBy(name="pair", version="2", kind="compose", rows=3),)
            ),
            written_by=(
                ()
                if kind == "messages"
                else (WrittenBy(by="ada", licence="CC-BY-4.0", source="our own", rows=1),)
            ),
        ),
        dependencies=(
            manifest_dependency("student:parser", Sha256("c" * 64), TRAINING_MANIFEST),
            manifest_dependency("invoices-0", Sha256("d" * 64), PREVIOUS_SNAPSHOT),
            Dependency(
                name="ledger",
                uri="tlog:log.example/receipts",
                digest={"sha256": "e" * 64},
                annotations={"kind": LEDGER_CHECKPOINT, "size": 12},
            ),
        ),
        subjects=tuple(
            Subject(name=name, digest={"sha256": sha256_hex(content)})
            for name, content in files.items()
        ),
        metadata=Metadata(
            invocation_id="i",
            started_on="2026-11-22T10:00:00.000Z",
            finished_on="2026-11-22T10:00:01.000Z",
        ),
        version="0.1.0",
    )
    written = path / CROISSANT
    written.write_bytes(croissant_of(manifest))
    return written


@pytest.mark.parametrize("kind", ROW)
def test_the_library_finds_nothing_to_say(
    kind: RowKind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every kind of dataset validates as Croissant 1.1: no error, and no warning either."""
    with caplog.at_level(logging.WARNING):
        read = mlcroissant.Dataset(str(a_folder(tmp_path, kind)))

    assert read.metadata.ctx.is_v1_1()
    assert not read.metadata.ctx.issues.errors
    assert not read.metadata.ctx.issues.warnings
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("kind", ROW)
def test_records_come_out_as_they_went_in(kind: RowKind, tmp_path: Path) -> None:
    """Each part's rows are read under its name, words and speakers in their places."""
    read = mlcroissant.Dataset(str(a_folder(tmp_path, kind)))

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
    read = mlcroissant.Dataset(str(a_folder(tmp_path, "preference")))

    receipts = list(read.records("receipts"))
    assert [0, 1, 2] == [one["receipts/row"] for one in receipts]
    assert {7} == {one["receipts/index"] for one in receipts}
    assert {b"id"} == {one["receipts/derivation"] for one in receipts}


def test_a_file_that_was_changed_is_not_loaded(tmp_path: Path) -> None:
    """Loading holds the rows to the digest in the metadata."""
    written = a_folder(tmp_path)
    with (tmp_path / ROWS).open("ab") as rows:
        rows.write(canonical_json(ROW["messages"]) + b"\n")

    with pytest.raises(mlcroissant.GenerationError, match="Download"):
        list(mlcroissant.Dataset(str(written)).records("train"))


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
    read = mlcroissant.Dataset(str(a_folder(tmp_path, held_out=False)))

    assert ["splits", "train", "receipts"] == [one.id for one in read.metadata.record_sets]
    assert 3 == len(list(read.records("train")))
