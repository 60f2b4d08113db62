"""A hub on a real socket, and workers that are no more than their sequencers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from gateway.ident import ExchangeId, Sha256
from gateway.ledger.ports import Foreign, Introducing
from gateway.ledger.sequencing.hub import Hub
from gateway.ledger.sequencing.remote import RemoteSequencer
from gateway.store.ports import LedgerStore
from tests.support.store import LedgerUnderTest, an_abandonment

RELEASE: Final = "0.1.0"
SOCKET: Final = "s"
_numbers = itertools.count()


class Nothing:
    """Has nothing that must come first."""

    def first(self) -> tuple[bytes, ...]:
        """Return no leaves."""
        return ()

    def introduced(self, leaves: object) -> None:
        """Note nothing."""


class HubUnderTest:
    """A hub over a ledger; it can be killed, and begun again, as often as a test likes."""

    def __init__(self, ledger: LedgerUnderTest, store: LedgerStore | None = None) -> None:
        self.ledger = ledger
        self.store = store
        self.alive: set[str] = set()
        self.library: Sha256 | None = None
        self.relevant: list[int] = []
        self.path = ledger.folder / SOCKET
        self.hub: Hub

    def begin(self) -> None:
        """Take statements, and let workers in."""
        loop = asyncio.get_running_loop()
        store = self.store or self.ledger.reopen()
        sequencer = self.ledger.sequencer(
            store, on_foreign=lambda found: loop.call_soon_threadsafe(self.hub.foreign, found)
        )
        self.hub = Hub(
            sequencer,
            store,
            release=RELEASE,
            is_alive=self.alive.__contains__,
            on_relevant=lambda index, _: self.relevant.append(index),
            library=lambda: self.library,
            on_stir=lambda: None,
            counts=dict,
        )
        self.hub.start()
        self.lines: list[asyncio.Transport] = []
        self.path.unlink(missing_ok=True)
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.path))
        self.listening.listen()
        self.listening.settimeout(0)
        self.accepting = loop.create_task(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(self.listening)
            transport, _ = await loop.connect_accepted_socket(self.hub.line, accepted)
            self.lines.append(transport)

    async def lose(self) -> None:
        """Be gone for the workers, as after a kill; what had been taken may be written."""
        self.accepting.cancel()
        self.listening.close()
        for line in self.lines:
            line.abort()
        await asyncio.to_thread(self.hub.stop)

    async def abandon(self, openings: list[tuple[ExchangeId, int]], why: str) -> int:
        """Close *openings* as abandoned."""
        for exchange, index in openings:
            await self.hub.append(an_abandonment(exchange, index))
        return len(openings)


class Worker:
    """What a worker has of its sequencer."""

    def __init__(self, path: Path, introduce: Introducing | None = None, **more: str) -> None:
        self.name = more.get("name", f"host/worker-{next(_numbers)}")
        self.foreign: list[tuple[int, bytes]] = []
        self.adopted: list[Sha256] = []
        self.alarms: list[str] = []
        self.lost = 0
        self.found = asyncio.Event()
        self.loading = asyncio.Event()
        """Clear it, and adopting takes until it is set."""
        self.loading.set()
        self.sequencer = RemoteSequencer(
            path,
            name=self.name,
            release=more.get("release", RELEASE),
            introduce=introduce or Nothing(),
            on_foreign=self._take_in,
            adopt=self._adopt,
            on_alarm=self.alarms.append,
            on_lost=self._lose,
            on_found=self.found.set,
        )

    def _take_in(self, foreign: Foreign) -> None:
        self.foreign += foreign

    async def _adopt(self, library: Sha256) -> None:
        await self.loading.wait()
        self.adopted.append(library)

    def _lose(self) -> None:
        self.lost += 1
        self.found.clear()


@asynccontextmanager
async def a_hub(ledger: LedgerUnderTest) -> AsyncIterator[HubUnderTest]:
    """Run a hub over *ledger*."""
    hub = HubUnderTest(ledger)
    hub.begin()
    try:
        yield hub
    finally:
        await hub.lose()


@asynccontextmanager
async def a_worker(
    hub: HubUnderTest, *, seen: int = 0, introduce: Introducing | None = None
) -> AsyncIterator[Worker]:
    """Connect a worker to *hub*."""
    worker = Worker(hub.path, introduce)
    hub.alive.add(worker.name)
    worker.sequencer.start(seen=seen)
    try:
        await worker.sequencer.connected()
        yield worker
    finally:
        worker.sequencer.let_go()


@contextlib.contextmanager
def a_ledger(folder: Path) -> Iterator[LedgerUnderTest]:
    """Make a ledger in *folder*."""
    ledger = LedgerUnderTest(folder)
    try:
        yield ledger
    finally:
        ledger.store.close()
