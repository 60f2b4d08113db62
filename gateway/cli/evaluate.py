"""`gateway student evaluate MODEL`: base, student and teacher side by side on held-out rows.

What it prints is signed by nobody; the evaluation that was made when the student was trained
stands in its training manifest.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from gateway.errors import CallerError, OperatorError
from gateway.store.files import entries_of
from gateway.student.card import evaluation_told, figure_told
from gateway.student.evaluate import EXACT_MATCH, ROWS_DEFAULT, SAMPLES, Asking
from gateway.student.figures import MEASURES, Evaluation, Who
from gateway.student.files import write_durably
from gateway.student.recipe import SEED_MAX
from gateway.student.report import evaluation_html, page
from gateway.student.verify import VerifiedModel, verify_model

if TYPE_CHECKING:
    from gateway.student.evaluate import Examined

FINE: Final = 0
_WHO: Final[tuple[Who, ...]] = ("base", "student", "teacher", "gain")
UNSIGNED: Final = "signed by nobody; what the training manifest holds stays what it is"


def add(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `evaluate` to the commands of `student`."""
    evaluate = actions.add_parser(
        "evaluate",
        help="ask a student what was held out, beside its base and teacher",
        description="Verify a model folder, take its datasets through the gate once more, and "
        "ask base and student what was held out. Refused where that was learned.",
    )
    evaluate.add_argument("model", metavar="MODEL", type=Path, help="a model folder")
    evaluate.add_argument(
        "--datasets",
        metavar="FOLDER",
        type=Path,
        nargs="+",
        help="the datasets it learned from (default: those under DATA/datasets)",
    )
    evaluate.add_argument(
        "--base", metavar="FOLDER", type=Path, help="its base, to be asked too"
    )
    evaluate.add_argument(
        "--metric",
        metavar="NAME",
        default=EXACT_MATCH,
        help="a task metric, MODULE:FUNCTION, (prompt, answer, reference) -> float "
        f"(default: {EXACT_MATCH})",
    )
    evaluate.add_argument(
        "--limit",
        type=int,
        metavar="N",
        default=ROWS_DEFAULT,
        help=f"rows to ask, drawn by --seed (default: {ROWS_DEFAULT})",
    )
    evaluate.add_argument(
        "--suite", metavar="FILE", type=Path, help="ask rows of your own instead, JSON lines"
    )
    evaluate.add_argument("--seed", type=int, default=0, help="what rows are drawn with")
    evaluate.add_argument(
        "--html", metavar="FILE", type=Path, help="write a page, with samples"
    )
    evaluate.add_argument("--json", action="store_true", help="print the figures as JSON")
    evaluate.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> int:
    """Evaluate a student; return the exit code."""
    from gateway.cli.student import check_extra, rooms_of  # noqa: PLC0415  # adds this module

    asking = _asking(args)
    if args.html is not None and (args.html.is_dir() or not args.html.parent.is_dir()):
        # Before anybody is asked: that may take hours.
        raise _unwritable(args.html, "no place for a file")
    check_extra()
    # What follows needs the extra, and seconds to load.
    from gateway.app.installation import open_installation  # noqa: PLC0415
    from gateway.student.progress import Screen  # noqa: PLC0415
    from gateway.student.reexamine import Retest, datasets_of, reexamine  # noqa: PLC0415

    installation = open_installation(args)
    try:
        sources = rooms_of(installation, "gateway student evaluate").sources()
        model = verify_model(args.model, sources.trust)
        among = args.datasets or entries_of(installation.data / "datasets")
        retest = Retest(
            model=model,
            datasets=datasets_of(model, among, sources),
            among=tuple(among),
            base=args.base,
            suite=args.suite,
            asking=asking,
            seed=args.seed,
        )
        examined = reexamine(retest, sources, Screen())
    finally:
        installation.close()
    if args.html is not None:
        _write(args.html, _page(model, examined))
    if args.json:
        print(json.dumps(_facts(model, examined)))
    else:
        _tell(model, examined.evaluation)
    return FINE


def _asking(args: argparse.Namespace) -> Asking:
    if not 0 <= args.seed <= SEED_MAX:
        raise CallerError(
            f"seed must be between 0 and {SEED_MAX}",
            hint="see `gateway student evaluate --help`",
            code="recipe.bad",
        )
    try:
        return Asking(rows=args.limit, metric=args.metric, samples=SAMPLES)
    except ValueError as error:
        raise CallerError(
            str(error), hint="see `gateway student evaluate --help`", code="recipe.bad"
        ) from error


def _tell(model: VerifiedModel, evaluation: Evaluation) -> None:
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for who in _WHO:
        table.add_column(who, justify="right", no_wrap=True)
    for name in evaluation.measures:
        unit = MEASURES[name].unit
        told = (figure_told(evaluation.figure(name, who)) for who in _WHO)
        # The interval below the figure: four of them side by side are too wide for most.
        cells = (cell.replace(" [", "\n[") for cell in told)
        shown = name.replace("-", "-\n", 1)
        table.add_row(f"{shown}\n{unit}" if unit else shown, *cells)
    console.print(f"student {model.manifest.asked.student}", markup=False)
    console.print(table)
    console.print(evaluation_told(evaluation), markup=False, soft_wrap=True)
    for line in _beside(model, evaluation):
        console.print(line, markup=False, soft_wrap=True)


def _beside(model: VerifiedModel, evaluation: Evaluation) -> Iterator[str]:
    """Yield what is to be known besides the figures."""
    signed = model.manifest.found.evaluation
    if signed == evaluation:
        yield "the same figures stand in the training manifest, signed"
    elif signed is not None and signed.sha256 == evaluation.sha256:
        yield "the training manifest holds other figures of the same rows, signed"
    yield f"these are {UNSIGNED}"


def _facts(model: VerifiedModel, examined: Examined) -> dict[str, Any]:
    return {
        "student": model.manifest.asked.student,
        "manifest": model.payload_sha256,
        "signed": False,
        "evaluation": msgspec.to_builtins(examined.evaluation),
    }


def _page(model: VerifiedModel, examined: Examined) -> str:
    name = model.manifest.asked.student
    head = f"Training manifest {model.payload_sha256}; this evaluation is {UNSIGNED}."
    body = [
        f"<h1>{escape(name)}</h1><p>{escape(head)}</p>",
        *evaluation_html(examined.evaluation, examined.samples),
    ]
    return page(f"{name}: evaluation", body)


def _write(path: Path, text: str) -> None:
    try:
        place = path.resolve()
        if place.exists() and not place.is_file():
            # A pipe, or a terminal: nothing can be put in its place.
            place.write_text(text, encoding="utf-8")
        else:
            write_durably(place, text.encode())
    except OSError as error:
        raise _unwritable(path, error.strerror or type(error).__name__) from error


def _unwritable(path: Path, why: str) -> OperatorError:
    return OperatorError(
        f"`{path}` can't be written: {why}", hint="name another place with --html"
    )
