"""What the guide on pipelines shows works as it stands there, beside a gateway that serves."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from gateway import settings
from gateway.app.installation import open_sourced
from gateway.cli.main import main
from gateway.ledger.custody.fsck import fsck
from gateway.receipt.model import Derivation, Receipt
from gateway.receipt.statement import read_leaf
from tests.support.dataset import POLICIES, TERMS
from tests.support.proxy import Gateway, running_gateway

GUIDE: Final = Path(__file__).resolve().parents[2] / "docs" / "guides" / "pipelines.md"
BLOCK: Final = re.compile(r"```(python|sh)\n(.*?)```", re.DOTALL)


@pytest.fixture
def gateway(provider_url: str, tmp_path: Path) -> Iterator[Gateway]:
    """Run a gateway under terms that let its answers be learned from."""
    (tmp_path / "policies" / "open").mkdir(parents=True)
    (tmp_path / "policies" / "open" / "policy.yaml").write_text(POLICIES["open/policy.yaml"])
    (tmp_path / "policies" / "open" / "terms.yaml").write_text(TERMS)
    more = (
        f"  deepseek:\n    base_url: {provider_url}\n    policy: open\npolicies: ./policies\n"
    )
    with running_gateway(tmp_path, provider_url, names=(), more=more) as running:
        yield running


def test_the_guide_works(
    gateway: Gateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each program and command runs; every row that is made has its parents in the ledger."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-caller")
    said: dict[str, Any] = {}
    for language, block in BLOCK.findall(GUIDE.read_text("utf-8")):
        if language == "python":
            exec(block.replace("http://127.0.0.1:8080", gateway.url), said)
            continue
        places = {"$USE": said.get("USE", "")}
        places["$ROW"] = said.get("own", "").partition("/")[0]
        for line in block.splitlines():
            words = [places.get(word, word) for word in shlex.split(line)]
            code = main(["--config", str(gateway.settings_file), *words[1:]])
            told = capsys.readouterr().out
            assert ("gateway", 0) == (words[0], code), line
            if "use declare" in line:
                said["USE"] = told.split()[0]
            if "--tag nightly" in line:
                assert 3 == told.count("x-")
    said["client"].close()

    with closing(open_sourced(settings.load(gateway.settings_file))) as house:
        size = house.reader.size()
        read = [read_leaf(leaf) for leaf in house.reader.leaves(0, size)]
        assert [] == fsck(house.store, house.keyring.trust).findings
    assert {("nightly", "pages-7")} == {one.tags for one in read if isinstance(one, Receipt)}
    made = [one for one in read if isinstance(one, Derivation)]
    assert {"clean", "polite", "long", "court", "written"} == {
        one.transform.name for one in made
    }
    assert all(row.parents or one.written for one in made for row in one.rows)
    assert {"judge", "source"} <= {parent.role for one in made for parent in one.parents}
