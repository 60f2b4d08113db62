"""The gate's list of reasons is the one that the docs give."""

from __future__ import annotations

from pathlib import Path

from gateway.dataset.gate.refusals import REFUSALS

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "dataset.md"


def test_every_reason_is_in_the_docs() -> None:
    """Whoever finds a code in a list of what was left out finds its meaning on one page."""
    page = PAGE.read_text(encoding="utf-8")

    assert [] == [
        code for code, told in REFUSALS.items() if f"| `{code}` | {told} |" not in page
    ]
