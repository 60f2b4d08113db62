"""What was made of what, as the index keeps it."""

from __future__ import annotations

import base64
import contextlib
import random
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.dataset import manifest as manifests
from gateway.ident import DeclarationId, Sha256
from gateway.receipt.model import DATASET_BUILD, Manifest, Members, Writer
from gateway.store.index.chunks import (
    CHUNK,
    Chunk,
    chunk_of,
    common,
    has_place,
    pack_chunk,
    places_in,
    unpack_chunk,
)
from gateway.store.index.index import Index
from gateway.store.index.lineage import Stage
from gateway.store.index.places import STRETCH
from gateway.store.index.rows import Row
from gateway.store.index.stages import PARENTS, StageFacts, stage_of
from tests.support.dataset import House
from tests.support.store import an_exchange_id

AT = "2026-11-22T00:00:00.000Z"
WRITER = Writer(instance="test", version="1")


def bits_of(*places: int) -> bytes:
    """Return the bits of *places*."""
    return sum(1 << place for place in places).to_bytes(max(places) // 8 + 1, "little")


def digest(letter: str) -> Sha256:
    """Return a payload's digest."""
    return Sha256(letter * 64)


def a_members(bits: str, first: int = 0) -> Members:
    """Return a part of what a dataset was made from."""
    return Members(
        manifest=digest("a"),
        dataset="set",
        part=0,
        parts=1,
        first=first,
        bits=bits,
        at=AT,
        writer=WRITER,
    )


def packed(bits: bytes) -> str:
    """Return bits as they stand in a leaf."""
    return base64.b64encode(zlib.compress(bits)).decode()


class Ledger:
    """An index, and rows that are added to it one after the other."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.lineage = index.lineage
        self.size = 0

    def add(self, **row: Any) -> int:
        """Add a row; return where."""
        self.index.add([Row(index=self.size, **row)], b"")
        self.size += 1
        return self.size - 1

    def receipt(self, **row: Any) -> int:
        """Add the receipt of an exchange."""
        return self.add(kind="receipt", exchange=an_exchange_id(self.size), at=AT, **row)

    def dataset(
        self, letter: str, members: tuple[int, ...] = (), *parents: str, **facts: Any
    ) -> Stage:
        """Add a dataset's members, then its manifest."""
        for number in sorted({place // CHUNK for place in members}):
            places = (place % CHUNK for place in members if place // CHUNK == number)
            chunk = Chunk(manifest=digest(letter), number=number, bits=bits_of(*places))
            self.add(kind="members", members=chunk)
        return self.stage("dataset", letter, *parents, **facts)

    def stage(self, kind: Any, letter: str, *parents: str, **facts: Any) -> Stage:
        """Add a manifest."""
        stage = StageFacts(
            manifest=digest(letter),
            kind=kind,
            name=f"name-{letter}",
            parents=tuple(map(digest, parents)),
            **facts,
        )
        self.add(kind="manifest", manifest=digest(letter), stage=stage)
        found = self.lineage.stage(digest(letter))
        assert found is not None
        return found


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Return an empty index."""
    with contextlib.closing(Index(tmp_path / "index.db")) as index:
        yield Ledger(index)


def names(stages: list[Stage]) -> str:
    """Return the letters of *stages*."""
    return "".join(stage.manifest[0] for stage in stages)


def test_edges_are_walked_up_and_down_the_nearest_first(ledger: Ledger) -> None:
    """Each stage stands once, however many ways lead to it."""
    first = ledger.dataset("a")
    ledger.stage("student", "b", "a")
    ledger.dataset("c", (), "b")
    last = ledger.stage("student", "d", "c", "b")
    ledger.stage("export", "e", "a")

    assert "dbca" == names(ledger.lineage.above(last))
    assert "abecd" == names(ledger.lineage.below([first]))
    assert "ce" not in names(ledger.lineage.above(last))


def test_a_parent_that_is_only_named_is_above_and_has_no_leaf(ledger: Ledger) -> None:
    """A manifest that the ledger lacks stands in the way up as what it is: unknown."""
    student = ledger.stage("student", "b", "f")

    (_, missing) = ledger.lineage.above(student)

    assert (digest("f"), None, None) == (missing.manifest, missing.leaf, missing.kind)
    assert "b" == names(ledger.lineage.stages())
    assert ledger.lineage.newest() == student.leaf


def test_members_are_found_from_a_leaf_and_from_words(ledger: Ledger) -> None:
    """Which datasets were made of a leaf, or of somebody's leaves, is read from bits."""
    leaves = [
        ledger.receipt(principal="ada" if at % 2 else "bob", project="p") for at in range(6)
    ]
    one = ledger.dataset("a", tuple(leaves[:3]))
    two = ledger.dataset("b", (leaves[1], leaves[5]))

    assert "ab" == names(ledger.lineage.holding(leaves[1]))
    assert "" == names(ledger.lineage.holding(leaves[4]))
    assert (True, False) == (
        ledger.lineage.holds(two, leaves[5]),
        ledger.lineage.holds(one, leaves[5]),
    )
    assert {one.id: (one, 1), two.id: (two, 2)} == ledger.lineage.made_from(
        [("principal", "ada")]
    )
    assert {one.id: (one, 2)} == ledger.lineage.made_from(
        [("kind", "receipt"), ("principal", "bob")]
    )
    assert {} == ledger.lineage.made_from([("principal", "nobody")])
    assert {two.id: (two, 2)} == ledger.lineage.made_from([("principal", "ada")], [two])
    anybody = ledger.lineage.made_from([("principal", ("ada", "bob", "nobody"))])
    of_each = [ledger.lineage.made_from([("principal", name)]) for name in ("ada", "bob")]
    assert {at: found[1] for at, found in anybody.items()} == {
        at: sum(each[at][1] for each in of_each if at in each)
        for at in {at for each in of_each for at in each}
    }
    assert {} == ledger.lineage.made_from([("principal", ())])
    assert ["ada", "bob"] == ledger.index.values("principal")
    assert [leaves[1], leaves[5]] == [at for at in leaves if ledger.lineage.holds(two, at)]
    assert 3 == ledger.lineage.members(one)


def test_words_are_found_in_full_stretches_as_in_the_last(tmp_path: Path) -> None:
    """Members are counted in stretches that are closed, and in the one that is not."""
    size = 2 * STRETCH + 50
    with contextlib.closing(Index(tmp_path / "index.db")) as index:
        rows = [
            Row(index=at, kind="receipt", principal="ada" if at % 3 else "bob")
            for at in range(size)
        ]
        for first in range(0, size, STRETCH):
            index.add(rows[first : first + STRETCH], b"")
        chunk = Chunk(manifest=digest("a"), number=0, bits=bits_of(*range(0, size, 2)))
        facts = StageFacts(manifest=digest("a"), kind="dataset", name="set")
        index.add([Row(index=size, kind="members", members=chunk)], b"")
        index.add([Row(index=size + 1, kind="manifest", stage=facts)], b"")

        ((_, count),) = index.lineage.made_from([("principal", "bob")]).values()
        ((_, both),) = index.lineage.made_from([("principal", ("ada", "bob"))]).values()

    assert len(range(0, size, 6)) == count
    assert len(range(0, size, 2)) == both


def test_members_that_come_after_their_manifest_count_for_nothing(ledger: Ledger) -> None:
    """What a dataset was made from is said before it, and can't be added to."""
    leaf = ledger.receipt(project="p")
    ledger.dataset("a", (leaf,))
    ledger.add(
        kind="members",
        members=Chunk(manifest=digest("a"), number=0, bits=bits_of(leaf, leaf + 1)),
    )

    assert "a" == names(ledger.lineage.holding(leaf))
    assert "" == names(ledger.lineage.holding(leaf + 1))


def test_the_first_leaf_of_a_manifest_counts(ledger: Ledger) -> None:
    """A manifest that was appended twice is where it stood first."""
    stage = ledger.stage("student", "a")
    again = ledger.stage("student", "a")

    assert (stage.leaf, 0) == (again.leaf, stage.leaf)


def test_derivations_are_found_below_a_leaf(ledger: Ledger) -> None:
    """Through any number of derivations, each once."""
    leaf = ledger.receipt()
    one = ledger.add(kind="derivation", exchange="d-1", parents=(leaf,))
    two = ledger.add(kind="derivation", exchange="d-2", parents=(leaf, one))

    assert [one, two] == ledger.lineage.derived_from(leaf)
    assert [] == ledger.lineage.derived_from(two)


def test_answers_of_students_are_counted_as_they_come(ledger: Ledger) -> None:
    """Receipts that name a training manifest count; a refusal is no answer."""
    for _ in range(3):
        ledger.receipt(model_manifest=digest("a"))
    ledger.add(kind="refusal", exchange=an_exchange_id(9), model_manifest=digest("a"))

    assert (3, 0) == (ledger.lineage.answers(digest("a")), ledger.lineage.answers(digest("b")))


def test_what_manifests_name_is_found_with_the_rows_it_reached(ledger: Ledger) -> None:
    """Mentions lead from a word to stages, and from a stage to its words."""
    stage = ledger.dataset(
        "a", rows=7, mentions=(("provider", "openai", 5), ("clause", "p:c", 2))
    )

    assert {stage.id: (stage, 5)} == ledger.lineage.mentioning("provider", "openai")
    assert {} == ledger.lineage.mentioning("provider", "p:c")
    assert [("clause", "p:c", 2)] == ledger.lineage.mentions(stage, "clause", "model")
    assert ["openai"] == ledger.lineage.values("provider")
    assert [stage] == ledger.lineage.named("name-a")


def test_an_index_of_an_older_release_learns_its_stages(tmp_path: Path) -> None:
    """What was indexed before there were stages is looked through, once."""
    house = House(tmp_path)
    with contextlib.closing(house):
        declaration = house.declare()
        house.answer(declaration)
        first = house.build(declaration).manifest_sha256
        student = house.train("parser", first)
        house.answer(declaration, provider="own", manifest=student, policies=("own",))
        house.index.catch_up(house.ledger)
        before = _everything(tmp_path / "index.db")
        house.index.close()
        _forget_stages(tmp_path / "index.db")
        house.index = Index(tmp_path / "index.db")
        house.index.catch_up(house.ledger)

        assert before == _everything(tmp_path / "index.db")
        assert 1 == house.index.lineage.answers(student)


def _everything(path: Path) -> dict[str, list[Any]]:
    tables = ("stage", "edge", "mention", "member", "derived", "answered")
    with contextlib.closing(sqlite3.connect(path)) as database:
        return {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in tables}


def _forget_stages(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        for name in ("stage", "edge", "mention", "member", "derived", "answered"):
            database.execute(f"DROP TABLE {name}")
        database.execute("ALTER TABLE watermark DROP COLUMN stages")
        database.execute(
            "DELETE FROM _sqlite_migrations WHERE name IN ('stages', 'lists_of_members')"
        )
        database.commit()


@pytest.mark.parametrize("density", [0.0001, 0.01, 0.06, 0.07, 0.5])
def test_chunks_are_kept_small_and_come_back_whole(density: float) -> None:
    """Few places are kept one by one, many as bits; both answer alike."""
    dice = random.Random(density)
    places = {place for place in range(CHUNK) if dice.random() < density} | {0, CHUNK - 1}
    asked = bits_of(*(dice.randrange(CHUNK) for _ in range(500)), CHUNK - 1)
    bits = bits_of(*places)

    count, kept = pack_chunk(bits)

    assert (len(places), bits) == (count, unpack_chunk(kept))
    assert sorted(places) == list(places_in(bits))
    assert len(kept) <= min(CHUNK // 8, 2 * count)
    assert all(has_place(kept, place) == (place in places) for place in range(0, CHUNK, 7))
    _, few = pack_chunk(bits_of(0, 3))
    both = [len(places & set(places_in(asked))), len({0, 3} & set(places_in(asked)))]
    asked = asked.ljust(CHUNK // 8, b"\0")
    assert both == common([kept, few], asked)
    assert [*both, 0, both[0]] == common([kept, few, b"", kept], asked)


def test_members_that_can_not_be_read_are_none() -> None:
    """A leaf whose bits are no bits of a chunk adds nothing, and stops nothing."""
    good = a_members(packed(bits_of(3)), CHUNK)

    assert Chunk(manifest=digest("a"), number=1, bits=bits_of(3)) == chunk_of(good)
    for bad in (
        a_members("???"),
        a_members(base64.b64encode(b"no zlib").decode()),
        a_members(packed(bytes(CHUNK // 8 + 1))),
        a_members(good.bits[:8]),
        a_members(good.bits, 7),
        a_members(good.bits, -CHUNK),
    ):
        assert chunk_of(bad) is None


@pytest.mark.parametrize(
    "statement",
    [
        {},
        {"predicate": None},
        {"predicate": {"buildDefinition": []}},
        {"predicate": {"buildDefinition": {"externalParameters": {"dataset": 7}}}},
        {
            "predicate": {
                "buildDefinition": {
                    "resolvedDependencies": [7, {"annotations": 1, "digest": {"sha256": 3}}],
                    "internalParameters": {"teachers": [{"provider": []}, 4], "rows": "9"},
                }
            }
        },
    ],
)
def test_a_manifest_that_says_nonsense_is_a_stage_that_says_nothing(statement: Any) -> None:
    """What can't be read is left out; the rest of the ledger is searched all the same."""
    facts = stage_of(
        Manifest(
            build_type=DATASET_BUILD,
            payload_sha256=digest("a"),
            statement=statement,
        )
    )

    assert facts is not None
    assert ((), "", None) == (facts.parents, facts.name, facts.rows)
    assert DeclarationId("") not in {value for _, value, _ in facts.mentions}


def test_the_kinds_of_parents_are_those_of_manifests() -> None:
    """The index follows exactly the edges that manifests name."""
    assert {manifests.DATASET_MANIFEST, manifests.TRAINING_MANIFEST} == PARENTS
