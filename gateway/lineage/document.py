"""A tree of lineage as JSON-ready values."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from gateway.lineage.nodes import (
    Approval,
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
                "written_by": [_author_json(one) for one in node.authors],
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
                "written_by": [_author_json(one) for one in node.authors],
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


def _author_json(author: Author) -> dict[str, Any]:
    share = author.rows / author.of_rows if author.of_rows else None
    told = dataclasses.asdict(author)
    return told | {"share": None if share is None else round(share, 4)}


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
