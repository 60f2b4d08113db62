"""What a manifest says of itself: of which stage it is, what it was made from, what it names.

It is taken at its word here, for searching; whoever decides by it reads the manifest itself.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, Literal, cast

import msgspec

from gateway.ident import DeclarationId, Sha256
from gateway.receipt.model import (
    DATASET_BUILD,
    EXPORT_BUILD,
    TRAINING_BUILD,
    Derivation,
    Manifest,
)

StageKind = Literal["dataset", "student", "export"]

KIND_OF: Final[dict[str, StageKind]] = {
    DATASET_BUILD: "dataset",
    TRAINING_BUILD: "student",
    EXPORT_BUILD: "export",
}
PARENTS: Final = frozenset({"dataset-manifest", "training-manifest"})
"""The kinds of dependency that a stage was made from; a feed's previous snapshot is none."""

What = Literal[
    "provider",
    "model",
    "policy",
    "pin",
    "clause",
    "declaration",
    "agreement",
    "verdict",
    "student",
    "transform",
    "author",
    "base",
    "weights",
    "began",
]
"""What can be mentioned: `pin` is a policy's version, as `policy:version`; `student` the
training manifest of a teacher that is a student of ours; `author` who wrote rows themselves;
`base` a model from outside; `weights` and `began` are weights digests: a student's own, and
that of the model from outside that it began as."""


class StageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a manifest says of itself, as far as it can be read."""

    manifest: Sha256
    kind: StageKind
    name: str
    project: str | None = None
    declaration: DeclarationId | None = None
    purpose: str | None = None
    rows: int | None = None
    members: int | None = None
    """Of a dataset: how many leaves it says that it was made from."""
    parents: tuple[Sha256, ...] = ()
    mentions: tuple[tuple[What, str, int], ...] = ()
    weights: Sha256 | None = None
    """Of a student: its weights digest."""
    began: tuple[Sha256, ...] = ()
    """Of a student: the weights digests of the models from outside that it began as."""


def stage_of(manifest: Manifest) -> StageFacts | None:
    """Return what *manifest* says of itself; `None` if it is none that stands for a stage."""
    kind = KIND_OF.get(manifest.build_type)
    if kind is None:
        return None
    build = _dict(_dict(manifest.statement.get("predicate")).get("buildDefinition"))
    asked, found = (
        _dict(build.get("externalParameters")),
        _dict(build.get("internalParameters")),
    )
    parents: dict[Sha256, None] = {}
    began: dict[Sha256, None] = {}
    mentions: Counter[tuple[What, str]] = Counter()
    for entry in _dicts(build.get("resolvedDependencies")):
        named = _dict(entry.get("annotations")).get("kind")
        digest = _text(_dict(entry.get("digest")).get("sha256"))
        if named in PARENTS and digest:
            parents[Sha256(digest)] = None
        elif named == "base-model":
            mentions["base", _text(entry.get("name")).removeprefix("base:")] += 1
            began[Sha256(_text(_dict(entry.get("annotations")).get("weights")))] = None
    began.pop(Sha256(""), None)
    weights = Sha256(_text(found.get("weights"))) if kind == "student" else Sha256("")
    mentions |= {("began", one): 1 for one in began} | {("weights", weights): 1}
    rows = _count(found.get("rows", _dict(found.get("snapshot")).get("rows")))
    declared = [_text(asked.get("declaration")), *_texts(asked.get("declarations"))]
    for one in filter(None, declared):
        mentions["declaration", one] = rows or 0
    if kind == "dataset":
        for teacher in _dicts(found.get("teachers")):
            if student := _text(teacher.get("manifest")):
                parents[Sha256(student)] = None
            for mention in _mentions_of(teacher):
                mentions[mention] += _count(teacher.get("rows")) or 0
        for made in _dicts(found.get("madeBy")):
            mentions["transform", _text(made.get("name"))] += _count(made.get("rows")) or 0
        for written in _dicts(found.get("writtenBy")):
            mentions["author", _text(written.get("by"))] += _count(written.get("rows")) or 0
    name = (
        _text(asked.get("student")) or _text(asked.get("dataset")) or _text(asked.get("name"))
    )
    return StageFacts(
        manifest=manifest.payload_sha256,
        kind=kind,
        name=name,
        project=_text(asked.get("project")) or None,
        declaration=DeclarationId(next(filter(None, declared), "")) or None,
        purpose=_text(_dict(found.get("use")).get("purpose")) or None,
        rows=rows,
        members=_count(_dict(found.get("members")).get("count")),
        parents=tuple(parents),
        mentions=tuple(
            (what, value, count if rows is None else min(count, rows))
            for (what, value), count in mentions.items()
            if value
        ),
        weights=weights or None,
        began=tuple(began),
    )


def _mentions_of(teacher: dict[str, Any]) -> set[tuple[What, str]]:
    """Return what a dataset's manifest names of one kind of call, each once."""
    found: set[tuple[What, str]] = {
        ("provider", _text(teacher.get("provider"))),
        ("provider", _text(teacher.get("answeredBy"))),
        ("model", _text(teacher.get("model"))),
        ("student", _text(teacher.get("manifest"))),
    }
    found |= {("model", name) for name in _texts(teacher.get("reported"))}
    found |= {("clause", name) for name in _texts(teacher.get("clauses"))}
    found |= {("declaration", name) for name in _texts(teacher.get("declarations"))}
    found |= {("agreement", name) for name in _texts(teacher.get("agreements"))}
    for verdict in _list(teacher.get("verdicts")):
        found.add(("verdict", str(verdict)))
    for pin in _dicts(teacher.get("policies")):
        policy = _text(pin.get("policy"))
        found |= {("policy", policy), ("pin", f"{policy}:{pin.get('version')}")}
    return found


def parents_of(derivation: Derivation) -> tuple[int, ...]:
    """Return the leaves that the rows of *derivation* were made from, rising."""
    return tuple(sorted({parent.index for parent in derivation.parents}))


def _dict(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: object) -> list[dict[str, Any]]:
    return [one for one in _list(value) if isinstance(one, dict)]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    return [one for one in _list(value) if isinstance(one, str)]


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 1 << 62 else None
