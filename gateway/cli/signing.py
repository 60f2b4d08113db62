"""`gateway key show | rotate | revoke | trust`: the keys that evidence is signed with.

Exit codes: 0 fine; 2 no such key; 3 a gateway runs, a key or the root is missing, or the same
command must be run again.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from gateway import settings as settings_module
from gateway.app import rotation
from gateway.app.installation import Installation, open_installation
from gateway.errors import OperatorError, SettingError
from gateway.receipt.keys import Trust
from gateway.settings import Sourced
from gateway.store.claims import Holder
from gateway.store.keys import ROOT_KEY, load_root

KEYID: Final = re.compile(r"[0-9a-f]{64}")
"""How the id of a signing key looks; access keys have names."""

ACTIONS: Final = ("show", "rotate", "trust")


def add(actions: Any) -> None:
    """Add the commands about signing keys to those of `gateway key`."""
    actions.add_parser("show", help="list every signing key, and the leaves it may sign")
    rotate = actions.add_parser("rotate", help="take another signing key")
    what = rotate.add_subparsers(dest="what", required=True, metavar="WHAT")
    what.add_parser("receipt", help="have every process that signs take another key")
    manifest = what.add_parser("manifest", help="take another manifest key")
    why = manifest.add_mutually_exclusive_group()
    why.add_argument("--stolen", action="store_true", help="the old one is in wrong hands")
    why.add_argument("--lost", action="store_true", help="the old one can't sign any more")
    manifest.add_argument(
        "--since", type=int, metavar="N", help="the first leaf that it did not sign for you"
    )
    log = what.add_parser("log", help="freeze the log and go on under another name and key")
    log.add_argument("--origin", required=True, help="the successor's name for ever")
    log.add_argument("--stolen", action="store_true", help="the old key is in wrong hands")
    log.add_argument("--reason", default="rotation", help="why, in a few words")
    for one in (manifest, log):
        one.add_argument(
            "--new", metavar="REF", help="a key elsewhere: file:PATH, env:NAME or pkcs11:…"
        )
    trust = actions.add_parser(
        "trust", help="make trust.json anew from the ledger, and sign it"
    )
    for one in (manifest, log, trust):
        add_hand(one)


def add_hand(parser: argparse.ArgumentParser) -> None:
    """Add what names who acts, and with which root key."""
    parser.add_argument(
        "--root", type=Path, metavar="FILE", help="the root key (default: DATA/keys/root.key)"
    )
    parser.add_argument("--by", default="the operator", help="who decides this, for the record")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    match args.action, getattr(args, "what", None):
        case "show", _:
            with contextlib.closing(open_installation(args)) as house:
                _show(house)
        case "trust", _:
            with contextlib.closing(open_installation(args)) as house:
                before = house.keyring.trust
                _tell(before, rotation.renew_trust(house, _hand(args, house.settings)))
        case _, "receipt":
            with contextlib.closing(open_installation(args)) as house:
                renewed, gone = rotation.rotate_receipt_keys(house)
            print(f"{renewed} processes took another key; {gone} keys of ended ones have ended")
        case _, "manifest":
            return _rotate_manifest(args)
        case _:
            sourced = _sourced(args)
            reason = "stolen" if args.stolen else args.reason
            if not args.stolen and reason == "stolen":
                raise SettingError("say it with --stolen")
            origin, size = rotation.rotate_log(
                sourced, _hand(args, sourced), args.origin, reason, args.new
            )
            print(f"`{origin}` is frozen at {size} leaves; `{args.origin}` goes on with them")
            _say_trust(sourced)
    return 0


def revoke(args: argparse.Namespace) -> int:
    """End the signing key that `args.id` names."""
    if args.because is None:
        raise SettingError(
            f"{args.id[:16]}… is a signing key", hint="say --because stolen, or lost"
        )
    with contextlib.closing(open_installation(args)) as house:
        hand = _hand(args, house.settings)
        life = rotation.revoke(house, hand, args.id, args.since, args.because)
        print(f"nothing by {life.role} key {life.keyid[:16]}… counts from leaf {life.until} on")
        _say_trust(house.settings)
    return 0


def _rotate_manifest(args: argparse.Namespace) -> int:
    sourced = _sourced(args)
    hand = _hand(args, sourced)
    if args.stolen or args.lost:
        because = rotation.REASONS["stolen" if args.stolen else "lost"]
        again = rotation.replace_manifest_key(sourced, hand, because, args.since, args.new)
    elif args.since is not None:
        raise SettingError("--since is for a key that is stolen or lost")
    else:
        again = rotation.rotate_manifest_key(sourced, hand, args.new)
    if again is not None:
        print(f"not done yet: {again}", file=sys.stderr)
        return 3
    print("another manifest key signs now; the old one has ended")
    _say_trust(sourced)
    return 0


def _show(house: Installation) -> None:
    trust = house.keyring.trust
    table = Table("role", "key", "from leaf", "to", "why", "held by", box=None, pad_edge=False)
    for frozen in trust.predecessors:
        why = "frozen" if frozen.trusted else "stolen"
        table.add_row("log", frozen.log, "0", str(frozen.size), why, "")
    start = str(trust.predecessors[-1].size) if trust.predecessors else "0"
    table.add_row("log", trust.log, start, "", "", "")
    claims = house.keyring.claims
    for life in house.reader.authority(trust).lives:
        to = "" if life.until is None else str(life.until)
        alive = life.role == "receipt" and claims.holder(life.keyid) is Holder.ALIVE
        holder = (life.writer or "") if alive else ""
        table.add_row(life.role, life.keyid, str(life.since), to, life.reason or "", holder)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _tell(before: Trust, after: Trust) -> None:
    """Say what changed, for whoever signs must know what he signs."""
    names = ("origin", "log", "quorum")
    for name in names:
        if getattr(before, name) != getattr(after, name):
            print(f"{name}: {getattr(before, name)} -> {getattr(after, name)}")
    for name in ("witnesses", "manifest_keys", "revoked", "predecessors"):
        old, new = getattr(before, name), getattr(after, name)
        print(f"{name}: {len([one for one in new if one not in old])} new, {len(new)} in all")
    print("trust.json is written and signed")


def _say_trust(sourced: Sourced) -> None:
    data = sourced.path(sourced.settings.data)
    print(f"give auditors {data / 'trust.json'} and {data / 'trust.sigstore.json'} anew")


def _sourced(args: argparse.Namespace) -> Sourced:
    return settings_module.load(Path(args.config) if args.config else None)


def _hand(args: argparse.Namespace, sourced: Sourced) -> rotation.Hand:
    path: Path = args.root or sourced.path(sourced.settings.data) / "keys" / ROOT_KEY
    if not path.exists():
        raise OperatorError(
            f"the root key is not at `{path}`",
            hint="give --root FILE: bring it from where it is kept, and take it back",
        )
    return rotation.Hand(by=args.by, root=load_root(path))
