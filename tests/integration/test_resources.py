"""What is kept at a provider belongs to who had it made, also under one key of the provider."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from gateway.limits import BODY_BYTES_HELD_MAX
from tests.support.provider import Script
from tests.support.sharing import Got, Sharer, form, shared_gateway, sharer
from tests.support.stub.server import StubServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of resource: how it is made, and every way in which it can be named."""

    provider: str
    makes: tuple[str, Any]
    """Path and body of the request that has it made; `{file}` is a file of the same caller."""
    requests: tuple[tuple[str, str, Any], ...]
    """Method, path and body of requests that name it as `{id}`."""
    lists: str | None = None
    id: str = "id"
    purpose: str | None = None
    """Of a file that it is made of."""


CHAT: Final = {"model": "gpt-5", "messages": [{"role": "user", "content": "hello there"}]}
BATCH_LINE: Final = (
    json.dumps(
        {
            "custom_id": "one",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "gpt-5", "messages": [{"role": "user", "content": "hello"}]},
        }
    ).encode()
    + b"\n"
)
FILE_FORM: Final = form(purpose="assistants", file=("a.txt", b"words"))
ANTHROPIC_FORM: Final = form(file=("a.txt", b"words"))

KINDS: Final = {
    "openai-file": Kind(
        provider="openai",
        makes=("/v1/files", FILE_FORM),
        requests=(
            ("GET", "/v1/files/{id}", None),
            ("GET", "/v1/files/{id}/content", None),
            ("DELETE", "/v1/files/{id}", None),
            ("POST", "/v1/batches", {"input_file_id": "{id}", "endpoint": "/v1/responses"}),
            (
                "POST",
                "/v1/fine_tuning/jobs",
                {"model": "gpt-5", "training_file": "{id}"},
            ),
            (
                "POST",
                "/v1/responses",
                {
                    "model": "gpt-5",
                    "input": [
                        {
                            "role": "user",
                            "content": [{"type": "input_file", "file_id": "{id}"}],
                        }
                    ],
                },
            ),
            (
                "POST",
                "/v1/chat/completions",
                {
                    "model": "gpt-5",
                    "messages": [
                        {
                            "role": "user",
                            "content": [{"type": "file", "file": {"file_id": "{id}"}}],
                        }
                    ],
                },
            ),
            ("POST", "/v1/vector_stores", {"file_ids": ["{id}"]}),
            # Ways of writing the same path that a lenient provider might take for it.
            ("GET", "/v1/files/{id}/", None),
            ("GET", "/v1//files/{id}", None),
            ("GET", "/v1/files/x/../{id}", None),
            ("GET", "/v1/./files/{id}/content", None),
            ("HEAD", "/v1/files/{id}/content", None),
            ("GET", "/v1/files%2F{id}", None),
            ("GET", "/v1/%66iles/{id}", None),
            ("PATCH", "/v1/files/{id}", {}),
            ("GET", "/v1/unheard/of?file={id}", None),
            ("POST", "/v1/unheard/of", {"some": ["{id}"]}),
            ("POST", "/v1/unheard/of", form(some="{id}")),
        ),
        lists="/v1/files?limit=100",
    ),
    "openai-upload": Kind(
        provider="openai",
        makes=(
            "/v1/uploads",
            {"bytes": 5, "filename": "a", "mime_type": "text/plain", "purpose": "assistants"},
        ),
        requests=(
            ("POST", "/v1/uploads/{id}/parts", form(data=("a", b"words"))),
            ("POST", "/v1/uploads/{id}/complete", {"part_ids": []}),
            ("POST", "/v1/uploads/{id}/cancel", {}),
        ),
    ),
    "openai-batch": Kind(
        provider="openai",
        makes=(
            "/v1/batches",
            {
                "input_file_id": "{file}",
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            },
        ),
        purpose="batch",
        requests=(
            ("GET", "/v1/batches/{id}", None),
            ("POST", "/v1/batches/{id}/cancel", {}),
        ),
        lists="/v1/batches?limit=100",
    ),
    "openai-response": Kind(
        provider="openai",
        makes=("/v1/responses", {"model": "gpt-5", "input": "hello there"}),
        requests=(
            ("GET", "/v1/responses/{id}", None),
            ("GET", "/v1/responses/{id}?stream=true", None),
            ("GET", "/v1/responses/{id}/input_items", None),
            ("POST", "/v1/responses/{id}/cancel", {}),
            ("DELETE", "/v1/responses/{id}", None),
            (
                "POST",
                "/v1/responses",
                {"model": "gpt-5", "input": "and?", "previous_response_id": "{id}"},
            ),
        ),
    ),
    "openai-completion": Kind(
        provider="openai",
        makes=("/v1/chat/completions", {**CHAT, "store": True}),
        requests=(
            ("GET", "/v1/chat/completions/{id}", None),
            ("GET", "/v1/chat/completions/{id}/messages", None),
            ("POST", "/v1/chat/completions/{id}", {"metadata": {"a": "b"}}),
            ("DELETE", "/v1/chat/completions/{id}", None),
        ),
        lists="/v1/chat/completions?limit=100",
    ),
    "openai-conversation": Kind(
        provider="openai",
        makes=("/v1/conversations", {}),
        requests=(
            ("GET", "/v1/conversations/{id}", None),
            ("GET", "/v1/conversations/{id}/items", None),
            ("POST", "/v1/conversations/{id}/items", {"items": []}),
            ("POST", "/v1/conversations/{id}", {"metadata": {}}),
            ("DELETE", "/v1/conversations/{id}", None),
            (
                "POST",
                "/v1/responses",
                {"model": "gpt-5", "input": "and?", "conversation": "{id}"},
            ),
            (
                "POST",
                "/v1/responses",
                {"model": "gpt-5", "input": "and?", "conversation": {"id": "{id}"}},
            ),
        ),
    ),
    "openai-vector-store": Kind(
        provider="openai",
        makes=("/v1/vector_stores", {"name": "mine"}),
        requests=(
            ("GET", "/v1/vector_stores/{id}", None),
            ("GET", "/v1/vector_stores/{id}/files", None),
            ("POST", "/v1/vector_stores/{id}/search", {"query": "words"}),
            ("DELETE", "/v1/vector_stores/{id}", None),
            (
                "POST",
                "/v1/responses",
                {
                    "model": "gpt-5",
                    "input": "and?",
                    "tools": [{"type": "file_search", "vector_store_ids": ["{id}"]}],
                },
            ),
        ),
        lists="/v1/vector_stores?limit=100",
    ),
    "openai-assistant": Kind(
        provider="openai",
        makes=("/v1/assistants", {"model": "gpt-5"}),
        requests=(
            ("GET", "/v1/assistants/{id}", None),
            ("DELETE", "/v1/assistants/{id}", None),
            ("POST", "/v1/threads/runs", {"assistant_id": "{id}", "thread": {}}),
        ),
        lists="/v1/assistants?limit=100",
    ),
    "openai-thread": Kind(
        provider="openai",
        makes=("/v1/threads", {}),
        requests=(
            ("GET", "/v1/threads/{id}", None),
            ("GET", "/v1/threads/{id}/messages", None),
            ("POST", "/v1/threads/{id}/messages", {"role": "user", "content": "hi"}),
            ("DELETE", "/v1/threads/{id}", None),
        ),
    ),
    "openai-video": Kind(
        provider="openai",
        makes=("/v1/videos", {"model": "sora-2", "prompt": "a cat"}),
        requests=(
            ("GET", "/v1/videos/{id}", None),
            ("GET", "/v1/videos/{id}/content", None),
        ),
    ),
    "openai-fine-tuning-job": Kind(
        provider="openai",
        makes=("/v1/fine_tuning/jobs", {"model": "gpt-5", "training_file": "{file}"}),
        purpose="fine-tune",
        requests=(
            ("GET", "/v1/fine_tuning/jobs/{id}", None),
            ("GET", "/v1/fine_tuning/jobs/{id}/events", None),
            ("POST", "/v1/fine_tuning/jobs/{id}/cancel", {}),
        ),
        lists="/v1/fine_tuning/jobs?limit=100",
    ),
    "anthropic-file": Kind(
        provider="anthropic",
        makes=("/v1/files", ANTHROPIC_FORM),
        requests=(
            ("GET", "/v1/files/{id}", None),
            ("GET", "/v1/files/{id}/content", None),
            ("DELETE", "/v1/files/{id}", None),
            (
                "POST",
                "/v1/messages",
                {
                    "model": "claude-sonnet-4-5",
                    "max_tokens": 50,
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {
                                    "type": "document",
                                    "source": {"type": "file", "file_id": "{id}"},
                                }
                            ],
                        }
                    ],
                },
            ),
        ),
        lists="/v1/files?limit=100",
    ),
    "anthropic-batch": Kind(
        provider="anthropic",
        makes=(
            "/v1/messages/batches",
            {
                "requests": [
                    {
                        "custom_id": "one",
                        "params": {
                            "model": "claude-sonnet-4-5",
                            "max_tokens": 50,
                            "messages": [{"role": "user", "content": "hello"}],
                        },
                    }
                ]
            },
        ),
        requests=(
            ("GET", "/v1/messages/batches/{id}", None),
            ("GET", "/v1/messages/batches/{id}/results", None),
            ("POST", "/v1/messages/batches/{id}/cancel", {}),
            ("DELETE", "/v1/messages/batches/{id}", None),
            # What is run there is read by nobody here.
            ("POST", "/v1/sessions", {"agent": "a", "resources": [{"batch": "{id}"}]}),
        ),
        lists="/v1/messages/batches?limit=100",
    ),
    "gemini-file": Kind(
        provider="gemini",
        makes=("/upload/v1beta/files", b"words"),
        id="file.name",
        requests=(
            ("GET", "/v1beta/files/{id}", None),
            ("GET", "/v1/files/{id}", None),
            ("GET", "/v1beta/files/{id}:download?alt=media", None),
            ("DELETE", "/v1beta/files/{id}", None),
            ("POST", "/v1beta/files/{id}:unheard", {}),
            (
                "POST",
                "/v1beta/models/gemini-2.5-flash:generateContent",
                {
                    "contents": [
                        {
                            "parts": [
                                {
                                    "fileData": {
                                        "fileUri": "https://generativelanguage.googleapis.com"
                                        "/v1beta/files/{id}"
                                    }
                                }
                            ]
                        }
                    ]
                },
            ),
        ),
        lists="/v1beta/files?pageSize=100",
    ),
    "gemini-file-of-an-interaction": Kind(
        provider="gemini",
        makes=("/upload/v1beta/files", b"words"),
        id="file.name",
        requests=(
            (
                "POST",
                "/v1beta/interactions",
                {
                    "model": "gemini-2.5-flash",
                    "input": [{"type": "document", "uri": "files/{id}"}],
                },
            ),
        ),
    ),
    "gemini-cached-content": Kind(
        provider="gemini",
        makes=(
            "/v1beta/cachedContents",
            {
                "model": "models/gemini-2.5-flash",
                "contents": [{"role": "user", "parts": [{"text": "words"}]}],
            },
        ),
        id="name",
        requests=(
            ("GET", "/v1beta/cachedContents/{id}", None),
            ("PATCH", "/v1beta/cachedContents/{id}", {"ttl": "600s"}),
            ("DELETE", "/v1beta/cachedContents/{id}", None),
            (
                "POST",
                "/v1beta/models/gemini-2.5-flash:generateContent",
                {
                    "contents": [{"parts": [{"text": "hi"}]}],
                    "cachedContent": "cachedContents/{id}",
                },
            ),
        ),
        lists="/v1beta/cachedContents?pageSize=100",
    ),
    "gemini-batch": Kind(
        provider="gemini",
        makes=(
            "/v1beta/models/gemini-2.5-flash:batchGenerateContent",
            {
                "batch": {
                    "displayName": "one",
                    "inputConfig": {
                        "requests": {
                            "requests": [
                                {
                                    "request": {"contents": [{"parts": [{"text": "hello"}]}]},
                                    "metadata": {"key": "one"},
                                }
                            ]
                        }
                    },
                }
            },
        ),
        id="name",
        requests=(
            ("GET", "/v1beta/batches/{id}", None),
            ("POST", "/v1beta/batches/{id}:cancel", {}),
            ("DELETE", "/v1beta/batches/{id}", None),
        ),
        lists="/v1beta/batches?pageSize=100",
    ),
    "gemini-interaction": Kind(
        provider="gemini",
        makes=("/v1beta/interactions", {"model": "gemini-2.5-flash", "input": "hello"}),
        requests=(
            ("GET", "/v1beta/interactions/{id}", None),
            ("POST", "/v1beta/interactions/{id}/cancel", {}),
            ("DELETE", "/v1beta/interactions/{id}", None),
            (
                "POST",
                "/v1beta/interactions",
                {
                    "model": "gemini-2.5-flash",
                    "input": "and?",
                    "previous_interaction_id": "{id}",
                },
            ),
        ),
    ),
}

NAMED: Final = [
    pytest.param(kind, request, id=f"{name}-{request[0]}-{at}")
    for name, kind in KINDS.items()
    for at, request in enumerate(kind.requests)
]
LISTED: Final = [
    pytest.param(kind, id=name) for name, kind in KINDS.items() if kind.lists is not None
]


@pytest.fixture(scope="module")
def callers(
    stub: tuple[StubServer, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Sharer, Sharer]]:
    """Run a gateway with managed keys for two principals of one project."""
    with shared_gateway(tmp_path_factory.mktemp("shared"), stub[1]) as gateway:
        yield sharer(gateway, "ada"), sharer(gateway, "bob")


@pytest.fixture
def ada(callers: tuple[Sharer, Sharer]) -> Sharer:
    """Return who has things made."""
    return callers[0]


@pytest.fixture
def bob(callers: tuple[Sharer, Sharer]) -> Sharer:
    """Return who has no part in them."""
    return callers[1]


def filled(value: Any, **ids: str) -> Any:
    """Return *value* with what stands in braces filled in, wherever it is."""
    if isinstance(value, tuple):
        return value[0], value[1].replace(b"{id}", ids.get("id", "{id}").encode())
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda found: ids.get(found[1], found[0]), value)
    if isinstance(value, dict):
        return {key: filled(one, **ids) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, **ids) for one in value]
    return value


def asked(who: Sharer, provider: str, method: str, path: str, body: Any) -> Got:
    """Ask; a pair is a form."""
    if isinstance(body, tuple):
        return who.ask(method, provider, path, body[1], headers={"content-type": body[0]})
    return who.ask(method, provider, path, body)


def made(who: Sharer, kind: Kind) -> str:
    """Have one of *kind* made; return its id."""
    ids = {}
    if kind.purpose is not None:
        content = form(purpose=kind.purpose, file=("a.jsonl", BATCH_LINE))
        ids["file"] = asked(who, kind.provider, "POST", "/v1/files", content).json["id"]
    path, body = kind.makes
    got = asked(who, kind.provider, "POST", path, filled(body, **ids))
    assert got.status == 200, got.body
    found = got.json
    for key in kind.id.split("."):
        found = found[key]
    return str(found).rpartition("/")[2]


@pytest.mark.parametrize(("kind", "request_"), NAMED)
def test_what_one_had_made_another_cannot_name(
    kind: Kind,
    request_: tuple[str, str, Any],
    ada: Sharer,
    bob: Sharer,
    stub: tuple[StubServer, str],
) -> None:
    """Another principal gets 404 in the provider's shape, and the provider is not dialled."""
    method, path, body = request_
    name = made(ada, kind)
    before = len(stub[0].received)

    got = asked(bob, kind.provider, method, filled(path, id=name), filled(body, id=name))

    assert 404 == got.status, got.body
    assert "resource.unknown" == got.problem
    assert len(stub[0].received) == before
    if method != "HEAD":
        error = got.json["error"]
        assert error.get("type", error.get("status")) in {"not_found_error", "NOT_FOUND"}


@pytest.mark.parametrize(("kind", "request_"), NAMED)
def test_what_nobody_had_made_is_as_unknown_as_what_another_had(
    kind: Kind, request_: tuple[str, str, Any], ada: Sharer, bob: Sharer
) -> None:
    """The two answers differ in the id alone."""
    method, path, body = request_
    name = made(ada, kind)
    nobodys = name[:-4] + "zzzz"

    others = asked(bob, kind.provider, method, filled(path, id=name), filled(body, id=name))
    none = asked(bob, kind.provider, method, filled(path, id=nobodys), filled(body, id=nobodys))
    if "unheard/of" in path or "/sessions" in path:
        # An operation that nobody here reads: what it names is known only if it is known.
        assert none.problem is None
        return

    assert (others.status, others.headers.keys()) == (none.status, none.headers.keys())
    assert others.body.replace(name.encode(), nobodys.encode()) == none.body


@pytest.mark.parametrize(("kind", "request_"), NAMED)
def test_who_had_it_made_reaches_it(
    kind: Kind, request_: tuple[str, str, Any], ada: Sharer
) -> None:
    """Its owner's requests go to the provider, whatever that then says."""
    method, path, body = request_
    name = made(ada, kind)

    got = asked(ada, kind.provider, method, filled(path, id=name), filled(body, id=name))

    # A batch is made of lines that were judged, and these were not; that is another matter.
    assert got.problem in {None, "batch.unjudged"}, got.body


@pytest.mark.parametrize("kind", LISTED)
def test_a_list_holds_what_is_ones_own(kind: Kind, ada: Sharer, bob: Sharer) -> None:
    """What others had made is taken out of a list, and the receipt has both digests."""
    mine, others = made(ada, kind), made(bob, kind)
    assert kind.lists is not None

    got = ada.ask("GET", kind.provider, kind.lists)

    (things,) = [value for value in got.json.values() if isinstance(value, list)]
    ids = [(one.get("id") or one["name"]).rpartition("/")[2] for one in things]
    assert mine in ids
    assert others not in ids
    assert str(len(got.body)) == got.headers["content-length"]


@pytest.mark.parametrize(
    ("script", "status", "problem"),
    [
        (Script(body_bytes=100), 502, "provider.unreadable"),
        (Script(body_bytes=BODY_BYTES_HELD_MAX + 1), 502, "provider.unreadable"),
        (Script(break_after=10), 502, "provider.broke_off"),
        (Script(status=500), 500, None),
        (Script(status=404), 404, None),
        (Script(chunk_bytes=3, no_content_length=True), 200, None),
        (Script(gzip=True), 200, None),
    ],
    ids=["no-list", "too-large", "broken", "error", "not-found", "in-pieces", "gzip"],
)
def test_a_list_is_read_whole_or_not_passed_on(
    script: Script, status: int, problem: str | None, ada: Sharer, bob: Sharer
) -> None:
    """Not a byte of it goes out before all of it was looked at; errors pass as they come."""
    kind = KINDS["openai-file"]
    mine, others = made(ada, kind), made(bob, kind)

    got = ada.ask("GET", "openai", "/v1/files?limit=100", headers=script.header())

    assert (status, problem) == (got.status, got.problem)
    assert status == 200 or others.encode() not in got.body
    if status == 200:
        ids = [one["id"] for one in got.json["data"]]
        assert (True, False) == (mine in ids, others in ids)
        assert str(len(got.body)) == got.headers["content-length"]
    told = ada.gateway.get(
        f"/-/receipts/{got.headers['x-gateway-exchange']}",
        {"authorization": f"Bearer {ada.key}"},
    )
    predicate = json.loads(told[2])["predicate"]
    assert (status == 200) == ("rewritten" in predicate)
    ended = "complete" if problem is None else "cut-short-by-provider"
    assert ended == predicate["ended"]


def test_what_is_refused_is_counted_and_logged(ada: Sharer, bob: Sharer) -> None:
    """Operators see that somebody asked for what is another's, and of which kind it was."""
    name = made(ada, KINDS["openai-file"])
    bob.ask("GET", "openai", f"/v1/files/{name}")
    wanted = ("bob", "openai", "file", True)

    metrics = ada.gateway.get("/-/metrics")[2].decode()
    assert 'gateway_problems_total{code="resource.unknown"}' in metrics
    # The log is written a while later, and others were refused before.
    refused: list[tuple[Any, ...]] = []
    until = time.monotonic() + 120
    while wanted not in refused:
        assert time.monotonic() < until, ada.gateway.log()
        # What is read of the log may begin, and end, in the middle of a line.
        whole = ada.gateway.log().rpartition("\n")[0].splitlines()[1:]
        lines = [json.loads(line) for line in whole if line[:1] == "{"]
        refused = [
            tuple(line[key] for key in ("principal", "provider", "kind", "known"))
            for line in lines
            if line["event"] == "resource.refused"
        ]
        time.sleep(0.02)
