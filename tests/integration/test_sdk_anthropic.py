"""The real Anthropic SDK sees through the gateway what it sees without it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import pytest

from gateway.receipt.keys import parse_trust
from gateway.receipt.model import Receipt
from gateway.receipt.verify import verify_bundle
from tests.support.provider import FakeProvider, Script
from tests.support.proxy import Gateway

KEY = "sk-ant-of-the-caller"
FORBIDDEN = "purpose=train.sft, student=rival, student-kind=chat, audience=public, competes=?1"


def asking(question: str, **more: Any) -> dict[str, Any]:
    """Return the arguments of a message call."""
    return {
        "model": "stub-large",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": question}],
        **more,
    }


WEATHER = {
    "name": "weather",
    "description": "Tell the weather.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    },
}
CALLS = {
    "plain": asking("What is a ledger?", system="Be brief."),
    "thinking": asking(
        "Why is the sky blue?", thinking={"type": "enabled", "budget_tokens": 1024}
    ),
    "tool": asking("call weather for Trondheim", tools=[WEATHER]),
    "refusal": asking("refuse this"),
    "cut-short": asking("Explain everything.", max_tokens=5),
    "beyond-ascii": asking("Was heißt „Quittung“ auf 日本語? 🧾"),
}


@pytest.fixture(scope="module")
def direct(provider_and_url: tuple[FakeProvider, str]) -> Iterator[anthropic.Anthropic]:
    """Return an SDK client that asks the provider itself."""
    url = provider_and_url[1]
    with anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def through(session_gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    """Return an SDK client that asks through the gateway."""
    url = session_gateway.anthropic()
    with anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def both_async(
    provider_url: str, gateway: Gateway
) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, anthropic.AsyncAnthropic]]:
    """Return async clients that ask the provider itself and through the gateway."""
    async with (
        anthropic.AsyncAnthropic(base_url=provider_url, api_key=KEY, max_retries=0) as direct,
        anthropic.AsyncAnthropic(
            base_url=gateway.anthropic(), api_key=KEY, max_retries=0
        ) as through,
    ):
        yield direct, through


@pytest.fixture(autouse=True)
def _forgetful(provider: FakeProvider) -> None:
    """Let the provider forget what earlier tests asked."""


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_is_the_providers(
    call: str, direct: anthropic.Anthropic, through: anthropic.Anthropic
) -> None:
    """A message through the gateway equals the provider's own, request id included."""
    expected = direct.messages.create(**CALLS[call])
    actual = through.messages.create(**CALLS[call])

    assert expected.model_dump() == actual.model_dump()
    assert expected._request_id == actual._request_id


@pytest.mark.parametrize("call", CALLS)
def test_a_stream_is_the_providers(
    call: str, direct: anthropic.Anthropic, through: anthropic.Anthropic
) -> None:
    """A streamed message through the gateway has the provider's own events, in order."""
    expected = [e.model_dump() for e in direct.messages.create(**CALLS[call], stream=True)]
    actual = [e.model_dump() for e in through.messages.create(**CALLS[call], stream=True)]

    assert expected == actual


@pytest.mark.parametrize("call", CALLS)
async def test_async_answers_and_streams_are_the_providers(
    call: str, both_async: tuple[anthropic.AsyncAnthropic, anthropic.AsyncAnthropic]
) -> None:
    """What holds of the sync client holds of the async one and its stream helper."""
    wholes, streamed = [], []
    for client in both_async:
        wholes.append((await client.messages.create(**CALLS[call])).model_dump())
        async with client.messages.stream(**CALLS[call]) as stream:
            streamed.append((await stream.get_final_message()).model_dump())

    assert wholes[0] == wholes[1]
    assert streamed[0] == streamed[1]


def test_what_is_not_read_passes_too(
    direct: anthropic.Anthropic, through: anthropic.Anthropic
) -> None:
    """Counting tokens and listing models are the provider's own."""
    asked: dict[str, Any] = {
        "model": "stub-large",
        "messages": [{"role": "user", "content": "one two three"}],
    }

    assert direct.messages.count_tokens(**asked) == through.messages.count_tokens(**asked)
    assert [m.id for m in direct.models.list()] == [m.id for m in through.models.list()]


@pytest.mark.parametrize("more", [{}, {"stream": True}], ids=["whole", "streamed"])
def test_a_receipt_follows_the_header(
    more: dict[str, Any], through: anthropic.Anthropic, gateway: Gateway
) -> None:
    """The exchange named in the header has a receipt and a bundle that verifies offline."""
    with through.messages.with_streaming_response.create(
        **CALLS["thinking"], **more
    ) as response:
        exchange = response.headers["x-gateway-exchange"]
        content = response.read()
    told = gateway.receipt(exchange)["predicate"]
    trust = parse_trust((gateway.data / "trust.json").read_bytes())
    verified = verify_bundle(gateway.get(f"/-/receipts/{exchange}/bundle")[2], trust)

    assert isinstance(verified.statement, Receipt)
    assert len(content) == told["responseBytes"]
    assert {"reasoning", "text"} == {unit["kind"] for unit in told["outputs"]}
    assert response.headers["request-id"] == told["provider"]["requestId"]


@pytest.mark.parametrize("more", [{}, {"stream": True}], ids=["whole", "streamed"])
def test_a_refusal_raises_the_sdks_exception(
    more: dict[str, Any], through: anthropic.Anthropic, provider: FakeProvider
) -> None:
    """A forbidden use raises PermissionDeniedError; nothing reaches the provider."""
    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        through.messages.create(
            **CALLS["plain"], **more, extra_headers={"x-intended-use": FORBIDDEN}
        )

    assert isinstance(caught.value.body, dict)
    assert "error" == caught.value.body["type"]
    assert "use.forbidden" == caught.value.body["error"]["code"]
    assert [] == provider.received


def test_versions_and_betas_pass(through: anthropic.Anthropic, provider: FakeProvider) -> None:
    """The version and beta headers reach the provider as the SDK sent them."""
    beta = "context-1m-2025-08-07,interleaved-thinking-2025-05-14"
    through.messages.create(**CALLS["plain"], extra_headers={"anthropic-beta": beta})
    received = provider.received[-1]

    assert [beta] == received.header("anthropic-beta")
    assert 1 == len(received.header("anthropic-version"))
    sent = received.header("authorization") + received.header("x-api-key")
    assert [KEY] == [value.removeprefix("Bearer ") for value in sent]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, anthropic.BadRequestError),
        (429, anthropic.RateLimitError),
        (529, anthropic.APIStatusError),
    ],
)
def test_a_providers_error_is_the_providers(
    status: int, kind: type[anthropic.APIStatusError], through: anthropic.Anthropic
) -> None:
    """An error of the provider raises the SDK's own exception for it, body unchanged."""
    with pytest.raises(kind) as caught:
        through.messages.create(**CALLS["plain"], extra_headers=Script(status=status).header())

    assert status == caught.value.status_code
    assert isinstance(caught.value.body, dict)
    assert "scripted_error" == caught.value.body["error"]["type"]


def test_an_overloaded_stream_is_the_providers(through: anthropic.Anthropic) -> None:
    """An error event in a stream raises as it does without the gateway."""
    with pytest.raises(anthropic.APIStatusError, match="scripted"):
        list(
            through.messages.create(
                **CALLS["plain"], stream=True, extra_headers=Script(error_after=4).header()
            )
        )
