"""`gateway lineage show`: where something came from, and what it may be used for."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from gateway.app.installation import open_installation
from gateway.cli import lineage_ask, lineage_impact
from gateway.cli.ledger import write_out
from gateway.cli.lineage_ask import as_seen
from gateway.cli.lineage_impact import print_impact
from gateway.cli.lineage_subject import Asked, Looking
from gateway.cli.lineage_tree import plain, tree_of
from gateway.cli.receipt import positive
from gateway.cli.use import screen
from gateway.clock import day_of
from gateway.intent.model import Declaration
from gateway.lineage.answer import Answer, share
from gateway.lineage.ask import covered, distilled_from
from gateway.lineage.document import as_json
from gateway.lineage.impact import as_json as impact_json
from gateway.lineage.nodes import (
    Author,
    DatasetNode,
    DerivationNode,
    sentence_of,
    traces,
    unknowns,
)
from gateway.lineage.page import Authored, Told, away, limit_of, lineage_html, stood, tokens
from gateway.lineage.question import parse_question
from gateway.lineage.uses import (
    Allowed,
    Ancestor,
    allowed_json,
    ancestor_json,
    ancestors_of,
    use_of,
)
from gateway.lineage.ways import authors_of

_SENTENCES_MAX: Final = 12
"""So many teachers have a sentence of their own in the terminal."""

_WIDE: Final = 120
"""In a terminal that is narrower, tables have fewer columns, and more in each."""


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
        "exit code 0: yes or no, 1: can't tell, or nothing is known of that name",
    )
    show.add_argument("--html", metavar="FILE", type=Path, help="write a page with a graph")
    show.add_argument("--json", action="store_true", help="one JSON document")
    show.set_defaults(run=_show)
    lineage_impact.add(verbs)
    lineage_ask.add(verbs)


def _show(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        house.reader.catch_up()
        looked = Looking(house, args.receipts)
        asked = looked.at(args.what)
        answer = None
        if args.teacher is not None:
            covers = covered(house.keyring.trust.origin, house.index.size)
            answer = distilled_from(asked.root, args.teacher, asked.title, covers)
            answer = as_seen(answer, parse_question(answer.question), house)
        ancestors = ancestors_of(asked.root)
        declared = use_of(asked.root)
        allowed = [] if answer is not None else looked.allowed(asked.root, declared)
        as_of = (
            f"As of {day_of(house.clock.now_ms())}, ledger {house.keyring.trust.origin},"
            f" {house.index.size:,} leaves."
        )
    unknown = list(dict.fromkeys([*unknowns(asked.root), *asked.shut]))
    if args.html is not None:
        page = Told(
            title=asked.title,
            root=asked.root,
            ancestors=ancestors,
            authors=authors_of([asked.root]),
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
        screen().print(tree_of(asked.root))
        screen().print()
        for sentence in answer.sentences:
            screen().print(plain(sentence), soft_wrap=True)
    else:
        _print(asked, ancestors, allowed, _declared(declared))
        if args.html is not None:
            print(f"{args.html}: a page with a graph")
    return 0 if answer is None or answer.says in {"yes", "no"} else 1


def _document(asked: Asked, answer: Answer | None, allowed: list[Allowed]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "what": asked.title,
        "held": asked.held or None,
        "by_weights": asked.by_weights or None,
        "lineage": as_json(asked.root),
        "ancestors": [ancestor_json(one) for one in ancestors_of(asked.root)],
        "authors": [
            dataclasses.asdict(author) | {"where": stood(node), "stages": stages}
            for author, node, stages in authors_of([asked.root])
        ],
        "teachers": [sentence_of(trace) for trace in traces(asked.root)],
        "below": impact_json(asked.below),
        "uses": [allowed_json(one) for one in allowed],
        "unknown": list(dict.fromkeys([*unknowns(asked.root), *asked.shut])),
    }
    if answer is not None:
        document["answer"] = {
            "from": answer.question.partition(":")[2],
            "says": answer.says,
            "sentences": list(answer.sentences),
        }
    return document


def _print(
    asked: Asked, ancestors: list[Ancestor], allowed: list[Allowed], declared: str
) -> None:
    console = screen()
    if asked.held:
        console.print(Text(plain(asked.held).plain, style="bold red"), soft_wrap=True)
    if asked.by_weights:
        console.print(plain(f"It takes as given: {asked.by_weights}."), soft_wrap=True)
    console.print(tree_of(asked.root))
    console.print()
    authors = authors_of([asked.root])
    if ancestors or authors:
        console.print(_teachers_table(ancestors, authors, console.width))
    found = list(traces(asked.root))
    for trace in found[:_SENTENCES_MAX]:
        word = "Yes: " if trace.stages or trace.teacher is not None else "This is "
        console.print(plain(word + sentence_of(trace)), soft_wrap=True)
    if len(found) > _SENTENCES_MAX:
        more = len(found) - _SENTENCES_MAX
        console.print(f"And {more:,} more, who stand in the table above.")
    if not found:
        console.print("No teacher was found.")
    console.print()
    console.print(Text("What came of it", style="bold"))
    print_impact(asked.below)
    if allowed:
        console.print()
        console.print(_uses_table(allowed, declared))
    doubts = [*unknowns(asked.root), *asked.below.unknown, *asked.shut]
    for doubt in dict.fromkeys(doubts):
        console.print(plain(f"Mind: {doubt}."), soft_wrap=True)


def _teachers_table(
    ancestors: Sequence[Ancestor], authors: Sequence[Authored], width: int
) -> Table:
    table = _table("Who taught it")
    headings = ["teacher", "where", "rows", "tokens", "terms", "ruling", "declared"]
    told: list[tuple[str, ...]] = [
        *map(_told_of, ancestors),
        *(_told_of_author(*one) for one in authors),
    ]
    if width < _WIDE:
        headings = ["teacher", "rows", "terms and ruling"]
        told = [(_lines(one[:2]), _lines(one[2:4]), _lines(one[4:])) for one in told]
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for first, *others in told:
        # The name stands out, whatever stands below it in the same cell.
        name, *below = first.split("\n")
        who = Text("\n").join([Text(plain(name).plain, style="bold"), *map(plain, below)])
        table.add_row(who, *(Text("\n").join(map(plain, one.split("\n"))) for one in others))
    return table


def _told_of(one: Ancestor) -> tuple[str, ...]:
    approved = "".join(f"; yes by {said.by} in leaf {said.index}" for said in one.approvals)
    return (
        one.name + (" (judged only)" if one.influence == "judge" else ""),
        f"{one.dataset or 'an answer'}, {away(one.stages)}",
        "" if one.rows is None else f"{one.rows:,} ({share(one.rows, one.of_rows or 0)})",
        tokens(one),
        ", ".join(one.pins),
        f"{one.effect}: {', '.join(one.clauses)}{approved}",
        ", ".join(f"{name} by {owner}" for name, owner in one.declarations),
    )


def _told_of_author(
    author: Author, node: DatasetNode | DerivationNode, stages: int
) -> tuple[str, ...]:
    return (
        f"people, says {author.by}",
        f"{stood(node).removeprefix('dataset ')}, {away(stages)}",
        f"{author.rows:,} ({share(author.rows, author.of_rows)})",
        "",
        f"licence {author.licence}",
        "no provider's terms",
        f"from {author.source}",
    )


def _lines(cells: Sequence[str]) -> str:
    return "\n".join(filter(None, cells))


def _uses_table(allowed: Sequence[Allowed], declared: str) -> Table:
    table = _table(f"What it may be used for today, otherwise as declared ({declared})")
    for heading in ("purpose", "ruling", "limited by"):
        table.add_column(heading, overflow="fold")
    styles = {"permit": "green", "hold": "yellow", "forbid": "red"}
    last = ""
    for one in allowed:
        word, limit = Text(one.word, style=styles.get(one.word, "")), limit_of(one)
        again = limit == last and limit
        table.add_row(one.purpose, word, "the same" if again else plain(limit))
        last = limit
    return table


def _table(title: str) -> Table:
    return Table(title=plain(title), title_justify="left", box=None, pad_edge=False)


def _declared(declared: Declaration | None) -> str:
    if declared is None:
        return ""
    use = declared.use
    told = [
        declared.project,
        *(part for part in (use.purpose, use.student, use.audience, use.visibility) if part),
    ]
    return ", ".join(told)
