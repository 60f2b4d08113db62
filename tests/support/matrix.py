"""Every operation by which a model makes something, or by which that is fetched, as a row.

A row says how it is asked, what must be there before, and what the stub makes of it. An
operation that a dialect knows and that has no row here fails a test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.support.caller import Answer, Caller, Headers
from tests.support.stub.world import png, sound

KEY: Final = "sk-of-the-caller"
JSON: Final = ("content-type", "application/json")
OPENAI: Final[Headers] = (("authorization", f"Bearer {KEY}"),)
ANTHROPIC: Final[Headers] = (("x-api-key", KEY), ("anthropic-version", "2023-06-01"))
GEMINI: Final[Headers] = (("x-goog-api-key", KEY),)
_BOUNDARY: Final = "a-boundary-of-ours"

Names = dict[str, str]
"""What was prepared, by the name that a row's target has in braces."""


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent, and as what."""

    content: bytes
    kind: str


@dataclass(slots=True)
class Preparing:
    """Asks for what a row needs, as the same caller who then asks for the row."""

    caller: Caller
    provider: str
    headers: Headers

    def ask(self, method: str, path: str, body: Body | None = None) -> Answer:
        """Ask and insist on an answer."""
        headers = (*self.headers, *((("content-type", body.kind),) if body else ()))
        target = f"/{self.provider}{path}"
        answer = self.caller.ask(method, target, headers, body.content if body else b"")
        assert answer.whole, (path, answer)
        assert 200 == answer.status, (path, answer.body)
        return answer

    def told(self, method: str, path: str, body: Body | None = None) -> dict[str, Any]:
        """Return what the answer says."""
        found: dict[str, Any] = json.loads(self.ask(method, path, body).body)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One operation, streamed or not."""

    name: str
    target: str
    """Under the gateway, with `{name}` where something prepared belongs."""
    body: Body | Callable[[Names], Body] | None = None
    method: str = "POST"
    made: int = 1
    """How many generations an answer is, but for those that are items of a batch."""
    prepare: Callable[[Preparing], Names] | None = None
    items: int = 0
    """How many things an answer holds that have receipts of their own."""
    streaming: bool = False

    @property
    def provider(self) -> str:
        """Return who is asked."""
        return self.target[1:].partition("/")[0]

    @property
    def headers(self) -> Headers:
        """Return what shows the key where this provider looks for it."""
        return {"anthropic": ANTHROPIC, "gemini": GEMINI}.get(self.provider, OPENAI)

    @property
    def path(self) -> str:
        """Return the target without the provider and the query; names stand as they are."""
        return self.target[1 + len(self.provider) :].partition("?")[0]

    def asking(self, names: Names) -> tuple[str, Headers, bytes]:
        """Return target, headers and body, with what was prepared in its place."""
        target = self.target
        for name, value in names.items():
            target = target.replace(f"{{{name}}}", value)
        body = self.body(names) if callable(self.body) else self.body
        if body is None:
            return target, self.headers, b""
        return target, (*self.headers, ("content-type", body.kind)), body.content


def said(**asked: Any) -> Body:
    """Return a JSON body."""
    return Body(json.dumps(asked).encode(), "application/json")


def form(*parts: tuple[str, str | None, bytes], **fields: str) -> Body:
    """Return a multipart form: fields first, then *parts* (name, filename, content)."""
    pieces = []
    for name, filename, content in (
        *((n, None, v.encode()) for n, v in fields.items()),
        *parts,
    ):
        named = f'; filename="{filename}"' if filename else ""
        head = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"{named}\r\n\r\n'
        pieces.append(head.encode() + content + b"\r\n")
    end = f"--{_BOUNDARY}--\r\n".encode()
    return Body(b"".join(pieces) + end, f"multipart/form-data; boundary={_BOUNDARY}")


# -- OpenAI ----------------------------------------------------------------------------------

_ASKED: Final[dict[str, Any]] = {
    "model": "stub-large",
    "messages": [{"role": "user", "content": "What is a ledger, and who keeps it?"}],
}
_INPUT: Final[dict[str, Any]] = {
    "model": "stub-reasoner",
    "input": "draw a ledger, and say who keeps it",
    "tools": [{"type": "image_generation"}],
}
_BATCH: Final = b"".join(
    json.dumps(
        {
            "custom_id": f"line-{at}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                **_ASKED,
                "model": "missing" if at == 2 else "stub-large",
                "n": at % 2 + 1,
            },
        }
    ).encode()
    + b"\n"
    for at in range(4)
)
_PICTURE: Final = ("image", "a.png", png("a"))
_SOUND: Final = ("file", "a.wav", sound("a", 2000))


def _of(path: str, body: Body, kind: str) -> Callable[[Preparing], Names]:
    """Return how the id of what is made at *path* gets its name."""
    return lambda to: {kind: str(to.told("POST", path, body)["id"])}


_STORED: Final = _of("/v1/chat/completions", said(**_ASKED, store=True), "completion")
_RESPONSE: Final = _of("/v1/responses", said(**_INPUT, background=True), "response")


def _conversation(to: Preparing) -> Names:
    items = [{"type": "message", "role": "user", "content": "Hello"}]
    made = to.told("POST", "/v1/conversations", said(items=items))
    listed = to.told("GET", f"/v1/conversations/{made['id']}/items")
    return {"conversation": made["id"], "item": listed["data"][0]["id"]}


def _file(to: Preparing, content: bytes = b"notes", purpose: str = "user_data") -> str:
    sent = form(("file", "notes.jsonl", content), purpose=purpose)
    return str(to.told("POST", "/v1/files", sent)["id"])


def _batch(to: Preparing) -> Names:
    asked = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    file = _file(to, _BATCH, "batch")
    name = to.told("POST", "/v1/batches", said(input_file_id=file, **asked))["id"]
    to.told("GET", f"/v1/batches/{name}")
    done = to.told("GET", f"/v1/batches/{name}")
    assert "completed" == done["status"]
    return {"batch": name, "output": done["output_file_id"], "errors": done["error_file_id"]}


def _store(to: Preparing) -> Names:
    file = _file(to, purpose="assistants")
    store = to.told("POST", "/v1/vector_stores", said(name="notes"))["id"]
    to.told("POST", f"/v1/vector_stores/{store}/files", said(file_id=file))
    return {"store": store, "file": file}


def _thread(to: Preparing) -> Names:
    assistant = to.told("POST", "/v1/assistants", said(model="stub-large"))["id"]
    thread = to.told(
        "POST", "/v1/threads", said(messages=[{"role": "user", "content": "Hello"}])
    )["id"]
    run = to.told("POST", f"/v1/threads/{thread}/runs", said(assistant_id=assistant))["id"]
    message = to.told("GET", f"/v1/threads/{thread}/messages")["data"][0]["id"]
    step = to.told("GET", f"/v1/threads/{thread}/runs/{run}/steps")["data"][0]["id"]
    names = {"assistant": assistant, "thread": thread, "run": run}
    return {**names, "message": message, "step": step}


def _container(to: Preparing) -> Names:
    name = to.told("POST", "/v1/containers", said(name="box"))["id"]
    sent = form(("file", "a.txt", b"what it holds"))
    return {
        "container": name,
        "file": to.told("POST", f"/v1/containers/{name}/files", sent)["id"],
    }


def _evaluation(to: Preparing) -> Names:
    name = to.told("POST", "/v1/evals", said(name="how well"))["id"]
    run = to.told("POST", f"/v1/evals/{name}/runs", said(name="once"))["id"]
    return {"eval": name, "run": run, "item": f"item_of_{run}"}


def _tuning(to: Preparing) -> Names:
    rows = json.dumps({"messages": _ASKED["messages"]}).encode() + b"\n"
    return {"file": _file(to, rows, "fine-tune")}


def _job(to: Preparing) -> Names:
    asked = said(model="stub-small", training_file=_tuning(to)["file"])
    return {"job": to.told("POST", "/v1/fine_tuning/jobs", asked)["id"]}


def _openai() -> Iterator[Row]:
    at = "/openai/v1"
    chat = f"{at}/chat/completions"
    yield Row(name="chat", target=chat, body=said(**_ASKED, n=2))
    yield Row(name="chat-stream", target=chat, body=said(**_ASKED, stream=True), streaming=True)
    stored: dict[str, Any] = {"prepare": _STORED, "made": 0, "method": "GET"}
    yield Row(name="stored-list", target=chat, **stored)
    yield Row(name="stored", target=chat + "/{completion}", **stored)
    yield Row(name="stored-messages", target=chat + "/{completion}/messages", **stored)
    responses = f"{at}/responses"
    yield Row(name="responses", target=responses, body=said(**_INPUT))
    streamed = said(**_INPUT, stream=True)
    yield Row(name="responses-stream", target=responses, body=streamed, streaming=True)
    yield Row(name="background", target=responses, body=said(**_INPUT, background=True))
    later: dict[str, Any] = {"prepare": _RESPONSE, "made": 0}
    one = responses + "/{response}"
    # What was left to the background is an item of the exchange that asked for it.
    yield Row(name="response", target=one, method="GET", items=1, **later)
    again = one + "?stream=true&starting_after=2"
    yield Row(
        name="response-stream", target=again, method="GET", streaming=True, items=1, **later
    )
    yield Row(name="response-cancel", target=one + "/cancel", items=1, **later)
    yield Row(name="input-items", target=one + "/input_items", method="GET", **later)
    yield Row(name="compact", target=responses + "/compact", body=said(**_INPUT))
    yield Row(
        name="input-tokens", target=responses + "/input_tokens", body=said(**_INPUT), made=0
    )
    told: dict[str, Any] = {"prepare": _conversation, "made": 0, "method": "GET"}
    items = at + "/conversations/{conversation}/items"
    yield Row(name="conversation-items", target=items, **told)
    yield Row(name="conversation-item", target=items + "/{item}", **told)
    text = {"model": "stub-large", "prompt": "Once upon a time", "max_tokens": 20}
    yield Row(name="completions", target=f"{at}/completions", body=said(**text))
    yield Row(
        name="completions-stream",
        target=f"{at}/completions",
        body=said(**text, stream=True),
        streaming=True,
    )
    embed = said(model="stub-small", input=["a", "b"], encoding_format="base64")
    yield Row(name="embeddings", target=f"{at}/embeddings", body=embed)
    yield Row(name="moderations", target=f"{at}/moderations", body=said(input=["a", "b"]))
    yield from _openai_media(at)
    yield from _openai_kept(at)


def _openai_media(at: str) -> Iterator[Row]:
    draw = {"model": "gpt-image-1", "prompt": "a ledger"}
    images = f"{at}/images/generations"
    yield Row(name="images", target=images, body=said(**draw, n=2))
    links = said(**draw, response_format="url")
    yield Row(name="image-links", target=images, body=links)
    partial = said(**draw, stream=True, partial_images=2)
    yield Row(name="images-stream", target=images, body=partial, streaming=True)
    edits = f"{at}/images/edits"
    yield Row(name="image-edits", target=edits, body=form(_PICTURE, **draw))
    streamed = form(_PICTURE, **draw, stream="true", partial_images="1")
    yield Row(name="image-edits-stream", target=edits, body=streamed, streaming=True)
    yield Row(name="image-variations", target=f"{at}/images/variations", body=form(_PICTURE))
    speak = {"model": "tts-1", "voice": "alloy", "input": "Hello."}
    speech = f"{at}/audio/speech"
    yield Row(name="speech", target=speech, body=said(**speak))
    events = said(**speak, stream_format="sse")
    yield Row(name="speech-stream", target=speech, body=events, streaming=True)
    hear = f"{at}/audio/transcriptions"
    yield Row(name="transcription", target=hear, body=form(_SOUND, model="whisper-1"))
    yield Row(
        name="transcription-text",
        target=hear,
        body=form(_SOUND, model="whisper-1", response_format="srt"),
    )
    heard = form(_SOUND, model="gpt-4o-transcribe", stream="true")
    yield Row(name="transcription-stream", target=hear, body=heard, streaming=True)
    yield Row(
        name="translation",
        target=f"{at}/audio/translations",
        body=form(_SOUND, model="whisper-1"),
    )


def _openai_kept(at: str) -> Iterator[Row]:
    def fetched(
        name: str, path: str, prepare: Callable[[Preparing], Names], **more: Any
    ) -> Row:
        return Row(
            name=name,
            target=at + path,
            prepare=prepare,
            **{"made": 0, "method": "GET", **more},
        )

    sent = form(("file", "in.jsonl", _BATCH), purpose="batch")
    yield Row(name="batch-file", target=f"{at}/files", body=sent, made=0)
    yield fetched("batch-output", "/files/{output}/content", _batch, items=3)
    yield fetched("batch-errors", "/files/{errors}/content", _batch, items=1)
    store = "/vector_stores/{store}"
    query = said(query="what?")
    yield fetched("store-search", store + "/search", _store, method="POST", body=query)
    yield fetched("store-content", store + "/files/{file}/content", _store)
    yield fetched("thread-messages", "/threads/{thread}/messages", _thread)
    yield fetched("thread-message", "/threads/{thread}/messages/{message}", _thread)
    yield fetched("run-steps", "/threads/{thread}/runs/{run}/steps", _thread)
    yield fetched("run-step", "/threads/{thread}/runs/{run}/steps/{step}", _thread)

    def begun(names: Names) -> Body:
        return said(assistant_id=names["assistant"], stream=True)

    yield fetched(
        "runs-stream",
        "/threads/{thread}/runs",
        _thread,
        method="POST",
        made=1,
        body=begun,
        streaming=True,
    )
    content = "/containers/{container}/files/{file}/content"
    yield fetched("container-content", content, _container)
    video = _of("/v1/videos", said(model="sora-2", prompt="a ledger falls"), "video")
    yield fetched("video-content", "/videos/{video}/content", video)
    written = "/evals/{eval}/runs/{run}/output_items"
    yield fetched("eval-items", written, _evaluation)
    yield fetched("eval-item", written + "/{item}", _evaluation)

    def tuned(names: Names) -> Body:
        return said(model="stub-small", training_file=names["file"])

    yield fetched("tuning", "/fine_tuning/jobs", _tuning, method="POST", body=tuned)
    job = "/fine_tuning/jobs/{job}"
    yield fetched("tuning-resume", job + "/resume", _job, method="POST")
    yield Row(name="unheard", target=f"{at}/unheard/of", body=said(what="is this?"))


# -- Anthropic -------------------------------------------------------------------------------

_MESSAGE: Final[dict[str, Any]] = {**_ASKED, "max_tokens": 4096}
_REQUESTS: Final = [
    {"custom_id": f"line-{at}", "params": {**_MESSAGE, "model": "missing" if at == 2 else "m"}}
    for at in range(4)
]


def _results(to: Preparing) -> Names:
    name = to.told("POST", "/v1/messages/batches", said(requests=_REQUESTS))["id"]
    to.told("GET", f"/v1/messages/batches/{name}")
    done = to.told("GET", f"/v1/messages/batches/{name}")
    assert "ended" == done["processing_status"]
    return {"batch": name}


def _anthropic() -> Iterator[Row]:
    at = "/anthropic/v1"
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    messages = f"{at}/messages"
    yield Row(name="messages", target=messages, body=said(**_MESSAGE, **thinking))
    streamed = said(**_MESSAGE, **thinking, stream=True)
    yield Row(name="messages-stream", target=messages, body=streamed, streaming=True)
    counted = said(**_ASKED)
    yield Row(name="count-tokens", target=messages + "/count_tokens", body=counted, made=0)
    older = {"model": "stub-large", "prompt": "\n\nHuman: Hello?\n\nAssistant:"}
    older["max_tokens_to_sample"] = 50  # type: ignore[assignment]
    yield Row(name="complete", target=f"{at}/complete", body=said(**older))
    yield Row(
        name="complete-stream",
        target=f"{at}/complete",
        body=said(**older, stream=True),
        streaming=True,
    )
    batches = messages + "/batches"
    yield Row(name="message-batch", target=batches, body=said(requests=_REQUESTS), made=0)
    yield Row(
        name="message-results",
        target=batches + "/{batch}/results",
        method="GET",
        prepare=_results,
        made=0,
        items=4,
    )
    file = _of("/v1/files", form(("file", "a.txt", b"notes of a tool")), "file")
    yield Row(
        name="message-file",
        target=f"{at}/files/" + "{file}/content",
        method="GET",
        prepare=file,
        made=0,
    )
    yield Row(name="message-unheard", target=f"{at}/unheard/of", body=said(what="is this?"))


# -- Gemini ----------------------------------------------------------------------------------

_CONTENTS: Final[dict[str, Any]] = {
    "contents": [{"role": "user", "parts": [{"text": "draw a ledger, and who keeps it"}]}],
    "generationConfig": {"thinkingConfig": {"includeThoughts": True}, "candidateCount": 2},
}
_KEYED: Final = b"".join(
    json.dumps({"key": f"line-{at}", "request": {"contents": _CONTENTS["contents"]}}).encode()
    + b"\n"
    for at in range(3)
)
_MODEL: Final = "/v1beta/models/stub-large"


def _look(to: Preparing, source: dict[str, Any]) -> dict[str, Any]:
    asked = said(batch={"displayName": "b", "inputConfig": source})
    name = to.told("POST", f"{_MODEL}:batchGenerateContent", asked)["name"]
    return to.told("GET", f"/v1beta/{name}")


def _inline(to: Preparing) -> Names:
    requests = [
        {"request": {"contents": _CONTENTS["contents"]}, "metadata": {"key": f"line-{at}"}}
        for at in range(3)
    ]
    begun = _look(to, {"requests": {"requests": requests}})
    return {"batch": begun["name"].removeprefix("batches/")}


def _keyed(to: Preparing) -> Names:
    sent = Body(_KEYED, "application/jsonl")
    file = to.told("POST", "/upload/v1beta/files?uploadType=media", sent)["file"]["name"]
    begun = _look(to, {"fileName": file})
    done = to.told("GET", f"/v1beta/{begun['name']}")
    return {"file": done["response"]["responsesFile"].removeprefix("files/")}


def _gemini() -> Iterator[Row]:
    at = "/gemini" + _MODEL
    yield Row(name="generate", target=f"{at}:generateContent", body=said(**_CONTENTS))
    stream = f"{at}:streamGenerateContent"
    yield Row(
        name="generate-stream",
        target=stream + "?alt=sse",
        body=said(**_CONTENTS),
        streaming=True,
    )
    yield Row(name="generate-array", target=stream, body=said(**_CONTENTS), streaming=True)
    content = {"content": {"parts": [{"text": "a"}]}}
    yield Row(name="embed", target=f"{at}:embedContent", body=said(**content))
    many = said(requests=[{"model": "models/stub-large", **content}] * 2)
    yield Row(name="embed-many", target=f"{at}:batchEmbedContents", body=many)
    counted = said(contents=_CONTENTS["contents"])
    yield Row(name="gemini-count", target=f"{at}:countTokens", body=counted, made=0)
    drawn = said(instances=[{"prompt": "a ledger"}], parameters={"sampleCount": 2})
    yield Row(name="predict", target=f"{at}:predict", body=drawn)
    yield Row(
        name="gemini-inline",
        target="/gemini/v1beta/batches/{batch}",
        method="GET",
        prepare=_inline,
        made=0,
        items=3,
    )
    yield Row(
        name="gemini-results",
        target="/gemini/v1beta/files/{file}:download?alt=media",
        method="GET",
        prepare=_keyed,
        made=0,
        items=3,
    )
    yield from _gemini_batches(at)
    interactions = "/gemini/v1beta/interactions"
    asked = {"model": "stub-large", "input": "What is a ledger?"}
    yield Row(name="interaction", target=interactions, body=said(**asked))
    yield Row(
        name="interaction-stream",
        target=interactions,
        body=said(**asked, stream=True),
        streaming=True,
    )
    later: dict[str, Any] = {
        "prepare": _of("/v1beta/interactions", said(**asked, background=True), "interaction"),
        "made": 0,
        "items": 1,
    }
    one = interactions + "/{interaction}"
    yield Row(name="interaction-again", target=one, method="GET", **later)
    yield Row(name="interaction-cancel", target=one + "/cancel", **later)
    yield Row(
        name="gemini-unheard", target="/gemini/v1beta/unheard:of", body=said(what="is this?")
    )


def _gemini_batches(at: str) -> Iterator[Row]:
    video = said(instances=[{"prompt": "a ledger falls"}])
    yield Row(name="predict-later", target=f"{at}:predictLongRunning", body=video)

    def begun(to: Preparing) -> Names:
        name = to.told("POST", f"{_MODEL}:predictLongRunning", video)["name"]
        to.told("GET", f"/v1beta/{name}")
        return {"operation": name.rpartition("/")[2]}

    yield Row(
        name="gemini-operation",
        target=at + "/operations/{operation}",
        method="GET",
        prepare=begun,
        made=0,
        items=1,
    )
    examples = {"examples": {"examples": [{"textInput": "a", "output": "b"}]}}
    tuned = said(baseModel="models/stub-large", tuningTask={"trainingData": examples})
    yield Row(name="gemini-tuning", target="/gemini/v1beta/tunedModels", body=tuned, made=0)

    def tuning(to: Preparing) -> Names:
        name = to.told("POST", "/v1beta/tunedModels", tuned)["name"]
        return {"operation": name.rpartition("/")[2]}

    yield Row(
        name="tuning-operation",
        target="/gemini/v1beta/operations/{operation}",
        method="GET",
        prepare=tuning,
        made=0,
    )
    asked = {"requests": {"requests": [{"request": {"contents": _CONTENTS["contents"]}}]}}
    batch = said(batch={"displayName": "b", "inputConfig": asked})
    yield Row(name="gemini-batch", target=f"{at}:batchGenerateContent", body=batch, made=0)
    content = {"content": {"parts": [{"text": "a"}]}}
    texts = {"requests": {"requests": [{"request": content}]}}
    embedded = said(batch={"displayName": "b", "inputConfig": texts})
    yield Row(
        name="gemini-embed-batch",
        target=f"{at}:asyncBatchEmbedContent",
        body=embedded,
        made=0,
    )
    yield Row(
        name="gemini-download",
        target="/gemini/download/v1beta/files/{file}:download?alt=media",
        method="GET",
        prepare=_keyed,
        made=0,
        items=3,
    )


# -- compatible ones -------------------------------------------------------------------------


def _compatible() -> Iterator[Row]:
    for name in ("deepseek", "mistral", "openrouter"):
        thought = {**_ASKED, "reasoning_effort": "high"}
        target = f"/{name}/v1/chat/completions"
        yield Row(name=name, target=target, body=said(**thought))
        streamed = said(**thought, stream=True)
        yield Row(name=f"{name}-stream", target=target, body=streamed, streaming=True)
    azure = (
        "/azure-openai/openai/deployments/stub-large/chat/completions?api-version=2024-10-21"
    )
    messages = _ASKED["messages"]
    yield Row(name="azure", target=azure, body=said(messages=messages))
    azured = said(messages=messages, stream=True)
    yield Row(name="azure-stream", target=azure, body=azured, streaming=True)


ROWS: Final[tuple[Row, ...]] = (*_openai(), *_anthropic(), *_gemini(), *_compatible())

_THOUGHT: Final = {"text": 1, "reasoning": 1}
_DRAWN: Final = {"text": 2, "reasoning": 2, "image": 2}
_ONE: Final = {"other": 1}

UNITS: Final[Mapping[str, Mapping[str, int]]] = {
    "chat": {"text": 2},
    "chat-stream": {"text": 1},
    "stored-list": _ONE,
    "stored-messages": _ONE,
    "responses": {**_THOUGHT, "image": 1},
    # A picture that is only half drawn is an output too.
    "responses-stream": {**_THOUGHT, "image": 2},
    "input-items": _ONE,
    "compact": _ONE,
    "conversation-items": _ONE,
    "conversation-item": _ONE,
    "completions": {"text": 1},
    "completions-stream": {"text": 1},
    "embeddings": {"embedding": 2},
    "moderations": {"moderation": 2},
    "images": {"image": 2},
    "image-links": {"link": 1, "other": 1},
    "images-stream": {"image": 3},
    "image-edits": {"image": 1},
    "image-edits-stream": {"image": 2},
    "image-variations": {"image": 1},
    "speech": {"audio": 1},
    "speech-stream": {"audio": 1},
    "transcription": {"transcript": 1},
    "transcription-text": {"transcript": 1},
    "transcription-stream": {"transcript": 1},
    "translation": {"transcript": 1},
    "store-search": _ONE,
    "store-content": _ONE,
    "thread-messages": {"other": 2},
    "thread-message": _ONE,
    "run-steps": _ONE,
    "run-step": _ONE,
    "container-content": _ONE,
    "video-content": _ONE,
    "eval-items": _ONE,
    "eval-item": _ONE,
    "messages": _THOUGHT,
    "messages-stream": _THOUGHT,
    "complete": {"text": 1},
    "complete-stream": {"text": 1},
    "message-file": _ONE,
    "generate": _DRAWN,
    "generate-stream": _DRAWN,
    "generate-array": _DRAWN,
    "embed": {"embedding": 1},
    "embed-many": {"embedding": 2},
    "predict": {"image": 2},
    "interaction": {"text": 1},
    "interaction-stream": {"text": 1},
    "deepseek": _THOUGHT,
    "deepseek-stream": _THOUGHT,
    "mistral": _THOUGHT,
    "mistral-stream": _THOUGHT,
    "openrouter": _THOUGHT,
    "openrouter-stream": _THOUGHT,
    "azure": {"text": 1},
    "azure-stream": {"text": 1},
}
"""How many units of output the receipt of a whole answer lists, by their kind; where a row is
not named, none: nothing was made, nothing is read, or what was made has a receipt already."""

ITEM_UNITS: Final[Mapping[str, Mapping[str, int]]] = {
    "response": {**_THOUGHT, "image": 1},
    "response-stream": {**_THOUGHT, "image": 2},
    "batch-output": {"text": 5},
    "message-results": {"text": 3},
    "gemini-inline": {"text": 3, "image": 3},
    "gemini-results": {"text": 3, "image": 3},
    "gemini-download": {"text": 3, "image": 3},
    "gemini-operation": {"link": 1},
    "interaction-again": {"text": 1},
}
"""The same of the receipts of a row's items, all together."""
