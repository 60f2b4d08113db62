"""`gateway policy table | diff | schema`: the library at a glance, and what an edit changes.

Exit codes: 0 fine; 1 `diff` found that rulings change; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from gateway.cli.arguments import day
from gateway.clock import SystemClock, day_of
from gateway.errors import SettingError
from gateway.policy.cases import load_cases
from gateway.policy.diff import diff, diff_json, diff_lines
from gateway.policy.library import Library
from gateway.policy.model import Effect
from gateway.policy.page import table_html
from gateway.policy.schema import schema_json
from gateway.policy.standard import STANDARD_USES_FILE, StandardUses, load_standard_uses
from gateway.policy.table import Table, table_csv, table_json, table_of
from gateway.store.policies import builtin_policies, read_policy_files

_STYLES: Final = {Effect.PERMIT: "green", Effect.HOLD: "yellow", Effect.FORBID: "red"}


def add(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `table`, `diff` and `schema` to the actions of `gateway policy`."""
    table = actions.add_parser(
        "table", help="rule on every standard use under every policy, as a table"
    )
    table.add_argument("folder", nargs="?", type=Path, help="a folder of policies")
    table.add_argument("--on", type=day, help="the day to rule for (today)")
    table.add_argument(
        "--format",
        choices=("text", "csv", "html", "json"),
        default="text",
        help="for a terminal, a spreadsheet, a browser or a program (text)",
    )
    table.add_argument("--out", metavar="FILE", type=Path, help="write it there")
    table.set_defaults(run=_table)
    compare = actions.add_parser(
        "diff", help="compare two folders of policies in rulings, and name the causing clauses"
    )
    compare.add_argument("old", metavar="OLD", type=Path, help="the folder as it was")
    compare.add_argument("new", metavar="NEW", type=Path, help="the folder as it is to be")
    compare.add_argument("--on", type=day, help="the day to begin with (today)")
    compare.add_argument("--json", action="store_true", help="print JSON")
    compare.set_defaults(run=_diff)
    schema = actions.add_parser("schema", help="print the JSON Schema that editors check with")
    schema.set_defaults(run=_schema)


def standard_uses(files: dict[str, str], policies: list[str]) -> StandardUses:
    """Return the standard uses among *files*, or those that ship if there are none.

    Raises:
        MalformedPolicyError: they can't be read, or a row names none of *policies*.
    """
    if STANDARD_USES_FILE in files:
        return load_standard_uses(files[STANDARD_USES_FILE], STANDARD_USES_FILE, policies)
    builtin = read_policy_files(builtin_policies())
    # Rows for policies that this library does not have come to nothing.
    return load_standard_uses(builtin[STANDARD_USES_FILE], STANDARD_USES_FILE)


def _table(args: argparse.Namespace) -> int:
    files = read_policy_files(args.folder or builtin_policies())
    library = Library.load(files)
    standard = standard_uses(files, list(library.policies))
    table = table_of(library, standard, args.on or _today())
    match args.format:
        case "csv":
            text = table_csv(table)
        case "html":
            text = table_html(table)
        case "json":
            text = json.dumps(table_json(table), indent=2, ensure_ascii=False) + "\n"
        case _:
            text = _drawn(table, coloured=args.out is None and sys.stdout.isatty())
    if args.out is None:
        sys.stdout.write(text)
        return 0
    try:
        # newline: a spreadsheet's line ends stay as they are.
        args.out.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise SettingError(f"`{args.out}` can't be written: {error.strerror}") from error
    return 0


def _diff(args: argparse.Namespace) -> int:
    before, after = read_policy_files(args.old), read_policy_files(args.new)
    old, new = Library.load(before), Library.load(after)
    asked = after if STANDARD_USES_FILE in after else before
    standard = standard_uses(asked, [*old.policies, *new.policies])
    cases = [*load_cases(before), *load_cases(after)]
    found = diff(old, new, standard, cases, args.on or _today())
    if args.json:
        print(json.dumps(diff_json(found), indent=2, ensure_ascii=False))
    else:
        print("\n".join(diff_lines(found)))
    return 1 if found.changes_rulings else 0


def _schema(args: argparse.Namespace) -> int:
    sys.stdout.write(schema_json())
    return 0


def _drawn(table: Table, *, coloured: bool) -> str:
    """Return the table drawn for a terminal: words first, colour only beside them."""
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    grid.add_column("policy", no_wrap=True)
    for column in table.columns:
        grid.add_column(Text(column.name.replace("-", " ")), width=10)
    for heading, rows in table.groups():
        grid.add_section()
        grid.add_row(Text(heading, style="bold"))
        for row in rows:
            words = [Text(one.effect.word, style=_STYLES[one.effect]) for one in row.cells]
            grid.add_row(Text(row.row.id), *words)
    counts = ", ".join(f"{count} {effect.word}" for effect, count in table.counts().items())
    console = Console(
        width=24 + 12 * (len(table.columns) + 1), force_terminal=coloured, highlight=False
    )
    with console.capture() as drawn:
        console.print(grid)
        console.print(Text(f"{table.day}: {counts}"))
    lines = drawn.get().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _today() -> dt.date:
    return day_of(SystemClock().now_ms())
