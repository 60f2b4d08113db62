"""What a student may be used for follows from everyone above it, stage by stage."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.dataset.ruling import PolicyLaw
from gateway.errors import EvidenceError, GateRefusedError
from gateway.ident import Sha256
from gateway.student.gate import StudentGate
from gateway.student.manifest import Base
from gateway.student.recipe import recipe_for
from gateway.student.run import Trained
from gateway.student.verify import verify_model
from tests.support.dataset import DAY_MS, a_library, a_policy
from tests.support.evidence import AGREEMENT, TRUST
from tests.support.student import School

pytestmark = pytest.mark.student

SHORT = recipe_for("tiny", steps=2, batch=8)


@pytest.fixture
def school(tmp_path: Path) -> Iterator[School]:
    """Return a school with an empty ledger."""
    school = School(tmp_path)
    yield school
    school.close()


def first_stage(school: School) -> Trained:
    """Train a student from a closed teacher."""
    student = school.train(school.dataset(8), SHORT)
    assert isinstance(student, Trained)
    return student


def test_a_second_stage_names_the_teachers_of_its_teacher(school: School) -> None:
    """A student taught by a student lists whoever taught that one, with their duties."""
    first = first_stage(school)
    declaration = school.house.declare(student="writer", project="other")
    for number in range(8):
        school.house.answer(
            declaration,
            f"word {number}",
            provider="own",
            manifest=first.payload_sha256,
            policies=("open", "own"),
        )
    second = school.train(school.house.build(declaration, "second"), SHORT, out="writer")
    assert isinstance(second, Trained)
    found = verify_model(second.folder, TRUST).manifest.found

    assert [teacher.manifest for teacher in found.teachers] == [first.payload_sha256]
    assert [teacher.provider for teacher in found.above] == ["open"]
    assert found.obligations == ("keep-ai-label",)


def test_a_base_of_ours_is_a_parent_with_all_its_teachers(school: School) -> None:
    """Going on from a student of ours keeps it, and what taught it, in the lineage."""
    first = first_stage(school)
    built = school.house.build(school.declaration, "again")
    second = school.train(built, SHORT, base=str(first.folder), out="second")
    assert isinstance(second, Trained)
    manifest = verify_model(second.folder, TRUST).manifest

    assert manifest.asked.base.manifest == first.payload_sha256
    assert [teacher.provider for teacher in manifest.found.above] == ["open"]
    assert first.payload_sha256 in {
        parent.digest["sha256"]
        for parent in manifest.dependencies
        if parent.kind == "training-manifest"
    }


def test_a_row_in_two_datasets_is_learned_once(school: School) -> None:
    """The same answer in a second dataset is left out and counted."""
    first, second = school.dataset(8), school.house.build(school.declaration, "again")
    student = school.train(first, SHORT, datasets=(first.folder, second.folder))
    assert isinstance(student, Trained)
    snapshot = verify_model(student.folder, TRUST).manifest.found.snapshot

    assert snapshot.rows == 8
    assert [(one.reason, one.count) for one in snapshot.left_out] == [("repeated", 8)]


def test_what_was_withdrawn_above_a_base_ends_it(school: School) -> None:
    """A base that learned from something that was withdrawn since is no base any more."""
    first = first_stage(school)
    taught = first.manifest.dependencies[0].digest["sha256"]
    school.house.withdraw(manifest=taught)
    built = school.house.build(school.declaration, "again")

    with pytest.raises(GateRefusedError, match="comes from was withdrawn"):
        school.train(built, SHORT, base=str(first.folder), out="second")


@pytest.mark.parametrize("how", ["expired", "withdrawn"])
def test_a_dataset_of_an_agreement_that_ended_teaches_nobody(how: str, school: School) -> None:
    """It was built while the agreement stood; whoever trains on it is asked on the day."""
    house = school.house
    today = dt.date.fromisoformat(house.now[:10])
    house.state(msgspec.structs.replace(AGREEMENT, expires=today.isoformat()))
    receipt = house.receipt(school.declaration, "a word", provider="held")
    ruling = msgspec.structs.replace(receipt.ruling, agreements=("order-7",))
    house.state(msgspec.structs.replace(receipt, ruling=ruling))
    built = house.build(school.declaration)
    base = Base(kind="tiny", name="tiny", sha256=Sha256("ab" * 32))
    admitted = StudentGate(None, base, school.sources()).admit([built.folder])
    if how == "expired":
        house.clock.move_ms(DAY_MS)
    else:
        house.withdraw(agreement="order-7")

    assert ("order-7",) == admitted.teachers[0].agreements
    with pytest.raises(GateRefusedError, match="terms-hold-use"):
        StudentGate(None, base, school.sources()).admit([built.folder])


@pytest.mark.parametrize("duty", ["keep-on-platform", "no-cache"])
def test_a_base_whose_teachers_let_nobody_learn_any_more_is_none(
    duty: str, school: School
) -> None:
    """A duty that came since bars the base as it bars what the teacher answered."""
    house, first = school.house, first_stage(school)
    since = a_library(open=a_policy("open", "permit", obligations=duty))
    house.law = PolicyLaw(since, house.register)
    for number in range(8):
        house.answer(school.declaration, f"word {number}", provider="own")
    built = house.build(school.declaration, "again")

    with pytest.raises(GateRefusedError, match="teachers of base"):
        school.train(built, SHORT, base=str(first.folder), out="second")


def test_a_base_of_ours_must_verify(school: School) -> None:
    """A student whose weights were changed is nothing to begin with."""
    first = first_stage(school)
    (first.folder / "config.json").write_text("{}")
    built = school.house.build(school.declaration, "again")

    with pytest.raises(EvidenceError, match=r"config\.json"):
        school.train(built, SHORT, base=str(first.folder), out="second")


def test_what_is_withdrawn_while_it_is_learned_ends_it_unsigned(school: School) -> None:
    """Between the first step and the signature the gate is asked again."""
    built = school.dataset(8)
    size = school.house.ledger.head().size
    asked: list[None] = []
    sources = school.sources

    def withdrawn_later() -> object:
        asked.append(None)
        if len(asked) == 2:
            school.house.withdraw(declaration=school.declaration.id)
        return sources()

    school.sources = withdrawn_later  # type: ignore[method-assign, assignment]  # the world changes

    with pytest.raises(GateRefusedError, match="was withdrawn"):
        school.train(built, SHORT)

    assert school.house.ledger.head().size == size + 1
    assert not (school.house.folder / "students" / "parser").exists()
