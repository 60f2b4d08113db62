"""Everything OpenAI's SDK can ask for is the same through the gateway, byte for byte."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any, Final

import httpx2
import openai
import pydantic
import pytest

from tests.support.proxy import Gateway
from tests.support.stub.server import StubServer
from tests.support.stub.world import png, sound
from tests.support.surface import Scene, plain, play, same

KEY: Final = "sk-of-the-caller"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ASKED: Final[dict[str, Any]] = {
    "model": "stub-large",
    "messages": [{"role": "user", "content": "What is a ledger?"}],
}
WEATHER: Final[dict[str, Any]] = {
    "name": "weather",
    "description": "Tell the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    },
}
TOOL: Final[dict[str, Any]] = {"type": "function", "function": WEATHER}
BETA: Final = {"OpenAI-Beta": "assistants=v2"}


class Invoice(pydantic.BaseModel):
    """What is asked for in structured outputs."""

    vendor: str
    count: int


def saying(text: str, **more: Any) -> dict[str, Any]:
    """Return the arguments of a chat call."""
    return {**ASKED, "messages": [{"role": "user", "content": text}], **more}


def raised(call: Callable[[], Any]) -> Any:
    """Return what the SDK raises."""
    with pytest.raises(openai.APIError) as caught:
        call()
    status = getattr(caught.value, "status_code", None)
    return [type(caught.value).__name__, status, caught.value.body, str(caught.value)]


def chat(client: Any) -> Any:
    """Ask in every way that chat completions know."""
    ask = client.chat.completions.create
    yield ask(**ASKED)
    yield ask(**saying("Name a colour.", n=3))
    yield ask(**saying("call weather for Trondheim", tools=[TOOL]))
    yield ask(**saying("How likely?", logprobs=True, top_logprobs=2))
    yield ask(
        **saying(
            "Say it.", modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"}
        )
    )
    yield ask(**{**ASKED, "model": "stub-reasoner"}, reasoning_effort="high")
    yield ask(**saying("refuse this"))
    yield ask(**saying("filter this"))
    yield ask(**saying("search for it", tools=[{"type": "web_search_preview"}]))
    yield client.chat.completions.parse(**saying("Read it."), response_format=Invoice)
    yield ask(**saying("Was heißt „Quittung“ auf 日本語? 🧾"))


def chat_streams(client: Any) -> Any:
    """Ask for streams, and let the SDK put one together."""
    ask = client.chat.completions.create
    usage = {"include_usage": True}
    yield ask(**ASKED, stream=True)
    yield ask(**ASKED, stream=True, stream_options=usage)
    yield ask(**saying("Name a colour.", n=2, logprobs=True), stream=True)
    yield ask(**saying("call weather for Trondheim", tools=[TOOL]), stream=True)
    yield ask(**saying("refuse this"), stream=True)
    with client.chat.completions.stream(
        **saying("Read it."), response_format=Invoice, stream_options=usage
    ) as stream:
        yield [event.type for event in stream]
        yield stream.get_final_completion()


def stored(client: Any) -> Any:
    """Keep a completion, find it, change it and delete it."""
    made = client.chat.completions.create(**ASKED, store=True, metadata={"a": "b"})
    yield made
    yield client.chat.completions.list()
    yield client.chat.completions.retrieve(made.id)
    yield client.chat.completions.messages.list(made.id)
    yield client.chat.completions.update(made.id, metadata={"c": "d"})
    yield client.chat.completions.delete(made.id)
    yield raised(lambda: client.chat.completions.retrieve(made.id))


RESPONSES: Final[dict[str, dict[str, Any]]] = {
    "plain": {"input": "What is a ledger?", "instructions": "Be brief."},
    "items": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}]},
    "function": {"input": "call weather for Bodø", "tools": [{"type": "function", **WEATHER}]},
    "custom": {"input": "call printer", "tools": [{"type": "custom", "name": "printer"}]},
    "search": {"input": "search for it", "tools": [{"type": "web_search"}]},
    "files": {
        "input": "search in them",
        "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}],
    },
    "picture": {"input": "draw a cat", "tools": [{"type": "image_generation"}]},
    "code": {
        "input": "run it",
        "tools": [{"type": "code_interpreter", "container": {"type": "auto"}}],
    },
    "mcp": {
        "input": "mcp it",
        "tools": [{"type": "mcp", "server_label": "s", "server_url": "https://mcp.example"}],
    },
    "reasoning": {
        "input": "Think.",
        "model": "stub-reasoner",
        "reasoning": {"effort": "high", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    },
    "refusal": {"input": "refuse this"},
    "failed": {"input": "fail at this"},
    "incomplete": {"input": "Explain everything.", "max_output_tokens": 4},
}


def responses(client: Any) -> Any:
    """Ask for a response of every kind, whole and as a stream."""
    for asked in RESPONSES.values():
        told = {"model": "stub-large", **asked}
        yield client.responses.create(**told)
        yield client.responses.create(**told, stream=True)
    yield client.responses.parse(model="stub-large", input="Read it.", text_format=Invoice)
    with client.responses.stream(model="stub-large", input="Say it.") as stream:
        yield [event.type for event in stream]
        yield stream.get_final_response()


def background(client: Any) -> Any:
    """Leave a response to the background: look, come back, cancel, delete."""
    asked: dict[str, Any] = {"model": "stub-large", "background": True}
    made = client.responses.create(**asked, input="What is a ledger?")
    yield made
    while made.status in {"queued", "in_progress"}:
        made = client.responses.retrieve(made.id)
        yield made
    yield client.responses.input_items.list(made.id)
    stream = client.responses.create(**asked, input="And a receipt?", stream=True)
    begun = [next(stream) for _ in range(4)]
    stream.close()
    yield begun
    name = begun[0].response.id
    yield client.responses.retrieve(name, stream=True, starting_after=3)
    other = client.responses.create(**asked, input="Never mind.")
    yield client.responses.cancel(other.id)
    yield client.responses.retrieve(other.id)
    yield client.responses.delete(made.id)
    yield raised(lambda: client.responses.retrieve(made.id))
    yield client.responses.create(
        model="stub-large", input="Go on.", previous_response_id=other.id
    )
    yield client.responses.compact(model="stub-large", input="A long story.")
    yield client.responses.input_tokens.count(model="stub-large", input="one two three")


def conversations(client: Any) -> Any:
    """Keep a conversation."""
    made = client.conversations.create(
        items=[{"type": "message", "role": "user", "content": "Hello"}], metadata={"a": "b"}
    )
    yield made
    added = client.conversations.items.create(
        made.id, items=[{"type": "message", "role": "user", "content": "Again"}]
    )
    yield added
    yield client.conversations.items.list(made.id)
    yield client.conversations.items.retrieve(added.data[0].id, conversation_id=made.id)
    yield client.responses.create(model="stub-large", input="Hm?", conversation=made.id)
    yield client.conversations.update(made.id, metadata={"c": "d"})
    yield client.conversations.retrieve(made.id)
    yield client.conversations.delete(made.id)


def older(client: Any) -> Any:
    """Continue texts, embed and moderate."""
    ask = client.completions.create
    yield ask(model="stub-large", prompt="Once upon a time")
    yield ask(model="stub-large", prompt=["One", "Two"], n=2, max_tokens=5)
    yield ask(model="stub-large", prompt="Once upon a time", stream=True)
    embed = client.embeddings.create
    yield embed(model="stub-small", input=["a", "b"])
    yield embed(model="stub-small", input="a", encoding_format="float", dimensions=4)
    yield embed(model="stub-small", input="a", encoding_format="base64")
    yield client.moderations.create(input=["be kind", "kill it"])
    yield client.models.list()
    yield client.models.retrieve("stub-large")
    yield client.models.delete("ft-of-mine")


def images(client: Any) -> Any:
    """Draw, edit and vary."""
    draw = client.images.generate
    yield draw(prompt="a cat", model="gpt-image-1")
    yield draw(prompt="a cat", model="dall-e-3", n=2, response_format="url")
    yield draw(prompt="a cat", model="gpt-image-1", stream=True, partial_images=2)
    edit = client.images.edit
    yield edit(image=("a.png", png("a"), "image/png"), prompt="bluer", model="gpt-image-1")
    yield edit(
        image=[("a.png", png("a"), "image/png"), ("b.png", png("b"), "image/png")],
        mask=("m.png", png("m"), "image/png"),
        prompt="both",
        model="gpt-image-1",
        stream=True,
        partial_images=1,
    )
    yield client.images.create_variation(image=("a.png", png("a"), "image/png"), n=2)


def audio(client: Any) -> Any:
    """Speak, write down and translate."""
    speak = client.audio.speech.create
    for form in ("mp3", "wav", "opus"):
        told: Any = form
        yield speak(model="tts-1", voice="alloy", input="Hello.", response_format=told).content
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input="Hello.", stream_format="sse"
    ) as response:
        yield list(response.iter_lines())
    hear = client.audio.transcriptions.create
    said = ("said.wav", sound("said"), "audio/wav")
    for form in ("json", "text", "srt", "vtt", "verbose_json"):
        told = form
        yield hear(file=said, model="whisper-1", response_format=told)
    yield hear(file=said, model="gpt-4o-transcribe", stream=True)
    yield client.audio.translations.create(file=said, model="whisper-1")


def files(client: Any) -> Any:
    """Keep files, whole and in parts."""
    content = b"".join(b'{"line": %d}\n' % at for at in range(500))
    made = client.files.create(file=("notes.jsonl", content), purpose="user_data")
    yield made
    other = client.files.create(file=("später „1“.txt", b"\x00\xff\r\n"), purpose="user_data")
    yield other
    yield client.files.list()
    yield client.files.list(purpose="user_data", limit=1)
    yield client.files.retrieve(made.id)
    yield client.files.content(made.id).content
    with client.files.with_streaming_response.content(made.id) as response:
        yield list(response.iter_bytes(1000))
    yield client.files.delete(other.id)
    yield raised(lambda: client.files.retrieve(other.id))
    upload = client.uploads.create(
        bytes=len(content), filename="long.jsonl", mime_type="text/jsonl", purpose="user_data"
    )
    yield upload
    parts = [
        client.uploads.parts.create(upload.id, data=content[at : at + 3000])
        for at in range(0, len(content), 3000)
    ]
    yield parts
    done = client.uploads.complete(upload.id, part_ids=[part.id for part in parts])
    yield done
    assert done.file is not None
    yield client.files.content(done.file.id).content
    yield client.uploads.upload_file_chunked(
        file=content,
        filename="c",
        bytes=len(content),
        mime_type="text/jsonl",
        purpose="user_data",
    )
    given_up = client.uploads.create(
        bytes=5, filename="x", mime_type="text/plain", purpose="user_data"
    )
    yield client.uploads.cancel(given_up.id)


def batch_line(name: str, url: str, **body: Any) -> bytes:
    """Return a line of a batch's input."""
    told = {"custom_id": name, "method": "POST", "url": url, "body": body}
    return json.dumps(told).encode() + b"\n"


BATCH: Final = b"".join(
    batch_line(f"line-{at}", "/v1/chat/completions", **saying(f"Question {at}?"))
    for at in range(5)
) + batch_line("line-x", "/v1/chat/completions", **{**ASKED, "model": "missing"})


def until_done(client: Any, name: str) -> Any:
    """Look at a batch until it is done."""
    found = client.batches.retrieve(name)
    while found.status in {"validating", "in_progress", "cancelling"}:
        found = client.batches.retrieve(name)
    return found


def batches(client: Any) -> Any:
    """Ask many things at once; read what came of them, twice."""
    file = client.files.create(file=("in.jsonl", BATCH), purpose="batch")
    asked: Any = {"completion_window": "24h", "endpoint": "/v1/chat/completions"}
    made = client.batches.create(input_file_id=file.id, **asked)
    yield made
    done = until_done(client, made.id)
    yield done
    assert done.output_file_id is not None
    assert done.error_file_id is not None
    for _ in range(2):
        yield client.files.content(done.output_file_id).text
    yield client.files.content(done.error_file_id).text
    embed = b"".join(
        batch_line(f"e-{at}", "/v1/embeddings", model="stub-small", input=f"text {at}")
        for at in range(3)
    )
    texts = client.files.create(file=("e.jsonl", embed), purpose="batch")
    asked["endpoint"] = "/v1/embeddings"
    expired = client.batches.create(input_file_id=texts.id, **asked, metadata={"expire": "1"})
    expired = until_done(client, expired.id)
    yield expired
    assert expired.output_file_id is not None
    yield client.files.content(expired.output_file_id).text
    other = client.batches.create(input_file_id=texts.id, **asked)
    yield client.batches.cancel(other.id)
    yield until_done(client, other.id)
    yield client.batches.list(limit=2)


def opaque(client: Any) -> Any:
    """Use what the gateway only passes on."""
    file = client.files.create(file=("notes.txt", b"notes"), purpose="assistants")
    store = client.vector_stores.create(name="notes")
    yield store
    yield client.vector_stores.files.create(store.id, file_id=file.id)
    yield client.vector_stores.files.list(store.id)
    yield client.vector_stores.search(store.id, query="what?")
    yield client.vector_stores.list()
    assistant = client.beta.assistants.create(model="stub-large", name="clerk")
    yield assistant
    thread = client.beta.threads.create(messages=[{"role": "user", "content": "Hi"}])
    yield thread
    yield client.beta.threads.messages.create(thread.id, role="user", content="More")
    yield client.beta.threads.runs.create_and_poll(
        thread_id=thread.id, assistant_id=assistant.id
    )
    with client.beta.threads.runs.stream(
        thread_id=thread.id, assistant_id=assistant.id
    ) as stream:
        yield [event.event for event in stream]
        yield stream.get_final_run()
    yield client.beta.threads.messages.list(thread.id)
    yield client.beta.threads.delete(thread.id)
    yield client.beta.assistants.delete(assistant.id)
    yield client.vector_stores.delete(store.id)
    video = client.videos.create(prompt="a cat walks", model="sora-2")
    yield video
    yield client.videos.retrieve(video.id)
    yield client.videos.download_content(video.id).content
    yield client.post("/unheard/of", cast_to=object, body={"what": "is this?"})


def tuning(client: Any) -> Any:
    """Customise a model of the provider's."""
    row = {"messages": [*saying("Hi")["messages"], {"role": "assistant", "content": "Hello"}]}
    lines = json.dumps(row).encode() + b"\n"
    file = client.files.create(file=("rows.jsonl", lines * 3), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, model="stub-small")
    yield job
    yield client.fine_tuning.jobs.retrieve(job.id)
    yield client.fine_tuning.jobs.list()
    yield client.fine_tuning.jobs.list_events(job.id)
    yield client.fine_tuning.jobs.checkpoints.list(job.id)
    yield client.fine_tuning.jobs.cancel(job.id)


def errors(client: Any) -> Any:
    """Ask what can't be answered."""
    yield raised(lambda: client.chat.completions.create(**{**ASKED, "model": "missing"}))
    yield raised(lambda: client.responses.retrieve("resp_of_nobody"))
    yield raised(lambda: client.files.content("file-of-nobody"))
    yield raised(lambda: client.embeddings.create(model="missing", input="a"))
    limited = {"x-fake-script": json.dumps({"status": 429, "retry_after": "0"})}
    patient = client.with_options(max_retries=1)
    yield raised(lambda: patient.chat.completions.create(**ASKED, extra_headers=limited))
    ending = {"x-fake-script": json.dumps({"error_after": 3})}
    streamed = client.chat.completions.create(**ASKED, stream=True, extra_headers=ending)
    yield raised(lambda: list(streamed))
    told = client.responses.create(
        model="stub-large", input="Hm?", stream=True, extra_headers=ending
    )
    yield list(told)


def encoded(client: Any) -> Any:
    """Take answers that the provider encodes, whole and as a stream."""
    packed = {"x-fake-script": json.dumps({"gzip": True})}
    yield client.chat.completions.create(**ASKED, extra_headers=packed)
    yield client.chat.completions.create(**ASKED, stream=True, extra_headers=packed)
    asked: dict[str, Any] = {"model": "stub-large", "input": "Why?", "extra_headers": packed}
    yield client.responses.create(**asked)
    yield client.responses.create(**asked, stream=True)
    embed = client.embeddings.create
    yield embed(model="stub-small", input=["a", "b"], extra_headers=packed)
    speak = client.audio.speech.create
    told: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": "Hello."}
    yield speak(**told, extra_headers=packed).content


def raw(client: Any) -> Any:
    """Look at what comes with an answer."""
    found = client.chat.completions.with_raw_response.create(**ASKED)
    kept = ("x-request-id", "openai-processing-ms", "x-ratelimit-remaining-tokens")
    yield [found.headers[name] for name in kept]
    yield found.parse()._request_id
    with client.chat.completions.with_streaming_response.create(**ASKED, stream=True) as answer:
        yield list(answer.iter_lines())


SCENES: Final[tuple[Scene, ...]] = (
    chat,
    chat_streams,
    stored,
    responses,
    background,
    conversations,
    older,
    images,
    audio,
    files,
    batches,
    opaque,
    tuning,
    errors,
    encoded,
    raw,
)


def connect(address: str, http: httpx2.Client) -> openai.OpenAI:
    """Return an SDK client that asks at *address*."""
    return openai.OpenAI(base_url=address, api_key=KEY, max_retries=0, http_client=http)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: str(scene.__name__))
def test_a_scene_is_the_same(
    scene: Scene, stub: tuple[StubServer, str], surface: Gateway
) -> None:
    """What the SDK has, what came over the wire and what the provider saw are the same."""
    server, url = stub
    name = f"openai-{scene.__name__}"
    direct = play(server, name, scene, connect, f"{url}/openai/v1")
    through = play(server, name, scene, connect, surface.openai())

    same(direct, through)


async def test_async_is_the_same(stub: tuple[StubServer, str], surface: Gateway) -> None:
    """What holds of the sync client holds of the async one."""
    server, url = stub
    told = []
    for address in (f"{url}/openai/v1", surface.openai()):
        server.begin("openai-async")
        async with openai.AsyncOpenAI(base_url=address, api_key=KEY, max_retries=0) as client:
            chunks = await client.responses.create(
                model="stub-large", input="What is a ledger?", stream=True
            )
            file = await client.files.create(file=io.BytesIO(BATCH), purpose="batch")
            content = await client.files.content(file.id)
            embedded = await client.embeddings.create(model="stub-small", input="a")
            picture = await client.images.generate(prompt="a cat")
            assert picture.data is not None
            drawn = base64.b64decode(picture.data[0].b64_json or "")
            told.append(
                plain(
                    [
                        [event async for event in chunks],
                        content.content,
                        embedded,
                        drawn,
                        [one async for one in client.files.list()],
                    ]
                )
            )

    assert told[0] == told[1]


AZURE: Final[dict[str, Any]] = {"api_version": "2025-04-01-preview", "api_key": KEY}


def azure(client: Any) -> Any:
    """Ask under deployments, and under the newer paths."""
    yield client.chat.completions.create(**ASKED)
    yield client.chat.completions.create(**ASKED, stream=True)
    yield client.embeddings.create(model="stub-small", input=["a", "b"])
    yield client.images.generate(prompt="a cat", model="dall-e-3", response_format="url")
    said = ("said.wav", sound("said"), "audio/wav")
    yield client.audio.transcriptions.create(file=said, model="whisper")
    yield client.responses.create(model="stub-large", input="What is a ledger?")
    made = client.files.create(file=("in.jsonl", BATCH), purpose="batch")
    yield made
    yield client.files.content(made.id).content


def connect_azure(address: str, http: httpx2.Client) -> openai.OpenAI:
    """Return Azure's SDK client."""
    return openai.AzureOpenAI(azure_endpoint=address, max_retries=0, http_client=http, **AZURE)


def test_azure_is_the_same(stub: tuple[StubServer, str], surface: Gateway) -> None:
    """Azure's own client, with its deployments and its query, sees no difference."""
    server, url = stub
    direct = play(server, "azure", azure, connect_azure, f"{url}/azure-openai")
    through = play(server, "azure", azure, connect_azure, f"{surface.url}/azure-openai")

    same(direct, through)
