"""Rows that a pipeline made are asked about like anything else, and packed."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import EvidenceError, NotFoundError
from gateway.lineage.answer import Answer
from gateway.lineage.gathering import ask_log
from gateway.lineage.holdings import About
from gateway.lineage.pack_format import PACK, PAGE
from gateway.lineage.pack_verify import verify_pack
from gateway.lineage.question import parse_question
from gateway.lineage.zipped import write_zip
from gateway.receipt.model import Parent, Written
from tests.integration.test_lineage_pack import signed_again
from tests.support.chain import VERSION, Chain
from tests.support.derived import Made, derive, messages, parent
from tests.support.evidence import TRUST


class Pipeline(Chain):
    """A house with rows in it: some by a student, some judged, one a person's own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.student = self.train("cleaner", self.collect("first", self.ask(2, account="ada")))
        (self.source,) = self.ask(1, account="bob", provider="watched")
        (self.judge,) = self.ask(1, account="eve", provider="open")
        (self.rewrite,) = self.ask(
            1, provider="local", manifest=self.student, policies=("own", "open")
        )
        self.inner = derive(
            self, self.use, [(messages("q", "a"), [parent(self, self.source)])], name="inner"
        )
        above = [parent(self, self.inner), parent(self, self.judge, "judge")]
        self.outer = derive(
            self,
            self.use,
            [
                (messages("q", "b"), above),
                (messages("q", "c"), []),
                (messages("q", "d"), [parent(self, self.rewrite)]),
            ],
            name="outer",
            written=Written(by="grace", licence="CC0-1.0", source="the style guide"),
        )

    def rows(self, made: Made, row: int | None = None) -> About:
        """Return how rows are asked about."""
        said, leaf = made
        name = said.derivation if row is None else f"{said.derivation}/{row}"
        return About(
            kind="derivation", name=name, derivation=said.derivation, row=row, leaf=leaf
        )

    def says(self, question: str, about: About) -> Answer:
        """Answer one question from the ledger."""
        log = self.sources_of_packs().log
        (found,) = ask_log(about, [parse_question(question)], log)
        return found


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Return a house with rows in it; nothing that is asked of it changes it."""
    pipeline = Pipeline(tmp_path_factory.mktemp("rows") / "house")
    yield pipeline
    pipeline.close()


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("distilled-from:watched", "yes"),
        ("distilled-from:open", "yes"),  # through the student that rewrote a row
        ("judged-by:open", "yes"),
        ("distilled-from:acme", "no"),
        ("principal:bob", "yes"),
        ("principal:nobody", "no"),
        ("policy:watched", "yes"),
        ("clause:closed:training", "no"),
    ],
)
def test_rows_are_answered_for(pipeline: Pipeline, question: str, says: str) -> None:
    """Whoever is above any of them, at any distance, is found; nobody else is."""
    assert says == pipeline.says(question, pipeline.rows(pipeline.outer)).says


def test_one_row_has_only_its_own_ancestors(pipeline: Pipeline) -> None:
    """A row that a person wrote is of no model; its neighbour is."""
    own = pipeline.says("distilled-from:*", pipeline.rows(pipeline.outer, 1))
    made = pipeline.says("distilled-from:*", pipeline.rows(pipeline.outer, 0))

    assert ("no", "yes") == (own.says, made.says)
    assert "1 row of" in own.rests_on[0]
    assert "grace" in own.rests_on[0]
    assert [("watched", "text")] == [(one.provider, one.influence) for one in made.findings]
    assert [("open", "judge")] == [(one.provider, one.influence) for one in made.judged]


def test_the_declaration_of_a_pipeline_counts(pipeline: Pipeline) -> None:
    """What a pipeline ran for is what its rows were made for, whoever answered."""
    found = pipeline.says(f"declared:{pipeline.use.id}", pipeline.rows(pipeline.outer, 1))

    assert "yes" == found.says
    assert [("rows", pipeline.outer[0].derivation, "ada")] == [
        (one.what, one.exchange, one.owner) for one in found.findings
    ]
    assert "ran for it" in found.sentences[1]


def test_a_parent_that_is_not_there_is_no_no(tmp_path: Path) -> None:
    """Where a row names an answer that the log doesn't hold at that place, nobody can tell."""
    chain = Pipeline(tmp_path / "house")
    gone = Parent(exchange=chain.judge.exchange, index=0)
    made = derive(chain, chain.use, [(messages("q", "x"), [gone])], name="cut")

    found = chain.says("distilled-from:acme", chain.rows(made))

    assert "can't tell" == found.says
    assert "leaf 0 is not at hand, or no answer" in found.unknown[0]
    chain.close()


def test_a_pack_of_rows_gives_the_answers_of_the_ledger(pipeline: Pipeline) -> None:
    """Rows, all that stands above them and what people said of it verify offline."""
    questions = ("distilled-from:watched", "judged-by:open", "principal:nobody")
    about = pipeline.rows(pipeline.outer)

    packed = pipeline.pack(about, *questions, name="rows")
    verified = verify_pack(packed.path, TRUST, VERSION)

    asked = [parse_question(one) for one in questions]
    assert ask_log(about, asked, pipeline.sources_of_packs().log) == verified.answers
    assert ["yes", "yes", "no"] == [one.says for one in verified.answers]
    assert 2 == len(verified.holdings.derivations)
    with zipfile.ZipFile(packed.path) as zipped:
        page = zipped.read(PAGE).decode()
    assert f"3 rows of {pipeline.outer[0].derivation}" in page
    assert "says grace" in page


def test_no_leaf_above_rows_can_be_hidden(pipeline: Pipeline, tmp_path: Path) -> None:
    """A pack that leaves an ancestor out of its list gives another answer, whoever signs."""
    packed = pipeline.pack(
        pipeline.rows(pipeline.outer, 0), "distilled-from:watched", name="hidden"
    )
    with zipfile.ZipFile(packed.path) as zipped:
        files = {name: zipped.read(name) for name in zipped.namelist()}

    def without(facts: dict[str, object]) -> None:
        facts["about"]["leaves"] = {}  # type: ignore[index]

    path = tmp_path / "pack.zip"
    write_zip(path, list(signed_again(files, without).items()))

    with pytest.raises(EvidenceError, match=PACK):
        verify_pack(path, TRUST, VERSION)


def test_rows_that_nobody_made_are_not_there(pipeline: Pipeline) -> None:
    """A derivation that the log doesn't hold is refused by name."""
    about = About(kind="derivation", name="d-none", derivation="d-none")

    with pytest.raises(NotFoundError, match="d-none"):
        pipeline.says("distilled-from:*", about)
