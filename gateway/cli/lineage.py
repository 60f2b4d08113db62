"""`gateway lineage show`: where a model, a dataset or an answer came from, down to receipts."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path

from rich.text import Text
from rich.tree import Tree

from gateway.app.installation import Installation, open_installation
from gateway.cli import lineage_ask
from gateway.cli.receipt import positive
from gateway.cli.use import screen
from gateway.dataset.manifest import MANIFEST
from gateway.errors import NotFoundError
from gateway.ident import ExchangeId, Sha256, is_exchange_id
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.lineage.tree import (
    Answer,
    Copies,
    DatasetNode,
    ExchangeNode,
    Folders,
    Missing,
    ModelNode,
    Root,
    Sources,
    TeacherNode,
    as_json,
    distilled_from,
    lineage_of_exchange,
    lineage_of_manifest,
    sentence_of,
    traces,
    unknowns,
)
from gateway.receipt.model import Manifest, Receipt
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import verify_leaf, verify_manifest


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `lineage` among *commands*."""
    verbs = commands.add_parser(
        "lineage",
        help="tell where something came from",
        description="Tell where a model, a dataset or an answer came from.",
    ).add_subparsers(metavar="VERB", required=True)
    show = verbs.add_parser(
        "show",
        help="show the tree up to the teachers",
        description="Show the tree from a model folder, a dataset folder, an exchange or the "
        "sha256 of a manifest up to its teachers, down to receipts.",
    )
    show.add_argument("what", metavar="PATH_OR_ID", help="a folder, x-…, or a sha256")
    show.add_argument(
        "--receipts", metavar="N", type=positive, default=3, help="receipts to show (default 3)"
    )
    show.add_argument(
        "--from",
        dest="teacher",
        metavar="PROVIDER",
        help="only answer whether it is distilled from this provider or model; "
        "exit code 0: yes or no, 1: can't tell",
    )
    show.add_argument("--json", action="store_true", help="one JSON document")
    show.set_defaults(run=_show)
    lineage_ask.add(verbs)


def _show(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        root = _root(args.what, house, args.receipts)
    answer = None if args.teacher is None else distilled_from(root, args.teacher)
    if args.json:
        print(json.dumps(_document(root, answer), indent=2, ensure_ascii=False))
    else:
        _print(root, answer)
    return 1 if answer is not None and answer.says == "can't tell" else 0


def _root(what: str, house: Installation, receipts: int) -> Root:
    trust = house.keyring.trust
    copies = Copies(trust)
    places = [house.data / "datasets"]
    path = Path(what)
    payload: Sha256 | None = None
    if path.is_dir():
        try:
            with (path / MANIFEST).open("rb") as file:
                _, payload = verify_manifest(file.read(BUNDLE_BYTES_MAX + 1), trust)
        except OSError as exc:
            raise NotFoundError(
                f"{path / MANIFEST} can't be read: {exc.strerror}",
                hint="name a dataset or model folder",
            ) from exc
        copies.take(path)
        places += [path, path.resolve().parent]
    elif len(what) == 64 and all(char in "0123456789abcdef" for char in what):
        payload = Sha256(what)

    def manifest(wanted: Sha256) -> tuple[int | None, Manifest] | None:
        found = house.reader.manifest(wanted)
        if found is not None:
            at, authority = found[0], house.reader.authority(trust)
            statement = verify_leaf(house.reader.leaf(at), at, authority)
            if isinstance(statement, Manifest):
                return found[0], statement
        copy = copies.known.get(wanted)
        return None if copy is None else (None, copy)

    sources = Sources(
        manifest=manifest,
        words=house.register,
        folder=Folders(places),
        receipts_shown=receipts,
    )
    if payload is not None and (path.is_dir() or manifest(payload) is not None):
        return lineage_of_manifest(payload, sources)
    if is_exchange_id(what):
        found = house.reader.find(ExchangeId(what))
        if found is not None:
            receipt = read_leaf(found[1])
            if isinstance(receipt, Receipt):
                return lineage_of_exchange(receipt, found[0], sources)
    raise NotFoundError(
        f"`{what[:80]}` is no folder, no answered exchange and no manifest's sha256",
        hint="`gateway receipt list` shows exchanges",
    )


def _document(root: Root, answer: Answer | None) -> dict[str, object]:
    document: dict[str, object] = {
        "lineage": as_json(root),
        "teachers": [f"{sentence_of(trace)}" for trace in traces(root)],
        "unknown": list(dict.fromkeys(unknowns(root))),
    }
    if answer is not None:
        document["answer"] = {
            "from": answer.asked,
            "says": answer.says,
            "sentences": list(answer.sentences),
        }
    return document


def _print(root: Root, answer: Answer | None) -> None:
    console = screen()
    console.print(_tree(root))
    console.print()
    if answer is not None:
        for sentence in answer.sentences:
            console.print(_plain(sentence), soft_wrap=True)
        return
    found = list(traces(root))
    for trace in found:
        word = "Yes: " if trace.stages or trace.teacher is not None else "This is "
        console.print(_plain(word + sentence_of(trace)), soft_wrap=True)
    if not found:
        console.print("No teacher was found.")
    for doubt in dict.fromkeys(unknowns(root)):
        console.print(_plain(f"Mind: {doubt}."), soft_wrap=True)


def _tree(root: Root) -> Tree:
    tree = Tree(_label(root))
    _grow(tree, root)
    return tree


def _grow(tree: Tree, node: Root) -> None:
    match node:
        case ModelNode():
            for base in node.bases:
                tree.add(_plain(f"began as {base}, from outside"))
            for parent in node.parents:
                _grow(tree.add(_label(parent)), parent)
        case DatasetNode():
            for teacher in node.teachers:
                branch = tree.add(_teacher(teacher))
                if teacher.student is not None:
                    _grow(branch.add(_label(teacher.student)), teacher.student)
            if node.receipts:
                shown = tree.add(
                    _plain(f"receipts, {len(node.receipts)} of {node.receipts_in_all}")
                )
                for leaf in node.receipts:
                    shown.add(_plain(f"{leaf.exchange} (leaf {leaf.index})"))
            else:
                tree.add(_plain(f"{node.receipts_in_all} receipts; the folder is not at hand"))
        case ExchangeNode():
            if node.student is not None:
                _grow(tree.add(_label(node.student)), node.student)
        case Missing():
            pass


def _label(node: Root) -> Text:
    match node:
        case ModelNode():
            return _node(f"student {node.name}", _manifest(node), withdrawn=node.withdrawn)
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
            )
        case Missing():
            return Text(_plain(f"? {node.what}").plain, style="bold red")


def _manifest(node: ModelNode | DatasetNode) -> str:
    where = "not in this ledger" if node.index is None else f"leaf {node.index}"
    return f"manifest {node.payload[:16]}… ({where})"


def _teacher(node: TeacherNode) -> Text:
    teacher = node.teacher
    share = 100 * teacher.rows / max(1, node.of_rows)
    kind = "student of ours, as provider" if node.student is not None else "teacher"
    pins = sorted({f"{pin.policy} v{pin.version}" for pin in teacher.policies})
    details = [f"policies {', '.join(pins) or 'none'}; clauses {', '.join(teacher.clauses)}"]
    if teacher.verdicts:
        details.append(
            f"let pass by the verdict in leaf {', '.join(map(str, teacher.verdicts))}"
        )
    if teacher.obligations:
        details.append(f"obligations {', '.join(teacher.obligations)}")
    return _node(
        f"{kind} {teacher.provider} {teacher.model or ''}: {teacher.rows} of "
        f"{_count(node.of_rows, 'row')} ({share:.0f} %)",
        *details,
    )


def _node(headline: str, *details: str, withdrawn: str | None = None) -> Text:
    """Return a headline with its details below it, one a line."""
    label = Text(_plain(headline).plain, style="bold")
    if withdrawn is not None:
        label.append(f" WITHDRAWN {_plain(withdrawn).plain}", style="bold red")
    for detail in details:
        label.append(f"\n{_plain(detail).plain}", style="not bold")
    return label


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _plain(text: str) -> Text:
    # Names of models and files are words of others: no control may reach the terminal.
    return Text("".join(char if char.isprintable() else "?" for char in text))
