"""Who taught something, and what it may be used for, by the strictest of all who did.

A teacher is asked about on its own: so it can be said which single one of them, and which of
its clauses, stands in the way of a use. The ruling is the dataset gate's, as of today and of
the days of the calls. What people approved counts for the use that it was said of.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from gateway.dataset.ancestry import Ancestry
from gateway.dataset.calls import REWRITE, VERIFY, Call, call_of_teacher
from gateway.dataset.gate.gate import Gate
from gateway.dataset.gate.groups import Group, group_of
from gateway.dataset.gate.ports import Law, Words
from gateway.dataset.gate.refusals import LeftOut
from gateway.dataset.manifest import Influence
from gateway.ident import DeclarationId, Sha256
from gateway.intent.model import Declaration
from gateway.intent.purpose import PURPOSES, covers, teaches
from gateway.lineage.nodes import (
    Approval,
    DatasetNode,
    DerivationNode,
    ExchangeNode,
    ExportNode,
    Missing,
    ModelNode,
    Node,
    TeacherNode,
    nodes_of,
)
from gateway.policy.model import EFFECTS, Effect
from gateway.receipt.model import EffectName, Reason

Word = Literal["permit", "hold", "forbid", "not declared"]

NOBODY: Final = DeclarationId("")
"""Stands for a declaration of which nobody said anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """Somebody whose answers reached something: a kind of call, or one answer."""

    provider: str
    models: tuple[str, ...]
    influence: Influence
    stages: int
    """How many trainings lie between."""
    student: Sha256 | None
    """For a student of ours: its training manifest; whoever taught it stands further up."""
    dataset: str | None
    """Where its answers stand; `None` if it is the answer itself, or a pipeline asked it."""
    manifest: Sha256 | None
    """Of that dataset."""
    rows: int | None
    of_rows: int | None
    receipts: int
    input_tokens: int | None
    output_tokens: int | None
    pins: tuple[str, ...]
    """The versions of policies that had a say, `openai-services v3`."""
    effect: EffectName
    clauses: tuple[str, ...]
    obligations: tuple[str, ...]
    approvals: tuple[Approval, ...]
    declarations: tuple[tuple[DeclarationId, str], ...]
    """What the calls were declared for, and by whom."""
    generated_for: str | None
    call: Call
    days: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return it in words."""
        return f"{self.provider} {self.models[0]}" if self.models else self.provider

    @property
    def share(self) -> float | None:
        """Return which part of the dataset's rows it reached."""
        return self.rows / self.of_rows if self.rows is not None and self.of_rows else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The one who stands in the way of a use, and by what."""

    ancestor: Ancestor | None
    """`None`: something that can't be found."""
    clauses: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What the terms of all ancestors together say of one use."""

    purpose: str
    effect: EffectName
    limit: Limit | None
    """Who limits it, where it is not simply permitted."""
    others: int = 0
    """How many more ancestors come to the same."""
    undeclared: Ancestor | None = None
    """Whose calls were not declared for what teaches; a use is narrowed, never widened."""

    @property
    def word(self) -> Word:
        """Return it in a word: what the terms permit may still never have been declared."""
        if self.effect == "permit" and self.undeclared is not None:
            return "not declared"
        return self.effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Rulers:
    """Who rules on uses."""

    law: Law
    words: Words
    ancestry: Ancestry
    today: dt.date


def ancestors_of(root: Node) -> list[Ancestor]:
    """Return everybody whose answers reached *root*, the nearest first.

    Each kind of call of each dataset stands once, and once more where it judged as well.
    """
    found: list[Ancestor] = []
    waiting: list[tuple[Node, int, Influence]] = [(root, 0, "text")]
    seen: set[tuple[int, Influence]] = set()
    for node, stages, influence in waiting:
        if (id(node), influence) in seen:
            continue
        seen.add((id(node), influence))
        match node:
            case ModelNode():
                waiting += [(parent, stages + 1, influence) for parent in node.parents]
            case ExportNode():
                waiting += [(parent, stages, influence) for parent in node.parents]
            case DerivationNode():
                for one in node.parents:
                    waiting.append((one.node, stages, _through(influence, one.influence)))
            case DatasetNode():
                for teacher in node.teachers:
                    reaching = _through(influence, teacher.teacher.influence)
                    found.append(_of_teacher(node, teacher, stages, reaching))
                    if teacher.student is not None:
                        waiting.append((teacher.student, stages, reaching))
            case ExchangeNode():
                found.append(_of_exchange(node, stages, influence))
                if node.student is not None:
                    waiting.append((node.student, stages, influence))
            case Missing():
                pass
    return found


def use_of(root: Node) -> Declaration | None:
    """Return the declared use of something: of a student, that of what it learned from."""
    match root:
        case DatasetNode():
            asked = root.manifest.asked
            return Declaration(
                id=asked.declaration,
                project=asked.project,
                use=root.manifest.found.use,
                owner=root.owner,
            )
        case ExchangeNode() | DerivationNode():
            said = root.receipt if isinstance(root, ExchangeNode) else root.derivation
            return Declaration(
                id=said.declared.declaration or NOBODY,
                project=said.caller.project,
                use=said.declared.use,
                owner=root.owner,
            )
        case ModelNode() | ExportNode():
            datasets = (one for one in root.parents if isinstance(one, DatasetNode))
            first = next(datasets, None)
            return None if first is None else use_of(first)
        case Missing():
            return None


def allowed_uses(
    root: Node,
    declared: Declaration,
    rulers: Rulers,
    purposes: Iterable[str] = PURPOSES,
) -> list[Allowed]:
    """Return for every purpose what all ancestors of *root* allow, the use otherwise the same.

    The rulings are those of the gate: of today and of the days on which the calls were made.
    """
    ancestors = ancestors_of(root)
    missing = [one.what for one in _missing(root)]
    asked = [(one, call) for one in ancestors if (call := _bound(one, ancestors)) is not None]
    return [_allowed(purpose, declared, asked, missing, rulers) for purpose in purposes]


def _allowed(
    purpose: str,
    declared: Declaration,
    asked: list[tuple[Ancestor, Call]],
    missing: list[str],
    rulers: Rulers,
) -> Allowed:
    undeclared = None if not teaches(purpose) else _not_declared(purpose, asked)
    if missing or not asked:
        why = missing[0] if missing else "nobody is known who taught it"
        return Allowed(
            purpose=purpose,
            effect="forbid",
            limit=Limit(ancestor=None, clauses=(), why=why),
            undeclared=undeclared,
        )
    # A verdict speaks of the use that was declared, and of what is narrower.
    mine = declared.id if covers(declared.use.purpose, purpose) else NOBODY
    use = msgspec.structs.replace(declared.use, purpose=purpose)
    whose = Declaration(id=mine, project=declared.project, use=use, owner=declared.owner)
    gate = Gate(whose, rulers.today, rulers.law, rulers.words, rulers.ancestry)
    ruled = [(one, _ruled(gate, one, call)) for one, call in asked]
    worst = max(effect.value for _, (effect, _, _) in ruled)
    limiting = [(one, said) for one, said in ruled if said[0].value == worst]
    first, (effect, reasons, left_out) = limiting[0]
    if left_out is None:
        return Allowed(purpose=purpose, effect="permit", limit=None, undeclared=undeclared)
    return Allowed(
        purpose=purpose,
        effect=effect.word,
        limit=Limit(ancestor=first, clauses=_clauses(reasons), why=left_out.detail),
        others=len(limiting) - 1,
        undeclared=undeclared,
    )


def _not_declared(purpose: str, asked: Iterable[tuple[Ancestor, Call]]) -> Ancestor | None:
    """Return the first whose answers may not reach rows for *purpose*, as the gate has it."""
    for one, _ in asked:
        beside = {"judge": VERIFY, "text": REWRITE}[one.influence]
        used = one.generated_for
        if used is not None and not any(covers(used, fits) for fits in (purpose, beside)):
            return one
    return None


def _ruled(
    gate: Gate, ancestor: Ancestor, call: Call
) -> tuple[Effect, tuple[Reason, ...], LeftOut | None]:
    """Return what one ancestor's terms come to, over all its days."""
    again = [
        gate.ruling_for(Group(call=call, manifest=None, day=day, influence=ancestor.influence))
        for day in ancestor.days or (gate.today.isoformat(),)
    ]
    # What a person approved is permitted.
    effects = [EFFECTS[one.effect] if one.left_out else Effect.PERMIT for one in again]
    worst = max(range(len(again)), key=lambda at: effects[at])
    return effects[worst], again[worst].reasons, again[worst].left_out


def _bound(ancestor: Ancestor, among: list[Ancestor]) -> Call | None:
    """Return the call that an ancestor is ruled on as; `None` where nothing of its own binds.

    A student has no terms of its own: its receipts name those of its teachers, who are among
    the ancestors themselves. What else they name binds the student's answers.
    """
    if ancestor.student is None:
        return ancestor.call
    theirs = {policy for one in among if one.student is None for policy in one.call.policies}
    left = tuple(policy for policy in ancestor.call.policies if policy not in theirs)
    return dataclasses.replace(ancestor.call, policies=left) if left else None


def _of_teacher(
    node: DatasetNode, teacher: TeacherNode, stages: int, influence: Influence
) -> Ancestor:
    said = teacher.teacher
    owners = dict(node.owners)
    return Ancestor(
        provider=said.provider,
        models=tuple(dict.fromkeys(filter(None, (said.model, *said.reported)))),
        influence=influence,
        stages=stages,
        student=said.manifest,
        dataset=node.name,
        manifest=node.payload,
        rows=said.rows,
        of_rows=teacher.of_rows,
        receipts=said.receipts,
        input_tokens=said.input_tokens,
        output_tokens=said.output_tokens,
        pins=tuple(sorted({f"{pin.policy} v{pin.version}" for pin in said.policies})),
        effect=said.effect,
        clauses=said.clauses,
        obligations=said.obligations,
        approvals=tuple(one for one in node.approvals if one.index in said.verdicts),
        declarations=tuple(
            (one, owners.get(one, "nobody on record")) for one in said.declarations
        ),
        generated_for=said.generated_for,
        call=call_of_teacher(said),
        days=said.days,
    )


def _of_exchange(node: ExchangeNode, stages: int, influence: Influence) -> Ancestor:
    receipt, group = node.receipt, group_of(node.receipt, influence)
    usage, declared = receipt.usage, receipt.declared.declaration
    models = (receipt.model.requested, receipt.model.reported)
    return Ancestor(
        provider=receipt.provider.name,
        models=tuple(dict.fromkeys(filter(None, models))),
        influence=influence,
        stages=stages,
        student=receipt.model.manifest,
        dataset=None,
        manifest=None,
        rows=None,
        of_rows=None,
        receipts=1,
        input_tokens=None if usage is None else usage.input_tokens,
        output_tokens=None if usage is None else usage.output_tokens,
        pins=tuple(f"{pin.policy} v{pin.version}" for pin in receipt.ruling.policies),
        effect=receipt.ruling.effect,
        clauses=tuple(f"{one.policy}:{one.clause}" for one in receipt.ruling.reasons),
        obligations=receipt.ruling.obligations,
        approvals=node.approvals,
        declarations=()
        if declared is None
        else ((declared, node.owner or "nobody on record"),),
        generated_for=receipt.declared.use.purpose,
        call=group.call,
        days=(group.day,),
    )


def _missing(root: Node) -> Iterator[Missing]:
    return (node for node in nodes_of(root) if isinstance(node, Missing))


def _through(influence: Influence, own: Influence) -> Influence:
    return "judge" if "judge" in (influence, own) else "text"


def _clauses(reasons: Iterable[Reason]) -> tuple[str, ...]:
    strict = [one for one in reasons if one.effect != "permit" or one.missing]
    return tuple(dict.fromkeys(f"{one.policy}:{one.clause}" for one in strict))


def ancestor_json(ancestor: Ancestor) -> dict[str, Any]:
    """Return an ancestor JSON-ready."""
    share = ancestor.share
    return {
        "provider": ancestor.provider,
        "models": list(ancestor.models),
        "influence": ancestor.influence,
        "stages": ancestor.stages,
        "student": ancestor.student,
        "dataset": ancestor.dataset,
        "manifest": ancestor.manifest,
        "rows": ancestor.rows,
        "of_rows": ancestor.of_rows,
        "share": None if share is None else round(share, 4),
        "receipts": ancestor.receipts,
        "input_tokens": ancestor.input_tokens,
        "output_tokens": ancestor.output_tokens,
        "terms": list(ancestor.pins),
        "effect": ancestor.effect,
        "clauses": list(ancestor.clauses),
        "obligations": list(ancestor.obligations),
        "ruled_by": [
            {"index": one.index, "by": one.by, "reason": one.reason}
            for one in ancestor.approvals
        ],
        "declarations": [{"id": one, "owner": owner} for one, owner in ancestor.declarations],
        "days": [ancestor.days[0], ancestor.days[-1]] if ancestor.days else [],
    }


def allowed_json(allowed: Allowed) -> dict[str, Any]:
    """Return what is allowed JSON-ready."""
    limit = allowed.limit
    told: dict[str, Any] = {
        "purpose": allowed.purpose,
        "effect": allowed.effect,
        "says": allowed.word,
    }
    if allowed.undeclared is not None:
        told["not_declared_by"] = allowed.undeclared.name
    if limit is not None:
        who = limit.ancestor
        told["limited_by"] = {
            "ancestor": None if who is None else who.name,
            "dataset": None if who is None else who.dataset,
            "stages": None if who is None else who.stages,
            "clauses": list(limit.clauses),
            "why": limit.why,
        }
        told["others"] = allowed.others
    return told
