"""What the guide on batches shows works as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.batches import batching_gateway, chat_line, jsonl, written
from tests.support.proxy import Gateway
from tests.support.stub.server import StubServer

GUIDE: Final = Path(__file__).resolve().parents[2] / "docs" / "guides" / "batches.md"
ITEMS: Final = {"OpenAI": 3, "Anthropic": 1, "Gemini": 1}


@pytest.fixture
def gateway(stub: tuple[StubServer, str], tmp_path: Path) -> Iterator[Gateway]:
    """Run a gateway before the stub."""
    stub[0].begin("guide")
    with batching_gateway(tmp_path, stub[1]) as running:
        yield running


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_the_guide_works(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each program of the guide runs, and each answer that it fetches has a receipt."""
    text = GUIDE.read_text("utf-8")
    programs = re.findall(r"## (\w+)\n\n```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "questions.jsonl").write_bytes(jsonl(chat_line(one) for one in range(3)))
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.setenv(name, "key-of-the-caller")
    said: dict[str, Any] = {}
    for _, program in programs:
        program = program.replace("http://127.0.0.1:8080", gateway.url)  # noqa: PLW2901
        exec(program.replace("sleep(30)", "sleep(0)"), said)
        assert said["answers"]
        said["client"].close()

    assert list(ITEMS) == [name for name, _ in programs]
    written(gateway).check_items(count=sum(ITEMS.values()))
