"""Trees of derived rows and exports, who taught them, and the graph that is drawn of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.clock import day_of
from gateway.dataset.ancestry import Ancestry
from gateway.dataset.manifest import DATASET_MANIFEST, manifest_dependency
from gateway.ident import Sha256
from gateway.lineage.document import as_json
from gateway.lineage.graph import Box, Graph, folded, graph_of, svg_of
from gateway.lineage.impact import Below, Impact
from gateway.lineage.nodes import (
    DerivationNode,
    ExchangeNode,
    ExportNode,
    Missing,
    Node,
    nodes_of,
    traces,
    unknowns,
)
from gateway.lineage.tree import (
    Sources,
    lineage_of_derivation,
    lineage_of_export,
    lineage_of_manifest,
    statements_in,
)
from gateway.lineage.uses import Rulers, allowed_uses, ancestors_of, use_of
from gateway.receipt.model import EXPORT_BUILD, PROVENANCE_TYPE, STATEMENT_TYPE, Manifest
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import payload_sha256
from tests.support.dataset import House
from tests.support.derived import Made, derive, messages, parent
from tests.support.evidence import MANIFEST_SIGNER


def lacks(root: Node) -> bool:
    """Tell whether something above *root* could not be found."""
    return any(isinstance(node, Missing) for node in nodes_of(root))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Return a house with an empty ledger."""
    house = House(tmp_path)
    yield house
    house.close()


def sources(house: House) -> Sources:
    """Return what lineage reads in *house*."""

    def manifest(payload: Sha256) -> tuple[int | None, Manifest] | None:
        found = house.manifest(payload)
        return None if found is None else (house.index_of(payload), found)

    return Sources(
        manifest=manifest,
        words=house.register,
        folder=lambda _: None,
        statement=statements_in(house.leaf),
    )


def tree(house: House, made: Made, place: int | None = None) -> DerivationNode:
    """Return the tree above a derivation."""
    return lineage_of_derivation(made[0], made[1], sources(house), place)


def judged(house: House) -> Made:
    """Return rows that were rewritten, and judged by another."""
    declaration = house.declare()
    source, judge = house.answer(declaration), house.answer(declaration, provider="watched")
    first = derive(house, declaration, [(messages("q", "a"), [parent(house, source)])])
    return derive(
        house,
        declaration,
        [
            (messages("q", "b"), [parent(house, first), parent(house, judge, "judge")]),
            (messages("q", "c"), [parent(house, judge)]),
        ],
        name="filter",
        transform="filter",
    )


def export(house: House, *datasets: Sha256) -> Sha256:
    """Append the manifest of an export; return its payload digest."""
    parents = [
        manifest_dependency(f"dataset:{at}", payload, DATASET_MANIFEST)
        for at, payload in enumerate(datasets)
    ]
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": "train.parquet", "digest": {"sha256": "e" * 64}}],
        "predicateType": PROVENANCE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": EXPORT_BUILD,
                "externalParameters": {"dataset": "out"},
                "internalParameters": {},
                "resolvedDependencies": msgspec.to_builtins(parents),
            },
            "runDetails": {"metadata": {"finishedOn": house.now}},
        },
    }
    leaf = write_manifest(statement, MANIFEST_SIGNER)[1]
    house.append(leaf)
    return payload_sha256(leaf)


def test_rows_of_a_pipeline_lead_to_the_answers_above_them(house: House) -> None:
    """Through derivations up to receipts; who judged is told apart."""
    made = judged(house)

    root = tree(house, made, 0)

    told = {(one.provider, one.influence) for one in ancestors_of(root)}
    assert {("open", "text"), ("watched", "judge")} == told
    assert {"open", "watched"} == {trace.provider for trace in traces(root)}
    assert not lacks(root)


def test_one_row_leads_to_its_own_parents_alone(house: House) -> None:
    """A row of a batch was made of what it names, not of what its neighbours do."""
    made = judged(house)

    assert {("watched", "text")} == {
        (one.provider, one.influence) for one in ancestors_of(tree(house, made, 1))
    }
    assert 3 == len(tree(house, made).parents)


def test_a_parent_that_is_something_else_is_unknown(house: House) -> None:
    """Whoever names another leaf than the one that is there gets no answer of `no`."""
    declaration = house.declare()
    answer = house.answer(declaration)
    wrong = msgspec.structs.replace(parent(house, answer), index=1)
    later = msgspec.structs.replace(parent(house, answer), index=99)

    for one in (wrong, later):
        made = derive(house, declaration, [(messages("q", "a"), [one])])
        root = tree(house, made, 0)
        assert lacks(root)
        assert list(unknowns(root))
        declared = use_of(root)
        assert declared is not None
        uses = allowed_uses(root, declared, rulers(house))
        assert {"forbid"} == {use.effect for use in uses}


def rulers(house: House) -> Rulers:
    """Return who rules on uses in *house*."""
    return Rulers(
        law=house.law,
        words=house.words,
        ancestry=Ancestry(house.manifest),
        today=day_of(house.clock.now_ms()),
    )


def test_a_withdrawn_parent_is_shown_where_it_stands(house: House) -> None:
    """Whatever of a row's past was withdrawn says so."""
    made = judged(house)
    root = tree(house, made, 0)
    (source,) = [
        node
        for node in nodes_of(root)
        if isinstance(node, ExchangeNode) and node.receipt.provider.name == "open"
    ]

    house.withdraw(exchange=source.receipt.exchange)

    gone = [
        node
        for node in nodes_of(tree(house, made, 0))
        if isinstance(node, ExchangeNode) and node.withdrawn
    ]
    assert ["by grace: asked to"] == [node.withdrawn for node in gone]


def test_pipelines_without_end_are_not_followed_for_ever(house: House) -> None:
    """Beyond some dozens of steps the way up is unknown, and that is said."""
    declaration = house.declare()
    made = derive(house, declaration, [(messages("q", "a"), [])], transform="written")
    for _ in range(70):
        made = derive(house, declaration, [(messages("q", "a"), [parent(house, made)])])

    assert ["more than 64 derivations stand above"] == list(unknowns(tree(house, made, 0)))


def test_an_export_stands_below_its_dataset(house: House) -> None:
    """It has the dataset's teachers and uses; one that names none is unknown."""
    declaration = house.declare()
    house.answer(declaration)
    dataset = house.build(declaration).manifest_sha256
    root = lineage_of_export(export(house, dataset), sources(house))

    assert isinstance(root, ExportNode)
    assert ["open"] == [one.provider for one in ancestors_of(root)]
    assert use_of(root) == use_of(lineage_of_manifest(dataset, sources(house)))
    assert "export" == as_json(root)["kind"]
    assert lacks(lineage_of_export(export(house), sources(house)))
    house.index.catch_up(house.ledger)
    below = Below(house.index, house.register).of_manifests("dataset", "set", [dataset])
    assert ["dataset", "export"] == [one.stage.kind for one in below.touched]


def test_a_use_is_limited_by_the_strictest_and_said_of_one(house: House) -> None:
    """Of two teachers the one that forbids is named, with its clause; a yes counts."""
    declaration = house.declare()
    house.answer(declaration)
    house.answer(declaration, provider="held")
    house.approve(declaration, ("held", "training"))
    root = lineage_of_manifest(house.build(declaration).manifest_sha256, sources(house))
    declared = use_of(root)
    assert declared is not None

    before = {one.purpose: one for one in allowed_uses(root, declared, rulers(house))}
    house.decline(declaration)
    after = {one.purpose: one for one in allowed_uses(root, declared, rulers(house))}

    assert "permit" == before["train.sft"].effect
    # What was approved was training on the text of outputs, and nothing else.
    assert "hold" == before["train.preference"].effect
    limit = after["train.sft"].limit
    assert limit is not None
    assert limit.ancestor is not None
    assert ("held", ("held:training",)) == (limit.ancestor.provider, limit.clauses)


def test_a_graph_has_every_node_once_and_lines_between_them(house: House) -> None:
    """What is drawn is what the tree says, in boxes that do not lie on each other."""
    root = tree(house, judged(house), 0)

    graph = graph_of(root, Impact(kind="derivation", name="x"))
    svg = svg_of(graph)

    kinds = sorted(box.kind for box in graph.boxes.values())
    assert ["answer", "answer", "rows", "rows", "teacher", "teacher"] == kinds
    assert 1 == svg.count('class="judges"')
    assert svg.count("<rect") == len(graph.boxes)
    assert not _overlaps(svg)


def test_many_nodes_are_folded_into_one_that_counts_them() -> None:
    """A layer of a thousand is drawn as a dozen, and says how many more there are."""
    graph = Graph()
    top = graph.add(Box(key="top", kind="dataset", title="top", focus=True))
    for number in range(1_000):
        key = graph.add(Box(key=f"{number}", kind="student", title=f"s{number}"))
        graph.join(top, key)

    svg = svg_of(folded(graph))

    assert 13 == svg.count("<rect")
    assert "989 more students" in svg
    assert not _overlaps(svg)


def test_names_of_others_are_escaped_in_a_graph() -> None:
    """A name is text, whatever it holds."""
    graph = Graph()
    graph.add(Box(key="a", kind="student", title='<b onload="x">&\x1b'))

    svg = svg_of(graph)

    assert "<b" not in svg
    assert "\x1b" not in svg.replace("<title>", "")


def test_what_leads_back_to_itself_is_drawn_all_the_same() -> None:
    """A circle of manifests can't be made, and if it could it would stop nothing."""
    graph = Graph()
    for key in "abc":
        graph.add(Box(key=key, kind="student", title=key))
    for one, other in ("ab", "bc", "ca"):
        graph.join(one, other)

    assert 3 == svg_of(graph).count("<rect")


def _overlaps(svg: str) -> bool:
    boxes = [
        tuple(map(float, found))
        for found in re.findall(
            r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', svg
        )
    ]
    return any(
        one != other
        and one[0] < other[0] + other[2]
        and other[0] < one[0] + one[2]
        and one[1] < other[1] + other[3]
        and other[1] < one[1] + one[3]
        for one in boxes
        for other in boxes
    )


def test_missing_is_a_node_like_any() -> None:
    """What can't be found is drawn as unknown."""
    root: Node = Missing(what="nothing")

    assert "nothing" in svg_of(graph_of(root, Impact(kind="x", name="x")))
