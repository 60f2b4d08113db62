"""Managed keys: callers hold gateway keys, the provider sees the organisation's."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.support.provider import FakeProvider
from tests.support.proxy import PROVIDER_SECRET, Gateway, running_gateway


@pytest.fixture(scope="module")
def managed(
    provider_and_url: tuple[FakeProvider, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway with managed keys."""
    folder = tmp_path_factory.mktemp("managed")
    with running_gateway(folder, provider_and_url[1], keys="managed") as gateway:
        yield gateway


def new_key(gateway: Gateway, *words: str, project: str = "search") -> str:
    """Return the secret of a new gateway key."""
    done = gateway.command("key", "new", "--principal", "ada", "--project", project, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ask_openai(gateway: Gateway, key: str) -> str:
    """Make a call and return its exchange."""
    with openai.OpenAI(base_url=gateway.openai(), api_key=key, max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": "hi"}]
        )
    return raw.headers["x-gateway-exchange"]


def test_the_providers_key_is_swapped_in(managed: Gateway, provider: FakeProvider) -> None:
    """A gateway key stands where the SDK puts its key and never reaches the provider."""
    key = new_key(managed)
    ask_openai(managed, key)
    with anthropic.Anthropic(
        base_url=managed.anthropic(), api_key=key, max_retries=0
    ) as client:
        client.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        )

    for received in provider.received:
        sent = received.header("authorization") + received.header("x-api-key")
        assert [PROVIDER_SECRET] == [value.removeprefix("Bearer ") for value in sent]
        assert key not in str(received.headers)


def test_the_receipt_names_the_keyholder(managed: Gateway, provider: FakeProvider) -> None:
    """Principal and project of a receipt are those of the key; another project sees nothing."""
    key = new_key(managed)
    exchange = ask_openai(managed, key)
    headers = {"authorization": f"Bearer {key}"}
    status, _, body = managed.get(f"/-/receipts/{exchange}", headers)
    other = {"authorization": f"Bearer {new_key(managed, project='else')}"}

    assert 200 == status
    assert b'"caller":{"principal":"ada","project":"search"}' in body
    assert 404 == managed.get(f"/-/receipts/{exchange}", other)[0]
    assert 401 == managed.get(f"/-/receipts/{exchange}")[0]


@pytest.mark.parametrize("key", ["sk-made-up", PROVIDER_SECRET])
def test_an_unknown_key_is_not_admitted(
    key: str, managed: Gateway, provider: FakeProvider
) -> None:
    """A key that nobody gave out raises AuthenticationError and asks nobody."""
    with pytest.raises(openai.AuthenticationError) as caught:
        ask_openai(managed, key)
    with (
        anthropic.Anthropic(base_url=managed.anthropic(), api_key=key, max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        )

    assert "credential.unknown" == caught.value.code
    assert [] == provider.received


def test_a_revoked_key_is_out_at_once(managed: Gateway, provider: FakeProvider) -> None:
    """Revoking a key on the command line closes the door of the running gateway."""
    key = new_key(managed, "--declaration", "use-0123456789abcdef0123")
    listed = managed.command("key", "list").stdout.strip().splitlines()
    done = managed.command("key", "revoke", listed[-1].split()[0])

    assert 0 == done.returncode, done.stderr
    with pytest.raises(openai.AuthenticationError):
        ask_openai(managed, key)


def test_an_expired_key_is_not_admitted(managed: Gateway, provider: FakeProvider) -> None:
    """A key is good until the end of its last day and no longer."""
    with pytest.raises(openai.AuthenticationError):
        ask_openai(managed, new_key(managed, "--expires", "2020-01-31"))

    assert ask_openai(managed, new_key(managed, "--expires", "2999-12-31"))
