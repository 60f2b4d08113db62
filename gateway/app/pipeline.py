"""Open a pipeline on an installation: what a script needs to record what it makes of outputs.

    from gateway.app.pipeline import open_pipeline
    from gateway.dataset import derive

    with open_pipeline(declaration="use-…", by="ada") as pipeline: ...

It appends beside a gateway that serves, as every command does. See `gateway.dataset.derive`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import Progress as Bar

from gateway import settings as settings_module
from gateway.app.installation import Installation, open_sourced
from gateway.dataset.derivation.parents import Records
from gateway.dataset.derivation.pipeline import Pipeline
from gateway.dataset.derivation.recording import Progress
from gateway.dataset.held import HeldWords
from gateway.errors import UnknownDeclarationError
from gateway.ident import DeclarationId
from gateway.ledger.reading.register import KINDS
from gateway.receipt.statement import read_leaf

_TOLD_EVERY_S = 5.0


@contextlib.contextmanager
def open_pipeline(
    config: Path | str | None = None,
    *,
    declaration: str,
    by: str,
    tags: Sequence[str] = (),
    progress: bool = True,
) -> Iterator[Pipeline]:
    """Open the installation of *config* (or as the environment says) and record rows in it.

    *declaration* is the use for which they are made, `use-…`; the rows belong to its project.
    *by* is who runs the pipeline. With *progress*, long maps say on the error output how far
    they are.

    Raises:
        SettingError: the settings can't be read.
        LedgerMissingError: there is no installation; `gateway init` makes one.
        KeyUnreadableError: a key is missing, or others can read it.
        UnknownDeclarationError: no such declaration is registered.
        GateRefusedError: nothing that is made for it could ever be learned from.
    """
    house = open_sourced(settings_module.load(None if config is None else Path(config)))
    with (
        contextlib.closing(house),
        _told(sys.stderr if progress else None) as tell,
        pipeline_in(house, declaration, by, tags=tags, progress=tell) as pipeline,
    ):
        yield pipeline


def pipeline_in(
    house: Installation,
    declaration: str,
    by: str,
    *,
    tags: Sequence[str] = (),
    progress: Progress | None = None,
) -> Pipeline:
    """Return a pipeline that records in *house*.

    Raises:
        UnknownDeclarationError: no such declaration is registered.
        GateRefusedError: nothing that is made for it could ever be learned from.
    """
    declared = house.register.declaration(DeclarationId(declaration))
    if declared is None:
        raise UnknownDeclarationError(
            f"no declaration `{str(declaration)[:40]}` is registered",
            hint="`gateway use list` shows them, `gateway use declare` makes one",
        )
    return Pipeline(records_of(house), declared, by, tags=tags, progress=progress)


def records_of(house: Installation) -> Records:
    """Return what a pipeline in *house* reads and writes."""
    seen = house.index.size

    def append(leaf: bytes) -> int:
        nonlocal seen
        index = house.sequencer.append_and_wait(leaf).index
        # Somebody may have withdrawn what the next rows would be made of.
        house.reader.catch_up()
        for at in house.index.statements(KINDS, seen):
            house.register.apply(at, read_leaf(house.reader.leaf(at)))
            seen = at + 1
        return index

    return Records(
        find=house.reader.find,
        derivation=house.reader.derivation,
        manifest=house.reader.manifest,
        leaf=house.reader.leaf,
        texts=house.content,
        words=HeldWords(house.register, house.index),
        append=append,
        signer=lambda: house.keyring.receipt,
        clock=house.clock,
        writer=house.writer,
    )


@contextlib.contextmanager
def _told(to: TextIO | None) -> Iterator[Progress | None]:
    """Show how far a map is: a bar where a person watches, else a line now and then."""
    if to is None:
        yield None
        return
    console = Console(file=to)
    if not console.is_terminal:
        yield _lines(to)
        return
    with Bar(console=console, transient=True) as bar:
        tasks = {}

        def tell(doing: str, done: int, total: int | None) -> None:
            if doing not in tasks:
                tasks[doing] = bar.add_task(doing, total=total)
            bar.update(tasks[doing], completed=done, total=total)

        yield tell


def _lines(to: TextIO) -> Callable[[str, int, int | None], None]:
    last = time.monotonic()

    def tell(doing: str, done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _TOLD_EVERY_S:
            last = now
            of = "" if total is None else f" of {total}"
            print(f"{doing}: {done}{of} rows", file=to, flush=True)

    return tell
