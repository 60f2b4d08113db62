"""The signed statement that names a dataset: what is in it, from whom, and under which terms.

It is an in-toto Statement with a SLSA Provenance v1 predicate; its subjects are the files of
the dataset folder, its dependencies the training manifests of the students among its teachers
and the checkpoint that covers its receipts. What links one stage to the next is always the
SHA-256 of a manifest's payload, never a name. Described in `docs/formats/dataset.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from gateway.dataset.provenance import (
    Dependency,
    Provenance,
    build_of,
    read_provenance,
    write_provenance,
)
from gateway.errors import MalformedReceiptError
from gateway.ident import DeclarationId, Sha256
from gateway.intent.model import IntendedUse
from gateway.receipt.model import (
    DATASET_BUILD,
    PAYLOAD_TYPE,
    PREDICATES,
    TRAINING_BUILD,
    EffectName,
    PolicyPin,
    RowKind,
    TransformKind,
    Wire,
)

BUILDER: Final = PREDICATES + "dataset-gate/v1"
"""Who built it: the gate of this package; the version stands beside it."""

DATASET_MANIFEST: Final = "dataset-manifest"
TRAINING_MANIFEST: Final = "training-manifest"
BASE_MODEL: Final = "base-model"
LEDGER_CHECKPOINT: Final = "ledger-checkpoint"
PREVIOUS_SNAPSHOT: Final = "previous-snapshot"
"""What a dependency is, in its annotation `kind`; manifests are named by payload digest.

A previous snapshot is the one of a feed that this one follows; nothing of it stands in this.
"""

ROWS: Final = "rows.jsonl"
HELD_OUT: Final = "held-out.jsonl"
RECEIPTS: Final = "receipts.jsonl"
LEAVES: Final = "evidence/leaves"
ABOVE: Final = "evidence/above/leaves"
ABOVE_TILES: Final = "evidence/above/tiles/"
TILES: Final = "evidence/tiles/"
KEYS: Final = "evidence/keys.jsonl"
SPANS: Final = "evidence/spans.jsonl"
CHECKPOINT: Final = "evidence/checkpoint"
LEFT_OUT: Final = "left-out.jsonl"
POLICIES: Final = "policies.json"
CARD: Final = "README.md"
CROISSANT: Final = "croissant.json"
MANIFEST: Final = "manifest.json"
PROOF: Final = "manifest.tlog-proof"

FILES: Final = (
    ROWS,
    RECEIPTS,
    LEAVES,
    KEYS,
    SPANS,
    CHECKPOINT,
    LEFT_OUT,
    POLICIES,
    CARD,
    CROISSANT,
)
"""The files of every dataset folder that its manifest names, besides the levels of tiles."""


def tile_file(level: int, under: str = TILES) -> str:
    """Return the name of the file that holds the tiles of *level*, of rows' leaves or above."""
    return f"{under}{level}"


Influence = Literal["text", "judge"]
"""How an answer reached a row: its words, or words made of them, stand in it; or it judged."""


class Teacher(Wire, frozen=True, kw_only=True):
    """Who answered, how often, and what was ruled on learning from it, for one kind of call."""

    provider: str
    model: str | None = None
    """As it was asked for."""
    reported: tuple[str, ...] = ()
    """The names under which it says it answered."""
    answered_by: str | None = None
    """Who made the answers, where an aggregator passed the questions on; its terms bind too."""
    manifest: Sha256 | None = None
    """For a student of ours: its training manifest; whoever taught it teaches here too."""
    operation: str
    streaming: bool = False
    features: tuple[str, ...] = ()
    rows: int
    receipts: int
    input_tokens: int | None = None
    output_tokens: int | None = None
    days: tuple[str, ...]
    """The days on which it was asked, `YYYY-MM-DD`, each ruled on under its own policies."""
    effect: EffectName
    """What was ruled over this teacher and all of its own; `hold` if a verdict let it pass."""
    obligations: tuple[str, ...] = ()
    policies: tuple[PolicyPin, ...] = ()
    """Every policy that had a say, of that day and of the days of the calls."""
    clauses: tuple[str, ...] = ()
    """The clauses that spoke, as `policy:clause`."""
    verdicts: tuple[int, ...] = ()
    """Leaf indices of the verdicts that let a held use pass."""
    declarations: tuple[DeclarationId, ...] = ()
    """What the calls were declared for when they were made."""
    generated_for: str | None = None
    """The purpose of those declarations; what the answers are used for now may be narrower."""
    route: str | None = None
    account_tier: str | None = None
    agreements: tuple[str, ...] = ()
    """The registered agreements that the credential in use was bound to."""
    influence: Influence = "text"


class MadeBy(Wire, frozen=True, kw_only=True):
    """A transform that made rows of the dataset, or rows that those were made from."""

    name: str
    version: str
    kind: TransformKind
    rows: int
    """Rows of the dataset that it made, itself or further up."""


class WrittenBy(Wire, frozen=True, kw_only=True):
    """Words of people, or from outside, in rows of the dataset."""

    by: str
    licence: str
    source: str
    rows: int


class Split(Wire, frozen=True, kw_only=True):
    """A part of the rows that is kept apart: `train` in one file, `held-out` in another."""

    name: Literal["train", "held-out"]
    rows: int
    clusters: int | None = None
    """Groups of alike prompts; no group stands in both parts."""


class MembersFacts(Wire, frozen=True, kw_only=True):
    """Every leaf that the rows were made from, theirs and those above, as a set."""

    count: int
    sha256: Sha256
    """Over the leaf indices in rising order, each as 8 bytes, big end first."""


class LeftOut(Wire, frozen=True, kw_only=True):
    """How many candidates were left out for one reason."""

    reason: str
    count: int


class Parameters(Wire, frozen=True, kw_only=True):
    """The external parameters: what somebody asked to be built."""

    dataset: str
    declaration: DeclarationId
    project: str
    filters: dict[str, str] = msgspec.field(default_factory=dict)
    kind: RowKind = "messages"
    reasoning: bool = False
    """Rows with the reasoning that the provider showed, where its terms show it as given."""
    dedupe: Literal["exact", "near"] = "exact"
    held_out: str | None = None
    """The share of the clusters of prompts that is kept apart, like `0.05`."""
    seed: int = 0
    """What the split is drawn with."""
    follows: Sha256 | None = None
    """In a feed: the manifest of the snapshot before."""
    after: int | None = None
    """In a feed: snapshots before looked at all leaves below this index; of those only what
    waited then is a candidate still."""


class Findings(Wire, frozen=True, kw_only=True):
    """The internal parameters: what the gate made of it."""

    rows: int
    """In all parts together."""
    splits: tuple[Split, ...] = ()
    """Empty where nothing was kept apart: then every row is to train on."""
    left_out: tuple[LeftOut, ...] = ()
    teachers: tuple[Teacher, ...]
    use: IntendedUse
    """What may be done with the rows: the declared use, word for word."""
    day: str
    """The day on which it was ruled again."""
    library: Sha256
    """Digest of the whole policy library it was ruled under."""
    obligations: tuple[str, ...] = ()
    made_by: tuple[MadeBy, ...] = ()
    written_by: tuple[WrittenBy, ...] = ()
    members: MembersFacts | None = None

    @property
    def is_derived(self) -> bool:
        """Tell whether rows were made of others, so that leaves stand above theirs."""
        return bool(self.made_by or self.written_by)


class DatasetManifest(Provenance[Parameters, Findings], frozen=True, kw_only=True):
    """A dataset manifest, read."""


class TrainingManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What lineage needs of a training manifest; `student` owns the rest of it."""

    student: str
    dependencies: tuple[Dependency, ...]
    finished: str
    statement: dict[str, Any]

    def parents(self) -> Iterator[Dependency]:
        """Yield the manifests it was made from: datasets, and a student it began as."""
        return (d for d in self.dependencies if d.kind in {DATASET_MANIFEST, TRAINING_MANIFEST})

    def bases(self) -> Iterator[Dependency]:
        """Yield the base models that came from outside."""
        return (d for d in self.dependencies if d.kind == BASE_MODEL)


def files_of(found: Findings) -> tuple[str, ...]:
    """Return the files of a dataset folder that its manifest names, besides levels of tiles."""
    held_out = (HELD_OUT,) if found.splits else ()
    return (*FILES, *held_out, *((ABOVE,) if found.is_derived else ()))


def statement_of(manifest: DatasetManifest) -> dict[str, Any]:
    """Return *manifest* as the in-toto Statement that is signed."""
    return write_provenance(DATASET_BUILD, BUILDER, manifest)


def parse_manifest(statement: Mapping[str, Any]) -> DatasetManifest:
    """Return the dataset manifest that *statement* is.

    Raises:
        MalformedReceiptError: it is another kind of statement, or not whole.
    """
    try:
        return read_provenance(statement, DATASET_BUILD, DatasetManifest, Parameters, Findings)
    except MalformedReceiptError as exc:
        raise MalformedReceiptError(
            f"this is not a dataset manifest: {exc.message}",
            hint="a dataset folder is written by `gateway dataset build`",
        ) from exc


def parse_training(statement: Mapping[str, Any]) -> TrainingManifest:
    """Return what lineage needs of the training manifest that *statement* is.

    Raises:
        MalformedReceiptError: it is another kind of statement, or not whole.
    """
    try:
        build, details = build_of(statement, TRAINING_BUILD)
        return TrainingManifest(
            student=str(build["externalParameters"]["student"]),
            dependencies=_dependencies(build),
            finished=str(details["metadata"].get("finishedOn", "")),
            statement=dict(statement),
        )
    except (KeyError, TypeError, AttributeError, msgspec.ValidationError) as exc:
        raise MalformedReceiptError(
            f"this is not a training manifest: {exc}",
            hint="a model folder is written by `gateway student train`",
        ) from exc


def manifest_dependency(name: str, payload_sha256: Sha256, kind: str) -> Dependency:
    """Return the edge to a parent manifest, dataset or training."""
    return Dependency(
        name=name,
        media_type=PAYLOAD_TYPE,
        digest={"sha256": payload_sha256},
        annotations={"kind": kind},
    )


def left_out_counts(counts: Mapping[str, int]) -> tuple[LeftOut, ...]:
    """Return *counts* by reason, the most frequent first."""
    return tuple(
        LeftOut(reason=reason, count=count)
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _dependencies(build: Mapping[str, Any]) -> tuple[Dependency, ...]:
    found: Sequence[Any] = build.get("resolvedDependencies", ())
    return tuple(_dependency(entry) for entry in found)


def _dependency(entry: Any) -> Dependency:
    # Trainers may say more about what they used; unknown keys of theirs are not our business.
    known = {f.encode_name for f in msgspec.structs.fields(Dependency)}
    return msgspec.convert({k: v for k, v in entry.items() if k in known}, Dependency)
