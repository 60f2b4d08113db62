"""A provider that says stop is asked once: it is recorded, shown, and never got round."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import anthropic
import openai
import pytest

from tests.support.answers import Teller, Told, telling
from tests.support.proxy import Gateway, running_gateway

HI: Final[Any] = [{"role": "user", "content": "hi"}]
FILTERED: Final[dict[str, Any]] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "", "refusal": None},
            "finish_reason": "content_filter",
        }
    ],
}
REFUSED: Final[dict[str, Any]] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": "refusal",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@pytest.fixture(scope="module")
def teller() -> Iterator[Teller]:
    """Run a provider that answers as it is told."""
    with telling(Told()) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(teller: Teller, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Run a gateway before it, with a credential for each provider."""
    folder = tmp_path_factory.mktemp("stops")
    with running_gateway(folder, teller.url, keys="managed") as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> str:
    """Return a gateway key."""
    done = gateway.command("key", "new", "--principal", "ada", "--project", "search")
    return done.stdout.strip()


def openai_error(code: str, kind: str) -> dict[str, Any]:
    """Return an error object of OpenAI's."""
    return {"error": {"message": "no", "type": kind, "param": None, "code": code}}


def anthropic_error(kind: str) -> dict[str, Any]:
    """Return an error object of Anthropic's."""
    return {"type": "error", "error": {"type": kind, "message": "no"}}


@pytest.mark.parametrize(
    ("sdk", "status", "body", "stop"),
    [
        ("openai", 429, openai_error("rate_limit_exceeded", "requests"), "rate-limit"),
        ("openai", 429, {}, "rate-limit"),
        ("openai", 429, openai_error("insufficient_quota", "insufficient_quota"), "quota"),
        ("openai", 402, openai_error("payment_required", "billing_error"), "quota"),
        ("openai", 200, FILTERED, "policy"),
        ("anthropic", 429, anthropic_error("rate_limit_error"), "rate-limit"),
        ("anthropic", 402, anthropic_error("billing_error"), "quota"),
        ("anthropic", 200, REFUSED, "refusal"),
    ],
    ids=[
        "openai-rate",
        "openai-nameless",
        "openai-quota",
        "openai-payment",
        "openai-filter",
        "anthropic-rate",
        "anthropic-billing",
        "anthropic-refusal",
    ],
)
def test_a_stop_is_recorded_and_not_got_round(
    sdk: str,
    status: int,
    body: dict[str, Any],
    stop: str,
    gateway: Gateway,
    teller: Teller,
    key: str,
) -> None:
    """One request goes upstream, and its receipt says in what way the provider stopped."""
    teller.asked.clear()
    teller.answers = (Told(status=status, body=json.dumps(body).encode()),)
    exchange = ""
    if sdk == "openai":
        with openai.OpenAI(base_url=gateway.openai(), api_key=key, max_retries=0) as client:
            try:
                raw = client.chat.completions.with_raw_response.create(model="m", messages=HI)
                exchange = raw.headers["x-gateway-exchange"]
            except openai.APIStatusError as error:
                exchange = error.response.headers["x-gateway-exchange"]
    else:
        with anthropic.Anthropic(
            base_url=gateway.anthropic(), api_key=key, max_retries=0
        ) as other:
            try:
                told = other.messages.with_raw_response.create(
                    model="m", max_tokens=9, messages=HI
                )
                exchange = told.headers["x-gateway-exchange"]
            except anthropic.APIStatusError as refused:
                exchange = refused.response.headers["x-gateway-exchange"]
    listed = gateway.command("receipt", "list", "--stop", stop, "--json").stdout.splitlines()
    _, _, metrics = gateway.get("/-/metrics")

    assert 1 == len(teller.asked)
    assert exchange == json.loads(listed[-1])["exchange"]
    assert stop == json.loads(listed[-1])["stop"]
    assert f'gateway_stops_total{{provider="{sdk}",stop="{stop}"}}'.encode() in metrics
    assert f"stopped by {stop}" in gateway.command("receipt", "show", exchange).stdout


def test_stops_are_told_apart(gateway: Gateway, teller: Teller, key: str) -> None:
    """An ordinary answer is no stop, and no search for stops finds it."""
    whole = {**FILTERED, "choices": [{**FILTERED["choices"][0], "finish_reason": "stop"}]}
    teller.answers = (Told(body=json.dumps(whole).encode()),)
    with openai.OpenAI(base_url=gateway.openai(), api_key=key) as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=HI)
    exchange = raw.headers["x-gateway-exchange"]
    found = [
        json.loads(line)["exchange"]
        for stop in ("rate-limit", "quota", "refusal", "policy")
        for line in gateway.command(
            "receipt", "list", "--stop", stop, "--json"
        ).stdout.splitlines()
    ]

    assert exchange not in found
