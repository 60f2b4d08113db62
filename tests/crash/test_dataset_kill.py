"""Pull the plug while a dataset is built: it stands whole or not at all, and is built after."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.dataset.verification.verify import verify_dataset
from gateway.receipt.keys import parse_trust
from tests.integration.test_dataset_commands import Desk

pytestmark = pytest.mark.crash

POINTS = (
    "ruling again",
    "writing rows",
    "before Members",
    "after Members",
    "before Manifest",
    "after Manifest",
    "publish",
)

BUILD = """
import argparse, dataclasses, os, signal, sys
from gateway.app.installation import open_installation
from gateway.cli.building import sources_of
from gateway.dataset.assembly.build import Order, build_dataset
from gateway.receipt.statement import read_leaf

config, use, point = sys.argv[1:]
house = open_installation(argparse.Namespace(config=config))

def reach(name, *_):
    if name == point:
        os.kill(os.getpid(), signal.SIGKILL)

def append(leaf):
    kind = type(read_leaf(leaf)).__name__
    reach(f"before {kind}")
    index = sources.append(leaf)
    reach(f"after {kind}")
    return index

def publish():
    reach("publish")
    return sources.publish()

order = Order(
    name="set",
    declaration=house.register.declaration(use),
    folder=house.data / "datasets" / "set",
    dedupe="near",
)
sources = sources_of(house, order)
build_dataset(order, dataclasses.replace(sources, append=append, publish=publish), reach)
"""


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """Return an installation and its command line."""
    with closing(Desk(tmp_path, capsys)) as desk:
        yield desk


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_build_leaves_a_whole_dataset_or_none(desk: Desk, point: str) -> None:
    """Wherever it ends, nothing half made stands, and the same command makes it whole."""
    use = desk.declare()
    for text in ("one", "two", "three"):
        desk.answer(use, text)
    words: list[str | Path] = [sys.executable, "-c", BUILD, desk.config, use, point]
    killed = subprocess.run(words, check=False, capture_output=True, timeout=200)
    datasets = desk.folder / "data" / "datasets"

    assert -9 == killed.returncode, killed.stderr
    assert not (datasets / "set").exists()
    said = desk.run("dataset", "build", "set", "--for", use, "--dedupe", "near")
    trust = parse_trust((desk.folder / "data" / "trust.json").read_bytes())
    dataset = verify_dataset(datasets / "set", trust)
    assert 3 == dataset.rows
    assert ["set"] == [path.name for path in datasets.iterdir()]
    assert ("put into place" in said) is (point in {"after Manifest", "publish"})
