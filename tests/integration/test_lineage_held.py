"""A withdrawal at the first stage reaches the last one, and every gate on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.clock import day_of
from gateway.dataset.held import HeldWords
from gateway.errors import GateRefusedError
from gateway.ident import DerivationId, ExchangeId, Sha256, new_derivation_id
from gateway.lineage.impact import Below, Impact, as_json, sentences_of
from gateway.receipt.model import (
    Caller,
    Commitment,
    Declared,
    Derivation,
    DerivedRow,
    Parent,
    Receipt,
    Transform,
    Withdrawal,
)
from gateway.store.index.index import Index
from gateway.student.bases import tiny_base
from gateway.student.gate import Sources, StudentGate
from tests.support.chain import Chain
from tests.support.dataset import WRITER
from tests.support.evidence import TRUST


class Stages(Chain):
    """Two students: the second learned from what the first one answered."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked = self.ask(3, account="ada")
        self.first = self.collect("first", self.asked)
        self.cleaner = self.train("cleaner", self.first)
        self.answers = self.ask(
            2, provider="local", manifest=self.cleaner, policies=("own", "open")
        )
        self.second = self.collect("second", [*self.answers, *self.ask(1, account="bob")])
        self.reader = self.train("reader", self.second)
        self.apart = self.collect("apart", self.ask(2, account="eve"))

    def held(self) -> str:
        """Return the names of the stages that are held."""
        named = ("first", "cleaner", "second", "reader", "apart")
        return " ".join(one for one in named if self.words.held(getattr(self, one)))

    def below(self) -> Below:
        """Return what finds what came of things, in an index that is up to date."""
        self.index.catch_up(self.ledger)
        return Below(self.index, self.register)

    def leaf_of(self, receipt: Receipt) -> int:
        """Return where a receipt stands."""
        return self.places([receipt])[0]


@pytest.fixture
def stages(tmp_path: Path) -> Iterator[Stages]:
    """Return a house with two stages."""
    stages = Stages(tmp_path)
    yield stages
    stages.close()


def rows_of(impact: Impact) -> dict[str, tuple[int, int | None, int]]:
    """Return for each stage that is touched: how far, how many rows, how many answers."""
    return {one.stage.name: (one.stages, one.rows, one.answers) for one in impact.touched}


ALL = "first cleaner second reader"


def test_an_exchange_of_the_first_dataset_holds_all_that_follows(stages: Stages) -> None:
    """One answer is withdrawn, and with it dataset, student, answers, dataset and student."""
    assert "" == stages.held()

    stages.withdraw(exchange=stages.asked[1].exchange)

    assert ALL == stages.held()
    withdrawal = stages.words.held(stages.reader)
    assert withdrawal is not None
    assert (stages.asked[1].exchange, "grace") == (withdrawal.exchange, withdrawal.by)


def test_an_answer_of_the_student_holds_what_follows_it_alone(stages: Stages) -> None:
    """What stands above the withdrawn answer is not held by it."""
    stages.withdraw(exchange=stages.answers[0].exchange)

    assert "second reader" == stages.held()


def test_a_manifest_holds_what_stands_below_it(stages: Stages) -> None:
    """A student that is withdrawn takes the dataset of its answers along."""
    stages.withdraw(manifest=stages.cleaner)

    assert "cleaner second reader" == stages.held()


def test_a_declaration_holds_everything_that_was_declared_so(stages: Stages) -> None:
    """Datasets are held by the declaration they were built for."""
    stages.withdraw(declaration=stages.use.id)

    assert f"{ALL} apart" == stages.held()


def test_what_was_withdrawn_and_is_in_nothing_holds_nothing(stages: Stages) -> None:
    """An answer that no dataset took holds no dataset."""
    (alone,) = stages.ask(1)

    stages.withdraw(exchange=alone.exchange)

    assert "" == stages.held()


def test_a_gate_leaves_out_what_a_held_student_answers(stages: Stages) -> None:
    """A build after the withdrawal takes no row of the student, and says withdrawn."""
    stages.withdraw(exchange=stages.asked[0].exchange)

    built = stages.build(stages.use, "third")

    left_out = {one.reason: one.count for one in built.manifest.found.left_out}
    assert 3 == left_out["withdrawn"]
    assert all(teacher.manifest is None for teacher in built.manifest.found.teachers)


def sources_of(stages: Stages) -> Sources:
    """Return what the trainer's gate reads."""
    return Sources(
        trust=TRUST,
        law=stages.law,
        library=stages.library.digest,
        words=stages.words,
        manifest=stages.manifest,
        today=day_of(stages.clock.now_ms()),
        students=tuple,
        erased_of=stages.texts.erased_of,
        erased=0,
    )


def test_no_student_learns_from_what_is_held(stages: Stages) -> None:
    """A second dataset that was built before is refused by the trainer, whole and at once."""
    built = stages.build(stages.use, "folder")
    sources = sources_of(stages)
    admitted = StudentGate(None, tiny_base(0), sources).admit([built.folder])
    assert built.manifest_sha256 == admitted.datasets[0].manifest_sha256

    stages.withdraw(exchange=stages.asked[0].exchange)

    with pytest.raises(GateRefusedError) as refused:
        StudentGate(None, tiny_base(0), sources).admit([built.folder])
    assert "student.withdrawn" == refused.value.problem
    assert "grace: asked to" in refused.value.message


def test_a_base_that_is_held_is_no_base(stages: Stages) -> None:
    """A student of ours to begin from is refused with what taught it."""
    stages.withdraw(exchange=stages.asked[0].exchange)
    built = stages.build(stages.use, "folder")
    assert stages.words.held(built.manifest_sha256) is None
    base = msgspec.structs.replace(tiny_base(0), kind="local", manifest=stages.reader)

    with pytest.raises(GateRefusedError) as refused:
        StudentGate(None, base, sources_of(stages)).admit([built.folder])
    assert "student.withdrawn" == refused.value.problem


def test_a_dataset_that_appears_after_the_withdrawal_is_held_too(stages: Stages) -> None:
    """Whoever gets a stage past a gate gains nothing: it is held by what it was made of."""
    stages.withdraw(exchange=stages.asked[0].exchange)
    assert ALL == stages.held()

    late = stages.train("late", stages.collect("again", stages.answers))

    assert stages.words.held(late) is not None


def test_a_student_of_a_manifest_that_comes_later_is_held_by_it(stages: Stages) -> None:
    """What could not be found at first is asked about again when it is there."""
    dataset = stages.collect("late", stages.asked)
    early = stages.train("early", Sha256("c" * 64), dataset)
    assert stages.words.held(early) is None

    stages.withdraw(exchange=stages.asked[2].exchange)

    assert stages.words.held(early) is not None


def derive(stages: Stages, *parents: int, declaration: str | None = None) -> tuple[str, int]:
    """Append a derivation of rows that were made from the leaves *parents*."""
    name = new_derivation_id(stages.clock.now_ms())
    use = stages.use
    statement = Derivation(
        derivation=name,
        caller=Caller(principal="pipeline", project=use.project),
        declared=Declared(use=use.use, declaration=declaration or use.id),  # type: ignore[arg-type]
        transform=Transform(name="clean", version="1", kind="rewrite"),
        parents=tuple(
            Parent(exchange=ExchangeId("x-" + "0" * 26), index=index) for index in parents
        ),
        rows=(
            DerivedRow(
                row=Commitment(alg="sha256-salted", value=Sha256("b" * 64)),
                bytes=9,
                parents=tuple(range(len(parents))),
            ),
        ),
        at=stages.now,
        writer=WRITER,
    )
    return name, stages.state(statement)


def test_rows_of_a_pipeline_hold_what_was_made_of_them(stages: Stages) -> None:
    """Withdrawing a derivation, or what it was made from, reaches the datasets that hold it."""
    one, above = derive(stages, stages.leaf_of(stages.asked[0]))
    two, top = derive(stages, above)
    dataset = stages.collect("derived", stages.ask(1), list_of=(above, top))
    assert stages.words.held(dataset) is None

    stages.withdraw(derivation=DerivationId(ExchangeId(one)))

    assert stages.words.held(dataset) is not None
    impact = stages.below().of_leaf("derivation", two, top)
    assert ["derived"] == [one.stage.name for one in impact.touched]


def test_a_declaration_of_a_pipeline_holds_what_it_made(stages: Stages) -> None:
    """A manifest names what calls were declared for; what pipelines were, the leaves say."""
    other = stages.declare("data.rewrite", student=None)
    _, leaf = derive(stages, stages.leaf_of(stages.asked[0]), declaration=other.id)
    dataset = stages.collect("derived", stages.ask(1), list_of=(leaf,))
    assert ["derived"] == [
        one.stage.name for one in stages.below().of_declaration(other.id).touched
    ]

    stages.withdraw(declaration=other.id)

    assert stages.words.held(dataset) is not None
    assert "" == stages.held()


def test_impact_of_a_provider_says_rows_answers_and_how_far(stages: Stages) -> None:
    """Rows are those of the provider, further down those of students that it taught."""
    impact = stages.below().of_named("provider", "open")

    assert {
        "first": (0, 3, 0),
        "apart": (0, 2, 0),
        "second": (0, 3, 0),
        "cleaner": (1, None, 2),
        "reader": (1, None, 0),
    } == rows_of(impact)
    assert [(stages.use.id, "ada")] == [(one.id, one.owner) for one in impact.declarations]
    assert impact.actions[0][0] == "ada"


def test_impact_of_each_kind_finds_its_own(stages: Stages) -> None:
    """Models, clauses, policies, transforms: each is found by the name that manifests use."""
    below = stages.below()

    for kind, name, first in (
        ("model", "open-1-0826", "first apart second cleaner reader"),
        ("model", "local-1", "second reader"),
        ("clause", "own:training", "second reader"),
        ("policy", "own", "second reader"),
        ("provider", "nobody", ""),
    ):
        found = {one.stage.name for one in below.of_named(kind, name).touched}
        assert set(first.split()) == found, (kind, name)


def test_impact_of_a_principal_counts_the_leaves_that_are_theirs(stages: Stages) -> None:
    """What somebody asked is found in datasets without reading a leaf."""
    impact = stages.below().of_principal("ada")

    (first, *_) = impact.touched
    assert ("first", 3) == (first.stage.name, first.leaves)
    assert {"first", "cleaner", "second", "reader"} == set(rows_of(impact))
    assert {"apart"} == set(rows_of(stages.below().of_principal("eve")))


def test_impact_of_a_dataset_without_a_list_says_what_is_not_known(stages: Stages) -> None:
    """Of a dataset that does not say its leaves, nobody can tell whose answers are in it."""
    stages.collect("old", stages.ask(1, account="zoe"), lists=False)

    impact = stages.below().of_principal("zoe")

    assert ((), 1) == (impact.touched, len(impact.unknown))
    assert "dataset `old`" in impact.unknown[0]


def test_impact_of_a_dataset_with_half_a_list_says_so(stages: Stages) -> None:
    """A list that leaves something out is no list: the manifest says how many there are."""
    asked = stages.ask(2, account="zoe")
    stages.collect("cut", asked, list_of=stages.places(asked[:1]))

    (doubt,) = stages.below().of_principal("zoe").unknown

    assert "dataset `cut`" in doubt


def test_impact_of_a_stage_begins_with_itself(stages: Stages) -> None:
    """What came of a student: its answers, and what was made of those."""
    impact = stages.below().of_manifests("student", "cleaner", [stages.cleaner])

    assert {"cleaner": (0, None, 2), "second": (0, 2, 0), "reader": (1, None, 0)} == rows_of(
        impact
    )


def test_an_impact_is_told_in_sentences_and_as_json(stages: Stages) -> None:
    """People and programs are told the same."""
    stages.withdraw(manifest=stages.cleaner)
    impact = stages.below().of_named("provider", "open")

    told = list(sentences_of(impact))
    document = as_json(impact)

    assert f"dataset first: 3 of 3 rows, of ada ({stages.first[:12]}…)" == told[0]
    assert any("withdrawn by grace: asked to" in one for one in told)
    assert len(told) == len(document["touched"])
    assert msgspec.json.decode(msgspec.json.encode(document)) == document
    assert ["Nothing in this ledger came of provider nobody."] == list(
        sentences_of(stages.below().of_named("provider", "nobody"))
    )


def test_an_index_made_again_says_the_same(stages: Stages, tmp_path: Path) -> None:
    """The index holds nothing that the leaves don't say."""
    stages.withdraw(exchange=stages.asked[1].exchange)
    before = as_json(stages.below().of_named("provider", "open"))
    with contextlib.closing(Index(tmp_path / "again.db")) as again:
        again.catch_up(stages.ledger)
        after = as_json(Below(again, stages.register).of_named("provider", "open"))
        words = HeldWords(stages.register, again)

        assert before == after
        assert words.held(stages.reader) == stages.words.held(stages.reader)
        assert words.held(stages.apart) is None


def test_a_withdrawn_agreement_is_ruled_on_and_holds_nothing_of_itself(
    stages: Stages,
) -> None:
    """What needed the agreement is refused by its terms; what did not, stands."""
    stages.state(
        Withdrawal(
            by="grace", reason="replaced", agreement="order-1", at=stages.now, writer=WRITER
        )
    )

    assert "" == stages.held()
