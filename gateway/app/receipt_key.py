"""Renew the receipt key of a running process, and end those of processes that are gone."""

from __future__ import annotations

import asyncio

from gateway.app.installation import Installation
from gateway.clock import rfc3339
from gateway.errors import GatewayError
from gateway.log import Logger
from gateway.receipt.authority import KeyLife
from gateway.store.claims import Holder


async def renew_receipt_key(house: Installation, log: Logger) -> bool:
    """Take another receipt key if it is time to; tell whether that was done.

    Belongs to the event loop on which this process signs. The new key is authorised before it
    signs, and the old one ends behind all that it signed: leaves take their places in the
    order in which they were appended, and nothing is awaited between the two steps.
    """
    process = house.keyring.process
    old = process.held
    if old is None or not process.is_old():
        return False
    try:
        fresh = await asyncio.to_thread(process.make)
        ending = await asyncio.to_thread(process.ending, old.signer.keyid, "superseded")
    except GatewayError as error:
        log.error("receipt_key.kept", keyid=old.signer.keyid, error=str(error))  # noqa: TRY400
        return False
    try:
        await house.sequencer.append(fresh.authorization)
    except GatewayError as error:
        # It may be authorised, but has signed nothing.
        process.abandon(fresh)
        log.error("receipt_key.kept", keyid=old.signer.keyid, error=str(error))  # noqa: TRY400
        return False
    replaced = process.adopt(fresh)
    if replaced is not None:
        try:
            await house.sequencer.append(ending)
        except GatewayError as error:
            process.abandon(replaced)
            log.warning("receipt_key.not_ended", keyid=old.signer.keyid, error=str(error))
        else:
            process.discard(replaced)
    log.info("receipt_key.renewed", keyid=fresh.signer.keyid)
    return True


def end_keys_of_the_gone(house: Installation) -> list[str]:
    """End the receipt keys of processes that are gone; return which. Blocks this thread.

    Raises:
        LedgerUnwellError: an end could not be written.
    """
    gone = keys_of_the_gone(house)
    for life in gone:
        end_key_of_one_gone(house, life)
    return [life.keyid for life in gone]


def keys_of_the_gone(house: Installation) -> list[KeyLife]:
    """Return the receipt keys without an end whose processes are gone."""
    now = rfc3339(house.clock.now_ms())
    return [
        life
        for life in house.reader.authority(house.keyring.trust).lives
        if life.role == "receipt"
        and life.until is None
        and _is_gone(life, house.keyring.claims.holder(life.keyid), now)
    ]


def end_key_of_one_gone(house: Installation, life: KeyLife) -> None:
    """End a receipt key behind all that its process has signed. Blocks this thread.

    Raises:
        LedgerUnwellError: that could not be written.
    """
    ending = house.keyring.process.ending(life.keyid, "process-ended")
    house.sequencer.append_and_wait(ending)
    house.keyring.claims.forget(life.keyid)


def _is_gone(life: KeyLife, holder: Holder, now: str) -> bool:
    if holder is Holder.UNKNOWN:
        # Of another machine, perhaps: its time must be over.
        return life.expires is not None and life.expires < now
    return holder is Holder.GONE
