"""`gateway …`: finds the command, runs it, and turns what goes wrong into one line and a code.

Exit codes: 0 fine; 1 the thing checked or asked for is not fine; 2 wrong usage; 3 the operator
must act; 143 interrupted, state saved.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from gateway.errors import (
    CallerError,
    EvidenceError,
    GateError,
    GatewayError,
    OperatorError,
    PolicyError,
    ProviderError,
)

FINE: Final = 0
NOT_FINE: Final = 1
WRONG_USAGE: Final = 2
OPERATOR: Final = 3
INTERRUPTED: Final = 143

EXIT_CODES: Final[tuple[tuple[type[GatewayError], int], ...]] = (
    (CallerError, WRONG_USAGE),
    (ProviderError, NOT_FINE),
    (PolicyError, NOT_FINE),
    (GateError, NOT_FINE),
    (EvidenceError, NOT_FINE),
    (OperatorError, OPERATOR),
    (GatewayError, OPERATOR),
)
"""The first class that fits decides; a test walks every error through this table."""

GROUPS: Final[dict[str, str]] = {
    "demo": "gateway.cli.demo",
    "init": "gateway.cli.serve",
    "serve": "gateway.cli.serve",
    "config": "gateway.cli.serve",
    "key": "gateway.cli.key",
    "limit": "gateway.cli.limit",
    "use": "gateway.cli.use",
    "operations": "gateway.cli.operations",
    "policy": "gateway.cli.policy",
    "agreement": "gateway.cli.agreement",
    "organisation": "gateway.cli.agreement",
    "receipt": "gateway.cli.receipt",
    "ledger": "gateway.cli.ledger",
    "content": "gateway.cli.content",
    "backup": "gateway.cli.backup",
    "restore": "gateway.cli.backup",
    "review": "gateway.cli.review",
    "dataset": "gateway.cli.dataset",
    "student": "gateway.cli.student",
    "lineage": "gateway.cli.lineage",
    "verify": "gateway.cli.verify",
}
"""First word of a command and the module that adds it; only what is asked for is loaded."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parser(words).parse_args(words)
    except SystemExit as left:
        return int(left.code or 0)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
    except GatewayError as error:
        # What others named may hold what a terminal obeys, or a line that looks like ours.
        told = "".join(char if char.isprintable() else "?" for char in str(error))
        print(f"gateway: {told}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has had enough (`| head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    return code


def exit_code(error: GatewayError) -> int:
    """Return the exit code for *error*."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway",
        description="A terms-of-service compliance gateway for closed model APIs.",
        epilog="Start with `gateway demo`. Every command has --help.",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="settings file (default: ./gateway.yaml if there)"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    asked = _first_word(words)
    wanted = [GROUPS[asked]] if asked in GROUPS else list(dict.fromkeys(GROUPS.values()))
    for module in wanted:
        importlib.import_module(module).add(commands)
    return parser


def _first_word(words: Sequence[str]) -> str | None:
    """Return the first word that is neither an option nor the value of `--config`."""
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == "--config":
            skip = True
        elif not word.startswith("-"):
            return word
    return None
