"""A student that came from something withdrawn answers no more, from the next request on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.caller import Caller
from tests.support.provider import fake_provider
from tests.support.proxy import Gateway
from tests.support.taught import teach, with_pupil
from tests.support.workers import OPENAI, chat, kill, new_house, one_to_each, start

PUPIL = "/pupil/v1/chat/completions"
WORKERS = 2


@pytest.fixture
def provider_url() -> Iterator[str]:
    """Run a provider that answers for the student."""
    with fake_provider() as (_, url):
        yield url


def ask(caller: Caller) -> tuple[int, str]:
    """Ask the student; return the status, and what was said."""
    answer = caller.ask("POST", PUPIL, OPENAI, chat("hello"))
    return answer.status, answer.body.decode()


def withdraw(gateway: Gateway, what: str) -> str:
    """Withdraw something from another process; return what that printed."""
    done = gateway.command("review", "withdraw", what, "--by", "grace", "--reason", "asked to")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_worker_holds_a_student_as_soon_as_its_past_is_withdrawn(
    tmp_path: Path, provider_url: str
) -> None:
    """One answer is withdrawn while the gateway serves: no worker forwards to the student."""
    gateway = new_house(tmp_path / "house", provider_url, WORKERS)
    exchange, manifest = teach(gateway.settings_file)
    with_pupil(gateway.settings_file, provider_url)
    try:
        start(gateway, WORKERS)
        with one_to_each(gateway, WORKERS) as callers:
            assert [200] * WORKERS == [ask(caller)[0] for caller in callers.values()]

            told = withdraw(gateway, exchange)

            assert f"held with it: 1 student, with {WORKERS} answers: parser (" in told
            for caller in callers.values():
                status, said = ask(caller)
                assert 403 == status, said
                assert f"grace withdrew {exchange}, which this student came from" in said
        assert manifest in gateway.command("lineage", "show", manifest, "--json").stdout
    finally:
        kill(gateway)
