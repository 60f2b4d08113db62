"""Model folders as a training leaves them, made in a moment; their weights are made up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import msgspec

from gateway.dataset.manifest import DATASET_MANIFEST, manifest_dependency
from gateway.receipt.keys import P256Signer
from gateway.receipt.model import Subject
from gateway.receipt.sigstore import write_manifest
from gateway.student.files import file_sha256, files_under
from gateway.student.manifest import ModelManifest, statement_of
from gateway.student.signature import write_signature
from gateway.student.views import write_views
from gateway.tlog.proof import format_proof
from tests.support.dataset import House
from tests.support.evidence import MANIFEST_SIGNER
from tests.support.tensors import Tensor, write_tensors
from tests.support.views import (
    SAMPLES,
    an_evaluation,
    some_held_out,
    some_steps,
    write_metrics,
)
from tests.unit.test_student_manifest import a_manifest

MADE_LAST: Final = ("manifest.json", "manifest.tlog-proof", "model.sig")
"""The files that the training manifest does not name, in the order they are made in."""


def a_model(house: House) -> Path:
    """Return a model folder whose dataset and manifest are in the log of *house*."""
    declaration = house.declare()
    house.answer(declaration)
    built = house.build(declaration)
    model = house.folder / "model"
    (model / "evidence").mkdir(parents=True)
    write_tensors(model / "model.safetensors", [Tensor()])
    (model / "config.json").write_bytes(b"{}")
    for name in ("manifest.json", "manifest.tlog-proof"):
        shutil.copyfile(built.folder / name, model / "evidence" / f"set.{name}")
    write_metrics(model / "metrics.jsonl", some_steps(), some_held_out())
    manifest = a_manifest(
        teachers=built.manifest.found.teachers,
        use=built.manifest.found.use,
        evaluation=an_evaluation(),
    )
    dependency = manifest_dependency("dataset:set", built.manifest_sha256, DATASET_MANIFEST)
    manifest = msgspec.structs.replace(manifest, dependencies=(dependency,))
    sign(house, model, write_views(model, manifest, [built.manifest], SAMPLES))
    return model


def sign(house: House, model: Path, manifest: ModelManifest) -> None:
    """Sign the folder as it stands, have the log take it, and sign all of that."""
    for name in MADE_LAST:
        (model / name).unlink(missing_ok=True)
    named = msgspec.structs.replace(manifest, subjects=subjects_of(model))
    encoded, leaf = write_manifest(statement_of(named), MANIFEST_SIGNER)
    (model / "manifest.json").write_bytes(encoded)
    proof = format_proof(house.proof(house.append(leaf)))
    (model / "manifest.tlog-proof").write_text(proof)
    sign_weights(model)


def sign_weights(model: Path, signer: P256Signer = MANIFEST_SIGNER) -> None:
    """Make `model.sig` over the folder as it stands."""
    (model / "model.sig").unlink(missing_ok=True)
    digests = {one.name: one.digest["sha256"] for one in subjects_of(model)}
    (model / "model.sig").write_bytes(write_signature("parser", digests, signer, signer.public))


def subjects_of(model: Path) -> tuple[Subject, ...]:
    """Return every file that is there, by digest."""
    return tuple(
        Subject(name=name, digest={"sha256": file_sha256(path)})
        for name, path in files_under(model).items()
    )
