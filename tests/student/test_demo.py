"""The demo is the main job; it tells the truth on every run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.student

WORDS = (
    "openai/no-competing-models",
    "anthropic/narrow-tools",
    "approved use-",
    "300 rows",
    "Yes: distilled from deepseek (deepseek-chat)",
    "2 stages away",
    "was made from no answer of `openai`",
    "fail signature.bad tampered/receipt.json",
    "fail dataset.row_changed tampered/invoices: rows.jsonl: row 0",
    "fail model.weights_changed tampered/invoice-parser: model.safetensors",
    "clean",
    "Try next:",
)


def test_the_demo_tells_the_whole_story(tmp_path: Path) -> None:
    """From a plain call to a second student, and every edited byte is named."""
    told = subprocess.run(
        [sys.executable, "-m", "gateway", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == told.returncode, told.stdout[-3000:] + told.stderr[-3000:]
    assert [] == [word for word in WORDS if word not in " ".join(told.stdout.split())]


def test_the_demo_removes_nothing_of_yours(tmp_path: Path) -> None:
    """A folder of that name that no demo made stays as it is."""
    mine = tmp_path / "gateway-demo" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("years of work")
    told = subprocess.run(
        [sys.executable, "-m", "gateway", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 3 == told.returncode
    assert "years of work" == mine.read_text()
