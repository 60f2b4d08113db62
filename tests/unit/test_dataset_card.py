"""The card says in words what whoever takes the rows takes on."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dataset.card import card_of
from gateway.dataset.manifest import (
    DatasetManifest,
    Findings,
    Influence,
    MadeBy,
    Parameters,
    Split,
    Teacher,
    WrittenBy,
)
from gateway.dataset.provenance import Metadata
from gateway.ident import DeclarationId, Sha256
from gateway.intent.model import IntendedUse


def a_manifest(*obligations: str) -> DatasetManifest:
    """Return the manifest of a dataset that comes with *obligations*."""
    return DatasetManifest(
        asked=Parameters(
            dataset="set", declaration=DeclarationId("use-0123456789abcdef0123"), project="p"
        ),
        found=Findings(
            rows=1,
            teachers=(),
            use=IntendedUse(purpose="train.sft"),
            day="2026-11-22",
            library=Sha256("a" * 64),
            obligations=obligations,
        ),
        dependencies=(),
        subjects=(),
        metadata=Metadata(invocation_id="i", started_on="", finished_on=""),
        version="0",
    )


def test_each_duty_is_a_sentence() -> None:
    """A reader needs no list of ours to know what each obligation asks, value and all."""
    card = card_of(a_manifest("attribute=Built with Llama", "delete-by-days=30", "flow-down"))

    assert (
        "* `attribute=Built with Llama`: Whatever is handed on says prominently: Built" in card
    )
    assert "* `delete-by-days=30`: The output is erased 30 days after it was made" in card
    assert "* `flow-down`: Whoever receives the student or the data is bound" in card


def test_a_duty_that_nobody_here_knows_is_named_as_it_is() -> None:
    """A newer gateway's obligation is not lost."""
    assert "* `sing=loudly`: sing=loudly" in card_of(a_manifest("sing=loudly"))


def test_no_duty_is_no_list() -> None:
    """Where nothing is asked nothing is said."""
    assert "Obligations" not in card_of(a_manifest())


def a_teacher(influence: Influence) -> Teacher:
    """Return a teacher that reached three rows."""
    return Teacher(
        provider="open",
        operation="chat",
        rows=3,
        receipts=3,
        days=("2026-11-22",),
        effect="permit",
        influence=influence,
    )


def with_found(**found: Any) -> DatasetManifest:
    """Return a manifest that found this."""
    manifest = a_manifest()
    changed = msgspec.structs.replace(manifest.found, **found)
    return msgspec.structs.replace(manifest, found=changed)


def test_a_judge_is_told_from_a_voice() -> None:
    """Whoever reads sees which teachers' words stand in rows, and which only judged."""
    both = card_of(with_found(teachers=(a_teacher("text"), a_teacher("judge"))))

    assert "| reached the rows as |" in both
    assert "| words |" in both
    assert "| judge |" in both
    assert "reached the rows as" not in card_of(with_found(teachers=(a_teacher("text"),)))


def test_what_made_rows_and_whose_words_they_are_is_said() -> None:
    """Transforms on the way and declared words are named with the rows that they reached."""
    card = card_of(
        with_found(
            made_by=(MadeBy(name="to|csv", version="2", kind="extract", rows=1),),
            written_by=(WrittenBy(by="ada", licence="CC0-1.0", source="our desk", rows=1),),
        )
    )

    assert "| to\\|csv | 2 | extract | 1 |" in card
    assert "| ada | our desk | CC0-1.0 | 1 |" in card
    assert "made in a pipeline" in card


def test_a_part_that_was_kept_apart_is_named() -> None:
    """The card says which file is for training, which was held out, and how they were drawn."""
    found = with_found(
        splits=(Split(name="train", rows=9, clusters=3), Split(name="held-out", rows=1))
    )
    asked = msgspec.structs.replace(found.asked, held_out="0.1", seed=7)
    card = card_of(msgspec.structs.replace(found, asked=asked))

    assert "| train | `rows.jsonl` | `train` | 9 | 3 |" in card
    assert "| held-out | `held-out.jsonl` | `test` | 1 | not counted |" in card
    assert "A share of `0.1` of the groups" in card
    assert "drawn with seed 7" in card


def test_a_snapshot_names_the_one_before() -> None:
    """A snapshot of a feed says what it follows, and from which leaf on it took rows."""
    manifest = a_manifest()
    asked = msgspec.structs.replace(manifest.asked, follows=Sha256("b" * 64), after=17)
    card = card_of(msgspec.structs.replace(manifest, asked=asked))

    assert f"It follows `{'b' * 64}`" in card
    assert "from leaf 17 on" in card
