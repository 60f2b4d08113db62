"""Replicas over one database, as a test needs them: in this process, or one of their own.

`python -m tests.support.replica URL FOLDER NAME CALLERS FIRST [COUNT]` appends from CALLERS
callers at once and writes `place INDEX SHA256` as soon as each append returns, and the note of
each new checkpoint as `note BASE64`; made to be killed, frozen and cut off.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway.clock import Clock, SystemClock, rfc3339
from gateway.errors import LedgerUnwellError
from gateway.ident import new_exchange_id
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.sequencing.intake import Replica
from gateway.ledger.sequencing.lease import Opens
from gateway.receipt.keys import Ed25519Signer, LogSigner
from gateway.receipt.model import Takeover
from gateway.receipt.statement import write_statement
from gateway.store.ports import LedgerStore
from gateway.store.postgres.intake import Intake
from gateway.store.postgres.ledger import PostgresLedger
from gateway.tlog.checkpoint import Checkpoint, parse_checkpoint
from gateway.tlog.note import open_note, parse_vkey
from tests.support.evidence import LOG_SIGNER, ORIGIN, RECEIPT_SIGNER, WRITER


def publisher_of(
    store: LedgerStore, folder: Path, signer: LogSigner = LOG_SIGNER, clock: Clock | None = None
) -> Publisher:
    """Return a publisher that keeps its checkpoints in *folder* too."""
    return Publisher(
        store, signer, ORIGIN, clock or SystemClock(), publish_file=folder / "checkpoint"
    )


def replica_of(
    ledger: PostgresLedger, folder: Path, name: str, clock: Clock | None = None, **more: Any
) -> Replica:
    """Return a replica, not started, whose own files lie in *folder*."""
    return Replica(
        Intake(ledger, name),
        more.pop("publisher", None) or publisher_of(ledger, folder, clock=clock),
        verifies(LOG_SIGNER.vkey),
        clock or SystemClock(),
        opens_with(RECEIPT_SIGNER),
        **more,
    )


def verifies(log: str) -> Callable[[str], Checkpoint]:
    """Return what reads a checkpoint that the log of the key *log* signed."""
    verifier = parse_vkey(log)
    return lambda note: parse_checkpoint(open_note(note, [verifier]))


def opens_with(signer: Ed25519Signer) -> Opens:
    """Return what begins an epoch: the takeover, signed."""

    def opens(epoch: int) -> Sequence[bytes]:
        takeover = Takeover(epoch=epoch, at=rfc3339(SystemClock().now_ms()), writer=WRITER)
        return [write_statement(takeover, (), signer)]

    return opens


async def load(url: str, folder: Path, name: str, callers: int, first: int, count: int) -> None:
    """Append until killed, or until every caller has appended *count* leaves."""
    keys = [(folder.parent / f"{role}.key").read_bytes() for role in ("log", "receipt")]
    log, clock = LogSigner(keys[0], ORIGIN), SystemClock()
    ledger = PostgresLedger(url)
    replica = Replica(
        Intake(ledger, name),
        publisher_of(ledger, folder, log),
        verifies(log.vkey),
        clock,
        opens_with(Ed25519Signer(keys[1])),
    )
    replica.start()
    say("ready")

    async def call(number: int) -> None:
        for turn in range(count):
            leaf = f"{first + number} {turn} {new_exchange_id(clock.now_ms())} ".encode()
            leaf = leaf.ljust(200 + turn * 37 % 2000)
            say(f"try {hashlib.sha256(leaf).hexdigest()}")
            try:
                placed = await replica.append(leaf)
            except LedgerUnwellError as refused:
                say(f"refused {hashlib.sha256(leaf).hexdigest()} {refused}")
                await asyncio.sleep(0.1)
                continue
            say(f"place {placed.index} {hashlib.sha256(leaf).hexdigest()}")
            with contextlib.suppress(LedgerUnwellError):
                if turn % 20 == 0:
                    note = await replica.integrated(placed.index)
                    say(f"note {base64.b64encode(note.encode()).decode()}")

    try:
        await asyncio.gather(*(call(number) for number in range(callers)))
    finally:
        replica.stop()
        ledger.close()


def say(line: str) -> None:
    """Write *line* so that whoever reads has it before anything else happens."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    url, folder, name, *numbers = [*sys.argv[1:], "1000000000"]
    Path(folder).mkdir(exist_ok=True)
    asyncio.run(load(url, Path(folder), name, *map(int, numbers[:3])))
