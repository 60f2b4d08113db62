"""A bar that says how far a long piece of work is, where a person watches."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(doing: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far something is, on the terminal's error output, and nowhere else."""
    if not sys.stderr.isatty():
        yield _silent
        return
    # Loading what draws it takes a tenth of a second, which is saved where nobody watches.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _silent(done: int, total: int) -> None:
    """Tell nobody."""
