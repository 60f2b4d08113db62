"""What an attacker does to dataset folders: each attempt is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.dataset.manifest import KEYS, MANIFEST, PROOF, RECEIPTS, ROWS, SPANS
from gateway.dataset.verification.verify import verify_dataset
from gateway.errors import BadDigestError, EvidenceError
from gateway.student.bases import tiny_base
from gateway.student.corpus import Corpus, Shape
from gateway.student.gate import StudentGate
from tests.support.dataset import House
from tests.support.evidence import TRUST
from tests.support.forger import log_again
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
        gate.snapshot(admission, Corpus(tmp_path, None, Shape("sft", 64)))
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


# -- an exporter who signs and logs what they like ------------------------------------------


def built(folder: Path) -> tuple[House, Path]:
    """Return a house, and a dataset of three receipts with two rows each."""
    house = House(folder / "house")
    declaration = house.declare()
    for number in range(3):
        house.answer(declaration, f"one {number}", f"two {number}")
    return house, house.build(declaration).folder


def the_last_row_twice(folder: Path) -> None:
    """Add the last row once more, by the same receipt."""
    with (folder / ROWS).open("r+b") as rows:
        rows.write(rows.readlines()[-1])
    with (folder / RECEIPTS).open("r+b") as receipts:
        lines = receipts.readlines()
        again = json.loads(lines[-1]) | {"row": len(lines)}
        receipts.write(msgspec.json.encode(again, order="sorted") + b"\n")


def rows_swapped(folder: Path) -> None:
    """Let two rows change places between their receipts."""
    lines = (folder / ROWS).read_bytes().splitlines(keepends=True)
    (folder / ROWS).write_bytes(b"".join([lines[2], lines[1], lines[0], *lines[3:]]))


def no_keys(folder: Path) -> None:
    """Leave out who authorised the receipts' key."""
    (folder / KEYS).write_bytes(b"")


def a_long_line(name: str) -> Callable[[Path], None]:
    """Return what lets *name* be one line without an end."""
    return lambda folder: os.truncate(folder / name, 64 << 20)


def spans_at(**place: Any) -> Callable[[Path], None]:
    """Return what lets rows begin at an impossible *place*."""

    def edit(folder: Path) -> None:
        with (folder / SPANS).open("r+b") as spans:
            first = json.loads(spans.readlines()[0])
            spans.write(msgspec.json.encode(first | {"row": 2} | place, order="sorted"))

    return edit


def beyond_the_log(folder: Path) -> None:
    """Let the first rows be by a leaf that the log does not have."""
    said = [json.loads(line) for line in (folder / RECEIPTS).read_bytes().splitlines()]
    first = json.loads((folder / SPANS).read_bytes()) | {"index": 300}
    for line in said[:2]:
        line["index"] = 300
    for name, lines in (
        (RECEIPTS, said),
        (SPANS, [first, first | {"index": 301, "row": 2}]),
    ):
        encoded = [msgspec.json.encode(line, order="sorted") + b"\n" for line in lines]
        (folder / name).write_bytes(b"".join(encoded))


@pytest.mark.parametrize(
    "edit",
    [
        the_last_row_twice,
        rows_swapped,
        no_keys,
        beyond_the_log,
        a_long_line(ROWS),
        a_long_line(KEYS),
        a_long_line(SPANS),
        spans_at(index=-1),
        spans_at(index=9, leaves=-1),
        spans_at(index=9, rows=2**70),
        spans_at(index=9, tiles=[-8]),
    ],
    ids=[
        "row twice",
        "rows swapped",
        "no keys",
        "beyond the log",
        "long row",
        "long key line",
        "long span",
        "leaf -1",
        "leaves at -1",
        "rows at 2^70",
        "tiles at -8",
    ],
)
def test_signed_and_logged_is_not_enough(tmp_path: Path, edit: Callable[[Path], None]) -> None:
    """Files that don't fit the receipts are refused, whoever vouches for them."""
    house, folder = built(tmp_path)
    log_again(house, folder)
    assert verify_dataset(folder, TRUST).rows == 6
    edit(folder)
    log_again(house, folder)

    with pytest.raises(EvidenceError):
        verify_dataset(folder, TRUST)
    house.close()


def more_receipts(statement: Any) -> None:
    """Claim one receipt more of a teacher than there are."""
    found = statement["predicate"]["buildDefinition"]["internalParameters"]
    found["teachers"][0]["receipts"] += 1


def nothing_as_a_dependency(statement: Any) -> None:
    """Name a number where a dependency should be."""
    statement["predicate"]["buildDefinition"]["resolvedDependencies"] = [1]


@pytest.mark.parametrize("edit", [more_receipts, nothing_as_a_dependency])
def test_a_manifest_can_t_say_what_the_receipts_don_t(
    tmp_path: Path, edit: Callable[[Any], None]
) -> None:
    """What a logged manifest claims is counted, and what it can't claim is refused."""
    house, folder = built(tmp_path)
    log_again(house, folder, edit)

    with pytest.raises(EvidenceError):
        verify_dataset(folder, TRUST)
    house.close()


@pytest.mark.parametrize("name", [MANIFEST, PROOF])
def test_a_pipe_in_a_folder_makes_nobody_wait(tmp_path: Path, name: str) -> None:
    """What is read first is a plain file, or it is refused."""
    house, folder = built(tmp_path)
    (folder / name).unlink()
    os.mkfifo(folder / name)

    with pytest.raises(EvidenceError, match="not a plain file"):
        verify_dataset(folder, TRUST)
    house.close()
