"""What a process that serves does beside serving, whichever part it plays."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import time
from typing import Final

from gateway.app.installation import Installation
from gateway.app.stores import no_ledger
from gateway.clock import rfc3339
from gateway.errors import GatewayError, OperatorError
from gateway.ledger.custody.erasure import erase_overdue
from gateway.limits import CLAIM_S_MAX
from gateway.log import Logger
from gateway.receipt.model import Erasure
from gateway.receipt.statement import write_statement
from gateway.settings import Sourced
from gateway.store.files import hold

GC_THRESHOLDS: Final = (10_000, 20, 50)
"""Exchanges leave next to no cycles behind; looking for them less often saves a tenth."""


def settle_down() -> None:
    """Let the collector look no more at what lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def erase_texts_overdue(house: Installation, today: dt.date, log: Logger) -> bool:
    """Erase what may not be kept any longer; tell whether that is done for today."""

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
    try:
        dropped = await asyncio.to_thread(drop_lines, house, today)
    except GatewayError as error:
        log.error("content.kept_too_long", error=str(error))  # noqa: TRY400  # as above
        return False
    if dropped:
        log.info("content.erased", count=dropped, why="unasked")
    return True


def drop_lines(house: Installation, today: dt.date) -> int:
    """Destroy requests of batches that wait no longer for their answers; return how many sets.

    Those that never left go a day after they came: nobody can ask for them.
    """
    yesterday = (today - dt.timedelta(days=1)).isoformat()
    house.reader.catch_up()
    count = 0
    for exchange, at, until in house.lines.with_texts():
        closed = house.reader.index.find(exchange)
        left = at >= yesterday or (closed is not None and closed.kind == "receipt")
        if left and (until is None or until >= today.isoformat()):
            continue
        house.lines.drop_texts(exchange)
        count += 1
    if count:
        house.content.empty_log()
    return count


def claim(sourced: Sourced) -> int:
    """Make sure that no other gateway serves the data folder; return the handle that says so.

    A second one would take the first one's exchanges under way for a crash's and close them.

    Raises:
        OperatorError: another gateway serves it.
    """
    data = sourced.path(sourced.settings.data)
    if not data.is_dir():
        raise no_ledger(data)
    try:
        served = hold(data / "served")
        until = time.monotonic() + CLAIM_S_MAX
        # Processes of a gateway that was killed take a moment to end.
        while served is None and time.monotonic() < until:
            time.sleep(CLAIM_S_MAX / 20)
            served = hold(data / "served")
    except OSError as exc:
        raise OperatorError(
            f"can't write in {data}: {exc.strerror}",
            hint="give the gateway's account permission to",
        ) from exc
    if served is None:
        raise OperatorError(
            f"another gateway serves {data}",
            hint="stop it first, or set `data` to another folder",
            code="gateway.running",
        )
    return served
