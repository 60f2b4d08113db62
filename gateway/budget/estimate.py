"""What a request may come to at most, before it is asked; and what it came to, as was told.

An estimate errs upwards: it is held until the answer's own count replaces it. Where a request
refers to what is not in its bytes (a file, an earlier answer, a picture at an address) or does
not say how long its answer may be, numbers of `limits` stand in, and are no bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.budget.prices import Amounts
from gateway.limits import (
    AMOUNT_MAX,
    AUDIO_BYTES_PER_S_MIN,
    AUDIO_BYTES_PER_TOKEN_MIN,
    OUTPUT_TOKENS_ASSUMED,
    REFERENCED_TOKENS_ASSUMED,
)
from gateway.provider.model import GENERATES, Answer, Operation, ProviderCall, Usage

_OUTPUT_MAX: Final = (
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "max_tokens_to_sample",
    "maxOutputTokens",
    "num_predict",
)
"""How requests say the length of an answer, in one format or another."""
_COUNTS: Final = ("n", "best_of", "candidateCount", "sampleCount")
"""How they say that they want several."""
_NESTED: Final = ("generationConfig", "generation_config", "parameters", "options")
"""Where both may stand, if not at the top."""
_WORDLESS: Final = frozenset({Operation.EMBEDDING, Operation.MODERATION})
"""Operations whose answers hold no tokens."""
_SPOKEN: Final = ("input", "text")
_REFERS: Final = ("previous_response_id", "conversation")


def estimate(
    call: ProviderCall, body_bytes: int, counted: int | None, output_max: int | None
) -> Amounts:
    """Return the most that *call* is taken to come to.

    *counted* is how many tokens its body has, where somebody counted; *output_max* how long an
    answer of its model can be, where somebody knows.
    """
    if call.operation not in GENERATES:
        return Amounts(usage=Usage(input_tokens=0, output_tokens=0))
    body = call.body or {}
    several = _several(body)
    seconds = images = characters = 0
    match call.operation:
        case Operation.TRANSCRIPTION:
            asked = body_bytes // AUDIO_BYTES_PER_TOKEN_MIN + 1
            seconds = body_bytes // AUDIO_BYTES_PER_S_MIN + 1
        case Operation.SPEECH:
            asked = counted if counted is not None else body_bytes
            characters = _characters(body, body_bytes)
        case _:
            asked = counted if counted is not None else body_bytes
    if call.operation is Operation.IMAGE:
        images = several
    if call.uses or "images" in call.features or _refers(body):
        asked += REFERENCED_TOKENS_ASSUMED
    answered = 0
    if call.operation not in _WORDLESS:
        longest = _longest(body)
        if longest is None:
            longest = OUTPUT_TOKENS_ASSUMED if output_max is None else output_max
        answered = min(several * longest, AMOUNT_MAX)
    return Amounts(
        usage=Usage(input_tokens=asked, output_tokens=answered),
        images=images,
        characters=characters,
        seconds=seconds,
    )


class LinesSum(msgspec.Struct, frozen=True, kw_only=True):
    """What many requests of one kind may come to together."""

    lines: int = 0
    asked: int = 0
    answered: int = 0
    """Tokens of those answers whose requests say how long they may be."""
    endless: int = 0
    """How many answers are asked for without a word of that."""
    images: int = 0
    characters: int = 0
    seconds: int = 0

    def plus(self, call: ProviderCall, body_bytes: int) -> LinesSum:
        """Return the sum with one more of them."""
        one = estimate(call, body_bytes, None, 0)
        body = call.body or {}
        said = call.operation in _WORDLESS or _longest(body) is not None
        return LinesSum(
            lines=self.lines + 1,
            asked=self.asked + (one.usage.input_tokens or 0),
            answered=self.answered + (one.usage.output_tokens or 0),
            endless=self.endless + (0 if said else _several(body)),
            images=self.images + one.images,
            characters=self.characters + one.characters,
            seconds=self.seconds + one.seconds,
        )

    def amounts(self, output_max: int | None) -> Amounts:
        """Return what they may come to, where an answer can be so long."""
        longest = OUTPUT_TOKENS_ASSUMED if output_max is None else output_max
        answered = min(self.answered + self.endless * longest, AMOUNT_MAX)
        return Amounts(
            usage=Usage(input_tokens=min(self.asked, AMOUNT_MAX), output_tokens=answered),
            images=self.images,
            characters=self.characters,
            seconds=self.seconds,
        )


def came_to(answer: Answer, before: Amounts, counted: int | None) -> Amounts | None:
    """Return what an exchange came to, or `None` where nobody counted its tokens.

    *before* is what was estimated, *counted* the tokens of the answer, where they were counted
    here because its provider did not.
    """
    reported = answer.usage or Usage()
    asked = reported.input_tokens
    answered = counted if reported.output_tokens is None else reported.output_tokens
    if asked is None and answered is None and reported.seconds is None:
        return None
    usage = Usage(
        input_tokens=before.usage.input_tokens if asked is None else asked,
        output_tokens=before.usage.output_tokens if answered is None else answered,
        cached_input_tokens=reported.cached_input_tokens,
        reasoning_tokens=reported.reasoning_tokens,
    )
    return Amounts(
        usage=usage,
        images=images_of(answer),
        characters=before.characters,
        seconds=before.seconds if reported.seconds is None else reported.seconds,
    )


def images_of(answer: Answer) -> int:
    """Return how many images *answer* holds, or leads to."""
    units = [*answer.units, *(unit for choice in answer.choices for unit in choice.others)]
    return sum(unit.kind in ("image", "link") for unit in units)


def _refers(body: Mapping[str, Any]) -> bool:
    """Tell whether *body* rests on something said before, or kept with the provider."""
    return isinstance(body.get("prompt"), dict) or any(
        body.get(name) is not None for name in _REFERS
    )


def _longest(body: Mapping[str, Any]) -> int | None:
    """Return the longest answer that *body* allows, where it says so."""
    said = _numbers(body, _OUTPUT_MAX)
    return max(said) if said else None


def _several(body: Mapping[str, Any]) -> int:
    return max([1, *_numbers(body, _COUNTS)])


def _numbers(body: Mapping[str, Any], names: tuple[str, ...]) -> list[int]:
    places = [body, *(body[name] for name in _NESTED if isinstance(body.get(name), dict))]
    found = [place[name] for place in places for name in names if name in place]
    return [
        min(number, AMOUNT_MAX)
        for number in found
        if isinstance(number, int) and not isinstance(number, bool) and number > 0
    ]


def _characters(body: Mapping[str, Any], body_bytes: int) -> int:
    for name in _SPOKEN:
        text = body.get(name)
        if isinstance(text, str):
            return len(text)
    return body_bytes
