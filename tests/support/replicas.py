"""Several gateways, each with a data folder of its own, over one database."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.receipt.keys import parse_trust
from gateway.store.postgres.ledger import PostgresLedger
from tests.support.oracle import Oracle, Record, Violation
from tests.support.ports import free_port
from tests.support.proxy import Gateway, new_gateway, settings_text

READY_S_MAX = 150.0
"""Several interpreters start at once, on a machine that may be busy."""


def new_replicas(
    folder: Path, provider_url: str, database: str, count: int, *, keys: str = "passthrough"
) -> list[Gateway]:
    """Return *count* gateways over one database, made and not started yet.

    The first one makes the ledger; the others are given copies of its keys.
    """
    more = f"ledger: {database}\n"
    first = new_gateway(folder / "a", provider_url, keys=keys, more=more)
    replicas = [first]
    for name in "bcdef"[: count - 1]:
        port = free_port()
        other = Gateway(
            folder=folder / name,
            port=port,
            settings=settings_text(port, provider_url, keys=keys, more=more),
        )
        other.data.mkdir(parents=True, mode=0o700)
        shutil.copytree(first.data / "keys", other.data / "keys")
        for file in first.data.glob("trust*"):
            shutil.copy(file, other.data)
        for file in first.folder.glob("provider.key"):
            shutil.copy(file, other.folder)
        other.settings_file.write_text(other.settings)
        replicas.append(other)
    return replicas


@contextlib.contextmanager
def running(replicas: list[Gateway]) -> Iterator[list[Gateway]]:
    """Run *replicas*; all of them are killed at the end."""
    try:
        threads = [threading.Thread(target=one.spawn) for one in replicas]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until = time.monotonic() + READY_S_MAX
        while not all(_is_well(one) for one in replicas):
            assert time.monotonic() < until, [one.log() for one in replicas]
            time.sleep(0.05)
        yield replicas
    finally:
        for one in replicas:
            one.kill()


def _is_well(gateway: Gateway) -> bool:
    assert gateway.process is not None
    assert gateway.process.poll() is None, gateway.log()
    try:
        return gateway.get("/-/health")[0] == 200
    except OSError:
        return False


class Auditor:
    """Reads the ledger in the database, and judges all that was ever seen."""

    def __init__(self, database: str, data: Path, oracle: Oracle) -> None:
        self._database = database
        self._oracle = oracle
        self._logs = [parse_trust((data / "trust.json").read_bytes()).log]

    def leaves(self) -> list[bytes]:
        """Return every leaf."""
        with contextlib.closing(PostgresLedger(self._database)) as ledger:
            return list(ledger.leaves(0, ledger.head().size))

    def settle(self, *, within_s: float = 120) -> None:
        """Return once every exchange is closed."""
        until = time.monotonic() + within_s
        while left := self._open():
            assert time.monotonic() < until, f"{left} exchanges are still open"
            time.sleep(0.2)

    def violations(self) -> list[Violation]:
        """Return every promise that was broken."""
        record = Record()
        record.add(self.leaves())
        return record.judge(self._oracle, self._logs)

    def _open(self) -> int:
        record = Record()
        record.add(self.leaves())
        closed = record.receipts + record.refusals + record.abandonments
        return sum(1 for exchange in record.openings if not closed[exchange])
