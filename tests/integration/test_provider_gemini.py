"""Google's SDK through the gateway: its key, its errors, what receipts say of its answers."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.genai import errors, types

from tests.support.proxy import PROVIDER_SECRET, Gateway
from tests.support.sharing import Got, Sharer, ask, shared_gateway, sharer
from tests.support.stub.server import StubServer
from tests.support.stub.world import png

pytestmark = pytest.mark.filterwarnings("ignore:.*experimental", "ignore::DeprecationWarning")
QUESTION = {"contents": [{"role": "user", "parts": [{"text": "What is a ledger?"}]}]}
TARGET = "/gemini/v1beta/models/stub-large"
FORBIDDEN = "purpose=train.sft, student=parrot, student-kind=chat, competes=?1"


@pytest.fixture(scope="module")
def server(stub: tuple[StubServer, str]) -> StubServer:
    """Return a server that is every provider."""
    return stub[0]


@pytest.fixture(scope="module")
def gateway(
    stub: tuple[StubServer, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Return a gateway that holds the providers' keys."""
    with shared_gateway(tmp_path_factory.mktemp("gemini"), stub[1]) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def caller(gateway: Gateway) -> Sharer:
    """Return somebody with a gateway key."""
    return sharer(gateway, "ada")


def post(caller: Sharer, target: str, body: Any, **headers: str) -> Got:
    """Ask for exactly *target*, without any key but those in it."""
    raw = json.dumps(body).encode()
    said = {"content-type": "application/json"} | headers
    return ask(caller.gateway.port, "POST", target, said, raw)


def receipt(caller: Sharer, got: Got) -> dict[str, Any]:
    """Return the predicate of the receipt of what was *got*."""
    exchange = got.headers["x-gateway-exchange"]
    told = ask(
        caller.gateway.port,
        "GET",
        f"/-/receipts/{exchange}",
        {"authorization": f"Bearer {caller.key}"},
    )
    assert told.status == 200, told.body
    predicate: dict[str, Any] = told.json["predicate"]
    return predicate


def test_a_key_in_the_query_stays_at_the_gateway(
    server: StubServer, gateway: Gateway, caller: Sharer
) -> None:
    """Upstream goes the organisation's key alone, and nothing of ours is kept anywhere."""
    server.begin("key")
    got = post(caller, f"{TARGET}:generateContent?x=%20&k%65y={caller.key}&alt=json", QUESTION)
    only = post(caller, f"{TARGET}:countTokens?key={caller.key}", QUESTION)
    wrong = post(caller, f"{TARGET}:generateContent?key=gk-of-nobody", QUESTION)

    assert (got.status, only.status, wrong.status) == (200, 200, 401)
    first, second = server.received
    assert first.target.endswith("/v1beta/models/stub-large:generateContent?x=%20&alt=json")
    assert second.target.endswith("/v1beta/models/stub-large:countTokens")
    assert first.header("x-goog-api-key") == [PROVIDER_SECRET]
    kept = b"".join(_contents(gateway.folder))
    for secret in (caller.key, "gk-of-nobody"):
        assert secret.encode() not in kept
    assert receipt(caller, got)["caller"]["principal"] == "ada"


def test_a_key_may_come_as_a_header_or_a_token(server: StubServer, caller: Sharer) -> None:
    """Wherever it comes, it is replaced, and goes upstream once."""
    server.begin("headers")
    for header, key in (
        ("x-goog-api-key", caller.key),
        ("authorization", f"Bearer {caller.key}"),
    ):
        got = post(caller, f"{TARGET}:generateContent", QUESTION, **{header: key})
        assert got.status == 200

    for sent in server.received:
        assert sent.header("x-goog-api-key") == [PROVIDER_SECRET]
        assert sent.header("authorization") == []


def test_a_method_is_what_it_says(server: StubServer, caller: Sharer) -> None:
    """A header that makes another request of one is refused, as nobody ruled on that."""
    server.begin("override")
    got = post(
        caller,
        "/gemini/v1beta/cachedContents",
        {},
        **{"x-goog-api-key": caller.key, "x-http-method-override": "GET"},
    )

    assert (got.status, got.problem) == (400, "request.malformed")
    assert server.received == []


def test_a_refusal_is_googles_own_exception(gateway: Gateway, caller: Sharer) -> None:
    """The SDK raises what it raises for Google's errors, with our reasons in it."""
    with genai.Client(
        api_key=caller.key,
        http_options=types.HttpOptions(
            base_url=f"{gateway.url}/gemini", headers={"x-intended-use": FORBIDDEN}
        ),
    ) as client:
        with pytest.raises(errors.ClientError) as whole:
            client.models.generate_content(model="stub-large", contents="hi")
        with pytest.raises(errors.ClientError) as streamed:
            list(client.models.generate_content_stream(model="stub-large", contents="hi"))

    for caught in (whole.value, streamed.value):
        assert (caught.code, caught.status) == (403, "PERMISSION_DENIED")
        assert "exchange x-" in str(caught.message)
        info, value = caught.details["error"]["details"]
        assert info["reason"] == "use.forbidden"
        assert value["value"]["reasons"]


@pytest.mark.parametrize("query", ["alt=sse", ""])
def test_a_stream_has_a_receipt_of_every_part(caller: Sharer, query: str) -> None:
    """As events or as an array in pieces, the same parts are listed under the same digests."""
    body = {
        "contents": [{"role": "user", "parts": [{"text": "draw a cat"}]}],
        "generationConfig": {
            "responseModalities": ["TEXT", "IMAGE"],
            "thinkingConfig": {"includeThoughts": True},
        },
    }
    key = {"x-goog-api-key": caller.key}
    got = post(caller, f"{TARGET}:streamGenerateContent?{query}".rstrip("?"), body, **key)
    told = receipt(caller, got)
    text = got.body.decode().replace("data: ", ",")
    parts = [
        part
        for response in json.loads(text if not query else f"[{text.strip().lstrip(',')}]")
        for candidate in response["candidates"]
        for part in candidate["content"]["parts"]
    ]
    image = next(part["inlineData"] for part in parts if "inlineData" in part)

    assert [unit["kind"] for unit in told["outputs"]] == ["text", "reasoning", "image"]
    assert (told["operation"], told["streaming"], told["readable"]) == ("chat", True, True)
    assert (told["ended"], told["finishReasons"]) == ("complete", ["STOP"])
    assert told["features"] == ["image-output", "reasoning"]
    assert told["model"] == {"requested": "stub-large", "reported": "stub-large"}
    assert told["usage"]["reasoningTokens"] == 12
    assert told["outputs"][2]["bytes"] == len(base64.b64decode(image["data"]))


def test_pictures_and_vectors_have_digests(caller: Sharer) -> None:
    """Each output is a unit, by its bytes or its numbers."""
    key = {"x-goog-api-key": caller.key}
    drawn = post(
        caller,
        f"{TARGET}:predict",
        {"instances": [{"prompt": "a cat"}], "parameters": {"sampleCount": 2}},
        **key,
    )
    embedded = post(
        caller,
        f"{TARGET}:batchEmbedContents",
        {"requests": [{"content": {"parts": [{"text": word}]}} for word in "ab"]},
        **key,
    )

    images = receipt(caller, drawn)["outputs"]
    assert [unit["bytes"] for unit in images] == [len(png(f"a cat/{at}")) for at in range(2)]
    vectors = receipt(caller, embedded)["outputs"]
    assert [(unit["kind"], unit["choice"]) for unit in vectors] == [
        ("embedding", 0),
        ("embedding", 1),
    ]


def test_a_blocked_prompt_is_a_stop(caller: Sharer) -> None:
    """The receipt says that the provider declined, and why."""
    key = {"x-goog-api-key": caller.key}
    body = {"contents": [{"role": "user", "parts": [{"text": "block this"}]}]}
    told = receipt(caller, post(caller, f"{TARGET}:generateContent", body, **key))

    assert (told["stop"], told["error"]) == ("policy", "PROHIBITED_CONTENT")
    assert "outputs" not in told


def _contents(folder: Path) -> Iterator[bytes]:
    """Yield what is in each file; one that a running gateway has replaced is not there."""
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                yield path.read_bytes()
