"""Those that speak like OpenAI are the same through the gateway, each with its own habits."""

from __future__ import annotations

from typing import Any, Final

import httpx2
import openai
import pytest

from tests.support.proxy import Gateway
from tests.support.stub.compatible import COMPATIBLE
from tests.support.stub.server import StubServer
from tests.support.surface import play, same

KEY: Final = "sk-of-the-caller"
NAMES: Final = [kind.NAME for kind in COMPATIBLE]
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def asking(text: str, **more: Any) -> dict[str, Any]:
    """Return the arguments of a chat call."""
    asked = {"model": "stub-large", "messages": [{"role": "user", "content": text}]}
    return {**asked, **more}


def scene(client: Any) -> Any:
    """Ask for words, thoughts, tools and numbers, whole and as a stream."""
    ask = client.chat.completions.create
    for asked in (
        asking("What is a ledger?", n=2),
        asking("Why is the sky blue?", reasoning_effort="high"),
        asking("call weather for Bodø", tools=[TOOL]),
    ):
        yield ask(**asked)
        yield ask(**asked, stream=True)
        yield ask(**asked, stream=True, stream_options={"include_usage": True})
    yield client.completions.create(model="stub-large", prompt="Once upon a time")
    yield client.embeddings.create(model="stub-small", input=["a", "b"])
    yield client.models.list()


def connect(address: str, http: httpx2.Client) -> openai.OpenAI:
    """Return an SDK client that asks at *address*."""
    return openai.OpenAI(base_url=address, api_key=KEY, max_retries=0, http_client=http)


@pytest.mark.parametrize("name", NAMES)
def test_a_provider_is_the_same(
    name: str, stub: tuple[StubServer, str], surface: Gateway
) -> None:
    """What the SDK has, what came over the wire and what the provider saw are the same."""
    server, url = stub
    direct = play(server, name, scene, connect, f"{url}/{name}/v1")
    through = play(server, name, scene, connect, surface.openai(name))

    same(direct, through)


def test_lines_of_json_are_the_same(stub: tuple[StubServer, str], surface: Gateway) -> None:
    """A stream in a format that nobody here reads passes as it came."""
    server, url = stub

    def lines(ask: Any) -> Any:
        yield ask("/api/chat", asking("What is a ledger?", stream=True))

    def bare(address: str, http: httpx2.Client) -> Any:
        return lambda where, asked: http.post(address + where, json=asked).content

    direct = play(server, "ollama-own", lines, bare, f"{url}/ollama")
    through = play(server, "ollama-own", lines, bare, f"{surface.url}/ollama")

    same(direct, through)
    assert through.made["ollama", "api/chat", ""] == 1
