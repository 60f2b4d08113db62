"""Answer questions about where something came from: yes, no, or can't tell, with the evidence.

An answer is made of signed manifests and people's signed words alone, so that whoever has those
comes to the same one. It covers what went through the gateway and its gated trainers: *no* is
said only where nothing on the way up is unknown, and what a base model from outside learned
from is always unknown. Where an answer only judged, that is said apart: none of its words stand
in what was learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.dataset.manifest import Influence
from gateway.ident import Sha256
from gateway.lineage.answer import Answer, Approved, Clear, Finding, counted
from gateway.lineage.leaves import LeafSet
from gateway.lineage.nodes import (
    DatasetNode,
    DerivationNode,
    ExchangeNode,
    Missing,
    ModelNode,
    Node,
)
from gateway.lineage.question import Question, account_matches, parse_question
from gateway.lineage.ways import (
    Way,
    datasets_of,
    doubt_of,
    fits,
    is_like,
    might_fit,
    nodes_above,
    ways_of,
)
from gateway.receipt.model import Withdrawal


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What an answer is made of: trees of manifests, and for accounts sets of leaves."""

    about: str
    """What is asked about, in words."""
    roots: tuple[Node, ...]
    origin: str
    size: int
    """How many leaves of the log could be looked at."""
    members: Callable[[Sha256], LeafSet | None]
    """The complete list of leaves of a dataset, by its manifest; `None` where it has none."""
    of_account: Callable[[str], LeafSet]
    """The leaves that are receipts of an account."""
    withdrawals: tuple[tuple[int, Withdrawal], ...] = ()
    """What was withdrawn of all that it is made of, with its leaf."""


def answer(question: Question, evidence: Evidence) -> Answer:
    """Answer *question* from *evidence*; the same evidence gives the same answer."""
    if question.kind == "principal":
        return _of_account(question, evidence)
    judging = question.kind == "judged-by"
    told: dict[bool, list[Finding]] = {True: [], False: []}
    doubts: list[str] = []
    for way in ways_of(evidence.roots):
        if fits(way, question):
            told[way.influence == "judge"].append(_finding(way))
        elif might_fit(way, question):
            doubts.append(doubt_of(way, question))
    if judging:
        findings, judged = told[True], []
    elif question.kind == "distilled-from":
        findings, judged = told[False], told[True]
    else:
        findings, judged = told[False] + told[True], []
    if question.kind == "declared":
        named = {(one.manifest, one.exchange) for one in findings}
        findings += [
            one
            for one in (
                *_run_for(evidence.roots, question),
                *_declared(evidence.roots, question),
            )
            if (one.manifest, one.exchange) not in named
        ]
        doubts += [] if findings else _undeclared(evidence.roots)
    unknown = tuple(dict.fromkeys([*_unknowns(evidence.roots), *doubts]))
    return Answer(
        question=str(question),
        about=evidence.about,
        says="yes" if findings else "can't tell" if unknown else "no",
        findings=tuple(findings),
        judged=tuple(judged),
        unknown=unknown,
        rests_on=tuple(dict.fromkeys(_stated(evidence.roots))),
        withdrawn=tuple(_withdrawn(evidence)),
        covers=_covers(evidence),
    )


def distilled_from(root: Node, asked: str, about: str = "it", covers: str = "") -> Answer:
    """Answer whether *root* is distilled from *asked*: a provider, or a model of one.

    Raises:
        MalformedQuestionError: *asked* is no name.
    """
    evidence = Evidence(
        about=about,
        roots=(root,),
        origin="",
        size=0,
        members=lambda _: None,
        of_account=lambda _: LeafSet(),
    )
    found = answer(parse_question(f"distilled-from:{asked}"), evidence)
    return msgspec.structs.replace(found, covers=covers)


# -- what is not known, and whose word it rests on --------------------------------------


_BASE: Final = "what the base model `{}`, from outside, learned from"


def _unknowns(roots: Iterable[Node]) -> Iterator[str]:
    """Yield what could not be followed, and bases from outside."""
    for node, _, _ in nodes_above(roots):
        if isinstance(node, ModelNode):
            yield from (_BASE.format(base) for base in node.bases)
    for way in ways_of(roots):
        yield from _unnamed(way)
    yield from _holes(roots)


_SELF_HOSTED: Final = "self-hosted"
"""The policy of the organisation's own models, beside those of their teachers."""


def _unnamed(way: Way) -> Iterator[str]:
    """Yield a model of the organisation's own whose answers name no training manifest."""
    if way.teacher is not None:
        teacher = way.teacher.teacher
        pins, own = teacher.policies, teacher.manifest
        named = f"{teacher.provider} {teacher.model or ''}"
    elif way.exchange is not None:
        receipt = way.exchange.receipt
        pins, own = receipt.ruling.policies, receipt.model.manifest
        named = f"{receipt.provider.name} {receipt.model.requested or ''}"
    else:
        return
    if own is None and any(pin.policy == _SELF_HOSTED for pin in pins):
        yield (
            f"what the self-hosted model `{named.strip()}` learned from: its answers name no"
            " training manifest"
        )


def _holes(roots: Iterable[Node]) -> Iterator[str]:
    """Yield what should be in the log and could not be followed."""
    for node, _, _ in nodes_above(roots):
        if isinstance(node, Missing):
            yield node.what
        if isinstance(node, ModelNode) and not node.parents and not node.bases:
            yield f"the training manifest of `{node.name}` names no dataset"


def _stated(roots: Iterable[Node]) -> Iterator[str]:
    """Yield whose word stands for rows that no receipt speaks for."""
    for node, _, _ in nodes_above(roots):
        if isinstance(node, ModelNode):
            for base, weights in node.recognised:
                yield (
                    f"that `{base}`, as which `{node.name}` began, is the student whose"
                    f" training manifest signs the same weights digest, {weights}"
                )
        if isinstance(node, DatasetNode):
            for one in node.manifest.found.written_by:
                yield (
                    f"{counted(one.rows, 'row')} of dataset `{node.name}`"
                    f" {'is' if one.rows == 1 else 'are'} people's own words, states"
                    f" {one.by} ({one.source}, {one.licence})"
                )
        if isinstance(node, DerivationNode):
            for author in node.authors:
                yield (
                    f"{counted(author.rows, 'row')} of {node.derivation.derivation}"
                    f" {'is' if author.rows == 1 else 'are'} people's own words, states"
                    f" {author.by} ({author.source}, {author.licence})"
                )


def _withdrawn(evidence: Evidence) -> Iterator[str]:
    """Yield what was withdrawn of all that stands above."""
    for index, said in evidence.withdrawals:
        what: str | None = said.declaration or said.exchange or said.derivation
        if said.manifest is not None:
            what = f"manifest {said.manifest[:12]}…"
        if said.agreement is not None:
            what = f"agreement {said.agreement}"
        yield f"{what} by {said.by} in leaf {index} ({said.reason})"


def _covers(evidence: Evidence) -> str:
    return covered(evidence.origin, evidence.size)


def covered(origin: str, size: int) -> str:
    """Say what an answer covers that is made from *size* leaves of a log."""
    return (
        "what went through this gateway and its gated trainers, as the log"
        f" {origin} stood at {size} leaves"
    )


def _declared(roots: Iterable[Node], question: Question) -> Iterator[Finding]:
    """Yield the datasets that were built for a declaration, whoever taught in them."""
    for node, (dataset, stages) in datasets_of(roots).items():
        declaration = dataset.manifest.asked.declaration
        if is_like(declaration.casefold(), question.value.casefold()):
            yield Finding(
                what="dataset",
                stages=stages,
                dataset=dataset.name,
                manifest=node,
                leaf=dataset.index,
                of_rows=dataset.manifest.found.rows,
                declaration=declaration,
                purpose=dataset.manifest.found.use.purpose,
                owner=dataset.owner or "",
                withdrawn=dataset.withdrawn or "",
            )


def _run_for(root: Iterable[Node], question: Question) -> Iterator[Finding]:
    """Yield the pipelines that ran for a declaration, whoever answered them."""
    told: set[str] = set()
    for node, stages, _ in nodes_above(root):
        if not isinstance(node, DerivationNode) or node.derivation.derivation in told:
            continue
        said = node.derivation.declared
        if is_like((said.declaration or "").casefold(), question.value.casefold()):
            told.add(node.derivation.derivation)
            yield Finding(
                what="rows",
                stages=stages,
                leaf=node.index,
                exchange=node.derivation.derivation,
                declaration=said.declaration or "",
                purpose=said.use.purpose,
                owner=node.owner or "",
                withdrawn=node.withdrawn or "",
            )


def _undeclared(roots: Iterable[Node]) -> Iterator[str]:
    """Yield the datasets whose manifests don't name every declaration above them."""
    for dataset, _ in datasets_of(roots).values():
        if dataset.manifest.found.is_derived:
            yield (
                f"under which declarations the pipelines of dataset `{dataset.name}` ran:"
                " its manifest names those of calls (`gateway lineage show`)"
            )


# -- what is found ------------------------------------------------------------------------


def _finding(way: Way) -> Finding:
    if way.teacher is None or way.dataset is None:
        assert way.exchange is not None  # noqa: S101 — a way leads through one or the other
        return _finding_of_answer(way.exchange, way.stages, way.influence)
    node, teacher = way.dataset, way.teacher.teacher
    manifest = node.manifest
    counted = [one.output_tokens for one in manifest.found.teachers if one.influence == "text"]
    whole = sum(one or 0 for one in counted) if None not in counted else None
    return Finding(
        what="teacher",
        stages=way.stages,
        dataset=node.name,
        manifest=node.payload,
        leaf=node.index,
        provider=teacher.provider,
        models=tuple(dict.fromkeys(filter(None, (teacher.model, *teacher.reported)))),
        influence=way.influence,
        rows=teacher.rows,
        of_rows=manifest.found.rows,
        tokens=teacher.output_tokens,
        of_tokens=whole,
        receipts=teacher.receipts,
        policies=tuple(sorted({f"{pin.policy} v{pin.version}" for pin in teacher.policies})),
        clauses=teacher.clauses,
        agreements=teacher.agreements,
        declaration=manifest.asked.declaration,
        purpose=manifest.found.use.purpose,
        owner=node.owner or "",
        approved=_approvals(node, teacher.verdicts),
        withdrawn=node.withdrawn or "",
        days=tuple(dict.fromkeys((min(teacher.days), max(teacher.days))))
        if teacher.days
        else (),
    )


def _approvals(node: DatasetNode, verdicts: tuple[int, ...]) -> tuple[Approved, ...]:
    return tuple(
        Approved(leaf=one.index, by=one.by, reason=one.reason)
        for one in node.approvals
        if one.index in verdicts
    )


def _finding_of_answer(node: ExchangeNode, stages: int, influence: Influence) -> Finding:
    receipt = node.receipt
    facts = receipt.model
    return Finding(
        what="answer",
        stages=stages,
        leaf=node.index,
        exchange=receipt.exchange,
        influence=influence,
        provider=receipt.provider.name,
        models=tuple(dict.fromkeys(filter(None, (facts.requested, facts.reported)))),
        tokens=None if receipt.usage is None else receipt.usage.output_tokens,
        receipts=1,
        policies=tuple(
            sorted({f"{pin.policy} v{pin.version}" for pin in receipt.ruling.policies})
        ),
        clauses=tuple(
            dict.fromkeys(f"{one.policy}:{one.clause}" for one in receipt.ruling.reasons)
        ),
        agreements=receipt.ruling.agreements,
        declaration=receipt.declared.declaration or "",
        purpose=receipt.declared.use.purpose,
        owner=node.owner or "",
        approved=tuple(
            Approved(leaf=one.index, by=one.by, reason=one.reason) for one in node.approvals
        ),
        withdrawn=node.withdrawn or "",
        days=(receipt.received[:10],),
    )


# -- accounts -----------------------------------------------------------------------------

_LEAVES_SHOWN: Final = 5


def _of_account(question: Question, evidence: Evidence) -> Answer:
    """Answer which datasets hold answers that an account was given, and which hold none."""
    findings: list[Finding] = []
    clear: list[Clear] = []
    # What a base from outside learned from was never in this log; the question is of receipts.
    unknown = list(dict.fromkeys(_holes(evidence.roots)))
    outside = dict.fromkeys(one for one in _unknowns(evidence.roots) if one not in unknown)
    account = evidence.of_account(question.value)
    told: set[str] = set()
    for node, stages, influence in nodes_above(evidence.roots):
        if isinstance(node, ExchangeNode) and account_matches(
            question.value, node.receipt.caller.principal
        ):
            # An answer that both taught and judged is told once, as one that taught.
            if node.receipt.exchange not in told:
                findings.append(_finding_of_answer(node, stages, influence))
            told.add(node.receipt.exchange)
    for payload, (node, stages) in datasets_of(evidence.roots).items():
        members = evidence.members(payload)
        if members is None:
            unknown.append(f"dataset `{node.name}` has no signed list of what it was made from")
            continue
        used = members & account
        if not len(used):
            clear.append(
                Clear(
                    dataset=node.name, manifest=payload, leaf=node.index, members=len(members)
                )
            )
            continue
        first = tuple(index for index, _ in zip(used, range(_LEAVES_SHOWN), strict=False))
        findings.append(
            Finding(
                what="account",
                stages=stages,
                dataset=node.name,
                manifest=payload,
                leaf=node.index,
                of_rows=node.manifest.found.rows,
                receipts=len(used),
                first_leaves=first,
                declaration=node.manifest.asked.declaration,
                purpose=node.manifest.found.use.purpose,
                owner=node.owner or "",
                withdrawn=node.withdrawn or "",
            )
        )
    return Answer(
        question=str(question),
        about=evidence.about,
        says="yes" if findings else "can't tell" if unknown else "no",
        findings=tuple(findings),
        clear=tuple(clear),
        unknown=tuple(unknown),
        rests_on=(
            f"that the account `{question.value}` has {len(account)} receipts in the log",
            *(f"{one} came from elsewhere than this log" for one in outside),
        ),
        withdrawn=tuple(_withdrawn(evidence)),
        covers=_covers(evidence),
    )
