"""`gateway key new | list | revoke`: who may come in, for which project.

The same word is for signing keys, whose ids are 64 hex digits (`signing.py`).

Exit codes: 0 fine; 2 no such key; 3 a name, role or day that can't be.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

from rich.console import Console
from rich.table import Table

from gateway.app.installation import open_installation
from gateway.cli import signing
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
                return _new(access, args)
            case "list":
                return _list(access)
            case _:
                access.revoke(args.id)
                print(f"{args.id} is revoked")
                return 0


def _new(access: AccessKeys, args: argparse.Namespace) -> int:
    secret = access.new(
        args.principal, args.project, args.role or ("caller",), args.expires, args.declaration
    )
    # The secret alone goes to stdout, so that a script can keep it without reading it.
    print("This secret is shown once and kept nowhere:", file=sys.stderr)
    print(secret)
    return 0


def _list(access: AccessKeys) -> int:
    table = Table("id", "principal", "project", "roles", "expires", "revoked", box=None)
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
        key.expires or "",
        key.revoked or "",
    )
