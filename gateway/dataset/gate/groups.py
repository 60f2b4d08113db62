"""Calls that are ruled on alike, and what was ruled for them."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.dataset.calls import Call, call_of
from gateway.dataset.gate.refusals import LeftOut
from gateway.dataset.manifest import Influence
from gateway.ident import Sha256
from gateway.receipt.model import EffectName, PolicyPin, Reason, Receipt, Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Calls that are ruled on alike."""

    call: Call
    manifest: Sha256 | None
    day: str
    influence: Influence = "text"
    """How what was answered reached rows: that decides which uses are ruled on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuledAgain:
    """What was ruled for a group, over every teacher and both days."""

    effect: EffectName
    left_out: LeftOut | None
    reasons: tuple[Reason, ...] = ()
    obligations: tuple[str, ...] = ()
    policies: tuple[PolicyPin, ...] = ()
    verdicts: tuple[int, ...] = ()


def group_of(receipt: Receipt | Refusal, influence: Influence = "text") -> Group:
    """Return the group of calls that *receipt* is ruled on with."""
    return Group(
        call=call_of(receipt),
        manifest=receipt.model.manifest,
        day=receipt.received[:10],
        influence=influence,
    )
