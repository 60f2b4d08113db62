"""A pipeline that is killed leaves whole batches, each with its texts, and nothing half."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from gateway import settings
from gateway.app.installation import open_sourced
from gateway.ledger.custody.fsck import fsck
from gateway.receipt.model import Derivation
from gateway.receipt.statement import read_leaf
from tests.support.pipeline import messages, works_in

ROOT: Final = Path(__file__).resolve().parents[2]
ROWS: Final = 3_000
COMMAND: Final = ("--transform", "clean", "--version", "1", "--kind", "rewrite", "--by", "ada")


@pytest.mark.crash
def test_a_killed_pipeline_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """However often it is killed, the same command ends with every line recorded and named."""
    with works_in(tmp_path) as works:
        declared = works.declare()
        source = works.answer(declared)
    file = tmp_path / "made.jsonl"
    rows = [messages("q", f"{at} {'x' * 400}") for at in range(ROWS)]
    file.write_text("".join(json.dumps(row | {"receipt": source}) + "\n" for row in rows))
    beside = tmp_path / "made.jsonl.receipts.jsonl"
    command = [sys.executable, "-m", "gateway", "--config", str(works.file)]
    command += ["dataset", "derive", str(file), "--for", declared.id, *COMMAND]
    kills = 0
    for limit in (1, 200, 40_000, 150_000):
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and (not beside.exists() or _size(beside) < limit):
            time.sleep(0.001)
        kills += process.poll() is None
        process.kill()
        process.wait()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr
    assert kills
    named = {
        one["line"]: one["receipt"] for one in map(json.loads, beside.read_text().splitlines())
    }
    assert list(range(1, ROWS + 1)) == sorted(named)
    with closing(open_sourced(settings.load(works.file, environment={}))) as house:
        assert [] == fsck(house.store, house.keyring.trust).findings
        found: dict[str, bytes] = {}
        for leaf in house.reader.leaves(0, house.reader.size()):
            one = read_leaf(leaf)
            if isinstance(one, Derivation):
                kept = house.content.get(one.derivation)
                assert kept is not None
                assert len(one.rows) == len(kept.rows)
                found |= {f"{one.derivation}/{at}": line for at, line in kept.rows.items()}
    assert rows == [json.loads(found[named[at + 1]]) for at in range(ROWS)]


def _size(path: Path) -> int:
    return path.stat().st_size
