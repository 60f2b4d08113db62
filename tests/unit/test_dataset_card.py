"""The card says in words what whoever takes the rows takes on."""

from __future__ import annotations

from gateway.dataset.card import card_of
from gateway.dataset.manifest import DatasetManifest, Findings, Metadata, Parameters
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
