"""Several processes and one ledger."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gateway.receipt.keys import generate_pem
from gateway.tlog.merkle import Frontier, leaf_hash
from tests.support.store import LedgerUnderTest

ROOT = Path(__file__).resolve().parents[2]


def test_two_processes_keep_one_order(tmp_path: Path) -> None:
    """Two processes that append at the same time share one order without a gap or a double."""
    ledger = LedgerUnderTest(tmp_path)
    (tmp_path / "log.key").write_bytes(generate_pem("ed25519"))
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.appender", str(tmp_path), "4", first, "60"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for first in ("0", "1000")
    ]
    printed = [process.communicate(timeout=200)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    promised = dict(
        line.split(" ", 1)
        for output in printed
        for line in output.splitlines()
        if line != "ready"
    )
    leaves = ledger.leaves()
    assert len(leaves) == len(promised) == 480
    frontier = Frontier()
    for index, leaf in enumerate(leaves):
        frontier.push(leaf_hash(leaf))
        assert leaf.startswith(promised[str(index)].encode() + b" ")
    assert ledger.store.head().frontier == frontier.hashes
    ledger.store.close()
