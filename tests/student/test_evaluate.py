"""A student is asked what was held out, beside its base; what comes of it is signed with it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.canonical import canonical_json, salted_sha256
from gateway.dataset.assembly.build import Built, build_dataset
from gateway.dataset.assembly.build import Order as DatasetOrder
from gateway.errors import BadDigestError, CallerError, GateRefusedError
from gateway.receipt.model import Commitment, OutputFacts
from gateway.student.evaluate import Asking
from gateway.student.likeness import prompt_of
from gateway.student.progress import read_held_out
from gateway.student.recipe import recipe_for
from gateway.student.reexamine import Retest, datasets_of, reexamine
from gateway.student.run import Interrupted, Trained
from gateway.student.speech import Question
from gateway.student.verify import VerifiedModel, verify_model
from tests.support.dataset import Kept
from tests.support.evidence import TRUST
from tests.support.student import Quiet, School

pytestmark = pytest.mark.student

NAMES = (
    "alder",
    "beech",
    "cypress",
    "dogwood",
    "elm",
    "fir",
    "ginkgo",
    "hazel",
    "ivy",
    "juniper",
)
PLACES = ("harbour", "mountain", "valley", "station", "library", "orchard", "bridge", "market")


def a_row(number: int) -> dict[str, Any]:
    """Return a question whose answer is one of two labels; no two are alike."""
    name, place = NAMES[number % 10], PLACES[number // 10 % 8]
    said = f"{name} {number * 7919 % 1000} seen from the {place} at {number * 104729 % 997}"
    return {
        "messages": [
            {"role": "user", "content": said},
            {"role": "assistant", "content": "tree" if number % 2 else "not a tree"},
        ]
    }


def answer(school: School, number: int, row: dict[str, Any] | None = None) -> None:
    """Have the teacher answer question *number*, or that of *row*."""
    row = row or a_row(number)
    receipt = school.house.receipt(school.declaration, row["messages"][-1]["content"])
    line, salt = canonical_json(row), school.house.texts[receipt.exchange].salt
    school.house.texts[receipt.exchange] = Kept(salt, {0: line})
    unit = receipt.outputs[0]
    commitment = Commitment(alg="sha256-salted", value=salted_sha256(salt, line))
    output = OutputFacts(
        choice=0, kind="text", bytes=unit.bytes, sha256=unit.sha256, row=commitment
    )
    school.house.state(msgspec.structs.replace(receipt, outputs=(output,)))


def build(school: School, name: str, held_out: str | None, seed: int = 0) -> Built:
    """Build a dataset of all that was answered."""
    order = DatasetOrder(
        name=name,
        declaration=school.declaration,
        folder=school.house.folder / "datasets" / name,
        held_out=held_out,
        seed=seed,
    )
    return build_dataset(order, school.house.sources())


@dataclass(frozen=True)
class Asked:
    """A student that stands, and what it comes from."""

    school: School
    dataset: Built
    trained: Trained
    model: VerifiedModel
    said: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """Return a student that was asked a quarter of its dataset."""
    school = School(tmp_path_factory.mktemp("school"))
    for number in range(64):
        answer(school, number)
    built = build(school, "set", "0.25")
    screen = Quiet()
    student = school.train(built, recipe_for("tiny", steps=40, batch=16, save_every=40), screen)
    assert isinstance(student, Trained)
    yield Asked(
        school, built, student, verify_model(student.folder, TRUST), screen.written.getvalue()
    )
    school.close()


def retest(made: Asked, **asked: Any) -> Retest:
    """Return what is to be asked again."""
    datasets = datasets_of(made.model, [made.dataset.folder], made.school.sources())
    asking = asked.pop("asking", Asking())
    return Retest(model=made.model, datasets=datasets, asking=asking, **asked)


def test_the_manifest_holds_what_came_of_it(made: Asked) -> None:
    """Base and student stand side by side, the gain is sure, and nothing was learned of it."""
    evaluation = made.model.manifest.found.evaluation
    assert evaluation is not None
    gain = evaluation.figure("loss", "gain")
    assert gain is not None
    held_out = {part.name: part.rows for part in made.dataset.manifest.found.splits}["held-out"]

    assert evaluation.rows == evaluation.of == held_out >= 8
    assert float(gain.high or 0) < 0
    assert evaluation.overlap.rows == 0
    assert evaluation.overlap.compared == 64 - held_out
    assert evaluation.figure("label-agreement", "student") is not None
    assert "asking base and student" in made.said


def test_its_loss_is_the_one_that_was_measured_while_it_ran(made: Asked) -> None:
    """Two ways to the same number: the trainer's held-out loss and the evaluation's."""
    evaluation = made.model.manifest.found.evaluation
    assert evaluation is not None
    loss = evaluation.figure("loss", "student")
    assert loss is not None
    last = read_held_out(made.trained.folder / "metrics.jsonl")[-1]

    assert float(loss.value) == pytest.approx(last.held_out_loss, abs=2e-3)


def test_bits_a_byte_are_the_loss_of_the_same_words(made: Asked) -> None:
    """The loss a token and the bits a byte differ by tokens, bytes and a logarithm alone."""
    evaluation = made.model.manifest.found.evaluation
    assert evaluation is not None
    loss, bits = (evaluation.figure(name, "student") for name in ("loss", "bits-per-byte"))
    base_loss, base_bits = (
        evaluation.figure(name, "base") for name in ("loss", "bits-per-byte")
    )
    assert loss
    assert bits
    assert base_loss
    assert base_bits
    ratio = float(bits.value) / float(loss.value)

    assert ratio == pytest.approx(float(base_bits.value) / float(base_loss.value), rel=1e-2)
    assert 0 < ratio < 1 / math.log(2)


def test_asked_again_it_says_the_same(made: Asked) -> None:
    """Whoever has folder and datasets gets the signed figures, to the last digit."""
    again = reexamine(retest(made), made.school.sources(), Quiet())

    assert again.evaluation == made.model.manifest.found.evaluation
    assert len(again.samples) == 3


def test_it_answers_as_it_is_served(made: Asked) -> None:
    """The answers of an evaluation, made together, are those it gives when it is served."""
    # Imported here, after collection: it loads the training libraries.
    from gateway.student.serve import load  # noqa: PLC0415

    speak = load(made.trained.folder)
    samples = (made.trained.folder / "samples.jsonl").read_bytes().splitlines()
    assert len(samples) == 3
    for line in map(msgspec.json.decode, samples):
        assert line["student"]
        question = Question(messages=line["prompt"], temperature=0, tokens_max=40)
        spoken = speak(question, lambda _: None, threading.Event())
        assert spoken.text.startswith(line["student"])


def test_a_metric_and_rows_of_ones_own_can_be_asked(made: Asked, tmp_path: Path) -> None:
    """A suite of somebody's own rows is asked like held-out ones, and a metric scores all."""
    suite = tmp_path / "suite.jsonl"
    rows = [a_row(number) for number in range(900, 910)]
    suite.write_bytes(b"\n".join(map(canonical_json, rows)) + b"\n\n")
    asking = Asking(metric="tests.student.test_evaluate:says_tree")
    examined = reexamine(
        retest(made, suite=suite, asking=asking), made.school.sources(), Quiet()
    )
    teacher = examined.evaluation.figure("task", "teacher")

    assert examined.evaluation.rows == 10
    assert teacher is not None
    assert teacher.value == "1.0000"
    assert examined.evaluation.figure("task", "base") is not None


def says_tree(prompt: list[dict[str, Any]], said: str, reference: str) -> float:
    """Score an answer by whether it is one of the two labels."""
    assert prompt[-1]["role"] == "user"
    assert reference
    return float(said in {"tree", "not a tree"})


def test_a_suite_that_was_learned_is_refused(made: Asked, tmp_path: Path) -> None:
    """Rows of one's own that the student learned from say nothing about it."""
    suite = tmp_path / "suite.jsonl"
    lines = (made.dataset.folder / "rows.jsonl").read_bytes().splitlines()[:5]
    suite.write_bytes(b"\n".join(lines))

    with pytest.raises(GateRefusedError, match="5 of 5") as refused:
        reexamine(retest(made, suite=suite), made.school.sources(), Quiet())

    assert refused.value.problem == "student.contaminated"


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b'{"messages":[]}',
        b'{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}',
        b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":""}]}',
        b'{"messages":[{"role":"user"},{"role":"assistant","content":"b"}]}',
        b'{"prompt":"a","answer":"b"}',
    ],
)
def test_a_bad_line_of_a_suite_is_named(made: Asked, tmp_path: Path, line: bytes) -> None:
    """A line that is no row ends it with file and number, before anything is loaded."""
    suite = tmp_path / "suite.jsonl"
    suite.write_bytes(canonical_json(a_row(900)) + b"\n" + line + b"\n")

    with pytest.raises(CallerError, match=r"suite\.jsonl:2: "):
        reexamine(retest(made, suite=suite), made.school.sources(), Quiet())


def test_a_dataset_that_is_not_there_can_not_be_asked(made: Asked, tmp_path: Path) -> None:
    """Without what was learned nobody can tell whether a row was learned."""
    with pytest.raises(GateRefusedError, match="dataset:set of student `parser`") as refused:
        datasets_of(made.model, [tmp_path], made.school.sources())

    assert refused.value.problem == "student.dataset_missing"


def test_what_one_dataset_holds_out_another_does_not_teach(made: Asked) -> None:
    """Rows that the first holds out are not learned from the second either, and are asked."""
    whole = build(made.school, "whole", None)
    student = made.school.train(
        made.dataset,
        recipe_for("tiny", steps=2, batch=16),
        out="second",
        datasets=(made.dataset.folder, whole.folder),
    )
    assert isinstance(student, Trained)
    evaluation, signed = student.manifest.found.evaluation, made.model.manifest.found.evaluation
    assert evaluation is not None
    assert signed is not None

    assert evaluation.sha256 == signed.sha256
    assert evaluation.overlap == signed.overlap


def test_a_copy_that_another_dataset_teaches_in_capitals_is_found(tmp_path: Path) -> None:
    """One held-out prompt that another dataset teaches, spelt alike, ends it before a step."""
    school = School(tmp_path)
    for number in range(24):
        answer(school, number)
    first = build(school, "first", "0.25")
    held_out = msgspec.json.decode(
        (first.folder / "held-out.jsonl").read_bytes().splitlines()[0]
    )
    held_out["messages"][0]["content"] = f" {held_out['messages'][0]['content'].upper()}"
    for number in range(200, 224):
        answer(school, number)
    answer(school, 0, held_out)
    second = build(school, "second", None)
    screen = Quiet()

    with pytest.raises(GateRefusedError, match="1 of ") as refused:
        school.train(
            first,
            recipe_for("tiny", steps=2, batch=16),
            screen,
            datasets=(first.folder, second.folder),
        )
    school.close()

    assert refused.value.problem == "student.contaminated"
    assert "step" not in screen.written.getvalue()


def test_no_folder_is_the_base_of_a_student_that_began_as_none(
    made: Asked, tmp_path: Path
) -> None:
    """What is given as the base and can't be it is refused, and not passed over."""
    with pytest.raises(GateRefusedError, match="leave --base out") as refused:
        reexamine(retest(made, base=tmp_path), made.school.sources(), Quiet())

    assert refused.value.problem == "student.other_base"


def test_what_the_base_learned_is_not_asked(made: Asked, tmp_path: Path) -> None:
    """A row that a base of ours learned ends it; where that can't be seen, it is said."""
    folder, away = made.dataset.folder, tmp_path / "away"
    other = build(made.school, "other", "0.5", seed=1)
    going_on: dict[str, Any] = {"base": str(made.trained.folder), "out": "going-on"}
    recipe, screen = recipe_for("base", steps=2, batch=16), Quiet()
    with pytest.raises(GateRefusedError, match="or that the base learned") as refused:
        made.school.train(other, recipe, **going_on)

    folder.rename(away)
    try:
        student = made.school.train(other, recipe, screen, **going_on)
        assert isinstance(student, Trained)
        model = verify_model(student.folder, TRUST)
        again = Retest(model=model, datasets=(other.folder,), among=(away,), asking=Asking())
        with pytest.raises(GateRefusedError, match="or that the base learned"):
            reexamine(again, made.school.sources(), Quiet())
    finally:
        away.rename(folder)
    evaluation = model.manifest.found.evaluation
    assert evaluation is not None

    assert refused.value.problem == "student.contaminated"
    assert evaluation.overlap.unseen == ("dataset:set",)
    assert "not looked through: dataset:set" in screen.written.getvalue()
    assert "not at hand: dataset:set, from which its base" in (
        (student.folder / "README.md").read_text()
    )


def test_a_copy_in_other_words_around_it_is_found(tmp_path: Path) -> None:
    """Held-out rows whose text another dataset teaches under another prompt end it early."""
    school = School(tmp_path)
    for number in range(24):
        answer(school, number, long_row(number))
    first = build(school, "first", "0.25")
    for number in range(24):
        answer(school, number, long_row(number, before="Once more, please: "))
    second = build(school, "second", None)
    screen = Quiet()

    with pytest.raises(
        GateRefusedError, match="stand among the rows that are learned"
    ) as refused:
        school.train(
            first,
            recipe_for("tiny", steps=2, batch=16),
            screen,
            datasets=(first.folder, second.folder),
        )
    school.close()

    assert refused.value.problem == "student.contaminated"
    assert "step" not in screen.written.getvalue()


def long_row(number: int, before: str = "") -> dict[str, Any]:
    """Return a question of twenty words that no other has."""
    words = (f"{NAMES[(number * at) % 10]}{number * 31 + at}" for at in range(1, 21))
    row = a_row(number)
    row["messages"][0]["content"] = before + " ".join(words)
    return row


class StopsWhenAsked(Quiet):
    """A screen that pulls the plug once the student is asked."""

    def say(self, line: str) -> None:
        """Print a line; ask for an end after the one that says so."""
        super().say(line)
        if line.startswith("asking base"):
            self.stop.set()


def test_a_run_that_is_stopped_while_it_is_asked_goes_on_later(made: Asked) -> None:
    """What was learned is kept; resumed, the student is asked and stands, learning nothing."""
    recipe = recipe_for("tiny", steps=2, batch=16)
    cut = made.school.train(made.dataset, recipe, StopsWhenAsked(), out="third")
    screen = Quiet()
    student = made.school.train(made.dataset, recipe, screen, out="third", resume=True)

    assert isinstance(cut, Interrupted)
    assert (cut.step, cut.steps) == (2, 2)
    assert isinstance(student, Trained)
    assert student.manifest.found.evaluation is not None
    assert "step     " not in screen.written.getvalue()


def test_whoever_asks_nothing_gets_no_figures(made: Asked) -> None:
    """Without an evaluation the manifest holds none, and the folder no words of rows."""
    student = made.school.train(
        made.dataset, recipe_for("tiny", steps=2, batch=16), out="unasked", asking=None
    )
    assert isinstance(student, Trained)
    first = prompt_of(a_row(0))[0]["content"]

    assert student.manifest.found.evaluation is None
    assert not (student.folder / "samples.jsonl").exists()
    assert "Nothing was held out" in (student.folder / "report.html").read_text()
    assert first not in (student.folder / "report.html").read_text()


def test_a_view_that_was_changed_has_its_own_line(made: Asked, tmp_path: Path) -> None:
    """A card, report or bill edited by hand is told from other changed files."""
    for name in ("README.md", "report.html", "bom.cdx.json"):
        path = made.trained.folder / name
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"parser", b"better"))
        with pytest.raises(BadDigestError, match="changed by hand") as changed:
            verify_model(made.trained.folder, TRUST)
        path.write_bytes(whole)
        assert changed.value.problem == "model.view_changed"


def test_the_hub_reads_the_card(made: Asked) -> None:
    """The parser of the hub finds base, datasets, licence and every figure of the student."""
    # Imported here, after collection: it loads what the hub needs.
    from huggingface_hub import ModelCard  # noqa: PLC0415

    data: Any = ModelCard((made.trained.folder / "README.md").read_text()).data
    evaluation = made.model.manifest.found.evaluation
    assert evaluation is not None
    results = {one.metric_type: one for one in data.eval_results or ()}

    assert (data.license, data.license_name) == ("other", "see-teachers")
    assert data.datasets == ["set"]
    assert set(results) == set(evaluation.measures)
    loss = evaluation.figure("loss", "student")
    assert loss is not None
    assert results["loss"].metric_value == float(loss.value)
    assert results["loss"].metric_args["high"] == float(loss.high or 0)
