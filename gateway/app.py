"""The attic: builds every concrete thing from the settings, and hands out the keys.

`open_installation` is what commands work with; `serve` is the gateway itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import gc
import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from gateway import settings as settings_module
from gateway.clock import Clock, SystemClock, day_of, rfc3339
from gateway.dataset.manifest import Teacher
from gateway.dataset.ruling import asked_of, call_of_teacher
from gateway.errors import (
    GatewayError,
    LedgerDamagedError,
    LedgerMissingError,
    MalformedReceiptError,
    MissingPieceError,
    OperatorError,
    SettingError,
)
from gateway.exchange.erase import erase_overdue
from gateway.exchange.forward import Forwarder, origin_of
from gateway.exchange.hall import Hall
from gateway.exchange.providers import Layer, Provider, Providers, Taught
from gateway.exchange.recover import recover
from gateway.exchange.rule import Law
from gateway.exchange.seal import Notary
from gateway.exchange.walk import Walk
from gateway.ident import Sha256, random_bytes
from gateway.ledger.ports import Foreign, Sequencing
from gateway.ledger.publisher import Publisher
from gateway.ledger.reader import Reader
from gateway.ledger.register import KINDS, Register
from gateway.ledger.sequencer import Sequencer
from gateway.log import Logger, build_logger
from gateway.policy.library import Library
from gateway.provider.catalogue import BUILT_IN, dialect_named
from gateway.provider.tokens import Encoding, TokenCounter
from gateway.proxy.auth import Porter
from gateway.proxy.desk import Desk
from gateway.proxy.handlers import Handlers
from gateway.proxy.metrics import Metrics
from gateway.proxy.own import Own
from gateway.proxy.server import Door, tls_context
from gateway.receipt.model import Activation, Statement, Writer
from gateway.receipt.statement import read_leaf, write_statement
from gateway.receipt.verify import verify_manifest
from gateway.settings import ProviderSettings, Sourced
from gateway.store.access import AccessKeys
from gateway.store.content import ContentStore
from gateway.store.files import hold
from gateway.store.index import Index
from gateway.store.keys import Keyring, load_keyring, make_keys
from gateway.store.libraries import keep_library
from gateway.store.policies import builtin_policies, read_policy_files
from gateway.store.sqlite import SqliteLedger
from gateway.student.manifest import parse_model_manifest

SWEEP_S: Final = 5.0
"""How often exchanges whose receipt could not be written are tried again."""

GC_THRESHOLDS: Final = (10_000, 20, 50)
"""Exchanges leave next to no cycles behind; looking for them less often saves a tenth."""

SELF_HOSTED: Final = "self-hosted"
"""The policy that binds a student of ours, beside those of its teachers."""


@dataclass(kw_only=True)
class Installation:
    """One data folder, opened: everything a command or the gateway works with."""

    settings: Sourced
    data: Path
    keyring: Keyring
    store: SqliteLedger
    index: Index
    reader: Reader
    sequencer: Sequencing
    publisher: Publisher
    content: ContentStore
    access: AccessKeys
    register: Register
    clock: Clock
    writer: Writer
    policies: tuple[Mapping[str, str], Library] | None = None
    """The policies as text and as rules, once somebody asked for them."""

    @property
    def library(self) -> Library:
        """The policies that the settings name; read when they are first asked for.

        Raises:
            MalformedPolicyError: a file can't be read as what it should be; nothing is loaded.
            SettingError: there is no such folder, or no such overlay.
        """
        return self._loaded()[1]

    @property
    def policy_files(self) -> Mapping[str, str]:
        """The text of the library, as it was read."""
        return self._loaded()[0]

    def _loaded(self) -> tuple[Mapping[str, str], Library]:
        # Most commands rule on nothing, and sixty policies take half a second to read.
        if self.policies is None:
            self.policies = load_library(self.settings)
        return self.policies

    @property
    def overlays(self) -> tuple[str, ...]:
        """The overlays that bind every use here."""
        return self.settings.settings.overlays

    def close(self) -> None:
        """Let go of every file."""
        self.content.close()
        self.index.close()
        self.access.close()
        self.store.close()


def open_installation(args: argparse.Namespace) -> Installation:
    """Open the installation that *args* (`--config`) points to, its register folded.

    Raises:
        SettingError: the settings can't be read.
        LedgerMissingError: there is no installation; `gateway init` makes one.
        KeyUnreadableError: a key is missing, or others can read it.
    """
    config = getattr(args, "config", None)
    return _open(settings_module.load(Path(config) if config else None))


def _open(sourced: Sourced) -> Installation:
    data = sourced.path(sourced.settings.data)
    ledger_file = data / "ledger.db"
    if not ledger_file.exists():
        raise _no_ledger(data)
    keyring = load_keyring(data)
    clock = SystemClock()
    store = SqliteLedger(ledger_file, origin=keyring.trust.origin)
    index = Index(data / "index.db")
    reader = Reader(store, index)
    reader.catch_up()
    register = Register()
    register.fold(reader.statements(kinds=KINDS))
    publisher = Publisher(
        store, keyring.log, keyring.trust.origin, clock, publish_file=data / "checkpoint"
    )
    return Installation(
        settings=sourced,
        data=data,
        keyring=keyring,
        store=store,
        index=index,
        reader=reader,
        sequencer=Sequencer(store, publisher),
        publisher=publisher,
        content=ContentStore(data / "content.db", keyring.content),
        access=AccessKeys(data / "access.db"),
        register=register,
        clock=clock,
        writer=Writer(instance=f"{socket.gethostname()}/{os.getpid()}", version=our_version()),
    )


def _no_ledger(data: Path) -> LedgerMissingError:
    return LedgerMissingError(
        f"there is no ledger in {data}",
        hint="make one with `gateway init`, or point `data` at the folder that holds it",
    )


def our_version() -> str:
    """Return the version of this distribution, `0` where it was never installed."""
    try:
        return version("tos-gateway")
    except PackageNotFoundError:
        return "0"


def init(sourced: Sourced, origin: str | None) -> tuple[Path, str]:
    """Make the data folder of *sourced* once; return it and the ledger's origin.

    Raises:
        OperatorError: it holds a ledger or keys already, or can't be written.
    """
    data = sourced.path(sourced.settings.data)
    named = origin or f"{socket.gethostname()}/{random_bytes(4).hex()}"
    if (data / "ledger.db").exists():
        raise SettingError(
            f"{data} holds a ledger already",
            hint="use it with `gateway serve`, or set `data` to another folder",
        )
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise SettingError(f"can't make {data}: {exc.strerror}") from exc
    # Keys first: a ledger without its keys could never be signed for, while keys without a
    # ledger are made whole by the next `init`, which finds and uses them.
    if not (data / "trust.json").exists():
        make_keys(data, named)
    keyring = load_keyring(data)
    SqliteLedger.create(data / "ledger.db", keyring.trust.origin).close()
    return data, keyring.trust.origin


def load_library(sourced: Sourced) -> tuple[dict[str, str], Library]:
    """Read and load the policies that the settings name; return their text too.

    Raises:
        MalformedPolicyError: a file can't be read as what it should be; nothing is loaded.
        SettingError: there is no such folder, or no such overlay.
    """
    settings = sourced.settings
    folder = (
        builtin_policies()
        if settings.policies == "builtin"
        else sourced.path(settings.policies)
    )
    own = None if settings.own_policies is None else sourced.path(settings.own_policies)
    files = read_policy_files(folder, own)
    library = Library.load(files)
    for overlay in settings.overlays:
        versions = library.policies.get(overlay, ())
        if not versions or versions[0].kind != "overlay":
            known = [n for n, many in library.policies.items() if many[0].kind == "overlay"]
            raise SettingError(
                f"`overlays` names `{overlay}`, which is no overlay of the library",
                hint=f"known: {', '.join(sorted(known)) or 'none'}",
            )
    return files, library


def activation_of(
    house: Installation, library: Library, files: Mapping[str, str], by: str
) -> bytes | None:
    """Keep the library and return the leaf that puts it in force, or `None` if it is.

    Raises:
        OperatorError: the library can't be kept.
    """
    # Before the leaf that names it; and again where the text was lost since.
    keep_library(house.data, library.digest, files)
    newest = house.register.activation()
    previous = None if newest is None else newest.library
    if newest is not None and (previous, newest.overlays) == (library.digest, house.overlays):
        return None
    activation = Activation(
        library=library.digest,
        policies=len(library.policies),
        overlays=house.overlays,
        previous=previous,
        by=by,
        at=rfc3339(house.clock.now_ms()),
        writer=house.writer,
    )
    return write_statement(activation, (), house.keyring.receipt)


def activate(house: Installation, by: str) -> None:
    """Put the library that a command rules under in force, if it is not yet.

    Raises:
        OperatorError: it can't be kept, or the ledger can't be written.
    """
    leaf = activation_of(house, house.library, house.policy_files, by)
    if leaf is not None:
        index = house.sequencer.append_and_wait(leaf).index
        house.register.apply(index, read_leaf(leaf))


def build_providers(installation: Installation) -> Providers:
    """Return every provider: the built-in catalogue, overridden by the settings."""
    sourced = installation.settings
    ids = dict.fromkeys([*BUILT_IN, *sourced.settings.providers])
    known = [
        _provider(
            named, sourced.settings.providers.get(named, ProviderSettings()), installation
        )
        for named in ids
    ]
    return Providers(known)


def _provider(named: str, chosen: ProviderSettings, installation: Installation) -> Provider:
    built_in = BUILT_IN.get(named)
    base_url = chosen.base_url or (built_in.base_url if built_in else None)
    if base_url is None:
        raise SettingError(
            f"provider `{named}` has no base_url", hint=f"set providers.{named}.base_url"
        )
    sourced = installation.settings
    dialect = chosen.dialect or (built_in.dialect if built_in else "openai")
    manifest: Sha256 | None = None
    layers = tuple(
        Layer(policy=policy)
        for policy in (
            (chosen.policy,)
            if chosen.policy
            else built_in.policies
            if built_in
            else (SELF_HOSTED if chosen.student else named,)
        )
    )
    if chosen.student is not None:
        manifest, teachers = _student(sourced.path(chosen.student), installation)
        layers = (*layers, *teachers)
    credential = None
    if chosen.credential is not None and sourced.settings.keys == "managed":
        credential = sourced.secret(chosen.credential, f"providers.{named}.credential")
    return Provider(
        id=named,
        dialect=dialect_named(dialect),
        origin=origin_of(base_url),
        base_url=base_url.rstrip("/"),
        layers=layers,
        credential=credential,
        route=chosen.route or (built_in.route if built_in else None),
        agreement=chosen.agreement,
        account_tier=chosen.account_tier,
        manifest=manifest,
    )


def _student(folder: Path, installation: Installation) -> tuple[Sha256, list[Layer]]:
    """Return a student's manifest digest, and the policies of everything it learned from."""
    file = folder / "manifest.json"
    try:
        encoded = file.read_bytes()
    except OSError as exc:
        raise MissingPieceError(
            f"the student's manifest {file} can't be read: {exc.strerror}",
            hint="name the folder that `gateway student train` wrote",
        ) from exc
    statement, digest = verify_manifest(encoded, installation.keyring.trust)
    found = parse_model_manifest(statement).found
    return digest, layers_of((*found.teachers, *found.above))


def layers_of(teachers: Sequence[Teacher]) -> list[Layer]:
    """Return what binds a student of *teachers*, who stand above it at any distance.

    A student has no terms of its own: its receipts name the policies of its teachers, and
    those bind for what the teachers gave. What else they name binds the student's answers.
    """
    theirs = {pin.policy for one in teachers if one.manifest is None for pin in one.policies}
    return list(
        dict.fromkeys(
            Layer(policy=pin.policy, taught=_taught(teacher))
            for teacher in teachers
            for pin in teacher.policies
            if teacher.manifest is None or pin.policy not in theirs
        )
    )


def _taught(teacher: Teacher) -> Taught:
    call = call_of_teacher(teacher)
    return Taught(
        call=asked_of(call),
        route=call.route,
        account_tier=call.account_tier,
        agreements=call.agreements,
    )


# -- serving ------------------------------------------------------------------------------


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
        raise _no_ledger(data)
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
    installation = _open(sourced)
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

    sequencer = Sequencer(installation.store, installation.publisher, on_foreign=hand_over)
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
        signer=keyring.receipt,
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
            await reload_policies(sourced, gateway, by="SIGHUP")
        await gateway.walk.sweep()
        trouble = gateway.installation.sequencer.trouble
        if isinstance(trouble, LedgerDamagedError):
            # What is durable is unknown now; a restart reads the truth.
            log.error("ledger.failed", trouble=str(trouble))
            failed = True
            break
    await gateway.stop()
    return 3 if failed else 0


async def reload_policies(sourced: Sourced, gateway: Gateway, by: str) -> bool:
    """Put the policies on disk in force; tell whether they are.

    A library that does not load, or whose activation can't be written down, changes nothing:
    the old one stays in force, and health and metrics raise an alarm until one loads.
    """
    law, log, house = gateway.walk.law, gateway.log, gateway.installation
    try:
        files, library = await asyncio.to_thread(load_library, sourced)
        # A disk may be slow, and others are being answered: the loop must not wait for it.
        await asyncio.to_thread(keep_library, house.data, library.digest, files)
        leaf = activation_of(house, library, files, by)
        if leaf is not None:
            sequenced = await house.sequencer.append(leaf)
            house.register.apply(sequenced.index, read_leaf(leaf))
    except GatewayError as error:
        law.alarm = str(error)
        log.error(  # noqa: TRY400  # what is wrong is one line; a trace would hide it
            "policies.kept_old", in_force=law.library.digest, error=str(error)
        )
        return False
    law.adopt(library)
    house.policies = files, library
    log.info("policies.loaded", digest=library.digest, by=by)
    return True


async def _erase_overdue(gateway: Gateway, today: dt.date) -> bool:
    """Erase what may not be kept any longer; tell whether that is done for today."""
    house, log = gateway.installation, gateway.log
    try:
        erased = await asyncio.to_thread(erase_overdue, house.reader, house.content, today)
    except GatewayError as error:
        log.error("content.kept_too_long", error=str(error))  # noqa: TRY400  # as above
        return False
    if erased:
        log.info("content.erased", count=erased, why="delete-by-days")
    return True


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
