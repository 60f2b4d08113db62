"""What a row of each kind looks like."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.canonical import canonical_json
from gateway.dataset.shape import check_shape
from gateway.errors import MalformedReceiptError

ASKED = {"content": "1 + 1", "role": "user"}


@pytest.mark.parametrize("more", [{}, {"answer": "2"}, {"tools": []}])
def test_a_prompt_may_say_what_its_verifier_compares_with(more: dict[str, Any]) -> None:
    """A prompt with its verifier is whole with an answer to compare with, and without."""
    row = {"prompt": [ASKED], "verifier": "exact"} | more

    assert (canonical_json(ASKED),) == check_shape(canonical_json(row), "prompt")


def test_what_a_verifier_compares_with_is_a_text() -> None:
    """Loaders hold a column of one type; pipelines hand texts in."""
    row = {"prompt": [ASKED], "verifier": "exact", "answer": [2]}

    with pytest.raises(MalformedReceiptError, match="answer"):
        check_shape(canonical_json(row), "prompt")
