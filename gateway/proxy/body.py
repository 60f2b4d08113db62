"""A request's body as it is held and read: bounded, and in signs that are read here."""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import BodyTooLargeError, MalformedBodyError
from gateway.limits import BODY_BYTES_HELD_MAX
from gateway.provider.encoding import decoder_for
from gateway.proxy.knock import Knock

_CHARSET: Final = re.compile(r"""(?i)\bcharset\s*=\s*+"?+(?!utf-?8\b|us-ascii\b)([^";]*)""")
"""Says that a body is in other signs than it is read in here: a provider may heed it."""


def check_charset(kind: str) -> None:
    """Raise unless a body of that content type is read in the signs that it comes in."""
    if "charset" in kind and (odd := _CHARSET.search(kind)) is not None:
        raise MalformedBodyError(
            f"the body comes in `{odd[1][:64]}`", hint="send it in UTF-8, as JSON is"
        )


def is_large_form(knock: Knock, content_type: str) -> bool:
    """Tell whether the body is a form too large to be held: a film, or an hour of speech."""
    length = knock.content_length
    return (
        length is not None
        and length > BODY_BYTES_HELD_MAX
        and content_type.lower().startswith("multipart/form-data")
    )


async def held(knock: Knock) -> bytes:
    """Read the whole body.

    Raises:
        BodyTooLargeError: it is over what is held.
        DoorFullError: all bodies together are.
        CallerGoneError: it broke off.
        MalformedRequestError: its framing is broken, or it came too slowly.
    """
    if knock.content_length is not None and knock.content_length > BODY_BYTES_HELD_MAX:
        raise too_large(BODY_BYTES_HELD_MAX)
    body = knock.whole()
    if body is not None:
        # All of it came with the head, as small bodies do.
        knock.sender.hold(len(body))
        return body
    parts: list[bytes] = []
    size = 0
    async for chunk in knock.chunks():
        size += len(chunk)
        if size > BODY_BYTES_HELD_MAX:
            raise too_large(BODY_BYTES_HELD_MAX)
        knock.sender.hold(len(chunk))
        parts.append(chunk)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def decoded(body: bytes, encoding: str | None) -> bytes:
    """Return *body* without its encoding, where that can be undone."""
    decoder = decoder_for(encoding)
    if decoder is None:
        return body
    # What does not decode comes back as bytes that no dialect can read.
    return decoder.decode(body)


def too_large(limit: int) -> BodyTooLargeError:
    """Return the error that a body over *limit* is."""
    return BodyTooLargeError(
        f"the request body is larger than {limit} bytes", hint="send less at once"
    )
