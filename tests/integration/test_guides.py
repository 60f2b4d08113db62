"""Every command of some guides works, in a folder that is as its section says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from gateway.clock import SystemClock
from gateway.errors import GatewayError
from gateway.ident import ExchangeId, new_exchange_id
from gateway.receipt.model import Abandonment
from gateway.receipt.statement import read_leaf
from gateway.store import sqlite
from gateway.store.sqlite import SqliteLedger
from tests.support.nursery import shared
from tests.support.ports import free_port
from tests.support.store import an_opening, brittle_disk
from tests.support.texts import Kept, kept_in

ROOT: Final = Path(__file__).resolve().parents[2]
GUIDES: Final = ROOT / "docs" / "guides"
EXPECTED: Final = re.compile(r"\s+# exits ([0-9])$")
WAIT_S: Final = 60.0
FOR_A_SHELL: Final = frozenset("|&;<>()$`#*?[]~=%\\")
"""What only a shell understands; a command without is run as it is."""


def sections(guide: str) -> dict[str, list[str]]:
    """Return the commands of each section that has any, in order."""
    found: dict[str, list[str]] = {}
    heading, fenced = "", False
    for line in (GUIDES / guide).read_text("utf-8").splitlines():
        if line.startswith("```"):
            fenced = line == "```sh"
        elif fenced:
            found.setdefault(heading, []).append(line)
        elif line.startswith("## "):
            heading = line.removeprefix("## ")
    return found


@dataclass
class Case:
    """One folder, and the two other disks that the guide speaks of."""

    folder: Path
    exchanges: list[ExchangeId]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    """What the guide's reader puts in place of a name in capitals."""

    @property
    def data(self) -> Path:
        """Return the data folder."""
        return self.folder / "gateway-data"

    @property
    def settings(self) -> Path:
        """Return the settings file."""
        return self.folder / "gateway.yaml"

    def run(self, line: str) -> None:
        """Run one line of the guide, and insist on the exit code that it promises."""
        promised = EXPECTED.search(line)
        code = int(promised[1]) if promised else 0
        command = EXPECTED.sub("", line)
        for place in ("/backup", "/mnt/other"):
            command = command.replace(place, str(self.folder / place.strip("/")))
        if command == "gateway serve" and code == 0:
            self._serve()
            return
        if command.startswith("gateway ") and not FOR_A_SHELL.intersection(command):
            done = self._gateway(*shlex.split(command)[1:])
        else:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self._environment(),
                capture_output=True,
                text=True,
                check=False,
            )

        assert code == done.returncode, (line, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr

    def _serve(self) -> None:
        """Serve in the background, as an operator's service does, and wait until it is well."""
        port = free_port()
        log = self.folder / "gateway.log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                ["gateway", "serve"],
                cwd=self.folder,
                env=self._environment() | {"GATEWAY__LISTEN": f"127.0.0.1:{port}"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self.processes.append(process)
        deadline = time.monotonic() + WAIT_S
        while not self._is_well(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    @staticmethod
    def _is_well(port: int) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/-/health", timeout=30
            ) as seen:
                return bool(seen.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def _environment(self) -> dict[str, str]:
        tools = self.folder / "bin"
        return {
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            **self.said,
        }

    def stop(self) -> None:
        """End what serves."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(WAIT_S)

    def statements(self) -> list[object]:
        """Return what the ledger in place says."""
        with contextlib.closing(SqliteLedger(self.data / "ledger.db")) as store:
            return [read_leaf(leaf) for leaf in store.leaves(0, store.head().size)]

    def texts(self) -> list[bool]:
        """Tell of each exchange whether its text is there."""
        with contextlib.closing(sqlite.connect(self.data / "content.db")) as connection:
            rows = connection.execute("SELECT exchange FROM content WHERE key IS NOT NULL")
            there = {exchange for (exchange,) in rows}
        return [one in there for one in self.exchanges]

    def gateway(self, *words: str) -> str:
        """Run one command that must succeed; return what it said."""
        done = self._gateway(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def _gateway(self, *words: str) -> subprocess.CompletedProcess[str]:
        return shared().run(self.folder, words, environment=self._environment())


# -- the states ---------------------------------------------------------------------------


def fine(case: Case) -> None:
    """Leave it as it is."""


def died(case: Case) -> None:
    """An exchange was under way."""
    exchange = new_exchange_id(SystemClock().now_ms())
    with contextlib.closing(SqliteLedger(case.data / "ledger.db")) as store:
        store.append([an_opening(exchange)])


def full(case: Case) -> None:
    """A statement found no room; there is room again."""
    with (
        brittle_disk() as disk,
        contextlib.closing(SqliteLedger(case.data / "ledger.db")) as store,
    ):
        disk.full = True
        with pytest.raises(GatewayError, match="disk is full"):
            store.append([an_opening(new_exchange_id(0))])
        disk.full = False


def unsynced(case: Case) -> None:
    """A sync failed while a statement was written."""
    with (
        brittle_disk() as disk,
        contextlib.closing(SqliteLedger(case.data / "ledger.db")) as store,
    ):
        disk.sync_fails = True
        with pytest.raises(GatewayError):
            store.append([an_opening(new_exchange_id(SystemClock().now_ms()))])
        disk.sync_fails = False


def damaged(case: Case) -> None:
    """A leaf was changed, and others came after the newest backup."""
    case.gateway("use", "declare", "--project", "p", "--owner", "ada", "purpose=evaluate")
    case.gateway("ledger", "checkpoint")
    with contextlib.closing(sqlite.connect(case.data / "ledger.db")) as connection:
        connection.execute("UPDATE leaf SET leaf = CAST(leaf || ' ' AS BLOB) WHERE seq = 2")


def older(case: Case) -> None:
    """An older copy of the ledger lies beside the newest checkpoint."""
    shutil.copytree(case.folder / "backup" / "newest", case.folder / "backup" / "older")
    shutil.copy(case.data / "ledger.db", case.folder / "aside.db")
    case.gateway("use", "declare", "--project", "p", "--owner", "ada", "purpose=evaluate")
    (case.folder / "mnt/other/checkpoint").write_text(case.gateway("ledger", "checkpoint"))
    shutil.rmtree(case.folder / "backup" / "newest")
    case.gateway("backup", str(case.folder / "backup" / "newest"))
    for path in case.data.glob("ledger.db*"):
        path.unlink()
    shutil.move(case.folder / "aside.db", case.data / "ledger.db")


def unindexed(case: Case) -> None:
    """The index is no database."""
    (case.data / "index.db").write_bytes(b"nonsense" * 999)


def textless(case: Case) -> None:
    """One text was erased since the backup; then the file was lost."""
    why = ("--by", "ada", "--reason", "asked for")
    case.gateway("content", "erase", "--exchange", case.exchanges[1], *why)
    for path in case.data.glob("content.db*"):
        path.unlink()


def keyless(case: Case) -> None:
    """The key to the texts is gone."""
    (case.data / "keys" / "content.key").unlink()


def unlocked(case: Case) -> None:
    """The file of gateway keys is gone."""
    (case.data / "access.db").unlink()


def forked(case: Case) -> None:
    """Whoever has the keys signed another history here than the copy has seen."""
    case.gateway("ledger", "checkpoint")
    shutil.copy(case.data / "checkpoint", case.folder / "mnt/other/checkpoint")
    with case.settings.open("a") as file:
        file.write(f"checkpoint:\n  copies: [{case.folder}/mnt/other/checkpoint]\n")
    keys = case.folder / "the-thief"
    shutil.copytree(case.data / "keys", keys)
    for path in case.data.glob("ledger.db*"):
        path.unlink()
    (case.data / "checkpoint").unlink()
    (case.data / "index.db").unlink()
    origin = json.loads((case.data / "trust.json").read_bytes())["origin"]
    SqliteLedger.create(case.data / "ledger.db", origin).close()
    with contextlib.closing(SqliteLedger(case.data / "ledger.db")) as store:
        size = int((case.folder / "mnt/other/checkpoint").read_text().splitlines()[1])
        store.append([an_opening(new_exchange_id(n)) for n in range(size)])


def impersonated(case: Case) -> None:
    """A key that has ended signed something that nobody here said."""
    case.gateway("use", "declare", "--project", "p", "--owner", "eve", "purpose=evaluate")
    lines = case.gateway("key", "show").splitlines()
    ended = [line.split() for line in lines if "process-ended" in line]
    case.said = {"KEYID": ended[-1][1], "FIRST": ended[-1][2]}


def shortened(case: Case) -> None:
    """What came after the backup is gone for good."""
    damaged(case)
    for path in case.data.glob("ledger.db*"):
        path.unlink()
    (case.folder / "mnt/other/checkpoint").write_text((case.data / "checkpoint").read_text())


def with_a_key(case: Case) -> None:
    """There is a key to revoke."""
    case.gateway("key", "new", "--principal", "eve", "--project", "search")
    case.said = {"KEYID": re.findall("key-[0-9a-f]{12}", case.gateway("key", "list"))[-1]}


def limited(case: Case) -> None:
    """The settings are as the guide's section on limits has them."""
    _set_as_written(case, "Limits")
    case.gateway("key", "new", "--principal", "ada", "--project", "search")


def priced(case: Case) -> None:
    """The settings are as the guide's section on money has them, with the example's prices."""
    shutil.copy(ROOT / "examples" / "prices.yaml", case.folder)
    _set_as_written(case, "Money")


def _set_as_written(case: Case, heading: str) -> None:
    section = (GUIDES / "limits.md").read_text("utf-8").split(f"## {heading}\n")[1]
    with case.settings.open("a") as file:
        file.write("\n" + section.split("```yaml\n")[1].split("```")[0])


# -- what must be true afterwards ------------------------------------------------------------


def closed(case: Case) -> None:
    """The exchange that was under way is an abandonment."""
    assert 1 == sum(isinstance(one, Abandonment) for one in case.statements())
    assert [True] * 3 == case.texts()


def whole(case: Case) -> None:
    """Every text is there and the ledger is clean."""
    assert [True] * 3 == case.texts()
    assert case.gateway("ledger", "fsck").endswith("clean\n")


def complete(case: Case) -> None:
    """What came after the backup is there too."""
    whole(case)
    assert "evaluate" in case.gateway("use", "list")


def without_the_erased(case: Case) -> None:
    """What was erased since the backup is not back."""
    assert [True, False, True] == case.texts()


def without_texts(case: Case) -> None:
    """No text is left, and nobody is told that there is."""
    assert [False] * 3 == case.texts()
    assert "erasure" in case.gateway("ledger", "fsck")


def copied(case: Case) -> None:
    """There is a new backup, and the old one is gone."""
    assert (case.folder / "backup" / "after" / "backup.json").is_file()
    assert not (case.folder / "backup" / "newest").exists()


def disbelieved(case: Case) -> None:
    """What the stolen key signed counts as nothing, and is told of."""
    assert "evidence no more: 1 leaves" in case.gateway("ledger", "fsck")


def renamed(case: Case) -> None:
    """The log goes on under its other name, with every leaf and text."""
    whole(case)
    assert "receipts.example.com/second" in (case.data / "checkpoint").read_text()


def revoked(case: Case) -> None:
    """The key that was named is revoked, and the others have what they were made with."""
    rows = case.gateway("key", "list").splitlines()
    (ended,) = (row for row in rows if case.said["KEYID"] in row)

    assert re.search(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T", ended)
    assert any("requests/minute=60" in row and "gpt-4*" in row for row in rows)


def shown_as_limited(case: Case) -> None:
    """Every limit that binds somebody who is known is shown."""
    told = case.gateway("limit", "show")

    for what in ("tokens a day", "tokens a month", "requests a minute", "90000000"):
        assert what in told


Walk = tuple[Callable[[Case], None], Callable[[Case], None]]
"""What brings a folder into a state, and what is true after the guide was followed."""

RECOVERING: Final[dict[str, Walk]] = {
    "Before anything breaks": (fine, whole),
    "The process died": (died, closed),
    "The disk is full": (full, whole),
    "A sync failed": (unsynced, whole),
    "The ledger is damaged": (damaged, complete),
    "An older copy is in place": (older, complete),
    "The index is lost or wrong": (unindexed, whole),
    "Texts are lost": (textless, without_the_erased),
    "The content key is lost": (keyless, without_texts),
    "The gateway keys are lost": (unlocked, whole),
    "Somebody contradicts the ledger": (forked, whole),
    "A receipt key was stolen": (impersonated, disbelieved),
    "The manifest key was stolen or lost": (fine, whole),
    "The log's key was stolen or lost": (fine, renamed),
    "Leaves are lost for good": (shortened, renamed),
}
ERASING: Final[dict[str, Walk]] = {
    "When somebody asks for it": (fine, without_texts),
    "What it does not reach": (fine, copied),
}
LIMITS: Final[dict[str, Walk]] = {
    "Keys": (with_a_key, revoked),
    "Limits": (limited, shown_as_limited),
    "Money": (priced, whole),
}
WALKS: Final = {"recovering.md": RECOVERING, "erasing.md": ERASING, "limits.md": LIMITS}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ExchangeId]]:
    """Return a folder with settings, data with three texts, a backup and a checkpoint."""
    folder = tmp_path_factory.mktemp("guide") / "house"

    async def fill() -> list[ExchangeId]:
        async with kept_in(folder, "sk-1", "sk-2", "sk-3") as kept:
            return kept.exchanges

    exchanges = asyncio.run(fill())
    kept = Kept(folder, folder / "gateway.yaml")
    for name in ("backup", "mnt/other", "bin"):
        (folder / name).mkdir(parents=True)
    tool = folder / "bin" / "gateway"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway "$@"\n')
    tool.chmod(0o755)
    code, note, _ = kept.command("ledger", "checkpoint")
    assert code == 0
    (folder / "mnt/other/checkpoint").write_text(note)
    code, _, said = kept.command("backup", str(folder / "backup" / "newest"))
    assert code == 0, said
    return folder, exchanges


@pytest.fixture
def case(template: tuple[Path, list[ExchangeId]], tmp_path: Path) -> Iterator[Case]:
    """Return a copy of that folder to break."""
    folder, exchanges = template
    shutil.copytree(folder, tmp_path / "case")
    one = Case(tmp_path / "case", exchanges)
    yield one
    one.stop()


def test_every_section_with_commands_is_walked_through() -> None:
    """No command stands in the guide that no test runs, and no test is left behind."""
    for guide, walks in WALKS.items():
        assert walks.keys() == sections(guide).keys()


@pytest.mark.crash
@pytest.mark.parametrize(
    ("guide", "section"), [(guide, section) for guide in WALKS for section in WALKS[guide]]
)
def test_the_commands_of_a_section_work(case: Case, guide: str, section: str) -> None:
    """In the state that a section is about, its commands do what it promises."""
    prepare, promised = WALKS[guide][section]
    prepare(case)
    for line in sections(guide)[section]:
        case.run(line)
    case.stop()

    promised(case)


def test_links_lead_somewhere() -> None:
    """Whatever section the guide sends its reader to is there."""
    text = (GUIDES / "recovering.md").read_text("utf-8")
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.removeprefix("## ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("## ")
    }

    assert set() == set(re.findall(r"\]\(#([^)]*)\)", text)) - headings


def test_every_finding_is_explained() -> None:
    """Whatever fsck can find, the guide says what it means and what to do."""
    source = (ROOT / "gateway" / "ledger" / "custody" / "fsck.py").read_text("utf-8")
    codes = set(re.findall(r'\badd\(\s*"([a-z_]+\.[a-z_]+)"', source))
    codes |= {"receipt.malformed", "signature.bad", "proof.bad", "ledger.damaged"}
    text = (GUIDES / "recovering.md").read_text("utf-8")

    assert set() == {code for code in codes if f"`{code}`" not in text}
    assert "root.differs" in codes
