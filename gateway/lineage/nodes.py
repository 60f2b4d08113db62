"""What stands in a tree of lineage, and the walks up through it.

What can't be found is a node of its own, so that nobody who walks past it says *no* where they
only don't know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.dataset.manifest import DatasetManifest, Influence, Teacher
from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.receipt.model import Derivation, Parent, Receipt


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
class Author:
    """Whose words rows are that no model answered: people's, or from outside."""

    by: str
    """Who says so."""
    licence: str
    source: str
    """Who wrote them, or where they were found, in words."""
    rows: int
    of_rows: int


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

    @property
    def authors(self) -> tuple[Author, ...]:
        """Return whose words rows of it are, as its manifest says."""
        found = self.manifest.found
        return tuple(
            Author(
                by=one.by,
                licence=one.licence,
                source=one.source,
                rows=one.rows,
                of_rows=found.rows,
            )
            for one in found.written_by
        )


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
    recognised: tuple[tuple[str, Sha256], ...] = ()
    """Base models that are students of ours by their weights, as they are named, and the
    weights digest; the students are among the parents."""


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

    @property
    def authors(self) -> tuple[Author, ...]:
        """Return whose words the rows without parents are, if somebody answers for them."""
        said, place = self.derivation.written, self.place
        rows = self.derivation.rows if place is None else self.derivation.rows[place:][:1]
        written = sum(1 for row in rows if not row.parents)
        if said is None or not written:
            return ()
        return (
            Author(
                by=said.by,
                licence=said.licence,
                source=said.source,
                rows=written,
                of_rows=len(rows),
            ),
        )


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


def _stages(count: int) -> str:
    return "1 stage away" if count == 1 else f"{count} stages away"
