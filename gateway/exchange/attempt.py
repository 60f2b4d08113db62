"""Which of several attempts at the same thing a request is, as the caller's SDK says.

SDKs try again by themselves. Each attempt is an exchange of its own; what ties them together
is a commitment to the idempotency key, else to the request itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.canonical import keyed_sha256
from gateway.limits import ATTEMPT_MAX
from gateway.receipt.model import AttemptFacts, Commitment

RETRY_COUNT: Final = "x-stainless-retry-count"
IDEMPOTENCY: Final = "idempotency-key"


def attempt_of(
    headers: Mapping[str, str], principal: str, body: bytes | None, key: bytes
) -> AttemptFacts | None:
    """Return what *headers*, whose names are lower case, say of an attempt; `None`: nothing.

    *body* is `None` where nobody holds it: then a retry count alone ties nothing together.
    What is committed to can be told from other things only with the installation's *key*.
    """
    said = headers.get(RETRY_COUNT)
    idempotency = headers.get(IDEMPOTENCY)
    number = _count(said) if said is not None else None
    if number is None and not idempotency:
        return None
    whose = principal.encode() + b"\0"
    of: Commitment | None = None
    if idempotency:
        tied = b"attempt idempotency\0" + whose + idempotency.encode("utf-8", "replace")
        of = Commitment(alg="hmac-sha256", value=keyed_sha256(key, tied))
    elif body:
        tied = b"attempt request\0" + whose + body
        of = Commitment(alg="hmac-sha256", value=keyed_sha256(key, tied))
    return AttemptFacts(number=number or 0, of=of)


def _count(text: str) -> int | None:
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(ATTEMPT_MAX)):
        return None
    return min(int(text), ATTEMPT_MAX)
