"""Where something came from: model, datasets, teachers, their teachers, down to receipts.

A tree is made by following digests of manifests upwards; what can't be found is a node of its
own, so that an answer never says *no* where it only doesn't know. It covers what went through
the gateway and its trainers; what a base model from outside learned from is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from gateway.dataset.above import UnresolvedParentError, parents_of
from gateway.dataset.manifest import (
    DatasetManifest,
    parse_manifest,
    parse_training,
)
from gateway.errors import EvidenceError, MalformedReceiptError, NotFoundError
from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.intent.model import Declaration
from gateway.lineage.folders import receipts_in
from gateway.lineage.nodes import (
    Approval,
    DatasetNode,
    DerivationNode,
    ExchangeNode,
    ExportNode,
    Missing,
    ModelNode,
    ParentNode,
    TeacherNode,
)
from gateway.receipt.model import (
    DATASET_BUILD,
    EXPORT_BUILD,
    Derivation,
    Manifest,
    Parent,
    Receipt,
    Statement,
    Verdict,
    Withdrawal,
)
from gateway.receipt.statement import read_leaf
from gateway.store.index.stages import stage_of

LEAVES_MAX: Final = 4096
"""So many leaves above a derivation are followed; beyond it the way up is not known."""

_STEPS_MAX: Final = 64
"""So many stages, and so many derivations, are followed one above the other."""


class Words(Protocol):
    """What people said, as far as lineage shows it; the ledger's register keeps it."""

    def declaration(self, declaration: DeclarationId) -> Declaration | None:
        """Return the registered declaration of that id."""
        ...

    def verdicts(self, subject: DeclarationId | ExchangeId) -> list[tuple[int, Verdict]]:
        """Return every (leaf index, verdict) about *subject*, oldest first."""
        ...

    def withdrawn(self, subject: DeclarationId | ExchangeId | Sha256) -> Withdrawal | None:
        """Return the withdrawal of a declaration, an exchange or a manifest, if any."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What lineage is read from."""

    manifest: Callable[[Sha256], tuple[int | None, Manifest] | None]
    """Leaf index (`None`: only a copy was found) and manifest with that payload."""
    words: Words
    folder: Callable[[Sha256], Path | None]
    """The dataset folder of a manifest, where it is at hand."""
    students: Callable[[Sha256], Iterable[Sha256]] = lambda _: ()
    """The training manifests of the students that have a weights digest."""
    statement: Callable[[int], Statement | None] = lambda _: None
    """What the leaf at an index says, for what stands above rows; `None`: not at hand."""
    receipts_shown: int = 3


def statements_in(leaf: Callable[[int], bytes]) -> Callable[[int], Statement | None]:
    """Return what leaves say, where they are read by *leaf*."""

    def statement(index: int) -> Statement | None:
        try:
            return read_leaf(leaf(index))
        except (EvidenceError, NotFoundError):
            return None

    return statement


def lineage_of_manifest(payload: Sha256, sources: Sources) -> ModelNode | DatasetNode | Missing:
    """Return the tree above a dataset or a student, by the digest of its manifest."""
    return _Tree(sources).manifest(payload, "manifest")


def lineage_of_exchange(receipt: Receipt, index: int, sources: Sources) -> ExchangeNode:
    """Return the tree above one answer."""
    return _Tree(sources).exchange(receipt, index)


def lineage_of_derivation(
    derivation: Derivation, index: int, sources: Sources, place: int | None = None
) -> DerivationNode:
    """Return the tree above the rows of a derivation, or above row *place* of it."""
    return _Tree(sources).derivation(derivation, index, place)


def lineage_of_export(payload: Sha256, sources: Sources) -> ExportNode | Missing:
    """Return the tree above an export, by the digest of its manifest."""
    return _Tree(sources).export(payload)


class _Tree:
    """Grows a tree; a node that stands in two places is grown once."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._grown: dict[Sha256, ModelNode | DatasetNode | Missing] = {}
        self._growing: set[Sha256] = set()
        self._leaves: dict[tuple[int, int | None], ExchangeNode | DerivationNode] = {}
        self._steps = 0

    def manifest(self, payload: Sha256, what: str) -> ModelNode | DatasetNode | Missing:
        """Return the tree above a manifest, whichever kind it is."""
        if payload in self._growing:
            return Missing(what=f"{what} {payload[:12]}… leads back to itself")
        if len(self._growing) >= _STEPS_MAX and payload not in self._grown:
            return Missing(what=f"more than {_STEPS_MAX} stages stand above one another")
        if payload not in self._grown:
            self._growing.add(payload)
            self._grown[payload] = self._grow(payload, what)
            self._growing.discard(payload)
        return self._grown[payload]

    def student(self, payload: Sha256, what: str) -> ModelNode | Missing:
        """Return the tree above a student."""
        node = self.manifest(payload, what)
        if isinstance(node, DatasetNode):
            return Missing(what=f"{what} {payload[:12]}… is a dataset, not a student")
        return node

    def exchange(self, receipt: Receipt, index: int) -> ExchangeNode:
        """Return the tree above an answer."""
        student, declared = receipt.model.manifest, receipt.declared.declaration
        subjects = (receipt.exchange, *(() if declared is None else (declared,)))
        spoken = [entry for one in subjects for entry in self._sources.words.verdicts(one)]
        return ExchangeNode(
            receipt=receipt,
            index=index,
            student=None if student is None else self.student(student, "student"),
            withdrawn=self._withdrawn(*subjects),
            owner=self._owner(declared),
            approvals=tuple(
                Approval(index=number, by=verdict.by, reason=verdict.reason)
                for number, verdict in spoken
                if verdict.approved
                and (number == receipt.ruling.verdict or verdict.exchange is not None)
            ),
        )

    def derivation(
        self, derivation: Derivation, index: int, place: int | None
    ) -> DerivationNode:
        """Return the tree above the rows of a derivation, or above one of them."""
        declared = derivation.declared.declaration
        subjects = (derivation.derivation, *(() if declared is None else (declared,)))
        try:
            named = derivation.parents if place is None else parents_of(derivation, place)
            parents = tuple(
                ParentNode(parent=parent, node=self._parent(parent, index)) for parent in named
            )
        except UnresolvedParentError as exc:
            missing = Missing(what=exc.message)
            parents = (ParentNode(parent=Parent(index=index), node=missing),)
        return DerivationNode(
            derivation=derivation,
            index=index,
            place=place,
            withdrawn=self._withdrawn(*subjects),
            owner=self._owner(declared),
            parents=parents,
        )

    def export(self, payload: Sha256) -> ExportNode | Missing:
        """Return the tree above an export."""
        found = self._sources.manifest(payload)
        facts = None if found is None else stage_of(found[1])
        if found is None or facts is None or facts.kind != "export":
            return Missing(what=f"export {payload[:12]}… is not in the ledger")
        return ExportNode(
            name=facts.name,
            payload=payload,
            index=found[0],
            withdrawn=self._withdrawn(payload),
            parents=tuple(self.manifest(one, "manifest") for one in facts.parents)
            or (Missing(what=f"export `{facts.name}` names no dataset"),),
        )

    def _parent(
        self, parent: Parent, below: int
    ) -> ExchangeNode | DerivationNode | ModelNode | Missing:
        name = parent.exchange or parent.derivation or parent.manifest or "a parent"
        if not 0 <= parent.index < below:
            return Missing(what=f"{name} does not stand before leaf {below}")
        if parent.manifest is not None:
            return self.student(parent.manifest, "student")
        place = parent.choice if parent.derivation is not None else None
        known = self._leaves.get((parent.index, place))
        if known is None:
            if len(self._leaves) >= LEAVES_MAX:
                return Missing(what=f"more than {LEAVES_MAX} leaves stand above")
            statement = self._sources.statement(parent.index)
            if isinstance(statement, Receipt) and statement.exchange == parent.exchange:
                known = self.exchange(statement, parent.index)
            elif (
                isinstance(statement, Derivation) and statement.derivation == parent.derivation
            ):
                if self._steps >= _STEPS_MAX:
                    return Missing(what=f"more than {_STEPS_MAX} derivations stand above")
                self._steps += 1
                known = self.derivation(statement, parent.index, place)
                self._steps -= 1
            elif statement is None:
                return Missing(what=f"{name}: leaf {parent.index} is not at hand, or no answer")
            else:
                return Missing(what=f"{name} is not what leaf {parent.index} holds")
            self._leaves[parent.index, place] = known
        return known

    def _owner(self, declared: DeclarationId | None) -> str | None:
        said = None if declared is None else self._sources.words.declaration(declared)
        return None if said is None else said.owner

    def _grow(self, payload: Sha256, what: str) -> ModelNode | DatasetNode | Missing:
        found = self._sources.manifest(payload)
        if found is None:
            return Missing(what=f"{what} {payload[:12]}… is not in the ledger")
        index, manifest = found
        try:
            if manifest.build_type == EXPORT_BUILD:
                return Missing(what=f"{what} {payload[:12]}… is an export, not a stage")
            if manifest.build_type == DATASET_BUILD:
                return self._dataset(payload, index, parse_manifest(manifest.statement))
            return self._model(payload, index, manifest)
        except MalformedReceiptError as exc:
            return Missing(what=f"{what} {payload[:12]}…: {exc.message}")

    def _model(self, payload: Sha256, index: int | None, manifest: Manifest) -> ModelNode:
        training = parse_training(manifest.statement)
        parents = [
            (Sha256(parent.digest.get("sha256", "")), parent.name)
            for parent in training.parents()
        ]
        bases: list[str] = []
        recognised: list[tuple[str, Sha256]] = []
        for base in training.bases():
            weights = Sha256(str(base.annotations.get("weights", "")))
            same = [one for one in self._sources.students(weights) if one != payload]
            if weights and same:
                recognised.append((base.name.removeprefix("base:"), weights))
                parents += [(one, base.name) for one in same]
            else:
                bases.append(base.name.removeprefix("base:"))
        return ModelNode(
            name=training.student,
            payload=payload,
            index=index,
            withdrawn=self._withdrawn(payload),
            bases=tuple(bases),
            parents=tuple(self.manifest(one, what) for one, what in parents),
            recognised=tuple(recognised),
        )

    def _dataset(
        self, payload: Sha256, index: int | None, manifest: DatasetManifest
    ) -> DatasetNode:
        words, asked = self._sources.words, manifest.asked
        declaration = words.declaration(asked.declaration)
        used = {number for teacher in manifest.found.teachers for number in teacher.verdicts}
        folder = self._sources.folder(payload)
        receipts = () if folder is None else receipts_in(folder, self._sources.receipts_shown)
        return DatasetNode(
            name=asked.dataset,
            payload=payload,
            index=index,
            manifest=manifest,
            owner=None if declaration is None else declaration.owner,
            approvals=tuple(
                Approval(index=number, by=verdict.by, reason=verdict.reason)
                for number, verdict in words.verdicts(asked.declaration)
                if number in used
            ),
            withdrawn=self._withdrawn(payload, asked.declaration),
            teachers=tuple(
                TeacherNode(
                    teacher=teacher,
                    of_rows=manifest.found.rows,
                    student=self.student(teacher.manifest, f"student `{teacher.provider}`")
                    if teacher.manifest
                    else None,
                )
                for teacher in manifest.found.teachers
            ),
            receipts=receipts,
            receipts_in_all=sum(teacher.receipts for teacher in manifest.found.teachers),
            owners=tuple(
                (one, self._owner(one) or "nobody on record")
                for one in dict.fromkeys(
                    one for teacher in manifest.found.teachers for one in teacher.declarations
                )
            ),
        )

    def _withdrawn(self, *subjects: Sha256 | DeclarationId | ExchangeId) -> str | None:
        for subject in subjects:
            withdrawal = self._sources.words.withdrawn(subject)
            if withdrawal is not None:
                return f"by {withdrawal.by}: {withdrawal.reason}"
        return None
