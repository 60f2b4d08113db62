"""One PostgreSQL for the session, and an empty place in it for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres import Server, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Return a running server that nobody stops."""
    with serving() as one:
        yield one


@pytest.fixture
def url(server: Server) -> str:
    """Return the URL of an empty place in its database."""
    return server.new_place()
