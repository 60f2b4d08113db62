"""Killed at each thing that makes a model folder durable: nothing of a run is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.canonical import sha256_hex
from gateway.receipt.keys import parse_trust
from gateway.student.progress import read_metrics
from gateway.student.verify import verify_model
from tests.support.struck import Strike, StruckNursery
from tests.support.student import install, training_leaves

pytestmark = [pytest.mark.student, pytest.mark.crash]

STRIKES = (
    Strike(event="shutil.copyfile", of="/model/metrics.jsonl"),
    Strike(event="os.rename", of="/model/manifest.json"),
    Strike(event="os.rename", of="/model/manifest.json", done=True),
    Strike(event="os.rename", of="/model/manifest.tlog-proof"),
    Strike(event="os.rename", of="/model/manifest.tlog-proof", done=True),
    Strike(event="os.rename", of="/model/model.sig"),
    Strike(event="os.rename", of="/model/model.sig", done=True),
    Strike(event="os.rename", of="/students/parser"),
    Strike(event="os.rename", of="/students/parser", done=True),
    Strike(event="os.remove", of="run.json"),
)
"""In the order of a run: each begins where the one before was killed."""

WEIGHTS = ("model.safetensors", "config.json", "tokenizer.json")


def test_killed_at_any_mark_of_its_folder_the_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    """After each `kill -9`, `--resume` goes on from there: one student, one leaf, every bit."""
    dataset = install(tmp_path, held_out="0.25")
    train = ("student", "train", str(dataset), "--steps", "2", "--batch", "8")
    students = tmp_path / "gateway-data" / "students"
    place, run = students / "parser", students / ".parser.run"
    stood: list[tuple[str, bool]] = []
    with StruckNursery() as nursery:
        for number, strike in enumerate(STRIKES):
            words = (*train, *["--resume"] * bool(number))
            struck = nursery.strike(tmp_path, words, strike)
            assert struck.returncode == -9, (str(strike), struck.stdout, struck.stderr)
            stood.append((strike.of, place.exists()))
        last = nursery.strike(tmp_path, (*train, "--resume", "--json"), None)
        other = tmp_path / "other"
        undisturbed = nursery.strike(tmp_path, (*train, "--out", str(other)), None)

    assert (last.returncode, undisturbed.returncode) == (0, 0), last.stderr + undisturbed.stderr
    told = json.loads(last.stdout)
    trust = parse_trust((tmp_path / "gateway-data" / "trust.json").read_bytes())
    student, whole = verify_model(place, trust), verify_model(other, trust)
    assert (told["outcome"], tmp_path / told["folder"]) == ("trained", place)
    assert told["manifest"] == student.payload_sha256
    # Whoever looks sees no student, or all of it.
    assert [of for of, there in stood if there] == ["/students/parser", "run.json"]
    assert sorted(path.name for path in students.iterdir()) == ["parser"]
    assert not run.exists()
    assert [student.payload_sha256, whole.payload_sha256] == training_leaves(tmp_path)
    for name in WEIGHTS:
        one, two = (sha256_hex((folder / name).read_bytes()) for folder in (place, other))
        assert one == two, name
    losses = [
        [(step.step, step.loss) for step in read_metrics(folder / "metrics.jsonl")]
        for folder in (place, other)
    ]
    assert losses[0] == losses[1]
    assert student.manifest.found.evaluation == whole.manifest.found.evaluation
