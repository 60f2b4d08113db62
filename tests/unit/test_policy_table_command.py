"""`gateway policy table | diff | schema` say it in lines, files and exit codes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from gateway.cli.main import main
from gateway.policy.schema import schema_json
from tests.support.rulings import ACME, small_files

NO_TRAINING = """\
  - id: no-training
    effect: forbid
    when: {purpose: train}
    citation: {document: words, section: "9"}
    because: Nothing is trained.
    change: Other terms.
"""


def gateway(*words: str) -> int:
    """Run `gateway policy` with *words*."""
    return main(["policy", *words])


def lay(folder: Path, files: dict[str, str]) -> str:
    """Write *files* under *folder* and return its path."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return str(folder)


def test_the_table_is_drawn_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each row has its words; nothing depends on colour."""
    folder = lay(tmp_path, small_files())

    assert gateway("table", folder, "--on", "2026-11-22") == 0

    lines = capsys.readouterr().out.splitlines()
    assert "\x1b" not in "".join(lines)
    assert [line.split() for line in lines if line.startswith(("acme", "free", "Prov"))] == [
        ["Providers"],
        ["acme", "permit", "forbid"],
        ["free", "permit", "permit"],
    ]
    assert lines[-1] == "2026-11-22: 5 permit, 0 hold, 3 forbid"


def test_the_table_of_the_builtin_library_has_every_policy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What ships is drawn whole, today as on any day."""
    assert gateway("table") == 0

    said = capsys.readouterr().out
    for name in ("anthropic-fine-tuning", "gemini-free", "llama-2", "us-hr-8283-draft"):
        assert f"\n{name} " in said


def test_the_table_is_written_for_a_spreadsheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CSV goes to a file as it is."""
    folder = lay(tmp_path / "policies", small_files())
    out = tmp_path / "table.csv"

    code = gateway("table", folder, "--format", "csv", "--out", str(out), "--on", "2026-11-22")

    assert (code, capsys.readouterr().out) == (0, "")
    with out.open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file))[3:] == ["Use it", "Train on it"]
    assert out.read_bytes().count(b"\r\n") == 5


@pytest.mark.parametrize(("form", "start"), [("html", "<!doctype html>"), ("json", "{")])
def test_the_table_is_printed_for_browsers_and_programs(
    form: str, start: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a file it goes to where output goes."""
    assert gateway("table", lay(tmp_path, small_files()), "--format", form) == 0

    assert capsys.readouterr().out.startswith(start)


def test_a_library_without_standard_uses_is_asked_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of policies need not bring its own uses; every policy has a row all the same."""
    files = small_files()
    del files["standard-uses.yaml"]

    assert gateway("table", lay(tmp_path, files), "--format", "json") == 0

    found = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in found["rows"]] == ["acme", "host", "free"]
    assert "train-internal" in [use["name"] for use in found["uses"]]


def test_a_row_for_a_policy_that_is_not_there_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder's own rows name its own policies."""
    files = small_files()
    files["standard-uses.yaml"] = files["standard-uses.yaml"].replace(
        "policy: host", "policy: hots"
    )

    assert gateway("table", lay(tmp_path, files)) == 1

    assert "standard-uses.yaml:17: no policy `hots`; hint: did you mean `host`?" in (
        capsys.readouterr().err
    )


def test_a_file_that_can_t_be_written_is_for_the_operator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path into nowhere is named."""
    out = tmp_path / "none" / "table.html"

    assert gateway("table", lay(tmp_path, small_files()), "--out", str(out)) == 3

    assert f"`{out}` can't be written" in capsys.readouterr().err


def test_diff_says_which_rulings_change_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Changes are exit code 1, with the clause that causes them."""
    old = lay(tmp_path / "old", small_files())
    new = lay(tmp_path / "new", small_files(acme=ACME + NO_TRAINING))

    assert gateway("diff", old, new, "--on", "2026-11-22") == 1

    assert capsys.readouterr().out.splitlines()[:4] == [
        "clause `no-training` of `acme` was added",
        "2 of 12 rulings change: stricter 1, looser 0, for other reasons 1",
        "acme, train (2026-11-22): permit by `may-train` -> forbid by `no-training`",
        "  because clause `no-training` of `acme` was added",
    ]


def test_diff_of_equals_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no ruling changes, the exit code is 0."""
    folder = lay(tmp_path, small_files())

    assert gateway("diff", folder, folder) == 0

    assert capsys.readouterr().out == "0 of 12 rulings change\n"


def test_diff_asks_the_uses_that_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the new folder has no standard uses, the old one's are asked, or else ours."""
    files = small_files()
    old = lay(tmp_path / "old", files)
    del files["standard-uses.yaml"]
    new = lay(tmp_path / "new", files)

    assert gateway("diff", old, new, "--json") == 0
    assert json.loads(capsys.readouterr().out)["asked"] == 12
    assert gateway("diff", new, new, "--json") == 0
    assert json.loads(capsys.readouterr().out)["asked"] > 12


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed is what the file in the library holds."""
    assert gateway("schema") == 0

    assert capsys.readouterr().out == schema_json()


def test_a_day_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """A malformed day ends in the parser's own exit code."""
    assert gateway("table", "--on", "tomorrow") == 2

    assert "`tomorrow` is not a day (YYYY-MM-DD)" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["table", "diff", "schema", "watch"])
def test_every_action_has_help(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The neighbours' actions are found under `gateway policy`."""
    assert gateway(action, "--help") == 0

    assert f"gateway policy {action}" in capsys.readouterr().out
