"""How both sides of a session talk: messages in, and what they mean for rulings and receipts.

A talk opens no socket and seals nothing. It never raises on what a provider says; what it can't
follow is no part of an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec
import orjson

from gateway.ident import Sha256
from gateway.provider.model import Answer, ProviderCall


class Turn(Protocol):
    """One answer in a session, as far as it came."""

    request: bytes
    """The message that asked for it; empty where nobody did in so many words."""
    call: ProviderCall
    """What was asked, as it stood when the answer began."""
    digest: PartDigest
    """Over the messages that it came in."""

    def answer(self) -> Answer:
        """Return what was said so far."""
        ...


class Talk(Protocol):
    """Makes sense of the messages of one session."""

    def wanted(self, message: bytes) -> ProviderCall:
        """Return what is asked for from *message* of the caller on, if it passes.

        Raises:
            MalformedBodyError: it can't be read, so it can't be ruled on.
        """
        ...

    @property
    def asks(self) -> bool:
        """Whether the message that was just read asks for an answer in so many words."""
        ...

    def passed(self) -> None:
        """Take note that the message that was just read goes on to the provider."""
        ...

    def hear(self, message: bytes) -> Sequence[Turn]:
        """Take a message of the provider; return the answers that end with it."""
        ...

    def under_way(self) -> Sequence[Turn]:
        """Return the answers that have begun and not ended."""
        ...

    def between(self) -> Answer:
        """Return what was told between the answers: the model, counts that belong to none."""
        ...


class PartDigest:
    """SHA-256 and size of bytes that come in pieces."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.bytes = 0

    def add(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._sha256.update(piece)
        self.bytes += len(piece)

    def sha256(self) -> Sha256:
        """Return the digest of all bytes so far."""
        return Sha256(self._sha256.hexdigest())


def object_of(message: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a provider's *message* is, or `None`."""
    try:
        value = orjson.loads(message)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def dig(value: object, *path: str) -> Any:
    """Return what lies at *path* inside *value*, or `None`."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def text_at(value: object, *path: str) -> str:
    """Return the text at *path* inside *value*, or an empty one."""
    found = dig(value, *path)
    return found if isinstance(found, str) else ""


def objects_in(value: object) -> Iterator[dict[str, Any]]:
    """Yield every object inside *value*, however deep; it was read, so it is not too deep."""
    level = [value]
    while level:
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                yield one
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        level = inner


def with_more(
    call: ProviderCall,
    *,
    model: str | None = None,
    features: frozenset[str] = frozenset(),
    fallbacks: tuple[str | None, ...] = (),
) -> ProviderCall:
    """Return *call* with what a message adds; nothing is ever taken back from a session."""
    more = tuple(name for name in fallbacks if name not in call.fallbacks)
    if (model is None or model == call.model) and features <= call.features and not more:
        return call
    return msgspec.structs.replace(
        call,
        model=call.model if model is None else model,
        features=call.features | features,
        fallbacks=call.fallbacks + more,
    )
