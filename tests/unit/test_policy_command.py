"""`gateway policy …` says what it found, in lines and in its exit code."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main as cli
from gateway.cli import policy
from gateway.errors import MalformedPolicyError, NotFoundError, SettingError
from gateway.policy.vocabulary import vocabulary_yaml
from tests.support.policies import HEAD, POLICY, TERMS, acme_files, written

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


LAYERS = {
    "host/policy.yaml": POLICY.replace("policy: acme", "policy: host").replace(
        "version: 1", "version: 1\nwith_model_terms: true"
    ),
    "host/terms.yaml": TERMS,
    "overlays/law/policy.yaml": HEAD.replace("policy: acme", "policy: law")
    + written("when: {jurisdiction: EU}", id="label", effect="hold"),
    "overlays/law/terms.yaml": TERMS,
    "models.yaml": "models:\n  - {id: elm-1, terms: [acme], source: s, confidence: primary}\n",
}
RIVAL = "purpose=train.sft, competes=?1, audience=internal"


def explained(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Return what `explain --json` says of a use under *folder*."""
    gateway("explain", *words, "--json", "--on", "2026-11-22", "--policies", str(folder))
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def test_explain_speaks_in_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A permitted use is exit code 0, another is 1, and both say why and under what."""
    rest = ("--on", "2026-11-22", "--policies", lay(tmp_path, acme_files()))

    assert gateway("explain", "acme", "--use", "purpose=inference", *rest) == 0
    assert gateway("explain", "acme", "--use", RIVAL, *rest) == 1

    said = capsys.readouterr().out
    assert "Ruled for 2026-11-22 under acme (version 1)." in said
    assert "acme / may-use:" in said
    assert "With a written permission registered that lifts `no-rivals`" in said


def test_explain_rules_under_every_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The policies named, the terms of the model, and the overlays bind together."""
    lay(tmp_path, acme_files() | LAYERS)

    said = explained(
        tmp_path, capsys, "host", "--model", "elm-1", "--overlay", "law",
        "--use", "purpose=inference, jurisdiction=DE",
    )  # fmt: skip

    assert [pin["policy"] for pin in said["policies"]] == ["acme", "host", "law"]
    assert (said["effect"], said["reasons"][0]["policy"]) == ("hold", "law")


def test_explain_takes_facts_that_nobody_declares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words, sets, numbers, months and days are given by name, and the route has its own."""
    condition = (
        "when: {account-tier: paid, notices: {all: [display, attribution]}, access-route: host,"
        " monthly-users: {over: 5, at: 2024-06}, generated-on: 2026-01-01}"
    )
    lay(tmp_path, acme_files(HEAD + written(condition)))
    facts = [
        "account-tier=paid",
        "notices=[display, attribution]",
        "monthly-users={2024-06: 6, 2026-01: 1}",
        "generated-on=2026-01-01",
    ]
    words = [word for fact in facts for word in ("--fact", fact)]

    said = explained(
        tmp_path, capsys, "acme", "--use", "purpose=inference", "--route", "host", *words
    )

    assert said["effect"] == "permit"


def test_explain_supposes_an_agreement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clause that is lifted permits, and the sentence calls the agreement by its name."""
    lay(tmp_path, acme_files())

    said = explained(
        tmp_path, capsys, "acme", "--use", RIVAL, "--lift", "acme:no-rivals",
        "--agreement", "order-7",
    )  # fmt: skip

    assert said["effect"] == "permit"
    assert any("The agreement `order-7` lifts" in sentence for sentence in said["sentences"])


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["acne"], "there is no policy `acne`", "did you mean `acme`?"),
        (["acme", "--overlay", "laws"], "there is no policy `laws`", "mean `law`?"),
        (["acme", "--overlay", "host"], "`host` is no overlay", "before `--use`"),
        (["acme", "--fact", "mood=good"], "there is no fact `mood`", "mod"),
        (["acme", "--fact", "generative=true"], "there is no fact `generative`", ""),
        (["acme", "--fact", "purpose=verify"], "there is no fact `purpose` to give", ""),
        (["acme", "--fact", "modality"], "`--fact modality` has no value", "`modality=…`"),
        (["acme", "--fact", "monthly-users=x"], "takes a whole number", "unquoted"),
        (["acme", "--fact", "monthly-users=[*x]"], "an anchor or alias", "write"),
        (["acme", "--fact", "account-tier=gold"], "`account-tier` can't be `gold`", "paid"),
        (["acme", "--lift", "acme:no-rival"], "no clause `no-rival`", "`no-rivals`?"),
        (["acme", "--lift", "acme"], "`acme` has no clause ``", "no-rivals"),
        (["acme", "--lift", "acme:may-use"], "permits already", "leave it out"),
        (["acme", "--lift", "acne:no-rivals"], "there is no policy `acne`", "`acme`?"),
        (["acme", "--lift", "host:no-rivals"], "does not bind this use", "bound by acme"),
    ],
)
def test_what_explain_can_t_ask_is_wrong_usage(
    tmp_path: Path, words: list[str], message: str, hint: str
) -> None:
    """Whatever is not there is named, with the nearest right word."""
    folder = lay(tmp_path, acme_files() | LAYERS)

    with pytest.raises(NotFoundError) as caught:
        gateway("explain", *words, "--use", "purpose=inference", "--policies", folder)

    assert message in caught.value.message
    assert hint in caught.value.hint


def test_explain_follows_the_day(capsys: pytest.CaptureFixture[str]) -> None:
    """Before a policy's first day there is none, and that is the reason."""
    assert gateway("explain", "openai", "--use", "purpose=inference", "--on", "2020-01-01") == 1

    said = capsys.readouterr().out
    assert "under no policy." in said
    assert "no-policy" in said


@pytest.mark.parametrize("day", ["tomorrow", "20261122", "2026-W01-1", "2026-02-30"])
def test_a_day_of_explain_is_written_in_one_way(
    day: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A day is a day of the calendar, as everywhere in the policies."""
    with pytest.raises(SystemExit) as caught:
        gateway("explain", "openai", "--use", "purpose=inference", "--on", day)

    assert caught.value.code == 2
    assert f"`{day}` is not a day (YYYY-MM-DD)" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("model", "policies"),
    [
        (
            "meta-llama/Llama-3.3-70B-Instruct",
            "llama-3.3 (version 1), open-weights (version 1)",
        ),
        ("openai/gpt-4o", "openai (version 1)"),
    ],
)
def test_a_model_may_be_asked_about(
    model: str, policies: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model's exact id stands for its provider, or for weights that one runs oneself."""
    assert 0 == cli.main(["policy", "explain", model, "--use", "purpose=inference"])
    assert f"under {policies}." in capsys.readouterr().out
