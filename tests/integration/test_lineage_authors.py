"""Rows that people wrote stand in the tree, in the graph and in the shares."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from gateway.cli.lineage_tree import tree_of
from gateway.dataset.manifest import WrittenBy
from gateway.ident import Sha256
from gateway.lineage.document import as_json
from gateway.lineage.graph import Box, Graph, graph_of, svg_of
from gateway.lineage.impact import Impact
from gateway.lineage.nodes import DerivationNode, ModelNode, Node
from gateway.lineage.page import Told, lineage_html
from gateway.lineage.tree import (
    Sources,
    lineage_of_derivation,
    lineage_of_manifest,
    statements_in,
)
from gateway.lineage.uses import ancestors_of
from gateway.lineage.ways import authors_of
from gateway.receipt.model import Manifest, Written
from tests.support.chain import Chain
from tests.support.derived import derive, messages, parent

NOTHING = Impact(kind="student", name="reader")
TICKETS = WrittenBy(by="ada", licence="CC-BY-4.0", source="support tickets", rows=1)


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """Return a house with an empty chain."""
    chain = Chain(tmp_path / "house")
    yield chain
    chain.close()


def sources(chain: Chain) -> Sources:
    """Return what lineage reads in *chain*."""

    def manifest(payload: Sha256) -> tuple[int | None, Manifest] | None:
        found = chain.manifest(payload)
        return None if found is None else (chain.index_of(payload), found)

    return Sources(
        manifest=manifest,
        words=chain.register,
        folder=lambda _: None,
        statement=statements_in(chain.leaf),
    )


def student(chain: Chain, *, teachers: int = 2) -> ModelNode:
    """Return a student of a few teachers and of one person's row."""
    answers = [one for at in range(teachers) for one in chain.ask(1, provider=f"vendor-{at}")]
    dataset = chain.collect("first", answers, written=[TICKETS])
    node = lineage_of_manifest(chain.train("reader", dataset), sources(chain))
    assert isinstance(node, ModelNode)
    return node


def written(chain: Chain) -> DerivationNode:
    """Return rows of a pipeline: two of a person's own, one made of an answer."""
    (answer,) = chain.ask(1)
    said = Written(by="grace", licence="CC0-1.0", source="the style guide")
    above = [parent(chain, answer)]
    rows = [(messages("q", "a"), []), (messages("q", "b"), []), (messages("q", "c"), above)]
    made, at = derive(chain, chain.use, rows, written=said)
    return lineage_of_derivation(made, at, sources(chain))


def printed(node: Node, width: int = 160) -> str:
    """Return a tree as a terminal shows it."""
    told = io.StringIO()
    Console(file=told, width=width, highlight=False, markup=False).print(tree_of(node))
    return told.getvalue()


def test_authors_of_a_dataset_are_nodes_with_their_share(chain: Chain) -> None:
    """Who says so, the licence, the source and the share stand in every form of a lineage."""
    root = student(chain)

    graph = graph_of(root, NOTHING)

    (box,) = [one for one in graph.boxes.values() if one.kind == "people"]
    assert ("says ada", ("from support tickets", "licence CC-BY-4.0")) == (box.title, box.lines)
    assert "1 (50 %)" in [one.label for one in graph.lines.values() if one.source == box.key]
    assert "people, says ada: 1 of 2 rows (50 %)" in printed(root)
    (dataset,) = as_json(root)["parents"]
    assert [("ada", 1, 2, 0.5)] == [
        (one["by"], one["rows"], one["of_rows"], one["share"]) for one in dataset["written_by"]
    ]
    assert [(1, 1)] == [(author.rows, away) for author, _, away in authors_of([root])]


def test_authors_of_derived_rows_are_nodes(chain: Chain) -> None:
    """Rows without parents are somebody's words; those made of answers are not counted."""
    root = written(chain)

    graph = graph_of(root, NOTHING)

    (box,) = [one for one in graph.boxes.values() if one.kind == "people"]
    assert "2 (66.7 %)" in [one.label for one in graph.lines.values() if one.source == box.key]
    assert "people, says grace: 2 of 3 rows (66.7 %)" in printed(root)
    assert 2 == as_json(root)["written_by"][0]["rows"]


def test_the_page_tells_of_authors_beside_teachers(chain: Chain) -> None:
    """The table of a page has a row for each, escaped like all words of others."""
    root = student(chain)
    page = Told(
        title="student reader",
        root=root,
        ancestors=ancestors_of(root),
        authors=authors_of([root]),
        allowed=(),
        declared="",
        impact=NOTHING,
        held="",
        held_stages=(),
        unknown=(),
        as_of="today",
    )

    text = lineage_html(page)

    assert "People, says ada" in text
    assert "licence CC-BY-4.0" in text


def test_a_crowd_of_teachers_is_told_in_one_branch(chain: Chain) -> None:
    """Those of most rows stand alone, the rest are counted; what leads up is never folded."""
    told = printed(student(chain, teachers=15), width=80)

    assert 11 == len(re.findall(r"teacher vendor-", told))
    assert "4 more teachers, of 4 rows" in told
    assert all(len(line) <= 80 for line in told.splitlines())


@pytest.mark.parametrize("name", ["W" * 90, "読み取り" * 20, "a-long-name-" * 9, "", "x"])
def test_no_name_is_wider_than_its_node(name: str) -> None:
    """Titles have two lines at most, wide letters count twice, and what is cut off says so."""
    graph = Graph(boxes={"a": Box(key="a", kind="dataset", title=name)})

    lines = re.findall(r'<text class="title"[^>]*>([^<]*)<', svg_of(graph))

    assert 1 <= len(lines) <= 2
    assert all(len(line) <= 23 for line in lines)
    if len(name) > 46:
        assert lines[-1].endswith("…")
