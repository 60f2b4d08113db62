"""The official SDKs for Node, installed as the lock file names them; once a process."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import pytest

from tests.support.tools import needed

SCENES: Final = Path(__file__).parent.parent / "integration" / "node"


@functools.cache
def installed_scenes() -> Path:
    """Install exactly what the lock file names; without a registry it is skipped, or fails."""
    npm = needed("npm")
    needed("node")
    folder = Path(tempfile.mkdtemp(prefix="gateway-node-")) / "scenes"
    shutil.copytree(SCENES, folder, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(
        [npm, "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        message = f"npm can't install the SDKs: {done.stderr.strip()[-300:]}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder
