"""The check that the page on datasets shows needs none of our code, and finds what is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support.dataset import House
from tests.support.derived import build, derive, messages, parent

PAGE: Final = Path(__file__).parents[2] / "docs/formats/dataset.md"


def by_hand(folder: Path) -> list[str]:
    """Return what the page's commands print of the dataset in *folder*."""
    text = PAGE.read_text(encoding="utf-8").split("## By hand", 1)[1]
    (script,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("of", "held_out"), [(None, None), ("rewrite", None), ("rewrite", "0.4")]
)
def test_the_page_s_check_agrees(tmp_path: Path, of: str | None, held_out: str | None) -> None:
    """Files, the first row, its leaf, the leaves above and the members are as the page says."""
    house = House(tmp_path / "house")
    use = house.declare()
    answers = [house.answer(use, f"answer {number}") for number in range(3)]
    rows = [
        (messages(f"question {at} of {at * 7} words", f"row {at}"), [parent(house, one)])
        for at, one in enumerate(answers)
    ]
    derive(house, use, rows)
    folder = build(house, use, of=of, held_out=held_out).folder
    told = by_hand(folder)

    files = sum(path.is_file() for path in folder.rglob("*")) - 2
    assert files == sum(line.endswith(": OK") for line in told)
    assert ["True"] * (3 if of is None else 5) == told[files:]
    leaves = folder / "evidence/leaves"
    leaves.write_bytes(leaves.read_bytes().replace(b"c", b"d", 1))
    assert "evidence/leaves: FAILED" in by_hand(folder)
    house.close()
