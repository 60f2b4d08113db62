"""The bill of materials of a model folder, in CycloneDX: drawn from the manifests alone.

It says what the training manifest says, in the words that other tools read: the student with
its card and files, its datasets as governed data, its base and teachers as its ancestors. The
same manifests give the same bytes; where the two differ, the manifest is right.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from gateway.canonical import canonical_json, sha256_hex
from gateway.dataset.manifest import MANIFEST, DatasetManifest, Teacher
from gateway.policy.obligation import sentence_of
from gateway.receipt.model import PREDICATES
from gateway.student.card import is_adapter, shares
from gateway.student.figures import MEASURES, Evaluation
from gateway.student.manifest import Base, ModelManifest, statement_of

BOM: Final = "bom.cdx.json"
SCHEMA_VERSION: Final = "1.7"

CARD: Final = "README.md"
REPORT: Final = "report.html"

_SPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, PREDICATES + "model-bom/v1")
_SPDX: Final = {
    "apache-2.0": "Apache-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc0-1.0": "CC0-1.0",
    "gpl-3.0": "GPL-3.0-only",
    "mit": "MIT",
    "mpl-2.0": "MPL-2.0",
}
"""Licences as the hub's cards name them, and as SPDX does; others go by their name."""

_STUDENT: Final = "student"
_BASE: Final = "base"
_DATASET: Final = "dataset:"


def format_bom(manifest: ModelManifest, datasets: Sequence[DatasetManifest]) -> bytes:
    """Return the bill of materials of the folder that *manifest* names the files of.

    The bill itself is not among them: it can't hold its own digest.
    """
    refs = _refs(datasets)
    digests = {name: digest for name, digest in manifest.digests.items() if name != BOM}
    serial = uuid.uuid5(_SPACE, sha256_hex(canonical_json(_said(manifest, digests))))
    taught = [*shares(manifest.found.teachers), *shares(manifest.found.above)]
    teachers = {f"teacher-{number}": entry for number, entry in enumerate(taught, start=1)}
    direct = len(manifest.found.teachers)
    bom = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SCHEMA_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SCHEMA_VERSION,
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": manifest.metadata.finished_on,
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": list(_tools(manifest))},
            "component": _student(manifest, refs, digests, list(teachers.values())),
        },
        "components": [
            *(_data(ref, one, digests) for ref, one in refs.items()),
            *_base(manifest.asked.base),
            *(
                _teacher(ref, teacher, share, direct=number < direct)
                for number, (ref, (teacher, share)) in enumerate(teachers.items())
            ),
        ],
        "dependencies": [
            {
                "ref": _STUDENT,
                "dependsOn": [
                    *refs,
                    *([] if manifest.asked.base.kind == "tiny" else [_BASE]),
                ],
            },
            *(
                {
                    "ref": ref,
                    "dependsOn": [
                        of
                        for of, (teacher, _) in teachers.items()
                        if teacher in one.found.teachers
                    ],
                }
                for ref, one in refs.items()
            ),
        ],
    }
    return orjson.dumps(bom, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _said(manifest: ModelManifest, digests: Mapping[str, str]) -> dict[str, Any]:
    """Return what the bill is drawn from, its own digest left out."""
    statement = statement_of(manifest)
    statement["subject"] = sorted(digests.items())
    return statement


def _tools(manifest: ModelManifest) -> Iterator[dict[str, Any]]:
    yield {"type": "application", "name": "tos-gateway", "version": manifest.version}
    for name, version in sorted(manifest.found.versions.items()):
        kind = "platform" if name == "python" else "library"
        yield {"type": kind, "name": name, "version": version}


def _student(
    manifest: ModelManifest,
    refs: Iterable[str],
    digests: Mapping[str, str],
    taught: Sequence[tuple[Teacher, float]],
) -> dict[str, Any]:
    asked, found = manifest.asked, manifest.found
    weights = [name for name in digests if name.endswith(".safetensors")]
    component: dict[str, Any] = {
        "bom-ref": _STUDENT,
        "type": "machine-learning-model",
        "name": asked.student,
        "version": manifest.metadata.invocation_id,
        "description": "a student, trained within the terms of its teachers",
        "licenses": [
            {"license": {"name": "see-teachers", "acknowledgement": "declared"}},
        ],
        "modelCard": _card(manifest, refs),
        "pedigree": {
            "ancestors": [
                *_base(asked.base, ref=False),
                *(_ancestor(teacher) for teacher, _ in taught),
            ],
            "notes": "what it began as, and who taught it; a judge decided about rows without "
            "a word of its own in them",
        },
        "externalReferences": [
            {"type": "attestation", "url": MANIFEST, "comment": "signed training manifest"},
            *(
                {"type": kind, "url": name, "hashes": _hashes(digests[name])}
                for kind, name in (("model-card", CARD), ("quality-metrics", REPORT))
                if name in digests
            ),
        ],
        "properties": [
            *(
                _property("obligation", f"{duty}: {sentence_of(duty)}")
                for duty in found.obligations
            ),
            _property("declared-use", orjson.dumps(_use(manifest)).decode()),
            _property("policy-library-sha256", found.library),
            _property("ruled-again-on", found.day),
            _property("token-rows-sha256", found.snapshot.sha256),
            *(
                _property(f"recipe:{name}", value)
                for name, value in sorted(found.recipe.items())
            ),
        ],
        "components": [
            {"type": "file", "name": name, "hashes": _hashes(digest)}
            for name, digest in sorted(digests.items())
        ],
    }
    if len(weights) == 1:
        component["hashes"] = _hashes(digests[weights[0]])
    return component


def _card(manifest: ModelManifest, refs: Iterable[str]) -> dict[str, Any]:
    found = manifest.found
    use = ", ".join(f"{name} {value}" for name, value in _use(manifest).items())
    card: dict[str, Any] = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text-generation",
            "architectureFamily": "adapter" if is_adapter(manifest) else "transformer",
            "datasets": [{"ref": ref} for ref in refs],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        "considerations": {
            "technicalLimitations": [
                f"no use but the declared one is covered by the terms of its teachers: {use}",
                "likeness to a teacher is agreement, not correctness",
            ],
        },
    }
    if found.evaluation is not None:
        card["quantitativeAnalysis"] = {
            "performanceMetrics": list(_metrics(found.evaluation)),
        }
    return card


def _metrics(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    for name in evaluation.measures:
        for one in evaluation.figures:
            if one.measure != name:
                continue
            metric: dict[str, Any] = {
                "type": name if not MEASURES[name].unit else f"{name} ({MEASURES[name].unit})",
                "value": one.value,
                "slice": f"{one.of}, {one.rows} held-out rows",
            }
            if one.low is not None and one.high is not None:
                metric["confidenceInterval"] = {
                    "lowerBound": one.low,
                    "upperBound": one.high,
                }
            yield metric


def _data(ref: str, dataset: DatasetManifest, digests: Mapping[str, str]) -> dict[str, Any]:
    asked, found = dataset.asked, dataset.found
    evidence = f"evidence/{ref.removeprefix(_DATASET)}.{MANIFEST}"
    return {
        "bom-ref": ref,
        "type": "data",
        "name": asked.dataset,
        "version": dataset.metadata.invocation_id,
        "data": [
            {
                "type": "dataset",
                "name": asked.dataset,
                "classification": f"for {found.use.purpose} only",
                "description": f"{found.rows} rows, each vouched for by signed evidence; "
                f"built for {found.use.purpose} on {found.day}",
                "governance": {
                    "owners": [{"organization": {"name": f"project {asked.project}"}}],
                },
            }
        ],
        "externalReferences": [
            {
                "type": "attestation",
                "url": evidence,
                "comment": "signed dataset manifest",
                "hashes": _hashes(digests[evidence]),
            }
        ]
        if evidence in digests
        else [],
        "properties": [
            _property("declaration", asked.declaration),
            *(_property("obligation", duty) for duty in found.obligations),
            *(
                _property(f"transform:{one.kind}", f"{one.name} {one.version}: {one.rows} rows")
                for one in found.made_by
            ),
            *(
                _property("written-by", f"{one.by}, {one.licence}, {one.source}: {one.rows}")
                for one in found.written_by
            ),
        ],
    }


def _base(base: Base, *, ref: bool = True) -> Iterator[dict[str, Any]]:
    if base.kind == "tiny":
        return
    known = _SPDX.get(base.licence)
    licence = {"id": known} if known else {"name": base.licence}
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "name": base.name,
        "licenses": [{"license": licence}],
        "properties": [
            _property("files-sha256", base.sha256),
            *([_property("training-manifest", base.manifest)] if base.manifest else []),
        ],
    }
    if base.revision is not None:
        component["version"] = base.revision
    yield {"bom-ref": _BASE, **component} if ref else component


def _ancestor(teacher: Teacher) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "group": teacher.provider,
        "name": teacher.model or "not named",
        "properties": [_property("influence", teacher.influence)],
    }


def _teacher(ref: str, teacher: Teacher, share: float, *, direct: bool) -> dict[str, Any]:
    return {
        "bom-ref": ref,
        **_ancestor(teacher),
        "description": "a teacher" if direct else "a teacher of a student that taught it",
        "licenses": [
            {"license": {"name": f"terms: {pin.policy}, policy version {pin.version}"}}
            for pin in teacher.policies
        ],
        "properties": [
            _property("influence", teacher.influence),
            _property("rows", str(teacher.rows)),
            _property("share", f"{share:.4f}"),
            _property("ruling", teacher.effect),
            *(_property(f"policy:{pin.policy}", pin.sha256) for pin in teacher.policies),
            *(_property("clause", clause) for clause in teacher.clauses),
            *(_property("obligation", duty) for duty in teacher.obligations),
            *([_property("training-manifest", teacher.manifest)] if teacher.manifest else []),
        ],
    }


def _refs(datasets: Sequence[DatasetManifest]) -> dict[str, DatasetManifest]:
    """Return the datasets by name, as the folder names the copies of their manifests."""
    return {
        _DATASET + evidence_name(number, one.asked.dataset): one
        for number, one in enumerate(datasets)
    }


def evidence_name(number: int, name: str) -> str:
    """Return what the dataset at place *number* is called in `evidence/`."""
    return name if number == 0 else f"{name}-{number + 1}"


def _use(manifest: ModelManifest) -> dict[str, str]:
    use = manifest.found.use
    return {
        name.replace("_", "-"): str({True: "yes", False: "no"}.get(value, value))
        for name in use.__struct_fields__
        if (value := getattr(use, name)) is not None
    }


def _hashes(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": f"tos-gateway:{name}", "value": value}
