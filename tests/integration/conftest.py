"""One fake provider and one gateway for all who don't need their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.provider import FakeProvider, fake_provider
from tests.support.proxy import NOBODY, Gateway, running_gateway
from tests.support.stub.server import StubServer, stub_server
from tests.support.surface import surface_gateway


@pytest.fixture(scope="session")
def provider_and_url() -> Iterator[tuple[FakeProvider, str]]:
    """Run a fake provider for the session."""
    with fake_provider() as running:
        yield running


@pytest.fixture(scope="session")
def session_gateway(
    provider_and_url: tuple[FakeProvider, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway with passthrough keys for the session."""
    folder = tmp_path_factory.mktemp("gateway")
    with running_gateway(folder, provider_and_url[1], more=NOBODY) as gateway:
        yield gateway


@pytest.fixture
def provider(provider_and_url: tuple[FakeProvider, str]) -> FakeProvider:
    """Return the fake provider, idle, with nothing received and nothing generated."""
    provider_and_url[0].wait_until_idle()
    provider_and_url[0].forget()
    return provider_and_url[0]


@pytest.fixture
def provider_url(provider_and_url: tuple[FakeProvider, str]) -> str:
    """Return where the fake provider listens."""
    return provider_and_url[1]


@pytest.fixture
def gateway(session_gateway: Gateway, provider: FakeProvider) -> Gateway:
    """Return the gateway, idle, before a provider that has forgotten all before."""
    session_gateway.wait_until_idle()
    provider.wait_until_idle()
    provider.forget()
    return session_gateway


@pytest.fixture(scope="session")
def stub() -> Iterator[tuple[StubServer, str]]:
    """Run a server that is every provider, for the session."""
    with stub_server() as running:
        yield running


@pytest.fixture(scope="session")
def surface(
    stub: tuple[StubServer, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway before every provider of the stub, for the session."""
    with surface_gateway(tmp_path_factory.mktemp("surface"), stub[1]) as gateway:
        yield gateway
