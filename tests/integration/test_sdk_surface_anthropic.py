"""Everything Anthropic's SDK can ask for is the same through the gateway, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import anthropic
import httpx2
import pydantic
import pytest

from tests.support.proxy import Gateway
from tests.support.stub.server import StubServer
from tests.support.stub.world import png
from tests.support.surface import Scene, plain, play, same

KEY: Final = "sk-ant-of-the-caller"
ADDRESS: Final = rb"127\.0\.0\.1:\d+(/anthropic)?"
"""What differs in `results_url`: it leads to whoever was asked for the batch."""


class Invoice(pydantic.BaseModel):
    """What is asked for in structured outputs."""

    vendor: str
    count: int


class Completion(anthropic.BaseModel):
    """What an older stream is made of; this SDK has no model of it any more."""

    completion: str = ""
    stop_reason: str | None = None


WEATHER: Final[dict[str, Any]] = {
    "name": "weather",
    "description": "Tell the weather.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    },
}


def saying(text: str, **more: Any) -> dict[str, Any]:
    """Return the arguments of a message call."""
    asked = {"model": "stub-large", "max_tokens": 4096}
    return {**asked, "messages": [{"role": "user", "content": text}], **more}


THINKING: Final = {"type": "enabled", "budget_tokens": 1024}
CALLS: Final[dict[str, dict[str, Any]]] = {
    "plain": saying("What is a ledger?", system="Be brief."),
    "thinking": saying("Why is the sky blue?", thinking=THINKING),
    "secret": saying("secret thoughts?", thinking=THINKING),
    "tool": saying("call weather for Trondheim", tools=[WEATHER]),
    "search": saying(
        "search for it", tools=[{"type": "web_search_20250305", "name": "web_search"}]
    ),
    "refusal": saying("refuse this"),
    "cut-short": saying("Explain everything.", max_tokens=5),
    "picture": saying("What is that?")
    | {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is that?"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"},
                    },
                ],
            }
        ]
    },
    "beyond-ascii": saying("Was heißt „Quittung“ auf 日本語? 🧾"),
}


def raised(call: Callable[[], Any]) -> Any:
    """Return what the SDK raises."""
    with pytest.raises(anthropic.APIError) as caught:
        call()
    status = getattr(caught.value, "status_code", None)
    return [type(caught.value).__name__, status, caught.value.body, str(caught.value)]


def messages(client: Any) -> Any:
    """Ask in every way, whole and as a stream."""
    for asked in CALLS.values():
        yield client.messages.create(**asked)
        yield client.messages.create(**asked, stream=True)
        with client.messages.stream(**asked) as stream:
            yield [event.type for event in stream]
            yield stream.get_final_message()
    yield client.messages.parse(**saying("Read it."), output_format=Invoice)
    yield client.messages.count_tokens(
        model="stub-large", messages=[{"role": "user", "content": "one two three"}]
    )
    yield client.beta.messages.create(
        **CALLS["plain"], betas=["context-1m-2025-08-07", "interleaved-thinking-2025-05-14"]
    )


def older(client: Any) -> Any:
    """Continue a text as older programs do."""
    asked = {
        "model": "stub-large",
        "prompt": "\n\nHuman: What is a ledger?\n\nAssistant:",
        "max_tokens_to_sample": 200,
    }
    yield client.post("/v1/complete", cast_to=object, body=asked)
    yield client.post(
        "/v1/complete",
        cast_to=Completion,
        body={**asked, "stream": True},
        stream=True,
        stream_cls=anthropic.Stream[Completion],
    )
    yield client.models.list()
    yield client.models.list(limit=1)
    yield client.models.retrieve("stub-large")
    yield client.post("/v1/unheard/of", cast_to=object, body={"what": "is this?"})


def batches(client: Any) -> Any:
    """Ask many things at once; read what came of them, twice, at the address that is told."""
    requests: list[Any] = [
        {"custom_id": f"line-{at}", "params": saying(f"Question {at}?")} for at in range(4)
    ]
    requests.append({"custom_id": "line-x", "params": saying("Hm?") | {"model": "missing"}})
    requests.append({"custom_id": "line-y", "params": saying("expire this")})
    made = client.messages.batches.create(requests=requests)
    yield made
    where = f"/v1/messages/batches/{made.id}/results"
    yield raised(lambda: client.get(where, cast_to=object))
    while made.processing_status != "ended":
        made = client.messages.batches.retrieve(made.id)
        yield made
    for _ in range(2):
        yield client.messages.batches.results(made.id)
    other = client.messages.batches.create(requests=requests[:3])
    yield client.messages.batches.cancel(other.id)
    while other.processing_status != "ended":
        other = client.messages.batches.retrieve(other.id)
    yield client.messages.batches.results(other.id)
    yield client.messages.batches.list()
    yield client.messages.batches.delete(other.id)


def files(client: Any) -> Any:
    """Keep files."""
    made = client.files.upload(file=("a.png", png("a"), "image/png"))
    yield made
    yield client.files.retrieve_metadata(made.id)
    yield client.files.download(made.id).read()
    yield client.files.list()
    yield client.files.delete(made.id)
    yield raised(lambda: client.files.retrieve_metadata(made.id))


def errors(client: Any) -> Any:
    """Ask what can't be answered."""
    yield raised(lambda: client.messages.create(**saying("Hm?") | {"model": "missing"}))
    yield raised(lambda: list(client.messages.create(**saying("overload it"), stream=True)))
    limited = {"x-fake-script": json.dumps({"status": 429, "retry_after": "0"})}
    patient = client.with_options(max_retries=1)
    yield raised(lambda: patient.messages.create(**saying("Hm?"), extra_headers=limited))
    overloaded = {"x-fake-script": json.dumps({"status": 529})}
    yield raised(lambda: client.messages.create(**saying("Hm?"), extra_headers=overloaded))


SCENES: Final[tuple[Scene, ...]] = (messages, older, batches, files, errors)


def connect(address: str, http: httpx2.Client) -> anthropic.Anthropic:
    """Return an SDK client that asks at *address*."""
    return anthropic.Anthropic(base_url=address, api_key=KEY, max_retries=0, http_client=http)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: str(scene.__name__))
def test_a_scene_is_the_same(
    scene: Scene, stub: tuple[StubServer, str], surface: Gateway
) -> None:
    """What the SDK has, what came over the wire and what the provider saw are the same."""
    server, url = stub
    name = f"anthropic-{scene.__name__}"
    direct = play(server, name, scene, connect, url)
    through = play(server, name, scene, connect, surface.anthropic())

    same(direct, through, rewritten=ADDRESS if scene is batches else None)


async def test_async_is_the_same(stub: tuple[StubServer, str], surface: Gateway) -> None:
    """What holds of the sync client holds of the async one."""
    server, url = stub
    told = []
    for address in (url, surface.anthropic()):
        server.begin("anthropic-async")
        async with anthropic.AsyncAnthropic(
            base_url=address, api_key=KEY, max_retries=0
        ) as client:
            asked: Any = CALLS["search"]
            async with client.messages.stream(**asked) as stream:
                events = [event.type async for event in stream]
                final = await stream.get_final_message()
            file = await client.files.upload(file=("a.png", png("a"), "image/png"))
            told.append(plain([events, final, file]))

    assert told[0] == told[1]
