"""`gateway dataset export`: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.dataset.export.verify import verify_export
from gateway.receipt.keys import parse_trust
from tests.integration.test_dataset_commands import Desk, desk

__all__ = ["desk"]


@pytest.fixture
def dataset(desk: Desk) -> Path:
    """Return a dataset of two rows, built on the command line."""
    declaration = desk.declare()
    for text in ("one", "two"):
        desk.answer(declaration, text)
    desk.run("dataset", "build", "set", "--for", declaration)
    return desk.folder / "data" / "datasets" / "set"


def test_an_export_stands_beside_the_datasets(desk: Desk, dataset: Path) -> None:
    """Without a place of its own it goes to the data folder, and verifies with its trust."""
    said = desk.run("dataset", "export", str(dataset), "--format", "sharegpt")

    folder = desk.folder / "data" / "exports" / "set-sharegpt"
    trust = parse_trust((desk.folder / "data" / "trust.json").read_bytes())
    assert 2 == verify_export(folder, trust).rows
    assert f"{folder}: 2 rows in 1 files" in said
    assert f"check it: gateway verify {folder}" in said
    words = ("--trust", str(desk.folder / "data" / "trust.json"))
    assert "export set-sharegpt: 2 rows" in desk.run("verify", str(folder), *words)
    with (folder / "train.jsonl").open("ab") as rows:
        rows.write(b"{}\n")
    assert "dataset.file_changed" in desk.run("verify", str(folder), *words, code=1)


def test_a_withdrawal_ends_exports(desk: Desk, dataset: Path) -> None:
    """A row that was withdrawn is a refusal: one line with its code, and exit code 1."""
    exchange = desk.answer(desk.declare(), "three")
    declaration = desk.declare()
    desk.run("dataset", "build", "more", "--for", declaration)
    desk.run("review", "withdraw", exchange, "--reason", "asked to", "--by", "grace")

    more = dataset.parent / "more"
    said = desk.run("dataset", "export", str(more), "--format", "openai", code=1)
    assert "export.withdrawn" in said
    assert not (desk.folder / "data" / "exports" / "more-openai").exists()
    desk.run("dataset", "export", str(dataset), "--format", "openai")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--format", "csv"), 2, "invalid choice"),
        (("--format", "openai", "--shard-rows", "0"), 2, "no number"),
        (("--format", "trl-preference"), 1, "export.unfit"),
        (("--format", "openai", "--split", "held-out"), 1, "export.no_split"),
        (("--format", "openai", "--out", "Not A Name"), 1, "dataset.misnamed"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    desk: Desk,
    dataset: Path,
    words: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    """Wrong words and refusals tell what is wrong, and write nothing."""
    assert told in desk.run("dataset", "export", str(dataset), *words, code=code)
    assert not (desk.folder / "data" / "exports").exists()


def test_a_folder_that_is_none_is_named(desk: Desk, tmp_path: Path) -> None:
    """A path without a dataset is a line of its own."""
    said = desk.run("dataset", "export", str(tmp_path), "--format", "openai", code=1)

    assert "manifest" in said
