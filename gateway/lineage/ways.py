"""The ways up from something to everybody whose answers reached it, and who is met there.

Who is met can be asked for by several names: the provider's, the model's, its maker's where a
host spells it out, the policy that bound the call. Where a name neither says nor rules out who
it is, that is a doubt, and no *no*.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from gateway.dataset.manifest import Influence
from gateway.ident import Sha256
from gateway.lineage.nodes import (
    Author,
    DatasetNode,
    DerivationNode,
    ExchangeNode,
    ExportNode,
    Missing,
    ModelNode,
    Node,
    TeacherNode,
)
from gateway.lineage.question import Kind, Question
from gateway.receipt.model import PolicyPin, Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way from a root up to somebody whose answers reached it."""

    dataset: DatasetNode | None
    teacher: TeacherNode | None
    exchange: ExchangeNode | None
    stages: int
    influence: Influence


def datasets_of(roots: Iterable[Node]) -> dict[Sha256, tuple[DatasetNode, int]]:
    """Return every dataset at or above *roots*, and how many trainings lie in between."""
    found: dict[Sha256, tuple[DatasetNode, int]] = {}
    for node, stages, _ in nodes_above(roots):
        if isinstance(node, DatasetNode):
            found.setdefault(node.payload, (node, stages))
    return found


def models_of(roots: Iterable[Node]) -> dict[Sha256, ModelNode]:
    """Return every student at or above *roots*."""
    return {
        node.payload: node for node, _, _ in nodes_above(roots) if isinstance(node, ModelNode)
    }


def authors_of(
    roots: Iterable[Node],
) -> list[tuple[Author, DatasetNode | DerivationNode, int]]:
    """Return whose words stand in something, where, and how many trainings lie in between."""
    found: dict[tuple[object, Author], tuple[Author, DatasetNode | DerivationNode, int]] = {}
    for node, stages, _ in nodes_above(roots):
        if isinstance(node, DatasetNode | DerivationNode):
            for author in node.authors:
                found.setdefault((id(node), author), (author, node, stages))
    return list(found.values())


def nodes_above(roots: Iterable[Node]) -> Iterator[tuple[Node, int, Influence]]:
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


def ways_of(roots: Iterable[Node]) -> Iterator[Way]:
    """Yield everybody whose answers reached *roots*, the nearest first."""
    for node, stages, influence in nodes_above(roots):
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


def fits(way: Way, question: Question) -> bool:
    """Tell whether a way leads to whom or what a question asks for."""
    wanted = question.value.casefold()
    return any(is_like(name.casefold(), wanted) for name in _names(way, question.kind))


def is_like(name: str, wanted: str) -> bool:
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


def is_among(
    value: str, who: Iterable[str], models: Iterable[str], policies: Iterable[str]
) -> bool:
    """Tell whether a question for *value* could lead to anybody of these names."""
    wanted = value.casefold()
    names = [one.casefold() for one in who]
    known = [name for one in models for name in _names_of_model(one.casefold())]
    if any(is_like(one, wanted) for one in (*names, *known, *map(str.casefold, policies))):
        return True
    provider, slash, model = wanted.partition("/")
    return (
        bool(slash)
        and any(is_like(one, provider) for one in names)
        and any(is_like(one, model) for one in known)
    )


def might_fit(way: Way, question: Question) -> bool:
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
    return alike and (not model or not known or any(is_like(one, model) for one in known))


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


def doubt_of(way: Way, question: Question) -> str:
    """Say what is not known of a way that might fit."""
    who, models = _who_answered(way)
    named = ", ".join(dict.fromkeys((*who, *models)))
    return f"whether `{named}` is `{question.value}`, which the names neither say nor rule out"


def _names_of_pins(pins: Iterable[PolicyPin]) -> Iterator[str]:
    for pin in pins:
        yield pin.policy
        yield f"{pin.policy}@{pin.version}"
