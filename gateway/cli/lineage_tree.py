"""A tree of lineage in the terminal: what stands on which branch, and in which words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.text import Text
from rich.tree import Tree

from gateway.lineage.answer import share
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

_TEACHERS_MAX: Final = 12
"""Of so many teachers of one dataset each has a branch; of more, those of most rows."""


def tree_of(root: Node) -> Tree:
    """Return *root* and what is above it as branches to print."""
    tree = Tree(_label(root))
    _grow(tree, root, {id(root)})
    return tree


def _grow(tree: Tree, node: Node, grown: set[int]) -> None:
    match node:
        case ModelNode() | ExportNode():
            for base in node.bases if isinstance(node, ModelNode) else ():
                tree.add(plain(f"began as {base}, from outside"))
            for parent in node.parents:
                _branch(tree, parent, grown)
        case DatasetNode():
            shown, rest = _foremost(node.teachers)
            for teacher in shown:
                branch = tree.add(_teacher(teacher, node))
                if teacher.student is not None:
                    _branch(branch, teacher.student, grown)
            if rest:
                rows = _count(sum(one.teacher.rows for one in rest), "row")
                tree.add(plain(f"{len(rest)} more teachers, of {rows}"))
            found = node.manifest.found
            for made in found.made_by:
                told = f"made by {made.name} {made.version} ({made.kind})"
                tree.add(plain(f"{told}: {_count(made.rows, 'row')}"))
            for author in node.authors:
                tree.add(_author(author))
            if node.receipts:
                receipts = tree.add(
                    plain(f"receipts, {len(node.receipts)} of {node.receipts_in_all}")
                )
                for leaf in node.receipts:
                    receipts.add(plain(f"{leaf.exchange} (leaf {leaf.index})"))
            else:
                tree.add(plain(f"{node.receipts_in_all} receipts; the folder is not at hand"))
        case ExchangeNode():
            if node.student is not None:
                _branch(tree, node.student, grown)
        case DerivationNode():
            for one in node.parents:
                role = tree.add(plain(f"{one.parent.role}:"))
                _branch(role, one.node, grown)
            for author in node.authors:
                tree.add(_author(author))
        case Missing():
            pass


def _foremost(
    teachers: Sequence[TeacherNode],
) -> tuple[list[TeacherNode], list[TeacherNode]]:
    """Return those to show one by one, who reached the most rows first, and the rest.

    What leads further up is always shown.
    """
    ordered = sorted(teachers, key=lambda one: (one.student is None, -one.teacher.rows))
    ours = sum(1 for one in ordered if one.student is not None)
    most = len(ordered) if len(ordered) <= ours + _TEACHERS_MAX else ours + _TEACHERS_MAX - 1
    return ordered[:most], ordered[most:]


def _branch(tree: Tree, node: Node, grown: set[int]) -> None:
    """Grow *node* below *tree*; what stands in two places is told in the first."""
    if id(node) in grown and not isinstance(node, Missing):
        tree.add(plain(f"{name_of(node)}, as told above"))
        return
    grown.add(id(node))
    _grow(tree.add(_label(node)), node, grown)


def _label(node: Node) -> Text:
    match node:
        case ModelNode() | ExportNode():
            kind = "student" if isinstance(node, ModelNode) else "export"
            return _node(f"{kind} {node.name}", _manifest(node), withdrawn=node.withdrawn)
        case DatasetNode():
            asked, found = node.manifest.asked, node.manifest.found
            return _node(
                f"dataset {node.name}: {_count(found.rows, 'row')} for {found.use.purpose}",
                f"declared by {node.owner or 'nobody on record'} as {asked.declaration}",
                f"ruled on again {found.day}, {_manifest(node)}",
                withdrawn=node.withdrawn,
            )
        case ExchangeNode():
            receipt = node.receipt
            model = receipt.model.reported or receipt.model.requested or "no model named"
            return _node(
                f"exchange {receipt.exchange} (leaf {node.index})",
                f"{receipt.provider.name} ({model}), for {receipt.declared.use.purpose}",
                withdrawn=node.withdrawn,
            )
        case DerivationNode():
            said = node.derivation
            row = _count(len(said.rows), "row") if node.place is None else f"row {node.place}"
            return _node(
                f"derivation {said.derivation} (leaf {node.index}): {said.transform.kind} by"
                f" {said.transform.name} {said.transform.version}",
                f"{row}, declared for {said.declared.use.purpose}",
                withdrawn=node.withdrawn,
            )
        case Missing():
            return Text(plain(f"? {node.what}").plain, style="bold red")


def _manifest(node: ModelNode | DatasetNode | ExportNode) -> str:
    where = "not in this ledger" if node.index is None else f"leaf {node.index}"
    return f"manifest {node.payload[:16]}… ({where})"


def _teacher(node: TeacherNode, dataset: DatasetNode) -> Text:
    teacher = node.teacher
    kind = "student of ours, as provider" if node.student is not None else "teacher"
    if teacher.influence == "judge":
        kind = f"{kind}, judging only:"
    pins = sorted({f"{pin.policy} v{pin.version}" for pin in teacher.policies})
    details = [f"policies {', '.join(pins) or 'none'}; clauses {', '.join(teacher.clauses)}"]
    if teacher.verdicts:
        said = {one.index: f" ({one.by}: {one.reason})" for one in dataset.approvals}
        told = ", ".join(f"{index}{said.get(index, '')}" for index in teacher.verdicts)
        details.append(f"let pass by the verdict in leaf {told}")
    if teacher.obligations:
        details.append(f"obligations {', '.join(teacher.obligations)}")
    return _node(
        f"{kind} {teacher.provider} {teacher.model or ''}: {teacher.rows} of "
        f"{_count(node.of_rows, 'row')} ({share(teacher.rows, node.of_rows)})",
        *details,
    )


def _author(author: Author) -> Text:
    return _node(
        f"people, says {author.by}: {author.rows} of {_count(author.of_rows, 'row')}"
        f" ({share(author.rows, author.of_rows)})",
        f"from {author.source}, licence {author.licence}",
    )


def _node(headline: str, *details: str, withdrawn: str | None = None) -> Text:
    """Return a headline with its details below it, one a line."""
    label = Text(plain(headline).plain, style="bold")
    if withdrawn is not None:
        label.append(f" WITHDRAWN {plain(withdrawn).plain}", style="bold red")
    for detail in details:
        label.append(f"\n{plain(detail).plain}", style="not bold")
    return label


def kind_of(node: Node) -> str:
    """Return the word for what a node is."""
    match node:
        case ModelNode():
            return "student"
        case DatasetNode():
            return "dataset"
        case ExportNode():
            return "export"
        case ExchangeNode():
            return "exchange"
        case DerivationNode():
            return "derivation"
        case Missing():
            return "manifest"


def name_of(node: Node) -> str:
    """Return what a node is called, on one line."""
    match node:
        case ModelNode() | DatasetNode() | ExportNode():
            return f"{kind_of(node)} {node.name} ({node.payload[:12]}…)"
        case ExchangeNode():
            return f"exchange {node.receipt.exchange}"
        case DerivationNode():
            return f"derivation {node.derivation.derivation}"
        case Missing():
            return node.what


def gone_of(node: Node) -> str:
    """Return who withdrew it and why; empty where nobody did."""
    return "" if isinstance(node, Missing) else node.withdrawn or ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def plain(text: str) -> Text:
    """Return words of others so that they are neither markup nor controls."""
    return Text("".join(char if char.isprintable() else "?" for char in text))
