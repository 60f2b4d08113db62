"""The signed statement that names a student: its files, its teachers, and how it was trained.

An in-toto Statement with a SLSA Provenance v1 predicate. Its dependencies are the manifests of
the datasets, by the digest of their payload, and the base. Numbers that are not whole are
written as text, so that there is one way to write them. Described in `docs/formats/model.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from gateway.canonical import digest_of
from gateway.dataset.manifest import (
    BASE_MODEL,
    TRAINING_MANIFEST,
    LeftOut,
    Teacher,
    manifest_dependency,
)
from gateway.dataset.provenance import (
    Dependency,
    Provenance,
    read_provenance,
    write_provenance,
)
from gateway.errors import MalformedReceiptError
from gateway.ident import DeclarationId, Sha256
from gateway.intent.model import IntendedUse
from gateway.receipt.model import (
    PREDICATES,
    TRAINING_BUILD,
    Wire,
)
from gateway.student.figures import Evaluation
from gateway.student.recipe import Objective, Recipe

BUILDER: Final = PREDICATES + "student-trainer/v1"
"""Who trained it: the trainer of this package; the versions stand beside it."""

UNKNOWN: Final = "unknown"


class Base(Wire, frozen=True, kw_only=True):
    """What the student began as."""

    kind: Literal["tiny", "local", "hub"]
    name: str
    """`tiny`, the last part of a local path, or the hub's id."""
    sha256: Sha256
    """Digest over its files, or over the configuration and seed of a tiny one."""
    licence: str = UNKNOWN
    licence_said_by: str | None = None
    """Who answers for the licence, where the card of the base names none."""
    revision: str | None = None
    manifest: Sha256 | None = None
    """For a student of ours: SHA-256 of its training manifest's payload."""
    weights: Sha256 | None = None
    """For one from outside: the weights digest, by which it is known in other files, too."""


class Asked(Wire, frozen=True, kw_only=True):
    """The external parameters: what somebody asked to be trained."""

    method: Objective = "sft"
    student: str
    declarations: tuple[DeclarationId, ...]
    datasets: tuple[str, ...]
    base: Base


class Losses(Wire, frozen=True, kw_only=True):
    """The loss where the run began and where it ended, in nats a learned token."""

    first: str
    last: str
    """The mean over the last tenth of the steps."""


class SnapshotFacts(Wire, frozen=True, kw_only=True):
    """The token rows the trainer was given, and nothing else."""

    sha256: Sha256
    rows: int
    tokens: int
    learned: int
    left_out: tuple[LeftOut, ...] = ()
    template_sha256: Sha256
    tokenizer_sha256: Sha256
    held_out: int | None = None
    """Rows that were measured on and not learned; `None` where none were kept apart."""


class Round(Wire, frozen=True, kw_only=True):
    """One round over a snapshot of a feed."""

    dataset: Sha256
    """The manifest of the snapshot."""
    snapshot: Sha256
    """The token rows of it and of those before, of which a share came again."""
    steps: int


class Findings(Wire, frozen=True, kw_only=True):
    """The internal parameters: how it was trained, by whom it was taught, under which terms."""

    recipe: dict[str, str]
    snapshot: SnapshotFacts
    steps: int
    resumes: int = 0
    losses: Losses
    rounds: tuple[Round, ...] = ()
    """One a snapshot, where it was trained from a feed."""
    form: Literal["full", "adapter", "merged"] = "full"
    """What the weights are: all of them, an adapter beside the base, or both made one."""
    precision: str = "fp32"
    """What was computed in."""
    weights: Sha256 | None = None
    """The weights digest; manifests that were made before there was one have none."""
    use: IntendedUse
    """What the student may be used for: the declared use of every dataset it learned from."""
    obligations: tuple[str, ...] = ()
    teachers: tuple[Teacher, ...]
    above: tuple[Teacher, ...] = ()
    """The teachers of teachers that are students of ours, and of the base."""
    day: str
    """The day on whose policies it was ruled again."""
    library: Sha256
    device: str
    versions: dict[str, str]
    evaluation: Evaluation | None = None
    """What came of asking it what was held out; `None` where nothing was, or nobody asked."""
    views: int = 0
    """How card, report and bill of materials were drawn, so that they can be drawn again."""


class ModelManifest(Provenance[Asked, Findings], frozen=True, kw_only=True):
    """A training manifest, read."""


def statement_of(manifest: ModelManifest) -> dict[str, Any]:
    """Return the in-toto Statement that *manifest* is."""
    return write_provenance(TRAINING_BUILD, BUILDER, manifest)


def parse_model_manifest(statement: Mapping[str, Any]) -> ModelManifest:
    """Return the training manifest that *statement* is.

    Raises:
        MalformedReceiptError: it is another kind of statement, or not whole.
    """
    try:
        return read_provenance(statement, TRAINING_BUILD, ModelManifest, Asked, Findings)
    except MalformedReceiptError as error:
        raise MalformedReceiptError(
            f"this is not a training manifest: {error.message}",
            hint="a model folder is written by `gateway student train`",
        ) from error


def base_dependencies(base: Base) -> tuple[Dependency, ...]:
    """Return the edge to what the student began as; a tiny base has none: chance made it."""
    if base.kind == "tiny":
        return ()
    if base.manifest is not None:
        return (manifest_dependency(f"student:{base.name}", base.manifest, TRAINING_MANIFEST),)
    return (
        Dependency(
            name=f"base:{base.name}",
            uri=f"https://huggingface.co/{base.name}" if base.kind == "hub" else None,
            digest={"sha256": base.sha256},
            annotations={"kind": BASE_MODEL, "licence": base.licence}
            | ({} if base.weights is None else {"weights": base.weights}),
        ),
    )


def recipe_facts(recipe: Recipe) -> dict[str, str]:
    """Return *recipe* as text, whatever its numbers are."""
    said = msgspec.structs.asdict(recipe)
    lora = said.pop("lora")
    if lora is not None:
        said |= {f"lora.{name}": value for name, value in msgspec.structs.asdict(lora).items()}
    return {name: str(value) for name, value in sorted(said.items()) if value is not None}


def recipe_sha256(recipe: Recipe, base: Base) -> Sha256:
    """Return the digest of everything a run must not change while it is under way."""
    return digest_of({"recipe": recipe_facts(recipe), "base": msgspec.to_builtins(base)})


def losses_of(losses: Sequence[float]) -> Losses:
    """Return the loss at the beginning and the end of a run."""
    tail = losses[-max(1, len(losses) // 10) :]
    return Losses(first=f"{losses[0]:.4f}", last=f"{sum(tail) / len(tail):.4f}")
