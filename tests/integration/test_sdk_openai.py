"""The real OpenAI SDK sees through the gateway what it sees without it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest

from gateway.receipt.keys import parse_trust
from gateway.receipt.model import Receipt, Refusal
from gateway.receipt.statement import statement_subjects
from gateway.receipt.verify import verify_bundle
from tests.support.provider import FakeProvider, Script
from tests.support.proxy import Gateway

KEY = "sk-of-the-caller"
FORBIDDEN = "purpose=train.sft, student=rival, student-kind=chat, audience=public, competes=?1"
HELD = (
    "purpose=train.sft, student=parrot, student-kind=chat, audience=internal, competes=?0, "
    'imitates-teacher=?1, competes-basis="a memo", competes-assessed-by="J. Doe"'
)
PERMITTED = "purpose=train.sft, student=sorter, student-kind=classifier, audience=internal"


def asking(question: str, **more: Any) -> dict[str, Any]:
    """Return the arguments of a chat call."""
    return {
        "model": "stub-large",
        "messages": [{"role": "user", "content": question}],
        **more,
    }


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        },
    },
}
CALLS = {
    "plain": asking("What is a ledger?"),
    "three-choices": asking("Name a colour.", n=3),
    "tool": asking("call weather for Trondheim", tools=[WEATHER]),
    "reasoning": {**asking("Why is the sky blue?"), "model": "stub-reasoner"},
    "refusal": asking("refuse this"),
    "cut-short": asking("Explain everything.", max_tokens=5),
    "beyond-ascii": asking("Was heißt „Quittung“ auf 日本語? 🧾"),
    "odd-numbers": asking("Count.", temperature=1.0, seed=2**60, logit_bias={"50256": -100}),
}
STREAMED = {**CALLS["plain"], "stream": True}


@pytest.fixture(scope="module")
def direct(provider_and_url: tuple[FakeProvider, str]) -> Iterator[openai.OpenAI]:
    """Return an SDK client that asks the provider itself."""
    url = f"{provider_and_url[1]}/v1"
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def through(session_gateway: Gateway) -> Iterator[openai.OpenAI]:
    """Return an SDK client that asks through the gateway."""
    url = session_gateway.openai()
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def direct_async(provider_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """Return an async client that asks the provider itself."""
    url = f"{provider_url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def through_async(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    """Return an async client that asks through the gateway."""
    url = gateway.openai()
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(autouse=True)
def _forgetful(provider: FakeProvider) -> None:
    """Let the provider forget what earlier tests asked."""


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_is_the_providers(
    call: str, direct: openai.OpenAI, through: openai.OpenAI
) -> None:
    """A chat answer through the gateway equals the provider's own, request id included."""
    expected = direct.chat.completions.create(**CALLS[call])
    actual = through.chat.completions.create(**CALLS[call])

    assert expected.model_dump() == actual.model_dump()
    assert expected._request_id == actual._request_id


@pytest.mark.parametrize("call", CALLS)
def test_a_stream_is_the_providers(
    call: str, direct: openai.OpenAI, through: openai.OpenAI
) -> None:
    """A streamed chat answer through the gateway has the provider's own chunks, in order."""
    asked = {**CALLS[call], "stream": True, "stream_options": {"include_usage": True}}
    expected = [chunk.model_dump() for chunk in direct.chat.completions.create(**asked)]
    actual = [chunk.model_dump() for chunk in through.chat.completions.create(**asked)]

    assert expected == actual


@pytest.mark.parametrize("call", CALLS)
async def test_async_answers_are_the_providers(
    call: str, direct_async: openai.AsyncOpenAI, through_async: openai.AsyncOpenAI
) -> None:
    """What holds of the sync client holds of the async one."""
    expected = await direct_async.chat.completions.create(**CALLS[call])
    actual = await through_async.chat.completions.create(**CALLS[call])

    assert expected.model_dump() == actual.model_dump()


async def test_async_streams_are_the_providers(
    direct_async: openai.AsyncOpenAI, through_async: openai.AsyncOpenAI
) -> None:
    """The async client's stream helper accumulates the same answer and usage."""
    finals = []
    for client in (direct_async, through_async):
        asked = CALLS["three-choices"]
        async with client.chat.completions.stream(
            **asked, stream_options={"include_usage": True}
        ) as stream:
            async for _ in stream:
                pass
            finals.append((await stream.get_final_completion()).model_dump())

    assert finals[0] == finals[1]


def test_what_is_not_read_passes_too(direct: openai.OpenAI, through: openai.OpenAI) -> None:
    """Operations that the gateway has no reader for are the provider's, byte for byte."""
    expected = direct.embeddings.with_raw_response.create(model="stub-small", input=["a", "b"])
    actual = through.embeddings.with_raw_response.create(model="stub-small", input=["a", "b"])

    assert expected.content == actual.content
    assert [m.id for m in direct.models.list()] == [m.id for m in through.models.list()]


def test_a_receipt_follows_the_header(through: openai.OpenAI, gateway: Gateway) -> None:
    """The exchange named in the header has a receipt over exactly the bytes that came."""
    raw = through.chat.completions.with_raw_response.create(**CALLS["plain"])
    exchange = raw.headers["x-gateway-exchange"]
    told = gateway.receipt(exchange)["predicate"]

    assert "permit" == raw.headers["x-gateway-effect"]
    assert exchange == told["exchange"]
    assert len(raw.content) == told["responseBytes"]
    assert raw.headers["x-request-id"] == told["provider"]["requestId"]
    assert raw.parse().usage.completion_tokens == told["usage"]["outputTokens"]


@pytest.mark.parametrize("asked", [CALLS["plain"], STREAMED], ids=["whole", "streamed"])
def test_a_bundle_verifies_offline(
    asked: dict[str, Any], through: openai.OpenAI, gateway: Gateway
) -> None:
    """A bundle verifies with nothing but the trust file, and names the answer's digest."""
    with through.chat.completions.with_streaming_response.create(**asked) as response:
        exchange = response.headers["x-gateway-exchange"]
        content = response.read()
    gateway.receipt(exchange)
    _, _, bundle = gateway.get(f"/-/receipts/{exchange}/bundle")
    trust = parse_trust((gateway.data / "trust.json").read_bytes())
    verified = verify_bundle(bundle, trust)

    assert isinstance(verified.statement, Receipt)
    assert exchange == verified.statement.exchange
    assert asked.get("stream", False) == verified.statement.streaming
    subjects = {one.name: one.digest["sha256"] for one in statement_subjects(verified.leaf)}
    assert hashlib.sha256(content).hexdigest() == subjects["response.body"]


@pytest.mark.parametrize(
    ("use", "code"), [(FORBIDDEN, "use.forbidden"), (HELD, "use.held")], ids=["forbid", "hold"]
)
@pytest.mark.parametrize("asked", [CALLS["plain"], STREAMED], ids=["whole", "streamed"])
def test_a_refusal_raises_the_sdks_exception(
    use: str,
    code: str,
    asked: dict[str, Any],
    through: openai.OpenAI,
    gateway: Gateway,
    provider: FakeProvider,
) -> None:
    """A held or forbidden use raises PermissionDeniedError; nothing reaches the provider."""
    with pytest.raises(openai.PermissionDeniedError) as caught:
        through.chat.completions.create(**asked, extra_headers={"x-intended-use": use})

    assert code == caught.value.code
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["reasons"][0]["clause"]
    assert [] == provider.received
    told = gateway.receipt(caught.value.response.headers["x-gateway-exchange"])["predicate"]
    assert (
        code.removeprefix("use.")
        == {"forbid": "forbidden", "hold": "held"}[told["ruling"]["effect"]]
    )


def test_a_refusal_is_a_statement(through: openai.OpenAI, gateway: Gateway) -> None:
    """A refusal's bundle verifies like a receipt's."""
    with pytest.raises(openai.PermissionDeniedError) as caught:
        through.chat.completions.create(
            **CALLS["plain"], extra_headers={"x-intended-use": FORBIDDEN}
        )
    exchange = caught.value.response.headers["x-gateway-exchange"]
    gateway.receipt(exchange)
    trust = parse_trust((gateway.data / "trust.json").read_bytes())
    verified = verify_bundle(gateway.get(f"/-/receipts/{exchange}/bundle")[2], trust)

    assert isinstance(verified.statement, Refusal)


def test_a_use_in_default_headers_reaches_the_receipt(gateway: Gateway) -> None:
    """A use declared once on the client is on each receipt, and its outputs are digested."""
    with openai.OpenAI(
        base_url=gateway.openai(),
        api_key=KEY,
        max_retries=0,
        default_headers={"x-intended-use": PERMITTED},
    ) as client:
        raw = client.chat.completions.with_raw_response.create(**CALLS["plain"])
    told = gateway.receipt(raw.headers["x-gateway-exchange"])["predicate"]

    assert "train.sft" == told["declared"]["use"]["purpose"]
    text = raw.parse().choices[0].message.content or ""
    assert hashlib.sha256(text.encode()).hexdigest() == told["outputs"][0]["sha256"]
    assert "sha256-salted" == told["outputs"][0]["row"]["alg"]


def test_the_use_stays_inside(through: openai.OpenAI, provider: FakeProvider) -> None:
    """Neither the declared use nor any x-gateway header goes to the provider; others do."""
    through.chat.completions.create(
        **CALLS["plain"],
        extra_headers={
            "x-intended-use": PERMITTED,
            "x-gateway-note": "ours",
            "x-unknown": "theirs",
            "OpenAI-Organization": "org-1",
        },
    )
    received = provider.received[-1]

    assert [] == received.header("x-intended-use")
    assert [] == received.header("x-gateway-note")
    assert ["theirs"] == received.header("x-unknown")
    assert ["org-1"] == received.header("openai-organization")
    assert [f"Bearer {KEY}"] == received.header("authorization")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (529, openai.InternalServerError),
    ],
)
def test_a_providers_error_is_the_providers(
    status: int, kind: type[openai.APIStatusError], through: openai.OpenAI
) -> None:
    """An error of the provider raises the SDK's own exception for it, body unchanged."""
    with pytest.raises(kind) as caught:
        through.chat.completions.create(
            **CALLS["plain"], extra_headers=Script(status=status).header()
        )

    assert status == caught.value.status_code
    assert "req_scripted" == caught.value.request_id
    assert {"message": "scripted", "type": "scripted_error"} == caught.value.body


def test_an_error_inside_a_stream_is_the_providers(through: openai.OpenAI) -> None:
    """An error event in a stream raises as it does without the gateway."""
    with pytest.raises(openai.APIError, match="scripted"):
        list(
            through.chat.completions.create(
                **CALLS["plain"], stream=True, extra_headers=Script(error_after=3).header()
            )
        )


def test_a_broken_answer_is_an_error(through: openai.OpenAI) -> None:
    """A provider that breaks off inside a body raises a server error that says so."""
    with pytest.raises(openai.InternalServerError) as caught:
        through.chat.completions.create(
            **CALLS["plain"], extra_headers=Script(break_after=300).header()
        )

    assert "provider.broke_off" == caught.value.code


def test_a_broken_stream_looks_broken(through: openai.OpenAI) -> None:
    """A provider that breaks off inside a stream raises a connection error, no clean end."""
    stream = through.chat.completions.create(
        **CALLS["plain"], stream=True, extra_headers=Script(break_after=900).header()
    )
    with pytest.raises(openai.APIConnectionError):
        list(stream)


def test_chunks_of_one_byte_change_nothing(
    direct: openai.OpenAI, through: openai.OpenAI
) -> None:
    """A stream that arrives byte by byte gives the same chunks."""
    asked = {**CALLS["beyond-ascii"], "stream": True}
    expected = [chunk.model_dump() for chunk in direct.chat.completions.create(**asked)]
    header = Script(chunk_bytes=1).header()
    actual = [
        chunk.model_dump()
        for chunk in through.chat.completions.create(**asked, extra_headers=header)
    ]

    assert expected == actual


def test_encoded_answers_pass(direct: openai.OpenAI, through: openai.OpenAI) -> None:
    """An answer that the provider encodes is read by the gateway and by the SDK alike."""
    expected = direct.chat.completions.create(**CALLS["plain"])
    for asked in (CALLS["plain"], {**CALLS["plain"], "stream": True}):
        answer = through.chat.completions.create(
            **asked, extra_headers=Script(gzip=True).header()
        )
        text = (
            "".join(chunk.choices[0].delta.content or "" for chunk in answer)
            if "stream" in asked
            else answer.choices[0].message.content
        )

        assert expected.choices[0].message.content == text
