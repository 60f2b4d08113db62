"""`gateway ledger timestamps`: verify when checkpoints were there, by whom others trust.

It needs no network: tokens, notes and certificates are files. `gateway ledger fsck` compares
the ledger with the stamped checkpoints.

Exit codes: 0 all of them verify; 1 one does not, or there is none; 3 the operator must act.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gateway import settings as settings_module
from gateway.app.publishing import TIMESTAMPS
from gateway.clock import rfc3339
from gateway.errors import EvidenceError, KeyUnreadableError, SettingError
from gateway.ledger.publishing.timestamp import (
    Stamp,
    read_certificates,
    read_stamps,
    verify_stamp,
)
from gateway.receipt.keys import Trust, parse_trust
from gateway.receipt.verify import read_checkpoint

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def add(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `timestamps` to the commands of `gateway ledger`."""
    timestamps = actions.add_parser(
        "timestamps", help="verify the timestamps of checkpoints, offline"
    )
    timestamps.set_defaults(run=run)
    timestamps.add_argument(
        "folder", nargs="?", type=Path, metavar="DIR", help="tokens and notes (the gateway's)"
    )
    timestamps.add_argument(
        "--certificates", type=Path, metavar="FILE", help="roots of the authorities, PEM"
    )
    timestamps.add_argument("--trust", type=Path, metavar="FILE", help="the log's trust.json")


def run(args: argparse.Namespace) -> int:
    """Verify every token and return the exit code."""
    sourced = settings_module.load(Path(args.config) if args.config else None)
    data = sourced.path(sourced.settings.data)
    asked = sourced.settings.checkpoint.timestamps
    file: Path | None = args.certificates
    if file is None and asked is not None:
        file = sourced.path(asked.certificates)
    if file is None:
        raise SettingError(
            "there are no certificates to verify with",
            hint="give --certificates, or set `checkpoint.timestamps`",
        )
    trust = _trust(args.trust or data / "trust.json")
    folder: Path = args.folder or data / TIMESTAMPS
    certificates, seen, fine = read_certificates(file), 0, True
    for stamp in read_stamps(folder):
        seen += 1
        fine = _tell(stamp, certificates, trust) and fine
    if not seen:
        print(f"there is no timestamp in {folder}")
    return 0 if seen and fine else 1


def _tell(stamp: Stamp, certificates: Sequence[Certificate], trust: Trust) -> bool:
    try:
        stamped = verify_stamp(stamp.token, stamp.note, certificates)
        checkpoint = read_checkpoint(stamp.note.decode("utf-8", "replace"), trust)
    except EvidenceError as bad:
        print(f"not fine: {stamp.path.name}: {bad.message}")
        return False
    if checkpoint.size != stamp.size:
        print(f"not fine: {stamp.path.name}: its note is of {checkpoint.size} leaves")
        return False
    at = rfc3339(int(stamped.at.timestamp() * 1000))
    print(f"fine: {stamp.path.name}: {stamp.size} leaves were there at {at}, says {stamped.by}")
    return True


def _trust(path: Path) -> Trust:
    try:
        return parse_trust(path.read_bytes())
    except (OSError, EvidenceError) as wrong:
        raise KeyUnreadableError(
            f"`{path}` can't be read: {wrong}", hint="give --trust, the log's trust.json"
        ) from wrong
