"""Reads what is asked of the Gemini API: features, and what is used of what is kept there.

The API takes every name in camel case and in snake case; so does this.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from gateway.provider.gemini.routes import resource_of
from gateway.provider.model import Resource

_HUMP: Final = re.compile(r"(?<!^)(?=[A-Z])")
_SEARCHES: Final = (
    "googleSearch",
    "googleSearchRetrieval",
    "enterpriseWebSearch",
    "googleMaps",
    "exaAiSearch",
    "parallelAiSearch",
)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_GOOGLES: Final = re.compile(
    r"https?://(?![a-z0-9.-]*storage\.)[a-z0-9.-]+\.googleapis\.com\.?(?::\d*)?/",
    re.IGNORECASE,
)
"""The API's own hosts; what is in its cloud's storage is none of its files."""


def said(body: object, name: str) -> Any:
    """Return what *body* holds under a *name* in camel case, in either case."""
    if not isinstance(body, Mapping):
        return None
    value = body.get(name)
    return body.get(_snake(name)) if value is None else value


@functools.cache
def _snake(name: str) -> str:
    return _HUMP.sub("_", name).lower()


def objects(value: object) -> Iterator[dict[str, Any]]:
    """Yield the objects of a list, or one that stands alone."""
    for one in value if isinstance(value, list) else (value,):
        if isinstance(one, dict):
            yield one


def features_of(asked: Mapping[str, Any]) -> frozenset[str]:
    """Return what else a request asks for, beside text."""
    features = set()
    tools = list(objects(asked.get("tools")))
    if tools:
        features.add("tools")
    if any(said(tool, search) is not None for tool in tools for search in _SEARCHES):
        features.add("grounding")
    config = said(asked, "generationConfig") or {}
    thinking = said(config, "thinkingConfig")
    if isinstance(thinking, dict) and _asks_to_think(thinking):
        features.add("reasoning")
    modalities = said(config, "responseModalities")
    wanted = {str(one).upper() for one in modalities} if isinstance(modalities, list) else set()
    if "AUDIO" in wanted or said(config, "speechConfig") is not None:
        features.add("voice")
    if "IMAGE" in wanted:
        features.add("image-output")
    if said(config, "responseLogprobs") is True:
        features.add("logprobs")
    count = said(config, "candidateCount")
    if isinstance(count, int) and count > 1:
        features.add("n")
    if any(_is_image(part) for part in parts_of(asked)):
        features.add("images")
    return frozenset(features)


def parts_of(asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every part of what is asked, of contents and of instructions."""
    for name in ("contents", "systemInstruction", "content"):
        for content in objects(said(asked, name)):
            yield from objects(content.get("parts"))
    for inner in objects(said(asked, "requests")):
        yield from parts_of(inner)
    inner = said(asked, "generateContentRequest")
    if isinstance(inner, dict):
        yield from parts_of(inner)


def used_in(asked: Mapping[str, Any]) -> Iterator[Resource]:
    """Yield what a request uses of what is kept there: files, a cache, stores of files."""
    names: list[Any] = [
        *(said(said(part, "fileData"), "fileUri") for part in parts_of(asked)),
        *(one.get("uri") for one in _inputs_of(asked)),
    ]
    for tool in objects(asked.get("tools")):
        stores = said(said(tool, "fileSearch") or tool, "fileSearchStoreNames")
        names.extend(stores if isinstance(stores, list) else ())
    names.extend(said(asked, name) for name in ("cachedContent", "fileName"))
    for name in names:
        if isinstance(name, str) and (used := _kept_as(name)) is not None:
            yield used
    for name, kind in (
        ("previousInteractionId", "interaction"),
        ("environment", "environment"),
    ):
        id_ = said(asked, name)
        if isinstance(id_, str):
            yield Resource(kind=kind, id=id_.rpartition("/")[2])
    inner = said(asked, "generateContentRequest")
    if isinstance(inner, dict):
        yield from used_in(inner)


def _kept_as(name: str) -> Resource | None:
    """Return what a *name*, or an address of Google's, leads to, in whatever spelling.

    Other hosts keep what is theirs.
    """
    plain = unquote(name).strip()
    if _SCHEME.match(plain) and not _GOOGLES.match(plain):
        return None
    path = re.split(r"[?#]", plain)[0].replace("\\", "/")
    return resource_of("/".join(part for part in path.split("/") if part not in {"", "."}))


def candidates_of(asked: Mapping[str, Any]) -> int:
    """Return how many candidates are asked for."""
    count = said(said(asked, "generationConfig"), "candidateCount")
    return count if isinstance(count, int) and count > 0 else 1


def _inputs_of(asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is put into an interaction: contents, alone or in turns."""
    for one in objects(asked.get("input")):
        yield one
        yield from objects(one.get("content"))


def _asks_to_think(thinking: Mapping[str, Any]) -> bool:
    """Tell whether a model is asked to think, or to show that it did."""
    budget = said(thinking, "thinkingBudget")
    if said(thinking, "includeThoughts") is True or said(thinking, "thinkingLevel"):
        return True
    return isinstance(budget, int) and budget != 0


def _is_image(part: Mapping[str, Any]) -> bool:
    blob = said(part, "inlineData") or said(part, "fileData")
    kind = said(blob, "mimeType")
    return isinstance(kind, str) and kind.startswith("image/")
