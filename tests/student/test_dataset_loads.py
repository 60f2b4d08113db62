"""A dataset folder loads with `datasets` as it stands: rows, their parts, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.canonical import canonical_json
from gateway.dataset.manifest import CARD, HELD_OUT, ROWS
from gateway.receipt.model import RowKind
from gateway.student.offline import seal_off
from tests.support.described import ASKED, ROW, a_folder

pytestmark = pytest.mark.student


@pytest.fixture(scope="module")
def load() -> Any:
    """Return `datasets.load_dataset`, cut off from any network."""
    seal_off()
    # Imported here, after collection: it takes seconds.
    import datasets  # noqa: PLC0415

    datasets.disable_progress_bars()

    def loads(folder: Path, **said: Any) -> Any:
        return datasets.load_dataset(
            str(folder), cache_dir=str(folder.parent / "cache"), **said
        )

    return loads


def a_whole_folder(path: Path, kind: RowKind, *, held_out: bool = True) -> Path:
    """Return a folder with everything beside the rows that a dataset has."""
    path.mkdir()
    a_folder(path, kind, held_out=held_out)
    (path / "left-out.jsonl").write_bytes(b'{"exchange":"x","reason":"duplicate"}\n')
    for name in ("evidence/keys.jsonl", "evidence/spans.jsonl", "manifest.json"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b'{"index":0}\n')
    return path


def without_absent(row: dict[str, Any]) -> dict[str, Any]:
    """Return *row* without columns that it hasn't; a table has every column in every row."""
    return {name: value for name, value in row.items() if value is not None}


@pytest.mark.parametrize("kind", ROW)
def test_rows_and_only_rows_are_loaded(load: Any, kind: RowKind, tmp_path: Path) -> None:
    """Each part comes out under its name, word for word; no other file is taken for data."""
    loaded = load(a_whole_folder(tmp_path / "set", kind))

    assert {"train": 2, "test": 1} == {part: len(rows) for part, rows in loaded.items()}
    for rows in loaded.values():
        assert all(ROW[kind] == without_absent(row) for row in rows)


def test_a_dataset_in_one_part_is_one_to_train_on(load: Any, tmp_path: Path) -> None:
    """Where nothing was kept apart all rows are `train`, and receipts are no rows."""
    loaded = load(a_whole_folder(tmp_path / "set", "messages", held_out=False))

    assert {"train": 3} == {part: len(rows) for part, rows in loaded.items()}


def test_no_key_appears_that_a_message_has_not(load: Any, tmp_path: Path) -> None:
    """Messages of other shapes in other rows put no empty keys into a message.

    A template tells `tool_calls` that are none from a message that has none; and where schemas
    were guessed from the first rows, a later row with other tools would not load at all.
    """
    folder = a_whole_folder(tmp_path / "set", "messages")
    plain = {"messages": [ASKED, {"role": "assistant", "content": "12"}]}
    other = ROW["messages"] | {"tools": [{"type": "custom", "custom": {"name": "sql"}}]}
    lines = [canonical_json(row) + b"\n" for row in (plain, ROW["messages"], other)]
    (folder / ROWS).write_bytes(b"".join(lines))

    loaded = load(folder)
    streamed = load(folder, streaming=True)
    for rows in (loaded["train"], streamed["train"]):
        assert [plain, ROW["messages"], other] == [without_absent(row) for row in rows]


@pytest.mark.parametrize("kind", ROW)
def test_the_hub_reads_the_card(kind: RowKind, tmp_path: Path) -> None:
    """The front matter is the hub's: a licence that grants nothing, a config of files."""
    # Imported here, after collection: it takes seconds.
    from huggingface_hub import DatasetCard  # noqa: PLC0415

    data = DatasetCard.load(a_whole_folder(tmp_path / "set", kind) / CARD).data

    assert ("other", "terms-of-the-teachers") == (data.license, data.license_name)
    assert ["n<1K"] == data.size_categories
    (config,) = data.configs
    assert [("train", ROWS), ("test", HELD_OUT)] == [
        (part["split"], part["path"]) for part in config["data_files"]
    ]


@pytest.mark.parametrize("kind", ROW)
def test_a_trainer_takes_the_rows_for_conversations(
    load: Any, kind: RowKind, tmp_path: Path
) -> None:
    """TRL's own check finds conversations in rows of every kind."""
    # Imported here, after collection: it loads the training libraries.
    from trl.data_utils import is_conversational  # noqa: PLC0415

    loaded = load(a_whole_folder(tmp_path / "set", kind))

    assert all(is_conversational(row) for row in loaded["train"])
