"""`gateway dataset derive`: record rows of a file with what they were made of.

Exit codes: 0 every row is recorded; 1 some were refused, each is named with its line; 2 the
command can't be read; 3 the operator must act.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from gateway.app.installation import open_installation
from gateway.cli.bar import progress_bar
from gateway.errors import CallerError
from gateway.receipt.model import TransformKind

if TYPE_CHECKING:
    from gateway.dataset.derivation.filed import Filed
    from gateway.dataset.derivation.pipeline import Pipeline
    from gateway.dataset.derivation.step import Step

_SHOWN = 20
_KINDS = tuple(kind for kind in get_args(TransformKind) if kind != "written")


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `derive` among the *verbs* of `dataset`."""
    derive = verbs.add_parser(
        "derive",
        help="record rows of a file with what they were made of",
        description="Record the rows of FILE (JSON lines, or Parquet) in the ledger, each with "
        "the parents that its column names: a choice of an exchange (x-…/0), a row that was "
        "recorded before (d-…/3), or a student's training manifest. With --written they are "
        "people's own words and have no parents. The references that the rows have from then "
        "on go to FILE.receipts.jsonl. Given again, the command records what is missing.",
    )
    derive.add_argument("file", metavar="FILE", type=Path, help="rows, one a line")
    derive.add_argument(
        "--for", dest="declaration", metavar="DECLARATION", required=True, help="use-…"
    )
    derive.add_argument("--transform", metavar="NAME", help="what made the rows")
    derive.add_argument("--version", metavar="V", help="of the transform")
    derive.add_argument("--kind", choices=_KINDS, help="what it does")
    derive.add_argument("--code", metavar="FILE", type=Path, help="its source, to be digested")
    derive.add_argument(
        "--parents-column",
        metavar="NAME",
        help="where the parents are named (default: receipt, or receipts)",
    )
    derive.add_argument(
        "--written", action="store_true", help="people wrote the rows, or found them"
    )
    derive.add_argument("--licence", metavar="NAME", help="of written rows, like cc-by-4.0")
    derive.add_argument("--source", metavar="TEXT", help="of written rows: who, or where from")
    derive.add_argument(
        "--by", metavar="NAME", help="who runs it, or answers for written rows (default: you)"
    )
    derive.add_argument(
        "--tag", dest="tags", metavar="NAME", action="append", default=[], help="name the rows"
    )
    derive.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    # The other verbs of `dataset` have no use for it, and it takes a tenth of a second.
    from gateway.app.pipeline import pipeline_in  # noqa: PLC0415
    from gateway.dataset.derivation.filed import record_file  # noqa: PLC0415

    _check(args)
    with contextlib.closing(open_installation(args)) as house:
        by = args.by or pwd.getpwuid(os.getuid()).pw_name
        pipeline = pipeline_in(house, args.declaration, by, tags=args.tags)
        with progress_bar(f"recording {args.file.name}") as progress:
            filed = record_file(
                _step(pipeline, args),
                args.file,
                column=args.parents_column,
                progress=lambda done: progress(done, 0),
            )
    _print(args.file, filed)
    return 1 if filed.refused else 0


def _check(args: argparse.Namespace) -> None:
    """Raise `CallerError` unless *args* say either who wrote the rows or what made them."""
    made = (args.transform, args.version, args.kind)
    if args.written:
        if args.kind or args.code or args.parents_column:
            raise CallerError(
                "written rows have no parents and no transform",
                hint="leave out --kind, --code and --parents-column",
            )
        if not (args.by and args.licence and args.source):
            raise CallerError(
                "somebody answers for written rows",
                hint="add --by NAME --licence NAME --source TEXT",
            )
    elif not all(made):
        raise CallerError(
            "what made the rows is not said",
            hint="add --transform NAME --version V --kind KIND",
        )
    elif args.licence or args.source:
        raise CallerError(
            "--licence and --source are for written rows", hint="add --written, or leave them"
        )


def _step(pipeline: Pipeline, args: argparse.Namespace) -> Step:
    if args.written:
        return pipeline.written(
            licence=args.licence,
            source=args.source,
            by=args.by,
            name=args.transform or "written",
            version=args.version or "1",
        )
    return pipeline.transform(
        args.transform, version=args.version, kind=args.kind, code=args.code
    )


def _print(file: Path, filed: Filed) -> None:
    for line, error in filed.listed[:_SHOWN]:
        print(f"refused: line {line}: {error.problem}: {error.message}")
    refused = sum(filed.refused.values())
    if refused > _SHOWN:
        counts = ", ".join(f"{count} {code}" for code, count in sorted(filed.refused.items()))
        print(f"refused in all: {counts}")
    known = f", {filed.known} were already" if filed.known else ""
    said = f", {refused} refused" if refused else ""
    print(f"{file}: {filed.recorded} rows recorded{known}{said}")
    print(f"their references: {filed.references}")
