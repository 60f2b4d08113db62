"""What stands above a derived row is found through its parents, each of which must be there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.clock import day_of
from gateway.dataset.above import Above, UnresolvedParentError, above_of, call_above
from gateway.dataset.ancestry import Ancestry
from gateway.dataset.gate.gate import Gate
from gateway.dataset.gate.refusals import LeftOut
from gateway.errors import LedgerDamagedError
from gateway.ident import ExchangeId, Sha256
from gateway.intent.model import Declaration
from gateway.policy.library import Library
from gateway.receipt.model import Derivation, Parent
from gateway.receipt.statement import write_statement
from tests.support.dataset import House, a_library, a_policy, made
from tests.support.derived import build, derive, messages, parent
from tests.support.evidence import RECEIPT_SIGNER


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Return a house with an empty ledger."""
    house = House(tmp_path)
    yield house
    house.close()


def above(house: House, derivation: Derivation, place: int = 0) -> tuple[Above, ...]:
    """Return what stands above a row, read from the ledger."""
    return above_of(derivation, place, house.leaf, index=house.place_of(derivation))


def gate_of(house: House, declaration: Declaration) -> Gate:
    """Return the gate of a declaration, today."""
    today = day_of(house.clock.now_ms())
    return Gate(declaration, today, house.law, house.register, Ancestry(house.manifest))


def why(house: House, declaration: Declaration, derivation: Derivation) -> LeftOut | None:
    """Return why the first row of a derivation may not be learned from."""
    gate = gate_of(house, declaration)
    return gate.admit_row(derivation, 0, above(house, derivation))


def test_every_ancestor_is_found_and_how_it_reached_the_row(house: House) -> None:
    """A row has above it all that it was made from, by any number of steps, in ledger order."""
    declaration = house.declare()
    first, judge = house.answer(declaration), house.answer(declaration)
    clean = house.derive(declaration, made("clean", house.parent(first)))
    good = house.derive(
        declaration,
        made("clean", house.parent(clean), house.parent(judge, "judge"), verdict="good"),
        kind="judge",
    )

    found = [(one.index, one.influence) for one in above(house, good)]

    assert found == [
        (house.place_of(first), "text"),
        (house.place_of(judge), "judge"),
        (house.place_of(clean), "text"),
    ]


def test_what_stands_above_a_judge_has_judged(house: House) -> None:
    """An edge of a judge makes all above it a judgement; what is also text counts both ways."""
    declaration = house.declare()
    answer = house.answer(declaration)
    rubric = house.derive(declaration, made("rubric", house.parent(answer)))
    row = house.derive(
        declaration, made("text", house.parent(answer), house.parent(rubric, "judge"))
    )

    found = [(one.index, one.influence) for one in above(house, row)]

    assert found == [
        (house.place_of(answer), "judge"),
        (house.place_of(answer), "text"),
        (house.place_of(rubric), "judge"),
    ]


def test_words_of_people_have_nothing_above_them(house: House) -> None:
    """A row without parents stands alone, and so does a plain answer."""
    declaration = house.declare()
    receipt = house.answer(declaration)

    assert () == above(house, house.derive(declaration, made("by hand")))
    assert () == above_of(receipt, 0, house.leaf, index=house.place_of(receipt))


@pytest.mark.parametrize(
    "changes",
    [
        {"index": 10_000},
        {"index": 1},
        {"choice": 7},
        {"choice": -1},
        {"exchange": ExchangeId("x-01M7ZWXQ2G4T5V6W7X8Y9Z0ABC")},
        {"manifest": Sha256("a" * 64)},
        {"exchange": None},
        {"exchange": None, "manifest": Sha256("a" * 64)},
    ],
    ids=["beyond", "elsewhere", "choice", "below", "other", "two", "none", "kind"],
)
def test_a_parent_that_is_not_what_is_said_is_unresolved(
    house: House, changes: dict[str, Any]
) -> None:
    """Another place, choice or name than the parent's own is refused, and the parent named."""
    declaration = house.declare()
    parent = house.parent(house.answer(declaration))
    row = house.derive(declaration, made("odd", msgspec.structs.replace(parent, **changes)))

    with pytest.raises(UnresolvedParentError):
        above(house, row)


def test_a_parent_stands_before_its_child(house: House) -> None:
    """Nothing is made of what came later: so no way up is endless."""
    declaration = house.declare()
    answer = house.answer(declaration)
    row = house.derivation(declaration, made("early", house.parent(answer)))

    with pytest.raises(UnresolvedParentError, match="does not stand before"):
        above_of(row, 0, house.leaf, index=house.place_of(answer))


def test_a_row_that_is_not_there_has_nothing_above_it(house: House) -> None:
    """A place beyond the rows, and a parent beyond the list, are refused."""
    declaration = house.declare()
    row = house.derive(declaration, made("one"))
    odd = msgspec.structs.replace(
        row, rows=(msgspec.structs.replace(row.rows[0], parents=(3,)),)
    )

    with pytest.raises(UnresolvedParentError, match="no row 1"):
        above(house, row, 1)
    with pytest.raises(UnresolvedParentError, match="isn't listed"):
        above_of(odd, 0, house.leaf, index=house.place_of(row))


def test_a_student_run_in_the_pipeline_counts_as_a_call_to_it(house: House) -> None:
    """Its training manifest is a parent like an answer; a dataset's manifest is none."""
    declaration = house.declare()
    house.answer(declaration)
    dataset = house.build(declaration).manifest_sha256
    student = house.train("cleaner", dataset)
    row = house.derive(declaration, made("clean", house.parent(student)))
    (one,) = above(house, row)
    called = call_above(one)

    assert called is not None
    assert (called[0].provider, called[1], called[2]) == ("cleaner", student, None)
    assert why(house, declaration, row) is None
    with pytest.raises(UnresolvedParentError, match="training manifest"):
        above(house, house.derive(declaration, made("odd", house.parent(dataset))))


def test_a_row_falls_with_its_ancestor(house: House) -> None:
    """What may not be learned from stays so, however often it was rewritten."""
    declaration = house.declare()
    good = house.answer(declaration)
    bad = house.answer(declaration, provider="closed")
    once = house.derive(declaration, made("one", house.parent(good), house.parent(bad)))
    twice = house.derive(declaration, made("two", house.parent(once)))
    fine = house.derive(declaration, made("three", house.parent(good)))

    refused = why(house, declaration, twice)

    assert why(house, declaration, fine) is None
    assert refused is not None
    assert refused.reason == "terms-forbid-use"
    assert bad.exchange in refused.detail


@pytest.mark.parametrize(
    ("purpose", "role", "wanted", "reason"),
    [
        ("train.sft", "source", "train.sft", None),
        ("train.sft", "source", "train.reward", "widened-use"),
        ("data.rewrite", "rewriter", "train.sft", "terms-forbid-use"),
        ("inference", "source", "train.sft", "not-for-training"),
        ("train.sft", "judge", "train.sft", "terms-forbid-use"),
        ("verify", "judge", "train.sft", "terms-forbid-use"),
        ("verify", "source", "train.sft", "widened-use"),
        ("data.rewrite", "judge", "train.sft", "widened-use"),
    ],
)
def test_an_ancestor_is_ruled_on_for_what_it_was_there(
    house: House, purpose: str, role: Any, wanted: str, reason: str | None
) -> None:
    """Rewriting is ruled on as such and for the use; judging for `verify`; silence forbids."""
    student = None if purpose == "inference" else "parser"
    answer = house.answer(house.declare(purpose, student=student))
    declaration = house.declare(wanted)
    row = house.derive(declaration, made("row", house.parent(answer, role)))

    refused = why(house, declaration, row)

    assert (refused.reason if refused else None) == reason


@pytest.mark.parametrize(
    ("provider", "role", "wanted", "reason"),
    [
        ("rewrites", "rewriter", "train.sft", None),
        ("judges", "judge", "train.sft", None),
        ("judges", "judge", "train.preference", "terms-forbid-use"),
        ("rewrites", "judge", "train.sft", "terms-forbid-use"),
        ("anything", "judge", "train.preference", None),
    ],
)
def test_terms_may_allow_one_and_not_the_other(
    tmp_path: Path, provider: str, role: Any, wanted: str, reason: str | None
) -> None:
    """A judge's terms decide on judging, and on more only where its judgement is learned."""
    house = House(tmp_path, library_of_uses())
    try:
        made_for = "data.rewrite" if role == "rewriter" else "verify"
        answer = house.answer(house.declare(made_for), provider=provider)
        declaration = house.declare(wanted)
        row = house.derive(declaration, made("row", house.parent(answer, role)))

        refused = why(house, declaration, row)

        assert (refused.reason if refused else None) == reason
    finally:
        house.close()


def library_of_uses() -> Library:
    """Return terms that allow rewriting and training, judging alone, or anything."""
    return a_library(
        rewrites=a_policy("rewrites", "permit", when="purpose: [train, data]"),
        judges=a_policy("judges", "permit", when="purpose: verify"),
        anything=a_policy("anything", "permit", when="purpose: [train, data, verify]"),
    )


def test_a_derivation_stands_by_its_own_declaration_and_project(house: House) -> None:
    """Rows of another project, or made for a narrower use, or withdrawn, are left out."""
    declaration = house.declare()
    answer = house.answer(declaration)
    other = house.derive(house.declare(project="other"), made("one", house.parent(answer)))
    narrow = house.derive(house.declare("train.reward"), made("two", house.parent(answer)))
    taken = house.derive(declaration, made("three", house.parent(answer)))
    below = house.derive(declaration, made("four", house.parent(taken)))
    house.withdraw(derivation=taken.derivation)

    reasons = [why(house, declaration, row) for row in (other, narrow, taken, below)]

    assert [one.reason for one in reasons if one is not None] == [
        "other-project",
        "widened-use",
        "withdrawn",
        "withdrawn",
    ]


def test_a_withdrawn_answer_takes_every_row_below_it(house: House) -> None:
    """A withdrawal, or a person's no, reaches whatever was made of the answer."""
    declaration = house.declare()
    gone, declined = house.answer(declaration), house.answer(declaration)
    rows = [
        house.derive(declaration, made(str(at), house.parent(answer)))
        for at, answer in enumerate((gone, declined))
    ]
    house.withdraw(exchange=gone.exchange)
    house.decline(declined)

    reasons = [why(house, declaration, row) for row in rows]

    assert [one.reason for one in reasons if one is not None] == ["withdrawn", "declined"]


def test_a_plain_row_is_admitted_as_ever(house: House) -> None:
    """The one entry decides on a receipt's row as on the receipt."""
    declaration = house.declare()
    good, bad = house.answer(declaration), house.answer(declaration, provider="closed")
    gate = gate_of(house, declaration)

    assert gate.admit_row(good, 0, ()) is None
    assert gate.admit_row(bad, 0, ()) == gate.admit(bad)


@pytest.mark.parametrize("provider", ["open", "closed"], ids=["taken", "left-out"])
def test_a_forged_answer_above_a_row_builds_nothing(house: House, provider: str) -> None:
    """A signature that is not the key's ends a build, of what was taken and what was not."""
    declaration = house.declare()
    receipt = house.receipt(declaration, "an answer", provider=provider)
    leaf = write_statement(receipt, (), RECEIPT_SIGNER)
    at = leaf.index(b'"sig":"') + 12
    bent = leaf[:at] + (b"A" if leaf[at : at + 1] != b"A" else b"B") + leaf[at + 1 :]
    index = house.append(bent)
    forged = Parent(role="source", exchange=receipt.exchange, index=index)
    good = parent(house, house.answer(declaration))
    derive(house, declaration, [(messages("q", "a"), [forged]), (messages("r", "b"), [good])])
    size = house.ledger.head().size

    with pytest.raises(LedgerDamagedError, match=f"leaf {index} of the ledger"):
        build(house, declaration, of="rewrite")

    assert house.ledger.head().size == size
    assert not (house.folder / "datasets" / "set").exists()
