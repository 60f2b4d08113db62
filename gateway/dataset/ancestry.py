"""Whose answers taught a student: every teacher above it, through any number of stages.

A student's training manifest names the datasets it was trained on; each of those names its
teachers; a teacher that is itself a student of ours leads further up. What can't be found
counts as unresolved, and an unresolved ancestor is a reason to refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.dataset.manifest import (
    DATASET_MANIFEST,
    DatasetManifest,
    Teacher,
    TrainingManifest,
    parse_manifest,
    parse_training,
)
from gateway.errors import MalformedReceiptError
from gateway.ident import DeclarationId, Sha256
from gateway.receipt.model import DATASET_BUILD, Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Above:
    """Everything that stands above one student."""

    teachers: tuple[Teacher, ...] = ()
    manifests: tuple[Sha256, ...] = ()
    """Training and dataset manifests on the way up, the nearest first."""
    declarations: tuple[DeclarationId, ...] = ()
    """What the datasets on the way up were built for."""
    unresolved: tuple[str, ...] = ()
    """What could not be found, one phrase each; empty is the only good answer."""


class Ancestry:
    """Finds what stands above a student; each student is looked up once."""

    def __init__(self, find: Callable[[Sha256], Manifest | None]) -> None:
        self._find = find
        self._known: dict[Sha256, Above] = {}

    def above(self, training: Sha256) -> Above:
        """Return everything above the student that the manifest *training* names."""
        if training not in self._known:
            self._known[training] = self._walk(training)
        return self._known[training]

    def training(self, payload: Sha256) -> TrainingManifest:
        """Return the training manifest with this payload.

        Raises:
            MalformedReceiptError: it can't be found, or is another kind of statement.
        """
        return parse_training(self._statement(payload, "training manifest"))

    def dataset(self, payload: Sha256) -> DatasetManifest:
        """Return the dataset manifest with this payload.

        Raises:
            MalformedReceiptError: it can't be found, or is another kind of statement.
        """
        return parse_manifest(self._statement(payload, "dataset manifest"))

    def kind_of(self, payload: Sha256) -> str | None:
        """Return the build type of a manifest, or `None` where there is none."""
        found = self._find(payload)
        return None if found is None else found.build_type

    def _statement(self, payload: Sha256, what: str) -> dict[str, object]:
        found = self._find(payload)
        if found is None:
            raise MalformedReceiptError(
                f"{what} {payload[:12]}… is not in the ledger",
                hint="what a student learned from must have gone through this gateway",
            )
        return found.statement

    def _walk(self, start: Sha256) -> Above:
        teachers: list[Teacher] = []
        declarations: list[DeclarationId] = []
        unresolved: list[str] = []
        seen: dict[Sha256, None] = {}
        waiting = [start]
        while waiting:
            payload = waiting.pop(0)
            if payload in seen:
                continue
            seen[payload] = None
            try:
                if self.kind_of(payload) == DATASET_BUILD:
                    dataset = self.dataset(payload)
                    declarations.append(dataset.asked.declaration)
                    teachers += dataset.found.teachers
                    waiting += [t.manifest for t in dataset.found.teachers if t.manifest]
                else:
                    waiting += _parents(self.training(payload))
            except MalformedReceiptError as exc:
                unresolved.append(exc.message)
        if not teachers and not unresolved:
            unresolved.append(f"training manifest {start[:12]}… names no teacher")
        return Above(
            teachers=tuple(teachers),
            manifests=tuple(seen),
            declarations=tuple(dict.fromkeys(declarations)),
            unresolved=tuple(unresolved),
        )


def _parents(training: TrainingManifest) -> list[Sha256]:
    parents = list(training.parents())
    if not any(parent.kind == DATASET_MANIFEST for parent in parents):
        raise MalformedReceiptError(f"student `{training.student}` names no dataset")
    return [Sha256(parent.digest.get("sha256", "")) for parent in parents]
