"""One data folder, made once and opened: what commands and the gateway work with."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gateway import settings as settings_module
from gateway.app.library import load_library
from gateway.app.publishing import asked_of_auditors, build_publisher
from gateway.app.stores import LEDGER_FILE, OnForeign, make_ledger, no_ledger, open_stores
from gateway.clock import Clock, SystemClock, rfc3339
from gateway.errors import (
    GatewayError,
    SettingError,
)
from gateway.exchange.items import Turns
from gateway.ident import random_bytes
from gateway.ledger.custody.erasure import apply_erasures
from gateway.ledger.ports import Sequencing, Shared
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.reading.reader import Reader
from gateway.ledger.reading.register import KINDS, Register
from gateway.policy.library import Library
from gateway.receipt.model import Writer
from gateway.settings import Sourced
from gateway.store.access import AccessKeys
from gateway.store.content import ContentStore
from gateway.store.counters import Counters
from gateway.store.index.index import Index
from gateway.store.keys import KeyPlaces, Keyring, load_keyring, make_keys
from gateway.store.lines import Lines
from gateway.store.ports import LedgerStore


@dataclass(kw_only=True)
class Installation:
    """One data folder, opened: everything a command or the gateway works with."""

    settings: Sourced
    data: Path
    keyring: Keyring
    store: LedgerStore
    index: Index
    reader: Reader
    sequencer: Sequencing
    sequencing: Callable[[Publisher, OnForeign | None], Sequencing]
    """Makes another that tells of what others append."""
    publisher: Publisher
    content: ContentStore
    lines: Lines
    access: AccessKeys
    counters: Callable[[], Counters]
    """Opens what limits count, once something is limited."""
    turns: Turns
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

    def end_key(self) -> None:
        """End the receipt key of this process, if it signed with one; it signs nothing more.

        Raises:
            LedgerUnwellError: that could not be written; the next `gateway serve` does it.
        """
        process = self.keyring.process
        key = process.let_go()
        if key is not None:
            ending = process.ending(key.signer.keyid, "process-ended")
            self.sequencer.append_and_wait(ending)
            process.discard(key)

    def close(self) -> None:
        """End the receipt key, if this process had one, and let go of every file."""
        with contextlib.suppress(GatewayError):
            self.end_key()
        if isinstance(self.sequencer, Shared):
            self.sequencer.let_go()
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
    return open_sourced(settings_module.load(Path(config) if config else None))


def open_sourced(
    sourced: Sourced, *, named: str | None = None, writes: bool = True
) -> Installation:
    """Open the installation of *sourced*; see `open_installation`.

    *named* is what this process is called among others of its gateway; where one of those
    *writes* the ledger, this process only reads it.
    """
    data = sourced.path(sourced.settings.data)
    if sourced.database() is None and not (data / LEDGER_FILE).exists():
        raise no_ledger(data)
    if sourced.database() is not None:
        # On another machine, or in another container, a process may have the same number.
        named = named or f"{os.getpid()}-{random_bytes(4).hex()}"
    clock, writer = SystemClock(), this_process(named)
    keyring = load_keyring(data, writer, clock, key_places(sourced))
    stores = open_stores(sourced, data, keyring, writer, clock, writes=writes)
    store, content = stores.ledger, stores.content
    index = Index(data / "index.db")
    reader = Reader(store, index)
    reader.catch_up()
    register = Register()
    register.fold(reader.statements(kinds=KINDS))
    if writes:
        # What a crash left of an erasure, or a restored copy brought back, goes before anything
        # else can read it. Where another process writes, it has done so.
        apply_erasures(reader, content)
    publisher = build_publisher(
        sourced,
        data,
        store,
        keyring.log,
        clock,
        predecessors=[one.origin for one in keyring.trust.predecessors],
    )
    return Installation(
        settings=sourced,
        data=data,
        keyring=keyring,
        store=store,
        index=index,
        reader=reader,
        sequencer=stores.sequencing(publisher, None),
        sequencing=stores.sequencing,
        publisher=publisher,
        content=content,
        lines=stores.lines,
        access=stores.access,
        counters=stores.counters,
        turns=stores.turns,
        register=register,
        clock=clock,
        writer=writer,
    )


def key_places(sourced: Sourced) -> KeyPlaces:
    """Return where the settings say that the long-lived signing keys are.

    Raises:
        SettingError: a reference is none, or refers to nothing.
    """
    chosen = sourced.settings.signing
    return KeyPlaces(
        log=sourced.signing_key(chosen.log, "signing.log"),
        manifest=sourced.signing_key(chosen.manifest, "signing.manifest"),
    )


def this_process(named: str | None = None) -> Writer:
    """Return how this process is named in what it writes."""
    return Writer(
        instance=f"{socket.gethostname()}/{named or os.getpid()}", version=our_version()
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
    if sourced.database() is None and (data / LEDGER_FILE).exists():
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
        witnesses, quorum = asked_of_auditors(sourced.settings.checkpoint)
        at = rfc3339(SystemClock().now_ms())
        make_keys(data, named, at, key_places(sourced), witnesses=witnesses, quorum=quorum)
    keyring = load_keyring(data, this_process(), SystemClock(), key_places(sourced))
    make_ledger(sourced, keyring.trust.origin)
    return data, keyring.trust.origin
