"""A process that appends under load and says what it was promised; made to be killed.

`python -m tests.support.appender FOLDER CALLERS FIRST [COUNT]` appends openings and receipts
from CALLERS callers at once and writes `index exchange` as soon as each append returns.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from gateway.clock import SystemClock
from gateway.ident import new_exchange_id
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.sequencing.sequencer import Sequencer
from gateway.receipt.keys import LogSigner
from gateway.store.sqlite import SqliteLedger
from tests.support.evidence import ORIGIN


async def load(folder: Path, callers: int, first: int, count: int) -> None:
    """Append until killed, or until every caller has appended *count* leaves."""
    store = SqliteLedger(folder / "ledger.db")
    signer = LogSigner((folder / "log.key").read_bytes(), ORIGIN)
    clock = SystemClock()
    publisher = Publisher(store, signer, ORIGIN, clock, publish_file=folder / "checkpoint")
    sequencer = Sequencer(store, publisher)
    sequencer.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()

    async def call(number: int) -> None:
        for turn in range(count):
            exchange = new_exchange_id(clock.now_ms())
            leaf = f"{first + number} {turn} {exchange} ".encode().ljust(200 + turn % 2000)
            placed = await sequencer.append(leaf)
            sys.stdout.write(f"{placed.index} {first + number} {turn}\n")
            sys.stdout.flush()

    await asyncio.gather(*(call(number) for number in range(callers)))
    sequencer.stop()
    store.close()


if __name__ == "__main__":
    arguments = [*sys.argv[2:], "1000000000"]
    asyncio.run(load(Path(sys.argv[1]), *map(int, arguments[:3])))
