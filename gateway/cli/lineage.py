"""`gateway lineage show | impact`: where something came from, what came of it, who must act."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from gateway.app.installation import Installation, open_installation
from gateway.cli import lineage_ask
from gateway.cli.ledger import write_out
from gateway.cli.receipt import positive
from gateway.cli.replay import changed_library, sources_of
from gateway.cli.use import screen
from gateway.clock import day_of
from gateway.dataset.ancestry import Ancestry
from gateway.dataset.held import HeldWords
from gateway.dataset.manifest import MANIFEST
from gateway.dataset.recall import Change, Recall, pair_json, policies_that_differ
from gateway.dataset.ruling import PolicyLaw
from gateway.dataset.verification.verify import iterate_rows
from gateway.errors import CallerError, NotFoundError
from gateway.ident import (
    DeclarationId,
    DerivationId,
    ExchangeId,
    Sha256,
    is_declaration_id,
    is_derivation_id,
    is_exchange_id,
)
from gateway.intent.model import Declaration
from gateway.ledger.register import subject_of
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.lineage.answer import Answer
from gateway.lineage.ask import covered, distilled_from
from gateway.lineage.document import as_json
from gateway.lineage.folders import Copies, Folders
from gateway.lineage.impact import MENTIONED, Below, Impact, sentences_of
from gateway.lineage.impact import as_json as impact_json
from gateway.lineage.nodes import (
    DatasetNode,
    DerivationNode,
    ExchangeNode,
    ExportNode,
    Missing,
    ModelNode,
    Node,
    TeacherNode,
    nodes_of,
    sentence_of,
    traces,
    unknowns,
)
from gateway.lineage.page import Told, away, limit_of, lineage_html, tokens
from gateway.lineage.tree import (
    Sources,
    lineage_of_derivation,
    lineage_of_exchange,
    lineage_of_export,
    lineage_of_manifest,
)
from gateway.lineage.uses import (
    Allowed,
    Ancestor,
    Rulers,
    allowed_json,
    allowed_uses,
    ancestor_json,
    ancestors_of,
    use_of,
)
from gateway.receipt.model import EXPORT_BUILD, Derivation, Manifest, Receipt
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import verify_leaf, verify_manifest
from gateway.store.lineage import Stage

_ROW: Final = re.compile(r"(?P<of>.+)#(?P<row>[0-9]{1,18})")
_CHOICE: Final = re.compile(r"(?P<of>[xd]-[0-9A-Z]{26})/(?P<choice>[0-9]{1,9})")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `lineage` among *commands*."""
    verbs = commands.add_parser(
        "lineage",
        help="tell where something came from, and what came of it",
        description="Tell where something came from, what came of it, and who must act.",
    ).add_subparsers(metavar="VERB", required=True)
    show = verbs.add_parser(
        "show",
        help="show the tree up to the teachers and down to students",
        description="Show where something came from, up to its teachers, and what came of it, "
        "down to students and exports; who taught it, under which terms; and what it may be "
        "used for. WHAT is a folder of a dataset, a model or an export, its name or the sha256 "
        "of its manifest; x-… or d-…, with /N for one choice or row of it; or DATASET#ROW.",
    )
    show.add_argument("what", metavar="WHAT", help="a folder, a name, a sha256, x-…, d-…")
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
    show.add_argument("--html", metavar="FILE", type=Path, help="write a page with a graph")
    show.add_argument("--json", action="store_true", help="one JSON document")
    show.set_defaults(run=_show)
    _add_impact(verbs)
    lineage_ask.add(verbs)


def _add_impact(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    impact = verbs.add_parser(
        "impact",
        help="show what came of something, and who must act",
        description="Show every dataset, student and export below something, how much of each "
        "is reached, and whose they are. Nothing is changed.",
    )
    asked = impact.add_mutually_exclusive_group(required=True)
    for name, metavar, sentence in (
        ("provider", "NAME", "what was made of a provider's answers"),
        ("model", "NAME", "what was made of a model's answers, by whatever name it goes"),
        ("policy", "ID", "what was ruled on under a policy"),
        ("clause", "POLICY:CLAUSE", "what a clause had a say in"),
        ("agreement", "ID", "what was called for under a registered agreement"),
        ("transform", "NAME", "what a transform of a pipeline made"),
        ("author", "NAME", "what holds rows that somebody wrote or answers for"),
        ("base", "NAME", "what began as a model from outside"),
        ("principal", "NAME", "what was asked for under a name"),
    ):
        asked.add_argument(f"--{name}", metavar=metavar, help=sentence)
    asked.add_argument("--declaration", metavar="use-…", help="what was declared so")
    asked.add_argument("--exchange", metavar="x-…|d-…", help="what an answer or rows went into")
    asked.add_argument(
        "--manifest", metavar="WHAT", help="what was made of a dataset, a student or an export"
    )
    asked.add_argument(
        "--policy-change",
        metavar="DIR",
        type=Path,
        help="what would be ruled otherwise under the policies in DIR; nothing is put in force",
    )
    impact.add_argument("--json", action="store_true", help="one JSON document")
    impact.set_defaults(run=_impact)


# -- show ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is asked about."""

    title: str
    root: Node
    below: Impact
    held: str
    stages_held: frozenset[Sha256]
    """The manifests above and below it that a withdrawal holds."""


def _show(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        house.reader.catch_up()
        looked = _Looking(house, args.receipts)
        asked = looked.at(args.what)
        answer = None
        if args.teacher is not None:
            covers = covered(house.keyring.trust.origin, house.index.size)
            answer = distilled_from(asked.root, args.teacher, asked.title, covers)
        ancestors = ancestors_of(asked.root)
        declared = use_of(asked.root)
        allowed = [] if answer is not None else looked.allowed(asked.root, declared)
        as_of = (
            f"As of {day_of(house.clock.now_ms())}, ledger {house.keyring.trust.origin},"
            f" {house.index.size:,} leaves."
        )
    unknown = list(dict.fromkeys(unknowns(asked.root)))
    if args.html is not None:
        page = Told(
            title=asked.title,
            root=asked.root,
            ancestors=ancestors,
            allowed=allowed,
            declared=_declared(declared),
            impact=asked.below,
            held=asked.held,
            held_stages=asked.stages_held,
            unknown=unknown,
            as_of=as_of,
        )
        write_out(args.html, lineage_html(page).encode())
    if args.json:
        print(json.dumps(_document(asked, answer, allowed), indent=2, ensure_ascii=False))
    elif answer is not None:
        screen().print(_tree(asked.root))
        screen().print()
        for sentence in answer.sentences:
            screen().print(_plain(sentence), soft_wrap=True)
    else:
        _print(asked, ancestors, allowed, _declared(declared))
        if args.html is not None:
            print(f"{args.html}: a page with a graph")
    return 1 if answer is not None and answer.says == "can't tell" else 0


class _Looking:
    """Finds what a command line names, in a house."""

    def __init__(self, house: Installation, receipts: int) -> None:
        self._house = house
        self._trust = house.keyring.trust
        self._authority = house.reader.authority(self._trust)
        self._copies = Copies(self._trust)
        self._places = [house.data / "datasets"]
        self._words = HeldWords(house.register, house.index)
        self._below = Below(house.index, house.register)
        self._sources = Sources(
            manifest=self._manifest,
            words=house.register,
            folder=Folders(self._places),
            leaf=house.reader.leaf,
            receipts_shown=receipts,
        )

    def at(self, what: str) -> _Asked:
        """Return what *what* names.

        Raises:
            NotFoundError: it names nothing, or several things.
            EvidenceError: what it names does not verify.
        """
        path = Path(what)
        row, choice = _ROW.fullmatch(what), _CHOICE.fullmatch(what)
        if path.is_dir():
            return self._of_manifest(self._payload_at(path))
        if choice is not None:
            return self._of_answer(choice["of"], int(choice["choice"]))
        if is_exchange_id(what) or is_derivation_id(what):
            return self._of_answer(what, None)
        if row is not None:
            return self._of_row(row["of"], int(row["row"]))
        return self._of_manifest(self.named(what))

    def named(self, what: str) -> Sha256:
        """Return the manifest that a folder, a digest or a name stands for.

        Raises:
            NotFoundError: it stands for none, or for several.
        """
        if Path(what).is_dir():
            return self._payload_at(Path(what))
        if _SHA256.fullmatch(what):
            return Sha256(what)
        named = self._house.index.lineage.named(what)
        if not named:
            raise NotFoundError(
                f"`{_plain(what[:80])}` is no folder, no answered exchange, no derivation and"
                " no dataset, student or export of this ledger",
                hint="`gateway receipt list` shows exchanges",
            )
        if len(named) > 1:
            raise NotFoundError(
                f"{len(named)} things are called `{_plain(what[:80])}`",
                hint="name one by its manifest: " + ", ".join(map(_stage, named)),
            )
        return named[0].manifest

    def allowed(self, root: Node, declared: Declaration | None) -> list[Allowed]:
        """Return what all who taught *root* allow together, for every purpose."""
        if declared is None:
            return []
        house = self._house

        def find(payload: Sha256) -> Manifest | None:
            found = self._manifest(payload)
            return None if found is None else found[1]

        rulers = Rulers(
            law=PolicyLaw(house.library, house.register, house.overlays),
            words=self._words,
            ancestry=Ancestry(find),
            today=day_of(house.clock.now_ms()),
        )
        return allowed_uses(root, declared, rulers)

    def _of_manifest(self, payload: Sha256) -> _Asked:
        found = self._manifest(payload)
        if found is None:
            raise NotFoundError(
                f"no manifest {payload[:12]}… is in the ledger, nor a copy of it at hand",
                hint="name the folder of a dataset, a model or an export",
            )
        is_export = found[1].build_type == EXPORT_BUILD
        grow = lineage_of_export if is_export else lineage_of_manifest
        root = grow(payload, self._sources)
        withdrawal = self._words.held(payload)
        held = ""
        if withdrawal is not None:
            what = subject_of(withdrawal)
            gone = "it" if what == payload else f"{what}, which it came from"
            held = (
                f"HELD: {withdrawal.by} withdrew {gone} ({withdrawal.reason}). Nothing may"
                " learn from it, and it answers no more."
            )
        title = f"{_kind(root)} {root.name}" if not isinstance(root, Missing) else root.what
        below = self._below.of_manifests(_kind(root), title.partition(" ")[2], [payload])
        return self._asked(title, root, below, held)

    def _asked(self, title: str, root: Node, below: Impact, held: str) -> _Asked:
        stages = [one.stage.manifest for one in below.touched]
        stages += [
            node.payload
            for node in nodes_of(root)
            if isinstance(node, ModelNode | DatasetNode | ExportNode)
        ]
        held_stages = frozenset(one for one in stages if self._words.held(one) is not None)
        return _Asked(title=title, root=root, below=below, held=held, stages_held=held_stages)

    def _of_answer(self, name: str, choice: int | None) -> _Asked:
        house = self._house
        leaf = house.index.named(ExchangeId(name))
        statement = None if leaf is None else read_leaf(house.reader.leaf(leaf))
        root: ExchangeNode | DerivationNode | None = None
        count = 0
        if leaf is not None and isinstance(statement, Receipt):
            count = 1 + max((unit.choice for unit in statement.outputs), default=0)
            root = lineage_of_exchange(statement, leaf, self._sources)
        elif leaf is not None and isinstance(statement, Derivation):
            count = len(statement.rows)
            root = lineage_of_derivation(statement, leaf, self._sources, choice)
        if root is None or leaf is None:
            raise NotFoundError(
                f"no answered exchange and no derivation is called {name}",
                hint="`gateway receipt list` shows exchanges",
            )
        if choice is not None and choice >= count:
            raise NotFoundError(
                f"{name} has {count}, from 0 on: there is no {choice}", hint="leave /N out"
            )
        kind = "exchange" if isinstance(root, ExchangeNode) else "derivation"
        title = f"{kind} {name}" if choice is None else f"row {choice} of {kind} {name}"
        gone = next((node for node in nodes_of(root) if _gone(node)), None)
        held = "" if gone is None else f"HELD: {_name(gone)} was withdrawn {_gone(gone)}."
        if not held and isinstance(root, ExchangeNode) and root.student is not None:
            student = root.receipt.model.manifest
            withdrawal = None if student is None else self._words.held(student)
            if withdrawal is not None:
                held = (
                    f"HELD: {withdrawal.by} withdrew {subject_of(withdrawal)}, which the"
                    f" student that answered came from ({withdrawal.reason})."
                )
        below = self._below.of_leaf(kind, name, leaf)
        return self._asked(title, root, below, held)

    def _of_row(self, of: str, number: int) -> _Asked:
        """Return what row *number* of a dataset is: an answer, or a derived row."""
        payload = self.named(of)
        if Path(of).is_dir():
            self._places.append(Path(of))
        folder = self._sources.folder(payload)
        if folder is None:
            raise NotFoundError(
                f"the folder of dataset `{_plain(of[:80])}` is not at hand",
                hint="name the row by its folder, like path/to/DATASET#17",
            )
        for row in iterate_rows(folder):
            if row.number == number:
                asked = self._of_answer(row.source, row.choice)
                title = f"row {number} of dataset {folder.name}: {asked.title}"
                return dataclasses.replace(asked, title=title)
        raise NotFoundError(
            f"dataset `{folder.name}` has no row {number}", hint="rows are numbered from 0"
        )

    def _payload_at(self, path: Path) -> Sha256:
        try:
            with (path / MANIFEST).open("rb") as file:
                _, payload = verify_manifest(file.read(BUNDLE_BYTES_MAX + 1), self._trust)
        except OSError as exc:
            raise NotFoundError(
                f"{path / MANIFEST} can't be read: {exc.strerror}",
                hint="name a dataset, model or export folder",
            ) from exc
        self._copies.take(path)
        self._places += [path, path.resolve().parent]
        return payload

    def _manifest(self, wanted: Sha256) -> tuple[int | None, Manifest] | None:
        found = self._house.reader.manifest(wanted)
        if found is not None:
            at = found[0]
            statement = verify_leaf(self._house.reader.leaf(at), at, self._authority)
            if isinstance(statement, Manifest):
                return at, statement
        copy = self._copies.known.get(wanted)
        return None if copy is None else (None, copy)


def _document(asked: _Asked, answer: Answer | None, allowed: list[Allowed]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "what": asked.title,
        "held": asked.held or None,
        "lineage": as_json(asked.root),
        "ancestors": [ancestor_json(one) for one in ancestors_of(asked.root)],
        "teachers": [sentence_of(trace) for trace in traces(asked.root)],
        "below": impact_json(asked.below),
        "uses": [allowed_json(one) for one in allowed],
        "unknown": list(dict.fromkeys(unknowns(asked.root))),
    }
    if answer is not None:
        document["answer"] = {
            "from": answer.question.partition(":")[2],
            "says": answer.says,
            "sentences": list(answer.sentences),
        }
    return document


def _print(
    asked: _Asked, ancestors: list[Ancestor], allowed: list[Allowed], declared: str
) -> None:
    console = screen()
    if asked.held:
        console.print(Text(_plain(asked.held).plain, style="bold red"), soft_wrap=True)
    console.print(_tree(asked.root))
    console.print()
    if ancestors:
        console.print(_teachers_table(ancestors))
    found = list(traces(asked.root))
    for trace in found:
        word = "Yes: " if trace.stages or trace.teacher is not None else "This is "
        console.print(_plain(word + sentence_of(trace)), soft_wrap=True)
    if not found:
        console.print("No teacher was found.")
    console.print()
    console.print(Text("What came of it", style="bold"))
    _print_impact(asked.below)
    if allowed:
        console.print()
        console.print(_uses_table(allowed, declared))
    for doubt in dict.fromkeys([*unknowns(asked.root), *asked.below.unknown]):
        console.print(_plain(f"Mind: {doubt}."), soft_wrap=True)


def _teachers_table(ancestors: list[Ancestor]) -> Table:
    table = _table("Who taught it")
    for heading in ("teacher", "where", "rows", "tokens", "terms", "ruling", "declared"):
        table.add_column(heading, overflow="fold")
    for one in ancestors:
        rows = "" if one.share is None else f"{one.rows:,} ({100 * one.share:.0f} %)"
        judged = " (judged only)" if one.influence == "judge" else ""
        approved = "".join(f"; yes by {said.by} in leaf {said.index}" for said in one.approvals)
        declared = ", ".join(f"{name} by {owner}" for name, owner in one.declarations)
        table.add_row(
            *(
                _plain(text)
                for text in (
                    one.name + judged,
                    f"{one.dataset or 'an answer'}, {away(one.stages)}",
                    rows,
                    tokens(one),
                    ", ".join(one.pins),
                    f"{one.effect}: {', '.join(one.clauses)}{approved}",
                    declared,
                )
            )
        )
    return table


def _uses_table(allowed: list[Allowed], declared: str) -> Table:
    table = _table(f"What it may be used for today, otherwise as declared ({declared})")
    for heading in ("purpose", "ruling", "limited by"):
        table.add_column(heading, overflow="fold")
    styles = {"permit": "green", "hold": "yellow", "forbid": "red"}
    for one in allowed:
        word = Text(one.word, style=styles.get(one.word, ""))
        table.add_row(one.purpose, word, _plain(limit_of(one)))
    return table


def _table(title: str) -> Table:
    return Table(title=_plain(title), title_justify="left", box=None, pad_edge=False)


def _declared(declared: Declaration | None) -> str:
    if declared is None:
        return ""
    use = declared.use
    told = [
        declared.project,
        *(part for part in (use.purpose, use.student, use.audience, use.visibility) if part),
    ]
    return ", ".join(told)


# -- impact -------------------------------------------------------------------------------


def _impact(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        house.reader.catch_up()
        changes: list[Change] = []
        if args.policy_change is not None:
            impact, changes = _of_policies(house, args.policy_change)
        else:
            impact = _of(house, args)
    if args.json:
        document = impact_json(impact)
        if args.policy_change is not None:
            document["changes"] = [one.as_json() for one in changes]
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    for one in changes:
        for line in _change(one):
            screen().print(_plain(line), soft_wrap=True)
    _print_impact(impact)
    for doubt in impact.unknown:
        screen().print(_plain(f"Mind: {doubt}."), soft_wrap=True)
    return 0


def _of(house: Installation, args: argparse.Namespace) -> Impact:
    below = Below(house.index, house.register)
    for kind in MENTIONED:
        name = getattr(args, kind)
        if name is not None:
            return below.of_named(kind, name)
    if args.principal is not None:
        return below.of_principal(args.principal)
    if args.declaration is not None:
        if not is_declaration_id(args.declaration):
            raise CallerError(f"`{args.declaration[:40]}` is not use-…")
        return below.of_declaration(DeclarationId(args.declaration))
    if args.exchange is not None:
        return impact_of_answer(house, args.exchange)
    payload = _Looking(house, 1).named(args.manifest)
    stage = house.index.lineage.stage(payload)
    if stage is None or stage.leaf is None:
        raise NotFoundError(
            f"no manifest {payload[:12]}… is in the ledger",
            hint="`gateway lineage show FOLDER` prints the digest of a manifest",
        )
    return below.of_manifests(stage.kind or "manifest", stage.name, [payload])


def impact_of_answer(house: Installation, name: str) -> Impact:
    """Return what came of an exchange or a derivation.

    Raises:
        NotFoundError: there is no receipt of it.
    """
    leaf = None
    if is_exchange_id(name) or is_derivation_id(name):
        leaf = house.index.named(ExchangeId(name))
    if leaf is None:
        raise NotFoundError(
            f"no answered exchange and no derivation is called `{_plain(name[:40])}`",
            hint="`gateway receipt list` shows exchanges",
        )
    kind = "derivation" if is_derivation_id(name) else "exchange"
    return Below(house.index, house.register).of_leaf(
        kind, DerivationId(ExchangeId(name)), leaf
    )


def _of_policies(house: Installation, folder: Path) -> tuple[Impact, list[Change]]:
    """Return what would be ruled otherwise under the policies in *folder*, and how."""
    changed = changed_library(house, folder)
    below, lineage = Below(house.index, house.register), house.index.lineage
    differ = policies_that_differ(house.library, changed)
    among: set[Sha256] | None = None
    if differ is not None and not differ & set(house.overlays):
        met = [
            stage
            for policy in differ
            for stage, _ in lineage.mentioning("policy", policy).values()
        ]
        among = {stage.manifest for stage in lineage.below(met)}
    recall = Recall(sources_of(house, changed, day_of(house.clock.now_ms())))
    changes = list(recall.stages(among))
    first = [Sha256(one.manifest) for one in changes if one.today and one.today.changes]
    return below.of_manifests("change of policies", changed.digest[:12], first), changes


def _change(change: Change) -> Iterator[str]:
    if change.today is not None and change.today.changes:
        told = pair_json(change.today)
        by = ", ".join(f"{policy}:{clause}" for policy, clause in change.today.causes)
        yield (
            f"{change.kind} {change.name} ({change.manifest[:12]}…): {told['before']} to"
            f" {told['after']}, by {by}"
        )


def _print_impact(impact: Impact) -> None:
    console = screen()
    for sentence in sentences_of(impact):
        console.print(_plain(sentence), soft_wrap=True)
    if impact.derivations:
        count = impact.derivations
        console.print(f"{count:,} derivation{'s'[: count > 1]} made of it")
    for declaration in impact.declarations:
        ended = ", withdrawn already" if declaration.ended else ""
        told = f"declaration {declaration.id} of {declaration.owner}{ended}"
        console.print(_plain(told), soft_wrap=True)
    for who, what in impact.actions:
        console.print(_plain(f"{who} answers for {what}"), soft_wrap=True)


# -- the tree -----------------------------------------------------------------------------


def _tree(root: Node) -> Tree:
    tree = Tree(_label(root))
    _grow(tree, root, {id(root)})
    return tree


def _grow(tree: Tree, node: Node, grown: set[int]) -> None:
    match node:
        case ModelNode() | ExportNode():
            for base in node.bases if isinstance(node, ModelNode) else ():
                tree.add(_plain(f"began as {base}, from outside"))
            for parent in node.parents:
                _branch(tree, parent, grown)
        case DatasetNode():
            for teacher in node.teachers:
                branch = tree.add(_teacher(teacher, node))
                if teacher.student is not None:
                    _branch(branch, teacher.student, grown)
            found = node.manifest.found
            for made in found.made_by:
                told = f"made by {made.name} {made.version} ({made.kind})"
                tree.add(_plain(f"{told}: {_count(made.rows, 'row')}"))
            for written in found.written_by:
                told = f"written by people, says {written.by} ({written.source},"
                tree.add(_plain(f"{told} {written.licence}): {_count(written.rows, 'row')}"))
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
                _branch(tree, node.student, grown)
        case DerivationNode():
            for one in node.parents:
                role = tree.add(_plain(f"{one.parent.role}:"))
                _branch(role, one.node, grown)
        case Missing():
            pass


def _branch(tree: Tree, node: Node, grown: set[int]) -> None:
    """Grow *node* below *tree*; what stands in two places is told in the first."""
    if id(node) in grown and not isinstance(node, Missing):
        tree.add(_plain(f"{_name(node)}, as told above"))
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
            details = [f"{row}, declared for {said.declared.use.purpose}"]
            if said.written is not None:
                written = said.written
                details.append(
                    f"people's own words, says {written.by} ({written.source},"
                    f" {written.licence})"
                )
            return _node(
                f"derivation {said.derivation} (leaf {node.index}): {said.transform.kind} by"
                f" {said.transform.name} {said.transform.version}",
                *details,
                withdrawn=node.withdrawn,
            )
        case Missing():
            return Text(_plain(f"? {node.what}").plain, style="bold red")


def _manifest(node: ModelNode | DatasetNode | ExportNode) -> str:
    where = "not in this ledger" if node.index is None else f"leaf {node.index}"
    return f"manifest {node.payload[:16]}… ({where})"


def _teacher(node: TeacherNode, dataset: DatasetNode) -> Text:
    teacher = node.teacher
    share = 100 * teacher.rows / max(1, node.of_rows)
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


def _kind(node: Node) -> str:
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


def _name(node: Node) -> str:
    match node:
        case ModelNode() | DatasetNode() | ExportNode():
            return f"{_kind(node)} {node.name} ({node.payload[:12]}…)"
        case ExchangeNode():
            return f"exchange {node.receipt.exchange}"
        case DerivationNode():
            return f"derivation {node.derivation.derivation}"
        case Missing():
            return node.what


def _gone(node: Node) -> str:
    return "" if isinstance(node, Missing) else node.withdrawn or ""


def _stage(stage: Stage) -> str:
    return f"{stage.manifest} ({stage.kind}, leaf {stage.leaf})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _plain(text: str) -> Text:
    # Names of models and files are words of others: no control may reach the terminal.
    return Text("".join(char if char.isprintable() else "?" for char in text))
