"""`gateway dataset build`: rule again on a project's outputs and take those that pass."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from gateway.app.activation import activate
from gateway.app.installation import Installation, open_installation
from gateway.cli.arguments import day, seed
from gateway.cli.stopping import told_to_stop, until_stopped
from gateway.cli.use import declaration_named, screen
from gateway.dataset.assembly.build import (
    BEST_OF,
    JUDGED,
    RULING,
    TRANSFORM,
    Built,
    EmptyDatasetError,
    Feed,
    Order,
    Sources,
    build_dataset,
    workshop_of,
)
from gateway.dataset.gate.refusals import REFUSALS
from gateway.dataset.held import HeldWords
from gateway.dataset.ruling import PolicyLaw
from gateway.errors import CallerError, MalformedDeclarationError, NotFoundError
from gateway.ident import Sha256, random_bytes
from gateway.intent.purpose import is_purpose, teaches
from gateway.receipt.model import Manifest
from gateway.receipt.verify import read_checkpoint, verify_leaf
from gateway.store.index.rows import Row

if TYPE_CHECKING:
    from rich.progress import Progress

_FILTERS = (
    "provider",
    "model",
    "purpose",
    "declared",
    "tag",
    "transform",
    "verdict",
    "since",
    "until",
)
_SHARE = re.compile(r"0?\.[0-9]{1,6}")
_TOLD_EVERY_S = 10.0


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `build` among *verbs*."""
    build = verbs.add_parser(
        "build",
        help="rule again on a project's outputs and take those that pass",
        description="Rule again on every output of the declaration's project, for the "
        "declared use, on the policies of today and of the day of the call, over every "
        "teacher above it. What does not pass is listed with its reason. There is no override.",
    )
    build.add_argument("name", metavar="NAME", help="the dataset's name, like invoices-1")
    build.add_argument(
        "--for", dest="declaration", metavar="DECLARATION", required=True, help="use-…"
    )
    add_selection(build)
    build.add_argument(
        "--out", metavar="FOLDER", type=Path, help="where to (default: DATA/datasets/NAME)"
    )
    build.set_defaults(run=_build)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add what says which outputs are wanted, and how rows are made of them."""
    parser.add_argument("--provider", metavar="NAME", help="only answers of this provider")
    parser.add_argument("--model", metavar="NAME", help="only answers of this model")
    parser.add_argument("--purpose", metavar="WORD", help="only calls made for this purpose")
    parser.add_argument(
        "--declared", metavar="DECLARATION", help="only calls made under this declaration"
    )
    parser.add_argument("--tag", metavar="TAG", help="only what was given this tag")
    parser.add_argument(
        "--transform", metavar="NAME", help="the rows that this transform made, no others"
    )
    parser.add_argument(
        "--kind",
        choices=("messages", "preference", "prompt"),
        default="messages",
        help="conversations; pairs of a better and a worse answer; prompts with a verifier",
    )
    parser.add_argument(
        "--judged", action="store_true", help="only rows that were judged, whatever was found"
    )
    parser.add_argument(
        "--verdict", metavar="WORD", help="only rows that were judged with this verdict"
    )
    parser.add_argument(
        "--best-of",
        action="store_true",
        help="of rows with the same prompt, the one whose verdict is the highest number",
    )
    parser.add_argument(
        "--reasoning",
        action="store_true",
        help="rows with the reasoning that the provider showed openly, no others",
    )
    parser.add_argument("--since", metavar="DAY", type=day, help="from this day on")
    parser.add_argument("--until", metavar="DAY", type=day, help="up to this day")
    parser.add_argument(
        "--dedupe",
        choices=("exact", "near"),
        default="exact",
        help="leave out the same row (always), or rows that are nearly the same, too",
    )
    parser.add_argument(
        "--held-out",
        metavar="SHARE",
        type=share,
        help="keep this share of the prompts apart, like 0.05, with all that are alike",
    )
    parser.add_argument(
        "--seed", metavar="N", type=seed, default=0, help="what the split is drawn with"
    )


def share(text: str) -> str:
    """Return *text* as the share that it is, between nothing and all.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not _SHARE.fullmatch(text) or not float(text):
        raise argparse.ArgumentTypeError(f"`{text[:20]}` is no share, like 0.05")
    return f"0{text}" if text.startswith(".") else text


def _build(args: argparse.Namespace) -> int:
    begun: list[Order] = []
    return until_stopped(lambda: _build_begun(args, begun), lambda: stopped(args.name, begun))


def _build_begun(args: argparse.Namespace, begun: list[Order]) -> int:
    with contextlib.closing(open_installation(args)) as house:
        order = order_of(args, house, args.name, args.out)
        begun.append(order)
        try:
            with shown() as progress:
                built = build_dataset(order, sources_of(house, order), progress)
        except EmptyDatasetError as empty:
            print_left_out(empty.left_out)
            raise
    print_built(built)
    return 0


def stopped(name: str, begun: Sequence[Order]) -> str:
    """Return what is left of a build that was told to stop, and what to do."""
    told = f"dataset.interrupted: told to stop while dataset `{name}` was built;"
    for order in begun:
        return told_to_stop(told, order.folder, workshop_of(order.folder))
    return told_to_stop(told, None, None)


def order_of(
    args: argparse.Namespace,
    house: Installation,
    name: str,
    folder: Path | None = None,
    feed: Feed | None = None,
) -> Order:
    """Return what *args* ask to be built.

    Raises:
        CallerError: they ask for what can't be meant, or for something that isn't there.
    """
    if args.purpose is not None and not is_purpose(args.purpose):
        raise MalformedDeclarationError(
            f"unknown purpose `{args.purpose[:40]}`", hint="like train.sft"
        )
    declaration = declaration_named(house.register, args.declaration)
    if not teaches(declaration.use.purpose):
        raise MalformedDeclarationError(
            f"{declaration.id} is for `{declaration.use.purpose}`, which teaches nothing",
            hint="build for a declaration to train, verify or rewrite data",
        )
    if args.declared is not None:
        declaration_named(house.register, args.declared)
    _check_transform(args)
    filters = {
        name: str(value) for name in _FILTERS if (value := getattr(args, name)) is not None
    }
    filters |= {name: "yes" for name in (JUDGED, BEST_OF) if getattr(args, _flag(name))}
    order = Order(
        name=name,
        declaration=declaration,
        folder=folder or house.data / "datasets" / name,
        filters=filters,
        kind=args.kind,
        reasoning=args.reasoning,
        dedupe=args.dedupe,
        held_out=args.held_out,
        seed=args.seed,
        feed=feed,
    )
    _check_names(order, house)
    return order


def _flag(name: str) -> str:
    return name.replace("-", "_")


def _check_transform(args: argparse.Namespace) -> None:
    """Check that what only rows of a transform have is asked of such rows."""
    if args.transform is None:
        wanted = {
            "--judged": args.judged,
            "--verdict": args.verdict is not None,
            "--best-of": args.best_of,
            f"--kind {args.kind}": args.kind != "messages",
        }
        for flag, given in wanted.items():
            if given:
                raise CallerError(
                    f"{flag} is about the rows of a transform", hint="add --transform NAME"
                )
    else:
        for flag in ("provider", "model", "reasoning"):
            if getattr(args, flag):
                raise CallerError(
                    f"--{flag} is about answers, --transform about rows made of them",
                    hint="leave one of the two away",
                )


def _check_names(order: Order, house: Installation) -> None:
    """Check that the transform and the tag that are asked for are known at all."""
    house.reader.catch_up()
    project = order.declaration.project
    transform, tag = order.filters.get(TRANSFORM), order.filters.get("tag")
    if transform is not None and not _any(
        house.index.select(kind="derivation", project=project, transform=transform)
    ):
        raise NotFoundError(
            f"no transform `{transform[:60]}` made rows in project `{project}`",
            hint="a pipeline names its transforms when it records them",
        )
    if tag is not None and not _any(house.index.select(project=project, tag=tag)):
        raise NotFoundError(
            f"nothing of project `{project}` was given the tag `{tag[:60]}`",
            hint="requests are given tags by the header x-gateway-tags",
        )


def _any(rows: Iterator[Row]) -> bool:
    return next(rows, None) is not None


def law_of(house: Installation) -> PolicyLaw:
    """Return the law as it stands in *house*."""
    return PolicyLaw(house.library, house.register, house.overlays)


def manifests_of(house: Installation) -> Callable[[Sha256], Manifest | None]:
    """Return what finds a manifest among the leaves of *house*, signed by a key good there."""
    authority = house.reader.authority(house.keyring.trust)

    def find(payload: Sha256) -> Manifest | None:
        found = house.reader.manifest(payload)
        if found is None:
            return None
        statement = verify_leaf(house.reader.leaf(found[0]), found[0], authority)
        return statement if isinstance(statement, Manifest) else None

    return find


def sources_of(house: Installation, order: Order) -> Sources:
    """Return what a build in *house* reads and writes."""
    activate(house, "gateway dataset build")
    house.reader.catch_up()
    trust = house.keyring.trust
    authority = house.reader.authority(trust)
    note = house.sequencer.checkpoint_now()

    def candidates() -> Iterator[tuple[int, bytes]]:
        return house.reader.leaves_at(row.index for row in selected(house, order))

    def index_of(payload: Sha256) -> int | None:
        found = house.reader.manifest(payload)
        return None if found is None else found[0]

    return Sources(
        candidates=candidates,
        texts=house.content,
        law=law_of(house),
        library=house.library.digest,
        words=HeldWords(house.register, house.index),
        manifest=manifests_of(house),
        index_of=index_of,
        prove=house.reader.prove,
        tile=house.reader.tiles.read,
        leaf=house.reader.leaf,
        leaves=house.reader.leaves_at,
        publish=house.sequencer.checkpoint_now,
        checkpoint=note,
        covers=read_checkpoint(note, trust),
        append=lambda leaf: house.sequencer.append_and_wait(leaf).index,
        signer=house.keyring.manifest,
        states=house.keyring.receipt,
        writer=house.writer,
        trust=trust,
        authority=authority,
        clock=house.clock,
        version=house.writer.version,
        invocation=f"{house.writer.instance}/{random_bytes(4).hex()}",
    )


def selected(house: Installation, order: Order, first: int = 0) -> Iterator[Row]:
    """Yield what the index knows of each candidate of *order* from leaf *first* on."""
    filters = order.filters
    return house.index.select(
        kind="derivation" if order.derived else "receipt",
        project=order.declaration.project,
        purpose=filters.get("purpose"),
        provider=filters.get("provider"),
        model=filters.get("model"),
        declaration=filters.get("declared"),
        transform=filters.get(TRANSFORM),
        tag=filters.get("tag"),
        since=filters.get("since"),
        until=filters.get("until"),
        first=first,
    )


def print_built(built: Built) -> None:
    """Print what was built, and what may be done with it next."""
    found = built.manifest.found
    table = Table(box=None, pad_edge=False)
    for heading in ("teacher", "rows", "policies", "obligations"):
        table.add_column(heading, overflow="fold")
    for teacher in found.teachers:
        policies = sorted({f"{pin.policy} v{pin.version}" for pin in teacher.policies})
        table.add_row(
            f"{teacher.provider} {teacher.model or ''}".strip(),
            str(teacher.rows),
            ", ".join(policies),
            ", ".join(teacher.obligations),
        )
    screen().print(table)
    print_left_out({left.reason: left.count for left in found.left_out})
    for split in found.splits:
        print(f"{split.name}: {split.rows} rows, {split.clusters} groups of alike prompts")
    where = f"leaf {built.index}" if built.index is not None else "put into place"
    print(f"{built.folder}: {found.rows} rows, manifest {built.manifest_sha256} ({where})")
    print(f"check it: gateway verify {built.folder}")
    print(f"learn from it: gateway student train {built.folder}")


def print_left_out(left_out: dict[str, int]) -> None:
    """Print how many candidates were left out, and what each reason means."""
    for reason, count in left_out.items():
        print(f"left out: {count} {reason}: {REFUSALS.get(reason, 'see left-out.jsonl')}")


@contextlib.contextmanager
def shown() -> Iterator[Bar]:
    """Show how far a build is: a bar where somebody looks, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield Bar()
        return
    # Loading what draws it takes a moment, which is saved where nobody watches.
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[seen]} looked at, {task.fields[rows]} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bar(progress)


class Bar:
    """Tells how far a build is, a few times a second or, to a file, every ten seconds."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        if progress is not None:
            self._task = progress.add_task(RULING, total=None, seen=0, rows=0)
        self._every = _TOLD_EVERY_S if progress is None else 0.1
        self._told = time.monotonic()

    def __call__(self, doing: str, seen: int, rows: int) -> None:
        """Take note that so many candidates were looked at and so many rows stand."""
        now = time.monotonic()
        if now - self._told < self._every:
            return
        self._told = now
        if self._progress is not None:
            self._progress.update(self._task, description=doing, seen=seen, rows=rows)
        else:
            print(f"{doing}: {seen} looked at, {rows} rows", file=sys.stderr, flush=True)
