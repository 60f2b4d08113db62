"""Croissant 1.1 metadata of a dataset: what other people's loaders and catalogues read of it.

It is JSON-LD, made from the manifest: the files with their digests, what a record holds, where
the rows come from (PROV-O) and what they may be used for (ODRL). It describes; the signed
manifest is what binds, and it names this file by digest. See http://mlcommons.org/croissant/1.1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from gateway.dataset.manifest import (
    CARD,
    HELD_OUT,
    LEFT_OUT,
    POLICIES,
    RECEIPTS,
    ROWS,
    DatasetManifest,
    Teacher,
)
from gateway.dataset.provenance import Dependency
from gateway.policy.obligation import sentence_of
from gateway.receipt.model import PREDICATES

CONFORMS_TO: Final = "http://mlcommons.org/croissant/1.1"
LICENCE: Final = "terms-of-the-teachers"
"""The name of a licence that is none of the known ones: nothing is granted by default."""

TRAIN: Final = "train"
HELD_OUT_SPLIT: Final = "test"
"""What loaders call the two parts; a split's name can't hold the dash of `held-out`."""

_CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "odrl": "http://www.w3.org/ns/odrl/2/",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "tos": PREDICATES,
    "transform": "cr:transform",
}

_FILES: Final = {
    ROWS: ("application/jsonlines", "The rows to learn from, one a line."),
    HELD_OUT: ("application/jsonlines", "The rows that were kept apart before training."),
    RECEIPTS: ("application/jsonlines", "Which signed leaf of the log vouches for each row."),
    LEFT_OUT: ("application/jsonlines", "Every candidate that was left out, and why."),
    POLICIES: ("application/json", "Every ruling that was made, with its clauses."),
    CARD: ("text/markdown", "The dataset card."),
}
"""The files that are described, where the manifest names them; the evidence is not data."""

_CONVERSATIONS: Final = {
    "messages": ("messages",),
    "preference": ("prompt", "chosen", "rejected"),
    "prompt": ("prompt",),
}
"""The columns of a row that are lists of messages, by the kind of the row."""


def croissant_of(manifest: DatasetManifest) -> bytes:
    """Return the Croissant metadata of a dataset, written in one way.

    The manifest need not name its last subjects yet: what it names is described.
    """
    asked, found = manifest.asked, manifest.found
    digests = manifest.digests
    day = manifest.metadata.finished_on[:10]
    said = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "citeAs": _citation(asked.dataset, day),
        "conformsTo": CONFORMS_TO,
        "creator": {"@type": "sc:Organization", "name": asked.project},
        "dateCreated": day,
        "datePublished": day,
        "description": (
            f"{found.rows} rows of kind `{asked.kind}` for the declared use "
            f"`{found.use.purpose}`, each with its signed receipt. {_KINDS[asked.kind]}"
        ),
        "distribution": [_file(name, digests[name]) for name in _FILES if name in digests],
        "isLiveDataset": False,
        "keywords": ["synthetic", "distillation", "tos-gateway"],
        "license": _licence(),
        "name": asked.dataset,
        "prov:wasDerivedFrom": [*_sources(manifest)],
        "prov:wasGeneratedBy": [*_activities(manifest)],
        "recordSet": [*_record_sets(manifest)],
        "url": CARD,
        "usageInfo": _offer(manifest),
        "version": "1.0.0",
    }
    return json.dumps(said, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"


_KINDS: Final = {
    "messages": "A row is a conversation to its answer, with `tools` where there were any.",
    "preference": "A row is a prompt with a better and a worse answer.",
    "prompt": "A row is a prompt and the id of what verifies answers to it.",
}


def _citation(name: str, day: str) -> str:
    plain = "".join(c for c in name if c.isalnum() or c in "-._")
    return (
        f"@misc{{{plain}, title={{{plain}}}, year={{{day[:4]}}}, note={{tos-gateway dataset}}}}"
    )


def _file(name: str, sha256: str) -> dict[str, Any]:
    encoding, description = _FILES[name]
    return {
        "@id": name,
        "@type": "cr:FileObject",
        "contentUrl": name,
        "description": description,
        "encodingFormat": encoding,
        "name": name,
        "sha256": sha256,
    }


def _licence() -> dict[str, Any]:
    # One alone: several would read as a choice between them. Those under which words were
    # written stand beside those words, among the sources.
    return {
        "@type": "sc:CreativeWork",
        "description": (
            "The terms of the teachers bind whoever uses the rows; nothing is granted beyond "
            "the declared use."
        ),
        "name": LICENCE,
    }


def _sources(manifest: DatasetManifest) -> Iterator[dict[str, Any]]:
    """Yield what the rows were made from: answers, written words, manifests, the log."""
    for teacher in manifest.found.teachers:
        yield _teacher(teacher)
    for written in manifest.found.written_by:
        yield {
            "@type": "prov:Entity",
            "license": {"@type": "sc:CreativeWork", "name": written.licence},
            "prov:label": f"written words, {written.source}: in {written.rows} rows",
            "prov:wasAttributedTo": _agent("prov:Person", written.by),
        }
    for dependency in manifest.dependencies:
        yield _dependency(dependency)


def _teacher(teacher: Teacher) -> dict[str, Any]:
    said = " judging" if teacher.influence == "judge" else ""
    who = f"{teacher.provider} {teacher.model or ''}".strip()
    entity: dict[str, Any] = {
        "@type": "prov:Entity",
        "prov:generatedAtTime": [*teacher.days],
        "prov:label": f"answers of {who}{said}: in {teacher.rows} rows",
        "prov:wasAttributedTo": _agent("prov:Agent", teacher.answered_by or teacher.provider),
    }
    if teacher.manifest is not None:
        entity["prov:wasDerivedFrom"] = _named("training manifest", teacher.manifest)
    return entity


def _dependency(dependency: Dependency) -> dict[str, Any]:
    kind = dependency.kind.replace("-", " ")
    entity = _named(f"{kind} {dependency.name}".strip(), dependency.digest.get("sha256"))
    if dependency.uri is not None:
        entity["url"] = dependency.uri
    return entity


def _named(label: str, sha256: str | None) -> dict[str, Any]:
    entity: dict[str, Any] = {"@type": "prov:Entity", "prov:label": label}
    return entity if sha256 is None else entity | {"sha256": sha256}


def _activities(manifest: DatasetManifest) -> Iterator[dict[str, Any]]:
    """Yield what was done: the gate, and every transform that rows went through."""
    metadata = manifest.metadata
    yield {
        "@type": "prov:Activity",
        "prov:endedAtTime": metadata.finished_on,
        "prov:label": "every row ruled on again by the gate",
        "prov:startedAtTime": metadata.started_on,
        "prov:used": _named("policy library in force", manifest.found.library),
        "prov:wasAssociatedWith": _agent(
            "prov:SoftwareAgent", f"tos-gateway {manifest.version}"
        ),
    }
    for made in manifest.found.made_by:
        yield {
            "@type": "prov:Activity",
            "prov:label": f"{made.kind} `{made.name}` {made.version}: made {made.rows} rows",
        }


def _agent(kind: str, label: str) -> dict[str, Any]:
    return {"@type": kind, "prov:label": label}


def _record_sets(manifest: DatasetManifest) -> Iterator[dict[str, Any]]:
    digests, kind = manifest.digests, manifest.asked.kind
    parts = [(TRAIN, ROWS, "cr:TrainingSplit")] if ROWS in digests else []
    if HELD_OUT in digests:
        parts.append((HELD_OUT_SPLIT, HELD_OUT, "cr:TestSplit"))
    yield {
        "@id": "splits",
        "@type": "cr:RecordSet",
        "data": [{"splits/name": name, "splits/url": url} for name, _, url in parts],
        "dataType": "cr:Split",
        "description": "The parts of the rows; no group of alike prompts stands in both.",
        "field": [
            _field("splits/name", "The name of the part.", "sc:Text"),
            _field("splits/url", "What the part is for.", "sc:URL"),
        ],
        "key": {"@id": "splits/name"},
        "name": "splits",
    }
    for name, file, _ in parts:
        yield {
            "@id": name,
            "@type": "cr:RecordSet",
            "description": f"The rows of `{file}`.",
            "field": [*_row_fields(name, file, kind)],
            "name": name,
        }
    if RECEIPTS in digests:
        yield _receipts(derived=manifest.found.is_derived)


def _row_fields(name: str, file: str, kind: str) -> Iterator[dict[str, Any]]:
    for column in _CONVERSATIONS[kind]:
        yield {
            "@id": f"{name}/{column}",
            "@type": "cr:Field",
            "arrayShape": "-1",
            "description": "Messages in their order.",
            "isArray": True,
            "name": column,
            "subField": [
                {
                    "@id": f"{name}/{column}/{part}",
                    "@type": "cr:Field",
                    "dataType": "sc:Text",
                    "description": description,
                    "name": part,
                    "source": {
                        "extract": {"column": column},
                        "fileObject": {"@id": file},
                        "transform": {"jsonPath": part},
                    },
                }
                for part, description in (
                    ("role", "Who speaks: `system`, `user`, `assistant` or `tool`."),
                    ("content", "The words; none where the turn only calls tools."),
                )
            ],
        }
    if kind == "prompt":
        yield _column(name, file, "verifier", "What verifies answers.", "sc:Text")


def _receipts(*, derived: bool) -> dict[str, Any]:
    vouched = "derivation" if derived else "exchange"
    return {
        "@id": "receipts",
        "@type": "cr:RecordSet",
        "description": "One record a row, in their order over all parts.",
        "field": [
            _column("receipts", RECEIPTS, "row", "The number of the row.", "sc:Integer"),
            _column("receipts", RECEIPTS, "sha256", "Digest of the row's line.", "sc:Text"),
            _column("receipts", RECEIPTS, vouched, "What vouches for the row.", "sc:Text")
            | {"equivalentProperty": "prov:wasDerivedFrom"},
            _column(
                "receipts", RECEIPTS, "choice", "The choice, or place, in it.", "sc:Integer"
            ),
            _column("receipts", RECEIPTS, "index", "Its leaf in the log.", "sc:Integer"),
            _column("receipts", RECEIPTS, "leaf", "The hash of that leaf.", "sc:Text"),
        ],
        "key": {"@id": "receipts/row"},
        "name": "receipts",
    }


def _column(
    record_set: str, file: str, column: str, description: str, data_type: str
) -> dict[str, Any]:
    source = {"extract": {"column": column}, "fileObject": {"@id": file}}
    return _field(f"{record_set}/{column}", description, data_type) | {"source": source}


def _field(id_: str, description: str, data_type: str) -> dict[str, Any]:
    return {
        "@id": id_,
        "@type": "cr:Field",
        "dataType": data_type,
        "description": description,
        "name": id_.rpartition("/")[2],
    }


def _offer(manifest: DatasetManifest) -> dict[str, Any]:
    """Return the declared use as an ODRL offer: what is not in it is not offered."""
    said: dict[str, Any] = msgspec.to_builtins(manifest.found.use)
    purpose = said.pop("purpose")
    return {
        "@type": ["CreativeWork", "odrl:Offer"],
        "description": (
            f"The use that was declared as {manifest.asked.declaration} and ruled on again on "
            f"{manifest.found.day}; any other use needs a declaration and a ruling of its own."
        ),
        "name": "Declared use",
        "odrl:conflict": {"@id": "odrl:prohibit"},
        "odrl:permission": {
            "@type": "odrl:Permission",
            "odrl:action": {"@id": f"tos:purpose/{purpose}", "name": purpose},
            "odrl:constraint": [
                {
                    "@type": "odrl:Constraint",
                    "odrl:leftOperand": {"@id": f"tos:use/{fact}"},
                    "odrl:operator": {"@id": "odrl:eq"},
                    "odrl:rightOperand": _operand(value),
                }
                for fact, value in sorted(said.items())
            ],
            "odrl:duty": [
                {
                    "@type": "odrl:Duty",
                    "description": sentence_of(duty),
                    "name": duty,
                    "odrl:action": {"@id": f"tos:obligation/{duty.partition('=')[0]}"},
                }
                for duty in manifest.found.obligations
            ],
        },
    }


def _operand(value: object) -> str | bool | Sequence[str]:
    match value:
        case bool():
            return value
        case list() | tuple():
            return [str(one) for one in value]
        case _:
            return str(value)
