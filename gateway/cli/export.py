"""`gateway dataset export`: a dataset in the form that another tool reads."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from gateway.app.activation import activate
from gateway.app.installation import Installation, open_installation
from gateway.cli.arguments import count
from gateway.cli.bar import progress_bar
from gateway.cli.stopping import told_to_stop, until_stopped
from gateway.cli.trust import read_trust
from gateway.dataset.export.forms import FORMS
from gateway.dataset.export.lost import LEFT_OUT, LOSSES
from gateway.dataset.export.write import (
    PARTS,
    Exported,
    Order,
    Sources,
    export_dataset,
    workshop_of,
)
from gateway.dataset.held import HeldWords
from gateway.dataset.ruling import PolicyLaw
from gateway.ident import Sha256, random_bytes
from gateway.ledger.reading.register import KINDS
from gateway.receipt.keys import Trust
from gateway.receipt.model import Manifest
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import verify_leaf


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `export` among the *verbs* of `dataset`."""
    export = verbs.add_parser(
        "export",
        help="write a dataset in the form that another tool reads",
        description="Verify a dataset, rule again on every row of it as of today, and write it "
        "in another form, with its receipts beside it and a manifest in the ledger. A row that "
        "may no longer be learned from ends the export. There is no override.",
    )
    export.add_argument("path", metavar="DATASET", type=Path, help="a dataset folder")
    export.add_argument("--format", required=True, choices=tuple(FORMS), help="the form")
    export.add_argument(
        "--out", metavar="DIR", type=Path, help="where to (default: DATA/exports/NAME-FORMAT)"
    )
    export.add_argument(
        "--split",
        dest="splits",
        action="append",
        choices=PARTS,
        help="only this part (default: every part that there is)",
    )
    export.add_argument(
        "--shard-rows",
        metavar="N",
        type=count,
        help="rows of one file (default: one file a part; of Parquet, 100000)",
    )
    export.add_argument(
        "--receipt-column",
        action="store_true",
        help="name in each row what vouches for it (Parquet always does)",
    )
    export.add_argument(
        "--strict", action="store_true", help="end at a row that would lose something"
    )
    export.add_argument(
        "--trust", metavar="FILE", type=Path, help="public keys (default: this ledger's)"
    )
    export.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    begun: list[Order] = []
    return until_stopped(lambda: _export_begun(args, begun), lambda: stopped(args.path, begun))


def stopped(dataset: Path, begun: Sequence[Order]) -> str:
    """Return what is left of an export that was told to stop, and what to do."""
    told = f"export.interrupted: told to stop while `{dataset}` was exported;"
    for order in begun:
        return told_to_stop(told, order.folder, workshop_of(order.folder))
    return told_to_stop(told, None, None)


def _export_begun(args: argparse.Namespace, begun: list[Order]) -> int:
    form = FORMS[args.format]
    with contextlib.closing(open_installation(args)) as house:
        name = f"{args.path.resolve().name}-{args.format}"
        order = Order(
            dataset=args.path,
            form=form,
            folder=args.out or house.data / "exports" / name,
            splits=tuple(args.splits or ()),
            shard_rows=args.shard_rows,
            receipt_column=args.receipt_column,
            strict=args.strict,
        )
        begun.append(order)
        trust = house.keyring.trust if args.trust is None else read_trust(args.trust)
        with progress_bar("ruling again and writing rows") as progress:
            exported = export_dataset(order, sources_of(house, trust), progress)
    _print(exported)
    return 0


def sources_of(house: Installation, trust: Trust) -> Sources:
    """Return what an export out of *house* reads and writes."""
    # From the first leaf: how far the register had come when it was read, nobody knows now.
    seen = 0

    def refresh() -> None:
        nonlocal seen
        house.reader.catch_up()
        for at in house.index.statements(KINDS, seen):
            house.register.apply(at, read_leaf(house.reader.leaf(at)))
            seen = at + 1

    activate(house, "gateway dataset export")
    refresh()
    authority = house.reader.authority(house.keyring.trust)

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
        law=PolicyLaw(house.library, house.register, house.overlays),
        library=house.library.digest,
        words=HeldWords(house.register, house.index),
        refresh=refresh,
        was_erased=house.content.was_erased,
        manifest=manifest,
        index_of=index_of,
        prove=house.reader.prove,
        publish=house.sequencer.checkpoint_now,
        append=lambda leaf: house.sequencer.append_and_wait(leaf).index,
        signer=house.keyring.manifest,
        trust=trust,
        clock=house.clock,
        version=house.writer.version,
        invocation=f"{house.writer.instance}/{random_bytes(4).hex()}",
    )


def _print(exported: Exported) -> None:
    found = exported.manifest.found
    for kind, rows in found.lost.items():
        print(f"lost: {kind} in {rows} rows: {LOSSES[kind]}")
    for reason, rows in found.left_out.items():
        print(f"left out: {rows} rows, {reason}: {LEFT_OUT[reason]}")
    if found.lost or found.left_out:
        print(f"which rows: {exported.folder / 'lost.json'} and receipts.jsonl beside it")
    where = f"leaf {exported.index}" if exported.index is not None else "put into place"
    print(
        f"{exported.folder}: {found.rows} rows in {len(found.files)} files, manifest "
        f"{exported.manifest_sha256} ({where})"
    )
    print(f"check it: gateway verify {exported.folder}")
