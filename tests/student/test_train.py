"""A student is trained from datasets that pass the gate; everything about it is signed."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.dataset.manifest import parse_training
from gateway.errors import (
    BadDigestError,
    EvidenceError,
    GateError,
    GateRefusedError,
    LedgerUnwellError,
)
from gateway.student.bases import tiny_base
from gateway.student.corpus import Corpus, Shape, all_texts
from gateway.student.gate import StudentGate
from gateway.student.manifest import statement_of
from gateway.student.progress import read_metrics
from gateway.student.recipe import recipe_for
from gateway.student.run import Interrupted, Trained
from gateway.student.verify import verify_model
from tests.support.evidence import TRUST
from tests.support.student import Quiet, School

pytestmark = pytest.mark.student


@pytest.fixture
def school(tmp_path: Path) -> Iterator[School]:
    """Return a school with an empty ledger."""
    school = School(tmp_path)
    yield school
    school.close()


def trained(outcome: Trained | Interrupted) -> Trained:
    """Return *outcome* if a student came of it."""
    assert isinstance(outcome, Trained)
    return outcome


def losses_in(folder: Path) -> list[tuple[int, float]]:
    """Return each step of a run with its loss."""
    return [(step.step, step.loss) for step in read_metrics(folder / "metrics.jsonl")]


def test_what_is_trained_learns_verifies_and_is_in_the_ledger(school: School) -> None:
    """Training makes the loss fall, opens no socket, and leaves a folder that verifies."""
    sockets: list[object] = []
    # What other tests left running in threads of their own is no part of a training.
    others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
    listening = [True]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.__new__" and listening and threading.get_ident() not in others:
            sockets.append(args)

    sys.addaudithook(hook)
    built = school.dataset(32)

    screen = Quiet()
    student = trained(school.train(built, recipe_for("tiny", steps=12, batch=8), screen))
    listening.clear()
    verified = verify_model(student.folder, TRUST)
    losses = [step.loss for step in read_metrics(student.folder / "metrics.jsonl")]

    assert sockets == []
    assert len(losses) == 12
    assert sum(losses[-3:]) < sum(losses[:3]) * 0.8
    assert school.house.manifest(verified.payload_sha256) is not None
    assert parse_training(statement_of(verified.manifest)).student == "parser"
    assert verified.manifest.found.teachers == built.manifest.found.teachers
    assert verified.manifest.found.snapshot.rows == 32
    assert (student.folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "stop token trained: yes" in screen.written.getvalue()
    assert not list(student.folder.glob("*.bin"))


def test_a_resumed_run_is_the_run_it_would_have_been(school: School) -> None:
    """A run that is cut off and resumed takes the very steps of one that was not."""
    built = school.dataset(32)
    recipe = recipe_for("tiny", steps=8, batch=8, save_every=3)

    whole = trained(school.train(built, recipe, out="whole"))
    cut = school.train(built, recipe, Quiet(stop_at=5), out="cut")
    resumed = trained(school.train(built, recipe, out="cut", resume=True))

    assert isinstance(cut, Interrupted)
    assert cut.step in {5, 6}
    assert resumed.manifest.found.resumes == 1
    expected = [(s.step, s.loss) for s in read_metrics(whole.folder / "metrics.jsonl")]
    assert expected == [
        (s.step, s.loss) for s in read_metrics(resumed.folder / "metrics.jsonl")
    ]
    weights = (whole.folder / "model.safetensors").read_bytes()
    assert weights == (resumed.folder / "model.safetensors").read_bytes()


def test_a_run_is_resumed_only_as_what_it_was(school: School) -> None:
    """Other settings, and other rows, are another run."""
    built = school.dataset(16)
    recipe = recipe_for("tiny", steps=6, batch=8, save_every=2)
    school.train(built, recipe, Quiet(stop_at=2))

    with pytest.raises(GateRefusedError, match="interrupted"):
        school.train(built, recipe)
    with pytest.raises(GateError, match=r"another recipe \(steps 6, not 7\)"):
        school.train(built, recipe_for("tiny", steps=7, batch=8, save_every=2), resume=True)


@pytest.mark.parametrize("version", ["0.0.1", None])
def test_a_run_goes_on_only_under_the_versions_it_was_begun_with(
    school: School, version: str | None
) -> None:
    """Other versions might make other steps of the same words: one line names which to use."""
    built = school.dataset(16)
    recipe = recipe_for("tiny", steps=6, batch=8, save_every=2)
    cut = school.train(built, recipe, Quiet(stop_at=2))
    assert isinstance(cut, Interrupted)
    run = cut.folder / "run.json"
    begun = json.loads(run.read_bytes())
    other = begun["versions"] | {"trl": version}
    if version is None:
        del other["trl"]
    run.write_text(json.dumps(begun | {"versions": other}))
    marks = sorted(cut.folder.glob("checkpoints/*/*/complete.json"))

    with pytest.raises(
        GateError, match=r"another version of trl: (0\.0\.1|unknown), this is "
    ) as no:
        school.train(built, recipe, resume=True)

    assert no.value.problem == "student.resume_differs"
    assert "go on with that version" in no.value.hint
    assert marks == sorted(cut.folder.glob("checkpoints/*/*/complete.json"))


def test_a_torn_checkpoint_does_not_count(school: School) -> None:
    """A checkpoint without its mark is swept away; the run goes on from the one before."""
    built = school.dataset(16)
    recipe = recipe_for("tiny", steps=6, batch=8, save_every=2)
    cut = school.train(built, recipe, Quiet(stop_at=4))
    newest = max((cut.folder / "checkpoints" / "round-1").glob("checkpoint-*"))
    (newest / "complete.json").unlink()

    student = trained(school.train(built, recipe, resume=True))

    steps = [step.step for step in read_metrics(student.folder / "metrics.jsonl")]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_run_that_ended_after_its_signature_is_put_in_place(school: School) -> None:
    """Between signature, leaf and place nothing is lost: the next run finishes the work."""
    built = school.dataset(16)
    recipe = recipe_for("tiny", steps=2, batch=8)
    first = trained(school.train(built, recipe))
    size = school.house.ledger.head().size
    run = first.folder.parent / ".parser.run"

    for made in ((), ("model.sig",), ("model.sig", "manifest.tlog-proof")):
        run.mkdir()
        (run / "run.json").write_bytes(b"{}")
        first.folder.rename(run / "model")
        for name in made:
            (run / "model" / name).unlink()

        again = trained(school.train(built, recipe, resume=True))

        assert again.payload_sha256 == first.payload_sha256
        assert again.index is None
        assert size == school.house.ledger.head().size
        assert verify_model(first.folder, TRUST).payload_sha256 == first.payload_sha256
        assert not run.exists()


def test_a_leaf_without_its_proof_is_no_lost_student(school: School) -> None:
    """Where no checkpoint can be signed after the leaf, the next run goes on from there."""
    built = school.dataset(16)
    recipe = recipe_for("tiny", steps=2, batch=8)
    school.proofs_fail = True
    with pytest.raises(LedgerUnwellError):
        school.train(built, recipe)
    size = school.house.ledger.head().size
    assert not (school.house.folder / "students" / "parser").exists()

    school.proofs_fail = False
    student = trained(school.train(built, recipe, resume=True))

    assert (None, size) == (student.index, school.house.ledger.head().size)
    assert verify_model(student.folder, TRUST).manifest == student.manifest


def test_a_changed_row_is_refused_by_name(school: School) -> None:
    """A byte changed in one row ends the run before it begins, naming the row."""
    built = school.dataset(8)
    rows = built.folder / "rows.jsonl"
    rows.write_bytes(
        rows.read_bytes().replace(b"What is the word for 3?", b"What is the word for 4?", 1)
    )

    with pytest.raises(EvidenceError, match="row 3"):
        school.train(built, recipe_for("tiny", steps=2))


def test_a_withdrawn_exchange_is_refused(school: School) -> None:
    """What was withdrawn after the dataset was built teaches nobody, and holds the dataset."""
    built = school.dataset(8)
    receipt = next(iter(school.house.texts))
    school.house.withdraw(exchange=receipt)

    with pytest.raises(GateRefusedError, match="withdrawn by grace") as refused:
        school.train(built, recipe_for("tiny", steps=2))

    assert refused.value.problem == "student.withdrawn"


def test_a_withdrawn_dataset_is_refused(school: School) -> None:
    """A dataset whose manifest was withdrawn is nothing to train from."""
    built = school.dataset(8)
    school.house.withdraw(manifest=built.manifest_sha256)

    with pytest.raises(GateRefusedError, match="withdrawn by grace"):
        school.train(built, recipe_for("tiny", steps=2))


def test_a_dataset_of_another_ledger_is_refused(school: School, tmp_path: Path) -> None:
    """A manifest that is no leaf of this ledger opens no door, however well it is signed."""
    (tmp_path / "other").mkdir()
    other = School(tmp_path / "other")
    built = other.dataset(8)
    other.close()

    with pytest.raises(GateRefusedError, match="not in this ledger"):
        school.train(built, recipe_for("tiny", steps=2))


def test_another_student_than_declared_is_refused(school: School) -> None:
    """A declaration is for the student that it names."""
    built = school.dataset(8)

    with pytest.raises(GateRefusedError, match="is for student `parser`"):
        school.train(built, recipe_for("tiny", steps=2), student="writer")


def test_token_rows_that_change_are_not_learned(school: School) -> None:
    """The digest of the token rows is compared with the file again before they are learned."""
    built = school.dataset(8)
    gate = StudentGate(None, tiny_base(0), school.sources())
    admitted = gate.admit((built.folder,))
    # Imported here, after collection: it loads the training libraries.
    from gateway.student.tiny import tiny_tokenizer  # noqa: PLC0415

    tokenizer = tiny_tokenizer(all_texts(gate.texts(admitted)))
    folder = school.house.folder
    snapshot = gate.snapshot(admitted, Corpus(folder, tokenizer, Shape("sft", 512)))
    path = folder / "rows-1.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(BadDigestError, match=r"rows-1\.arrow"):
        snapshot.check()
