"""What an attacker does to dataset folders: each attempt is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import BadDigestError
from gateway.student.bases import tiny_base
from gateway.student.gate import StudentGate
from tests.support.student import School


def test_a_trainer_learns_from_the_dataset_that_was_admitted(tmp_path: Path) -> None:
    """Another good dataset, put in the place of the admitted one, teaches nothing."""
    school = School(tmp_path / "school")
    admitted, other = school.dataset(8, name="one"), school.dataset(8, name="two")
    gate = StudentGate(None, tiny_base(1), school.sources())
    admission = gate.admit([admitted.folder])
    admitted.folder.rename(tmp_path / "away")
    other.folder.rename(admitted.folder)

    with pytest.raises(BadDigestError, match="another dataset"):
        list(gate.texts(admission))
    with pytest.raises(BadDigestError, match="another dataset"):
        gate.snapshot(admission, None, tmp_path / "rows", 64)
    school.close()


def test_a_tokenizer_learns_from_rows_that_verify(tmp_path: Path) -> None:
    """A row changed after the dataset was admitted is found before words are learned."""
    school = School(tmp_path / "school")
    built = school.dataset(8)
    gate = StudentGate(None, tiny_base(1), school.sources())
    admission = gate.admit([built.folder])
    rows = built.folder / "rows.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b"amber", b"ambre", 1))

    with pytest.raises(BadDigestError, match="row 0"):
        list(gate.texts(admission))
    school.close()
