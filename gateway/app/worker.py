"""A worker: one door of several, whose statements go through the sequencer's process."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from gateway.app.orders import LIVES, Orders, Said
from gateway.app.receipt_key import renew_receipt_key
from gateway.app.running import Place, start_worker
from gateway.app.serve import SWEEP_S
from gateway.app.signals import Told
from gateway.app.upkeep import settle_down
from gateway.errors import LedgerDamagedError
from gateway.ledger.sequencing.remote import RemoteSequencer
from gateway.limits import HUB_BEAT_S
from gateway.log import Logger
from gateway.store.lives import Lives


async def run_worker(orders: Orders, log: Logger) -> int:
    """Serve until told to stop; return the exit code."""
    told = Told()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGHUP):
        # The supervisor is told too, and tells us what is for us.
        loop.add_signal_handler(number, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, told.stop)
    sourced = orders.sourced
    name, life = Lives(sourced.path(sourced.settings.data) / LIVES).begin()
    place = Place(
        name=name,
        socket=Path(orders.socket),
        port=orders.port,
        library=orders.library,
        on_found=told.stir,
    )
    gateway = await start_worker(sourced, log, orders.served, place)
    sequencer = gateway.installation.sequencer
    orders.say(Said())
    settle_down()
    failed = False
    swept_at = 0.0
    while not told.to_stop:
        if isinstance(sequencer, RemoteSequencer):
            sequencer.tell_counts(gateway.counts())
        await told.something(HUB_BEAT_S)
        await renew_receipt_key(gateway.installation, log)
        if sequencer.healthy or loop.time() - swept_at > SWEEP_S:
            await gateway.walk.sweep()
            swept_at = loop.time()
        trouble = sequencer.trouble
        if isinstance(trouble, LedgerDamagedError):
            log.error("ledger.failed", trouble=str(trouble))
            failed = True
            break
    left = await gateway.stop()
    log.info("worker.stopped", exchanges_left=left)
    os.close(life)
    return 3 if failed else 0
