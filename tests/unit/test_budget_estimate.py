"""Laws of what a request may come to, and of what it came to."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.budget.estimate import LinesSum, came_to, estimate, images_of
from gateway.budget.prices import Amounts
from gateway.limits import AMOUNT_MAX, OUTPUT_TOKENS_ASSUMED, REFERENCED_TOKENS_ASSUMED
from gateway.provider.model import (
    GENERATES,
    Answer,
    Choice,
    Operation,
    ProviderCall,
    Resource,
    Unit,
    Usage,
)


def call(body: dict[str, Any] | None = None, **more: Any) -> ProviderCall:
    """Return a call."""
    known: dict[str, Any] = {"provider": "p", "operation": Operation.CHAT, "body": body}
    return ProviderCall(**known | more)


def tokens(body: dict[str, Any] | None, size: int = 100, **more: Any) -> tuple[int, int]:
    """Return how many tokens in and out a call is taken to come to."""
    usage = estimate(call(body, **more), size, None, None).usage
    assert usage.input_tokens is not None
    assert usage.output_tokens is not None
    return usage.input_tokens, usage.output_tokens


@pytest.mark.parametrize(
    ("body", "answered"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_output_tokens": 7}, 7),
        ({"max_tokens_to_sample": 8}, 8),
        ({"max_tokens": 5, "max_completion_tokens": 9}, 9),
        ({"generationConfig": {"maxOutputTokens": 10, "candidateCount": 2}}, 20),
        ({"options": {"num_predict": 11}}, 11),
        ({"max_tokens": 5, "n": 3}, 15),
        ({"max_tokens": 5, "n": 2, "best_of": 4}, 20),
        ({}, OUTPUT_TOKENS_ASSUMED),
        ({"max_tokens": None}, OUTPUT_TOKENS_ASSUMED),
        ({"max_tokens": "9"}, OUTPUT_TOKENS_ASSUMED),
        ({"max_tokens": True}, OUTPUT_TOKENS_ASSUMED),
        ({"max_tokens": -1}, OUTPUT_TOKENS_ASSUMED),
        ({"max_tokens": 10**40, "n": 10**40}, AMOUNT_MAX),
        ({"max_tokens": 5, "n": 0}, 5),
    ],
)
def test_an_answer_is_taken_to_be_as_long_as_it_may(
    body: dict[str, Any], answered: int
) -> None:
    """What the request says bounds its answer, in whatever format; else a number stands in."""
    assert (100, answered) == tokens(body)


def test_the_longest_answer_of_a_model_may_be_known() -> None:
    """Where prices say how long an answer can be, that stands in."""
    assert 300 == estimate(call({"n": 3}), 9, None, 100).usage.output_tokens
    assert 7 == estimate(call({"max_tokens": 7}), 9, None, 100).usage.output_tokens


def test_a_count_replaces_bytes() -> None:
    """Where somebody counted the request's tokens, its bytes don't."""
    assert 12 == estimate(call({}), 100, 12, None).usage.input_tokens


@pytest.mark.parametrize(
    "more",
    [
        {"uses": (Resource("file", "f"),)},
        {"features": frozenset({"images"})},
        {"body": {"previous_response_id": "r"}},
        {"body": {"conversation": {"id": "c"}}},
        {"body": {"prompt": {"id": "p"}}},
    ],
)
def test_what_a_request_refers_to_counts(more: dict[str, Any]) -> None:
    """What is not in the request's bytes is taken to be large."""
    usage = estimate(call(**more), 100, None, None).usage

    assert 100 + REFERENCED_TOKENS_ASSUMED == usage.input_tokens


@pytest.mark.parametrize("operation", sorted(set(Operation) - GENERATES))
def test_what_generates_nothing_comes_to_nothing(operation: Operation) -> None:
    """Listing, reading and keeping use no tokens."""
    assert (0, 0) == tokens({"n": 4}, operation=operation)


@pytest.mark.parametrize("operation", [Operation.EMBEDDING, Operation.MODERATION])
def test_some_answers_hold_no_tokens(operation: Operation) -> None:
    """Embeddings and moderations are paid for by what is asked."""
    assert (100, 0) == tokens({}, operation=operation)


def test_sound_and_pictures_have_measures_of_their_own() -> None:
    """Images are counted, speech by characters, audio by seconds, each from above."""
    image = estimate(call({"n": 3}, operation=Operation.IMAGE), 10, None, 0)
    speech = estimate(call({"input": "hällo"}, operation=Operation.SPEECH), 10, None, 0)
    silent = estimate(call(None, operation=Operation.SPEECH), 10, None, 0)
    audio = estimate(call(None, operation=Operation.TRANSCRIPTION), 16_000, None, 0)

    assert 3 == image.images
    assert (5, 10) == (speech.characters, silent.characters)
    assert 33 == audio.seconds
    assert 251 == audio.usage.input_tokens


BEFORE = Amounts(
    usage=Usage(input_tokens=100, output_tokens=50), images=4, characters=3, seconds=2
)


def answer(**more: Any) -> Answer:
    """Return a whole answer."""
    return Answer(readable=True, whole=True, **more)


def test_what_is_reported_replaces_what_was_held() -> None:
    """The provider's counts count; what it left out stays as it was taken to be."""
    whole = came_to(answer(usage=Usage(input_tokens=7, output_tokens=8)), BEFORE, None)
    partly = came_to(answer(usage=Usage(input_tokens=7)), BEFORE, None)
    counted = came_to(answer(usage=Usage(input_tokens=7)), BEFORE, 9)
    words = came_to(answer(), BEFORE, 9)

    assert whole is not None
    assert (15, 0, 3, 2) == (whole.tokens, whole.images, whole.characters, whole.seconds)
    assert partly is not None
    assert 57 == partly.tokens
    assert counted is not None
    assert 16 == counted.tokens
    assert words is not None
    assert 109 == words.tokens


def test_where_nobody_counted_nothing_is_replaced() -> None:
    """No count is no zero."""
    assert came_to(answer(), BEFORE, None) is None
    assert came_to(answer(usage=Usage()), BEFORE, None) is None


def test_seconds_may_be_all_that_is_reported() -> None:
    """Audio that is paid by the second replaces seconds, and leaves tokens as held."""
    found = came_to(answer(usage=Usage(seconds=9)), BEFORE, None)

    assert found is not None
    assert (9, 150) == (found.seconds, found.tokens)


def test_images_are_counted_wherever_they_are() -> None:
    """Images and addresses that lead to some count, in choices and beside them."""
    image = Unit(kind="image", index=0, bytes=1, sha256="0" * 64)  # type: ignore[arg-type]
    link = Unit(kind="link", index=0, bytes=1, sha256="0" * 64)  # type: ignore[arg-type]
    audio = Unit(kind="audio", index=0, bytes=1, sha256="0" * 64)  # type: ignore[arg-type]
    found = answer(units=(image, audio), choices=(Choice(index=0, others=(link,)),))

    assert 2 == images_of(found)


def test_many_requests_come_to_their_sum() -> None:
    """Lines add up; of those that don't say how long an answer may be, each is as long."""
    found = LinesSum()
    for body in ({"max_tokens": 5}, {"max_tokens": 7, "n": 2}, {}, {"n": 3}):
        found = found.plus(call(body), 10)
    found = found.plus(call(None, operation=Operation.EMBEDDING), 10)
    found = found.plus(call({"n": 2}, operation=Operation.IMAGE), 10)

    assert (6, 60, 19, 6) == (found.lines, found.asked, found.answered, found.endless)
    assert 60 + 19 + 6 * 100 == found.amounts(100).tokens
    assert 60 + 19 + 6 * OUTPUT_TOKENS_ASSUMED == found.amounts(None).tokens
    assert 2 == found.amounts(0).images
    assert LinesSum(asked=2 * AMOUNT_MAX, answered=2 * AMOUNT_MAX).amounts(0).tokens == (
        2 * AMOUNT_MAX
    )
