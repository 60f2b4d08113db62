"""What a ledger holds of something that is asked about, gathered leaf by leaf.

It is what answers are made of, and what a pack is to hold: the manifests of all that stands
above, the lists of what they were made from, the leaves above rows, and what people said of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.dataset.above import UnresolvedParentError
from gateway.dataset.above import parents_of as parents_of_row
from gateway.errors import NotFoundError
from gateway.ident import Sha256
from gateway.lineage.answer import Answer
from gateway.lineage.ask import answer
from gateway.lineage.holdings import About, Holdings, began_of, parents_of
from gateway.lineage.leaves import LeafSet
from gateway.lineage.pack_format import (
    Shown,
)
from gateway.lineage.question import Question
from gateway.lineage.tree import LEAVES_MAX
from gateway.receipt.authority import Authority
from gateway.receipt.model import (
    Activation,
    AgreementFacts,
    DeclarationFacts,
    Derivation,
    Manifest,
    Members,
    Parent,
    Receipt,
    Statement,
    Verdict,
    Withdrawal,
)
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import signed_statement
from gateway.store.index.rows import Kind

SAID: Final[tuple[Kind, ...]] = (
    "declaration",
    "verdict",
    "withdrawal",
    "agreement",
    "activation",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSources:
    """What answers are made of, straight from a ledger."""

    origin: str
    size: int
    """How many leaves count."""
    leaf: Callable[[int], bytes]
    manifest: Callable[[Sha256], int | None]
    """Leaf index of the manifest with that payload."""
    students: Callable[[Sha256], Iterable[Sha256]]
    """The training manifests of the students that have a weights digest."""
    manifests: Callable[[], Iterable[int]]
    """Leaf indices of every manifest, rising."""
    statements: Callable[[Sequence[Kind]], Iterable[tuple[int, Statement]]]
    account: Callable[[str], LeafSet]
    """The leaves that are receipts of an account."""
    exchange: Callable[[str], int | None]
    """Leaf index of the statement that closed an exchange, or of a derivation."""
    authority: Authority


@dataclass(slots=True)
class Chosen:
    """Which leaves go into a pack."""

    manifests: dict[Sha256, int] = field(default_factory=dict)
    leaves: set[int] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    shown: Shown = field(default_factory=lambda: Shown(chosen="all", shown=0, of=0))


def ask_log(about: About, questions: Sequence[Question], log: LogSources) -> tuple[Answer, ...]:
    """Answer *questions* from a ledger; whoever packs the same gets the same answers.

    Raises:
        NotFoundError: what it is about is not in the log.
        EvidenceError: the ledger's own evidence does not verify.
    """
    accounts = accounts_asked(questions, log)
    _, found = gather(about, accounts, log, lists=bool(accounts))
    evidence = found.evidence(about)
    return tuple(answer(question, evidence) for question in questions)


def hold_log(about: About, log: LogSources) -> Holdings:
    """Return what the ledger holds of a stage and all above it, without its receipts.

    Raises:
        NotFoundError: what it is about is not in the log.
        EvidenceError: the ledger's own evidence does not verify.
    """
    return gather(about, {}, log, lists=False)[1]


def accounts_asked(questions: Iterable[Question], log: LogSources) -> dict[str, LeafSet]:
    """Return the receipts of each account that is asked for."""
    return {
        one.value: log.account(one.value).below(log.size)
        for one in questions
        if one.kind == "principal"
    }


def gather(
    about: About, accounts: Mapping[str, LeafSet], log: LogSources, *, lists: bool
) -> tuple[Chosen, Holdings]:
    """Gather everything that answers are made of, but for receipts."""
    chosen = Chosen()
    found = Holdings(origin=log.origin, size=log.size, accounts=dict(accounts))
    if about.kind == "exchange":
        at = log.exchange(about.exchange or "")
        if at is None or at >= log.size:
            raise NotFoundError(f"no statement closes `{about.exchange}`")
        chosen.leaves.add(at)
        found.take(at, signed_statement(log.leaf(at), at, log.authority)[0], about)
    if about.kind == "derivation":
        chosen.leaves |= _take_above(about, log, found)
    for payload in _begin(about, log, found):
        _climb(payload, log, chosen, found)
    if lists or any(
        isinstance(said, Withdrawal) and (said.exchange or said.derivation)
        for _, said in log.statements(("withdrawal",))
    ):
        for index, statement in log.statements(("members",)):
            if isinstance(statement, Members) and statement.manifest in chosen.manifests:
                chosen.leaves.add(index)
                found.take(index, statement, about)
    for index, statement in _words(log, chosen, found):
        chosen.leaves.add(index)
        found.take(index, statement, about)
    return chosen, found


def _begin(about: About, log: LogSources, found: Holdings) -> Iterator[Sha256]:
    """Yield the manifests that are asked about."""
    match about.kind:
        case "log":
            for index in log.manifests():
                manifest = read_leaf(log.leaf(index))
                if index < log.size and isinstance(manifest, Manifest):
                    yield manifest.payload_sha256
        case "exchange":
            student = None if found.exchange is None else found.exchange[1].model.manifest
            if student is not None:
                yield student
        case "derivation":
            yield from dict.fromkeys(_students(found))
        case _:
            if about.manifest is not None:
                yield about.manifest


def _take_above(about: About, log: LogSources, found: Holdings) -> set[int]:
    """Take in the rows that are asked about and every leaf above them; return their places."""
    at = log.exchange(about.derivation or "")
    if at is None or at >= log.size:
        raise NotFoundError(f"no derivation is called `{about.derivation}`")
    statements: dict[int, Statement] = {}
    waiting, seen = [(at, about.row)], {(at, about.row)}
    # As far as the tree above them is followed, and no further.
    while waiting and len(seen) <= LEAVES_MAX:
        index, place = waiting.pop(0)
        if index not in statements:
            statements[index] = signed_statement(log.leaf(index), index, log.authority)[0]
        said = statements[index]
        if isinstance(said, Derivation):
            for parent in _parents(said, place):
                row = parent.choice if parent.derivation is not None else None
                if parent.manifest is None and 0 <= parent.index < index:
                    waiting += {(parent.index, row)} - seen
                    seen.add((parent.index, row))
    found.asked = LeafSet.of(
        index for index, said in statements.items() if isinstance(said, Receipt | Derivation)
    )
    for index in found.asked:
        found.take(index, statements[index], about)
    return set(found.asked)


def _parents(derivation: Derivation, place: int | None) -> Iterable[Parent]:
    if place is None:
        return derivation.parents
    try:
        return tuple(parents_of_row(derivation, place))
    except UnresolvedParentError:
        return ()


def _students(found: Holdings) -> Iterator[Sha256]:
    """Yield the students that answered, or ran in a pipeline, above rows."""
    for said in found.above.values():
        if isinstance(said, Receipt) and said.model.manifest is not None:
            yield said.model.manifest
        if isinstance(said, Derivation):
            yield from (one.manifest for one in said.parents if one.manifest is not None)


def _climb(start: Sha256, log: LogSources, chosen: Chosen, found: Holdings) -> None:
    """Take in a manifest and all those above it."""
    waiting = [start]
    while waiting:
        payload = waiting.pop()
        if payload in chosen.manifests:
            continue
        index = log.manifest(payload)
        if index is None or index >= log.size:
            chosen.missing.append(f"manifest {payload} is not in this log")
            continue
        manifest, _ = signed_statement(log.leaf(index), index, log.authority)
        if isinstance(manifest, Manifest):
            chosen.manifests[payload] = index
            found.take_manifest(index, manifest)
            waiting += parents_of(manifest)
            for weights in began_of(manifest):
                # What came into the log later is none of the leaves that count.
                waiting += [
                    one
                    for one in log.students(weights)
                    if (at := log.manifest(one)) is not None and at < log.size
                ]


def _words(log: LogSources, chosen: Chosen, found: Holdings) -> Iterator[tuple[int, Statement]]:
    """Yield what people said that bears on what was found."""
    datasets = found.datasets()
    declarations: set[str] = set()
    agreements: set[str] = set()
    verdicts: set[int] = set()
    libraries: set[str] = set()
    for dataset in datasets.values():
        declarations.add(dataset.asked.declaration)
        libraries.add(dataset.found.library)
        for teacher in dataset.found.teachers:
            declarations |= set(teacher.declarations)
            agreements |= set(teacher.agreements)
            verdicts |= set(teacher.verdicts)
    asked: set[str] = set()
    for one in (*found.above.values(), *(found.exchange or ())[1:]):
        declarations.add(one.declared.declaration or "")
        if isinstance(one, Receipt):
            asked.add(one.exchange)
            agreements |= set(one.ruling.agreements)
            libraries.add(one.ruling.library or "")
        else:
            asked.add(one.derivation)
    used = found.wanted() if found.lists else LeafSet()
    for index, said in log.statements(SAID):
        match said:
            case DeclarationFacts():
                bears = said.declaration in declarations
            case Verdict():
                bears = (
                    index in verdicts
                    or said.declaration in declarations
                    or said.exchange in asked
                    or _among(said.exchange, used, log)
                )
            case Withdrawal():
                bears = (
                    said.declaration in declarations
                    or said.exchange in asked
                    or said.derivation in asked
                    or said.agreement in agreements
                    or said.manifest in chosen.manifests
                    or _among(said.exchange, used, log)
                    or _among(said.derivation, used, log)
                )
            case AgreementFacts():
                bears = said.agreement in agreements
            case Activation():
                bears = said.library in libraries
            case _:
                bears = False
        if bears and index < log.size:
            yield index, said


def _among(exchange: str | None, used: LeafSet, sources: LogSources) -> bool:
    at = None if exchange is None else sources.exchange(exchange)
    return at is not None and at in used
