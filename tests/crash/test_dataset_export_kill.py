"""Pull the plug while a dataset is exported: it is there whole, or the next run makes it so."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from contextlib import closing

import pytest

from gateway.app.installation import open_installation
from gateway.dataset.export.verify import verify_export
from gateway.receipt.keys import parse_trust
from gateway.receipt.model import EXPORT_BUILD, Manifest
from gateway.receipt.statement import read_leaf
from tests.integration.test_dataset_commands import Desk, desk

__all__ = ["desk"]

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1200)]

EXPORT = """
import argparse, contextlib, dataclasses, os, signal, sys
from pathlib import Path
from gateway.app.installation import open_installation
from gateway.cli.export import sources_of
from gateway.dataset.export.forms import FORMS
from gateway.dataset.export.write import Order, export_dataset

config, dataset, folder, step = sys.argv[1:]

def die(*said):
    os.kill(os.getpid(), signal.SIGKILL)

with contextlib.closing(open_installation(argparse.Namespace(config=config))) as house:
    order = Order(dataset=Path(dataset), form=FORMS["openai"], folder=Path(folder))
    sources = sources_of(house, house.keyring.trust)
    def append(leaf):
        if step == "before the leaf":
            die()
        index = sources.append(leaf)
        if step == "after the leaf":
            die()
        return index
    changes = {"append": append}
    if step == "while rows are written":
        changes["was_erased"] = die
    if step == "before the proof":
        changes["prove"] = die
    export_dataset(order, dataclasses.replace(sources, **changes))
"""
STEPS = (
    "while rows are written",
    "before the leaf",
    "after the leaf",
    "before the proof",
    "never",
)


def test_a_killed_export_is_finished_by_the_next(desk: Desk) -> None:
    """Killed at each durable mark, nothing stands; the last run leaves it, logged once."""
    declaration = desk.declare()
    for text in ("one", "two"):
        desk.answer(declaration, text)
    desk.run("dataset", "build", "set", "--for", declaration)
    data = desk.folder / "data"
    folder = data / "exports" / "set-openai"

    for step in STEPS:
        words = [desk.config, data / "datasets" / "set", folder, step]
        assert not folder.exists()
        ended = subprocess.run(
            [sys.executable, "-c", EXPORT, *map(str, words)],
            check=False,
            capture_output=True,
            timeout=200,
        )
        assert (0 if step == "never" else -9) == ended.returncode, ended.stderr

    trust = parse_trust((data / "trust.json").read_bytes())
    verified = verify_export(folder, trust)
    assert [verified.manifest_index] == exports_in(desk)
    assert ["set-openai"] == [entry.name for entry in folder.parent.iterdir()]


def exports_in(desk: Desk) -> list[int]:
    """Return where the ledger says that something was exported."""
    with closing(open_installation(Namespace(config=str(desk.config)))) as house:
        leaves = list(house.reader.leaves(0, house.reader.size()))
    return [
        index
        for index, leaf in enumerate(leaves)
        if isinstance(said := read_leaf(leaf), Manifest) and said.build_type == EXPORT_BUILD
    ]
