"""A running gateway: everything behind one door, started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass

from gateway import settings as settings_module
from gateway.app.activation import activation_of
from gateway.app.installation import Installation, no_ledger, open_sourced
from gateway.app.providers import build_providers
from gateway.errors import (
    GatewayError,
    MalformedReceiptError,
    OperatorError,
)
from gateway.exchange.forward import Forwarder
from gateway.exchange.hall import Hall
from gateway.exchange.recover import recover
from gateway.exchange.rule import Law
from gateway.exchange.seal import Notary
from gateway.exchange.walk import Walk
from gateway.ledger.ports import Foreign
from gateway.ledger.register import KINDS
from gateway.ledger.sequencer import Sequencer
from gateway.log import Logger
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
from gateway.store.files import hold


@dataclass(kw_only=True)
class Gateway:
    """A running gateway: its door and everything behind it."""

    installation: Installation
    walk: Walk
    door: Door
    hall: Hall
    forwarder: Forwarder
    log: Logger
    served: int
    """The handle that keeps other gateways off the data folder."""
    port: int = 0

    async def stop(self) -> int:
        """Close the door and see exchanges through; return how many had to be left."""
        left = await self.door.close()
        with contextlib.suppress(GatewayError):
            await self.walk.sweep()
        with contextlib.suppress(GatewayError):
            await asyncio.to_thread(self.installation.end_key)
        self.forwarder.close()
        await asyncio.to_thread(self.installation.sequencer.stop)
        self.installation.close()
        os.close(self.served)
        self.log.info("gateway.stopped", exchanges_left=left)
        return left


async def start(sourced: Sourced, log: Logger) -> Gateway:
    """Open the installation, recover what a crash left, and open the door.

    Raises:
        GatewayError: whatever is missing or wrong; then nothing listens.
    """
    served = _claim(sourced)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, served)
        gateway = await _start(sourced, log, served, undo)
        undo.pop_all()  # all is well: from here on `stop` undoes it
    return gateway


def _claim(sourced: Sourced) -> int:
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


async def _start(
    sourced: Sourced, log: Logger, served: int, undo: contextlib.ExitStack
) -> Gateway:
    installation = open_sourced(sourced)
    undo.callback(installation.close)
    # Without policies that load no door opens, and nothing is written.
    library = installation.library
    loop = asyncio.get_running_loop()
    register, keyring, clock = installation.register, installation.keyring, installation.clock

    def take_in(foreign: Foreign) -> None:
        for index, leaf in foreign:
            try:
                statement = read_leaf(leaf)
            except MalformedReceiptError as error:
                # A newer release may have written it; what comes after it still counts.
                log.warning("ledger.unread", leaf=index, why=error.message)
                continue
            register.apply(index, statement)
            if isinstance(statement, Activation) and (
                statement.library,
                statement.overlays,
            ) != (law.library.digest, settings.overlays):
                law.alarm = "another process put other policies in force; reload them here"
                log.error("policies.kept_old", in_force=law.library.digest, error=law.alarm)

    def hand_over(foreign: Foreign) -> None:
        # Runs on the loop before any append of the same group returns, so that nobody acts on
        # a register that is older than its own opening.
        loop.call_soon_threadsafe(take_in, foreign)

    sequencer = Sequencer(
        installation.store,
        installation.publisher,
        on_foreign=hand_over,
        introduce=keyring.process,
    )
    installation.sequencer = sequencer
    undo.callback(sequencer.stop)
    sequencer.start(seen=installation.index.size)
    settings = sourced.settings
    providers = build_providers(installation)
    law = Law(
        library,
        register,
        clock,
        undeclared=settings.undeclared == "forbid",
        unreadable=settings.unknown_operations == "forbid",
        overlays=settings.overlays,
    )
    tokens = TokenCounter(_encoding(settings.tiktoken_encoding, log))
    notary = Notary(
        sequencer=sequencer,
        content=installation.content,
        signer=lambda: keyring.receipt,
        commitment_key=keyring.commitment,
        clock=clock,
        writer=installation.writer,
        providers=providers,
        tokens=tokens,
    )
    reader = installation.reader

    def catch_up() -> list[tuple[int, Statement]]:
        reader.catch_up()
        return list(reader.statements(kinds=KINDS))

    desk = Desk(register, catch_up)
    forwarder = Forwarder()
    walk = Walk(
        law=law,
        register=register,
        sequencer=sequencer,
        forwarder=forwarder,
        notary=notary,
        clock=clock,
        writer=installation.writer.instance,
        refresh=desk.refresh,
        drain=settings.on_hang_up == "drain",
    )
    activation = activation_of(
        installation, library, installation.policy_files, "gateway serve"
    )
    if activation is not None:
        sequenced = await sequencer.append(activation)
        register.apply(sequenced.index, read_leaf(activation))
    found = await recover(list(installation.index.unclosed()), notary.seal)
    if found:
        log.warning("exchange.recovered", count=found)
    hall, metrics = Hall(), Metrics()
    porter = Porter(installation.access, keyring.commitment, managed=settings.keys == "managed")
    handlers = Handlers(
        walk=walk,
        providers=providers,
        porter=porter,
        desk=desk,
        own=Own(
            reader=reader,
            sequencer=sequencer,
            register=register,
            porter=porter,
            metrics=metrics,
            hall=hall,
            is_well=lambda: sequencer.healthy,
            refresh=desk.refresh,
            law=law,
        ),
        metrics=metrics,
        clock=clock,
        log=log,
        commitment_key=keyring.commitment,
    )
    door = Door(handlers, hall, log)
    host, port = settings_module.address(settings.listen, "listen")
    tls = None
    if settings.tls is not None:
        tls = tls_context(
            str(sourced.path(settings.tls.cert)), str(sourced.path(settings.tls.key))
        )
    port = await door.open(host, port, tls)
    log.info(
        "gateway.started",
        listen=f"{host}:{port}",
        data=str(installation.data),
        origin=keyring.trust.origin,
        leaves=installation.index.size,
        policies=library.digest,
        keys=settings.keys,
    )
    return Gateway(
        installation=installation,
        walk=walk,
        door=door,
        hall=hall,
        forwarder=forwarder,
        log=log,
        served=served,
        port=port,
    )


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
