"""`gateway ledger fsck | prove | checkpoint | export`: look after the ledger, and show it.

Exit codes: 0 fine; 1 fsck found something; 2 no such exchange; 3 the operator must act.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway import settings as settings_module
from gateway.app.installation import Installation, open_installation
from gateway.app.publishing import published_notes
from gateway.app.stores import open_ledger
from gateway.cli import migrate, timestamps, witness
from gateway.cli.bar import progress_bar
from gateway.errors import (
    BadProofError,
    KeyUnreadableError,
    LedgerUnwellError,
    MalformedReceiptError,
    SettingError,
)
from gateway.ident import ExchangeId
from gateway.ledger.custody.fsck import Report, fsck
from gateway.receipt.keys import Trust, parse_trust
from gateway.settings import Sourced
from gateway.store.files import write_durably
from gateway.store.index.index import Index
from gateway.tlog.proof import ConsistencyProof, format_consistency
from gateway.tlog.text import SIZE_MAX, parse_decimal


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `ledger` and its commands to the gateway's own."""
    ledger = commands.add_parser("ledger", help="check the ledger, and prove what is in it")
    ledger.set_defaults(run=run)
    actions = ledger.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("fsck", help="recompute everything the ledger claims from its leaves")
    prove = actions.add_parser(
        "prove", help="write a proof that anyone can verify offline: of a leaf, or of growth"
    )
    what = prove.add_mutually_exclusive_group(required=True)
    what.add_argument("exchange", nargs="?", help="an exchange id, or the index of a leaf")
    what.add_argument(
        "--since", type=_size, metavar="SIZE", help="that the log of SIZE leaves has only grown"
    )
    prove.add_argument("--out", type=Path, metavar="FILE", help="write to FILE, not stdout")
    actions.add_parser("checkpoint", help="sign a checkpoint of the ledger as it is now")
    witness.add(actions)
    timestamps.add(actions)
    migrate.add(actions)
    export = actions.add_parser(
        "export", help="write the log as files that any web server serves"
    )
    export.add_argument(
        "folder", type=Path, metavar="DIR", help="a folder; one that holds the log is added to"
    )
    export.add_argument(
        "--without-entries", action="store_true", help="write hashes only, for everyone to see"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if args.action == "migrate":
        return migrate.migrate(args)
    if args.action == "fsck":
        # Not through `open_installation`: a damaged ledger, or one without its private keys,
        # must still be checked.
        config = args.config
        sourced = settings_module.load(Path(config) if config else None)
        return check(sourced)
    with contextlib.closing(open_installation(args)) as installation:
        if args.action == "checkpoint":
            sys.stdout.write(installation.sequencer.checkpoint_now())
            return 0
        if args.action == "export":
            return export(installation, args.folder, entries=not args.without_entries)
        if args.since is not None:
            return prove_growth(installation, args.since, args.out)
        return prove(installation, args.exchange, args.out)


def check(sourced: Sourced) -> int:
    """Check the ledger of *sourced*, print what was found, return the exit code."""
    data = sourced.path(sourced.settings.data)
    trust = _read_trust(data / "trust.json")
    published = published_notes(sourced, data)
    with contextlib.closing(open_ledger(sourced, trust.origin)) as store:
        index = Index(data / "index.db") if (data / "index.db").exists() else None
        with progress_bar("checking") as progress:
            report = fsck(store, trust, progress, index=index, published=published)
        if index is not None:
            index.close()
    for line in lines_of(report):
        print(line)
    return 0 if report.clean else 1


def lines_of(report: Report) -> Iterator[str]:
    """Yield what a person should know about *report*."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.kinds.items()))
    yield f"{report.size} leaves ({kinds or 'none'})"
    yield f"root {report.root.hex()}"
    for size in sorted(set(report.checkpoints)):
        yield f"compared with the checkpoint of {size} leaves"
    for exchange, at in report.open:
        yield f"open: {exchange}, opened at leaf {at}; under way, or sealed at the next start"
    for finding in report.findings:
        yield f"found: {finding}"
    if report.disowned_count:
        yield (
            f"evidence no more: {report.disowned_count} leaves from {report.disowned[0]} on;"
            " their key was revoked back to before them"
        )
    if report.findings_count > len(report.findings):
        yield f"and {report.findings_count - len(report.findings)} more findings"
    yield "clean" if report.clean else f"not clean: {report.findings_count} findings"


def prove(house: Installation, what: str, out: Path | None) -> int:
    """Write the bundle of an exchange or a leaf to *out* or stdout; return the exit code."""
    note = house.sequencer.checkpoint_now()
    _hand_over(house.reader.bundle(named(what), note), out)
    if out is not None:
        print(f"{out}: verify it anywhere with `gateway verify {out}` and the file trust.json")
    return 0


def prove_growth(house: Installation, since: int, out: Path | None) -> int:
    """Write the proof that the log of *since* leaves has only grown; return the exit code."""
    note = house.sequencer.checkpoint_now()
    hashes = house.reader.prove_growth(since, note)
    proof = ConsistencyProof(since, tuple(hashes), note)
    _hand_over(format_consistency(proof).encode(), out)
    if out is not None:
        print(f"{out}: compare it with your checkpoint of {since} leaves")
    return 0


def export(house: Installation, folder: Path, *, entries: bool) -> int:
    """Write the log to *folder* as files that any web server serves; return the exit code."""
    try:
        note = house.sequencer.checkpoint_now()
    except LedgerUnwellError as trouble:
        published = house.reader.tiles.published()
        if published is None:
            raise
        note = published
        print(f"without the newest leaves: {trouble.message}", file=sys.stderr)
    with progress_bar("exporting") as progress:
        done = house.reader.tiles.export(folder, note, progress, entries=entries)
    print(f"{folder}: {done.size} leaves in {done.tiles} tiles, {done.added} of them new")
    return 0


def _hand_over(content: bytes, out: Path | None) -> None:
    if out is None:
        sys.stdout.buffer.write(content)
    else:
        write_out(out, content)


def _size(text: str) -> int:
    try:
        return parse_decimal(text, "SIZE")
    except BadProofError as bad:
        raise argparse.ArgumentTypeError(bad.message) from bad


def named(what: str) -> ExchangeId | int:
    """Return the leaf index or the exchange id that *what* spells."""
    is_index = what.isascii() and what.isdecimal() and len(what) <= len(str(SIZE_MAX))
    return int(what) if is_index else ExchangeId(what)


def write_out(out: Path, content: bytes) -> None:
    """Write *content* to the file that `--out` names.

    Raises:
        SettingError: it can't be written.
    """
    try:
        write_durably(out, content)
    except OSError as wrong:
        raise SettingError(
            f"`{out}` can't be written: {wrong.strerror}", hint="choose another --out"
        ) from wrong


def _read_trust(path: Path) -> Trust:
    try:
        return parse_trust(path.read_bytes())
    except (OSError, MalformedReceiptError) as wrong:
        raise KeyUnreadableError(
            f"`{path}` can't be read: {wrong}", hint="restore it; it holds only public keys"
        ) from wrong
