"""The twin of `gateway.dataset.ruling`, for what only an aggregator's answers need."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from gateway.dataset.calls import Call, call_of_teacher
from gateway.dataset.manifest import Teacher
from gateway.dataset.ruling import question_of
from gateway.ident import Sha256
from gateway.intent.model import IntendedUse
from gateway.ledger.reading.register import Register
from gateway.receipt.model import PolicyPin
from tests.support.dataset import a_library, a_policy

USE = IntendedUse(purpose="train.sft", student="parser")
DAY = dt.date(2026, 11, 22)
LIBRARY = a_library(
    openai=a_policy("openai", "forbid"),
    together=a_policy("together", "permit"),
    **{"unlisted-model": a_policy("unlisted-model", "hold")},
)
CALL = Call(provider="open", model="m", operation="chat", policies=("open",))


@pytest.mark.parametrize(
    ("answered_by", "effect", "bound"),
    [
        (None, "permit", {"open"}),
        ("Together", "permit", {"open", "together"}),
        ("OpenAI", "forbid", {"open", "openai"}),
        ("Nobody's Cloud", "hold", {"open", "unlisted-model"}),
    ],
)
def test_who_answered_binds(answered_by: str | None, effect: str, bound: set[str]) -> None:
    """The host that made an answer is ruled on beside who was asked; a stranger holds."""
    call = dataclasses.replace(CALL, answered_by=answered_by)
    question = question_of(USE, call, DAY, Register())

    assert question.ruled(LIBRARY).effect.word == effect
    assert {policy.id for policy in question.bound(LIBRARY).policies} == bound


def test_who_answered_binds_a_students_teacher() -> None:
    """What a manifest lists as a teacher is ruled on again with the host that answered."""
    teacher = Teacher(
        provider="open",
        model="m",
        answered_by="Nobody's Cloud",
        operation="chat",
        rows=1,
        receipts=1,
        days=("2026-11-22",),
        effect="permit",
        policies=(PolicyPin(policy="open", version=1, sha256=Sha256("0" * 64)),),
    )
    call = call_of_teacher(teacher)

    assert call.answered_by == "Nobody's Cloud"
    assert question_of(USE, call, DAY, Register()).ruled(LIBRARY).effect.word == "hold"
