"""`gateway key new | list | revoke`: who may come in, for which project.

The same word is for signing keys, whose ids are 64 hex digits (`signing.py`).

Exit codes: 0 fine; 2 no such key; 3 a name, role or day that can't be.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from gateway.app.installation import Installation, open_installation
from gateway.budget.model import Limit, parse_limit
from gateway.cli import signing
from gateway.errors import SettingError
from gateway.store.access import ROLES, AccessKey, AccessKeys


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `key` and its commands to the gateway's own."""
    key = commands.add_parser("key", help="make, list and revoke gateway keys")
    key.set_defaults(run=run)
    actions = key.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make a key; its secret is shown once")
    new.add_argument("--principal", required=True, help="who asks: a team, service or person")
    new.add_argument("--project", required=True, help="the project its requests belong to")
    new.add_argument(
        "--role",
        action="append",
        choices=sorted(ROLES),
        help="what the holder may do (may be repeated; caller if absent)",
    )
    new.add_argument("--expires", metavar="DAY", help="the last day it is good, 2027-01-31")
    new.add_argument("--declaration", metavar="ID", help="the declaration it cites by default")
    new.add_argument(
        "--provider",
        action="append",
        metavar="GLOB",
        help="a provider that it may ask (may be repeated; all if absent)",
    )
    new.add_argument(
        "--model",
        action="append",
        metavar="GLOB",
        help="a model that it may ask for, like 'gpt-4*' (may be repeated; all if absent)",
    )
    new.add_argument(
        "--limit",
        action="append",
        type=limit,
        metavar="LIMIT",
        help="what it may use, like requests/minute=60, tokens/day=2000000 or money/month=50",
    )
    actions.add_parser("list", help="list every key, without its secret")
    revoke = actions.add_parser("revoke", help="end a key at once")
    revoke.add_argument("id", help="as `gateway key list` or `gateway key show` has it")
    wrong_hands = revoke.add_argument_group("of a signing key")
    wrong_hands.add_argument("--because", choices=("stolen", "lost"), help="why it ends")
    wrong_hands.add_argument(
        "--since", type=int, metavar="N", help="the first leaf that it did not sign for you"
    )
    signing.add_hand(revoke)
    signing.add(actions)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if args.action in signing.ACTIONS:
        return signing.run(args)
    if args.action == "revoke" and signing.KEYID.fullmatch(args.id):
        return signing.revoke(args)
    with contextlib.closing(open_installation(args)) as installation:
        access = installation.access
        match args.action:
            case "new":
                _check_money(installation, args.limit or ())
                return _new(access, args)
            case "list":
                return _list(access)
            case _:
                access.revoke(args.id)
                print(f"{args.id} is revoked")
                return 0


def _new(access: AccessKeys, args: argparse.Namespace) -> int:
    secret = access.new(
        args.principal,
        args.project,
        args.role or ("caller",),
        args.expires,
        args.declaration,
        providers=args.provider or (),
        models=args.model or (),
        limits=args.limit or (),
    )
    # The secret alone goes to stdout, so that a script can keep it without reading it.
    print("This secret is shown once and kept nowhere:", file=sys.stderr)
    print(secret)
    return 0


def limit(text: str) -> Limit:
    """Return the limit that *text*, an argument, writes."""
    found = parse_limit(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"`{text}` is no limit; write requests/minute=60, tokens/day=2000000 or"
            " money/month=12.50 (minute, hour, day, month)"
        )
    return found


def _check_money(installation: Installation, limits: Sequence[Limit]) -> None:
    """Refuse a limit in money where nothing says what models cost.

    Raises:
        SettingError: so it is; each request with the key would be refused.
    """
    if any(one.measure == "money" for one in limits) and installation.settings.prices() is None:
        raise SettingError(
            "a limit in money needs prices",
            hint="name a file of them as `prices` in gateway.yaml; docs/guides/limits.md",
        )


def _list(access: AccessKeys) -> int:
    table = Table(
        "id",
        "principal",
        "project",
        "roles",
        "good for",
        "limits",
        "expires",
        "revoked",
        box=None,
    )
    for key in access.list():
        table.add_row(*_cells(key))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0


def _cells(key: AccessKey) -> tuple[str, ...]:
    return (
        key.id,
        key.principal,
        key.project,
        " ".join(sorted(key.roles)),
        " ".join((*key.providers, *key.models)) or "all",
        " ".join(map(str, key.limits)),
        key.expires or "",
        key.revoked or "",
    )
