"""Addresses in answers lead through the gateway, and nothing else of the answers differs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anthropic
import pytest
from google import genai
from google.genai import errors, types

from tests.support.provider import Script
from tests.support.proxy import PROVIDER_SECRET, Gateway
from tests.support.sharing import Sharer, ask, shared_gateway, sharer
from tests.support.stub.server import StubServer

BATCH: dict[str, Any] = {
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
}


@pytest.fixture(scope="module")
def shared(
    stub: tuple[StubServer, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway with managed keys."""
    with shared_gateway(tmp_path_factory.mktemp("addresses"), stub[1]) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def ada(shared: Gateway) -> Sharer:
    """Return a principal."""
    return sharer(shared, "ada")


def receipt(ada: Sharer, exchange: str) -> dict[str, Any]:
    """Return the statement that closed *exchange*."""
    status, _, body = ada.gateway.get(
        f"/-/receipts/{exchange}", {"authorization": f"Bearer {ada.key}"}
    )
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def test_results_come_through_the_gateway(
    shared: Gateway, ada: Sharer, stub: tuple[StubServer, str]
) -> None:
    """The SDK follows `results_url`, and no gateway key reaches the provider."""
    stub[0].begin("addresses")
    with anthropic.Anthropic(
        base_url=shared.anthropic(), api_key=ada.key, max_retries=0
    ) as client:
        batch = client.messages.batches.create(requests=BATCH["requests"])
        while batch.processing_status != "ended":
            batch = client.messages.batches.retrieve(batch.id)
        results = list(client.messages.batches.results(batch.id))

    path = f"/anthropic/v1/messages/batches/{batch.id}/results"
    assert f"{shared.url}{path}" == batch.results_url
    assert ["one"] == [result.custom_id for result in results]
    for received in stub[0].received:
        assert ada.key not in str(received.headers)
        assert [PROVIDER_SECRET] == received.header("x-api-key")


@pytest.mark.parametrize("script", [Script(), Script(gzip=True)], ids=["plain", "gzip"])
def test_only_the_addresss_bytes_change(
    script: Script, ada: Sharer, stub: tuple[StubServer, str]
) -> None:
    """The receipt has both digests, of what the provider sent and of what was passed on."""
    made = ada.ask("POST", "anthropic", "/v1/messages/batches", BATCH).json
    for _ in range(5):
        ada.ask("GET", "anthropic", f"/v1/messages/batches/{made['id']}")

    got = ada.ask(
        "GET",
        "anthropic",
        f"/v1/messages/batches/{made['id']}",
        headers={"accept-encoding": "gzip", **script.header()},
    )
    told = receipt(ada, got.headers["x-gateway-exchange"])
    rewritten = told["predicate"]["rewritten"]
    (body,) = [one for one in told["subject"] if one["name"] == "response.body"]

    theirs = got.body.replace(f"{ada.gateway.url}/anthropic".encode(), stub[1].encode())
    assert theirs != got.body
    sent = gzip.compress(theirs, mtime=0) if script.gzip else theirs
    assert {"sha256": hashlib.sha256(sent).hexdigest(), "bytes": len(sent)} == rewritten
    assert hashlib.sha256(got.body).hexdigest() == body["digest"]["sha256"]
    assert len(got.body) == told["predicate"]["responseBytes"]
    assert "content-encoding" not in got.headers
    assert str(len(got.body)) == got.headers["content-length"]


def test_a_provider_is_asked_for_what_can_be_changed(
    ada: Sharer, stub: tuple[StubServer, str]
) -> None:
    """A list is asked for without an encoding; anything else as its caller would have it."""
    stub[0].begin("encodings")
    said = {"accept-encoding": "gzip, br"}
    ada.ask("GET", "anthropic", "/v1/files", headers=said)
    ada.ask("GET", "anthropic", "/v1/models", headers=said)

    asked = [one.header("accept-encoding") for one in stub[0].received]
    assert [["identity"], ["gzip, br"]] == asked


def gemini(shared: Gateway, key: str, version: str) -> genai.Client:
    """Return Google's SDK, pointed at the gateway."""
    options = types.HttpOptions(base_url=f"{shared.url}/gemini", api_version=version)
    return genai.Client(api_key=key, http_options=options)


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_an_upload_goes_through_the_gateway(
    version: str, shared: Gateway, ada: Sharer, stub: tuple[StubServer, str]
) -> None:
    """The SDK sends the bytes to where it was told, without a key, and the file is its own."""
    stub[0].begin(f"upload-{version}")
    client = gemini(shared, ada.key, version)
    content = b"some words" * 1000
    file = client.files.upload(file=io.BytesIO(content), config={"mime_type": "text/plain"})
    assert file.name is not None
    found = client.files.get(name=file.name)
    names = [one.name for one in client.files.list()]

    assert str(len(content)) == str(found.size_bytes)
    assert [file.name] == names
    sent = [one for one in stub[0].received if b"some words" in one.body]
    assert [[PROVIDER_SECRET]] == [one.header("x-goog-api-key") for one in sent]
    other = gemini(shared, sharer(shared, f"bob-{version}").key, version)
    assert [] == list(other.files.list())
    with pytest.raises(errors.ClientError) as refused:
        other.files.get(name=file.name)
    assert 404 == refused.value.code


def started(ada: Sharer, **more: str) -> dict[str, str]:
    """Begin an upload; return the headers that it was answered with."""
    headers = {"x-goog-upload-protocol": "resumable", "x-goog-upload-command": "start", **more}
    got = ada.ask("POST", "gemini", "/upload/v1beta/files", {"file": {}}, headers=headers)
    assert got.status == 200, got.body
    return dict(got.headers)


FINAL = {"x-goog-upload-command": "upload, finalize", "x-goog-upload-offset": "0"}


def test_where_an_upload_goes_on_is_the_gateways(ada: Sharer) -> None:
    """Both addresses lead here, and nothing else of the head differs."""
    headers = started(ada)

    for name in ("x-goog-upload-url", "x-goog-upload-control-url"):
        assert headers[name].startswith(f"{ada.gateway.url}/gemini/upload/v1beta/files?")
    assert "active" == headers["x-goog-upload-status"]


@pytest.mark.parametrize("prefix", ["/gemini", ""])
def test_who_has_the_uploads_id_goes_on_with_it(prefix: str, ada: Sharer) -> None:
    """Without a key, and also where an SDK has dropped the provider from the path."""
    url = urlsplit(started(ada)["x-goog-upload-url"])
    target = f"{prefix}{url.path.removeprefix('/gemini')}?{url.query}"

    got = ask(ada.gateway.port, "POST", target, FINAL, b"words")
    told = receipt(ada, got.headers["x-gateway-exchange"])["predicate"]

    assert 200 == got.status
    assert {"principal": "ada", "project": "search"} == told["caller"]
    name = got.json["file"]["name"].rpartition("/")[2]
    assert {"kind": "file", "id": name} in told["made"]
    assert 200 == ada.ask("GET", "gemini", f"/v1beta/files/{name}").status


def test_an_uploads_id_opens_nothing_else(
    ada: Sharer, shared: Gateway, stub: tuple[StubServer, str]
) -> None:
    """It is no key; one that is made up, or of an upload of somebody else, opens nothing."""
    query = urlsplit(started(ada)["x-goog-upload-url"]).query
    bob = sharer(shared, "bob")
    before = len(stub[0].received)

    chat = b'{"contents":[{"parts":[{"text":"hi"}]}]}'
    model = f"/gemini/v1beta/models/gemini-2.5-flash:generateContent?{query}"
    refused = [
        ask(shared.port, "POST", model, {}, chat),
        ask(shared.port, "GET", f"/gemini/v1beta/files?{query}", {}),
        ask(shared.port, "POST", "/gemini/upload/v1beta/files?upload_id=no", FINAL, b"x"),
        ask(shared.port, "POST", "/upload/v1beta/files?upload_id=no", FINAL, b"x"),
        bob.ask("POST", "gemini", f"/upload/v1beta/files?{query}", b"x", headers=FINAL),
    ]

    assert [401, 401, 401, 404, 404] == [one.status for one in refused]
    assert len(stub[0].received) == before


def test_who_has_lost_its_key_uploads_no_more(ada: Sharer, shared: Gateway) -> None:
    """An upload that was begun ends with the last key of its principal."""
    cem = sharer(shared, "cem")
    query = urlsplit(started(cem)["x-goog-upload-url"]).query
    listed = shared.command("key", "list").stdout.splitlines()
    (line,) = [one for one in listed if "cem" in one]
    assert 0 == shared.command("key", "revoke", line.split()[0]).returncode

    got = ask(shared.port, "POST", f"/gemini/upload/v1beta/files?{query}", FINAL, b"words")

    assert (401, "credential.unknown") == (got.status, got.problem)


def test_a_public_address_is_led_to(stub: tuple[StubServer, str], tmp_path: Path) -> None:
    """Where the settings say what callers reach the gateway by, `Host` has no say."""
    more = "public_url: https://gateway.example/models\n"
    with shared_gateway(tmp_path / "public", stub[1], more) as gateway:
        ada = sharer(gateway, "ada")
        made = ada.ask("POST", "anthropic", "/v1/messages/batches", BATCH).json
        for _ in range(5):
            ada.ask("GET", "anthropic", f"/v1/messages/batches/{made['id']}")
        got = ada.ask("GET", "anthropic", f"/v1/messages/batches/{made['id']}")
        began = started(ada)

    here = "https://gateway.example/models"
    path = f"/v1/messages/batches/{made['id']}/results"
    assert f"{here}/anthropic{path}" == got.json["results_url"]
    assert began["x-goog-upload-url"].startswith(f"{here}/gemini/upload/v1beta/files?")
