"""Verify a model folder offline: signatures, place in the log, files, and its datasets.

The training manifest and the manifest of each dataset must be leaves of the trusted log, and
`model.sig` must be over exactly the files that are there. It loads no weights and no training
library. A function that returns has checked everything its docstring says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.dataset.manifest import (
    DATASET_MANIFEST,
    MANIFEST,
    PROOF,
    DatasetManifest,
    parse_manifest,
)
from gateway.dataset.verification.logged import verify_logged
from gateway.errors import BadDigestError, EvidenceError, MalformedReceiptError
from gateway.ident import Sha256
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.receipt.keys import PublicKey, Trust
from gateway.receipt.verify import document_keys
from gateway.student.files import file_sha256, files_under
from gateway.student.manifest import ModelManifest, parse_model_manifest
from gateway.student.signature import SIGNATURE, verify_signature
from gateway.student.views import DRAWN, check_views
from gateway.student.weights import WEIGHTS, Weights, read_weights

EVIDENCE: Final = "evidence"
EVIDENCE_SUFFIX: Final = f".{MANIFEST}"
PROOF_SUFFIX: Final = f".{PROOF}"
PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle"})
"""Files that run what they hold when they are loaded; no model folder ships any."""

_FOLDER_HINT: Final = "get the model folder again from where it was trained"

Passed = Callable[[str, str], None]
"""Takes the name of a check that passed, and what it found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFiles:
    """What a training manifest names, compared with what is there."""

    manifest: ModelManifest
    datasets: tuple[DatasetManifest, ...]
    digests: dict[str, Sha256]
    """SHA-256 of each file that the manifest names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedModel:
    """A model folder whose signatures, files and evidence were checked."""

    path: Path
    payload_sha256: Sha256
    index: int
    """Leaf index of the training manifest."""
    manifest: ModelManifest
    datasets: tuple[DatasetManifest, ...]


def verify_model(path: Path, trust: Trust, passed: Passed | None = None) -> VerifiedModel:
    """Check the model folder at *path* whole, reporting each check to *passed*.

    Raises:
        EvidenceError: something does not verify; the message names the file.
    """
    tell = passed or _say_nothing
    try:
        logged = verify_logged(path, trust)
    except EvidenceError as error:
        hint = error.hint or _FOLDER_HINT
        raise type(error)(error.message, hint=hint, code=error.problem) from error
    tell("signature", f"training manifest {logged.payload_sha256}")
    tell("logged", f"the manifest is leaf {logged.index} of the log")
    checked = check_files(path, logged.statement, trust, tell)
    # The key of the manifest may have been followed by another before this was made.
    _check_signature(path, checked, [logged.key, *document_keys(trust).values()])
    tell("weights", f"{SIGNATURE} is over the same files")
    return VerifiedModel(
        path=path,
        payload_sha256=logged.payload_sha256,
        index=logged.index,
        manifest=checked.manifest,
        datasets=checked.datasets,
    )


def check_files(
    path: Path, statement: Mapping[str, Any], trust: Trust, passed: Passed | None = None
) -> CheckedFiles:
    """Compare the folder at *path* with the training manifest that *statement* is.

    Not checked: the manifest's own signature and place, and `model.sig`, which is made last.

    Raises:
        EvidenceError: something does not verify; the message names the file.
    """
    tell = passed or _say_nothing
    manifest = parse_model_manifest(statement)
    digests = _check_digests(path, manifest, tell)
    datasets = _check_evidence(path, manifest, trust)
    for dataset in datasets:
        tell("dataset", f"{dataset.asked.dataset}: {_rows_of(dataset)}, manifest logged")
    tell("views", check_views(path, manifest, datasets))
    return CheckedFiles(manifest=manifest, datasets=datasets, digests=digests)


def _rows_of(dataset: DatasetManifest) -> str:
    """Return how many rows *dataset* has, and how many of them to measure with."""
    told = f"{dataset.found.rows} rows"
    parts = ", ".join(f"{part.rows} {part.name}" for part in dataset.found.splits)
    return f"{told} ({parts})" if parts else told


def signed_files(path: Path, checked: CheckedFiles) -> dict[str, Sha256]:
    """Return the SHA-256 of every file that `model.sig` is over: all but itself."""
    return checked.digests | {name: file_sha256(path / name) for name in (MANIFEST, PROOF)}


def _check_signature(path: Path, checked: CheckedFiles, keys: Iterable[PublicKey]) -> None:
    try:
        verify_signature(_read(path / SIGNATURE), signed_files(path, checked), keys)
    except EvidenceError as error:
        raise _in(SIGNATURE, error) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(BUNDLE_BYTES_MAX + 1)
    except OSError as error:
        raise EvidenceError(
            f"{path.name}: can't be read: {error.strerror}", hint=_FOLDER_HINT
        ) from error


def _check_digests(path: Path, manifest: ModelManifest, tell: Passed) -> dict[str, Sha256]:
    """Compare every file with its signed digest; nothing may be missing or added."""
    signed = manifest.digests
    found = files_under(path)
    for name in sorted(signed.keys() - found.keys()):
        raise BadDigestError(f"{name}: signed, but not there", hint=_FOLDER_HINT)
    for name in sorted(found.keys() - signed.keys() - {MANIFEST, PROOF, SIGNATURE}):
        raise BadDigestError(
            f"{name}: there, but not signed", hint="remove it, or get the folder again"
        )
    if not any(name.endswith(WEIGHTS) for name in signed):
        raise MalformedReceiptError("the manifest names no weights")
    weights, broken = _weights(path, manifest)
    read = {} if weights is None else weights.files
    for name, digest in sorted(signed.items()):
        if Path(name).suffix in PICKLES:
            raise BadDigestError(f"{name}: a file that can run code is no part of a model")
        if (read.get(name) or file_sha256(found[name])) != digest:
            raise _changed(name)
    tell("files", f"{len(signed)} files as signed, nothing beside them")
    if broken is not None:
        raise broken
    if weights is None:
        tell("digest", "no weights digest is signed: it is known by its files alone")
    elif weights.sha256 != manifest.found.weights:
        raise BadDigestError(
            "the weights digest that is signed is not that of the weights",
            hint="whoever signed this folder wrote it by hand; don't rely on it",
            code="model.weights_digest",
        )
    else:
        tell("digest", f"weights {weights.sha256}, worked out again")
    return {name: Sha256(digest) for name, digest in signed.items()}


def _weights(
    path: Path, manifest: ModelManifest
) -> tuple[Weights | None, MalformedReceiptError | None]:
    """Return what the weights are, or what is wrong with them; nothing where nothing is signed.

    Other bytes than those that were signed are told as that, and not as broken.
    """
    if manifest.found.weights is None:
        return None, None
    try:
        return read_weights(path), None
    except MalformedReceiptError as broken:
        return None, broken


def _changed(name: str) -> BadDigestError:
    """Return what is wrong with a file that is not the one that was signed."""
    if name in DRAWN:
        return BadDigestError(
            f"{name}: changed by hand, it is not what was signed",
            hint=f"say what you have to say beside the folder; {_FOLDER_HINT}",
            code="model.view_changed",
        )
    code = "model.weights_changed" if name.endswith(WEIGHTS) else "model.file_changed"
    return BadDigestError(
        f"{name}: not the bytes that were signed", hint=_FOLDER_HINT, code=code
    )


def _check_evidence(
    path: Path, manifest: ModelManifest, trust: Trust
) -> tuple[DatasetManifest, ...]:
    """Return the datasets that the student names, in its order, from exactly their copies."""
    named = {
        dependency.digest.get("sha256", ""): dependency.name
        for dependency in manifest.dependencies
        if dependency.kind == DATASET_MANIFEST
    }
    if not named:
        raise MalformedReceiptError("the training manifest names no dataset")
    order = list(named)
    found: dict[str, DatasetManifest] = {}
    for file in sorted((path / EVIDENCE).glob(f"*{EVIDENCE_SUFFIX}")):
        where = f"{EVIDENCE}/{file.name}"
        proof = where.removesuffix(EVIDENCE_SUFFIX) + PROOF_SUFFIX
        logged = verify_logged(path, trust, where, proof)
        try:
            dataset = parse_manifest(logged.statement)
        except EvidenceError as error:
            raise _in(where, error) from error
        if named.pop(logged.payload_sha256, None) is None:
            raise BadDigestError(f"{where}: a dataset that the student does not name")
        found[logged.payload_sha256] = dataset
    for name in named.values():
        raise BadDigestError(
            f"{name}: named by the training manifest, its manifest is not in {EVIDENCE}/"
        )
    datasets = tuple(found[payload] for payload in order)
    taught = [teacher for dataset in datasets for teacher in dataset.found.teachers]
    if sorted(map(repr, taught)) != sorted(map(repr, manifest.found.teachers)):
        raise BadDigestError("the teachers of the student are not those of its datasets")
    if any(dataset.found.use != manifest.found.use for dataset in datasets):
        raise BadDigestError("the use of the student is not that of its datasets")
    return datasets


def _in(name: str, error: EvidenceError) -> EvidenceError:
    if error.message.startswith(f"{name}: "):
        return error
    return EvidenceError(f"{name}: {error.message}", hint=error.hint, code=error.problem)


def _say_nothing(check: str, found: str) -> None:
    """Report to nobody."""
