"""Keys that are good for some providers and models only, as SDKs see them."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.support.provider import FakeProvider
from tests.support.proxy import Gateway, running_gateway


@pytest.fixture(scope="module")
def managed(
    provider_and_url: tuple[FakeProvider, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway with managed keys."""
    folder = tmp_path_factory.mktemp("scoped")
    with running_gateway(folder, provider_and_url[1], keys="managed") as gateway:
        yield gateway


def new_key(gateway: Gateway, *words: str) -> str:
    """Return the secret of a new gateway key."""
    done = gateway.command("key", "new", "--principal", "ada", "--project", "p", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ask(gateway: Gateway, key: str, model: str = "stub-large") -> object:
    """Make a call by OpenAI's SDK."""
    with openai.OpenAI(base_url=gateway.openai(), api_key=key, max_retries=0) as client:
        return client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "hi"}]
        )


def ask_anthropic(gateway: Gateway, key: str, model: str = "stub-large") -> object:
    """Make a call by Anthropic's SDK."""
    with anthropic.Anthropic(
        base_url=gateway.anthropic(), api_key=key, max_retries=0
    ) as client:
        return client.messages.create(
            model=model, max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        )


def test_a_model_that_the_key_is_not_for_is_refused(
    managed: Gateway, provider: FakeProvider
) -> None:
    """The SDK raises PermissionDeniedError with what the key is for; nobody is asked."""
    key = new_key(managed, "--model", "stub-l*", "--model", "other")
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask(managed, key, "stub-small")
    with pytest.raises(anthropic.PermissionDeniedError) as other:
        ask_anthropic(managed, key, "stub-small")

    assert "key.not_allowed" == caught.value.code
    assert "it is for `stub-l*`, `other`" in str(caught.value)
    assert "key.not_allowed" == other.value.response.headers["x-gateway-problem"]
    assert [] == provider.received
    ask(managed, key)
    ask_anthropic(managed, key)
    assert 2 == len(provider.received)


def test_what_nobody_reads_is_refused_where_models_are_limited(
    managed: Gateway, provider: FakeProvider
) -> None:
    """An operation whose model is unknown is no way round; lists of models are fine."""
    key = new_key(managed, "--model", "stub-l*")
    with openai.OpenAI(base_url=managed.openai(), api_key=key, max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError):
            client.post("/something/new", body={"model": "stub-large"}, cast_to=object)
        client.models.list()

    assert ["/v1/models"] == [received.target for received in provider.received]


def test_a_provider_that_the_key_is_not_for_is_refused(
    managed: Gateway, provider: FakeProvider
) -> None:
    """A key for one provider asks no other, whatever is asked."""
    key = new_key(managed, "--provider", "anthropic")
    with openai.OpenAI(base_url=managed.openai(), api_key=key, max_retries=0) as client:
        for attempt in (client.models.list, lambda: client.models.retrieve("m")):
            with pytest.raises(openai.PermissionDeniedError):
                attempt()

    assert [] == provider.received
    assert ask_anthropic(managed, key)


@pytest.mark.parametrize("role", ["auditor", "legal", "operator"])
def test_roles_that_only_read_ask_nobody(
    role: str, managed: Gateway, provider: FakeProvider
) -> None:
    """A key without `caller` or `researcher` is refused at a provider's door, not at ours."""
    key = new_key(managed, "--role", role)
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask(managed, key)

    assert "key.not_allowed" == caught.value.code
    assert [] == provider.received
    status, _, _ = managed.get("/-/uses", {"authorization": f"Bearer {key}"})
    assert 200 == status
    assert ask(managed, new_key(managed, "--role", role, "--role", "researcher"))


def test_a_revoked_key_with_limits_is_out_at_once(
    managed: Gateway, provider: FakeProvider
) -> None:
    """A key with models and limits is listed with them, and ends like any other."""
    key = new_key(managed, "--model", "stub-*", "--limit", "requests/day=5")
    ask(managed, key)
    listed = managed.command("key", "list").stdout.strip().splitlines()[-1]
    assert "stub-*" in listed
    assert "requests/day=5" in listed
    managed.command("key", "revoke", listed.split()[0])

    with pytest.raises(openai.AuthenticationError):
        ask(managed, key)


@pytest.mark.parametrize(
    "words",
    [
        ["--model", ""],
        ["--model", "two words"],
        ["--model", "x" * 257],
        ["--provider", "a\tb"],
        ["--limit", "requests/day=1", "--limit", "requests/day=2"],
        ["--limit", "requests/week=1"],
        ["--limit", "money/day=1"],
    ],
    ids=["empty", "blank", "long", "tab", "twice", "week", "unpriced"],
)
def test_keys_that_cannot_be(words: list[str], managed: Gateway) -> None:
    """What a key can't be good for is an error on the command line, and makes no key."""
    before = managed.command("key", "list").stdout
    done = managed.command("key", "new", "--principal", "ada", "--project", "p", *words)

    assert done.returncode in (2, 3), done.stdout
    assert "Traceback" not in done.stderr
    assert before == managed.command("key", "list").stdout
