"""There is no way round: what could be read in two ways leads to nothing of anybody else's."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from gateway.limits import BODY_BYTES_HELD_MAX
from tests.support.answers import Told, telling
from tests.support.batches import chat_line, jsonl, written
from tests.support.proxy import running_gateway
from tests.support.sharing import Sharer, ask, form, shared_gateway, sharer
from tests.support.stub.server import StubServer, stub_server

SAID: Final = [{"role": "user", "content": "hello there"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Two:
    """Two callers who share every key of the providers, and what of the first is kept there."""

    server: StubServer
    ann: Sharer
    bob: Sharer
    file: str
    upload: str


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Run a gateway; of Ann's are a file at OpenAI, and an upload that she began at Google."""
    folder = tmp_path_factory.mktemp("round")
    with stub_server() as (server, url), shared_gateway(folder / "g", url) as gateway:
        ann, bob = sharer(gateway, "ann"), sharer(gateway, "bob")
        kind, body = form(purpose="assistants", file=("a.txt", b"words"))
        made = ann.ask("POST", "openai", "/v1/files", body, headers={"content-type": kind})
        begun = ann.ask(
            "POST",
            "gemini",
            "/upload/v1beta/files",
            {"file": {"display_name": "a"}},
            headers={
                "x-goog-upload-protocol": "resumable",
                "x-goog-upload-command": "start",
                "x-goog-upload-header-content-type": "text/plain",
            },
        )
        upload = begun.headers["x-goog-upload-url"].partition("upload_id=")[2].partition("&")[0]
        yield Two(server=server, ann=ann, bob=bob, file=made.json["id"], upload=upload)


PATHS: Final = {
    "dots": ("GET", "/v1/models/../files/{file}"),
    "escaped-slashes": ("GET", "/v1/models/..%2Ffiles%2F{file}"),
    "escaped-slashes-deleting": ("DELETE", "/v1/models/..%2ffiles%2f{file}"),
    "escaped-backslashes": ("DELETE", "/v1/models/..%5cfiles%5c{file}"),
}


@pytest.mark.parametrize("way", sorted(PATHS))
def test_no_path_that_is_known_leads_elsewhere(two: Two, way: str) -> None:
    """A path that fits a known one, and would mean another to a lenient provider, is both."""
    method, path = PATHS[way]
    before = len(two.server.received)

    got = two.bob.ask(method, "openai", path.format(file=two.file))

    assert (404, "resource.unknown") == (got.status, got.problem)
    assert before == len(two.server.received)


_SWITCH: Final = {
    "upgrade": "websocket",
    "connection": "upgrade",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
}


@pytest.mark.parametrize("path", ["/v1/files", "/v1/files?limit=100"])
def test_asking_for_a_session_shows_no_more(two: Two, path: str) -> None:
    """Where there can be no session, a request for one is answered like any other."""
    headers = {"connection": "close"}
    got = two.bob.ask("GET", "openai", path, headers=_SWITCH | {"x-more": "1"})
    plain = two.bob.ask("GET", "openai", path, headers=headers)

    assert (200, 200) == (got.status, plain.status)
    assert [] == got.json["data"] == plain.json["data"]


def test_asking_for_a_session_hides_no_item(two: Two) -> None:
    """An answer that comes later is an item, also where its caller asks to switch."""
    begun = two.ann.ask(
        "POST",
        "openai",
        "/v1/responses",
        {"model": "gpt-5", "input": "hello", "background": True, "store": True},
    ).json["id"]
    told = [
        two.ann.ask("GET", "openai", f"/v1/responses/{begun}", headers=_SWITCH).json["status"]
        for _ in range(4)
    ]

    assert "completed" == told[-1]
    items = [one.item for one in written(two.ann.gateway).items if one.item is not None]
    assert 1 == len(items)


BODIES: Final[dict[str, tuple[str, Any]]] = {
    "variable-of-a-prompt": (
        "/v1/responses",
        {
            "model": "gpt-5",
            "input": "hello",
            "prompt": {
                "id": "pmpt_1",
                "variables": {"doc": {"type": "input_file", "file_id": "{file}"}},
            },
        },
    ),
    "tool-of-a-chat": (
        "/v1/chat/completions",
        {
            "model": "gpt-5",
            "messages": SAID,
            "tools": [{"type": "code_interpreter", "container": {"file_ids": ["{file}"]}}],
        },
    ),
    "address-in-what-nobody-reads": (
        "/v1/unheard/of",
        {"of": "https://api.example.com/v1/files/{file}/content"},
    ),
    "name-in-what-nobody-reads": ("/v1/unheard/of", {"of": "openai:{file}, and others"}),
}


@pytest.mark.parametrize("way", sorted(BODIES))
def test_no_field_names_what_is_anothers(two: Two, way: str) -> None:
    """Wherever in a body a file is named, it must be the caller's own."""
    path, body = BODIES[way]
    text = json.dumps(body).replace("{file}", two.file).encode()
    before = len(two.server.received)

    got = two.bob.ask(
        "POST", "openai", path, text, headers={"content-type": "application/json"}
    )

    assert (404, "resource.unknown") == (got.status, got.problem)
    assert before == len(two.server.received)


@pytest.mark.parametrize("name", ["upload_id", "upload%5Fid", "%75pload_id"])
def test_an_upload_is_found_by_whatever_spelling(two: Two, name: str) -> None:
    """Nobody goes on with another's upload, however its id is named in the query."""
    before = len(two.server.received)

    got = two.bob.ask(
        "POST",
        "gemini",
        f"/upload/v1beta/files?{name}={two.upload}",
        b"words",
        headers={"x-goog-upload-command": "upload, finalize", "x-goog-upload-offset": "0"},
    )

    assert (404, "resource.unknown") == (got.status, got.problem)
    assert before == len(two.server.received)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"gpt-5","messages":[],"model":"gpt-5-mini"}',
        b'{"model": "gpt-5", "messages": [], "mod\\u0065l": "gpt-5-mini"}',
        b'{"model":"gpt-5","messages":[],"Model":"gpt-5-mini"}',
        b'{"model":"gpt-5","messages":[{"role":"user","content":"a","content":"b"}]}',
    ],
    ids=["twice", "escaped", "case", "inside"],
)
def test_what_stands_twice_is_not_forwarded(two: Two, body: bytes) -> None:
    """Of two values of one name the provider might take the one that nobody ruled on."""
    before = len(two.server.received)

    got = two.ann.ask(
        "POST",
        "openai",
        "/v1/chat/completions",
        body,
        headers={"content-type": "application/json"},
    )

    assert (400, "body.malformed") == (got.status, got.problem)
    assert before == len(two.server.received)


def test_what_stands_twice_in_a_line_is_not_forwarded(two: Two) -> None:
    """A line of a batch is held to the same."""
    line = jsonl([chat_line(1)]).rstrip()[:-1] + b', "body": {"model": "other"}}\n'
    kind, body = form(purpose="batch", file=("a.jsonl", line))
    before = len(two.server.received)

    got = two.ann.ask("POST", "openai", "/v1/files", body, headers={"content-type": kind})

    assert 400 == got.status
    assert b"stands twice" in got.body
    assert before == len(two.server.received)


@pytest.mark.parametrize("query", ["model=one&model=two", "model=one&deployment=two"])
def test_a_query_names_one_model(two: Two, query: str) -> None:
    """Of two models in a query the provider might take the one that nobody ruled on."""
    before = len(two.server.received)

    got = two.ann.ask("GET", "openai", f"/v1/realtime?{query}")

    assert (400, "body.malformed") == (got.status, got.problem)
    assert before == len(two.server.received)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_form_where_none_is_taken_is_too_large(two: Two, provider: str) -> None:
    """A body that is too large to be read does not pass unread by calling itself a form."""
    path = {"openai": "/v1/responses", "anthropic": "/v1/messages"}[provider]
    body = b'{"model":"gpt-5","input":"hello"}' + b" " * BODY_BYTES_HELD_MAX
    before = len(two.server.received)

    got = two.bob.ask(
        "POST",
        provider,
        path,
        body,
        headers={"content-type": "multipart/form-data; boundary=x"},
    )

    assert 413 == got.status
    assert before == len(two.server.received)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        (
            "POST",
            "/v1beta/openai/batches",
            {"input_file_id": "{file}", "endpoint": "/v1/chat/completions"},
        ),
        (
            "PATCH",
            "/v1beta/batches/{batch}:updateGenerateContentBatch",
            {"batch": {"inputConfig": {"fileName": "files/other"}}},
        ),
    ],
    ids=["openai's-shape", "changed"],
)
def test_no_batch_at_google_has_lines_that_nobody_judged(
    two: Two, method: str, path: str, body: dict[str, Any]
) -> None:
    """Neither in OpenAI's shape nor by changing a batch that was begun."""
    asked = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    begun = two.ann.ask(
        "POST",
        "gemini",
        "/v1beta/models/gemini-2.5-flash:batchGenerateContent",
        {"batch": {"inputConfig": {"requests": {"requests": [{"request": asked}]}}}},
    )
    batch = begun.json["name"].removeprefix("batches/")
    made = two.ann.ask(
        "POST",
        "gemini",
        "/upload/v1beta/files?uploadType=media",
        b"words",
        headers={"content-type": "text/plain"},
    )
    file = made.json["file"]["name"].removeprefix("files/")
    text = json.dumps(body).replace("{file}", file).encode()
    before = len(two.server.received)

    got = two.ann.ask(
        method,
        "gemini",
        path.replace("{batch}", batch),
        text,
        headers={"content-type": "application/json"},
    )

    assert (400, "batch.unjudged") == (got.status, got.problem)
    assert before == len(two.server.received)


def test_a_gateway_key_never_goes_upstream_where_callers_bring_their_own(
    tmp_path: Any,
) -> None:
    """Whoever puts the wrong key where the provider's belongs tells the provider nothing."""
    with stub_server() as (server, url), running_gateway(tmp_path / "g", url) as gateway:
        ann = sharer(gateway, "ann")
        said = json.dumps({"model": "gpt-5", "messages": SAID}).encode()
        for header in ("authorization", "api-key", "cookie"):
            value = f"Bearer {ann.key}"
            headers = {header: value, "content-type": "application/json"}
            ask(gateway.port, "POST", f"/openai/v1/chat/completions?k={ann.key}", headers, said)

        sent = [(one.target, *(value for _, value in one.headers)) for one in server.received]

        assert 3 == len(sent)
        assert ann.key not in repr(sent)
        assert 3 == len(written(gateway).receipts)


def test_a_provider_can_not_speak_for_the_gateway(tmp_path: Any) -> None:
    """What the gateway says of an exchange is its own word alone."""
    said = json.dumps({"model": "gpt-5", "messages": SAID}).encode()
    forged = (("x-gateway-exchange", "forged"), ("X-Gateway-Effect", "forged"))
    with (
        telling(Told(headers=forged)) as teller,
        running_gateway(tmp_path / "g", teller.url) as gateway,
    ):
        headers = {"authorization": "Bearer k", "content-type": "application/json"}
        got = ask(gateway.port, "POST", "/openai/v1/chat/completions", headers, said)

        assert 200 == got.status
        assert "forged" not in repr(got.headers)
        assert got.headers["x-gateway-exchange"] == written(gateway).receipts[0].exchange


def test_interim_answers_without_end_hold_up_nobody(tmp_path: Any) -> None:
    """A provider that never comes to the point is hung up on, and the door stays open."""
    hints, swallowed = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 1000, []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            connection.recv(1 << 16)
            for _ in range(3000):
                connection.sendall(hints)
                swallowed.append(len(hints))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        with running_gateway(tmp_path / "g", url) as gateway:
            headers = {"authorization": "Bearer k", "content-type": "application/json"}
            said = json.dumps({"model": "gpt-5", "messages": SAID}).encode()

            got = ask(gateway.port, "POST", "/openai/v1/chat/completions", headers, said)

            assert 502 == got.status
            assert "cut-short-by-provider" == written(gateway).receipts[0].ended
        thread.join(30)
        assert len(swallowed) < 3000


@pytest.mark.parametrize(
    ("charset", "status"),
    [("utf-8", 200), ('"UTF-8"', 200), ("us-ascii", 200), ("utf-7", 400), ('"utf-16le"', 400)],
)
def test_a_body_is_read_in_one_way_of_writing(two: Two, charset: str, status: int) -> None:
    """What says that it is written in other signs than those it is read in goes nowhere."""
    kind = f"application/json; charset={charset}"
    said = json.dumps({"model": "gpt-4o", "messages": SAID}).encode()

    got = two.ann.ask(
        "POST", "openai", "/v1/chat/completions", said, headers={"content-type": kind}
    )

    assert status == got.status
