"""Laws of days as people write them."""

from __future__ import annotations

import argparse
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.arguments import day
from gateway.day import parse_day


@given(st.dates())
def test_a_day_is_read_as_it_is_written(one: dt.date) -> None:
    """Every day comes back from `YYYY-MM-DD`, at the command line too."""
    assert one == parse_day(one.isoformat()) == day(one.isoformat())


@pytest.mark.parametrize(
    "text",
    ["20261122", "2026-W47-7", "2026-1-2", "2026-02-30", "", " 2026-11-22", "٢٠٢٦-١١-٢٢"],
)
def test_nothing_else_is_a_day(text: str) -> None:
    """Other ways to write a day are refused, at the command line with a word on how."""
    assert parse_day(text) is None
    with pytest.raises(argparse.ArgumentTypeError, match="YYYY-MM-DD"):
        day(text)


@given(st.text())
def test_any_text_is_a_day_or_none(text: str) -> None:
    """No text breaks the reader."""
    found = parse_day(text)

    assert found is None or found.isoformat() == text
