"""What every campaign of injected faults says of each fault, and where it works."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """One fault that was injected, and every promise that it broke."""

    kind: str
    seed: str
    """What replays it: `python -m tests.faults.nightly --only KIND --seed SEED`."""
    violations: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the kind, the seed and what was broken."""
        return f"{self.kind} {self.seed}: {'; '.join(self.violations) or 'nothing broken'}"


def broken(found: list[Injected]) -> list[str]:
    """Return those of *found* that broke a promise, each as a line that replays it."""
    return [str(one) for one in found if one.violations]


@contextmanager
def workplace() -> Iterator[Path]:
    """Yield an empty folder, in memory where the system has such a place, and remove it."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
