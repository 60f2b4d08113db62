"""`gateway policy lint | test | vocabulary`, and the actions of its neighbours.

Exit codes: 0 fine, 1 a finding or a failing case; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import sys
from pathlib import Path

from gateway.cli import explain, policy_table, replay, watch
from gateway.cli.arguments import day
from gateway.clock import SystemClock, day_of
from gateway.policy.cases import load_cases
from gateway.policy.library import Library
from gateway.policy.lint import failing_cases, lint
from gateway.policy.vocabulary import vocabulary_yaml
from gateway.store.policies import builtin_policies, read_policy_files


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `policy` and its commands to the gateway's own."""
    policy = commands.add_parser("policy", help="check, test and explain policies")
    policy.set_defaults(run=run)
    actions = policy.add_subparsers(dest="action", required=True, metavar="ACTION")
    lint_parser = actions.add_parser(
        "lint", help="load every policy and find dead clauses, failing cases, stale reviews"
    )
    lint_parser.add_argument("--on", type=day, help="the day to judge reviews by (today)")
    test_parser = actions.add_parser("test", help="run the cases beside the policies")
    for parser in (lint_parser, test_parser):
        parser.add_argument("folder", nargs="?", type=Path, help="a folder of policies")
    actions.add_parser("vocabulary", help="print the vocabulary of conditions as YAML")
    activations = actions.add_parser(
        "activations", help="list the libraries that were in force, and since which leaf"
    )
    activations.set_defaults(run=_activations)
    for neighbour in (explain, policy_table, watch, replay):
        neighbour.add(actions)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if args.action == "vocabulary":
        sys.stdout.write(vocabulary_yaml())
        return 0
    files = read_policy_files(args.folder or builtin_policies())
    if args.action == "lint":
        return _lint(files, args.on or _today())
    return _test(files)


def _activations(args: argparse.Namespace) -> int:
    from gateway.app.installation import open_installation  # noqa: PLC0415  # it loads the server

    with contextlib.closing(open_installation(args)) as house:
        said = house.register.activations()
        present = house.library.digest
    for index, activation in said:
        overlays = f", overlays {', '.join(activation.overlays)}" if activation.overlays else ""
        print(
            f"leaf {index}  {activation.at[:19]}  {activation.library}"
            f"  {_count(activation.policies, 'policy')}{overlays}, by {activation.by}"
        )
    if not said or said[-1][1].library != present:
        print(f"on disk, not yet in force: {present}")
    return 0


def _lint(files: dict[str, str], on: dt.date) -> int:
    findings = lint(files, on)
    for finding in findings:
        print(finding)
    library = Library.load(files)
    clauses = sum(len(p.clauses) for versions in library.policies.values() for p in versions)
    print(
        f"{_count(len(library.policies), 'policy')}, {_count(clauses, 'clause')},"
        f" {_count(len(load_cases(files)), 'case')}: {_count(len(findings), 'finding')}"
    )
    return 1 if findings else 0


def _test(files: dict[str, str]) -> int:
    library = Library.load(files)
    cases = load_cases(files)
    failures = list(failing_cases(library, cases))
    for failure in failures:
        print(failure)
    print(f"{_count(len(cases), 'case')}, {_count(len(failures), 'failure')}")
    return 1 if failures or not cases else 0


def _count(number: int, noun: str) -> str:
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def _today() -> dt.date:
    return day_of(SystemClock().now_ms())
