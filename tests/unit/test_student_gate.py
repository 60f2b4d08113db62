"""What a trainer may be given: rows made of others, parts, kinds, feeds, and what changes."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.dataset.verification.verify import NoDatasetError
from gateway.errors import BadDigestError, EvidenceError, GateRefusedError
from gateway.lineage.folders import payload_in
from gateway.student.bases import tiny_base
from gateway.student.corpus import Corpus, Shape
from gateway.student.gate import StudentGate
from tests.support.dataset import House, a_library, a_policy
from tests.support.derived import Made, build, derive, messages, parent, preference
from tests.support.evidence import AGREEMENT
from tests.support.student import School


@pytest.fixture
def school(tmp_path: Path) -> Iterator[School]:
    """Return a school without any dataset yet."""
    school = School(tmp_path / "school")
    yield school
    school.close()


def gate_of(school: School, **changes: object) -> StudentGate:
    """Return a gate that reads what is said now."""
    sources = dataclasses.replace(school.sources(), **changes)  # type: ignore[arg-type]
    return StudentGate(None, tiny_base(1), sources)


def rewritten(house: House, school: School, row: str = "row", name: str = "rewrite") -> Made:
    """Append answers, and rows made of them."""
    answers = [house.answer(school.declaration, f"answer {at}") for at in range(6)]
    rows = [
        (messages(f"question {at} of {at * 13} words", f"{row} {at}"), [parent(house, one)])
        for at, one in enumerate(answers)
    ]
    return derive(house, school.declaration, rows, name=name)


def test_derived_rows_teach_and_held_out_ones_measure(school: School) -> None:
    """Rows to train on give their words, the others are for measuring, and none is both."""
    rewritten(school.house, school)
    built = build(school.house, school.declaration, of="rewrite", held_out="0.4")
    gate = gate_of(school)
    admitted = gate.admit([built.folder])
    learned = [row["messages"][1]["content"] for row in gate.texts(admitted)]
    measured = [row.messages[1]["content"] for row in gate.held_out(admitted)]

    assert {f"row {at}" for at in range(6)} == {*learned, *measured}
    assert set() == {*learned} & {*measured}
    assert [len(learned), len(measured)] == [
        split.rows for split in built.manifest.found.splits
    ]


def test_a_held_out_row_changed_after_it_was_admitted_measures_nothing(school: School) -> None:
    """What a student is measured with is verified like what it learns from."""
    rewritten(school.house, school)
    built = build(school.house, school.declaration, of="rewrite", held_out="0.4")
    gate = gate_of(school)
    admitted = gate.admit([built.folder])
    held_out = built.folder / "held-out.jsonl"
    held_out.write_bytes(held_out.read_bytes().replace(b"row", b"raw", 1))

    with pytest.raises(BadDigestError, match=r"held-out\.jsonl: row"):
        list(gate.held_out(admitted))


def test_a_row_falls_with_what_it_was_made_from(school: School) -> None:
    """Where an answer above a row is withdrawn, the row teaches nobody any more."""
    house = school.house
    answer = house.answer(school.declaration, "an answer")
    first = derive(
        house, school.declaration, [(messages("a", "b"), [parent(house, answer)])], name="tidy"
    )
    derive(house, school.declaration, [(messages("c", "d"), [parent(house, first)])])
    built = build(house, school.declaration, of="rewrite")
    gate_of(school).admit([built.folder])
    house.withdraw(exchange=answer.exchange)

    # Where nobody keeps an index of what was made of what, the rows tell.
    with pytest.raises(GateRefusedError, match="1 withdrawn; first row 0, derivation d-"):
        gate_of(school, words=house.register).admit([built.folder])


def test_the_kind_of_rows_is_that_of_the_objective(school: School) -> None:
    """Pairs teach no student that learns from conversations: one line says what to build."""
    house = school.house
    better, worse = (house.answer(school.declaration, text) for text in ("good", "bad"))
    pair = preference("which?", "good", "bad")
    above = [parent(house, better, "chosen"), parent(house, worse, "rejected")]
    derive(house, school.declaration, [(pair, above)], name="pairs", kind="preference")
    built = build(house, school.declaration, of="pairs", kind="preference")

    with pytest.raises(GateRefusedError) as refused:
        gate_of(school).admit([built.folder])

    assert "student.wrong_kind" == refused.value.problem


def test_prompts_that_another_dataset_holds_out_are_not_learned(
    school: School, tmp_path: Path
) -> None:
    """What one dataset keeps apart is left out of what the others teach the same student."""
    rewritten(school.house, school)
    apart = build(school.house, school.declaration, "apart", of="rewrite", held_out="0.4")
    rewritten(school.house, school, "other row", "again")
    whole = build(school.house, school.declaration, "whole", of="again")
    gate = gate_of(school)
    admitted = gate.admit([apart.folder, whole.folder])
    corpus = Counting(tmp_path, None, Shape("sft", 64))

    with pytest.raises(GateRefusedError, match="no row is left"):
        gate.snapshot(admitted, corpus)

    _, held_out = apart.manifest.found.splits
    assert held_out.rows == corpus.held_out == corpus.reasons.count("held-out")
    assert 12 - 2 * held_out.rows == corpus.learned


class Counting(Corpus):
    """Counts what it is given, and writes nothing."""

    learned = held_out = 0

    def begin(self) -> None:
        """Begin nothing."""
        self.reasons: list[str] = getattr(self, "reasons", [])

    def leave_out(self, reason: str) -> None:
        """Remember the reason."""
        self.reasons.append(reason)

    def take(self, row: object, receipt: str, *, held_out: bool = False) -> None:
        """Count the row."""
        self.held_out += held_out
        self.learned += not held_out


# -- while a run is under way -----------------------------------------------------------------


def test_what_stands_still_stands(school: School) -> None:
    """While nobody says anything, what was admitted is admitted, and not read again."""
    built = school.dataset(4)
    admitted = gate_of(school).admit([built.folder])
    (built.folder / "rows.jsonl").rename(built.folder / "away")

    assert admitted is gate_of(school).still(admitted)


@pytest.mark.parametrize("what", ["manifest", "declaration"])
def test_a_withdrawal_ends_what_was_admitted(school: School, what: str) -> None:
    """Whoever withdraws a dataset, or its declaration, is heard at the next question."""
    built = school.dataset(4)
    admitted = gate_of(school).admit([built.folder])
    subject = built.manifest_sha256 if what == "manifest" else school.declaration.id
    school.house.withdraw(**{what: subject})

    with pytest.raises(GateRefusedError) as refused:
        gate_of(school).still(admitted)

    assert "student.withdrawn" == refused.value.problem


def test_a_no_to_the_declaration_ends_what_was_admitted(school: School) -> None:
    """A verdict that comes while a student learns counts."""
    built = school.dataset(4)
    admitted = gate_of(school).admit([built.folder])
    school.house.decline(school.declaration)

    with pytest.raises(GateRefusedError, match="was declined by grace: read it"):
        gate_of(school).still(admitted)


def test_other_policies_are_asked_again(school: School) -> None:
    """Where the policies are others than then, every row is ruled on again."""
    built = school.dataset(4)
    admitted = gate_of(school).admit([built.folder])
    looser = a_library(more=a_policy("more", "permit"))

    again = gate_of(school, library=looser.digest).still(admitted)

    assert again is not admitted
    assert (admitted.use, looser.digest) == (again.use, again.library)
    (built.folder / "rows.jsonl").write_bytes(b"")
    with pytest.raises(EvidenceError):
        gate_of(school, library=looser.digest).still(admitted)


def test_an_agreement_that_ends_is_asked_about(school: School) -> None:
    """Rows may have needed what an agreement lifted: when it ends all are ruled on again."""
    house, register = school.house, school.house.register
    built = school.dataset(4)
    house.state(AGREEMENT)
    admitted = gate_of(school, lifted=register.lifted).admit([built.folder])

    assert admitted is gate_of(school, lifted=register.lifted).still(admitted)
    house.withdraw(agreement=AGREEMENT.agreement)

    again = gate_of(school, lifted=register.lifted).still(admitted)
    assert again is not admitted


def test_a_fault_names_the_folder_that_it_is_in(school: School, tmp_path: Path) -> None:
    """Of several datasets, that which does not verify is named, and what to do about it."""
    whole = school.dataset(2).folder
    harms: dict[str, Callable[[Path], object]] = {
        "signature.bad": lambda at: _replaced(at / "manifest.json", b"payload", b"paylaod", 2),
        "receipt.malformed": lambda at: (at / "manifest.json").write_bytes(b"{}"),
        "dataset.file_missing": lambda at: (at / "rows.jsonl").unlink(),
        "dataset.file_changed": lambda at: (at / "README.md").write_bytes(b"# mine"),
    }
    for problem, harm in harms.items():
        broken = tmp_path / problem
        shutil.copytree(whole, broken)
        harm(broken)
        with pytest.raises(EvidenceError, match=f"{broken}: ") as refused:
            gate_of(school).admit([whole, broken])

        assert refused.value.hint
        assert refused.value.problem in {problem, "receipt.malformed"}


def _replaced(path: Path, old: bytes, new: bytes, count: int) -> None:
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, count))


def test_a_pipe_is_no_manifest(school: School, tmp_path: Path) -> None:
    """Nobody waits for what a pipe in the manifest's place might say."""
    os.mkfifo(tmp_path / "manifest.json")

    with pytest.raises(NoDatasetError, match="is no file"):
        gate_of(school).admit([tmp_path])
    assert payload_in(tmp_path) is None
