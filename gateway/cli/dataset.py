"""`gateway dataset build | verify | card`: outputs that may be learned from, as a folder."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway import settings as settings_module
from gateway.app.activation import activate
from gateway.app.installation import Installation, open_installation
from gateway.cli import derive, export
from gateway.cli.arguments import day
from gateway.cli.bar import progress_bar
from gateway.cli.use import declaration_named, screen
from gateway.dataset.build import Built, EmptyDatasetError, Order, Sources, build_dataset
from gateway.dataset.card import card_of
from gateway.dataset.gate import REFUSALS
from gateway.dataset.held import HeldWords
from gateway.dataset.manifest import MANIFEST, parse_manifest
from gateway.dataset.ruling import PolicyLaw
from gateway.dataset.verify import verify_dataset
from gateway.errors import EvidenceError, MalformedDeclarationError
from gateway.ident import Sha256, random_bytes
from gateway.intent.purpose import is_purpose, teaches
from gateway.limits import BUNDLE_BYTES_MAX, TRUST_BYTES_MAX
from gateway.receipt.keys import Trust, parse_trust
from gateway.receipt.model import Manifest
from gateway.receipt.verify import read_checkpoint, verify_leaf, verify_manifest

_FILTERS = ("provider", "model", "purpose", "since", "until")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `dataset` among *commands*."""
    verbs = commands.add_parser(
        "dataset",
        help="build, verify and describe datasets",
        description="Build a dataset of outputs that may be learned from, with its evidence.",
    ).add_subparsers(metavar="VERB", required=True)

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
    build.add_argument("--provider", metavar="NAME", help="only answers of this provider")
    build.add_argument("--model", metavar="NAME", help="only answers of this model")
    build.add_argument("--purpose", metavar="WORD", help="only calls made for this purpose")
    build.add_argument("--since", metavar="DAY", type=day, help="from this day on")
    build.add_argument("--until", metavar="DAY", type=day, help="up to this day")
    build.add_argument(
        "--out", metavar="FOLDER", type=Path, help="where to (default: DATA/datasets/NAME)"
    )
    build.set_defaults(run=_build)

    verify = verbs.add_parser("verify", help="check a dataset folder whole, offline")
    verify.add_argument(
        "--every-signature",
        action="store_true",
        help="check each receipt's own signature too, not only its place in the log",
    )
    derive.add(verbs)
    export.add(verbs)
    card = verbs.add_parser("card", help="print the card of a dataset, made from its manifest")
    for verb, run in ((verify, _verify), (card, _card)):
        verb.add_argument("path", metavar="PATH", type=Path, help="a dataset folder")
        verb.add_argument(
            "--trust", metavar="FILE", type=Path, help="public keys (default: DATA/trust.json)"
        )
        verb.set_defaults(run=run)


def _build(args: argparse.Namespace) -> int:
    if args.purpose is not None and not is_purpose(args.purpose):
        raise MalformedDeclarationError(
            f"unknown purpose `{args.purpose[:40]}`", hint="like train.sft"
        )
    with contextlib.closing(open_installation(args)) as house:
        declaration = declaration_named(house.register, args.declaration)
        if not teaches(declaration.use.purpose):
            raise MalformedDeclarationError(
                f"{declaration.id} is for `{declaration.use.purpose}`, which teaches nothing",
                hint="build for a declaration to train, verify or rewrite data",
            )
        order = Order(
            name=args.name,
            declaration=declaration,
            folder=args.out or house.data / "datasets" / args.name,
            filters={
                name: str(value)
                for name in _FILTERS
                if (value := getattr(args, name)) is not None
            },
        )
        try:
            with _shown() as progress:
                built = build_dataset(order, sources_of(house, order), progress)
        except EmptyDatasetError as empty:
            print_left_out(empty.left_out)
            raise
    _print_built(built)
    return 0


def sources_of(house: Installation, order: Order) -> Sources:
    """Return what a build in *house* reads and writes."""
    activate(house, "gateway dataset build")
    house.reader.catch_up()
    trust = house.keyring.trust
    authority = house.reader.authority(trust)
    note = house.sequencer.checkpoint_now()
    filters = order.filters

    def candidates() -> Iterator[tuple[int, bytes]]:
        for row in house.index.select(
            kind="receipt",
            project=order.declaration.project,
            purpose=filters.get("purpose"),
            provider=filters.get("provider"),
            model=filters.get("model"),
            since=filters.get("since"),
            until=filters.get("until"),
        ):
            yield row.index, house.reader.leaf(row.index)

    def manifest(payload: Sha256) -> Manifest | None:
        found = house.reader.manifest(payload)
        if found is None:
            return None
        statement = verify_leaf(house.reader.leaf(found[0]), found[0], authority)
        return statement if isinstance(statement, Manifest) else None

    def index_of(payload: Sha256) -> int | None:
        found = house.reader.manifest(payload)
        return None if found is None else found[0]

    return Sources(
        candidates=candidates,
        texts=house.content,
        law=PolicyLaw(house.library, house.register, house.overlays),
        library=house.library.digest,
        words=HeldWords(house.register, house.index),
        manifest=manifest,
        index_of=index_of,
        prove=house.reader.prove,
        tile=house.reader.tiles.read,
        leaf=house.reader.leaf,
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


def _print_built(built: Built) -> None:
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
    where = f"leaf {built.index}" if built.index is not None else "put into place"
    print(f"{built.folder}: {found.rows} rows, manifest {built.manifest_sha256} ({where})")
    print(f"check it: gateway verify {built.folder}")
    print(f"learn from it: gateway student train {built.folder}")


def print_left_out(left_out: dict[str, int]) -> None:
    """Print how many candidates were left out, and what each reason means."""
    for reason, count in left_out.items():
        print(f"left out: {count} {reason}: {REFUSALS.get(reason, 'see left-out.jsonl')}")


@contextlib.contextmanager
def _shown() -> Iterator[_Bar | None]:
    """Show a bar where somebody is looking."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[seen]} looked at, {task.fields[rows]} rows taken"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress)


class _Bar:
    """Tells a progress bar how far a build is, now and then."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("ruling again", total=None, seen=0, rows=0)

    def __call__(self, seen: int, rows: int) -> None:
        if seen % 64 == 0:
            self._progress.update(self._task, seen=seen, rows=rows)


def _verify(args: argparse.Namespace) -> int:
    with progress_bar("verifying rows") as progress:
        dataset = verify_dataset(
            args.path,
            trust_of(args),
            lambda check, found: print(f"ok   {check:<10} {found}"),
            every_signature=args.every_signature,
            progress=progress,
        )
    print(f"{args.path}: dataset `{dataset.name}` verifies")
    return 0


def _card(args: argparse.Namespace) -> int:
    try:
        with (args.path / MANIFEST).open("rb") as file:
            encoded = file.read(BUNDLE_BYTES_MAX + 1)
    except OSError as exc:
        raise EvidenceError(
            f"{args.path / MANIFEST} can't be read: {exc.strerror}",
            hint="name a folder that `gateway dataset build` made",
        ) from exc
    statement, _ = verify_manifest(encoded, trust_of(args))
    print(card_of(parse_manifest(statement)), end="")
    return 0


def trust_of(args: argparse.Namespace) -> Trust:
    """Return the trust file that `--trust` names, or that of the data folder.

    Raises:
        EvidenceError: it can't be read.
    """
    path: Path | None = args.trust
    if path is None:
        config = getattr(args, "config", None)
        sourced = settings_module.load(Path(config) if config else None)
        path = sourced.path(sourced.settings.data) / "trust.json"
    try:
        with path.open("rb") as file:
            return parse_trust(file.read(TRUST_BYTES_MAX + 1))
    except OSError as exc:
        raise EvidenceError(
            f"the trust file {path} can't be read: {exc.strerror}",
            hint="give --trust FILE, the `trust.json` that the log's operator publishes",
            code="trust.malformed",
        ) from exc
