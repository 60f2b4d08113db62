"""Pull the plug while the log is exported: the folder is the log all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.store.sqlite import SqliteLedger
from tests.support.evidence import LOG_SIGNER, ORIGIN, a_note
from tests.support.foreign import build_go_verifier

pytestmark = pytest.mark.crash

LEAVES = [b"leaf %d of a long log" % number for number in range(1500)]
BEFORE = 700

EXPORT = """
import os, signal, sys
from pathlib import Path
from gateway.ledger.reading.subtrees import Subtrees
from gateway.ledger.reading.tiles import Tiles
from gateway.store.sqlite import SqliteLedger

folder, note, step = Path(sys.argv[1]), Path(sys.argv[2]).read_text(), int(sys.argv[3])
store = SqliteLedger(folder / "ledger.db")

def progress(done, total):
    if done == step:
        os.kill(os.getpid(), signal.SIGKILL)

Tiles(store, Subtrees(store)).export(folder / "log", note, progress)
"""


def export(folder: Path, note: Path, step: int) -> int:
    """Export in a process of its own, which is killed after *step* files; return its end."""
    words: list[str | Path] = [sys.executable, "-c", EXPORT, folder, note, str(step)]
    return subprocess.run(words, check=False, capture_output=True, timeout=200).returncode


def test_a_killed_export_leaves_the_log_of_before(tmp_path: Path) -> None:
    """After each file the process dies: what is there verifies, and the next run goes on."""
    go = build_go_verifier(tmp_path)
    store = SqliteLedger.create(tmp_path / "ledger.db", ORIGIN)
    store.append(LEAVES)
    store.close()
    (tmp_path / "old").write_text(a_note(LEAVES[:BEFORE]))
    (tmp_path / "new").write_text(a_note(LEAVES))
    killed = [export(tmp_path, tmp_path / "old", step) for step in (1, 4)]

    assert [-9, -9] == killed
    assert not (tmp_path / "log" / "checkpoint").exists()
    assert 0 == export(tmp_path, tmp_path / "old", 0)
    for step in range(1, 14):
        assert -9 == export(tmp_path, tmp_path / "new", step)
        said = go.accepts("folder", LOG_SIGNER.vkey, tmp_path / "log", tmp_path / "old")
        assert f"folder of {BEFORE} leaves" in said
    assert 0 == export(tmp_path, tmp_path / "new", 0)
    said = go.accepts("folder", LOG_SIGNER.vkey, tmp_path / "log", tmp_path / "old")
    assert f"folder of {len(LEAVES)} leaves" in said
