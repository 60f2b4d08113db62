"""Where ledger, contents and gateway keys are: in files, or in a database that replicas share.

What PostgreSQL needs is imported here only, and only where the settings name a database.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.clock import Clock, rfc3339
from gateway.errors import LedgerMissingError, MissingPieceError, SettingError
from gateway.exchange.items import Turns
from gateway.ledger.ports import Foreign, Sequencing
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.sequencing.sequencer import Sequencer
from gateway.receipt.model import Takeover, Writer
from gateway.receipt.statement import write_statement
from gateway.receipt.verify import verify_checkpoint
from gateway.settings import Sourced
from gateway.store.access import AccessKeys
from gateway.store.content import ContentStore
from gateway.store.counters import FILE as COUNTERS
from gateway.store.counters import Counters, FileCounters
from gateway.store.keys import Keyring
from gateway.store.lines import FileLines, Lines
from gateway.store.ports import LedgerStore
from gateway.store.sqlite import SqliteLedger
from gateway.store.turns import FileTurns

if TYPE_CHECKING:
    from gateway.store.postgres.ledger import PostgresLedger

OnForeign = Callable[[Foreign], None]
LEDGER_FILE = "ledger.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """What is kept, and what appends to it."""

    ledger: LedgerStore
    content: ContentStore
    lines: Lines
    access: AccessKeys
    counters: Callable[[], Counters]
    """Opens what limits count, once something is limited."""
    turns: Turns
    sequencing: Callable[[Publisher, OnForeign | None], Sequencing]
    """Returns what appends, not started, over a publisher of the ledger's checkpoints."""


def open_stores(
    sourced: Sourced,
    data: Path,
    keyring: Keyring,
    writer: Writer,
    clock: Clock,
    *,
    writes: bool = True,
) -> Stores:
    """Open everything that is kept; the ledger for reading alone where another *writes* it.

    Raises:
        LedgerMissingError: there is no ledger; `gateway init` makes one.
        MissingPieceError: it is in PostgreSQL, and the driver is not installed.
    """
    ledger = open_ledger(sourced, keyring.trust.origin, writes=writes)
    if isinstance(ledger, SqliteLedger):

        def alone(publisher: Publisher, on_foreign: OnForeign | None) -> Sequencing:
            return Sequencer(
                ledger, publisher, on_foreign=on_foreign, introduce=keyring.process
            )

        content = ContentStore(data / "content.db", keyring.content)
        return Stores(
            ledger=ledger,
            content=content,
            lines=FileLines(content),
            access=AccessKeys(data / "access.db"),
            counters=lambda: FileCounters(data / COUNTERS, clock),
            turns=FileTurns(data / "turns"),
            sequencing=alone,
        )
    from gateway.ledger.sequencing.intake import Replica  # noqa: PLC0415  the driver is an extra
    from gateway.store.postgres.access import PostgresAccessKeys  # noqa: PLC0415
    from gateway.store.postgres.content import PostgresContents  # noqa: PLC0415
    from gateway.store.postgres.counters import PostgresCounters  # noqa: PLC0415
    from gateway.store.postgres.intake import Intake  # noqa: PLC0415
    from gateway.store.postgres.lines import PostgresLines  # noqa: PLC0415
    from gateway.store.postgres.turns import PostgresTurns  # noqa: PLC0415

    shared = ledger

    def opens(epoch: int) -> Sequence[bytes]:
        takeover = Takeover(epoch=epoch, at=rfc3339(clock.now_ms()), writer=writer)
        return [write_statement(takeover, (), keyring.receipt)]

    def in_a_replica(publisher: Publisher, on_foreign: OnForeign | None) -> Sequencing:
        return Replica(
            Intake(shared, writer.instance),
            publisher,
            lambda note: verify_checkpoint(note, keyring.trust),
            clock,
            opens,
            introduce=keyring.process,
            on_foreign=on_foreign,
        )

    texts = PostgresContents(ledger, keyring.content)
    return Stores(
        ledger=ledger,
        content=texts,
        lines=PostgresLines(texts),
        access=PostgresAccessKeys(ledger, clock),
        counters=lambda: PostgresCounters(shared),
        turns=PostgresTurns(ledger.url),
        sequencing=in_a_replica,
    )


def open_ledger(
    sourced: Sourced, origin: str | None, *, writes: bool = True
) -> SqliteLedger | PostgresLedger:
    """Open the ledger that the settings name.

    Raises:
        LedgerMissingError: there is none.
        LedgerDamagedError: it is another one than *origin*, or not what it was.
    """
    url = sourced.database()
    if url is not None:
        with _driver():
            from gateway.store.postgres.ledger import PostgresLedger  # noqa: PLC0415

        return PostgresLedger(url, origin=origin)
    data = sourced.path(sourced.settings.data)
    if not (data / LEDGER_FILE).exists():
        raise no_ledger(data)
    return SqliteLedger(data / LEDGER_FILE, origin=origin, writes=writes)


def make_ledger(sourced: Sourced, origin: str) -> None:
    """Make an empty ledger named *origin* where the settings say, once.

    Raises:
        LedgerDamagedError: there is one already.
        LedgerUnwellError: it could not be made.
    """
    url = sourced.database()
    if url is None:
        data = sourced.path(sourced.settings.data)
        SqliteLedger.create(data / LEDGER_FILE, origin).close()
        return
    with _driver():
        from gateway.store.postgres.ledger import PostgresLedger  # noqa: PLC0415

    PostgresLedger.create(url, origin).close()


def needs_file(sourced: Sourced, what: str) -> None:
    """Refuse *what* only a ledger in a file can have done to it.

    Raises:
        SettingError: the ledger is in PostgreSQL.
    """
    if sourced.database() is not None:
        raise SettingError(
            f"the ledger is in PostgreSQL, and {what} works on files",
            hint="back the database up with its own tools, and keep `keys/` and trust.json",
        )


def no_ledger(data: Path) -> LedgerMissingError:
    """Return what to raise where there is no ledger in *data*."""
    return LedgerMissingError(
        f"there is no ledger in {data}",
        hint="make one with `gateway init`, or point `data` at the folder that holds it",
    )


@contextlib.contextmanager
def _driver() -> Iterator[None]:
    try:
        yield
    except ImportError as missing:
        raise MissingPieceError(
            f"the ledger is in PostgreSQL, and `{missing.name}` is not installed",
            hint="pip install 'tos-gateway[postgres]'",
        ) from missing
