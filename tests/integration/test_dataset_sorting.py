"""What becomes of rows once all are there: alike, best of several, held out, derived."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.canonical import sha256_hex
from gateway.dataset.assembly.build import Built, EmptyDatasetError, Order, build_dataset
from gateway.dataset.verification.verify import verified_rows, verify_dataset
from gateway.errors import GateRefusedError
from gateway.intent.model import Declaration
from gateway.receipt.model import Members, Receipt, Written
from gateway.receipt.statement import read_leaf
from gateway.store.index.chunks import chunk_of
from tests.support.dataset import House, left_out, made
from tests.support.evidence import TRUST

LONG = "The invoice of the third of May lists nine boxes of paper and two of ink, all paid for."


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Return a house with an empty ledger."""
    house = House(tmp_path / "house")
    yield house
    house.close()


def build(house: House, declaration: Declaration, name: str = "set", **asked: Any) -> Built:
    """Build a dataset as it is asked for."""
    filters = asked.pop("filters", {})
    order = Order(
        name=name,
        declaration=declaration,
        folder=house.folder / "datasets" / name,
        filters=filters,
        **asked,
    )
    sources = house.sources(transform=filters.get("transform"))
    return build_dataset(order, sources)


def lines(folder: Path, name: str) -> list[str]:
    """Return the answers in one file of rows."""
    rows = (folder / name).read_bytes().splitlines()
    return [msgspec.json.decode(row)["messages"][-1]["content"] for row in rows]


def test_near_duplicates_are_left_out_and_say_what_they_resemble(house: House) -> None:
    """The first of rows that are nearly the same stays; the others name it."""
    declaration = house.declare()
    first = house.answer(declaration, LONG)
    house.answer(declaration, LONG.replace("nine", "ten"))
    house.answer(declaration, "Something else was said about another matter altogether here.")
    house.answer(declaration, LONG.upper())

    exact, near = (build(house, declaration, name, dedupe=name) for name in ("exact", "near"))

    assert 4 == exact.manifest.found.rows
    assert ["near-duplicate"] * 2 == left_out(near.folder)
    said = (near.folder / "left-out.jsonl").read_text().splitlines()
    assert all(f"see {first.exchange}/0" in line for line in said)
    assert 2 == verify_dataset(near.folder, TRUST).rows


def test_rows_are_held_out_with_all_that_are_asked_alike(house: House) -> None:
    """No prompt, and none that is nearly the same, stands on both sides."""
    declaration = house.declare()
    for number in range(24):
        topic = sha256_hex(str(number).encode())
        house.derive(
            declaration,
            made(f"a {number}", prompt=f"Tell me all there is to know about {topic}."),
            made(f"b {number}", prompt=f"Tell me all there is to know about {topic}!"),
            written=Written(by="ada", licence="CC0-1.0", source="by hand"),
            name="hand",
            kind="written",
        )

    built = build(house, declaration, filters={"transform": "hand"}, held_out="0.25", seed=7)

    train, held = lines(built.folder, "rows.jsonl"), lines(built.folder, "held-out.jsonl")
    numbers = [{answer.split()[1] for answer in side} for side in (train, held)]
    splits = {split.name: split for split in built.manifest.found.splits}
    assert not numbers[0] & numbers[1]
    assert 48 == len(train) + len(held)
    assert (len(train), len(held)) == (splits["train"].rows, splits["held-out"].rows)
    assert 24 == sum(split.clusters or 0 for split in splits.values())
    rows = list(verified_rows(built.folder, TRUST))
    assert [row.number for row in rows] == list(range(48))
    again = build(
        house, declaration, "again", filters={"transform": "hand"}, held_out="0.25", seed=7
    )
    other = build(
        house, declaration, "other", filters={"transform": "hand"}, held_out="0.25", seed=8
    )
    assert held == lines(again.folder, "held-out.jsonl")
    assert held != lines(other.folder, "held-out.jsonl")


def test_what_is_all_alike_can_t_be_split(house: House) -> None:
    """Where every prompt is the same nothing is held out, and nothing is built in silence."""
    declaration = house.declare()
    for _ in range(3):
        house.answer(declaration)

    with pytest.raises(GateRefusedError) as refused:
        build(house, declaration, held_out="0.5")

    assert "dataset.not_split" == refused.value.problem
    assert [] == list((house.folder / "datasets").iterdir())


def test_the_best_of_several_answers_stands(house: House) -> None:
    """Of judged rows with one prompt the highest verdict stays; what is no number does not."""
    declaration = house.declare()
    judge = house.answer(house.declare("train"))
    rows = [
        ("one", "0.5", "p"),
        ("two", "0.9", "p"),
        ("three", "0.9", "p"),
        ("four", "0.1", "q"),
        ("five", "good", "q"),
        ("six", None, "q"),
    ]
    house.derive(
        declaration,
        *(
            made(text, house.parent(house.answer(declaration, text)), verdict=score, prompt=p)
            for text, score, p in rows
        ),
        kind="judge",
        name="score",
    )
    assert judge.exchange

    built = build(
        house, declaration, filters={"transform": "score", "best-of": "yes", "judged": "yes"}
    )

    assert ["two", "four"] == lines(built.folder, "rows.jsonl")
    assert ["no-verdict", "not-best", "not-best", "no-verdict"] == left_out(built.folder)
    assert 2 == verify_dataset(built.folder, TRUST).rows


def test_rows_are_chosen_by_their_verdict(house: House) -> None:
    """Of rows that were judged, those with the word that is asked for."""
    declaration = house.declare()
    house.derive(
        declaration,
        *(
            made(text, house.parent(house.answer(declaration)), verdict=word)
            for text, word in (("a", "good"), ("b", "bad"), ("c", None))
        ),
        kind="judge",
        name="check",
    )

    built = build(house, declaration, filters={"transform": "check", "verdict": "good"})

    assert ["a"] == lines(built.folder, "rows.jsonl")
    assert ["no-verdict"] * 2 == left_out(built.folder)


def test_a_derived_row_counts_whoever_reached_it(house: House) -> None:
    """Teachers, transforms and authors are counted by the rows that they reached."""
    declaration = house.declare()
    answers = [house.answer(declaration) for _ in range(3)]
    clean = house.derive(
        declaration, *(made(f"clean {at}", house.parent(a)) for at, a in enumerate(answers))
    )
    house.derive(
        declaration,
        *(
            made(f"last {at}", house.parent(clean, choice=at), house.parent(answers[0]))
            for at in range(3)
        ),
        made("by hand"),
        name="mix",
        kind="compose",
        written=Written(by="ada", licence="CC0-1.0", source="by hand"),
    )

    built = build(house, declaration, filters={"transform": "mix"})

    found = built.manifest.found
    (teacher,) = found.teachers
    assert (4, 3, 3) == (found.rows, teacher.rows, teacher.receipts)
    assert {("clean", 3), ("mix", 4)} == {(one.name, one.rows) for one in found.made_by}
    assert [("ada", 4)] == [(one.by, one.rows) for one in found.written_by]
    assert 4 == verify_dataset(built.folder, TRUST).rows
    assert found.members is not None
    assert 5 == found.members.count


def test_the_members_of_a_dataset_stand_before_its_manifest(house: House) -> None:
    """Every leaf that rows were made from is stated as a member, and no other."""
    declaration = house.declare()
    answer = house.answer(declaration)
    house.answer(declaration)
    clean = house.derive(declaration, made("clean", house.parent(answer)))

    built = build(house, declaration, filters={"transform": "clean"})

    assert built.index is not None
    members = read_leaf(house.leaf(built.index - 1))
    assert isinstance(members, Members)
    assert (built.manifest_sha256, 0, 1) == (members.manifest, members.part, members.parts)
    chunk = chunk_of(members)
    assert chunk is not None
    bits = int.from_bytes(chunk.bits, "little")
    listed = [at for at in range(bits.bit_length()) if bits >> at & 1]
    assert listed == sorted([house.place_of(answer), house.place_of(clean)])


def test_nothing_is_made_of_an_answer_whose_text_was_erased(house: House) -> None:
    """What came of a text goes with it, though the row itself is still there."""
    declaration = house.declare()
    gone, stays = house.answer(declaration), house.answer(declaration)
    house.derive(declaration, made("a", house.parent(gone)), made("b", house.parent(stays)))
    house.texts.erase(gone.exchange)

    built = build(house, declaration, filters={"transform": "clean"})

    assert ["b"] == lines(built.folder, "rows.jsonl")
    assert ["parent-erased"] == left_out(built.folder)


def test_a_row_of_nothing_that_nobody_wrote_is_left_out(house: House) -> None:
    """Words without a source need a person who answers for them."""
    declaration = house.declare()
    house.derive(declaration, made("out of the blue"))

    with pytest.raises(EmptyDatasetError) as empty:
        build(house, declaration, filters={"transform": "clean"})

    assert {"parent-unresolved": 1} == empty.value.left_out


def test_rows_with_reasoning_only_where_it_was_shown(house: House) -> None:
    """A build takes reasoning that was given as it is; a summary, or none, is not that."""
    declaration = house.declare()
    plain = house.answer(declaration)
    house.answer_with_reasoning(declaration, "so it may be", "in short", kind="summary")
    shown = house.answer_with_reasoning(declaration, "so it is", "because it was")

    built = build(house, declaration, reasoning=True)

    assert isinstance(plain, Receipt)
    assert ["reasoning-not-open"] * 2 == left_out(built.folder)
    (row,) = verified_rows(built.folder, TRUST)
    assert row.exchange == shown.exchange
    assert b'"reasoning_content":"because it was"' in row.line
