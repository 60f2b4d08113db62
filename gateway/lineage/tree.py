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
from typing import Any, Final, Protocol

import msgspec

from gateway.canonical import sha256_hex
from gateway.dataset.above import UnresolvedParentError, parents_of
from gateway.dataset.manifest import (
    MANIFEST,
    RECEIPTS,
    DatasetManifest,
    Influence,
    Teacher,
    parse_manifest,
    parse_training,
)
from gateway.dataset.verification.verify import iterate_rows
from gateway.errors import EvidenceError, MalformedReceiptError, NotFoundError
from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.intent.model import Declaration
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.receipt.envelope import open_envelope
from gateway.receipt.keys import Trust
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
from gateway.receipt.sigstore import open_manifest
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import verify_manifest
from gateway.store.lineage import stage_of

_COPIES: Final = "evidence/*.manifest.json"
"""Where a model folder keeps copies of its datasets' manifests."""

_LEAVES_MAX: Final = 4096
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
    leaf: Callable[[int], bytes] | None = None
    """The leaf at an index, for what stands above a derivation."""
    receipts_shown: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Something that should lead further up and can't be found."""

    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A receipt or a derivation, by its name and its place in the ledger."""

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
    owners: tuple[tuple[DeclarationId, str], ...] = ()
    """Who declared what the calls were made for."""


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
    withdrawn: str | None = None
    owner: str | None = None
    """Who declared the use, where one was declared."""
    approvals: tuple[Approval, ...] = ()
    """The verdict that let a held use pass, and those on the answer itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentNode:
    """Something that derived rows were made from, and what it was to them."""

    parent: Parent
    node: ExchangeNode | DerivationNode | ModelNode | Missing

    @property
    def influence(self) -> Influence:
        """Return how it reached the rows."""
        return "judge" if self.parent.role == "judge" else "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivationNode:
    """Rows that a pipeline made, or one of them, and what they were made from."""

    derivation: Derivation
    index: int
    place: int | None
    withdrawn: str | None
    owner: str | None
    parents: tuple[ParentNode, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportNode:
    """A dataset in another form."""

    name: str
    payload: Sha256
    index: int | None
    withdrawn: str | None
    parents: tuple[DatasetNode | ModelNode | Missing, ...]


Root = ModelNode | DatasetNode | ExchangeNode | Missing
Node = Root | DerivationNode | ExportNode
"""Whatever a tree can be of."""


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


def traces(root: Node, stages: int = 0) -> Iterator[Trace]:
    """Yield each teacher above that is no student of ours, the nearest first.

    What stands above in several ways is told of once, by the shortest.
    """
    waiting: list[tuple[Node, int]] = [(root, stages)]
    seen: set[int] = set()
    for node, away in waiting:
        if id(node) in seen:
            continue
        seen.add(id(node))
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
            case _:
                waiting += [(parent, away) for parent in above(node)]


def above(node: Node) -> tuple[Node, ...]:
    """Return what stands one step above *node*, as far as it leads further up."""
    match node:
        case ModelNode() | ExportNode():
            return node.parents
        case DatasetNode():
            return tuple(one.student for one in node.teachers if one.student is not None)
        case DerivationNode():
            return tuple(one.node for one in node.parents)
        case ExchangeNode():
            return () if node.student is None else (node.student,)
        case Missing():
            return ()


def nodes_of(root: Node) -> list[Node]:
    """Return *root* and everything above it, the nearest first, each once."""
    found: dict[int, Node] = {}
    waiting = [root]
    for node in waiting:
        if id(node) not in found:
            found[id(node)] = node
            waiting += above(node)
    return list(found.values())


def unknowns(root: Node) -> Iterator[str]:
    """Yield what could not be followed: missing manifests, and base models from outside."""
    for node in nodes_of(root):
        if isinstance(node, Missing):
            yield node.what
        if isinstance(node, ModelNode):
            for base in node.bases:
                yield f"what the base model `{base}` learned from is not known to the gateway"


def is_resolved(root: Node) -> bool:
    """Tell whether every manifest on the way up was found; base models are another matter."""
    return not any(isinstance(node, Missing) for node in nodes_of(root))


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


def as_json(root: Node) -> dict[str, Any]:
    """Return a tree as JSON-ready values; what stands in two places is told in the first."""
    return _json(root, set())


def _json(node: Node, told: set[int]) -> dict[str, Any]:
    again = id(node) in told
    told.add(id(node))
    match node:
        case Missing():
            return {"kind": "missing", "what": node.what}
        case ModelNode() | DatasetNode() | ExportNode() if again:
            kind = {ModelNode: "model", DatasetNode: "dataset", ExportNode: "export"}
            named = {"kind": kind[type(node)], "name": node.name, "manifest": node.payload}
            return {**named, "again": True}
        case ModelNode() | ExportNode():
            bases = {"bases": list(node.bases)} if isinstance(node, ModelNode) else {}
            return {
                "kind": "model" if isinstance(node, ModelNode) else "export",
                "name": node.name,
                "manifest": node.payload,
                "index": node.index,
                "withdrawn": node.withdrawn,
                **bases,
                "parents": [_json(parent, told) for parent in node.parents],
            }
        case DatasetNode():
            found = node.manifest.found
            return {
                "kind": "dataset",
                "name": node.name,
                "manifest": node.payload,
                "index": node.index,
                "rows": found.rows,
                "project": node.manifest.asked.project,
                "declaration": node.manifest.asked.declaration,
                "purpose": found.use.purpose,
                "owner": node.owner,
                "ruled_on": found.day,
                "withdrawn": node.withdrawn,
                "approvals": _approvals_json(node.approvals),
                "teachers": [_teacher_json(teacher, told) for teacher in node.teachers],
                "made_by": msgspec.to_builtins(found.made_by),
                "written_by": msgspec.to_builtins(found.written_by),
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
                "owner": node.owner,
                "withdrawn": node.withdrawn,
                "approvals": _approvals_json(node.approvals),
                "student": None if node.student is None else _json(node.student, told),
            }
        case DerivationNode():
            derivation = node.derivation
            return {
                "kind": "derivation",
                "derivation": derivation.derivation,
                "index": node.index,
                "row": node.place,
                "rows": len(derivation.rows),
                "transform": msgspec.to_builtins(derivation.transform),
                "written": msgspec.to_builtins(derivation.written),
                "purpose": derivation.declared.use.purpose,
                "declaration": derivation.declared.declaration,
                "owner": node.owner,
                "withdrawn": node.withdrawn,
                "parents": [
                    {"role": one.parent.role, "choice": one.parent.choice}
                    | _json(one.node, told)
                    for one in node.parents
                ],
            }


def _approvals_json(approvals: tuple[Approval, ...]) -> list[dict[str, Any]]:
    return [{"index": one.index, "by": one.by, "reason": one.reason} for one in approvals]


def _teacher_json(node: TeacherNode, told: set[int]) -> dict[str, Any]:
    teacher = node.teacher
    return {
        "provider": teacher.provider,
        "model": teacher.model,
        "reported": list(teacher.reported),
        "influence": teacher.influence,
        "rows": teacher.rows,
        "of_rows": node.of_rows,
        "input_tokens": teacher.input_tokens,
        "output_tokens": teacher.output_tokens,
        "effect": teacher.effect,
        "policies": [f"{pin.policy} v{pin.version}" for pin in teacher.policies],
        "clauses": list(teacher.clauses),
        "obligations": list(teacher.obligations),
        "days": list(teacher.days),
        "verdicts": list(teacher.verdicts),
        "declarations": list(teacher.declarations),
        "student": None if node.student is None else _json(node.student, told),
    }


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
            if len(self._leaves) >= _LEAVES_MAX:
                return Missing(what=f"more than {_LEAVES_MAX} leaves stand above")
            statement = self._read(parent.index)
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
            else:
                return Missing(what=f"{name} is not what leaf {parent.index} holds")
            self._leaves[parent.index, place] = known
        return known

    def _read(self, index: int) -> Statement | None:
        try:
            return None if self._sources.leaf is None else read_leaf(self._sources.leaf(index))
        except (EvidenceError, NotFoundError):
            return None

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
    if not (folder / MANIFEST).is_file():
        return None
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


def _stages(count: int) -> str:
    return "1 stage away" if count == 1 else f"{count} stages away"
