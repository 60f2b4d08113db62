"""A disk without room, at each thing that is written after the last step: one line, no loss."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.evaluate import _write
from gateway.errors import OperatorError
from gateway.receipt.envelope import Signer
from gateway.student.progress import read_metrics
from gateway.student.recipe import recipe_for
from gateway.student.run import Order, Rooms, Trained
from gateway.student.train import plan_training, train_student
from gateway.student.verify import verify_model
from tests.student.test_evaluate import answer, build
from tests.support.evidence import TRUST
from tests.support.student import Quiet, School

pytestmark = pytest.mark.student

RECIPE = recipe_for("tiny", steps=2, batch=8)


class Disk:
    """The disk of this process: full from a moment on, with room for small files perhaps."""

    def fill(self, room: int = 0) -> None:
        """Refuse to write more than *room* bytes into any file from here on."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """Have room again after the block."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Filling(Quiet):
    """A screen in front of which the disk fills up, once it shows a line that was named."""

    def __init__(self, shown: str, fill: Callable[[], None]) -> None:
        super().__init__()
        self._shown, self._fill = shown, fill

    def say(self, line: str) -> None:
        """Show a line; after the one that was named, the disk is full."""
        super().say(line)
        if line.startswith(self._shown):
            self._fill()


class FillingSigner:
    """A signer that signs, and by the time its *nth* signature is there the disk is full."""

    def __init__(self, signer: Signer, nth: int, fill: Callable[[], None]) -> None:
        self._signer, self._left, self._fill = signer, nth, fill

    @property
    def keyid(self) -> str:
        """Return the id of the key."""
        return self._signer.keyid

    def sign(self, message: bytes) -> bytes:
        """Return the signature over *message*."""
        self._left -= 1
        if not self._left:
            self._fill()
        return self._signer.sign(message)


@dataclasses.dataclass(frozen=True)
class Case:
    """When the disk fills up, and with how much room for each file."""

    name: str
    shown: str = ""
    signature: int = 0
    proof: bool = False
    room: int = 0

    def run(self, school: School, order: Order, disk: Disk) -> None:
        """Train with *order* on a disk that fills up."""

        def fill() -> None:
            disk.fill(self.room)

        def prove(index: int) -> Any:
            proof = rooms.prove(index)
            fill()
            return proof

        rooms: Rooms = school.rooms()
        filling = dataclasses.replace(
            rooms,
            signer=FillingSigner(rooms.signer, self.signature, fill),
            prove=prove if self.proof else rooms.prove,
        )
        screen = Filling(self.shown or "never", fill)
        with disk.emptied():
            train_student(order, filling, screen, screen.stop)


CASES = (
    Case("token rows", shown="loading the training libraries"),
    Case("words of the run", shown="one row as the student", room=3_000),
    Case("metrics", shown="stop token trained"),
    Case("weights", shown="writing and signing", room=20_000),
    Case("shape", shown="writing and signing"),
    Case("views", shown="asking base and student"),
    Case("manifest", signature=1),
    Case("proof", proof=True),
    Case("signature of the weights", signature=1),
)
"""In the order of a run: each begins where the one before broke off."""


@pytest.fixture
def school(tmp_path: Path) -> Iterator[School]:
    """Return a school with an empty ledger."""
    school = School(tmp_path)
    yield school
    school.close()


def test_a_full_disk_anywhere_is_one_line_and_the_run_goes_on_after(school: School) -> None:
    """Wherever room runs out, one line says so; nothing is lost, half there, or made twice."""
    for number in range(24):
        answer(school, number)
    built = build(school, "set", "0.25")
    place = school.house.folder / "students" / "parser"
    run, disk = place.parent / ".parser.run", Disk()
    order = Order(datasets=(built.folder,), base="tiny", recipe=RECIPE, place=lambda _: place)
    before = school.house.ledger.head().size
    for case in CASES:
        begun = (run / "run.json").exists()
        with pytest.raises(OperatorError) as full:
            case.run(school, dataclasses.replace(order, resume=begun), disk)

        assert full.value.problem == "disk.unwell", case.name
        assert "\n" not in str(full.value), case.name
        hint = "go on with --resume" if (run / "run.json").exists() else "begin anew"
        assert full.value.hint == f"make room there, then {hint}", case.name
        assert not place.exists(), case.name
    quiet = Quiet()
    student = train_student(
        dataclasses.replace(order, resume=True), school.rooms(), quiet, quiet.stop
    )

    assert isinstance(student, Trained)
    assert "steps of" not in quiet.written.getvalue()
    assert [step.step for step in read_metrics(place / "metrics.jsonl")] == [1, 2]
    assert verify_model(place, TRUST).manifest == student.manifest
    assert school.house.ledger.head().size == before + 1
    assert not run.exists()


def test_a_page_is_whole_or_the_one_before(tmp_path: Path) -> None:
    """Where there is no room for a page of figures the old one stays, and nothing else."""
    page, disk = tmp_path / "page.html", Disk()
    page.write_text("before")
    with disk.emptied():
        disk.fill(10)
        with pytest.raises(OperatorError, match=r"page\.html` can't be written"):
            _write(page, "a longer page")

    assert ["before"] == [path.read_text() for path in tmp_path.iterdir()]


def test_a_full_disk_at_a_plan_is_one_line(school: School) -> None:
    """A plan writes token rows where temporary files go; without room there it says so."""
    built = school.dataset(4)
    order = Order(
        datasets=(built.folder,), base="tiny", recipe=RECIPE, place=lambda _: Path("nowhere")
    )
    disk = Disk()
    with disk.emptied(), pytest.raises(OperatorError, match="the plan needs room") as full:
        plan_training(order, school.rooms(), Filling("gate: ", disk.fill))

    assert full.value.problem == "disk.unwell"
