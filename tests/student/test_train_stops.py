"""What ends a training before its time, each with one clear line, and what is left then."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from gateway.errors import (
    EvidenceError,
    GateRefusedError,
    MissingPieceError,
    OperatorError,
)
from gateway.ident import Sha256
from gateway.receipt.model import PROVENANCE_TYPE, STATEMENT_TYPE, TRAINING_BUILD
from gateway.receipt.sigstore import write_manifest
from gateway.student.bases import SaidOfBase
from gateway.student.files import file_sha256
from gateway.student.progress import Step
from gateway.student.recipe import recipe_for
from gateway.student.run import Interrupted, StoppedError, Trained
from tests.student.test_evaluate import answer, build
from tests.support import derived
from tests.support.dataset import DAY_MS, a_library, a_policy
from tests.support.evidence import MANIFEST_SIGNER
from tests.support.student import Quiet, School
from tests.support.student import answer as answer_of
from tests.support.tensors import numbered, write_tensors

pytestmark = pytest.mark.student


@pytest.fixture
def school(tmp_path: Path) -> Iterator[School]:
    """Return a school with an empty ledger."""
    school = School(tmp_path)
    yield school
    school.close()


class Meanwhile(Quiet):
    """A screen in front of which somebody acts after the first step."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act

    def step(self, step: Step) -> None:
        """Show a step; after the first, somebody acts."""
        super().step(step)
        if step.step == 1:
            self._act()


def test_a_withdrawal_stops_the_run_at_the_next_checkpoint(school: School) -> None:
    """Withdrawn meanwhile: the run ends at a checkpoint, says by whom, and is not resumed."""
    built = school.dataset(16)
    recipe = recipe_for("tiny", steps=6, batch=8, save_every=2)

    def withdraw() -> None:
        school.house.withdraw(manifest=built.manifest_sha256)

    with pytest.raises(GateRefusedError, match="withdrawn by grace: asked to") as stopped:
        school.train(built, recipe, Meanwhile(withdraw))
    kept = list((school.house.folder / "students").glob(".parser.run/*/*/checkpoint-*"))

    assert stopped.value.problem == "student.withdrawn"
    assert [path.name for path in kept] == ["checkpoint-2"]
    assert (kept[0] / "complete.json").exists()
    with pytest.raises(GateRefusedError, match="withdrawn by grace"):
        school.train(built, recipe, resume=True)
    assert not (school.house.folder / "students" / "parser").exists()


def test_what_was_erased_since_a_dataset_was_built_teaches_nobody(school: School) -> None:
    """A row whose text was erased ends it at the gate: which, and that it is built again."""
    built = school.dataset(16)
    exchange = list(school.house.texts)[5]
    school.house.texts.erase(exchange)

    with pytest.raises(GateRefusedError) as refused:
        school.train(built, recipe_for("tiny", steps=2, batch=8))
    again = school.house.build(school.declaration, "again")
    student = school.train(again, recipe_for("tiny", steps=2, batch=8))

    assert refused.value.problem == "student.erased"
    assert refused.value.message == (
        "1 of 16 rows of dataset `set` may not teach this student: 1 content-erased; "
        f"first row 5, receipt {exchange}"
    )
    assert refused.value.hint.startswith("build the dataset again: `gateway dataset build`")
    assert isinstance(student, Trained)
    assert student.manifest.found.snapshot.rows == 15


@pytest.mark.parametrize("role", ["source", "judge"])
def test_a_row_made_of_what_was_erased_teaches_nobody(
    tmp_path: Path, role: Literal["source", "judge"]
) -> None:
    """Erased above a derived row, whatever its part was, it ends the run at the gate, too."""
    school = School(
        tmp_path, a_library(open=a_policy("open", "permit", when="purpose: [train, verify]"))
    )
    house = school.house
    kept = house.answer(school.declaration, "one")
    gone = house.answer(school.declaration, "two")
    rows = [
        (derived.messages("say one", "to one"), [derived.parent(house, kept)]),
        (
            derived.messages("say two", "to two"),
            [derived.parent(house, kept), derived.parent(house, gone, role=role)],
        ),
    ]
    derived.derive(house, school.declaration, rows, name="made")
    built = derived.build(house, school.declaration, "set", of="made")
    assert built.manifest.found.rows == 2
    house.texts.erase(gone.exchange)

    with pytest.raises(GateRefusedError, match=f"1 parent-erased; .*{gone.exchange}") as no:
        school.train(built, recipe_for("tiny", steps=2, batch=8))
    school.close()

    assert no.value.problem == "student.erased"


def test_an_erasure_stops_the_run_at_the_next_checkpoint(school: School) -> None:
    """Erased meanwhile: the run ends at a checkpoint, learns no step more, is not resumed."""
    built = school.dataset(16)
    recipe = recipe_for("tiny", steps=6, batch=8, save_every=2)
    exchange = list(school.house.texts)[5]

    with pytest.raises(GateRefusedError, match="1 content-erased") as stopped:
        school.train(built, recipe, Meanwhile(lambda: school.house.texts.erase(exchange)))
    kept = list((school.house.folder / "students").glob(".parser.run/*/*/checkpoint-*"))

    assert stopped.value.problem == "student.erased"
    assert [path.name for path in kept] == ["checkpoint-2"]
    with pytest.raises(GateRefusedError, match="1 content-erased"):
        school.train(built, recipe, resume=True)
    assert not (school.house.folder / "students" / "parser").exists()


class Legal(Quiet):
    """A screen in front of which legal writes other policies, once it shows what was named."""

    def __init__(self, school: School, shown: str) -> None:
        super().__init__()
        self._house = school.house
        self._shown = shown

    def say(self, line: str) -> None:
        """Show a line; after the one that was named, the policies are others."""
        super().say(line)
        if line.startswith(self._shown):
            self._house.library = dataclasses.replace(
                self._house.library, digest=Sha256("f" * 64)
            )


@pytest.mark.parametrize(
    ("shown", "kept"), [("stop token", "checkpoint-2"), ("writing and signing", "checkpoint-4")]
)
def test_other_policies_stop_the_run_and_it_goes_on_under_them(
    school: School, shown: str, kept: str
) -> None:
    """Policies that change meanwhile stop it unsigned; resumed, the manifest names the new."""
    built = school.dataset(16)
    recipe = recipe_for("tiny", steps=4, batch=8, save_every=2)
    runs = school.house.folder / "students" / ".parser.run"

    with pytest.raises(GateRefusedError, match="the policies were changed") as stopped:
        school.train(built, recipe, Legal(school, shown))
    marks = [mark.parent.name for mark in runs.glob("checkpoints/*/*/complete.json")]
    signed = (runs / "model" / "manifest.json").exists()
    student = school.train(built, recipe, resume=True)

    assert (stopped.value.problem, signed) == ("student.policies_changed", False)
    assert max(marks) == kept
    assert isinstance(student, Trained)
    assert student.manifest.found.library == "f" * 64


class Stopping(Quiet):
    """A screen in front of which somebody acts, once it shows a line that was named."""

    def __init__(self, shown: str, act: Callable[[], object] | None = None) -> None:
        super().__init__()
        self._shown, self._act = shown, act or self.stop.set

    def say(self, line: str) -> None:
        """Show a line; after the one that was named, the run is told to stop."""
        super().say(line)
        if line.startswith(self._shown):
            self._act()

    @contextlib.contextmanager
    def counting(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Count; a title is a line, too."""
        with super().counting(title) as tick:
            self.say(title)
            yield tick


def test_at_the_gate_it_stops_between_two_rows(school: School) -> None:
    """Told to stop while rows are verified, it reads no row more, and leaves all as it was."""
    built = school.dataset(16)
    recipe = recipe_for("tiny", steps=4, batch=8, save_every=2)
    students = school.house.folder / "students"
    rows = built.folder / "rows.jsonl"
    whole = rows.read_bytes()
    screen, law = Quiet(), school.house.law

    class Ruling:
        """Policies under which somebody asks for an end as soon as they are asked."""

        def rule(self, *asked: Any) -> Any:
            screen.stop.set()
            return law.rule(*asked)

    def stopped(*, resume: bool) -> None:
        screen.stop.clear()
        school.house.law = Ruling()  # type: ignore[assignment]  # all that a gate asks for
        # Whoever reads as far as the last row finds it changed.
        rows.write_bytes(whole.replace(answer_of(15).encode(), answer_of(14).encode()))
        with pytest.raises(StoppedError):
            school.train(built, recipe, screen, resume=resume)
        school.house.law = law
        rows.write_bytes(whole)

    stopped(resume=False)
    assert not students.exists()
    cut = school.train(built, recipe, Quiet(stop_at=2))
    assert isinstance(cut, Interrupted)
    before = {path: path.read_bytes() for path in cut.folder.rglob("*") if path.is_file()}
    stopped(resume=True)
    after = {path: path.read_bytes() for path in cut.folder.rglob("*") if path.is_file()}
    student = school.train(built, recipe, resume=True)

    assert before == after
    assert isinstance(student, Trained)


@pytest.mark.parametrize("when", ["at a checkpoint", "before it is signed"])
def test_where_the_gate_is_asked_again_it_stops_between_two_rows(
    school: School, when: str
) -> None:
    """Told to stop while rows are ruled on once more, it stops; what it learned is kept."""
    built = school.dataset(16)
    recipe = recipe_for("tiny", steps=4, batch=8, save_every=2)
    law = school.house.law
    screen = Meanwhile(lambda: None)

    class Ruling:
        """Policies under which somebody asks for an end as soon as they are asked."""

        def rule(self, *asked: Any) -> Any:
            screen.stop.set()
            return law.rule(*asked)

    def from_now_on() -> None:
        school.house.law = Ruling()  # type: ignore[assignment]  # all that a gate asks for
        school.house.clock.move_ms(DAY_MS)

    if when == "at a checkpoint":
        screen = Meanwhile(from_now_on)
        steps = 3
    else:
        screen = Stopping("writing and signing", from_now_on)  # type: ignore[assignment]
        steps = 4
    cut = school.train(built, recipe, screen)
    school.house.law = law
    assert isinstance(cut, Interrupted)
    student = school.train(built, recipe, resume=True)

    assert (cut.step, cut.steps) == (steps, 4)
    assert isinstance(student, Trained)


@pytest.mark.parametrize("held_out", ["0.25", None])
def test_whoever_is_told_to_stop_stops_and_nothing_is_made_twice(
    school: School, held_out: str | None
) -> None:
    """Whatever is under way: it ends, says whether anything is kept, and goes on from there."""
    for number in range(24):
        answer(school, number)
    built = build(school, "set", held_out)
    recipe = recipe_for("tiny", steps=2, batch=8)
    students = school.house.folder / "students"
    size = school.house.ledger.head().size

    def stopped(shown: str, *, resume: bool = True) -> tuple[int, int, bool]:
        cut = school.train(built, recipe, Stopping(shown), resume=resume)
        assert isinstance(cut, Interrupted)
        assert not (students / "parser").exists()
        return cut.step, cut.steps, cut.kept

    assert stopped("gate: ", resume=False) == (0, 0, False)
    assert stopped("loading the training", resume=False) == (0, 0, False)
    assert [] == list(students.iterdir())
    assert stopped("stop token trained", resume=False) == (0, 2, True)
    assert stopped("loading the training") == (0, 0, True)
    if held_out is not None:
        assert stopped("asking base and student") == (2, 2, True)
    assert stopped("writing and signing") == (2, 2, True)
    gone = built.folder.with_name("gone")
    away = Stopping("writing and signing", lambda: built.folder.rename(gone))
    with pytest.raises(
        MissingPieceError, match=r"set/manifest\.json` can't be read"
    ) as missing:
        school.train(built, recipe, away, resume=True)
    with pytest.raises(EvidenceError, match="is no dataset folder"):
        school.train(built, recipe, resume=True)
    gone.rename(built.folder)
    student = school.train(built, recipe, resume=True)

    assert missing.value.hint == "put it back, then go on with --resume"
    assert isinstance(student, Trained)
    assert (student.manifest.found.steps, school.house.ledger.head().size) == (2, size + 1)


def a_base(folder: Path, licence: str | None) -> Path:
    """Make what looks like a checkpoint to the gate; nobody loads it."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    write_tensors(folder / "model.safetensors", [numbered(1)])
    if licence is not None:
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    return folder


@pytest.mark.parametrize(
    ("licence", "said", "problem", "told"),
    [
        (None, None, "student.base_licence_unknown", "nobody says under which licence"),
        ("unheard-of-1.0", None, "student.base_licence_refused", "unheard-of-1.0"),
        (None, "unheard-of-1.0", "student.base_licence_refused", "unheard-of-1.0"),
        ("open", "mit", "student.base_licence_differs", "ada says `mit`"),
    ],
)
def test_a_base_needs_a_licence_that_allows_the_use(
    school: School,
    tmp_path: Path,
    licence: str | None,
    said: str | None,
    problem: str,
    told: str,
) -> None:
    """A base is ruled on under its licence; unknown, unread or contradicted it is refused."""
    built = school.dataset(2)
    base = a_base(tmp_path / "base", licence)

    with pytest.raises(GateRefusedError, match=told) as refused:
        school.train(
            built,
            recipe_for("base"),
            base=str(base),
            said_of_base=None if said is None else SaidOfBase(licence=said, by="ada"),
        )

    assert refused.value.problem == problem


def test_weights_of_a_student_among_others_are_no_base_from_outside(
    school: School, tmp_path: Path
) -> None:
    """A file of a student of ours beside another's: of the rest nobody says what it is."""
    built = school.dataset(2)
    base = a_base(tmp_path / "base", "open")
    weights = base / "model.safetensors"
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": "one.safetensors", "digest": {"sha256": file_sha256(weights)}},
            {"name": "two.safetensors", "digest": {"sha256": "a" * 64}},
        ],
        "predicateType": PROVENANCE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": TRAINING_BUILD,
                "externalParameters": {"student": "elder"},
                "internalParameters": {},
                "resolvedDependencies": [],
            },
            "runDetails": {"metadata": {"finishedOn": "2026-11-22T00:00:00.000Z"}},
        },
    }
    school.house.append(write_manifest(statement, MANIFEST_SIGNER)[1])

    with pytest.raises(GateRefusedError, match="weights of our student `elder`") as refused:
        school.train(built, recipe_for("base"), base=str(base))

    assert "student.base_relabelled" == refused.value.problem


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Refuse to write more than *size* bytes into any file, as a disk without room would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_at_a_checkpoint_is_one_line_and_the_run_goes_on_after(
    school: School,
) -> None:
    """No checkpoint half written counts; with room again, the run goes on and ends."""
    built = school.dataset(16)
    recipe = recipe_for("tiny", steps=4, batch=8, save_every=2)

    with (
        files_of_at_most(500_000),
        pytest.raises(OperatorError, match=r"a checkpoint in .* can't be written") as full,
    ):
        school.train(built, recipe)
    runs = school.house.folder / "students" / ".parser.run"
    marks = list(runs.glob("checkpoints/*/*/complete.json"))
    student = school.train(built, recipe, resume=True)

    assert (full.value.problem, full.value.hint) == (
        "disk.unwell",
        "make room there, then go on with --resume",
    )
    assert "\n" not in str(full.value)
    assert marks == []
    assert isinstance(student, Trained)
    assert student.manifest.found.steps == 4
