"""Lineage is told through stages: yes with its evidence, no with its limits, or can't tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.ident import Sha256
from gateway.lineage.ask import distilled_from
from gateway.lineage.document import as_json
from gateway.lineage.folders import Folders
from gateway.lineage.nodes import (
    DatasetNode,
    Missing,
    ModelNode,
    Root,
    nodes_of,
    sentence_of,
    traces,
)
from gateway.lineage.tree import Sources, lineage_of_exchange, lineage_of_manifest
from gateway.receipt.model import Manifest, Receipt
from gateway.receipt.statement import read_leaf
from tests.support.dataset import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Return a house with an empty ledger."""
    house = House(tmp_path)
    yield house
    house.close()


def sources(house: House, *places: Path) -> Sources:
    """Return what lineage reads in *house*."""

    def manifest(payload: Sha256) -> tuple[int | None, Manifest] | None:
        for index, leaf in enumerate(house.ledger.leaves(0, house.ledger.head().size)):
            statement = read_leaf(leaf)
            if isinstance(statement, Manifest) and statement.payload_sha256 == payload:
                return index, statement
        return None

    folder = Folders([house.folder / "datasets", *places])
    return Sources(manifest=manifest, words=house.register, folder=folder)


def tree(house: House, payload: Sha256) -> ModelNode | DatasetNode | Missing:
    """Return the tree above a manifest."""
    return lineage_of_manifest(payload, sources(house))


def two_stages(house: House) -> Sha256:
    """Train a student on a teacher and another student on the first one's answers."""
    declaration = house.declare()
    for _ in range(3):
        house.answer(declaration)
    first = house.train("cleaner", house.build(declaration, "first").manifest_sha256)
    for _ in range(2):
        house.answer(declaration, provider="local", manifest=first, policies=("own", "open"))
    house.answer(declaration, provider="watched", policies=("open",))
    return house.train("reader", house.build(declaration, "second").manifest_sha256)


def test_one_stage_is_told_with_its_evidence(house: House) -> None:
    """The sentence names rows, policy, clause, declaration and owner."""
    declaration = house.declare()
    house.answer(declaration)
    student = house.train("parser", house.build(declaration, "first").manifest_sha256)

    answer = distilled_from(tree(house, student), "open")

    assert "yes" == answer.says
    _, sentence = answer.sentences
    day = house.now[:10]
    assert (
        "Answers of open (open-1, open-1-0826) stand in 1 of 1 rows (100 %) of dataset `first` "
        f"(leaf 4), 5 of 5 output tokens (100 %) of its teachers', 1 stage away, asked {day}, "
        "under policy open v1, ruled by clause open:training, declared as "
        f"{declaration.id} (train.sft) by ada."
    ) == sentence


def test_two_stages_lead_to_the_same_teacher(house: House) -> None:
    """A student of a student is distilled from the first one's teacher, and says how far."""
    root = tree(house, two_stages(house))

    found = [
        (t.provider, t.stages, t.teacher.teacher.rows if t.teacher else 0) for t in traces(root)
    ]

    assert ("open", 2, 3) in found
    assert any("2 stages away" in one for one in distilled_from(root, "open").sentences)


def test_a_model_is_asked_for_by_any_of_its_names(house: House) -> None:
    """Provider, model as asked for, model as reported, and policy are all names."""
    root = tree(house, two_stages(house))

    for name in ("open", "OPEN", "open-1", "open-1-0826", "open/open-1"):
        assert "yes" == distilled_from(root, name).says


def test_no_is_said_only_where_everything_is_known(house: House) -> None:
    """No needs every manifest on the way up."""
    declaration = house.declare()
    house.answer(declaration)
    dataset = house.build(declaration, "first").manifest_sha256
    known = tree(house, house.train("known", dataset))
    unknown = tree(house, house.train("unknown", dataset, Sha256("c" * 64)))

    assert "no" == distilled_from(known, "openai").says
    assert "can't tell" == distilled_from(unknown, "openai").says
    assert "yes" == distilled_from(unknown, "open").says
    assert any(isinstance(node, Missing) for node in nodes_of(unknown))


def test_a_base_from_outside_is_a_limit_that_is_told(house: House) -> None:
    """What the base model learned from is not known, so that nobody can say no."""
    declaration = house.declare()
    house.answer(declaration)
    dataset = house.build(declaration, "first").manifest_sha256
    root = tree(house, house.train("parser", dataset, outside="acme/base-1b"))

    answer = distilled_from(root, "openai")

    assert "can't tell" == answer.says
    assert "what the base model `acme/base-1b`, from outside, learned from" in answer.unknown


def test_a_base_of_ours_leads_further_up(house: House) -> None:
    """A student that began as another student has that one's teachers too."""
    declaration = house.declare()
    house.answer(declaration)
    first = house.train("first", house.build(declaration, "first").manifest_sha256)
    house.answer(declaration, provider="watched", policies=("own",))
    dataset = house.build(declaration, "second").manifest_sha256

    root = tree(house, house.train("second", dataset, base=first))

    assert 3 == len(list(traces(root)))


def test_an_approval_is_named_with_its_leaf(house: House) -> None:
    """A held use that passed says who said yes, where, and why."""
    declaration = house.declare()
    house.answer(declaration, provider="held")
    verdict = house.approve(declaration, ("held", "training"))
    root = tree(house, house.build(declaration, "first").manifest_sha256)

    (trace,) = traces(root)

    assert f"approved by grace (leaf {verdict}: read it)" in sentence_of(trace)


def test_a_withdrawal_is_shown(house: House) -> None:
    """What was withdrawn since says so wherever it stands in the tree."""
    declaration = house.declare()
    house.answer(declaration)
    dataset = house.build(declaration, "first").manifest_sha256
    student = house.train("parser", dataset)
    house.withdraw(manifest=dataset)

    (trace,) = traces(tree(house, student))

    assert "WITHDRAWN by grace: asked to" in sentence_of(trace)


def test_receipts_are_shown_where_the_folder_is_at_hand(house: House) -> None:
    """The tree goes down to exchanges and the leaves that hold their receipts."""
    declaration = house.declare()
    receipt = house.answer(declaration)
    built = house.build(declaration, "first")

    root = tree(house, built.manifest_sha256)

    assert isinstance(root, DatasetNode)
    assert [(receipt.exchange, 2)] == [(leaf.exchange, leaf.index) for leaf in root.receipts]


def test_an_answer_of_a_student_leads_to_its_teachers(house: House) -> None:
    """A single exchange is asked in the same way."""
    declaration = house.declare()
    house.answer(declaration)
    student = house.train("parser", house.build(declaration, "first").manifest_sha256)
    receipt = house.answer(declaration, provider="local", manifest=student, policies=("own",))

    root = lineage_of_exchange(receipt, 9, sources(house))

    assert "yes" == distilled_from(root, "open").says
    assert "no" == distilled_from(root, "openai").says


def test_an_answer_of_a_teacher_is_its_own(house: House) -> None:
    """An exchange with a provider is an answer of that provider, directly."""
    receipt: Receipt = house.answer(house.declare())
    root = lineage_of_exchange(receipt, 1, sources(house))

    (trace,) = traces(root)

    assert "an answer of open (open-1, open-1-0826), directly." == sentence_of(trace)


def test_every_tree_is_json(house: House) -> None:
    """Machines get the same tree."""
    roots: list[Root] = [
        tree(house, two_stages(house)),
        lineage_of_exchange(house.answer(house.declare()), 1, sources(house)),
        Missing(what="nothing"),
    ]

    for root in roots:
        assert json.loads(json.dumps(as_json(root)))["kind"]


def test_a_manifest_of_another_kind_is_missing_not_trusted(house: House) -> None:
    """A dataset named as a student, or a digest of nothing, is a hole in the tree."""
    declaration = house.declare()
    house.answer(declaration)
    dataset = house.build(declaration, "first").manifest_sha256
    receipt = house.answer(declaration, provider="local", manifest=dataset, policies=("own",))

    root = lineage_of_exchange(receipt, 9, sources(house))

    assert isinstance(root.student, Missing)
    assert "can't tell" == distilled_from(root, "openai").says
