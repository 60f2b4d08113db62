"""Pull the plug on a process that appends; the truth must still be the truth."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random

import msgspec
import pytest

from gateway.clock import SystemClock
from gateway.ledger.custody.fsck import fsck
from gateway.ledger.publishing.publisher import Publisher
from gateway.receipt.keys import LogSigner, generate_pem
from gateway.store.sqlite import SqliteLedger
from tests.support.evidence import ORIGIN, TRUST

KILLS = 10
ROOT = Path(__file__).resolve().parents[2]


def acknowledged(output: str) -> dict[int, str]:
    """Return what the process printed whole: the index of each leaf it was promised."""
    lines = output.split("\n")[:-1]
    found = (line.split(" ", 1) for line in lines if line != "ready")
    return {int(index): leaf for index, leaf in found}


@pytest.mark.crash
@pytest.mark.parametrize("seed", range(4))
def test_no_kill_loses_what_was_promised(tmp_path: Path, seed: int) -> None:
    """After `kill -9` at any moment nothing acknowledged is missing, and no index has a gap."""
    rng = Random(seed)
    SqliteLedger.create(tmp_path / "ledger.db", ORIGIN).close()
    pem = generate_pem("ed25519")
    (tmp_path / "log.key").write_bytes(pem)
    signer = LogSigner(pem, ORIGIN)
    trust = msgspec.structs.replace(TRUST, log=signer.vkey)
    checkpoint = tmp_path / "checkpoint"
    promised: dict[int, str] = {}
    for kill in range(KILLS):
        callers = rng.choice([1, 4, 32])
        # Every second time so much is promised first, however slow the disk is.
        promised_first = 25 * (kill % 2)
        after_s = rng.uniform(0.0, 0.5)
        fresh = run_and_kill(tmp_path, callers, kill * 1000, promised_first, after_s)
        assert not promised.keys() & fresh.keys()
        promised |= fresh

        with contextlib.closing(SqliteLedger(tmp_path / "ledger.db")) as store:
            size = store.head().size
            assert max(promised, default=-1) < size
            for index, leaf in enumerate(store.leaves(0, size)):
                if index in promised:
                    assert leaf.startswith(promised[index].encode() + b" "), index
            notes = [checkpoint.read_text()] if checkpoint.exists() else []
            report = fsck(store, trust, published=notes)
            # The leaves of this test are no statements; everything else must be in order.
            assert {one.code for one in report.findings} <= {"receipt.malformed"}
            clock = SystemClock()
            publisher = Publisher(store, signer, ORIGIN, clock, publish_file=checkpoint)
            publisher.checkpoint_now()
    assert len(promised) > 100


def run_and_kill(
    folder: Path, callers: int, first: int, promised_first: int, after_s: float
) -> dict[int, str]:
    """Let a process append for a while, kill it, and return what it was promised."""
    command = [sys.executable, "-m", "tests.support.appender", folder, callers, first]
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        reader = _Drain(process)
        reader.wait_for(promised_first)
        time.sleep(after_s)
        process.kill()
        return acknowledged(reader.rest())


class _Drain:
    """Reads what a process prints, so that it never waits for us."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)

    def wait_for(self, count: int) -> None:
        """Return once so many lines were printed."""
        until = time.monotonic() + 120
        while len(self._lines) < count:
            assert time.monotonic() < until, self._lines
            time.sleep(0.005)

    def rest(self) -> str:
        """Return everything printed until the end."""
        self._thread.join()
        return "".join(self._lines)
