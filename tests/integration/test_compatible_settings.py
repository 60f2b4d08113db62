"""A server that speaks OpenAI's API is a few lines of settings, as the reference says."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway import settings
from gateway.app.installation import init
from tests.support.caller import Caller, Headers
from tests.support.evidence import ORIGIN
from tests.support.house import RawProvider, completion, sized
from tests.support.texts import Kept

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
HEADERS: Final[Headers] = (("content-type", "application/json"), ("authorization", "Bearer k"))
ADDRESS: Final = re.compile(r"http://127\.0\.0\.1:\d+")


def example() -> str:
    """Return the providers that the reference shows."""
    shown = re.search(
        r"```yaml\n(providers:\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    assert shown is not None
    return shown[1]


def asked(port: int, provider: str) -> dict[str, Any]:
    """Ask *provider* something; return what its receipt says."""
    body = {"model": "llama3.2", "messages": [{"role": "user", "content": "hello"}]}
    with Caller(port) as caller:
        answer = caller.ask(
            "POST", f"/{provider}/v1/chat/completions", HEADERS, json.dumps(body).encode()
        )
        assert answer.status == 200, answer.body
        exchange = answer.header("x-gateway-exchange")
        statement = caller.ask("GET", f"/-/receipts/{exchange}", ())
    predicate: dict[str, Any] = msgspec.json.decode(statement.body)["predicate"]
    return predicate


async def test_a_few_lines_are_all_it_takes(tmp_path: Path) -> None:
    """Each server of the example is asked, read, ruled on and receipted."""
    async with RawProvider().listening() as upstream:
        upstream.steps = [sized(completion("hi", model="llama3.2"))]
        file = tmp_path / "gateway.yaml"
        file.write_text("listen: 127.0.0.1:0\n" + ADDRESS.sub(upstream.url, example()))
        init(settings.load(file, environment={}), ORIGIN)
        kept = Kept(tmp_path, file)
        async with kept.serving() as gateway:
            told = [
                await asyncio.to_thread(asked, gateway.port, provider)
                for provider in ("vllm", "ollama", "llamacpp")
            ]

    for receipt in told:
        assert (receipt["operation"], receipt["readable"]) == ("chat", True)
        assert receipt["provider"]["route"] == "self-hosted"
        pins = {pin["policy"] for pin in receipt["ruling"]["policies"]}
        assert pins == {"open-weights", "llama-3.2"}
