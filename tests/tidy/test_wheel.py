"""The wheel, unpacked elsewhere, stands alone: no file is found only in the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gateway.policy.library import Library
from gateway.store.policies import read_policy_files

ROOT = Path(__file__).resolve().parents[2]

LOOK = """
import sys
from pathlib import Path
import gateway.app
from gateway.policy.library import Library
from gateway.store.policies import builtin_policies, read_policy_files

here = Path(sys.argv[1])
assert Path(gateway.app.__file__).is_relative_to(here), gateway.app.__file__
assert builtin_policies().is_relative_to(here), builtin_policies()
print(*Library.load(read_policy_files(builtin_policies())).providers)
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds what the wheel holds, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run(
        [*build, "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_it_imports_alone_and_brings_its_policies(unpacked: Path, tmp_path: Path) -> None:
    """The gateway and the policies that ship are all inside."""
    ran = subprocess.run(
        [sys.executable, "-c", LOOK, str(unpacked)],
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "" == ran.stderr
    assert (
        list(Library.load(read_policy_files(ROOT / "policies")).providers) == ran.stdout.split()
    )


def test_it_brings_the_licence_and_the_command(unpacked: Path) -> None:
    """Whoever installs it has its licence, and `gateway` on the command line."""
    (info,) = unpacked.glob("*.dist-info")

    assert (info / "licenses" / "LICENSE").is_file()
    assert "gateway = gateway.cli.main:main" in (info / "entry_points.txt").read_text()
