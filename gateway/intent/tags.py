"""Reads the names that a caller gives an exchange, so that it is found by them again.

`x-gateway-tags: nightly, batch-7`: names between commas, a list of tokens as RFC 9651 has it.
They change nothing that is ruled; receipts carry them, and datasets are selected by them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.errors import MalformedDeclarationError
from gateway.intent.model import NAME
from gateway.limits import TAGS_MAX

HEADER: Final = "x-gateway-tags"
_TOLD_CHARS_MAX: Final = 40


def parse_tags(values: Iterable[str]) -> tuple[str, ...]:
    """Return the tags that the *values* of the header name, in their order, each once.

    Raises:
        MalformedDeclarationError: `tags.malformed`, one is no name, or they are too many.
    """
    said = [one.strip(" \t") for value in values for one in value.split(",")]
    for one in said:
        if NAME.fullmatch(one) is None:
            told = "".join(sign if sign.isprintable() else "?" for sign in one)
            raise MalformedDeclarationError(
                f"`{told[:_TOLD_CHARS_MAX]}` is no name for a tag",
                hint="small letters, digits, `.`, `_` and `-`, as in `nightly, batch-7`",
                code="tags.malformed",
            )
    tags = tuple(dict.fromkeys(said))
    if len(tags) > TAGS_MAX:
        raise MalformedDeclarationError(
            f"{len(tags)} tags are too many", hint=f"{TAGS_MAX} at most", code="tags.malformed"
        )
    return tags
