"""`gateway ledger migrate --to postgres://…`: go on in PostgreSQL, with every index and root.

Exit codes: 0 moved; 3 the operator must act; nothing here has changed then, and the command
goes on where it was when it is run again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from gateway import settings as settings_module
from gateway.app.installation import Installation, open_sourced
from gateway.app.stores import LEDGER_FILE, make_ledger, open_ledger
from gateway.app.upkeep import claim
from gateway.cli.bar import progress_bar
from gateway.clock import rfc3339
from gateway.errors import LedgerMissingError, SettingError
from gateway.ledger.custody.migrate import Copied, copy_leaves
from gateway.receipt.keys import Trust
from gateway.receipt.verify import verify_checkpoint
from gateway.settings import Sourced
from gateway.store.lines import FileLines
from gateway.store.sqlite import SqliteLedger

if TYPE_CHECKING:
    from gateway.store.postgres.ledger import PostgresLedger

_CONTENTS_AT_ONCE: Final = 64


def add(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action to those of `gateway ledger`."""
    migrate = actions.add_parser(
        "migrate", help="copy the ledger, contents and gateway keys to PostgreSQL"
    )
    migrate.add_argument(
        "--to",
        required=True,
        metavar="DATABASE",
        help="postgres://account@host/database, or env:NAME or file:PATH that holds it",
    )


def migrate(args: argparse.Namespace) -> int:
    """Copy what is in files to the database, leave the files, and return the exit code."""
    sourced = settings_module.load(Path(args.config) if args.config else None)
    if sourced.database() is not None:
        raise SettingError(
            "the ledger is in PostgreSQL already", hint="`ledger` in gateway.yaml says so"
        )
    there = settings_module.with_ledger(sourced, args.to)
    with contextlib.ExitStack() as held:
        # Who serves would go on appending here.
        served = claim(sourced)
        held.callback(os.close, served)
        house = held.enter_context(contextlib.closing(open_sourced(sourced)))
        target = held.enter_context(contextlib.closing(_target(there, house.keyring.trust)))
        copied, texts, keys = _copy(house, target)
    if copied.found:
        print(f"{copied.found} leaves were there already")
    print(f"{copied.size} leaves, {texts} contents and {keys} gateway keys are in the database")
    print(f"root {copied.root.hex()}, there as here")
    print(f"next: set `ledger: {args.to}` in gateway.yaml, then `gateway serve`")
    print(f"{house.data / LEDGER_FILE} is a copy from now on, and opened no more")
    return 0


def _target(there: Sourced, trust: Trust) -> PostgresLedger:
    """Open the ledger in the database; make it where there is none."""
    try:
        found = open_ledger(there, trust.origin)
    except LedgerMissingError:
        make_ledger(there, trust.origin)
        found = open_ledger(there, trust.origin)
    return cast("PostgresLedger", found)


def _copy(house: Installation, target: PostgresLedger) -> tuple[Copied, int, int]:
    """Copy everything, and then leave the ledger here; return how many of what."""
    source, trust = house.store, house.keyring.trust
    newest, beside = house.publisher.checkpoint_now(), house.data / "checkpoint"
    published = tuple(
        (name, verify_checkpoint(note, trust))
        for name, note in (
            ("the checkpoint in the ledger", newest),
            (f"the checkpoint `{beside}`", beside.read_text("utf-8")),
        )
    )
    with progress_bar("copying") as progress:
        copied = copy_leaves(source, target, published, progress)
    target.publish(copied.size, newest)
    texts = _copy_contents(house, target)
    keys = _copy_keys(house, target)
    assert isinstance(source, SqliteLedger)  # noqa: S101  the settings say so
    # Only now: until here nothing has changed, and whoever comes again goes on.
    source.leave(rfc3339(house.clock.now_ms()))
    return copied, texts, keys


def _copy_contents(house: Installation, target: PostgresLedger) -> int:
    from gateway.store.postgres.content import PostgresContents  # noqa: PLC0415  an extra
    from gateway.store.postgres.lines import PostgresLines  # noqa: PLC0415  an extra

    count, after = 0, ""
    with contextlib.closing(PostgresContents(target, house.keyring.content)) as contents:
        while sealed := house.content.sealed(after, _CONTENTS_AT_ONCE):
            contents.take(sealed)
            count, after = count + len(sealed), sealed[-1][0]
        if isinstance(house.lines, FileLines):
            lines = PostgresLines(contents)
            for table, rows in house.lines.rows():
                lines.take(table, rows)
        applied = house.content.applied()
        if applied is not None:
            contents.note_applied(*applied)
    return count


def _copy_keys(house: Installation, target: PostgresLedger) -> int:
    from gateway.store.postgres.access import PostgresAccessKeys  # noqa: PLC0415  an extra

    rows = house.access.rows()
    with contextlib.closing(PostgresAccessKeys(target, house.clock)) as access:
        access.take(rows)
    return len(rows)
