"""System programs that some tests need: skipped loudly on a laptop, a failure where CI runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def needed(program: str, *places: str | Path) -> Path:
    """Return the path of *program*, looked for on the path and then in *places*.

    A check that is skipped silently is worse than none: where `CI` is set, a missing program
    fails the test.
    """
    found = shutil.which(program)
    if found is not None:
        return Path(found)
    for place in places:
        candidate = Path(place) / program
        if candidate.exists():
            return candidate
    message = f"`{program}` is not installed; see the packages that `.ci/run` installs"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
