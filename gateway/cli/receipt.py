"""`gateway receipt list | show | export | verify`: the evidence of single exchanges."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import msgspec
from rich.table import Table

from gateway.app.installation import Installation, open_installation
from gateway.cli import verify
from gateway.cli.ledger import named, write_out
from gateway.cli.use import screen
from gateway.errors import NotFoundError
from gateway.ident import ExchangeId
from gateway.receipt.cose import write_cose
from gateway.receipt.envelope import open_envelope
from gateway.receipt.model import Derivation, Receipt, Refusal, StopName
from gateway.receipt.statement import read_leaf
from gateway.store.index.rows import CLOSING, Row

_SHOWN = 50
_WHOLE = frozenset({"exchange", "leaf", "when"})
"""Columns that are copied by hand, and so never broken."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `receipt` among *commands*."""
    verbs = commands.add_parser(
        "receipt",
        help="search, read and export what was sealed",
        description="Search, read and export the signed statements about exchanges.",
    ).add_subparsers(metavar="VERB", required=True)

    listing = verbs.add_parser(
        "list", help="list exchanges, the newest last", description="List sealed exchanges."
    )
    listing.add_argument(
        "--kind",
        choices=(*CLOSING, "derivation"),
        help="only such statements; `derivation`: rows that pipelines made",
    )
    for name, meaning in (
        ("project", "only this project's"),
        ("principal", "only by this principal"),
        ("purpose", "only for this purpose and those below it"),
        ("provider", "only with this provider"),
        ("model", "only with this model, as asked for or as reported"),
        ("declaration", "only under this declaration"),
        ("tag", "only with this tag"),
        ("since", "from this day or instant on"),
        ("until", "up to this day or instant"),
    ):
        listing.add_argument(f"--{name}", metavar="WORD", help=meaning)
    listing.add_argument("--effect", choices=("permit", "hold", "forbid"), help="so ruled")
    listing.add_argument(
        "--stop", choices=get_args(StopName), help="only where the provider said no like this"
    )
    listing.add_argument(
        "--limit", type=positive, default=_SHOWN, help=f"at most so many (default {_SHOWN})"
    )
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(run=_list)

    show = verbs.add_parser("show", help="show the statement that closed an exchange")
    show.add_argument(
        "id",
        metavar="ID",
        help="x-…, as in the header x-gateway-exchange, or d-…, rows that a pipeline made",
    )
    show.set_defaults(run=_show)

    export = verbs.add_parser("export", help="write a bundle that anybody can verify offline")
    export.add_argument("id", metavar="EXCHANGE", help="x-…, or the index of a leaf")
    export.add_argument("--out", metavar="FILE", type=Path, required=True, help="where to")
    export.add_argument(
        "--cose",
        action="store_true",
        help="a COSE receipt (RFC 9942) instead; the leaf that it is for goes to FILE.leaf",
    )
    export.set_defaults(run=_export)

    check = verbs.add_parser("verify", help="verify a bundle offline; like `gateway verify`")
    check.add_argument("path", metavar="FILE", type=Path, help="a bundle")
    check.add_argument("--trust", metavar="FILE", type=Path, help="the public keys to trust")
    check.set_defaults(run=verify.run)


def _list(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        found = _select(house, args)
        shown = list(islice(found, args.limit))
        more = next(found, None) is not None
    if args.json:
        for row in shown:
            print(json.dumps(_as_json(row)))
        return 0
    if not shown:
        print("nothing fits")
        return 0
    table = Table(box=None, pad_edge=False)
    for heading in ("exchange", "leaf", "what", "when"):
        table.add_column(heading, overflow="fold", no_wrap=heading in _WHOLE)
    for row in shown:
        table.add_row(row.exchange or "", str(row.index), _what(row), (row.at or "")[:19])
    screen().print(table)
    if more:
        print(f"there are more than {args.limit}; narrow the search or raise --limit")
    return 0


def _select(house: Installation, args: argparse.Namespace) -> Iterator[Row]:
    rows = house.index.select(
        kind=args.kind,
        project=args.project,
        principal=args.principal,
        purpose=args.purpose,
        provider=args.provider,
        model=args.model,
        declaration=args.declaration,
        effect=args.effect,
        stop=args.stop,
        tag=args.tag,
        since=args.since,
        until=args.until,
    )
    kinds = CLOSING if args.kind is None else (args.kind,)
    return (row for row in rows if row.kind in kinds)


def _what(row: Row) -> str:
    """Say in a few words what an exchange was and how it ended."""
    if row.kind == "derivation":
        return f"rows by `{row.transform}` for {row.purpose}"
    asked = " ".join(filter(None, (row.provider, row.model_reported or row.model)))
    ruled = f"{row.effect} for {row.purpose}" if row.effect else ""
    ended = row.ended if row.kind == "receipt" else row.kind
    stopped = f"stopped by {row.stop}" if row.stop else ""
    return ", ".join(filter(None, (asked, ruled, ended, stopped)))


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "exchange": row.exchange,
        "index": row.index,
        "kind": row.kind,
        "at": row.at,
        "project": row.project,
        "principal": row.principal,
        "provider": row.provider,
        "model": row.model_reported or row.model,
        "purpose": row.purpose,
        "declaration": row.declaration,
        "effect": row.effect,
        "ended": row.ended,
        "stop": row.stop,
        "tags": list(row.tags),
        "transform": row.transform,
    }


def _show(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        index, leaf = _found(house, args.id.partition("/")[0])
        statement = read_leaf(leaf)
    payload = msgspec.json.decode(open_envelope(leaf).payload)
    print(f"leaf {index} of the ledger, {payload['predicateType']}")
    if isinstance(statement, Receipt | Refusal):
        print(_sentence(statement))
    if isinstance(statement, Derivation):
        print(_derived(statement))
    print(json.dumps(payload["predicate"], indent=2, ensure_ascii=False, sort_keys=True))
    return 0


def _sentence(statement: Receipt | Refusal) -> str:
    ruling, use = statement.ruling, statement.declared.use
    clauses = ", ".join(f"{r.policy}:{r.clause}" for r in ruling.reasons) or "no clause"
    ended = "; nothing was asked"
    if isinstance(statement, Receipt):
        stop = f", stopped by {statement.stop}" if statement.stop else ""
        ended = f"; {statement.ended}{stop}{_attempt(statement)}"
    return (
        f"{statement.caller.principal} of {statement.caller.project} asked "
        f"{statement.provider.name} for `{use.purpose}`: {ruling.effect} by {clauses}{ended}"
    )


def _derived(statement: Derivation) -> str:
    """Say in a sentence what was made, by whom, and of what."""
    made, rows = statement.transform, len(statement.rows)
    who = f"{statement.caller.principal} of {statement.caller.project}"
    many = f"{rows} row{'' if rows == 1 else 's'} for `{statement.declared.use.purpose}`"
    if statement.written is not None:
        by = statement.written
        return f"{who} recorded that {by.by} wrote {many}: {by.licence}, {by.source}"
    of: Counter[str] = Counter()
    for parent in statement.parents:
        kind = "answers" if parent.exchange else "rows" if parent.derivation else "students"
        of[f"{kind} as {parent.role}"] += 1
    told = ", ".join(f"{count} {what}" for what, count in sorted(of.items()))
    return f"{who} made {many} by {made.kind} `{made.name}` {made.version}, of {told}"


def _attempt(receipt: Receipt) -> str:
    """Say which attempt it was, and by what the others can be told."""
    attempt = receipt.attempt
    if attempt is None:
        return ""
    tied = f", as all with `attempt.of` {attempt.of.value[:12]}…" if attempt.of else ""
    return f"; attempt {attempt.number + 1} as the caller's SDK says{tied}"


def _export(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        index, leaf = house.reader.named(named(args.id))
        note = house.sequencer.checkpoint_now()
        if args.cose:
            beside = args.out.with_name(f"{args.out.name}.leaf")
            receipt = write_cose(leaf, house.reader.prove(index, note), house.keyring.log)
            write_out(beside, leaf)
            write_out(args.out, receipt)
            print(f"wrote {args.out} ({len(receipt)} bytes): a COSE receipt for leaf {index},")
            print(f"which is {beside}; the log's key in trust.json verifies it")
            return 0
        bundle = house.reader.bundle(index, note)
    write_out(args.out, bundle)
    print(f"wrote {args.out} ({len(bundle)} bytes): leaf {index} and what proves it")
    print(f"check it: gateway verify {args.out}")
    return 0


def _found(house: Installation, text: str) -> tuple[int, bytes]:
    named = ExchangeId(text)
    found = house.reader.derivation(named) if text[:2] == "d-" else house.reader.find(named)
    if found is None:
        raise NotFoundError(
            f"no statement closes `{text[:40]}`",
            hint="ids come in the header x-gateway-exchange; `gateway receipt list` shows them",
        )
    return found


def positive(text: str) -> int:
    """Return the number that *text*, an argument, spells."""
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"`{text}` is not a number from 1 to 1000000")
    return int(text)
