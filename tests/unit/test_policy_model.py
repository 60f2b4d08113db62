"""Effects are ordered, and a policy knows which clauses bear on a purpose."""

from __future__ import annotations

from gateway.policy.model import EFFECTS, Effect
from tests.support.policies import acme


def test_the_larger_effect_is_the_stricter() -> None:
    """Permit, hold, forbid, in this order, each with its word."""
    assert Effect.PERMIT < Effect.HOLD < Effect.FORBID
    assert [effect.word for effect in Effect] == ["permit", "hold", "forbid"]
    assert {effect.word: effect for effect in Effect} == dict(EFFECTS)


def test_clauses_are_found_by_purpose() -> None:
    """Only clauses that may speak to a purpose are asked; without one, all are."""
    policy = acme()

    assert [clause.id for clause, _ in policy.about("inference")] == ["may-use"]
    assert [clause.id for clause, _ in policy.about("train.sft")] == ["no-rivals", "may-train"]
    assert policy.about("publish.dataset") == ()
    assert [clause.id for clause, _ in policy.about(None)] == [
        "may-use",
        "no-rivals",
        "may-train",
    ]
    assert len(policy.about("gardening")) == len(policy.clauses)
