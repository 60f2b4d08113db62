"""Verify a model folder offline: its signature, its files, and the datasets it names.

It loads no weights and no training library. A function that returns has checked everything
its docstring says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.dataset.manifest import DATASET_MANIFEST, DatasetManifest, parse_manifest
from gateway.errors import BadDigestError, EvidenceError, MalformedReceiptError
from gateway.ident import Sha256
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.receipt.keys import Trust
from gateway.receipt.verify import verify_manifest
from gateway.student.files import file_sha256, files_under
from gateway.student.manifest import ModelManifest, parse_model_manifest

MANIFEST: Final = "manifest.json"
EVIDENCE: Final = "evidence"
EVIDENCE_SUFFIX: Final = ".manifest.json"
PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle"})
"""Files that run what they hold when they are loaded; no model folder ships any."""

_FOLDER_HINT: Final = "get the model folder again from where it was trained"

Passed = Callable[[str, str], None]
"""Takes the name of a check that passed, and what it found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedModel:
    """A model folder whose signature, files and evidence were checked."""

    path: Path
    payload_sha256: Sha256
    manifest: ModelManifest
    datasets: tuple[DatasetManifest, ...]


def verify_model(path: Path, trust: Trust, passed: Passed | None = None) -> VerifiedModel:
    """Check the model folder at *path* whole, reporting each check to *passed*.

    Raises:
        EvidenceError: something does not verify; the message names the file.
    """
    tell = passed or _say_nothing
    statement, payload = verify_manifest(_read_manifest(path / MANIFEST), trust)
    manifest = parse_model_manifest(statement)
    tell("signature", f"training manifest {payload}")
    _check_files(path, manifest)
    tell("files", f"{len(manifest.subjects)} files as signed, nothing beside them")
    datasets = _check_evidence(path, manifest, trust)
    for dataset in datasets:
        tell("dataset", f"{dataset.asked.dataset}: {dataset.found.rows} rows, manifest signed")
    return VerifiedModel(
        path=path, payload_sha256=payload, manifest=manifest, datasets=datasets
    )


def _read_manifest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(BUNDLE_BYTES_MAX + 1)
    except OSError as error:
        raise EvidenceError(
            f"{path.name}: can't be read: {error.strerror}", hint=_FOLDER_HINT
        ) from error


def _check_files(path: Path, manifest: ModelManifest) -> None:
    """Compare every file with its signed digest; nothing may be missing or added."""
    signed = manifest.digests
    found = files_under(path)
    for name in sorted(signed.keys() - found.keys()):
        raise BadDigestError(f"{name}: signed, but not there", hint=_FOLDER_HINT)
    for name in sorted(found.keys() - signed.keys() - {MANIFEST}):
        raise BadDigestError(
            f"{name}: there, but not signed", hint="remove it, or get the folder again"
        )
    if not any(name.endswith(".safetensors") for name in signed):
        raise MalformedReceiptError("the manifest names no weights")
    for name, digest in sorted(signed.items()):
        if Path(name).suffix in PICKLES:
            raise BadDigestError(f"{name}: a file that can run code is no part of a model")
        if file_sha256(found[name]) != digest:
            raise BadDigestError(f"{name}: not the bytes that were signed", hint=_FOLDER_HINT)


def _check_evidence(
    path: Path, manifest: ModelManifest, trust: Trust
) -> tuple[DatasetManifest, ...]:
    """Check that the copies of dataset manifests are exactly those the student names."""
    named = {
        dependency.digest.get("sha256", ""): dependency.name
        for dependency in manifest.dependencies
        if dependency.kind == DATASET_MANIFEST
    }
    if not named:
        raise MalformedReceiptError("the training manifest names no dataset")
    datasets: list[DatasetManifest] = []
    for file in sorted((path / EVIDENCE).glob(f"*{EVIDENCE_SUFFIX}")):
        where = f"{EVIDENCE}/{file.name}"
        try:
            statement, payload = verify_manifest(_read_manifest(file), trust)
            dataset = parse_manifest(statement)
        except EvidenceError as error:
            raise EvidenceError(
                f"{where}: {error.message}", hint=error.hint, code=error.problem
            ) from error
        if named.pop(payload, None) is None:
            raise BadDigestError(f"{where}: a dataset that the student does not name")
        datasets.append(dataset)
    for name in named.values():
        raise BadDigestError(
            f"{name}: named by the training manifest, its manifest is not in {EVIDENCE}/"
        )
    taught = [teacher for dataset in datasets for teacher in dataset.found.teachers]
    if sorted(map(repr, taught)) != sorted(map(repr, manifest.found.teachers)):
        raise BadDigestError("the teachers of the student are not those of its datasets")
    if any(dataset.found.use != manifest.found.use for dataset in datasets):
        raise BadDigestError("the use of the student is not that of its datasets")
    return tuple(datasets)


def _say_nothing(check: str, found: str) -> None:
    """Report to nobody."""
