"""Exports are loaded by `datasets` as they stand, and taken by TRL for what they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.canonical import canonical_json
from gateway.dataset.export.forms import FORMS
from gateway.dataset.export.parquet import from_columns
from gateway.student.offline import seal_off
from tests.support.dataset import House, a_library, a_policy
from tests.support.derived import build, derive, messages, parent, preference
from tests.support.export import export, rows_of

pytestmark = pytest.mark.student

CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
TALK: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "what is due?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "12", "tool_call_id": "c"},
        {"role": "assistant", "content": "12.00"},
    ],
    "tools": [{"type": "function", "function": {"name": "look", "parameters": {"a": {}}}}],
}
ROWS: dict[str, list[dict[str, Any]]] = {
    "messages": [messages(f"question {n} {'many ' * n}", f"answer {n}") for n in range(6)]
    + [TALK],
    "preference": [preference(f"question {n} {'many ' * n}", "good", "bad") for n in range(6)],
    "prompt": [
        {"prompt": [{"role": "user", "content": f"{n} + {'1 ' * n}"}], "verifier": "exact"}
        | ({"answer": str(n)} if n % 2 else {})
        for n in range(6)
    ],
}
SHAPED = [(name, kind) for name, form in FORMS.items() for kind in form.kinds]


@pytest.fixture(scope="module")
def datasets_library() -> Any:
    """Return the library, cut off from any network."""
    seal_off()
    # Imported here, after collection: it takes seconds.
    import datasets  # noqa: PLC0415

    datasets.disable_progress_bars()
    return datasets


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return a house with a dataset of each kind, some of it held out."""
    library = a_library(open=a_policy("open", "permit", when="purpose: train"))
    house = House(tmp_path_factory.mktemp("exports") / "house", library)
    declaration = house.declare("train")
    answer = house.answer(declaration, "one")
    for kind, rows in ROWS.items():
        above = [(row, [parent(house, answer)]) for row in rows]
        derive(house, declaration, above, name=kind, kind=kind)
        build(house, declaration, kind, of=kind, kind=kind, held_out="0.3")
    yield house
    house.close()


@pytest.fixture(scope="module")
def loaded(
    house: House, datasets_library: Any, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Return what exports a dataset in a form, and loads it."""

    def loads(form: str, kind: str, **said: Any) -> tuple[Path, Any]:
        name = "-".join([form, kind, *said]).replace("_", "-")
        folder = house.folder / "exports" / name
        if not folder.exists():
            export(house, house.folder / "datasets" / kind, form, name=name, **said)
        cache = str(tmp_path_factory.mktemp("cache"))
        return folder, datasets_library.load_dataset(str(folder), cache_dir=cache)

    return loads


def without_absent(row: dict[str, Any]) -> dict[str, Any]:
    """Return *row* without columns that it hasn't; a table has every column in every row."""
    return {name: value for name, value in row.items() if value is not None}


@pytest.mark.parametrize(("form", "kind"), SHAPED)
def test_every_form_loads_in_its_parts(loaded: Any, house: House, form: str, kind: str) -> None:
    """Each part comes out with the rows that were written, and no other file is data."""
    folder, parts = loaded(form, kind)

    dataset = house.folder / "datasets" / kind
    for part, name in (("train", "rows.jsonl"), ("test", "held-out.jsonl")):
        assert len(rows_of(dataset / name)) == len(parts[part])
    if FORMS[form].is_parquet:
        said = rows_of(folder / "receipts.jsonl")
        lines = {canonical_json(row) for rows in ROWS.values() for row in rows}
        for row in parts["train"]:
            assert row["receipt"] in {one["receipt"] for one in said}
            assert canonical_json(from_columns(row, kind)) in lines  # type: ignore[arg-type]  # a kind
    else:
        written = rows_of(folder / "train.jsonl")
        assert written == [without_absent(row) for row in parts["train"]]


@pytest.mark.parametrize(
    ("form", "kind", "columns"),
    [
        ("openai", "messages", {"messages", "tools"}),
        ("prompt-completion", "messages", {"prompt", "completion", "tools"}),
        ("trl-preference", "preference", {"prompt", "chosen", "rejected", "tools"}),
        ("prompt-only", "prompt", {"prompt", "verifier", "answer", "tools"}),
    ],
)
def test_a_trainer_takes_them_for_conversations(
    loaded: Any, form: str, kind: str, columns: set[str]
) -> None:
    """TRL's own checks find conversations of the type that its trainers ask for."""
    # Imported here, after collection: it loads the training libraries.
    from trl.data_utils import is_conversational  # noqa: PLC0415

    _, parts = loaded(form, kind)

    for rows in parts.values():
        assert columns == set(rows.column_names)
        assert all(is_conversational(row) for row in rows)


@pytest.mark.parametrize(
    ("form", "kind"), [("prompt-completion", "messages"), ("trl-preference", "preference")]
)
def test_a_template_renders_them(loaded: Any, form: str, kind: str) -> None:
    """What is loaded goes through TRL's own templating, calls of tools and all."""
    # Imported here, after collection: they load the training libraries.
    from trl.data_utils import apply_chat_template  # noqa: PLC0415

    from gateway.student.tiny import tiny_tokenizer  # noqa: PLC0415

    tokenizer = tiny_tokenizer(["a question and its answer"])
    _, parts = loaded(form, kind)

    wanted = ("completion",) if form == "prompt-completion" else ("chosen", "rejected")
    for row in parts["train"]:
        rendered = apply_chat_template(dict(row), tokenizer)
        assert all(rendered[side] for side in ("prompt", *wanted))


def test_a_receipt_column_is_loaded_with_the_rows(loaded: Any) -> None:
    """A pipeline that maps over the rows has the name of each one's parent."""
    folder, parts = loaded("openai", "messages", receipt_column=True)

    said = {one["receipt"] for one in rows_of(folder / "receipts.jsonl")}
    assert said == {row["receipt"] for rows in parts.values() for row in rows}


def test_files_of_a_part_are_one_part(loaded: Any) -> None:
    """Several files of one part load as one."""
    folder, parts = loaded("parquet", "messages", shard_rows=2)

    assert 3 <= len([*folder.glob("*.parquet")])
    assert {len(ROWS["messages"])} == {sum(len(rows) for rows in parts.values())}
