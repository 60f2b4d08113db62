"""Reads what is told of batches, files and whatever else Anthropic keeps for its customers.

Written after https://platform.claude.com/docs/en/api/creating-message-batches,
…/retrieving-message-batch-results and …/files-create. The requests of a batch and the lines of
its results are read one by one in another room.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from gateway.provider.model import Answer, Made, Resource


class _Kept(msgspec.Struct, gc=False):
    """A batch, a file, or another thing by its id."""

    id: str
    type: Any = None
    processing_status: Any = None


_decode: Final = msgspec.json.Decoder(_Kept).decode
_decode_anything: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_PENDING: Final = ("in_progress", "canceling")


def read_batch(body: bytes) -> Answer:
    """Return whether a batch has ended."""
    batch = _decode(body)
    return Answer(
        readable=True, whole=True, id=batch.id, pending=batch.processing_status in _PENDING
    )


def read_batch_made(body: bytes) -> Answer:
    """Return the batch that was made."""
    batch = _decode(body)
    made = Made(resource=Resource(kind="batch", id=batch.id))
    return msgspec.structs.replace(read_batch(body), made=(made,))


def made_reader(kind: str, *, readable: bool) -> Callable[[bytes], Answer]:
    """Return what reads the id of a thing of this *kind* that was made."""

    def read(body: bytes) -> Answer:
        made = Made(resource=Resource(kind=kind, id=_decode(body).id))
        return Answer(readable=readable, whole=readable, made=(made,))

    return read


def read_telling(body: bytes) -> Answer:
    """Return that a *body* is an answer by which nothing was made."""
    _decode_anything(body)
    return Answer(readable=True, whole=True)
