"""`gateway operations`: what is known of every operation of every dialect, as a table."""

from __future__ import annotations

import argparse
from pathlib import Path

from gateway.errors import SettingError
from gateway.provider.catalogue import DIALECTS
from gateway.provider.table import BEGIN, operations_table, page_with


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `operations` to the gateway's own commands."""
    parser = commands.add_parser(
        "operations", help="print which requests are known, and what is read and receipted"
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="put the table between the marks of FILE"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table, or write it into a page; return the exit code.

    Raises:
        SettingError: the page can't be read or written, or has no marks.
    """
    table = operations_table(DIALECTS)
    if args.page is None:
        print(table)
        return 0
    try:
        page = args.page.read_text(encoding="utf-8")
        args.page.write_text(page_with(page, table), encoding="utf-8")
    except OSError as exc:
        raise SettingError(f"the page {args.page} can't be written: {exc.strerror}") from exc
    except ValueError as exc:
        raise SettingError(
            f"the page {args.page} has no place for the table", hint=f"begin it with `{BEGIN}`"
        ) from exc
    return 0
