"""Everything Google's SDK can ask for is the same through the gateway, byte for byte."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import httpx2
import pydantic
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types

from tests.support.proxy import Gateway
from tests.support.stub.server import StubServer
from tests.support.stub.world import png, sound
from tests.support.surface import Scene, plain, play, same

pytestmark = pytest.mark.filterwarnings("ignore:.*experimental", "ignore::DeprecationWarning")
KEY: Final = "AIza-of-the-caller"
MODEL: Final = "stub-large"
ADDRESS: Final = rb"127\.0\.0\.1:\d+(/gemini)?"
"""What differs in `x-goog-upload-url`: it leads to whoever was asked to begin the upload."""


class Invoice(pydantic.BaseModel):
    """What is asked for in structured outputs."""

    vendor: str
    count: int


WEATHER: Final = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather",
            description="Tell the weather.",
            parameters=types.Schema(
                type=types.Type.OBJECT,
                properties={
                    "city": types.Schema(type=types.Type.STRING),
                    "days": types.Schema(type=types.Type.INTEGER),
                },
            ),
        )
    ]
)
CALLS: Final[dict[str, dict[str, Any]]] = {
    "plain": {"contents": "What is a ledger?", "config": {"system_instruction": "Be brief."}},
    "three": {"contents": "Name a colour.", "config": {"candidate_count": 3}},
    "tool": {"contents": "call weather for Trondheim", "config": {"tools": [WEATHER]}},
    "thoughts": {
        "contents": "Why is the sky blue?",
        "config": {"thinking_config": {"include_thoughts": True}},
    },
    "picture": {"contents": "draw a cat", "config": {"response_modalities": ["TEXT", "IMAGE"]}},
    "sound": {"contents": "Say it.", "config": {"response_modalities": ["AUDIO"]}},
    "code": {"contents": "run it", "config": {"tools": [{"code_execution": {}}]}},
    "blocked": {"contents": "block this"},
    "filtered": {"contents": "filter this"},
    "cut-short": {"contents": "Explain everything.", "config": {"max_output_tokens": 5}},
    "seen": {
        "contents": [
            types.Part.from_bytes(data=png("a"), mime_type="image/png"),
            "What is that?",
        ]
    },
    "beyond-ascii": {"contents": "Was heißt „Quittung“ auf 日本語? 🧾"},
}


def raised(call: Callable[[], Any]) -> Any:
    """Return what the SDK raises."""
    with pytest.raises(genai_errors.APIError) as caught:
        call()
    return [type(caught.value).__name__, caught.value.code, caught.value.message]


def content(client: Any) -> Any:
    """Ask in every way, whole and as a stream."""
    for asked in CALLS.values():
        yield client.models.generate_content(model=MODEL, **asked)
        yield client.models.generate_content_stream(model=MODEL, **asked)
    told: Any = {"response_mime_type": "application/json", "response_schema": Invoice}
    answer = client.models.generate_content(model=MODEL, contents="Read it.", config=told)
    yield [answer.text, answer.parsed]
    chat = client.chats.create(model=MODEL)
    yield chat.send_message("Hello")
    yield chat.send_message_stream("And again")
    yield client.models.count_tokens(model=MODEL, contents="one two three")
    yield client.models.list()
    yield client.models.get(model=MODEL)


def embeddings(client: Any) -> Any:
    """Embed one text and many."""
    embed = client.models.embed_content
    yield embed(model="stub-small", contents="a")
    yield embed(model="stub-small", contents=["a", "b"], config={"output_dimensionality": 4})


def files(client: Any) -> Any:
    """Keep files, sent in pieces to the address that is told."""
    told = {"mime_type": "text/plain", "display_name": "notes"}
    made = client.files.upload(file=io.BytesIO(b"some notes\n" * 100), config=told)
    yield made
    large = sound("large", 9 << 20)
    other = client.files.upload(file=io.BytesIO(large), config={"mime_type": "audio/wav"})
    yield other
    yield client.files.list()
    yield client.files.get(name=made.name)
    part = types.Part.from_uri(file_uri=made.uri, mime_type="text/plain")
    yield client.models.generate_content(model=MODEL, contents=[part, "What is in it?"])
    yield client.files.delete(name=made.name)
    yield raised(lambda: client.files.get(name=made.name))


def line(key: str, text: str) -> bytes:
    """Return a line of a batch's input."""
    asked = {"contents": [{"parts": [{"text": text}], "role": "user"}]}
    return json.dumps({"key": key, "request": asked}).encode() + b"\n"


def until_done(client: Any, name: str) -> Any:
    """Look at a batch until it is done."""
    found = client.batches.get(name=name)
    while found.state.name in {"JOB_STATE_PENDING", "JOB_STATE_RUNNING"}:
        found = client.batches.get(name=name)
    return found


def batches(client: Any) -> Any:
    """Ask many things at once, inline and as a file; read what came of them."""
    requests = [
        {"contents": [{"parts": [{"text": f"Question {at}?"}], "role": "user"}]}
        for at in range(3)
    ]
    inline = client.batches.create(model=MODEL, src=requests, config={"display_name": "b"})
    yield inline
    yield until_done(client, inline.name)
    lines = b"".join(line(f"line-{at}", f"Question {at}?") for at in range(4))
    told = {"mime_type": "application/jsonl", "display_name": "in"}
    file = client.files.upload(file=io.BytesIO(lines), config=told)
    made = client.batches.create(model=MODEL, src=file.name)
    done = until_done(client, made.name)
    yield done
    for _ in range(2):
        yield client.files.download(file=done.dest.file_name)
    other = client.batches.create(model=MODEL, src=requests)
    client.batches.cancel(name=other.name)
    yield client.batches.get(name=other.name)
    yield client.batches.list()
    yield client.batches.delete(name=other.name)
    texts = {"inlined_requests": {"contents": ["a", "b"]}}
    embedded = client.batches.create_embeddings(model="stub-small", src=texts)
    yield until_done(client, embedded.name)


def caches(client: Any) -> Any:
    """Keep content for later."""
    made = client.caches.create(
        model=MODEL, config={"contents": ["A long story."], "ttl": "3600s"}
    )
    yield made
    yield client.caches.get(name=made.name)
    yield client.caches.list()
    yield client.caches.update(name=made.name, config={"ttl": "7200s"})
    asked = {"cached_content": made.name}
    yield client.models.generate_content(model=MODEL, contents="So?", config=asked)
    yield client.caches.delete(name=made.name)


def errors(client: Any) -> Any:
    """Ask what can't be answered."""
    ask = client.models.generate_content
    yield raised(lambda: ask(model="missing", contents="Hm?"))
    for status in (429, 500, 503):
        script = {"x-fake-script": json.dumps({"status": status})}
        told: Any = {"http_options": {"headers": script}}
        yield raised(partial(ask, model=MODEL, contents="Hm?", config=told))
    ending = {"http_options": {"headers": {"x-fake-script": json.dumps({"error_after": 2})}}}
    stream = client.models.generate_content_stream
    yield raised(lambda: list(stream(model=MODEL, contents="Hm?", config=ending)))


SCENES: Final[tuple[Scene, ...]] = (content, embeddings, files, batches, caches, errors)
LEADS_ELSEWHERE: Final = frozenset({files, batches})


def connect(address: str, http: httpx2.Client) -> genai.Client:
    """Return an SDK client that asks at *address*."""
    told: Any = {"base_url": address, "httpx_client": http}
    return genai.Client(api_key=KEY, http_options=types.HttpOptions(**told))


def connect_beta(address: str, http: httpx2.Client) -> genai.Client:
    """Return a client that asks for the version that most programs know."""
    told: Any = {"base_url": address, "httpx_client": http, "api_version": "v1beta"}
    return genai.Client(api_key=KEY, http_options=types.HttpOptions(**told))


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: str(scene.__name__))
@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_a_scene_is_the_same(
    version: str, scene: Scene, stub: tuple[StubServer, str], surface: Gateway
) -> None:
    """What the SDK has, what came over the wire and what the provider saw are the same."""
    server, url = stub
    name = f"gemini-{version}-{scene.__name__}"
    how = connect if version == "v1" else connect_beta
    direct = play(server, name, scene, how, url)
    through = play(server, name, scene, how, f"{surface.url}/gemini")

    same(direct, through, rewritten=ADDRESS if scene in LEADS_ELSEWHERE else None)


async def test_async_is_the_same(stub: tuple[StubServer, str], surface: Gateway) -> None:
    """What holds of the sync client holds of the async one, which speaks through aiohttp."""
    server, url = stub
    told = []
    for address in (url, f"{surface.url}/gemini"):
        server.begin("gemini-async")
        http = types.HttpOptions(base_url=address)
        async with genai.Client(api_key=KEY, http_options=http).aio as client:
            stream = await client.models.generate_content_stream(
                model=MODEL, contents="What is a ledger?"
            )
            file = await client.files.upload(
                file=io.BytesIO(b"notes"), config={"mime_type": "text/plain"}
            )
            told.append(plain([[part async for part in stream], file]))

    assert told[0] == told[1]


@pytest.mark.parametrize("query", ["", "?alt=sse", "?key=AIza-of-the-caller"])
def test_plain_http_is_the_same(
    query: str, stub: tuple[StubServer, str], surface: Gateway
) -> None:
    """A JSON array in pieces, and a key in the query, are the provider's own."""
    server, url = stub
    headers = {} if "key" in query else {"x-goog-api-key": KEY}

    def scene(client: Any) -> Any:
        where = f"/v1beta/models/{MODEL}:streamGenerateContent{query}"
        asked = {"contents": [{"parts": [{"text": "What is a ledger?"}]}]}
        yield client(where, asked)
        where = f"/v1beta/models/{MODEL}:generateContent{query}"
        yield client(where, asked)

    def bare(address: str, http: httpx2.Client) -> Any:
        def ask(where: str, asked: Any) -> Any:
            return http.post(address + where, json=asked, headers=headers).content

        return ask

    direct = play(server, "gemini-bare", scene, bare, url)
    through = play(server, "gemini-bare", scene, bare, f"{surface.url}/gemini")

    same(direct, through)
