"""The twin of `gateway.provider.tokens`."""

from __future__ import annotations

import tiktoken

from gateway.provider.tokens import TokenCounter

BYTES = tiktoken.Encoding(
    name="bytes",
    pat_str=r"\S+|\s+",
    mergeable_ranks={bytes([byte]): byte for byte in range(256)} | {b"ab": 256},
    special_tokens={"<|end|>": 257},
)


def test_tokens_are_counted() -> None:
    """A count is the number of the encoding's tokens, special words read as plain text."""
    counter = TokenCounter(BYTES)

    assert counter.count("") == 0
    assert counter.count("abc é") == 5
    assert counter.count("<|end|>") == 7


def test_without_an_encoding_there_is_no_count() -> None:
    """A count that can't be had is left out, never guessed."""
    assert TokenCounter(None).count("abc") is None
