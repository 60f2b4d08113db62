"""Counts tokens where a provider reported none; where that can't be done there is no count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Encoding(Protocol):
    """What is needed of a `tiktoken.Encoding`."""

    def encode_ordinary(self, text: str) -> Sequence[int]:
        """Return the tokens of *text*, special ones read as plain text."""
        ...


class TokenCounter:
    """Counts with one encoding, or, where none could be had, not at all."""

    def __init__(self, encoding: Encoding | None) -> None:
        self._encoding = encoding

    def count(self, text: str) -> int | None:
        """Return how many tokens *text* has, or `None`: a count is never guessed."""
        if self._encoding is None:
            return None
        return len(self._encoding.encode_ordinary(text))
