"""Where something came from: model, datasets, teachers, their teachers, down to receipts.

A tree is made by following digests of manifests upwards; what can't be found is a node of its
own, so that an answer never says *no* where it only doesn't know. It covers what went through
the gateway and its trainers; what a base model from outside learned from is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from gateway.canonical import sha256_hex
from gateway.dataset.manifest import (
    MANIFEST,
    RECEIPTS,
    DatasetManifest,
    Teacher,
    parse_manifest,
    parse_training,
)
from gateway.dataset.verify import iterate_rows
from gateway.errors import EvidenceError, MalformedReceiptError
from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.intent.model import Declaration
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.receipt.envelope import open_envelope
from gateway.receipt.keys import Trust
from gateway.receipt.model import DATASET_BUILD, Manifest, Receipt, Verdict, Withdrawal
from gateway.receipt.sigstore import open_manifest
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import verify_manifest

_COPIES: Final = "evidence/*.manifest.json"
"""Where a model folder keeps copies of its datasets' manifests."""


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
    receipts_shown: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Something that should lead further up and can't be found."""

    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A receipt, by its exchange and its place in the ledger."""

    exchange: ExchangeId
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherNode:
    """One teacher of a dataset; a student of ours leads further up."""

    teacher: Teacher
    of_rows: int
    student: ModelNode | Missing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A verdict that let a held use pass."""

    index: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetNode:
    """One dataset and who taught in it."""

    name: str
    payload: Sha256
    index: int | None
    manifest: DatasetManifest
    owner: str | None
    """Who declared the use."""
    approvals: tuple[Approval, ...]
    withdrawn: str | None
    teachers: tuple[TeacherNode, ...]
    receipts: tuple[Leaf, ...]
    receipts_in_all: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNode:
    """One student and what it was trained on."""

    name: str
    payload: Sha256
    index: int | None
    withdrawn: str | None
    bases: tuple[str, ...]
    """Base models from outside."""
    parents: tuple[DatasetNode | ModelNode | Missing, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeNode:
    """One answer, and the student that gave it if it was one of ours."""

    receipt: Receipt
    index: int
    student: ModelNode | Missing | None


Root = ModelNode | DatasetNode | ExchangeNode | Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One way from the root up to a teacher that is no student of ours."""

    dataset: DatasetNode | None
    """Where the teacher's answers stand; `None` if the root is its answer."""
    teacher: TeacherNode | None
    receipt: Receipt | None
    stages: int
    """How many trainings lie between the teacher and the root."""

    @property
    def provider(self) -> str:
        """Return who answered."""
        if self.teacher is not None:
            return self.teacher.teacher.provider
        return self.receipt.provider.name if self.receipt else ""

    @property
    def models(self) -> tuple[str, ...]:
        """Return every name of the model that answered."""
        if self.teacher is not None:
            said = self.teacher.teacher
            return tuple(dict.fromkeys(filter(None, (said.model, *said.reported))))
        if self.receipt is not None:
            facts = self.receipt.model
            return tuple(dict.fromkeys(filter(None, (facts.requested, facts.reported))))
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Whether something is distilled from a provider or model, and on what evidence."""

    asked: str
    says: Literal["yes", "no", "can't tell"]
    sentences: tuple[str, ...]


def lineage_of_manifest(payload: Sha256, sources: Sources) -> ModelNode | DatasetNode | Missing:
    """Return the tree above a dataset or a student, by the digest of its manifest."""
    return _Tree(sources).manifest(payload, "manifest")


def lineage_of_exchange(receipt: Receipt, index: int, sources: Sources) -> ExchangeNode:
    """Return the tree above one answer."""
    student = receipt.model.manifest
    return ExchangeNode(
        receipt=receipt,
        index=index,
        student=None if student is None else _Tree(sources).student(student, "student"),
    )


def traces(root: Root, stages: int = 0) -> Iterator[Trace]:
    """Yield every way up to a teacher that is no student of ours, the nearest first."""
    waiting: list[tuple[Root, int]] = [(root, stages)]
    while waiting:
        node, away = waiting.pop(0)
        match node:
            case ModelNode():
                waiting += [(parent, away + 1) for parent in node.parents]
            case DatasetNode():
                for teacher in node.teachers:
                    if teacher.student is None:
                        yield Trace(dataset=node, teacher=teacher, receipt=None, stages=away)
                    else:
                        waiting.append((teacher.student, away))
            case ExchangeNode():
                if node.student is None:
                    yield Trace(dataset=None, teacher=None, receipt=node.receipt, stages=away)
                else:
                    waiting.append((node.student, away))
            case Missing():
                pass


def unknowns(root: Root) -> Iterator[str]:
    """Yield what could not be followed: missing manifests, and base models from outside."""
    match root:
        case Missing():
            yield root.what
        case ModelNode():
            for base in root.bases:
                yield f"what the base model `{base}` learned from is not known to the gateway"
            for parent in root.parents:
                yield from unknowns(parent)
        case DatasetNode():
            for teacher in root.teachers:
                if teacher.student is not None:
                    yield from unknowns(teacher.student)
        case ExchangeNode():
            if root.student is not None:
                yield from unknowns(root.student)


def is_resolved(root: Root) -> bool:
    """Tell whether every manifest on the way up was found; base models are another matter."""
    match root:
        case Missing():
            return False
        case ModelNode():
            return all(is_resolved(parent) for parent in root.parents)
        case DatasetNode():
            return all(t.student is None or is_resolved(t.student) for t in root.teachers)
        case ExchangeNode():
            return root.student is None or is_resolved(root.student)


def distilled_from(root: Root, asked: str) -> Answer:
    """Answer whether *root* is distilled from *asked*: a provider, or a model of one.

    Yes needs one trace; no needs every manifest on the way up.
    """
    found = [trace for trace in traces(root) if _is(trace, asked)]
    doubts = tuple(dict.fromkeys(unknowns(root)))
    if found:
        return Answer(
            asked=asked, says="yes", sentences=tuple(f"Yes: {sentence_of(t)}" for t in found)
        )
    if not is_resolved(root):
        said = tuple(f"Can't tell: {doubt}." for doubt in doubts)
        return Answer(asked=asked, says="can't tell", sentences=said)
    told = f"No: no answer of `{asked}` is among what it was made from."
    limits = tuple(f"Mind: {doubt}." for doubt in doubts)
    return Answer(asked=asked, says="no", sentences=(told, *limits))


def sentence_of(trace: Trace) -> str:
    """Say in one sentence how a teacher reached the root, under which terms, by whose word."""
    model = f" ({', '.join(trace.models)})" if trace.models else ""
    if trace.teacher is None or trace.dataset is None:
        away = "directly" if not trace.stages else _stages(trace.stages)
        return f"an answer of {trace.provider}{model}, {away}."
    teacher, dataset = trace.teacher.teacher, trace.dataset
    verb = "distilled from" if trace.stages else "made of answers of"
    share = f"{teacher.rows} of {trace.teacher.of_rows} rows of dataset `{dataset.name}`"
    parts = [f"{verb} {trace.provider}{model}: {share}"]
    if trace.stages:
        parts.append(_stages(trace.stages))
    pins = sorted({f"{pin.policy} v{pin.version}" for pin in teacher.policies})
    if pins:
        parts.append(f"under policy {' and '.join(pins)}")
    if teacher.clauses:
        held = "held by" if teacher.verdicts else "permitted by"
        parts.append(f"{held} clause {', '.join(teacher.clauses)}")
    parts += [
        f"approved by {approval.by} (leaf {approval.index}: {approval.reason})"
        for approval in dataset.approvals
        if approval.index in teacher.verdicts
    ]
    declared = f"declared as {dataset.manifest.asked.declaration}"
    purpose = dataset.manifest.found.use.purpose
    parts.append(f"{declared} ({purpose}) by {dataset.owner or 'nobody on record'}")
    if dataset.withdrawn:
        parts.append(f"and since WITHDRAWN {dataset.withdrawn}")
    return ", ".join(parts) + "."


def as_json(node: Root) -> dict[str, Any]:
    """Return a tree as JSON-ready values."""
    match node:
        case Missing():
            return {"kind": "missing", "what": node.what}
        case ModelNode():
            return {
                "kind": "model",
                "name": node.name,
                "manifest": node.payload,
                "index": node.index,
                "withdrawn": node.withdrawn,
                "bases": list(node.bases),
                "parents": [as_json(parent) for parent in node.parents],
            }
        case DatasetNode():
            return {
                "kind": "dataset",
                "name": node.name,
                "manifest": node.payload,
                "index": node.index,
                "rows": node.manifest.found.rows,
                "project": node.manifest.asked.project,
                "declaration": node.manifest.asked.declaration,
                "purpose": node.manifest.found.use.purpose,
                "owner": node.owner,
                "ruled_on": node.manifest.found.day,
                "withdrawn": node.withdrawn,
                "approvals": [
                    {"index": one.index, "by": one.by, "reason": one.reason}
                    for one in node.approvals
                ],
                "teachers": [_teacher_json(teacher) for teacher in node.teachers],
                "receipts_in_all": node.receipts_in_all,
                "receipts": [
                    {"exchange": one.exchange, "index": one.index} for one in node.receipts
                ],
            }
        case ExchangeNode():
            return {
                "kind": "exchange",
                "exchange": node.receipt.exchange,
                "index": node.index,
                "provider": node.receipt.provider.name,
                "model": node.receipt.model.reported or node.receipt.model.requested,
                "purpose": node.receipt.declared.use.purpose,
                "declaration": node.receipt.declared.declaration,
                "student": None if node.student is None else as_json(node.student),
            }


def _teacher_json(node: TeacherNode) -> dict[str, Any]:
    teacher = node.teacher
    return {
        "provider": teacher.provider,
        "model": teacher.model,
        "reported": list(teacher.reported),
        "rows": teacher.rows,
        "of_rows": node.of_rows,
        "output_tokens": teacher.output_tokens,
        "effect": teacher.effect,
        "policies": [f"{pin.policy} v{pin.version}" for pin in teacher.policies],
        "clauses": list(teacher.clauses),
        "obligations": list(teacher.obligations),
        "days": list(teacher.days),
        "verdicts": list(teacher.verdicts),
        "student": None if node.student is None else as_json(node.student),
    }


class _Tree:
    """Grows a tree; a node that stands in two places is grown once."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._grown: dict[Sha256, ModelNode | DatasetNode | Missing] = {}
        self._growing: set[Sha256] = set()

    def manifest(self, payload: Sha256, what: str) -> ModelNode | DatasetNode | Missing:
        """Return the tree above a manifest, whichever kind it is."""
        if payload in self._growing:
            return Missing(what=f"{what} {payload[:12]}… leads back to itself")
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

    def _grow(self, payload: Sha256, what: str) -> ModelNode | DatasetNode | Missing:
        found = self._sources.manifest(payload)
        if found is None:
            return Missing(what=f"{what} {payload[:12]}… is not in the ledger")
        index, manifest = found
        try:
            if manifest.build_type == DATASET_BUILD:
                return self._dataset(payload, index, parse_manifest(manifest.statement))
            return self._model(payload, index, manifest)
        except MalformedReceiptError as exc:
            return Missing(what=f"{what} {payload[:12]}…: {exc.message}")

    def _model(self, payload: Sha256, index: int | None, manifest: Manifest) -> ModelNode:
        training = parse_training(manifest.statement)
        return ModelNode(
            name=training.student,
            payload=payload,
            index=index,
            withdrawn=self._withdrawn(payload),
            bases=tuple(base.name.removeprefix("base:") for base in training.bases()),
            parents=tuple(
                self.manifest(Sha256(parent.digest.get("sha256", "")), parent.name)
                for parent in training.parents()
            ),
        )

    def _dataset(
        self, payload: Sha256, index: int | None, manifest: DatasetManifest
    ) -> DatasetNode:
        words, asked = self._sources.words, manifest.asked
        declaration = words.declaration(asked.declaration)
        used = {number for teacher in manifest.found.teachers for number in teacher.verdicts}
        folder = self._sources.folder(payload)
        receipts = () if folder is None else _receipts(folder, self._sources.receipts_shown)
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
        )

    def _withdrawn(self, *subjects: Sha256 | DeclarationId) -> str | None:
        for subject in subjects:
            withdrawal = self._sources.words.withdrawn(subject)
            if withdrawal is not None:
                return f"by {withdrawal.by}: {withdrawal.reason}"
        return None


class Folders:
    """Dataset folders at hand, found by the digest of their manifest's payload."""

    def __init__(self, places: list[Path]) -> None:
        self._places = places
        self._known: dict[Sha256, Path] | None = None

    def __call__(self, payload: Sha256) -> Path | None:
        """Return the folder of a manifest, or `None`; the folder itself is not verified."""
        if self._known is None:
            self._known = {}
            for place in self._places:
                for folder in (place, *_folders_in(place)):
                    found = payload_in(folder)
                    if found is not None and (folder / RECEIPTS).is_file():
                        self._known.setdefault(found, folder)
        return self._known.get(payload)


def payload_in(folder: Path) -> Sha256 | None:
    """Return the payload digest of the manifest in *folder*, unverified, or `None`."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            leaf, _ = open_manifest(file.read(BUNDLE_BYTES_MAX + 1))
        return sha256_hex(open_envelope(leaf).payload)
    except (OSError, EvidenceError):
        return None


@dataclass(slots=True)
class Copies:
    """Signed copies of manifests that travel in a model folder, for where the ledger is not."""

    trust: Trust
    known: dict[Sha256, Manifest] = field(default_factory=dict)

    def take(self, folder: Path) -> None:
        """Take in the manifest of *folder* and its copies of others; bad ones are ignored."""
        for path in (folder / MANIFEST, *sorted(folder.glob(_COPIES))):
            try:
                with path.open("rb") as file:
                    encoded = file.read(BUNDLE_BYTES_MAX + 1)
                verify_manifest(encoded, self.trust)
                statement = read_leaf(open_manifest(encoded)[0])
            except (OSError, EvidenceError):
                continue
            if isinstance(statement, Manifest):
                self.known[statement.payload_sha256] = statement


def _folders_in(place: Path) -> list[Path]:
    try:
        return sorted(entry for entry in place.iterdir() if entry.is_dir())
    except OSError:
        return []


def _receipts(folder: Path, count: int) -> tuple[Leaf, ...]:
    seen: dict[ExchangeId, int] = {}
    try:
        for row in islice(iterate_rows(folder), 4 * count):
            seen.setdefault(row.source, row.index)
    except EvidenceError:
        return ()
    return tuple(
        Leaf(exchange=exchange, index=index) for exchange, index in islice(seen.items(), count)
    )


def _is(trace: Trace, asked: str) -> bool:
    wanted = asked.casefold()
    names = {trace.provider, *trace.models, *(f"{trace.provider}/{m}" for m in trace.models)}
    if trace.teacher is not None:
        names |= {pin.policy for pin in trace.teacher.teacher.policies}
    return any(name.casefold() == wanted for name in names)


def _stages(count: int) -> str:
    return "1 stage away" if count == 1 else f"{count} stages away"
