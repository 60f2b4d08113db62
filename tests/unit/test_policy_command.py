"""`gateway policy …` says what it found, in lines and in its exit code."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from gateway.cli import policy
from gateway.errors import MalformedPolicyError, NotFoundError, SettingError
from gateway.policy.vocabulary import vocabulary_yaml
from tests.support.policies import POLICY, acme_files

CASE = (
    "use: {purpose: inference}\non: 2026-11-22\n"
    "expect: {effect: permit, reasons: [may-use], obligations: [disclose-ai]}\nnote: x\n"
)


def gateway(*words: str) -> int:
    """Run `gateway policy` with *words*."""
    parser = argparse.ArgumentParser(prog="gateway")
    policy.add(parser.add_subparsers())
    args = parser.parse_args(["policy", *words])
    code = args.run(args)
    assert isinstance(code, int)
    return code


def lay(folder: Path, files: dict[str, str]) -> str:
    """Write *files* under *folder* and return its path."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return str(folder)


def test_the_builtin_library_lints_clean(capsys: pytest.CaptureFixture[str]) -> None:
    """What ships has no findings, and the summary counts what was looked at."""
    assert gateway("lint", "--on", "2026-11-22") == 0

    assert capsys.readouterr().out.endswith(": 0 findings\n")


def test_lint_lists_findings_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each finding is a line with its place; any finding is exit code 1."""
    folder = lay(tmp_path, acme_files(**{"permit-use": CASE}))

    assert gateway("lint", folder, "--on", "2026-11-22") == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("acme/policy.yaml:15: no case dies without clause `no-rivals`")
    assert lines[-1] == "1 policy, 3 clauses, 1 case: 2 findings"


def test_a_library_that_does_not_load_is_an_error_of_legal(tmp_path: Path) -> None:
    """The one error goes up to where exit codes are made."""
    folder = lay(tmp_path, acme_files(POLICY.replace("effect: forbid", "efect: forbid")))

    with pytest.raises(MalformedPolicyError, match="unknown key `efect`"):
        gateway("lint", folder)


def test_cases_are_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Passing cases are exit code 0, a failing one is a line and exit code 1."""
    good = lay(tmp_path / "good", acme_files(**{"permit-use": CASE}))
    bad = lay(tmp_path / "bad", acme_files(**{"permit-use": CASE.replace("[may-", "[my-")}))

    assert gateway("test", good) == 0
    assert gateway("test", bad) == 1

    assert capsys.readouterr().out.splitlines() == [
        "1 case, 0 failures",
        (
            "acme/cases/permit-use.yaml:3: expected reasons `my-use`, got `may-use`;"
            " hint: change the policy, or have legal sign the new answer"
        ),
        "1 case, 1 failure",
    ]


def test_no_cases_at_all_is_not_fine(tmp_path: Path) -> None:
    """A library that nothing tests does not pass."""
    assert gateway("test", lay(tmp_path, acme_files())) == 1


def test_explain_speaks_in_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    """A permitted use is exit code 0, another is 1, and both say why."""
    classifier = "purpose=train.sft, student-kind=classifier, audience=internal"

    assert gateway("explain", "openai", "--use", classifier, "--on", "2026-11-22") == 0
    assert gateway("explain", "anthropic", "--use", classifier, "--on", "2026-11-22") == 1

    said = capsys.readouterr().out
    assert "openai / may-train-classifier:" in said
    assert "anthropic / narrow-tools:" in said


def test_explain_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With `--json` machines read the same."""
    gateway("explain", "deepseek", "--use", "purpose=train.sft", "--json", "--on", "2026-11-22")

    said = json.loads(capsys.readouterr().out)
    assert (said["effect"], said["reasons"][0]["clause"]) == ("permit", "may-train")


def test_explain_follows_the_day(capsys: pytest.CaptureFixture[str]) -> None:
    """Before a policy's first day there is none, and that is the reason."""
    assert gateway("explain", "openai", "--use", "purpose=inference", "--on", "2020-01-01") == 1

    assert "no-policy" in capsys.readouterr().out


def test_an_unknown_provider_is_named_with_the_nearest() -> None:
    """A typo in the provider's name gets the right one."""
    with pytest.raises(NotFoundError, match="there is no policy `opena`") as caught:
        gateway("explain", "opena", "--use", "purpose=inference")

    assert caught.value.hint == "did you mean `openai`?"


def test_a_day_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """A malformed day ends in the parser's own exit code."""
    with pytest.raises(SystemExit) as caught:
        gateway("lint", "--on", "tomorrow")

    assert caught.value.code == 2
    assert "`tomorrow` is not a day (YYYY-MM-DD)" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_for_the_operator(tmp_path: Path) -> None:
    """A wrong path is a wrong setting."""
    with pytest.raises(SettingError):
        gateway("lint", str(tmp_path / "none"))


def test_the_vocabulary_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed is what the file in the library holds."""
    assert gateway("vocabulary") == 0

    assert capsys.readouterr().out == vocabulary_yaml()
