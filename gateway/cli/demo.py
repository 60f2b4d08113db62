"""`gateway demo`: the main job end to end, offline, in about a minute."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console

from gateway.cli import main as commands_module


def add(commands: Any) -> None:
    """Add the command to the parser's *commands*."""
    parser = commands.add_parser(
        "demo",
        help="the main job end to end, offline, in about a minute",
        description="Run the main job in ./gateway-demo/, which is made anew: calls, a ruling,"
        " a verdict, a dataset, two students, lineage, tampering. Nothing leaves this machine.",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from gateway.demo.story import Demo  # noqa: PLC0415  no other command needs it

    return Demo(commands_module.main, Console()).tell()
