"""Obligations are a closed list."""

from __future__ import annotations

from typing import get_args

from gateway.policy.obligation import OBLIGATIONS, Discharger


def test_every_obligation_has_one_discharger_and_a_sentence() -> None:
    """Nothing is asked that nobody is named for."""
    for name, obligation in OBLIGATIONS.items():
        assert name == obligation.name
        assert obligation.discharger in get_args(Discharger)
        assert obligation.sentence.endswith(".")
