"""Obligations are a closed list."""

from __future__ import annotations

from typing import get_args

import pytest

from gateway.policy.obligation import (
    OBLIGATIONS,
    Discharger,
    obligation_of,
    sentence_of,
    values_of,
)


def test_every_obligation_has_one_discharger_and_a_sentence() -> None:
    """Nothing is asked that nobody is named for."""
    for name, obligation in OBLIGATIONS.items():
        assert name == obligation.name
        assert obligation.discharger in get_args(Discharger)
        assert obligation.sentence.endswith(".")
        assert ("{value}" in obligation.sentence) is (obligation.takes != "nothing")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no-cache", ""),
        ("attribute=Built with Acme", "Built with Acme"),
        ("attribute=a=b", "a=b"),
        ("delete-by-days=30", "30"),
        ("name-prefix=Llama", "Llama"),
    ],
)
def test_an_obligation_is_read_from_the_wire(text: str, value: str) -> None:
    """A name, or a name and its value, is an obligation that somebody discharges."""
    found = obligation_of(text)

    assert found is not None
    assert (found[0].name, found[1]) == (text.split("=", maxsplit=1)[0], value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sing",
        "No-cache",
        "no-cache=",
        "no-cache=1",
        "attribute",
        "attribute=",
        "attribute= a",
        "attribute=a ",
        "attribute=a, b",
        "attribute=a\nb",
        "delete-by-days",
        "delete-by-days=",
        "delete-by-days=0",
        "delete-by-days=07",
        "delete-by-days=-1",
        "delete-by-days=1.5",
        "delete-by-days=٣",
        "delete-by-days=100000",
    ],
)
def test_what_nobody_could_discharge_is_none(text: str) -> None:
    """An unknown name, a missing value or an odd one is no obligation."""
    assert obligation_of(text) is None
    assert sentence_of(text) == text


def test_a_duty_is_told_in_a_sentence_with_its_value() -> None:
    """Whoever must do it reads what, and for how long."""
    assert sentence_of("delete-by-days=30").startswith("The output is erased 30 days after")
    assert sentence_of("attribute=Built with Acme").endswith(
        "says prominently: Built with Acme."
    )


def test_values_are_found_by_name() -> None:
    """A gate asks for the values of one obligation among many."""
    some = ("attribute=a", "no-cache", "attribute=b", "attributes=c")

    assert values_of("attribute", some) == ("a", "b")
    assert values_of("name-prefix", some) == ()
