"""Laws of what fsck knows of rows and datasets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec
import pytest

from gateway.dataset.assembly.marks import Marks
from gateway.dataset.assembly.members import members_of
from gateway.dataset.manifest import Findings, MembersFacts
from gateway.ident import Sha256
from gateway.ledger.custody.fsck import Report, fsck
from gateway.receipt.model import DATASET_BUILD, PROVENANCE_TYPE, STATEMENT_TYPE, Derivation
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import payload_sha256
from tests.support.pipeline import Works, messages, works_in


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    """Return an installation in which rows were made of answers and of rows."""
    with works_in(tmp_path_factory.mktemp("works")) as works:
        declared = works.declare()
        first, second = works.answer(declared), works.answer(declared)
        pipeline = works.pipeline(declared)
        with pipeline.transform("clean", version="1", kind="rewrite") as step:
            below = step.row(messages("q", "a"), first)
            step.row(messages("q", "b"), [below, second])
        yield works


def checked(works: Works) -> Report:
    """Return what fsck finds."""
    house = works.house
    house.reader.catch_up()
    return fsck(house.store, house.keyring.trust, index=house.index)


def codes(works: Works, since: int) -> set[str]:
    """Return the codes of what fsck finds from a leaf on; tests before left others."""
    return {one.code for one in checked(works).findings if (one.index or 0) >= since}


def good(works: Works) -> Derivation:
    """Return the derivation in which nothing is wrong."""
    return works.derivations()[1][1]


def test_what_a_pipeline_records_is_clean(works: Works) -> None:
    """Derivations are counted, and nothing is found of them."""
    report = checked(works)
    wrong = {finding.index for finding in report.findings}

    assert report.kinds["derivation"] >= 2
    assert set() == wrong & {index for index, _ in works.derivations()[:2]}


@pytest.mark.parametrize(
    "changes",
    [
        {"index": 10**6},
        {"index": -1},
        {"index": 0},
        {"choice": 7},
        {"exchange": None},
        {"manifest": Sha256("a" * 64)},
    ],
)
def test_a_parent_stands_before_and_is_what_it_is_said_to_be(
    works: Works, changes: dict[str, object]
) -> None:
    """A parent that is not there, or is something else, is found, though the leaf verifies."""
    one = good(works)
    answer = one.parents[1]
    assert answer.exchange is not None
    parents = (one.parents[0], msgspec.structs.replace(answer, **changes))
    at = works.state(msgspec.structs.replace(one, parents=parents))

    assert {"parent.missing"} == codes(works, at)


@pytest.mark.parametrize("places", [(), (5,), (0, -1)])
def test_a_row_names_parents_that_are_listed(works: Works, places: tuple[int, ...]) -> None:
    """A row of nothing that nobody wrote, or of what is not listed, is found."""
    one = good(works)
    rows = (msgspec.structs.replace(one.rows[0], parents=places),)
    at = works.state(msgspec.structs.replace(one, rows=rows))

    assert {"parent.missing"} == codes(works, at)


def build(works: Works, listed: list[int], said: list[int], *drop: int) -> set[str]:
    """Append a dataset's manifest of *said* after parts that list *listed*; return codes."""
    house, since = works.house, works.house.reader.size()
    joined = b"".join(index.to_bytes(8, "big") for index in said)
    digest = hashlib.sha256(joined).hexdigest()
    facts = MembersFacts(count=len(said), sha256=Sha256(digest))
    found = {
        "members": msgspec.to_builtins(facts),
        "made": works.now,
    }
    assert "members" in Findings.__struct_fields__
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": "rows.jsonl", "digest": {"sha256": "e" * 64}}],
        "predicateType": PROVENANCE_TYPE,
        "predicate": {
            "buildDefinition": {"buildType": DATASET_BUILD, "internalParameters": found}
        },
    }
    _, leaf = write_manifest(statement, house.keyring.manifest)
    marks = Marks()
    for index in listed:
        marks.add(index)
    parts = members_of(
        marks,
        manifest=payload_sha256(leaf),
        dataset="d",
        at=works.now,
        writer=house.writer,
    )
    for number, part in enumerate(parts):
        if number not in drop:
            works.state(part)
    works.append(leaf)
    return codes(works, since)


def test_members_are_listed_before_their_manifest(works: Works) -> None:
    """Every leaf that a dataset was made from is listed, and no other, before it is named."""
    assert set() == build(works, [1, 3, 4], [1, 3, 4])
    assert {"members.incomplete"} == build(works, [1, 3], [1, 3, 4])


@pytest.mark.parametrize(
    ("listed", "said", "drop"),
    [
        ([1, 3], [1, 4], ()),
        ([1, 3], [1, 3], (0,)),
        ([1, 70_000], [1, 70_000], ()),
        ([1, 70_000], [1, 70_000], (0,)),
        ([1, 70_000], [1], (1,)),
    ],
)
def test_members_that_are_not_all_there_are_found(
    works: Works, listed: list[int], said: list[int], drop: tuple[int, ...]
) -> None:
    """Other leaves, a missing part, leaves that do not stand before: each is found."""
    assert {"members.incomplete"} == build(works, listed, said, *drop)
