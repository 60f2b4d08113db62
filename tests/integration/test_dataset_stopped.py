"""Told to stop while it builds, the command says in one line what was kept, and what to do."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.app.installation import Installation, open_installation
from gateway.cli import export
from gateway.cli.building import sources_of, stopped
from gateway.cli.stopping import until_stopped
from gateway.dataset.assembly.build import Order, build_dataset
from gateway.dataset.export.forms import FORMS
from gateway.dataset.export.write import Order as ExportOrder
from gateway.dataset.export.write import export_dataset
from gateway.ident import DeclarationId
from gateway.receipt.model import Manifest
from gateway.receipt.statement import read_leaf
from tests.integration.test_dataset_commands import Desk


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """Return an installation and its command line."""
    with closing(Desk(tmp_path, capsys)) as desk:
        yield desk


def order_in(house: Installation, use: str) -> Order:
    """Return what the command would build."""
    declaration = house.register.declaration(DeclarationId(use))
    assert declaration is not None
    return Order(name="set", declaration=declaration, folder=house.data / "datasets" / "set")


def build_stopped(desk: Desk, use: str, number: signal.Signals, point: str) -> int:
    """Build a dataset, and say at *point* that it should stop; return the exit code."""
    with closing(open_installation(argparse.Namespace(config=str(desk.config)))) as house:
        order = order_in(house, use)
        sources = sources_of(house, order)

        def reach(name: str, *_: object) -> None:
            if name == point:
                signal.raise_signal(number)

        def append(leaf: bytes) -> int:
            is_manifest = isinstance(read_leaf(leaf), Manifest)
            index = sources.append(leaf)
            reach("manifest" if is_manifest else "members")
            return index

        def work() -> int:
            build_dataset(order, dataclasses.replace(sources, append=append), reach)
            return 0

        return until_stopped(work, lambda: stopped("set", [order]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("point", "kept"),
    [("ruling again", False), ("members", True), ("manifest", True)],
)
def test_a_build_that_is_told_to_stop_says_what_was_kept(
    desk: Desk,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    point: str,
    kept: bool,  # noqa: FBT001 — a case
) -> None:
    """One line, the exit code of the signal, and the same command makes it whole."""
    use = desk.declare()
    desk.answer(use, "one")
    capsys.readouterr()

    left = build_stopped(desk, use, number, point)

    said = capsys.readouterr().err
    folders = sorted(path.name for path in (desk.folder / "data" / "datasets").iterdir())
    assert 128 + number == left
    assert said.startswith("gateway: dataset.interrupted: ")
    assert 1 == said.count("\n")
    assert ([".set.building"] if kept else []) == folders
    assert kept is ("all of it is kept" in said)
    assert kept is not ("nothing of it was kept" in said)
    again = desk.run("dataset", "build", "set", "--for", use)
    assert (point == "manifest") is ("put into place" in again)
    with closing(open_installation(argparse.Namespace(config=str(desk.config)))) as house:
        assert "it was done" in stopped("set", [order_in(house, use)])


@pytest.mark.parametrize(("after", "kept"), [(False, False), (True, True)])
def test_an_export_that_is_told_to_stop_says_what_was_kept(
    desk: Desk,
    capsys: pytest.CaptureFixture[str],
    after: bool,  # noqa: FBT001 — a case
    kept: bool,  # noqa: FBT001 — a case
) -> None:
    """Before its manifest is a leaf nothing is left; afterwards the same command ends it."""
    use = desk.declare()
    desk.answer(use, "one")
    desk.run("dataset", "build", "set", "--for", use)
    capsys.readouterr()
    place = desk.folder / "data"
    order = ExportOrder(
        dataset=place / "datasets" / "set",
        form=FORMS["openai"],
        folder=place / "exports" / "set-openai",
    )
    with closing(open_installation(argparse.Namespace(config=str(desk.config)))) as house:
        sources = export.sources_of(house, house.keyring.trust)

        def stop() -> None:
            signal.raise_signal(signal.SIGTERM)

        def append(leaf: bytes) -> int:
            index = sources.append(leaf)
            stop()
            return index

        def work() -> int:
            asked = dataclasses.replace(sources, append=append) if after else sources
            export_dataset(order, asked, lambda *_: None if after else stop())
            return 0

        left = until_stopped(work, lambda: export.stopped(order.dataset, [order]))

    said = capsys.readouterr().err
    assert 143 == left
    assert said.startswith("gateway: export.interrupted: ")
    assert 1 == said.count("\n")
    assert ([".set-openai.exporting"] if kept else []) == [
        path.name for path in (place / "exports").iterdir()
    ]
    assert kept is ("all of it is kept" in said)
    again = desk.run("dataset", "export", str(order.dataset), "--format", "openai")
    assert kept is ("put into place" in again)


async def test_in_another_thread_nobody_is_told() -> None:
    """Only a main thread is told to stop; a command in another one runs as it is."""
    assert 3 == await asyncio.to_thread(until_stopped, lambda: 3, lambda: "told")


def test_nothing_is_kept_of_what_was_not_begun() -> None:
    """Told to stop before it knew what to build, it says so."""
    assert "nothing of it was kept" in stopped("set", [])
