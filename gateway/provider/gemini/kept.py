"""Reads embeddings, images, and what is told of batches, operations, files and caches.

Written after https://ai.google.dev/api/embeddings, …/batch-api, …/files, …/caching and
https://ai.google.dev/gemini-api/docs/imagen, …/video. The requests of a batch and its answers
are read one by one in another room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from gateway.provider.gemini.asked import objects
from gateway.provider.gemini.content import usage_of
from gateway.provider.gemini.errors import error_of, stop_of
from gateway.provider.gemini.routes import resource_of
from gateway.provider.model import Answer, Made, Resource, Unit
from gateway.provider.readers import NonsenseError
from gateway.provider.units import base64_unit, embedding_unit, json_unit


class _Vector(msgspec.Struct, gc=False):
    values: list[float]


class _Vectors(msgspec.Struct, gc=False, rename="camel"):
    embedding: _Vector | None = None
    embeddings: list[_Vector] | None = None
    usage_metadata: Any = None


_decode_vectors: Final = msgspec.json.Decoder(_Vectors).decode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_decode_anything: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_embeddings(body: bytes) -> Answer:
    """Return the vectors that a *body* holds.

    Raises:
        NonsenseError: it holds none.
    """
    told = _decode_vectors(body)
    vectors = told.embeddings if told.embedding is None else [told.embedding]
    if vectors is None:
        raise NonsenseError("no embeddings")
    return Answer(
        readable=True,
        whole=True,
        units=tuple(embedding_unit(at, one.values) for at, one in enumerate(vectors)),
        usage=usage_of(told.usage_metadata),
    )


def read_predictions(body: bytes) -> Answer:
    """Return the images that a *body* holds.

    Raises:
        NonsenseError: it holds no predictions.
    """
    told = _decode(body)
    predictions = told.get("predictions")
    if not isinstance(predictions, list) and told:
        raise NonsenseError("no predictions")
    units: list[Unit] = []
    filtered = False
    for index, prediction in enumerate(objects(predictions or [])):
        filtered = filtered or "raiFilteredReason" in prediction
        if "bytesBase64Encoded" in prediction or "gcsUri" in prediction:
            units.extend(_media_in(prediction, index))
        else:
            units.append(json_unit("other", index, prediction))
    return Answer(
        readable=True, whole=True, units=tuple(units), stop="policy" if filtered else None
    )


def read_operation(body: bytes) -> Answer:
    """Return how far an operation is, and what came of it: media, files, answers of a batch.

    Raises:
        NonsenseError: it is no operation.
    """
    operation = _decode(body)
    name = operation.get("name")
    itself = resource_of(name) if isinstance(name, str) else None
    if itself is None:
        raise NonsenseError("no operation")
    error = operation.get("error")
    metadata = operation.get("metadata")
    result = operation.get("response")
    if result is None and isinstance(metadata, dict):
        result = metadata.get("output")
    files = dict.fromkeys(_files_in(result))
    filtered = any(name.startswith("raiMediaFiltered") for name in _keys_in(result))
    return Answer(
        readable=True,
        whole=True,
        id=name,
        units=(
            *(json_unit("other", index, one) for index, one in enumerate(_answers_in(result))),
            *_media_in(result, 0),
        ),
        error=error_of(error),
        made=tuple(Made(resource=file, role="output", of=itself) for file in files),
        pending=operation.get("done") is not True,
        stop="policy" if filtered else stop_of(error),
    )


def read_operation_made(body: bytes) -> Answer:
    """Return the operation or batch that was made, and the model that it trains.

    Raises:
        NonsenseError: it is no operation.
    """
    answer = read_operation(body)
    metadata = _decode(body).get("metadata")
    names = [answer.id, metadata.get("tunedModel") if isinstance(metadata, dict) else None]
    made = [resource_of(name) for name in names if isinstance(name, str)]
    return msgspec.structs.replace(
        answer,
        made=(*(Made(resource=one) for one in made if one is not None), *answer.made),
    )


def read_made(body: bytes) -> Answer:
    """Return what was kept: the thing itself, or files; of an empty body, nothing."""
    if not body:
        return Answer(readable=True, whole=True)
    told = _decode(body)
    things = [told, *objects(told.get("file") or []), *objects(told.get("files") or [])]
    names = [thing.get("name") or thing.get("id") for thing in things]
    made = [resource_of(name) for name in names if isinstance(name, str)]
    return Answer(
        readable=True,
        whole=True,
        made=tuple(Made(resource=one) for one in made if one is not None),
    )


def made_reader(kind: str) -> Callable[[bytes], Answer]:
    """Return what reads the id of a thing of this *kind* that was made, and nothing else."""

    def read(body: bytes) -> Answer:
        told = _decode(body)
        id_ = told.get("id") or str(told.get("name") or "").rpartition("/")[2]
        if not isinstance(id_, str) or not id_:
            raise NonsenseError("nothing with a name")
        made = Made(resource=Resource(kind=kind, id=id_))
        return Answer(readable=False, whole=False, made=(made,))

    return read


def read_telling(body: bytes) -> Answer:
    """Return that a *body* is an answer by which nothing was made."""
    if body:
        _decode_anything(body)
    return Answer(readable=True, whole=True)


def _answers_in(result: object) -> Iterator[dict[str, Any]]:
    """Yield the answers that a finished batch holds itself."""
    for name in ("inlinedResponses", "inlinedEmbedContentResponses"):
        outer = result.get(name) if isinstance(result, dict) else None
        inner = outer.get("inlinedResponses") if isinstance(outer, dict) else outer
        yield from objects(inner or [])


def _media_in(value: object, index: int) -> Iterator[Unit]:
    """Yield the images and films in *value*, by their bytes or by where they are."""
    for one in _objects_in(value):
        kind = str(one.get("mimeType") or one.get("encoding") or "")
        for key in ("bytesBase64Encoded", "encodedVideo", "videoBytes", "imageBytes"):
            if isinstance(one.get(key), str):
                image = kind.startswith("image/") or key == "imageBytes"
                yield base64_unit("image" if image else "other", index, one[key])
        for key in ("uri", "gcsUri"):
            if isinstance(one.get(key), str):
                yield json_unit("link", index, one[key])


def _files_in(result: object) -> Iterator[Resource]:
    """Yield the files that *result* says hold what came of it."""
    for one in _objects_in(result):
        for key in ("responsesFile", "uri", "fileName"):
            name = one.get(key)
            found = resource_of(name) if isinstance(name, str) else None
            if found is not None and found.kind == "file":
                yield found


def _objects_in(value: object) -> Iterator[dict[str, Any]]:
    """Yield every object in *value* but for those of a batch's own answers, in order."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
            left.extend(
                inner for key, inner in reversed(one.items()) if not key.startswith("inlined")
            )
        elif isinstance(one, list):
            left.extend(reversed(one))


def _keys_in(value: object) -> Iterator[str]:
    for one in _objects_in(value):
        yield from one
