"""The twin of `gateway.provider.table` and of `gateway operations`."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.main import main
from gateway.provider.catalogue import DIALECTS
from gateway.provider.table import BEGIN, END, operations_table, page_with

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http.md"


def test_the_page_is_fresh() -> None:
    """The table of the reference is what the routes say now."""
    page = PAGE.read_text(encoding="utf-8")

    assert page == page_with(page, operations_table(DIALECTS)), (
        "run `gateway operations --page docs/reference/http.md`"
    )


@pytest.mark.parametrize("name", DIALECTS)
def test_every_path_is_told(name: str) -> None:
    """Each route of a dialect is in its table, by its own path or by what it stands below."""
    table = operations_table({name: DIALECTS[name]})

    for route in DIALECTS[name].ROUTES:
        path = route.path
        while f"`{path}`" not in table and path.endswith("/{…}"):
            path = path.removesuffix("/{…}")
        assert f"`{path}`" in table
    assert "everything else" in table


def test_dialects_that_know_the_same_are_told_once() -> None:
    """A second dialect with the same routes points at the first."""
    table = operations_table({"one": DIALECTS["openai"], "two": DIALECTS["openai"]})

    assert table.endswith("### `two`\n\nAs `one`.\n")


def test_a_page_keeps_all_but_the_table(tmp_path: Path) -> None:
    """The command writes between the marks, and again the same."""
    file = tmp_path / "page.md"
    file.write_text(f"# before\n\n{BEGIN}\nold\n{END}\n\nafter\n", encoding="utf-8")

    for _ in range(2):
        assert 0 == main(["operations", "--page", str(file)])
    page = file.read_text(encoding="utf-8")
    assert page.startswith(f"# before\n\n{BEGIN}\n\n### `openai`")
    assert page.endswith(f"{END}\n\nafter\n")
    assert "\nold\n" not in page


@pytest.mark.parametrize("text", ["no marks", f"{END} {BEGIN}"])
def test_a_page_without_marks_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written where there is no place for it."""
    file = tmp_path / "page.md"
    file.write_text(text, encoding="utf-8")

    assert 3 == main(["operations", "--page", str(file)])
    assert "no place" in capsys.readouterr().err
    assert text == file.read_text(encoding="utf-8")
    assert 3 == main(["operations", "--page", str(tmp_path / "absent.md")])


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a page, the table is what is said."""
    assert 0 == main(["operations"])
    assert "| request | operation |" in capsys.readouterr().out
