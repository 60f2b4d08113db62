"""What answers tell of things that are kept: files, batches, stores, and lists of outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from gateway.provider.model import Answer, Made, ProviderCall, Resource
from gateway.provider.openai.facts import refused, text_or_none
from gateway.provider.openai.routes import MAKES
from gateway.provider.units import json_unit


class _Kept(msgspec.Struct, gc=False):
    """An object of the API, as far as it tells of others."""

    id: Any = None
    model: Any = None
    thread_id: Any = None
    file: Any = None
    output_file_id: Any = None
    error_file_id: Any = None
    result_files: Any = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_Kept).decode
_decode_any: Final = msgspec.json.Decoder(Any).decode

_BATCH_FILES: Final = (("output_file_id", "output"), ("error_file_id", "errors"))


def read_kept(call: ProviderCall, body: bytes) -> Answer:
    """Return which resources *body* tells of; one that is a list tells of none.

    What a list names may be anybody's, so nothing in it is taken for newly made.
    """
    said = _decode(body)
    id_ = text_or_none(said.id)
    if id_ is None and isinstance(said.error, dict):
        return refused(said.error)
    return Answer(
        readable=True,
        whole=True,
        id=id_,
        model=text_or_none(said.model),
        made=tuple(dict.fromkeys(_made(call, said, id_))),
    )


def _made(call: ProviderCall, said: _Kept, id_: str | None) -> Iterator[Made]:
    route = call.found.route if call.found is not None else None
    kind = MAKES.get((route.methods[0], route.path)) if route is not None else None
    if id_ is not None and kind is not None:
        yield Made(resource=Resource(kind, id_))
    of = _of(call, kind, id_)
    thread = text_or_none(said.thread_id)
    if thread is not None and route is not None and route.path == "/threads/runs":
        yield Made(resource=Resource("thread", thread))
    if of is None:
        return
    if of.kind == "batch":
        for name, role in _BATCH_FILES:
            file = text_or_none(getattr(said, name))
            if file is not None:
                yield Made(resource=Resource("file", file), role=role, of=of)
    if of.kind == "fine-tuning-job":
        for file in said.result_files if isinstance(said.result_files, list) else ():
            if text_or_none(file):
                yield Made(resource=Resource("file", file), role="output", of=of)
    if of.kind == "upload" and isinstance(said.file, dict):
        file = text_or_none(said.file.get("id"))
        if file is not None:
            yield Made(resource=Resource("file", file), of=of)


def _of(call: ProviderCall, kind: str | None, id_: str | None) -> Resource | None:
    """Return the resource that an answer is about: the one just made, or the path's."""
    if kind is not None and id_ is not None:
        return Resource(kind, id_)
    names = call.found.names if call.found is not None else ()
    return names[0] if len(names) == 1 else None


def read_elements(body: bytes) -> Answer:
    """Return each element of the list that *body* is, or *body* itself, as a unit."""
    said = _decode_any(body)
    if isinstance(said, dict) and said.get("error") and "data" not in said:
        return refused(said["error"])
    elements = said.get("data") if isinstance(said, dict) else said
    if not isinstance(elements, list):
        elements = [said]
    units = tuple(json_unit("other", index, one) for index, one in enumerate(elements))
    return Answer(readable=True, whole=True, units=units)


class MakingListener:
    """Hears of a stream that nobody here reads which resources it tells of."""

    def __init__(self, call: ProviderCall) -> None:
        self._call = call
        self._made: dict[Made, None] = {}

    def hear(self, data: bytes) -> bool:
        """Take one event's data; every event may be content."""
        if data.startswith(b"[DONE]"):
            return True
        said = _decode(data)
        self._made.update(dict.fromkeys(_made(self._call, said, text_or_none(said.id))))
        return True

    @property
    def ending(self) -> bool:
        """Whether the end was heard: nobody here can tell."""
        return False

    def answer(self) -> Answer:
        """Return the resources, and that nothing else was read."""
        return Answer(readable=False, whole=False, made=tuple(self._made))
