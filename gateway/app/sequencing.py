"""The sequencer's process: alone writes the ledger, for workers that come to its socket.

It closes what ended workers left open, erases texts whose days are over, puts policies in
force, and publishes checkpoints. It serves no caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import signal
import socket
from collections.abc import Mapping
from typing import Final

from gateway.app.activation import OTHER_POLICIES, activation_of, statements_of
from gateway.app.installation import Installation, open_sourced
from gateway.app.library import load_library
from gateway.app.orders import LIVES, Orders, Said
from gateway.app.publishing import AlarmLog, check_trust
from gateway.app.receipt_key import (
    end_key_of_one_gone,
    end_keys_of_the_gone,
    keys_of_the_gone,
    renew_receipt_key,
)
from gateway.app.signals import Told
from gateway.app.upkeep import erase_texts_overdue, settle_down
from gateway.clock import day_of
from gateway.errors import GatewayError, LedgerDamagedError
from gateway.exchange.providers import Providers
from gateway.exchange.recover import recover
from gateway.exchange.seal import Notary
from gateway.ident import ExchangeId
from gateway.ledger.ports import Foreign
from gateway.ledger.sequencing.hub import Hub
from gateway.ledger.sequencing.sequencer import Sequencer
from gateway.limits import HUB_BEAT_S, WORKER_ENDS_S_MAX
from gateway.log import Logger
from gateway.policy.library import Library
from gateway.provider.tokens import TokenCounter
from gateway.receipt.model import Activation
from gateway.store.libraries import keep_library
from gateway.store.lives import Lives

LAST_WORKERS_S: Final = 5.0
"""How long a stopping sequencer waits for what ended workers had still asked for."""


async def run_sequencer(orders: Orders, log: Logger) -> int:
    """Sequence until told to stop; return the exit code."""
    told = Told()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGHUP, told.reload)
    loop.add_signal_handler(signal.SIGTERM, told.stop)
    house = open_sourced(orders.sourced)
    sequencing = Sequencing(house, orders, log, told)
    try:
        await sequencing.begin()
        return await sequencing.go_on()
    finally:
        with contextlib.suppress(GatewayError):
            await asyncio.to_thread(house.end_key)
        await asyncio.to_thread(house.sequencer.stop)
        house.close()


class Sequencing:
    """The hub of one data folder, and what has to be done beside it."""

    def __init__(self, house: Installation, orders: Orders, log: Logger, told: Told) -> None:
        self._house = house
        self._orders = orders
        self._log = log
        self._told = told
        self._lives = Lives(house.data / LIVES)
        self._in_force = orders.library
        self._hub = Hub(
            Sequencer(
                house.store,
                house.publisher,
                on_foreign=self._hand_over,
                introduce=house.keyring.process,
            ),
            house.store,
            release=house.writer.version,
            is_alive=lambda writer: self._lives.is_alive(writer.rpartition("/")[2]),
            on_relevant=lambda index, leaf: self._take_in(((index, leaf),)),
            library=lambda: self._in_force,
            on_stir=told.stir,
            counts=house.publisher.counts,
        )
        self._hub.alarm = orders.alarm
        self._alarms = AlarmLog(log)
        house.sequencer = self._hub
        self._loop = asyncio.get_running_loop()
        self._notary = Notary(
            sequencer=self._hub,
            content=house.content,
            signer=lambda: house.keyring.receipt,
            commitment_key=house.keyring.commitment,
            clock=house.clock,
            writer=house.writer,
            providers=Providers([]),
            tokens=TokenCounter(None),
        )
        self._accepting: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Read what was open, put policies in force where none are, and let workers in.

        Raises:
            GatewayError: the ledger, or the policies, are not in order.
        """
        house, hub = self._house, self._hub
        check_trust(house.settings.settings.checkpoint, house.keyring.trust)
        hub.start(seen=house.index.size)
        hub.resume(house.index.unclosed())
        self._lives.bury()
        if self._in_force is None:
            await self._put_in_force(house.library, house.policy_files, "gateway serve")
        gone = await asyncio.to_thread(end_keys_of_the_gone, house)
        if gone:
            self._log.info("receipt_key.ended", count=len(gone))
        self._accepting = self._loop.create_task(self._accept())
        self._say()
        self._log.info(
            "sequencer.started", leaves=house.index.size, writer=house.writer.instance
        )
        settle_down()

    async def go_on(self) -> int:
        """Do what has to be done until told to stop; return the exit code."""
        erased_on: dt.date | None = None
        failed = False
        while not self._told.to_stop:
            today = day_of(self._house.clock.now_ms())
            if today != erased_on and await erase_texts_overdue(self._house, today, self._log):
                erased_on = today
            await self._told.something(HUB_BEAT_S)
            if self._told.takes_reload():
                await self._reload()
            await renew_receipt_key(self._house, self._log)
            await self._sweep()
            await self._end_keys()
            self._hub.beat()
            self._alarms.tell(self._house.publisher.alarms())
            trouble = self._hub.trouble
            if isinstance(trouble, LedgerDamagedError):
                # What is durable is unknown now; a restart reads the truth.
                self._log.error("ledger.failed", trouble=str(trouble))
                failed = True
                break
        if self._accepting is not None:
            self._accepting.cancel()
        until = self._loop.time() + LAST_WORKERS_S
        while not failed and self._hub.busy and self._loop.time() < until:
            await self._told.something(HUB_BEAT_S)
        if not failed:
            await self._sweep()
            await self._end_keys()
        return 3 if failed else 0

    async def _accept(self) -> None:
        listening = socket.socket(fileno=self._orders.listening)
        listening.settimeout(0)
        while True:
            accepted, _ = await self._loop.sock_accept(listening)
            await self._loop.connect_accepted_socket(self._hub.line, accepted)

    async def _sweep(self) -> None:
        async def abandon(openings: list[tuple[ExchangeId, int]], why: str) -> int:
            return await recover(openings, self._notary.seal, why)

        try:
            count = await self._hub.sweep(abandon)
        except GatewayError as error:
            self._log.warning("ledger.unwell", error=str(error))
            return
        if count:
            self._log.warning("exchange.recovered", count=count)

    async def _end_keys(self) -> None:
        """End the receipt keys of workers that are gone, behind all that they have signed."""
        if self._hub.departed_at + WORKER_ENDS_S_MAX < self._loop.time():
            return
        self._lives.bury()
        try:
            for life in await asyncio.to_thread(keys_of_the_gone, self._house):
                # Of one whose connection is not over yet there may be more to come.
                if life.writer not in self._hub.names:
                    await asyncio.to_thread(end_key_of_one_gone, self._house, life)
                    self._log.info("receipt_key.ended", count=1)
        except GatewayError as error:
            self._log.warning("ledger.unwell", error=str(error))

    async def _reload(self) -> None:
        """Put the policies on disk in force, in all workers; or keep the old ones in all."""
        try:
            files, library = await asyncio.to_thread(load_library, self._house.settings)
            await asyncio.to_thread(keep_library, self._house.data, library.digest, files)
            await self._put_in_force(library, files, "SIGHUP")
        except GatewayError as error:
            self._hub.alarm = str(error)
            self._say()
            self._log.error(  # what is wrong is one line; a trace would hide it
                "policies.kept_old", in_force=self._in_force, error=str(error)
            )
            return
        self._hub.alarm = ""
        self._say()
        self._log.info("policies.loaded", digest=library.digest, by="SIGHUP")

    def _say(self) -> None:
        """Have the supervisor remember what the next process in this one's place must know."""
        self._orders.say(Said(library=self._in_force, alarm=self._hub.alarm))

    async def _put_in_force(self, library: Library, files: Mapping[str, str], by: str) -> None:
        leaf = activation_of(self._house, library, files, by)
        if leaf is None:
            self._hub.adopt(library.digest)
        else:
            await self._hub.put_in_force(leaf, library.digest)
        self._in_force = library.digest

    def _hand_over(self, foreign: Foreign) -> None:
        # Runs on the loop before any append of the same group returns.
        self._loop.call_soon_threadsafe(self._hub.foreign, foreign)

    def _take_in(self, foreign: Foreign) -> None:
        house = self._house
        for index, statement in statements_of(foreign, self._log):
            house.register.apply(index, statement)
            if (
                isinstance(statement, Activation)
                and statement.writer != house.writer
                and (statement.library, statement.overlays) != (self._in_force, house.overlays)
            ):
                self._hub.alarm = OTHER_POLICIES
                if self._accepting is not None:
                    self._say()
                self._log.error(
                    "policies.kept_old", in_force=self._in_force, error=OTHER_POLICIES
                )
