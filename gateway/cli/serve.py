"""`gateway init`, `gateway serve`, `gateway config show`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from gateway import settings as settings_module
from gateway.app.installation import init
from gateway.app.orders import Part


def add(commands: Any) -> None:
    """Add the commands to the parser's *commands*."""
    starting = commands.add_parser(
        "init",
        help="make the data folder: ledger, keys, trust file",
        description="Make the data folder once: a ledger with its name, keys, a trust file.",
    )
    starting.add_argument(
        "--origin",
        help="the ledger's name for ever, like `receipts.example.com/acme/2026`",
    )
    starting.set_defaults(run=_init)

    serving = commands.add_parser(
        "serve", help="open the door", description="Serve until told to stop (SIGTERM)."
    )
    serving.add_argument("--listen", metavar="HOST:PORT", help="overrides the setting")
    serving.add_argument("--workers", metavar="N", help="overrides the setting: door processes")
    serving.add_argument("--part", choices=get_args(Part), help=argparse.SUPPRESS)
    serving.set_defaults(run=_serve)

    config = commands.add_parser("config", help="what the settings are")
    verbs = config.add_subparsers(metavar="VERB", required=True)
    show = verbs.add_parser("show", help="print each value and where it came from")
    show.set_defaults(run=_show)


def _settings(args: argparse.Namespace) -> settings_module.Sourced:
    named = {name: getattr(args, name, None) for name in ("listen", "workers")}
    flags = {name: value for name, value in named.items() if value is not None}
    return settings_module.load(Path(args.config) if args.config else None, flags=flags)


def _init(args: argparse.Namespace) -> int:
    sourced = _settings(args)
    data, origin = init(sourced, args.origin)
    print(f"made {data} for the ledger `{origin}`")
    print(f"give auditors {data / 'trust.json'} and {data / 'trust.sigstore.json'}")
    print(f"give them {data / 'root.pub'} by another way: it vouches for both")
    print(f"move {data / 'keys' / 'root.key'} to where no network reaches: it signs trust only")
    print(f"keep {data / 'keys'} to yourself")
    print("next: gateway serve")
    return 0


def _serve(args: argparse.Namespace) -> int:
    # A supervisor needs nothing of a door, and neither does the sequencer's process.
    from gateway.app.supervisor import run_part, supervise  # noqa: PLC0415

    if args.part is not None:
        return run_part(args.part)
    sourced = _settings(args)
    if sourced.settings.workers > 1:
        return supervise(sourced)
    from gateway.app.serve import serve  # noqa: PLC0415

    return serve(sourced)


def _show(args: argparse.Namespace) -> int:
    sourced = _settings(args)
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for name, value, source in settings_module.shown(sourced):
        table.add_row(name, value, source)
    Console(soft_wrap=True).print(table)
    return 0
