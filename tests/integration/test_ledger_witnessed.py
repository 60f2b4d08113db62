"""A ledger whose checkpoints witnesses in processes of their own cosign."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from gateway.clock import FrozenClock
from gateway.errors import LedgerDamagedError, LedgerUnwellError
from gateway.ledger.publishing.alarms import UNCHECKED, UNWITNESSED
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.publishing.witness import Witness, Witnesses
from gateway.ledger.sequencing.sequencer import Sequencer
from gateway.receipt.keys import LogSigner, generate_pem
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.cosignature import check_quorum
from gateway.tlog.note import open_note, parse_vkey
from tests.support.authority import Authority
from tests.support.store import append_all, exchanges
from tests.support.witness import ROOT, CrookedServer, WitnessProcess

SIGNERS: Final = [
    LogSigner(generate_pem("ed25519"), f"log.example/{number}") for number in range(12)
]
"""A log a test: witnesses never forget one."""

PATIENCE_S: Final = 30.0
"""How long a witness that is well may take on a busy machine."""


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[WitnessProcess]]:
    """Return three witnesses, not started."""
    folder = tmp_path_factory.mktemp("witnesses")
    vkeys = [signer.vkey for signer in SIGNERS]
    three = [
        WitnessProcess(folder / f"w{number}", f"witness.example/w{number}", *vkeys)
        for number in range(3)
    ]
    yield three
    for one in three:
        one.kill()


@pytest.fixture
def three(processes: list[WitnessProcess]) -> list[WitnessProcess]:
    """Return the witnesses, all of them well."""
    for one in processes:
        if not one.running:
            one.start()
    return processes


class Opened:
    """One ledger, opened as often as a test likes, and closed at the end."""

    def __init__(self, folder: Path, signer: LogSigner, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.signer = signer
        self.checkpoint_file = folder / "checkpoint"
        self._stack = stack
        self.store = SqliteLedger.create(folder / "ledger.db", signer.name)
        stack.callback(self.close)

    def close(self) -> None:
        """Close the file."""
        self.store.close()

    def reopen(self) -> SqliteLedger:
        """Open the file anew, as after a restart."""
        self.store.close()
        self.store = SqliteLedger(self.folder / "ledger.db", origin=self.signer.name)
        return self.store

    def publisher(
        self,
        three: list[WitnessProcess],
        *,
        slow: WitnessProcess | None = None,
        start_unwitnessed: bool = False,
    ) -> Publisher:
        """Return a publisher of which two of *three* must cosign; *slow* gets little time."""
        clients = [
            Witness(one.url, one.verifier, timeout_s=0.5 if one is slow else PATIENCE_S)
            for one in three
        ]
        return self.published(Witnesses(clients, 2), start_unwitnessed=start_unwitnessed)

    def published(self, witnesses: Witnesses, *, start_unwitnessed: bool = False) -> Publisher:
        """Return a publisher with *witnesses*."""
        made = Publisher(
            self.store,
            self.signer,
            self.signer.name,
            FrozenClock(),
            publish_file=self.checkpoint_file,
            witnesses=witnesses,
            start_unwitnessed=start_unwitnessed,
        )
        self._stack.callback(made.close)
        return made

    def sequencer(self, publisher: Publisher) -> Sequencer:
        """Return a sequencer, started."""
        made = Sequencer(self.store, publisher)
        made.start()
        self._stack.callback(made.stop)
        return made

    def size_of(self, note: str) -> int:
        """Return how many leaves *note*, signed by the log, covers."""
        return parse_checkpoint(open_note(note, [parse_vkey(self.signer.vkey)])).size


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Return a fresh ledger."""
    folder = tmp_path / "data"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        yield Opened(folder, SIGNERS.pop(), stack)


async def test_what_is_handed_out_is_cosigned(
    opened: Opened, three: list[WitnessProcess]
) -> None:
    """A statement is integrated by a checkpoint that a quorum of witnesses cosigned."""
    sequencer = opened.sequencer(opened.publisher(three))
    for count in (1, 3):
        placed = await append_all(sequencer, exchanges(count, first=10 * count))
        note = await sequencer.integrated(max(placed))

        assert opened.size_of(note) == max(placed) + 1
        assert check_quorum(note, [one.verifier for one in three], 2)
        assert note == opened.checkpoint_file.read_text()


async def test_one_dead_one_slow_one_lying(opened: Opened, three: list[WitnessProcess]) -> None:
    """Two of three are needed; with one dead and one lying nothing is published any more."""
    publisher = opened.publisher(three, slow=three[1])
    sequencer = opened.sequencer(publisher)
    three[0].kill()
    (index,) = await append_all(sequencer, exchanges(1)[:1])
    note = await _integrated(sequencer, index)
    assert 2 == len(check_quorum(note, [one.verifier for one in three], 2))
    three[1].signal(signal.SIGSTOP)
    (index,) = await append_all(sequencer, exchanges(1)[1:])
    with pytest.raises(LedgerUnwellError, match="too few witnesses cosign"):
        await sequencer.integrated(index)

    assert note == opened.checkpoint_file.read_text()
    assert note == opened.store.checkpoint()
    assert not sequencer.healthy
    assert [UNWITNESSED] * 2 == [alarm.code for alarm in publisher.alarms()]
    # Statements go on, and are covered as soon as a second witness is back.
    (index,) = await append_all(sequencer, exchanges(1, first=5)[:1])
    three[1].signal(signal.SIGCONT)
    note = await _integrated(sequencer, index)
    assert 3 == opened.size_of(note)
    assert sequencer.healthy


async def _integrated(sequencer: Sequencer, index: int) -> str:
    """Return a checkpoint over *index*, asked for until there is one."""
    until = time.monotonic() + 120
    while True:
        try:
            return await sequencer.integrated(index)
        except LedgerUnwellError:
            assert time.monotonic() < until


def _cosigned_by_all(opened: Opened, three: list[WitnessProcess], size: int) -> None:
    """Wait until the last of *three* has cosigned, too: two are enough to publish."""
    until = time.monotonic() + 120
    while {size} != {one.cosigned(opened.signer.name) for one in three}:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_lying_witness_does_not_count(opened: Opened, three: list[WitnessProcess]) -> None:
    """A cosignature that does not verify is not put on a checkpoint."""
    opened.store.append(exchanges(1))
    other = three[1]

    def lie(body: bytes) -> tuple[int, str, bytes]:
        answer = other.post(body)
        return answer.status, answer.kind, answer.body.replace(b"w1 ", b"w2 ")

    with CrookedServer(lie) as liar:
        honest = [Witness(one.url, one.verifier, timeout_s=PATIENCE_S) for one in three[:2]]
        crooked = Witness(liar.url, three[2].verifier, timeout_s=PATIENCE_S)
        witnesses = Witnesses([*honest, crooked], 2)
        publisher = opened.published(witnesses)
        note = publisher.checkpoint_now()

    assert 2 == len(check_quorum(note, [one.verifier for one in three], 2))
    assert ["`witness.example/w2`"] == [a.told.split()[0] for a in publisher.alarms()]


def test_a_restored_backup_is_refused(opened: Opened, three: list[WitnessProcess]) -> None:
    """Where no copy is left at all, the witnesses still know; nothing is taken or signed."""
    opened.store.append(exchanges(2))
    opened.publisher(three).checkpoint_now()
    opened.store.close()
    backup = opened.folder.with_name("backup")
    shutil.copytree(opened.folder, backup)
    opened.reopen().append(exchanges(1))
    opened.publisher(three).checkpoint_now()
    _cosigned_by_all(opened, three, 6)
    opened.store.close()
    shutil.rmtree(opened.folder)
    backup.rename(opened.folder)
    opened.reopen()
    with pytest.raises(LedgerDamagedError, match="6 leaves, more than the ledger has"):
        Sequencer(opened.store, opened.publisher(three)).start()
    # One of the three is enough to know, and says so even where no start must be checked.
    three[0].kill()
    three[1].kill()
    with pytest.raises(LedgerDamagedError):
        opened.publisher(three, start_unwitnessed=True).check()
    with pytest.raises(LedgerDamagedError):
        Sequencer(opened.store, opened.publisher(three)).append_and_wait(exchanges(1)[0])
    # Grown as far with other leaves, it is told apart all the same.
    opened.store.append(exchanges(1, first=50))
    with pytest.raises(LedgerDamagedError, match=r"another root|other 6 leaves"):
        opened.publisher(three, start_unwitnessed=True).check()
    opened.store.append(exchanges(1, first=60))
    with pytest.raises(LedgerDamagedError, match="other 6 leaves"):
        opened.publisher(three, start_unwitnessed=True).checkpoint_now()


async def test_a_twin_that_grew_elsewhere_stops_the_gateway(
    opened: Opened, three: list[WitnessProcess], tmp_path: Path
) -> None:
    """Two gateways on copies of one data folder: one of them stops taking statements."""
    sequencer = opened.sequencer(opened.publisher(three))
    await append_all(sequencer, exchanges(1))
    note = await _integrated(sequencer, 1)
    twin = tmp_path / "twin"
    twin.mkdir()
    for file in opened.folder.iterdir():
        if not file.name.endswith("-shm"):
            shutil.copy(file, twin / file.name)
    with contextlib.closing(SqliteLedger(twin / "ledger.db")) as other:
        other.append(exchanges(2, first=70))
        clients = [Witness(one.url, one.verifier, timeout_s=PATIENCE_S) for one in three]
        beside = Publisher(
            other,
            opened.signer,
            opened.signer.name,
            FrozenClock(),
            witnesses=Witnesses(clients, 2),
        )
        beside.checkpoint_now()
        beside.close()
    await append_all(sequencer, exchanges(1, first=80))
    until = time.monotonic() + 120
    while not isinstance(sequencer.trouble, LedgerDamagedError):
        assert time.monotonic() < until
        with contextlib.suppress(LedgerUnwellError, LedgerDamagedError):
            await sequencer.integrated(2)

    with pytest.raises(LedgerDamagedError, match="has cosigned 6 leaves"):
        await sequencer.append(exchanges(1, first=90)[0])
    assert note == opened.checkpoint_file.read_text()
    assert not sequencer.healthy


def test_a_start_that_cannot_be_checked_is_refused(
    opened: Opened, three: list[WitnessProcess]
) -> None:
    """With two of three needed, two must answer, unless the operator says otherwise."""
    opened.store.append(exchanges(1))
    opened.publisher(three).checkpoint_now()
    three[0].kill()
    opened.publisher(three).check()
    three[1].kill()
    with pytest.raises(LedgerUnwellError, match="2 of 3 must"):
        opened.publisher(three).check()
    with pytest.raises(LedgerUnwellError, match="2 of 3 must"):
        Sequencer(opened.store, opened.publisher(three)).append_and_wait(b"leaf")
    trusting = opened.publisher(three, start_unwitnessed=True)
    trusting.check()
    assert UNCHECKED in [alarm.code for alarm in trusting.alarms()]
    opened.store.append(exchanges(1, first=5))
    with pytest.raises(LedgerUnwellError, match="too few witnesses cosign"):
        trusting.checkpoint_now()
    three[1].start()
    trusting.checkpoint_now()
    assert [UNWITNESSED] == [alarm.code for alarm in trusting.alarms()]


def test_processes_publish_in_turn(opened: Opened, three: list[WitnessProcess]) -> None:
    """A command beside a running gateway publishes what witnesses cosign, and so does that."""
    two = [opened.publisher(three) for _ in range(2)]
    for number in range(6):
        opened.store.append(exchanges(1, first=10 * number))
        note = two[number % 2].checkpoint_now()

        assert 2 * number + 2 == opened.size_of(note)
        assert check_quorum(note, [one.verifier for one in three], 2)


def test_the_command_publishes_only_what_is_cosigned(
    three: list[WitnessProcess], tmp_path: Path
) -> None:
    """`gateway ledger checkpoint` with settings that name witnesses, and one that is gone."""

    def gateway(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    made = gateway("init", "--origin", "log.example/command")
    assert 0 == made.returncode, made.stderr
    trust = json.loads((tmp_path / "gateway-data" / "trust.json").read_text())
    folder = tmp_path / "witness"
    witness = WitnessProcess(folder, "witness.example/command", trust["log"])
    witness.start()
    (tmp_path / "gateway.yaml").write_text(
        "checkpoint:\n  witnesses:\n"
        f"    - {{url: '{witness.url}', vkey: '{witness.vkey}'}}\n"
        "  copies: [copy]\n"
    )
    shown = gateway("ledger", "checkpoint")
    assert 0 == shown.returncode, shown.stderr
    assert 1 == len(check_quorum(shown.stdout, [witness.verifier], 1))
    assert shown.stdout == (tmp_path / "copy").read_text()
    assert 0 == witness.stop()
    refused = gateway("ledger", "checkpoint")
    assert 3 == refused.returncode
    assert "too few witnesses answer" in refused.stderr
    assert 1 == refused.stderr.count("\n")


def test_certificates_are_checked(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A witness behind TLS is asked where the system trusts its certificate, else never."""
    root = Authority(tmp_path / "root")
    door = root.issue("door", "127.0.0.1")
    witness = WitnessProcess(
        tmp_path / "w", "witness.example/tls", opened.signer.vkey, tls=door
    )
    witness.start()
    try:
        asked = Witnesses([Witness(witness.url, witness.verifier)], 1)
        with pytest.raises(LedgerUnwellError, match="CERTIFICATE_VERIFY_FAILED"):
            opened.published(asked).checkpoint_now()
        monkeypatch.setenv("SSL_CERT_FILE", str(root.root))
        note = opened.published(asked).checkpoint_now()
    finally:
        witness.kill()

    assert check_quorum(note, [witness.verifier], 1)


def test_a_witness_is_not_open_to_others_without_tls(tmp_path: Path) -> None:
    """Beyond this machine it speaks TLS, or says who does in its place."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gateway", "ledger", "witness", "--listen", "0.0.0.0:0"),
            *("--name", "w", "--key", "k", "--state", "s", "--log", SIGNERS[0].vkey),
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 3 == done.returncode
    assert "needs --cert" in done.stderr
    assert [] == list(tmp_path.iterdir())


def test_a_log_goes_on_under_another_name(tmp_path: Path) -> None:
    """Witnesses are told of the successor, copies of the log before are kept to, as guided."""

    def gateway(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    def vkey() -> str:
        return str(json.loads((tmp_path / "gateway-data" / "trust.json").read_text())["log"])

    def asked() -> tuple[list[str], int]:
        trust = json.loads((tmp_path / "gateway-data" / "trust.json").read_text())
        return trust["witnesses"], trust["quorum"]

    assert 0 == gateway("init", "--origin", "log.example/before").returncode
    old = vkey()
    witness = WitnessProcess(tmp_path / "w", "witness.example/rotated", old).start()
    (tmp_path / "gateway.yaml").write_text(
        f"checkpoint:\n  witnesses: [{{url: '{witness.url}', vkey: '{witness.vkey}'}}]\n"
        "  copies: [copy]\n"
    )
    told = gateway("key", "trust", "--by", "R. Osei")
    assert 0 == told.returncode, told.stderr
    assert ([witness.vkey], 1) == asked()
    assert 0 == gateway("ledger", "checkpoint").returncode
    rotating = ("key", "rotate", "log", "--origin", "log.example/after", "--by", "R. Osei")
    waits = gateway(*rotating)
    assert 3 == waits.returncode, waits.stdout
    assert "give it the log's vkey" in waits.stderr
    witness.kill()
    again = WitnessProcess(tmp_path / "w", "witness.example/rotated", old, vkey())
    again.listen_like(witness)
    again.start()
    try:
        done = gateway(*rotating)
        assert 0 == done.returncode, done.stderr
        note = (tmp_path / "copy").read_text()
    finally:
        again.kill()

    assert old != vkey()
    assert note.startswith("log.example/after\n")
    assert 1 == len(check_quorum(note, [again.verifier], 1))
    assert ([witness.vkey], 1) == asked()
