"""The page on the policy language names every key and word of the language."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.policy.model import Citation, Document, Read, WrittenClause, WrittenPolicy
from gateway.policy.obligation import OBLIGATIONS
from gateway.policy.source import read
from gateway.policy.vocabulary import FACTS

PAGE = Path(__file__).parents[2] / "docs" / "policy-language.md"


def page() -> str:
    """Return the page's text."""
    return PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("struct", [WrittenPolicy, WrittenClause, Citation, Document, Read])
def test_every_key_is_explained(struct: type[msgspec.Struct]) -> None:
    """Each key of the files stands on the page as code."""
    keys = [field.encode_name for field in msgspec.structs.fields(struct)]

    assert [key for key in keys if f"`{key}`" not in page()] == []


def test_every_fact_and_obligation_is_explained() -> None:
    """Each fact and each obligation has its row."""
    assert [name for name in [*FACTS, *OBLIGATIONS] if f"`{name}`" not in page()] == []
    for obligation in OBLIGATIONS.values():
        row = next(r for r in page().splitlines() if r.startswith(f"| `{obligation.name}` |"))
        assert obligation.discharger in row


def test_the_examples_on_the_page_are_read() -> None:
    """Every YAML example is one that the strict reader takes."""
    examples = [part.split("```", 1)[0] for part in page().split("```yaml\n")[1:]]

    assert len(examples) >= 5
    for example in examples:
        read(example, "docs/policy-language.md")
