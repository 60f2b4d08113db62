"""Laws of what ties several attempts at one thing together."""

from __future__ import annotations

import pytest

from gateway.exchange.attempt import attempt_of
from gateway.receipt.model import AttemptFacts

KEY = b"k" * 32


def made(body: bytes | None = b"body", principal: str = "ada", **headers: str) -> AttemptFacts:
    """Return the facts of an attempt."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    found = attempt_of(named, principal, body, KEY)
    assert found is not None
    return found


def test_the_same_thing_has_the_same_commitment() -> None:
    """Principal and idempotency key, else principal and body, say what is the same."""
    first = made(x_stainless_retry_count="0")
    second = made(x_stainless_retry_count="1")
    key = made(idempotency_key="one", x_stainless_retry_count="1")

    assert (0, 1) == (first.number, second.number)
    assert first.of == second.of
    assert first.of != made(b"other", x_stainless_retry_count="0").of
    assert first.of != made(principal="bob", x_stainless_retry_count="0").of
    assert key.of == made(b"other", idempotency_key="one").of
    assert key.of != first.of
    assert key.of != made(idempotency_key="two").of
    assert 1 == key.number
    assert 0 == made(idempotency_key="one").number


def test_a_commitment_tells_nothing_without_the_key() -> None:
    """Neither the idempotency key nor the body can be tried against it."""
    other = attempt_of({"idempotency-key": "one"}, "ada", b"", b"j" * 32)

    assert other is not None
    assert other.of != made(idempotency_key="one").of
    assert "one" not in str(made(idempotency_key="one").of)


@pytest.mark.parametrize("said", ["", "x", "-1", "1.0", "٣", "99999", "+1", " 1"])
def test_a_strange_count_is_none(said: str) -> None:
    """A header that is no small number says nothing."""
    assert attempt_of({"x-stainless-retry-count": said}, "ada", b"b", KEY) is None
    assert 0 == made(idempotency_key="k", x_stainless_retry_count=said).number


def test_what_nobody_holds_ties_nothing() -> None:
    """Of a body that only passes, the number is told and nothing else."""
    assert AttemptFacts(number=2) == made(None, x_stainless_retry_count="2")
    assert AttemptFacts(number=2) == made(b"", x_stainless_retry_count="2")
    assert attempt_of({}, "ada", b"body", KEY) is None
