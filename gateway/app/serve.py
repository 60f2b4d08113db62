"""Serve until told to stop: signals, and what must be done from time to time."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import signal
from collections.abc import Iterator
from typing import Final

from gateway.app.activation import reload_policies
from gateway.app.running import Gateway, start
from gateway.clock import day_of, rfc3339
from gateway.errors import (
    GatewayError,
    LedgerDamagedError,
)
from gateway.ledger.erasure import erase_overdue
from gateway.log import Logger, build_logger
from gateway.receipt.model import Erasure
from gateway.receipt.statement import write_statement
from gateway.settings import Sourced

SWEEP_S: Final = 5.0
"""How often exchanges whose receipt could not be written are tried again."""

GC_THRESHOLDS: Final = (10_000, 20, 50)
"""Exchanges leave next to no cycles behind; looking for them less often saves a tenth."""


def serve(sourced: Sourced) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    log = build_logger(sourced.settings.log_level)
    with _quick_loop() as runner:
        return runner.run(_serve(sourced, log))


class _Told:
    """What signals ask of the process; whoever waits is woken."""

    def __init__(self) -> None:
        # OWNED BY: the event loop.
        self.to_stop = False
        self._to_reload = False
        self._stirred = asyncio.Event()

    def stop(self) -> None:
        """Ask the process to end."""
        self.to_stop = True
        self._stirred.set()

    def reload(self) -> None:
        """Ask for the policies on disk to be put in force."""
        self._to_reload = True
        self._stirred.set()

    def takes_reload(self) -> bool:
        """Tell whether that was asked since the last time."""
        asked, self._to_reload = self._to_reload, False
        return asked

    async def something(self, timeout_s: float) -> None:
        """Wait until something is asked, at most *timeout_s*."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stirred.wait(), timeout_s)
        self._stirred.clear()


async def _serve(sourced: Sourced, log: Logger) -> int:
    told = _Told()
    loop = asyncio.get_running_loop()
    # Before the door opens: who asks for a reload then must not end the process.
    loop.add_signal_handler(signal.SIGHUP, told.reload)
    gateway = await start(sourced, log)
    # What is built now lives as long as the process; the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, told.stop)
    failed = False
    erased_on: dt.date | None = None
    while not told.to_stop:
        today = day_of(gateway.installation.clock.now_ms())
        if today != erased_on and await _erase_overdue(gateway, today):
            erased_on = today
        await told.something(SWEEP_S)
        if told.takes_reload():
            await reload_policies(
                gateway.installation, gateway.walk.law, gateway.log, by="SIGHUP"
            )
        await gateway.walk.sweep()
        trouble = gateway.installation.sequencer.trouble
        if isinstance(trouble, LedgerDamagedError):
            # What is durable is unknown now; a restart reads the truth.
            log.error("ledger.failed", trouble=str(trouble))
            failed = True
            break
    await gateway.stop()
    return 3 if failed else 0


async def _erase_overdue(gateway: Gateway, today: dt.date) -> bool:
    """Erase what may not be kept any longer; tell whether that is done for today."""
    house, log = gateway.installation, gateway.log

    def state() -> None:
        erasure = Erasure(
            overdue=today.isoformat(),
            reason="the terms let nobody keep these texts any longer",
            by="gateway serve",
            at=rfc3339(house.clock.now_ms()),
            writer=house.writer,
        )
        leaf = write_statement(erasure, (), house.keyring.receipt)
        house.sequencer.append_and_wait(leaf)

    try:
        erased = await asyncio.to_thread(
            erase_overdue, house.reader, house.content, today, state
        )
    except GatewayError as error:
        log.error("content.kept_too_long", error=str(error))  # noqa: TRY400  # as above
        return False
    if erased:
        log.info("content.erased", count=erased, why="delete-by-days")
    return True


@contextlib.contextmanager
def _quick_loop() -> Iterator[asyncio.Runner]:
    """Run on uvloop where there is one."""
    try:
        import uvloop  # noqa: PLC0415  absent on some platforms
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner
