"""Laws of the training manifest and of what is drawn from it: card, report, pictures."""

from __future__ import annotations

import msgspec
import pytest

from gateway.canonical import canonical_json
from gateway.dataset.manifest import (
    DATASET_MANIFEST,
    LeftOut,
    Teacher,
    manifest_dependency,
    parse_training,
)
from gateway.dataset.provenance import Metadata
from gateway.errors import MalformedReceiptError
from gateway.ident import DeclarationId, Sha256
from gateway.intent.model import IntendedUse
from gateway.receipt.model import PolicyPin, Subject
from gateway.student.card import format_card, shares
from gateway.student.manifest import (
    Asked,
    Base,
    Findings,
    Losses,
    ModelManifest,
    SnapshotFacts,
    base_dependencies,
    losses_of,
    parse_model_manifest,
    recipe_sha256,
    statement_of,
)
from gateway.student.picture import draw_loss
from gateway.student.progress import Step
from gateway.student.recipe import recipe_for
from gateway.student.report import Course, format_report

DIGEST = Sha256("a" * 64)
TINY = Base(kind="tiny", name="tiny", sha256=DIGEST, licence="apache-2.0")
TEACHER = Teacher(
    provider="open",
    model="open-1",
    operation="chat",
    rows=3,
    receipts=3,
    days=("2026-11-22",),
    effect="permit",
    policies=(PolicyPin(policy="open", version=1, sha256=DIGEST),),
)


def a_manifest(**found: object) -> ModelManifest:
    """Return a whole training manifest."""
    findings = Findings(
        recipe={"batch": "16", "learning_rate": "0.003", "seed": "0"},
        snapshot=SnapshotFacts(
            sha256=DIGEST,
            rows=3,
            tokens=30,
            learned=12,
            left_out=(LeftOut(reason="too-long", count=1),),
            template_sha256=DIGEST,
            tokenizer_sha256=DIGEST,
        ),
        steps=57,
        losses=Losses(first="6.9000", last="1.2000"),
        use=IntendedUse(purpose="train.sft", student="parser", competes=False),
        obligations=("keep-ai-label",),
        teachers=(TEACHER,),
        day="2026-11-22",
        library=DIGEST,
        device="cpu",
        versions={"torch": "2.13.0"},
    )
    return ModelManifest(
        asked=Asked(
            student="parser",
            declarations=(DeclarationId("use-0123456789abcdef0123"),),
            datasets=("set",),
            base=TINY,
        ),
        found=msgspec.structs.replace(findings, **found),
        dependencies=(manifest_dependency("dataset:set", DIGEST, DATASET_MANIFEST),),
        subjects=(Subject(name="model.safetensors", digest={"sha256": DIGEST}),),
        metadata=Metadata(
            invocation_id="run-1",
            started_on="2026-11-22T10:00:00.000Z",
            finished_on="2026-11-22T10:05:00.000Z",
        ),
        version="0.1.0",
    )


def test_what_is_written_can_be_read() -> None:
    """A manifest comes back from its statement as it was."""
    manifest = a_manifest()
    statement = msgspec.json.decode(canonical_json(statement_of(manifest)))

    assert manifest == parse_model_manifest(statement)


def test_lineage_reads_it_too() -> None:
    """The dataset room finds the student and its parents in the same statement."""
    training = parse_training(statement_of(a_manifest()))

    assert training.student == "parser"
    assert [parent.digest["sha256"] for parent in training.parents()] == [DIGEST]
    assert list(training.bases()) == []


@pytest.mark.parametrize("hole", ["subject", "predicate", "predicateType"])
def test_a_statement_with_a_hole_is_refused(hole: str) -> None:
    """A statement that lacks a part is malformed, not an error of the language."""
    statement = statement_of(a_manifest())
    del statement[hole]

    with pytest.raises(MalformedReceiptError):
        parse_model_manifest(statement)


def test_a_base_is_a_parent_unless_chance_made_it() -> None:
    """A tiny base is nobody's work; one from outside and a student of ours are named."""
    outside = Base(kind="hub", name="org/name", sha256=DIGEST, licence="mit")
    ours = Base(kind="local", name="first", sha256=DIGEST, manifest=Sha256("b" * 64))

    assert base_dependencies(TINY) == ()
    assert [one.kind for one in base_dependencies(outside)] == ["base-model"]
    assert base_dependencies(ours)[0].digest == {"sha256": "b" * 64}


def test_another_base_or_number_is_another_run() -> None:
    """Everything that decides the outcome is in the digest that a resumed run must have."""
    recipe = recipe_for("tiny")
    other = recipe_for("tiny", seed=1)
    elsewhere = msgspec.structs.replace(TINY, sha256=Sha256("b" * 64))

    assert recipe_sha256(recipe, TINY) == recipe_sha256(recipe_for("tiny"), TINY)
    assert recipe_sha256(recipe, TINY) != recipe_sha256(other, TINY)
    assert recipe_sha256(recipe, TINY) != recipe_sha256(recipe, elsewhere)


def test_losses_are_told_as_text() -> None:
    """The signed bytes hold no fractions of the machine's own."""
    assert Losses(first="4.0000", last="1.0000") == losses_of([4.0, 2.0, 1.0])


def test_the_card_names_teachers_terms_and_duties() -> None:
    """A reader of the card learns who taught, by which share, under which terms."""
    card = format_card(a_manifest(), ())

    assert card.startswith('---\nmodel_name: "parser"\n')
    assert "\nlicense: other\n" in card
    assert "| open | open-1 | 3 | 100% | permit | open v1 |" in card
    assert "* keep-ai-label: Data and models made from the output stay labelled" in card
    assert "1 rows: too-long" in card


def test_hostile_names_stay_in_their_cells() -> None:
    """What a provider calls its model is neither markup in the card nor in the report."""
    hostile = msgspec.structs.replace(TEACHER, model="a|b](x)<script>\n# c")
    manifest = a_manifest(teachers=(hostile,))

    assert "a\\|b\\](x)\\<script\\>�# c" in format_card(manifest, ())
    assert "<script>" not in format_report(manifest, (), Course())


def test_shares_add_up_and_the_largest_leads() -> None:
    """Teachers are listed by how much they taught."""
    small = msgspec.structs.replace(TEACHER, provider="small", rows=1)
    listed = shares([small, TEACHER])

    assert [teacher.provider for teacher, _ in listed] == ["open", "small"]
    assert sum(share for _, share in listed) == 1


def test_the_picture_shows_every_step() -> None:
    """One point a step, and a line through them."""
    steps = [
        Step(
            step=number,
            loss=5.0 / number,
            learning_rate=0.1,
            gradient_norm=1.0,
            accuracy=0.5,
            tokens=number,
            seconds=float(number),
        )
        for number in range(1, 11)
    ]
    picture = draw_loss(steps, [])
    page = format_report(a_manifest(), (), Course(steps=steps))

    assert picture.count('<circle class="dots" cx') == 10 + 1  # and one in the legend
    assert picture.count("<polyline") == 1
    assert "<script" not in page
