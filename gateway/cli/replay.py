"""`gateway policy replay`: rule again over the ledger's whole history under a changed library.

Exit codes: 0 nothing changes; 1 something does; 2 wrong usage; 3 no ledger, or the report can't
be written.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.arguments import day
from gateway.cli.bar import progress_bar
from gateway.clock import day_of
from gateway.dataset.calls import Call
from gateway.dataset.recall import Recall, Sources
from gateway.dataset.recall_report import CHANGES, About, Report, text_of, write_signed
from gateway.errors import MalformedPolicyError, NotFoundError, SettingError
from gateway.ident import Sha256, random_bytes
from gateway.ledger.reading.register import KINDS
from gateway.ledger.reading.subtrees import Subtrees
from gateway.policy.library import Library
from gateway.provider.model import Operation
from gateway.receipt.model import Statement
from gateway.store.libraries import kept_library
from gateway.store.policies import read_policy_files

if TYPE_CHECKING:
    from gateway.app.installation import Installation


def add(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `replay` to the actions of `gateway policy`."""
    parser = actions.add_parser(
        "replay",
        help="rule again over the whole ledger under a changed library, and say who must act",
        description="Rule again over every exchange, declaration, dataset and student of the "
        "ledger under the policies in DIR. Nothing is put in force. Exit code 0: nothing "
        "changes; 1: something does.",
    )
    parser.add_argument(
        "--with",
        dest="changed",
        metavar="DIR",
        type=Path,
        required=True,
        help="the folder of policies as it is to be",
    )
    parser.add_argument("--on", type=day, help="the day that counts as today (today)")
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="write the signed report to this new folder"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from gateway.app.installation import open_installation  # noqa: PLC0415  # it loads the server

    with contextlib.closing(open_installation(args)) as house:
        changed = changed_library(house, args.changed)
        if args.out is not None and args.out.exists():
            raise SettingError(
                f"`{args.out}` exists already", hint="name a folder that does not, as --out"
            )
        document = replay(house, changed, args.on or day_of(house.clock.now_ms()), args.out)
    if args.json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        sys.stdout.write(_plain(text_of(document)))
        if args.out is not None:
            print(f"\n{args.out}: signed; check it with `gateway verify {args.out}`")
    return 1 if document["changed"] else 0


def replay(
    house: Installation, changed: Library, today: dt.date, out: Path | None
) -> dict[str, object]:
    """Rule again over the ledger of *house*; write the report to *out*, whole or not at all.

    Raises:
        SettingError: it can't be written.
    """
    sources = sources_of(house, changed, today)
    about = About(
        on=today.isoformat(),
        origin=house.keyring.trust.origin,
        size=sources.size,
        root=Subtrees(house.store).root(0, sources.size).hex(),
        in_force=sources.in_force.digest,
        changed=changed.digest,
        overlays=house.overlays,
    )
    recall = Recall(sources)
    with progress_bar("ruling again") as progress:
        if out is None:
            return _told(recall, Report(about), progress)
        beside = out.with_name(f".{out.name}.{random_bytes(6).hex()}")
        try:
            beside.mkdir(parents=True)
            with (beside / CHANGES).open("wb") as file:
                document = _told(recall, Report(about, file), progress)
            write_signed(beside, document, house.keyring.manifest)
            beside.rename(out)
        except OSError as error:
            raise SettingError(
                f"`{out}` can't be written: {error.strerror}", hint="choose another --out"
            ) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return document


def sources_of(house: Installation, changed: Library, today: dt.date) -> Sources:
    """Return what a replay in *house* reads: the ledger as it is now, however it grows."""
    size = house.reader.size()

    def said() -> Iterator[tuple[int, Statement]]:
        for index, statement in house.reader.statements([*KINDS, "manifest"]):
            if index < size:
                yield index, statement

    def kept(digest: Sha256) -> Library | None:
        try:
            library = Library.load(kept_library(house.data, digest))
        except (NotFoundError, MalformedPolicyError):
            return None
        return library if library.digest == digest else None

    return Sources(
        leaves=lambda: house.reader.leaves(0, size),
        said=said,
        size=size,
        in_force=house.library,
        changed=changed,
        kept=kept,
        overlays=house.overlays,
        configured=_configured(house),
        today=today,
    )


def _told(
    recall: Recall, report: Report, progress: Callable[[int, int], None]
) -> dict[str, object]:
    for change in recall.changes(progress):
        report.take(change)
    return report.document(recall)


def changed_library(house: Installation, folder: Path) -> Library:
    """Return the library in *folder*, with the organisation's own policies as they are.

    Raises:
        SettingError: there is no such folder, or it lacks an overlay that is switched on.
        MalformedPolicyError: it does not load.
    """
    settings = house.settings
    own = settings.settings.own_policies
    library = Library.load(
        read_policy_files(folder, None if own is None else settings.path(own))
    )
    for overlay in house.overlays:
        if overlay not in library.policies:
            raise SettingError(
                f"`{folder}` lacks the overlay `{overlay}`, which is switched on",
                hint="add it, or switch it off in the settings",
            )
    return library


def _configured(house: Installation) -> tuple[Call, ...]:
    """Return a plain call to each provider that the settings or the catalogue name."""
    from gateway.app.providers import build_providers  # noqa: PLC0415  # as above

    providers = build_providers(house)
    known = [providers.named(name) for name in providers.ids()]
    return tuple(
        Call(
            provider=provider.id,
            model=None,
            operation=Operation.CHAT.value,
            policies=tuple(dict.fromkeys(layer.policy for layer in provider.layers)),
            route=provider.route,
            account_tier=provider.account_tier,
        )
        for provider in known
        if provider.manifest is None
    )


def _plain(text: str) -> str:
    # Names are words of others: no control may reach the terminal.
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
