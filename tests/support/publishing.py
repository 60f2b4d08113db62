"""A process that appends and publishes, and says what it published: for tests that end it.

    python -m tests.support.publishing FOLDER KEY COPY URL VKEY TIMES

FOLDER holds the ledger, COPY the checkpoint on another medium; URL and VKEY are its witness's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from gateway.clock import SystemClock
from gateway.ledger.publishing.copies import Copies, Copy
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.publishing.witness import Witness, Witnesses
from gateway.receipt.keys import LogSigner
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.cosignature import parse_cosignature_vkey

_S_MAX: Final = 60.0


def open_publisher(
    folder: Path, key: Path, copy: Path, url: str, vkey: str
) -> tuple[SqliteLedger, Publisher]:
    """Open the ledger, and what publishes its checkpoints."""
    store = SqliteLedger(folder / "ledger.db")
    # However slow the machine is, nobody is given up who is only waited for.
    witness = Witness(url, parse_cosignature_vkey(vkey), timeout_s=_S_MAX)
    publisher = Publisher(
        store,
        LogSigner(key.read_bytes(), store.origin),
        store.origin,
        SystemClock(),
        publish_file=folder / "checkpoint",
        witnesses=Witnesses([witness], 1),
        copies=Copies([Copy(copy, timeout_s=_S_MAX)], folder / "checkpoint.copies"),
    )
    return store, publisher


def main() -> None:
    """Append and publish, so many times."""
    folder, key, copy, url, vkey, times = sys.argv[1:]
    store, publisher = open_publisher(Path(folder), Path(key), Path(copy), url, vkey)
    for number in range(int(times)):
        store.append([b"leaf %d" % number, b"another"])
        note = publisher.checkpoint_now()
        sys.stdout.write(note.split("\n")[1] + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
