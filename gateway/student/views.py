"""Card, report and bill of materials of a model folder: views of its manifest.

They are drawn from what is signed, by rules that have a number. Whoever verifies the folder
draws them again and compares, so that a view can't say what the manifest doesn't.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway.canonical import canonical_json
from gateway.dataset.manifest import DatasetManifest
from gateway.errors import BadDigestError, EvidenceError, MalformedReceiptError
from gateway.ident import Sha256
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.receipt.model import Subject
from gateway.student.bom import BOM, CARD, REPORT, format_bom
from gateway.student.card import format_card
from gateway.student.evaluate import Sample
from gateway.student.files import file_sha256, files_under
from gateway.student.manifest import ModelManifest
from gateway.student.picture import draw_png
from gateway.student.progress import read_held_out, read_metrics
from gateway.student.report import Course, format_report
from gateway.student.weights import read_weights

VIEWS: Final = 2
"""The rules by which views are drawn now; a folder keeps the number of its own."""

METRICS: Final = "metrics.jsonl"
PICTURE: Final = "loss.png"
SAMPLES: Final = "samples.jsonl"
"""Held-out rows with their answers, in full; only where samples were asked for."""

DRAWN: Final = (CARD, REPORT, BOM)
"""What is drawn from the manifest and nothing else that is not signed."""


def write_views(
    folder: Path,
    manifest: ModelManifest,
    datasets: Sequence[DatasetManifest],
    samples: Sequence[Sample] = (),
) -> ModelManifest:
    """Draw every view of *manifest* into *folder*; return it with all files named.

    The folder must hold everything else already, its metrics too. *datasets* stand in the
    order in which the manifest names them.
    """
    weights = read_weights(folder)
    manifest = msgspec.structs.replace(
        manifest,
        found=msgspec.structs.replace(manifest.found, views=VIEWS, weights=weights.sha256),
    )
    course = Course(
        steps=read_metrics(folder / METRICS),
        held_out=read_held_out(folder / METRICS),
        samples=samples,
    )
    title = f"{manifest.asked.student}: loss"
    draw_png(course.steps, course.held_out, title, folder / PICTURE)
    if samples:
        (folder / SAMPLES).write_bytes(
            b"".join(canonical_json(msgspec.to_builtins(one)) + b"\n" for one in samples)
        )
    # Weights are large: what is there already is digested once.
    digests = {
        name: weights.files.get(name) or file_sha256(path)
        for name, path in files_under(folder).items()
    }
    manifest = _naming(manifest, digests)
    for name, drawn in (
        (CARD, format_card(manifest, datasets).encode()),
        (REPORT, format_report(manifest, datasets, course).encode()),
    ):
        (folder / name).write_bytes(drawn)
        digests[name] = file_sha256(folder / name)
    manifest = _naming(manifest, digests)
    (folder / BOM).write_bytes(format_bom(manifest, datasets))
    digests[BOM] = file_sha256(folder / BOM)
    for path in files_under(folder).values():
        path.chmod(0o644)
    return _naming(manifest, digests)


def check_views(
    folder: Path, manifest: ModelManifest, datasets: Sequence[DatasetManifest]
) -> str:
    """Draw the views again and compare them with those in *folder*; return what was done.

    The digests of all files must have been checked before.

    Raises:
        EvidenceError: a view says something else than the manifest, or a part of it is broken.
    """
    if manifest.found.views != VIEWS:
        return f"by digest alone: drawn by rules {manifest.found.views}, these are {VIEWS}"
    for name, drawn in _views(folder, manifest, datasets):
        if (folder / name).read_bytes() != drawn:
            raise BadDigestError(
                f"{name}: it does not say what the signed manifest says",
                hint="whoever signed this folder wrote it by hand; don't rely on it",
                code="model.view_differs",
            )
    return f"{', '.join(DRAWN)} say what the manifest says"


def _views(
    folder: Path, manifest: ModelManifest, datasets: Sequence[DatasetManifest]
) -> Iterator[tuple[str, bytes]]:
    names = manifest.digests
    for name in (*DRAWN, METRICS):
        if name not in names:
            raise MalformedReceiptError(f"the training manifest names no {name}")
    course = Course(
        steps=read_metrics(folder / METRICS),
        held_out=read_held_out(folder / METRICS),
        samples=read_samples(folder / SAMPLES) if SAMPLES in names else (),
    )
    yield CARD, format_card(manifest, datasets).encode()
    yield REPORT, format_report(manifest, datasets, course).encode()
    yield BOM, format_bom(manifest, datasets)


def read_samples(path: Path) -> list[Sample]:
    """Return the samples that the file at *path* holds.

    Raises:
        EvidenceError: it is too large, or a line of it is no sample.
    """
    with path.open("rb") as file:
        text = file.read(BUNDLE_BYTES_MAX + 1)
    if len(text) > BUNDLE_BYTES_MAX:
        raise EvidenceError(f"{path.name}: larger than {BUNDLE_BYTES_MAX} bytes")
    try:
        return [msgspec.json.decode(line, type=Sample) for line in text.splitlines()]
    except (msgspec.MsgspecError, ValueError) as error:
        raise MalformedReceiptError(f"{path.name}: a line of it is no sample") from error


def _naming(manifest: ModelManifest, digests: Mapping[str, Sha256]) -> ModelManifest:
    """Return *manifest* with the files of *digests* as its subjects."""
    return msgspec.structs.replace(
        manifest,
        subjects=tuple(
            Subject(name=name, digest={"sha256": digest})
            for name, digest in sorted(digests.items())
        ),
    )
