"""SDKs try again by themselves: each attempt is an exchange, and all of one call are tied."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import anthropic
import openai
import pytest

from tests.support.answers import Teller, Told, telling
from tests.support.proxy import Gateway, running_gateway

CHAT: Final = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hello"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
MESSAGE: Final = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
NOT_YET: Final = (
    ("retry-after-ms", "10"),
    ("retry-after", "1"),
    ("x-should-retry", "true"),
)
HI: Final[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def teller() -> Iterator[Teller]:
    """Run a provider that answers as it is told."""
    with telling(Told()) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(teller: Teller, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Run a gateway before it."""
    with running_gateway(tmp_path_factory.mktemp("attempts"), teller.url) as running:
        yield running


def receipts(gateway: Gateway, count: int) -> list[dict[str, Any]]:
    """Return the last *count* receipts."""
    listed = gateway.command("receipt", "list", "--json", "--limit", "1000").stdout.splitlines()
    exchanges = [json.loads(line)["exchange"] for line in listed[-count:]]
    return [gateway.receipt(exchange)["predicate"] for exchange in exchanges]


def fail_first(teller: Teller, status: int, then: dict[str, Any]) -> None:
    """Have the provider answer *status* once, and then well."""
    teller.asked.clear()
    teller.bodies.clear()
    name = "rate_limit_error" if status == 429 else "api_error"
    error = {"type": "error", "error": {"type": name, "message": "no"}}
    teller.answers = (
        Told(status=status, body=json.dumps(error).encode(), headers=NOT_YET),
        Told(body=json.dumps(then).encode()),
    )


@pytest.mark.parametrize("status", [429, 500])
@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_attempts_of_one_call_are_tied(
    sdk: str, status: int, gateway: Gateway, teller: Teller
) -> None:
    """Two attempts are two exchanges with one commitment; retry headers pass unchanged."""
    if sdk == "openai":
        fail_first(teller, status, CHAT)
        with openai.OpenAI(base_url=gateway.openai(), api_key="sk-1") as client:
            client.chat.completions.create(model="m", messages=HI)
            sent = [json.loads(body)["model"] for body in teller.bodies]
            client.chat.completions.create(model="other", messages=HI)
    else:
        fail_first(teller, status, MESSAGE)
        with anthropic.Anthropic(base_url=gateway.anthropic(), api_key="sk-1") as other:
            other.messages.create(model="m", max_tokens=9, messages=HI)
            sent = [json.loads(body)["model"] for body in teller.bodies]
            other.messages.create(model="other", max_tokens=9, messages=HI)
    first, second, third = receipts(gateway, 3)

    assert ["m", "m"] == sent
    assert ["0", "1", "0"] == [asked["x-stainless-retry-count"] for asked in teller.asked]
    assert status == first["provider"]["status"]
    assert ("rate-limit" if status == 429 else None) == first.get("stop")
    assert [0, 1, 0] == [one["attempt"]["number"] for one in (first, second, third)]
    assert first["attempt"]["of"] == second["attempt"]["of"]
    assert "hmac-sha256" == first["attempt"]["of"]["alg"]
    assert first["attempt"]["of"] != third["attempt"]["of"]
    told = gateway.command("receipt", "show", second["exchange"]).stdout
    assert "attempt 2 as the caller's SDK says" in told


def test_what_the_caller_waits_for_is_the_providers_word(
    gateway: Gateway, teller: Teller
) -> None:
    """An error's retry headers reach the SDK as the provider sent them."""
    fail_first(teller, 429, CHAT)
    with (
        openai.OpenAI(base_url=gateway.openai(), api_key="sk-1", max_retries=0) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.chat.completions.create(model="m", messages=HI)

    assert dict(NOT_YET).items() <= dict(caught.value.response.headers).items()
    assert 1 == len(teller.asked)


def test_an_idempotency_key_ties_whatever_is_sent(gateway: Gateway, teller: Teller) -> None:
    """Calls with one key are tied though their bodies differ; another caller's are not."""
    teller.answers = (Told(body=json.dumps(CHAT).encode()),)
    tied = {"Idempotency-Key": "order-66"}
    for key, model in (("sk-1", "a"), ("sk-1", "b"), ("sk-2", "a")):
        with openai.OpenAI(base_url=gateway.openai(), api_key=key) as client:
            client.chat.completions.create(model=model, messages=HI, extra_headers=tied)
    of = [one["attempt"]["of"]["value"] for one in receipts(gateway, 3)]

    assert of[0] == of[1] != of[2]
    assert "order-66" == teller.asked[-1]["idempotency-key"]


def test_who_says_nothing_of_attempts_has_none(gateway: Gateway, teller: Teller) -> None:
    """Without an SDK's header and without an idempotency key there is nothing to tie."""
    teller.answers = (Told(body=json.dumps(CHAT).encode()),)
    omit: Any = openai.Omit()
    with openai.OpenAI(base_url=gateway.openai(), api_key="sk-1") as client:
        client.chat.completions.create(
            model="m", messages=HI, extra_headers={"x-stainless-retry-count": omit}
        )

    assert "attempt" not in receipts(gateway, 1)[0]
