"""`gateway backup DIR`, `gateway restore DIR`: a copy of everything, and putting it back.

Exit codes: 0 fine; 1 the backup's ledger is not clean; 3 the operator must act.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from gateway import settings as settings_module
from gateway.app.installation import our_version
from gateway.app.stores import needs_file, no_ledger
from gateway.cli.ledger import lines_of
from gateway.clock import SystemClock, rfc3339
from gateway.errors import SettingError, UncleanBackupError
from gateway.ledger.custody.backup import COPIES, Doing, backup, restore
from gateway.ledger.publishing.copies import Copies, Copy
from gateway.settings import Sourced


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `backup` and `restore` to the gateway's commands."""
    out = commands.add_parser(
        "backup",
        help="copy the data folder while the gateway serves",
        description="Copy ledger, texts, gateway keys and public keys into a folder, as they "
        "are at one moment. The index is not copied; it is made again.",
    )
    out.add_argument("dir", metavar="DIR", type=Path, help="empty, or not there")
    out.add_argument(
        "--with-keys",
        action="store_true",
        help="copy the private keys too: whoever has the backup can sign as the gateway",
    )
    out.set_defaults(run=_backup)

    back = commands.add_parser(
        "restore",
        help="put a backup back, once all of it is checked",
        description="Check a backup (digests, the whole ledger, known checkpoints and those "
        "in `checkpoint.copies`), erase again what was erased, and put it into the data folder "
        "of the settings, which must be empty.",
    )
    back.add_argument("dir", metavar="DIR", type=Path, help="a backup")
    back.add_argument(
        "--known-checkpoint",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="a checkpoint kept elsewhere; an older backup is refused (repeatable)",
    )
    back.add_argument(
        "--leaves-from",
        metavar="FILE",
        type=Path,
        help="a damaged ledger.db: take from it what came after the backup, if it checks",
    )
    back.set_defaults(run=_restore)


def _backup(args: argparse.Namespace) -> int:
    sourced, data = _sourced(args)
    needs_file(sourced, "a backup")
    if not (data / "ledger.db").is_file():
        raise no_ledger(data)
    now = rfc3339(SystemClock().now_ms())
    with _shown() as doing:
        made = backup(
            data, args.dir, made=now, version=our_version(), keys=args.with_keys, doing=doing
        )
    count = sum(one.bytes for one in made.files)
    print(f"{args.dir}: {made.size} leaves, {len(made.files)} files, {count} bytes")
    print(f"root {made.root}")
    if made.keys:
        print("it holds the private keys: keep it as you keep them")
    else:
        print("it holds no private keys: keep a copy of `keys/` in another place")
    return 0


def _restore(args: argparse.Namespace) -> int:
    sourced, data = _sourced(args)
    needs_file(sourced, "a backup")
    known = [(str(path), _read(path)) for path in args.known_checkpoint]
    listed = sourced.settings.checkpoint.copies
    copies = [Copy(sourced.path(copy).absolute()) for copy in listed]
    known += Copies(copies, memory=args.dir / COPIES).read(published=True)
    try:
        with _shown() as doing:
            done = restore(
                args.dir, data, known=known, leaves_from=args.leaves_from, doing=doing
            )
    except UncleanBackupError as unclean:
        for finding in unclean.findings:
            print(f"found: {finding}")
        print(f"gateway: {unclean}", file=sys.stderr)
        return 1
    for line in lines_of(done.report):
        print(line)
    if done.erased:
        print(f"erased {done.erased} texts again, as the ledger says")
    print(f"{data}: restored from {args.dir}, made {done.backup.made}")
    if not known:
        print("no checkpoint from elsewhere was compared: this may be an older copy")
    if not done.backup.keys:
        print(f"it held no private keys: put them into {data / 'keys'} before you serve")
    return 0


def _sourced(args: argparse.Namespace) -> tuple[Sourced, Path]:
    sourced = settings_module.load(Path(args.config) if args.config else None)
    return sourced, sourced.path(sourced.settings.data)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as wrong:
        raise SettingError(
            f"`{path}` can't be read: {wrong}", hint="name a checkpoint, a signed note"
        ) from wrong


@contextlib.contextmanager
def _shown() -> Iterator[Doing]:
    """Show one bar for each thing that is done, where a person watches."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def doing(what: str, done: int, whole: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=whole)

        yield doing
