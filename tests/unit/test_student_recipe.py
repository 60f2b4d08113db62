"""Hyperparameters that no run can be made with are refused by their names."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.student.recipe import Lora, recipe_for


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", float("nan")),
        ("epochs", 1e9),
        ("steps", 0),
        ("steps", 10**9),
        ("seed", -1),
        ("batch", 0),
        ("max_length", 7),
        ("learning_rate", 1.0),
        ("learning_rate", float("nan")),
        ("warmup", 1.0),
        ("replay", -0.1),
        ("beta", 0.0),
        ("beta", float("inf")),
        ("ranks", 0),
        ("keep", 0),
        ("batch_tokens", 0),
        ("rows_at_once", 0),
        ("save_every", 0),
        ("measure_every", 0),
    ],
)
def test_a_number_out_of_range_is_named_with_its_range(name: str, value: float) -> None:
    """Whoever set one of many numbers wrong is told which, and what it may be."""
    said: dict[str, Any] = {name: value}

    with pytest.raises(ValueError, match=f"^{name} must be .*, not {value}") as wrong:
        recipe_for("tiny", **said)

    assert " or " not in str(wrong.value)


@pytest.mark.parametrize(("name", "value"), [("rank", 0), ("alpha", 0), ("dropout", 1.0)])
def test_a_number_of_an_adapter_out_of_range_is_named(name: str, value: float) -> None:
    """So it is with the numbers of an adapter."""
    said: dict[str, Any] = {name: value}

    with pytest.raises(ValueError, match=f"^{name} must be .*, not {value}"):
        Lora(**said)
