"""Answer questions about where something came from: yes, no, or can't tell, with the evidence.

An answer is made of signed manifests and people's signed words alone, so that whoever has those
comes to the same one. It covers what went through the gateway and its gated trainers: *no* is
said only where nothing on the way up is unknown, and what a base model from outside learned
from is always unknown. Where an answer only judged, that is said apart: none of its words stand
in what was learned.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, get_args

import msgspec

from gateway.dataset.manifest import Influence
from gateway.errors import CallerError
from gateway.ident import Sha256
from gateway.lineage.leaves import LeafSet
from gateway.lineage.tree import (
    DatasetNode,
    DerivationNode,
    ExchangeNode,
    ExportNode,
    Missing,
    ModelNode,
    Node,
    TeacherNode,
)
from gateway.receipt.model import PolicyPin, Receipt, Wire, Withdrawal

Kind = Literal[
    "distilled-from", "judged-by", "policy", "clause", "declared", "agreement", "principal"
]
"""What can be asked: whose words, whose judgement, under which terms, for which declared use,
under which agreement, by whose account."""

Says = Literal["yes", "no", "can't tell"]

_KINDS: Final = get_args(Kind)
_VALUE: Final = re.compile(r"[!-~]{1,200}")


class MalformedQuestionError(CallerError):
    """A question that nothing here can answer."""

    code = "lineage.question_malformed"


@dataclass(frozen=True, slots=True)
class Question:
    """One question; in *value*, `*` and `?` stand for any letters and any one."""

    kind: Kind
    value: str

    def __str__(self) -> str:
        """Return it as it is asked."""
        return f"{self.kind}:{self.value}"


def parse_question(text: str) -> Question:
    """Return the question that *text* asks, such as `distilled-from:openai/gpt-*`.

    Raises:
        MalformedQuestionError: it asks none.
    """
    kind, colon, value = text.partition(":")
    for known in _KINDS:
        if kind == known and colon and _VALUE.fullmatch(value):
            return Question(known, value)
    raise MalformedQuestionError(
        f"`{''.join(c if c.isprintable() else '?' for c in text[:80])}` asks nothing",
        hint=f"ask like distilled-from:openai/gpt-*; the kinds are {', '.join(_KINDS)}",
    )


class Approved(Wire, frozen=True, kw_only=True):
    """A verdict that let a held use pass: who, why, and where it stands in the log."""

    leaf: int
    by: str
    reason: str


class Finding(Wire, frozen=True, kw_only=True):
    """One way by which what was asked for reached what was asked about."""

    what: Literal["teacher", "answer", "account", "dataset"]
    stages: int
    """How many trainings lie in between."""
    dataset: str = ""
    manifest: Sha256 = Sha256("")
    """The dataset's manifest, by the digest of its payload."""
    leaf: int | None = None
    """Where that manifest stands in the log; of an answer, where its receipt does."""
    exchange: str = ""
    provider: str = ""
    models: tuple[str, ...] = ()
    influence: Influence = "text"
    rows: int = 0
    of_rows: int = 0
    tokens: int | None = None
    """Output tokens of its answers, where they were counted."""
    of_tokens: int | None = None
    receipts: int = 0
    first_leaves: tuple[int, ...] = ()
    """Of an account: its first receipts there."""
    policies: tuple[str, ...] = ()
    clauses: tuple[str, ...] = ()
    agreements: tuple[str, ...] = ()
    declaration: str = ""
    purpose: str = ""
    owner: str = ""
    approved: tuple[Approved, ...] = ()
    withdrawn: str = ""
    days: tuple[str, ...] = ()
    """The first and the last day on which it was asked."""


class Clear(Wire, frozen=True, kw_only=True):
    """A dataset whose signed list of leaves holds none of an account."""

    dataset: str
    manifest: Sha256
    leaf: int | None
    members: int


class Answer(Wire, frozen=True, kw_only=True):
    """What is answered, on what evidence, and what is not known."""

    question: str
    about: str
    says: Says
    findings: tuple[Finding, ...] = ()
    """What makes it a yes."""
    judged: tuple[Finding, ...] = ()
    """Where it only judged, and no words of it were learned."""
    clear: tuple[Clear, ...] = ()
    unknown: tuple[str, ...] = ()
    """What stands between this and a no."""
    rests_on: tuple[str, ...] = ()
    """Whose word it rests on, where no receipt speaks."""
    withdrawn: tuple[str, ...] = ()
    """What was withdrawn since, of all that stands above."""
    covers: str = ""
    """What it covers, and up to where."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """Return the answer in sentences; the first one says yes, no or can't tell."""
        return tuple(_sentences(self))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way from a root up to somebody whose answers reached it."""

    dataset: DatasetNode | None
    teacher: TeacherNode | None
    exchange: ExchangeNode | None
    stages: int
    influence: Influence


def answer(question: Question, evidence: Evidence) -> Answer:
    """Answer *question* from *evidence*; the same evidence gives the same answer."""
    if question.kind == "principal":
        return _of_account(question, evidence)
    judging = question.kind == "judged-by"
    told: dict[bool, list[Finding]] = {True: [], False: []}
    doubts: list[str] = []
    for way in _ways(evidence.roots):
        if _fits(way, question):
            told[way.influence == "judge"].append(_finding(way))
        elif _might_fit(way, question):
            doubts.append(_doubt(way, question))
    if judging:
        findings, judged = told[True], []
    elif question.kind == "distilled-from":
        findings, judged = told[False], told[True]
    else:
        findings, judged = told[False] + told[True], []
    if question.kind == "declared":
        named = {one.manifest for one in findings}
        findings += [
            one for one in _declared(evidence.roots, question) if one.manifest not in named
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


def datasets_of(roots: Iterable[Node]) -> dict[Sha256, tuple[DatasetNode, int]]:
    """Return every dataset at or above *roots*, and how many trainings lie in between."""
    found: dict[Sha256, tuple[DatasetNode, int]] = {}
    for node, stages, _ in _nodes(roots):
        if isinstance(node, DatasetNode):
            found.setdefault(node.payload, (node, stages))
    return found


def models_of(roots: Iterable[Node]) -> dict[Sha256, ModelNode]:
    """Return every student at or above *roots*."""
    return {node.payload: node for node, _, _ in _nodes(roots) if isinstance(node, ModelNode)}


def account_matches(pattern: str, principal: str) -> bool:
    """Tell whether *principal* is the account that a question names; `*` stands for any."""
    return fnmatchcase(principal, pattern)


def as_json(answer: Answer) -> dict[str, Any]:
    """Return *answer* as JSON-ready values, its sentences beside it."""
    told: dict[str, Any] = msgspec.to_builtins(answer)
    return told | {"sentences": list(answer.sentences)}


# -- the way up ---------------------------------------------------------------------------


def _nodes(roots: Iterable[Node]) -> Iterator[tuple[Node, int, Influence]]:
    """Yield every node at or above *roots*, the nearest first, once for each influence."""
    waiting: list[tuple[Node, int, Influence]] = [(root, 0, "text") for root in roots]
    seen: set[tuple[object, Influence]] = set()
    at = 0
    while at < len(waiting):
        node, stages, influence = waiting[at]
        at += 1
        named = node.payload if isinstance(node, ModelNode | DatasetNode) else id(node)
        if (named, influence) in seen:
            continue
        seen.add((named, influence))
        yield node, stages, influence
        match node:
            case ModelNode():
                waiting += [(parent, stages + 1, influence) for parent in node.parents]
            case DatasetNode():
                for one in node.teachers:
                    if one.student is not None:
                        waiting.append((one.student, stages, _through(influence, one)))
            case ExchangeNode():
                if node.student is not None:
                    waiting.append((node.student, stages, influence))
            case DerivationNode():
                for above in node.parents:
                    through = "judge" if above.influence == "judge" else influence
                    waiting.append((above.node, stages, through))
            case ExportNode():
                waiting += [(parent, stages, influence) for parent in node.parents]
            case Missing():
                pass


def _ways(roots: Iterable[Node]) -> Iterator[Way]:
    """Yield everybody whose answers reached *roots*, the nearest first."""
    for node, stages, influence in _nodes(roots):
        match node:
            case DatasetNode():
                for one in node.teachers:
                    yield Way(
                        dataset=node,
                        teacher=one,
                        exchange=None,
                        stages=stages,
                        influence=_through(influence, one),
                    )
            case ExchangeNode():
                yield Way(
                    dataset=None,
                    teacher=None,
                    exchange=node,
                    stages=stages,
                    influence=influence,
                )
            case _:
                pass


def _through(influence: Influence, node: TeacherNode) -> Influence:
    """Return how what stands above a teacher reaches what stands below it."""
    return "judge" if "judge" in (influence, node.teacher.influence) else "text"


_BASE: Final = "what the base model `{}`, from outside, learned from"


def _unknowns(roots: Iterable[Node]) -> Iterator[str]:
    """Yield what could not be followed, and bases from outside."""
    for node, _, _ in _nodes(roots):
        if isinstance(node, ModelNode):
            yield from (_BASE.format(base) for base in node.bases)
    for way in _ways(roots):
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
    for node, _, _ in _nodes(roots):
        if isinstance(node, Missing):
            yield node.what
        if isinstance(node, ModelNode) and not node.parents and not node.bases:
            yield f"the training manifest of `{node.name}` names no dataset"


def _stated(roots: Iterable[Node]) -> Iterator[str]:
    """Yield whose word stands for rows that no receipt speaks for."""
    for node, _, _ in _nodes(roots):
        if isinstance(node, DatasetNode):
            for one in node.manifest.found.written_by:
                yield (
                    f"{one.rows} rows of dataset `{node.name}` are people's own words, states"
                    f" {one.by} ({one.source}, {one.licence})"
                )
        if isinstance(node, DerivationNode) and node.derivation.written is not None:
            said = node.derivation.written
            yield (
                f"rows of {node.derivation.derivation} are people's own words, states"
                f" {said.by} ({said.source}, {said.licence})"
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


# -- what fits ----------------------------------------------------------------------------


def _fits(way: Way, question: Question) -> bool:
    wanted = question.value.casefold()
    return any(_like(name.casefold(), wanted) for name in _names(way, question.kind))


def _like(name: str, wanted: str) -> bool:
    """Tell whether *name* is what is asked for; only `*` and `?` stand for anything else."""
    return fnmatchcase(name, wanted.replace("[", "[[]"))


def _names(way: Way, kind: Kind) -> Iterator[str]:
    """Yield the words by which a way can be asked for."""
    if way.teacher is None or way.dataset is None:
        if way.exchange is not None:
            yield from _names_of_answer(way.exchange.receipt, kind)
        return
    teacher = way.teacher.teacher
    match kind:
        case "distilled-from" | "judged-by":
            models = tuple(filter(None, (teacher.model, *teacher.reported)))
            yield from _names_of_who((teacher.provider, teacher.answered_by), models)
            if way.teacher.student is None:
                # Whose terms bind is who it is, whatever the operator calls the provider.
                for pin in teacher.policies:
                    yield pin.policy
        case "policy":
            yield from _names_of_pins(teacher.policies)
        case "clause":
            yield from teacher.clauses
        case "declared":
            yield from (way.dataset.manifest.asked.declaration, *teacher.declarations)
        case "agreement":
            yield from teacher.agreements
        case _:
            return


def _names_of_answer(receipt: Receipt, kind: Kind) -> Iterator[str]:
    match kind:
        case "distilled-from" | "judged-by":
            facts = receipt.model
            models = tuple(filter(None, (facts.requested, facts.reported)))
            yield from _names_of_who((receipt.provider.name, facts.provider), models)
            if facts.manifest is None:
                yield from (pin.policy for pin in receipt.ruling.policies)
        case "policy":
            yield from _names_of_pins(receipt.ruling.policies)
        case "clause":
            yield from (f"{one.policy}:{one.clause}" for one in receipt.ruling.reasons)
        case "declared":
            if receipt.declared.declaration is not None:
                yield receipt.declared.declaration
        case "agreement":
            yield from receipt.ruling.agreements
            if receipt.provider.agreement is not None:
                yield receipt.provider.agreement
        case _:
            return


def _names_of_who(who: tuple[str | None, ...], models: tuple[str, ...]) -> Iterator[str]:
    for name in filter(None, who):
        yield name
        yield from (f"{name}/{model}" for model in models)
    for model in models:
        yield from _names_of_model(model)


def _names_of_model(model: str) -> Iterator[str]:
    """Yield a model's name; where a host spells out whose it is, its parts and that, too.

    `openai/gpt-4o:free` is a `gpt-4o`, and OpenAI's.
    """
    for name in dict.fromkeys((model, model.partition(":")[0])):
        yield name
        for at, char in enumerate(name):
            if char == "/" and 0 < at < len(name) - 1:
                yield name[:at]
                yield name[at + 1 :]


def _might_fit(way: Way, question: Question) -> bool:
    """Tell whether a way that doesn't fit may be whom a question asks for, by another name.

    A cloud that passes on another's model (`azure-openai`, `anthropic.claude-…`) is not the
    one that is asked for, nor is it known to be somebody else.
    """
    judging = question.kind == "judged-by"
    if question.kind not in {"distilled-from", "judged-by"} or (
        judging != (way.influence == "judge")
    ):
        return False
    who, models = _who_answered(way)
    asked, _, model = question.value.casefold().partition("/")
    wanted = set(_WORD.findall(asked))
    if not wanted or asked in {name.casefold() for name in who}:
        return False
    alike = any(wanted <= set(_WORD.findall(name.casefold())) for name in (*who, *models))
    known = [part for one in models for part in _names_of_model(one.casefold())]
    return alike and (not model or not known or any(_like(one, model) for one in known))


_WORD: Final = re.compile(r"[a-z0-9]+")


def _who_answered(way: Way) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of who answered, and of the models; a student of ours has none."""
    if way.teacher is not None:
        if way.teacher.student is not None:
            return (), ()
        teacher = way.teacher.teacher
        who = (teacher.provider, teacher.answered_by)
        pins, models = teacher.policies, (teacher.model, *teacher.reported)
    elif way.exchange is not None and way.exchange.receipt.model.manifest is None:
        receipt = way.exchange.receipt
        who = (receipt.provider.name, receipt.model.provider)
        pins, models = (
            receipt.ruling.policies,
            (receipt.model.requested, receipt.model.reported),
        )
    else:
        return (), ()
    named = (*filter(None, who), *(pin.policy for pin in pins))
    return named, tuple(filter(None, models))


def _doubt(way: Way, question: Question) -> str:
    who, models = _who_answered(way)
    named = ", ".join(dict.fromkeys((*who, *models)))
    return f"whether `{named}` is `{question.value}`, which the names neither say nor rule out"


def _declared(roots: Iterable[Node], question: Question) -> Iterator[Finding]:
    """Yield the datasets that were built for a declaration, whoever taught in them."""
    for node, (dataset, stages) in datasets_of(roots).items():
        declaration = dataset.manifest.asked.declaration
        if _like(declaration.casefold(), question.value.casefold()):
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


def _undeclared(roots: Iterable[Node]) -> Iterator[str]:
    """Yield the datasets whose manifests don't name every declaration above them."""
    for dataset, _ in datasets_of(roots).values():
        if dataset.manifest.found.is_derived:
            yield (
                f"under which declarations the pipelines of dataset `{dataset.name}` ran:"
                " its manifest names those of calls (`gateway lineage show`)"
            )


def _names_of_pins(pins: Iterable[PolicyPin]) -> Iterator[str]:
    for pin in pins:
        yield pin.policy
        yield f"{pin.policy}@{pin.version}"


# -- what is found ------------------------------------------------------------------------


def _finding(way: Way) -> Finding:
    if way.teacher is None or way.dataset is None:
        assert way.exchange is not None  # noqa: S101 — a way leads through one or the other
        return _finding_of_answer(way.exchange, way.stages)
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


def _finding_of_answer(node: ExchangeNode, stages: int) -> Finding:
    receipt = node.receipt
    facts = receipt.model
    return Finding(
        what="answer",
        stages=stages,
        leaf=node.index,
        exchange=receipt.exchange,
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
    for node, _, _ in _nodes(evidence.roots):
        if isinstance(node, ExchangeNode) and account_matches(
            question.value, node.receipt.caller.principal
        ):
            findings.append(_finding_of_answer(node, 0))
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


# -- in words -----------------------------------------------------------------------------


def _sentences(answer: Answer) -> Iterator[str]:
    kind, _, value = answer.question.partition(":")
    told = _ANYBODY if answer.question == _FROM_ANYBODY else _HEADLINES[kind]
    match answer.says:
        case "yes":
            yield f"Yes: {answer.about} {told[0].format(value)}."
        case "no":
            yield f"No: {answer.about} {told[1].format(value)}."
        case _:
            yield f"Can't tell whether {answer.about} {told[0].format(value)}."
    for found in answer.findings:
        yield sentence_of(found)
    for found in answer.judged:
        yield f"Judged, not trained on its words: {sentence_of(found)}"
    for one in answer.clear:
        yield (
            f"None of the {one.members} leaves that dataset `{one.dataset}`"
            f"{_at(one.leaf)} was made from is the account's."
        )
    for doubt in answer.unknown:
        yield f"Not known: {doubt}."
    for gone in answer.withdrawn:
        yield f"WITHDRAWN since: {gone}."
    for word in answer.rests_on:
        yield f"It takes as given: {word}."
    if answer.covers:
        yield f"It covers {answer.covers}."


_FROM_ANYBODY: Final = "distilled-from:*"
_ANYBODY: Final = (
    "was made from answers of models",
    "was made from no model's answer that went through the gateway",
)
_HEADLINES: Final[Mapping[str, tuple[str, str]]] = {
    "distilled-from": (
        "was made from answers of `{}`",
        "was made from no answer of `{}` that went through the gateway",
    ),
    "judged-by": ("was made with `{}` as a judge", "was made without `{}` as a judge"),
    "policy": ("was made under policy `{}`", "was made under no policy `{}`"),
    "clause": ("rests on clause `{}`", "does not rest on clause `{}`"),
    "declared": ("was made under declaration `{}`", "was not made under declaration `{}`"),
    "agreement": ("was made under agreement `{}`", "was made under no agreement `{}`"),
    "principal": (
        "was made from answers given to account `{}`",
        "was made from no answer given to account `{}`",
    ),
}


def sentence_of(found: Finding) -> str:
    """Say one finding in a sentence: how much, how far, under which terms, by whose word."""
    parts = list(_parts(found))
    sentence = ", ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _parts(found: Finding) -> Iterator[str]:
    away = {0: "directly", 1: "1 stage away"}.get(found.stages, f"{found.stages} stages away")
    match found.what:
        case "answer":
            yield f"exchange {found.exchange}{_at(found.leaf)} is an answer of {_who(found)}"
        case "account":
            yield (
                f"{found.receipts} of the account's receipts are among what dataset"
                f" `{found.dataset}`{_at(found.leaf)} was made from"
                f" (the first: leaf {', '.join(map(str, found.first_leaves))})"
            )
            yield away
        case "dataset":
            yield f"dataset `{found.dataset}`{_at(found.leaf)} was built for it"
            yield away
        case _:
            verb = "decided on" if found.influence == "judge" else "stand in"
            yield (
                f"answers of {_who(found)} {verb} {found.rows} of {found.of_rows} rows"
                f" ({share(found.rows, found.of_rows)}) of dataset `{found.dataset}`"
                f"{_at(found.leaf)}"
            )
            if found.tokens is not None and found.of_tokens and found.influence == "text":
                counted = f"{found.tokens} of {found.of_tokens} output tokens"
                yield f"{counted} ({share(found.tokens, found.of_tokens)}) of its teachers'"
            yield away
    if found.days:
        yield f"asked {' to '.join(found.days)}"
    if found.policies:
        yield f"under policy {' and '.join(found.policies)}"
    if found.clauses:
        held = "held by" if found.approved else "ruled by"
        yield f"{held} clause {' and '.join(found.clauses)}"
    for yes in found.approved:
        yield f"approved by {yes.by} in leaf {yes.leaf} ({yes.reason})"
    if found.agreements:
        yield f"bound to agreement {' and '.join(found.agreements)}"
    if found.declaration:
        by = f" by {found.owner}" if found.owner else ""
        yield f"declared as {found.declaration} ({found.purpose}){by}"
    if found.withdrawn:
        yield f"and since WITHDRAWN {found.withdrawn}"


def share(part: int, whole: int) -> str:
    """Return how much *part* is of *whole*, in percent; what is there is never told as 0."""
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    if percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.1f} %" if percent != round(percent) else f"{percent:.0f} %"


def _who(found: Finding) -> str:
    return f"{found.provider} ({', '.join(found.models)})" if found.models else found.provider


def _at(leaf: int | None) -> str:
    return " (not in this log)" if leaf is None else f" (leaf {leaf})"
