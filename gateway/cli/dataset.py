"""`gateway dataset build | follow | verify | card …`: what may be learned from, as a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from gateway import settings as settings_module
from gateway.cli import building, derive, export, follow
from gateway.cli.bar import progress_bar
from gateway.cli.trust import read_trust
from gateway.dataset.card import card_of
from gateway.dataset.manifest import MANIFEST, parse_manifest
from gateway.dataset.verification.verify import verify_dataset
from gateway.errors import EvidenceError
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.receipt.keys import Trust
from gateway.receipt.verify import verify_manifest


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `dataset` among *commands*."""
    verbs = commands.add_parser(
        "dataset",
        help="build, verify and describe datasets",
        description="Build a dataset of outputs that may be learned from, with its evidence.",
    ).add_subparsers(metavar="VERB", required=True)

    building.add(verbs)
    follow.add(verbs)
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
    return read_trust(path)
