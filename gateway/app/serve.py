"""Serve until told to stop: signals, and what must be done from time to time."""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
from typing import Final

from gateway.app.activation import reload_policies
from gateway.app.publishing import AlarmLog
from gateway.app.receipt_key import renew_receipt_key
from gateway.app.replicas import Undertaker
from gateway.app.running import start
from gateway.app.signals import Told, quick_loop
from gateway.app.upkeep import erase_texts_overdue, settle_down
from gateway.clock import day_of
from gateway.errors import (
    LedgerDamagedError,
)
from gateway.log import Logger, build_logger
from gateway.settings import Sourced

SWEEP_S: Final = 5.0
"""How often exchanges whose receipt could not be written are tried again."""


def serve(sourced: Sourced) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    log = build_logger(sourced.settings.log_level)
    with quick_loop() as runner:
        return runner.run(_serve(sourced, log))


async def _serve(sourced: Sourced, log: Logger) -> int:
    told = Told()
    loop = asyncio.get_running_loop()
    # Before the door opens: who asks for a reload then must not end the process.
    loop.add_signal_handler(signal.SIGHUP, told.reload)

    def see_callers_through() -> None:
        # Whoever ends a start ends it at once; from the first caller on there is somebody to
        # be answered.
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, told.stop)

    gateway = await start(sourced, log, before_door=see_callers_through)
    settle_down()
    failed = False
    alarms = AlarmLog(log)
    undertaker = Undertaker(gateway.installation, gateway.walk.notary, log)
    erased_on: dt.date | None = None
    while not told.to_stop:
        today = day_of(gateway.installation.clock.now_ms())
        if today != erased_on and await erase_texts_overdue(gateway.installation, today, log):
            erased_on = today
        await told.something(SWEEP_S)
        if told.takes_reload():
            await reload_policies(
                gateway.installation, gateway.walk.law, gateway.log, by="SIGHUP"
            )
        await renew_receipt_key(gateway.installation, log)
        await gateway.walk.sweep()
        await undertaker.sweep()
        alarms.tell(gateway.installation.publisher.alarms())
        trouble = gateway.installation.sequencer.trouble
        if isinstance(trouble, LedgerDamagedError):
            # What is durable is unknown now; a restart reads the truth.
            log.error("ledger.failed", trouble=str(trouble))
            failed = True
            break
    left = await gateway.stop()
    log.info("gateway.stopped", exchanges_left=left)
    return 3 if failed else 0
