"""The script of docs/formats/pack.md checks a manifest of a pack without any code of ours."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from gateway.ident import Sha256
from gateway.lineage.zipped import write_zip
from gateway.receipt.keys import format_trust
from tests.support.chain import Chain, two_stages
from tests.support.evidence import TRUST
from tests.support.tools import needed

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "formats" / "pack.md"


@pytest.fixture
def openssl() -> Path:
    """Return the program that checks signatures by hand."""
    return needed("openssl")


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """Return a house with an empty chain."""
    chain = Chain(tmp_path / "house")
    yield chain
    chain.close()


def by_hand(folder: Path, pack: Path, payload: Sha256) -> subprocess.CompletedProcess[str]:
    """Run the script of the page, far from our package."""
    found = re.search(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    (folder / "check.py").write_text(found[1])
    (folder / "trust.json").write_bytes(format_trust(TRUST))
    return subprocess.run(
        [sys.executable, "-I", "check.py", str(pack), "trust.json", payload],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.usefixtures("openssl")
def test_every_manifest_is_checked_by_hand(chain: Chain, tmp_path: Path) -> None:
    """Signature, place in the log and checkpoint verify with Python and openssl alone."""
    _, reader = two_stages(chain)
    chain.ask(3)
    packed = chain.pack(reader)

    told = [by_hand(tmp_path, packed.path, one) for one in manifests_in(packed.path)]

    assert [0] * 4 == [done.returncode for done in told], told
    assert 1 == sum("open open-1 3 rows" in done.stdout for done in told)


@pytest.mark.usefixtures("openssl")
def test_by_hand_nothing_else_passes(chain: Chain, tmp_path: Path) -> None:
    """A manifest with one changed letter, or beside another's proof, fails by hand too."""
    _, reader = two_stages(chain)
    packed = chain.pack(reader)
    with zipfile.ZipFile(packed.path) as zipped:
        files = {name: zipped.read(name) for name in zipped.namelist()}
    one, other, *_ = manifests_in(packed.path)
    place = f"manifests/{one}/manifest"
    for name, content in (
        (f"{place}.json", files[f"{place}.json"].replace(b'"sig":"ME', b'"sig":"MF')),
        (f"{place}.json", files[f"manifests/{other}/manifest.json"]),
        (f"{place}.tlog-proof", files[f"manifests/{other}/manifest.tlog-proof"]),
        (f"{place}.tlog-proof", files[f"{place}.tlog-proof"].replace(b"index ", b"index 1")),
    ):
        changed = tmp_path / "changed.zip"
        changed.unlink(missing_ok=True)
        assert files[name] != content
        write_zip(changed, list((files | {name: content}).items()))

        assert 0 != by_hand(tmp_path, changed, one).returncode


def manifests_in(pack: Path) -> list[Sha256]:
    """Return the digests under which manifests stand in a pack."""
    with zipfile.ZipFile(pack) as zipped:
        names = [name.split("/") for name in zipped.namelist()]
    return sorted({Sha256(name[1]) for name in names if name[0] == "manifests"})
