"""A running gateway: everything behind one door, started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gateway import settings as settings_module
from gateway.app.activation import OTHER_POLICIES, activation_of, statements_of
from gateway.app.installation import Installation, open_sourced
from gateway.app.library import load_kept
from gateway.app.providers import build_forwarder, build_providers
from gateway.app.publishing import check_trust
from gateway.app.receipt_key import end_keys_of_the_gone
from gateway.app.upkeep import claim
from gateway.batch.begin import Beginning
from gateway.batch.desk import SPOOL, BatchDesk
from gateway.batch.hand_in import HandingIn
from gateway.batch.hand_out import HandingOut
from gateway.batch.judge import Judge
from gateway.batch.spool import Spools
from gateway.dataset.held import HeldWords
from gateway.errors import (
    GatewayError,
)
from gateway.exchange.allowance import Allowance
from gateway.exchange.forward import Forwarder
from gateway.exchange.hall import Hall
from gateway.exchange.items import Items
from gateway.exchange.later import LaterAnswers
from gateway.exchange.providers import Providers
from gateway.exchange.recover import recover
from gateway.exchange.resources import Resources
from gateway.exchange.rule import Law
from gateway.exchange.seal import Notary
from gateway.exchange.walk import Walk
from gateway.ident import Sha256
from gateway.ledger.counts import Counts
from gateway.ledger.ports import Foreign, Shared
from gateway.ledger.reading.register import KINDS
from gateway.ledger.sequencing.frames import Whole
from gateway.ledger.sequencing.remote import RemoteSequencer
from gateway.live.session import Live
from gateway.log import Logger
from gateway.policy.library import Library
from gateway.provider.tokens import Encoding, TokenCounter
from gateway.proxy.auth import Porter
from gateway.proxy.desk import Desk
from gateway.proxy.handlers import Handlers
from gateway.proxy.metrics import Metrics
from gateway.proxy.own import Own
from gateway.proxy.server import Door, tls_context
from gateway.receipt.model import Activation, Statement
from gateway.receipt.statement import read_leaf
from gateway.settings import Sourced


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of a worker among others, whose statements a hub writes."""

    name: str
    """Which no other process ever had."""
    socket: Path
    """Where the hub is."""
    port: int
    """Where all workers listen."""
    library: Sha256 | None
    """The policies in force."""
    on_found: Callable[[], None]
    """Called when the hub is there (again)."""


@dataclass(kw_only=True)
class Gateway:
    """A running gateway: its door and everything behind it."""

    installation: Installation
    walk: Walk
    door: Door
    hall: Hall
    forwarder: Forwarder
    log: Logger
    metrics: Metrics
    served: int
    """The handle that keeps other gateways off the data folder."""
    allowance: Allowance
    live: Live
    port: int = 0

    def counts(self) -> Counts:
        """Return what was counted at this door."""
        return self.metrics.counts(self.hall.count, alarm=bool(self.walk.law.alarm))

    async def stop(self) -> int:
        """Close the door and see exchanges through; return how many had to be left."""
        self.live.stop()
        left = await self.door.close()
        with contextlib.suppress(GatewayError):
            await self.walk.sweep()
        with contextlib.suppress(GatewayError):
            await asyncio.to_thread(self.installation.end_key)
        self.forwarder.close()
        self.allowance.close()
        await asyncio.to_thread(self.installation.sequencer.stop)
        self.installation.close()
        os.close(self.served)
        return left


async def start(
    sourced: Sourced, log: Logger, *, before_door: Callable[[], None] = lambda: None
) -> Gateway:
    """Open the installation, recover what a crash left, and open the door.

    *before_door* is called just before that: from then on there are callers.

    Raises:
        GatewayError: whatever is missing or wrong; then nothing listens.
    """
    served = claim(sourced)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, served)
        gateway = await _start(sourced, log, served, undo, before_door=before_door)
        undo.pop_all()  # all is well: from here on `stop` undoes it
    return gateway


async def start_worker(sourced: Sourced, log: Logger, served: int, place: Place) -> Gateway:
    """Open a door beside others; *served* is the handle that their supervisor holds.

    Raises:
        GatewayError: whatever is missing or wrong; then nothing listens.
    """
    with contextlib.ExitStack() as undo:
        gateway = await _start(sourced, log, served, undo, place)
        undo.pop_all()  # all is well: from here on `stop` undoes it
    return gateway


async def _start(
    sourced: Sourced,
    log: Logger,
    served: int,
    undo: contextlib.ExitStack,
    place: Place | None = None,
    *,
    before_door: Callable[[], None] = lambda: None,
) -> Gateway:
    installation = (
        open_sourced(sourced)
        if place is None
        else open_sourced(sourced, named=place.name, writes=False)
    )
    undo.callback(installation.close)
    if place is None:
        opened = await _open_alone(installation, log, undo)
    else:
        opened = await _open_beside_others(installation, log, undo, place)
    settings, keyring, law = sourced.settings, installation.keyring, opened.walk.law
    hall, metrics = Hall(), Metrics()
    porter = Porter(installation.access, keyring.commitment, managed=settings.keys == "managed")
    items = Items(
        notary=opened.walk.notary,
        turns=installation.turns,
        known=installation.reader.closed_of,
    )
    resources = _resources(installation, items, metrics, log)
    live = Live(
        walk=opened.walk,
        clock=installation.clock,
        allowance=opened.allowance,
        resources=resources,
        log=log,
        on_item=metrics.item,
    )
    handlers = Handlers(
        walk=opened.walk,
        providers=opened.providers,
        porter=porter,
        desk=opened.desk,
        own=Own(
            reader=installation.reader,
            sequencer=installation.sequencer,
            register=installation.register,
            lines=installation.lines,
            porter=porter,
            metrics=metrics,
            hall=hall,
            is_well=lambda: installation.sequencer.healthy,
            refresh=opened.desk.refresh,
            law=law,
            sums=opened.sums,
            publishing=installation.publisher.counts,
        ),
        metrics=metrics,
        clock=installation.clock,
        log=log,
        commitment_key=keyring.commitment,
        allowance=opened.allowance,
        resources=resources,
        batches=_batches(
            installation, opened.walk, items, metrics, resources, opened.allowance
        ),
        live=live,
        public_url=settings.public_url,
        tls=settings.tls is not None or settings.behind_tls_proxy,
    )
    door = Door(handlers, hall, log)
    host, port = settings_module.address(settings.listen, "listen")
    tls = None
    if settings.tls is not None:
        tls = tls_context(
            str(sourced.path(settings.tls.cert)), str(sourced.path(settings.tls.key))
        )
    before_door()
    if place is None:
        port = await door.open(host, port, tls)
    else:
        port = await door.open(host, place.port, tls, shared=True)
    said = {
        "listen": f"{host}:{port}",
        "data": str(installation.data),
        "origin": keyring.trust.origin,
        "leaves": installation.index.size,
        "policies": law.library.digest,
        "keys": settings.keys,
    }
    if place is None:
        log.info("gateway.started", **said)
    else:
        log.info("worker.started", **said, writer=installation.writer.instance)
    return Gateway(
        installation=installation,
        walk=opened.walk,
        door=door,
        hall=hall,
        forwarder=opened.walk.forwarder,
        log=log,
        metrics=metrics,
        served=served,
        allowance=opened.allowance,
        live=live,
        port=port,
    )


def _resources(
    installation: Installation, items: Items, metrics: Metrics, log: Logger
) -> Resources:
    """Return what tells callers apart where they ask for what is kept with providers."""
    reader = installation.reader
    return Resources(
        known=reader,
        later=LaterAnswers(
            items=items,
            leaf=reader.leaf,
            content=installation.content,
            clock=installation.clock,
            on_item=metrics.item,
        ),
        log=log,
        managed=installation.settings.settings.keys == "managed",
    )


def _batches(
    installation: Installation,
    walk: Walk,
    items: Items,
    metrics: Metrics,
    resources: Resources,
    allowance: Allowance,
) -> BatchDesk:
    """Return what takes batches in, begins them, and hands their results out."""
    lines, commitment_key = installation.lines, installation.keyring.commitment
    known, register, law = installation.reader, installation.register, walk.law
    beginning = Beginning(law=law, register=register, lines=lines, known=known)
    return BatchDesk(
        handing_in=HandingIn(
            judge=Judge(
                law=law,
                lines=lines,
                clock=installation.clock,
                commitment_key=commitment_key,
                refresh=walk.refresh,
                owned=resources.owned,
            ),
            law=law,
            register=register,
            lines=lines,
            known=known,
            spools=Spools(installation.data / SPOOL),
            beginning=beginning,
            commitment_key=commitment_key,
        ),
        beginning=beginning,
        handing_out=HandingOut(
            law=law,
            lines=lines,
            items=items,
            known=known,
            on_item=metrics.item,
            allowance=allowance,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Opened:
    walk: Walk
    desk: Desk
    providers: Providers
    allowance: Allowance
    sums: Callable[[Counts], Awaitable[Whole]] | None = None


async def _open_alone(
    installation: Installation, log: Logger, undo: contextlib.ExitStack
) -> _Opened:
    """Take statements in this process, and recover what a crash left."""
    # Without policies that load no door opens, and nothing is written.
    library = installation.library
    check_trust(installation.settings.settings.checkpoint, installation.keyring.trust)
    loop = asyncio.get_running_loop()
    register, reader = installation.register, installation.reader
    overlays = installation.overlays

    def take_in(foreign: Foreign) -> None:
        for index, statement in statements_of(foreign, log):
            register.apply(index, statement)
            if isinstance(statement, Activation) and (
                statement.library,
                statement.overlays,
            ) != (law.library.digest, overlays):
                law.alarm = OTHER_POLICIES
                log.error("policies.kept_old", in_force=law.library.digest, error=law.alarm)

    def hand_over(foreign: Foreign) -> None:
        # Runs on the loop before any append of the same group returns, so that nobody acts on
        # a register that is older than its own opening.
        loop.call_soon_threadsafe(take_in, foreign)

    sequencer = installation.sequencing(installation.publisher, hand_over)
    installation.sequencer = sequencer
    undo.callback(sequencer.stop)
    sequencer.start(seen=installation.index.size)

    def catch_up() -> list[tuple[int, Statement]]:
        reader.catch_up()
        return list(reader.statements(kinds=KINDS))

    opened = _furnish(installation, library, log, catch_up)
    law = opened.walk.law
    activation = activation_of(
        installation, library, installation.policy_files, "gateway serve"
    )
    if activation is not None:
        sequenced = await sequencer.append(activation)
        register.apply(sequenced.index, read_leaf(activation))
    gone = await asyncio.to_thread(end_keys_of_the_gone, installation)
    if gone:
        log.info("receipt_key.ended", count=len(gone))
    if not isinstance(sequencer, Shared):
        # Of replicas, others live: whoever leads closes what the dead left open.
        found = await recover(list(installation.index.unclosed()), opened.walk.notary.seal)
        if found:
            log.warning("exchange.recovered", count=found)
    return opened


async def _open_beside_others(
    installation: Installation, log: Logger, undo: contextlib.ExitStack, place: Place
) -> _Opened:
    """Have the hub take statements; rule by what is in force, whatever lies on the disk now."""
    register = installation.register
    if place.library is not None:
        installation.policies = load_kept(installation.data, place.library)
    library = installation.library
    alarm = ""

    def take_in(foreign: Foreign) -> None:
        for index, statement in statements_of(foreign, log):
            register.apply(index, statement)

    async def adopt(digest: Sha256) -> None:
        if digest == law.library.digest:
            return
        try:
            loaded = await asyncio.to_thread(load_kept, installation.data, digest)
        except GatewayError as error:
            law.alarm = str(error)
            log.error(  # noqa: TRY400  # what is wrong is one line; a trace would hide it
                "policies.kept_old", in_force=law.library.digest, error=str(error)
            )
            return
        installation.policies = loaded
        law.adopt(loaded[1])
        log.info("policies.loaded", digest=digest, by="the sequencer")

    def be_alarmed(why: str) -> None:
        nonlocal alarm
        if why != alarm:
            law.alarm = alarm = why

    sequencer = RemoteSequencer(
        place.socket,
        name=installation.writer.instance,
        release=installation.writer.version,
        introduce=installation.keyring.process,
        on_foreign=take_in,
        adopt=adopt,
        on_alarm=be_alarmed,
        on_lost=lambda: log.error("sequencer.lost"),
        on_found=place.on_found,
    )
    installation.sequencer = sequencer

    def catch_up() -> list[tuple[int, Statement]]:
        sequencer.refresh()
        return []

    opened = _furnish(installation, library, log, catch_up)
    law = opened.walk.law
    undo.callback(sequencer.let_go)
    sequencer.start(seen=installation.index.size)
    await sequencer.connected()
    return replace(opened, sums=sequencer.whole)


def _furnish(
    installation: Installation,
    library: Library,
    log: Logger,
    catch_up: Callable[[], list[tuple[int, Statement]]],
) -> _Opened:
    """Build the rooms that exchanges walk through."""
    settings = installation.settings.settings
    register, clock = installation.register, installation.clock
    providers = build_providers(installation)
    law = Law(
        library,
        register,
        clock,
        held=HeldWords(register, installation.index).held,
        undeclared=settings.undeclared == "forbid",
        unreadable=settings.unknown_operations == "forbid",
        ephemeral=settings.ephemeral_keys == "forbid",
        overlays=settings.overlays,
    )
    tokens = TokenCounter(_encoding(settings.tiktoken_encoding, log))
    allowance = Allowance(
        installation.settings.rules(),
        installation.settings.prices(),
        installation.counters,
        tokens,
    )
    notary = Notary(
        sequencer=installation.sequencer,
        content=installation.content,
        signer=lambda: installation.keyring.receipt,
        commitment_key=installation.keyring.commitment,
        clock=clock,
        writer=installation.writer,
        providers=providers,
        tokens=tokens,
    )
    desk = Desk(register, catch_up)
    walk = Walk(
        law=law,
        register=register,
        sequencer=installation.sequencer,
        forwarder=build_forwarder(installation.settings, log),
        notary=notary,
        clock=clock,
        writer=installation.writer.instance,
        refresh=desk.refresh,
        drain=settings.on_hang_up == "drain",
    )
    return _Opened(walk=walk, desk=desk, providers=providers, allowance=allowance)


def _encoding(name: str | None, log: Logger) -> Encoding | None:
    """Return tiktoken's encoding of that name, from its cache folder or fetched by it."""
    if name is None:
        return None
    import tiktoken  # noqa: PLC0415  most gateways never count for themselves

    try:
        return tiktoken.get_encoding(name)
    except (OSError, ValueError) as exc:
        # What can't be counted is left out of receipts, never guessed.
        log.warning("tokens.uncounted", encoding=name, why=str(exc))
        return None
