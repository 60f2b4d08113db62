"""Embeddings and moderations: one unit of output for each input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from gateway.provider.model import Answer, Unit
from gateway.provider.openai.facts import refused, text_or_none, usage_of
from gateway.provider.readers import NonsenseError
from gateway.provider.units import base64_unit, embedding_unit, json_unit


class _Embedding(msgspec.Struct, gc=False):
    embedding: list[float] | str | None = None
    index: int | None = None


class _Embeddings(msgspec.Struct, gc=False):
    data: list[_Embedding] | None = None
    id: Any = None
    model: Any = None
    usage: Any = None
    error: Any = None
    provider: Any = None


class _Moderations(msgspec.Struct, gc=False):
    results: list[Any] | None = None
    id: Any = None
    model: Any = None
    usage: Any = None
    error: Any = None


_decode_embeddings: Final = msgspec.json.Decoder(_Embeddings).decode
_decode_moderations: Final = msgspec.json.Decoder(_Moderations).decode


def read_embeddings(body: bytes) -> Answer:
    """Return the vectors in *body*, each by its numbers or by its bytes."""
    said = _decode_embeddings(body)
    if said.error is not None:
        return refused(said.error)
    if said.data is None:
        raise NonsenseError("no data")
    return Answer(
        readable=True,
        whole=True,
        id=text_or_none(said.id),
        model=text_or_none(said.model),
        units=tuple(_vectors(said.data)),
        usage=usage_of(said.usage),
        provider=text_or_none(said.provider),
    )


def _vectors(data: list[_Embedding]) -> Iterator[Unit]:
    for place, one in enumerate(data):
        index = place if one.index is None else one.index
        numbers = one.embedding
        if isinstance(numbers, str):
            yield base64_unit("embedding", index, numbers)
        elif numbers is None:
            raise NonsenseError("no vector")
        else:
            yield embedding_unit(index, numbers)


def read_moderations(body: bytes) -> Answer:
    """Return the results in *body*."""
    said = _decode_moderations(body)
    if said.error is not None:
        return refused(said.error)
    if said.results is None:
        raise NonsenseError("no results")
    return Answer(
        readable=True,
        whole=True,
        id=text_or_none(said.id),
        model=text_or_none(said.model),
        units=tuple(
            json_unit("moderation", index, result) for index, result in enumerate(said.results)
        ),
        usage=usage_of(said.usage),
    )
