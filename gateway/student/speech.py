"""A conversation to go on with, and what a student said; needs no training library."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

MANIFEST_HEADER: Final = "x-student-manifest"
"""In it an answer names the training manifest of the student that gave it."""


class UnanswerableError(ValueError):
    """A conversation that this student can't go on with; *code* is OpenAI's word for it."""

    def __init__(self, message: str, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A conversation to go on with, and how."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    tokens_max: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """An answer, whole or cut off at a bound."""

    text: str
    prompt_tokens: int
    answer_tokens: int
    """How much it said, the stop token included."""
    finish_reason: Literal["stop", "length"]


Speak = Callable[[Question, Callable[[str], None], threading.Event], Spoken]
"""Makes one answer, handing its text on as it comes; blocks until it is whole or cut off.

Raises `UnanswerableError` before any text where it can't answer at all.
"""
