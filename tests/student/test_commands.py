"""The commands: a run that is told to stop keeps what it learned and says how to go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.main import main
from gateway.student.job import TrainingJob
from gateway.student.progress import read_metrics
from tests.support.struck import Strike, StruckNursery
from tests.support.student import install

AT_A_CHECKPOINT = Strike(event="os.rename", of="/checkpoint-3/complete.json", signal="SIGTERM")
AT_THE_GATE = Strike(event="open", of="/datasets/set/rows.jsonl", signal="SIGTERM")

pytestmark = pytest.mark.student


@pytest.fixture(scope="module")
def nursery() -> Iterator[StruckNursery]:
    """Return what commands are forked by."""
    with StruckNursery() as nursery:
        yield nursery


def test_sigterm_saves_and_exits_143_and_resume_goes_on(
    nursery: StruckNursery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After SIGTERM the same command with --resume makes the steps that were left, no other."""
    dataset = install(tmp_path, held_out="0.2")
    words = ["student", "train", str(dataset), "--steps", "8", "--batch", "8", "--json"]
    words += ["--save-every", "3"]
    training = nursery.strike(tmp_path, words, AT_A_CHECKPOINT)
    assert training.returncode == 143, training.stderr
    cut = json.loads(training.stdout)

    assert (cut["outcome"], cut["step"], cut["kept"]) == ("interrupted", 4, True)

    code = main(["--config", str(tmp_path / "gateway.yaml"), *words, "--resume"])
    trained = json.loads(capsys.readouterr().out)
    steps = read_metrics(Path(trained["folder"]) / "metrics.jsonl")

    assert code == 0
    assert [step.step for step in steps] == list(range(1, 9))

    trust = str(tmp_path / "gateway-data" / "trust.json")
    assert main(["student", "verify", trained["folder"], "--trust", trust]) == 0
    verified = capsys.readouterr().out
    rows, held_out = trained["rows"], 32 - trained["rows"]
    assert f"set: 32 rows ({rows} train, {held_out} held-out), manifest logged" in verified
    assert f"from {rows} rows, {held_out} more held out to measure with" in verified
    assert 0 < held_out < 32
    assert main(["student", "card", trained["folder"], "--trust", trust]) == 0
    assert "| open | open-1 | 32 | 100% |" in capsys.readouterr().out

    # What stands is no place for another, nor a dataset, and a plan says so as a run does.
    house = ["--config", str(tmp_path / "gateway.yaml")]
    assert main([*house, *words, "--plan"]) == 1
    assert "already stands" in capsys.readouterr().err
    assert main([*house, "student", "train", trained["folder"]]) == 1
    assert (
        f"is a student, no dataset; hint: to go on from it, say --base {trained['folder']}"
        in (capsys.readouterr().err)
    )


def test_sigterm_at_the_gate_is_one_line_and_changes_nothing(
    nursery: StruckNursery, tmp_path: Path
) -> None:
    """Told to stop while rows are verified, a run and a plan end there and leave nothing."""
    dataset = install(tmp_path, count=8)
    students = tmp_path / "gateway-data" / "students"
    for more in ((), ("--plan",)):
        words = ("student", "train", str(dataset), *more)
        struck = nursery.strike(tmp_path, words, AT_THE_GATE)

        assert (struck.returncode, struck.stderr) == (143, "")
        assert struck.stdout == (
            "interrupted at the gate; nothing was changed; give the same command again\n"
        )
        assert not students.exists()


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A base or a dataset that is not there, and numbers out of range, each have their code."""
    dataset = str(install(tmp_path, count=2))
    train = ["--config", str(tmp_path / "gateway.yaml"), "student", "train"]

    assert main([*train, dataset, "--base", str(tmp_path / "nothing")]) == 3
    assert main([*train, str(tmp_path)]) == 1
    assert main([*train, dataset, "--lr", "5"]) == 2
    assert main([*train, dataset, "--resume"]) == 3
    lines = capsys.readouterr().err.splitlines()
    problems = [line for line in lines if line.startswith("gateway: ")]

    assert [line.split(": ")[1] for line in problems] == [
        "piece.missing",
        "dataset.malformed",
        "recipe.bad",
        "piece.missing",
    ]
    assert all("hint: " in line for line in problems)


def test_every_command_of_the_guide_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The guide to training is walked, file and commands as they stand in it."""
    text = (Path("docs") / "guides" / "training.md").read_text("utf-8")
    job = text.partition("```yaml\n")[2].partition("```")[0]
    commands = [block.partition("\n```")[0] for block in text.split("```sh\n")[1:]]
    install(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(job)

    for command in commands:
        line, _, promised = command.partition("  # exits ")
        words = line.split()
        assert words[0] == "gateway"
        assert main(words[1:]) == int(promised or 0), capsys.readouterr().err
    told = capsys.readouterr().out

    assert len(commands) == 3
    assert "nothing was trained" in told
    assert "student `parser`: 4 steps" in told
    keys = set(TrainingJob.__struct_fields__) - {"version"}
    assert {key for key in keys if f"`{key}`" not in text} == set()
