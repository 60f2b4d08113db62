"""`gateway content erase`: destroy texts for good; what proves that there were any stays.

Exit codes: 0 fine; 2 nothing is named, or nothing like it is in the ledger; 3 the operator must
act.
"""

from __future__ import annotations

import argparse
import contextlib

from gateway.app.installation import Installation, open_installation
from gateway.cli.arguments import day
from gateway.cli.bar import progress_bar
from gateway.clock import rfc3339
from gateway.errors import CallerError, NotFoundError
from gateway.ident import ExchangeId
from gateway.ledger.custody.erasure import apply_erasures, count_covered, count_made_of
from gateway.receipt.model import Erasure
from gateway.receipt.statement import write_statement


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `content` and its commands to the gateway's own."""
    content = commands.add_parser("content", help="destroy texts that were kept")
    actions = content.add_subparsers(dest="action", required=True, metavar="ACTION")
    erase = actions.add_parser(
        "erase",
        help="destroy the texts of a principal, a project, an exchange, or of before a day",
        description="Destroy keys and bodies of the texts that are kept of what is named, "
        "up to now, and of the rows that pipelines made of them; their receipts stay and still "
        "verify. It can't be undone. Copies of the "
        "data folder made before still hold the texts: `gateway restore` erases them again, "
        "but whoever has such a copy and keys/content.key can read them. Nor does it reach "
        "datasets that were built: docs/guides/erasing.md.",
    )
    named = erase.add_mutually_exclusive_group()
    named.add_argument("--principal", metavar="NAME", help="of this principal")
    named.add_argument("--project", metavar="NAME", help="of this project")
    named.add_argument(
        "--exchange", metavar="ID", help="of this exchange, x-…; or of a pipeline's rows, d-…"
    )
    erase.add_argument(
        "--before", metavar="DAY", type=day, help="only of exchanges before this day"
    )
    erase.add_argument("--by", metavar="NAME", help="who says so")
    erase.add_argument("--reason", metavar="TEXT", help="why")
    erase.add_argument("--dry-run", action="store_true", help="only tell what would go")
    erase.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    named = (args.principal, args.project, args.exchange)
    if not any(named) and args.before is None:
        raise CallerError(
            "nothing is named",
            hint="say whose texts: --principal, --project, --exchange, or --before DAY",
        )
    if args.exchange and args.before is not None:
        raise CallerError(
            "an exchange is one; `--before` says nothing more", hint="leave one of the two out"
        )
    if not args.dry_run and not ((args.by or "").strip() and (args.reason or "").strip()):
        raise CallerError("an erasure is somebody's word", hint="add --by NAME --reason TEXT")
    with contextlib.closing(open_installation(args)) as house:
        erasure = Erasure(
            principal=args.principal or None,
            project=args.project or None,
            exchange=ExchangeId(args.exchange) if args.exchange else None,
            before=args.before and args.before.isoformat(),
            reason=(args.reason or "").strip(),
            by=(args.by or "").strip(),
            at=rfc3339(house.clock.now_ms()),
            writer=house.writer,
        )
        return _erase(house, erasure, dry_run=args.dry_run)


def _erase(house: Installation, erasure: Erasure, *, dry_run: bool) -> int:
    exchanges, texts = count_covered(house.reader, house.content, erasure)
    if exchanges == 0:
        raise NotFoundError(
            "the ledger has no such exchange",
            hint="names are written as `gateway receipt list` finds them",
        )
    if dry_run:
        rows = count_made_of(house.reader, house.content, erasure)
        made = f", and {rows} rows that pipelines made of them" if rows else ""
        print(f"{exchanges} exchanges, {texts} of them with a text{made}; nothing was erased")
        return 0
    # The leaf first: what a crash leaves undone after it, the next command does.
    leaf = write_statement(erasure, (), house.keyring.receipt)
    index = house.sequencer.append_and_wait(leaf).index
    with progress_bar("erasing") as progress:
        erased = apply_erasures(house.reader, house.content, progress)
    print(f"erased {erased} texts of {exchanges} exchanges (leaf {index})")
    return 0
