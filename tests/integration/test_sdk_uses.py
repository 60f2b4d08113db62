"""A use is declared once, legal rules once, and requests that cite it pass."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from gateway.receipt.model import Receipt, Refusal
from tests.support.ledger import Written
from tests.support.provider import FakeProvider
from tests.support.proxy import Gateway

HELD = (
    "purpose=train.sft",
    "student=parrot",
    "student-kind=chat",
    "audience=internal",
    "competes=no",
    "competes-basis=memo",
    "competes-assessed-by=ada",
    "imitates-teacher=yes",
)
PERMITTED = (
    "purpose=train.sft",
    "student=sorter",
    "student-kind=classifier",
    "audience=internal",
)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """Return an SDK client that asks through the gateway."""
    with openai.OpenAI(base_url=gateway.openai(), api_key="sk-1", max_retries=0) as client:
        yield client


def declare(gateway: Gateway, *words: str, project: str = "default") -> str:
    """Return the id of a declaration, registered while the gateway runs."""
    done = gateway.command("use", "declare", "--project", project, "--owner", "ada", *words)
    assert done.returncode == 0, done.stderr
    return next(word for word in done.stdout.split() if word.startswith("use-"))


def ask(client: openai.OpenAI, declaration: str) -> str:
    """Make a call that cites *declaration* and return its exchange."""
    raw = client.chat.completions.with_raw_response.create(
        model="m",
        messages=[{"role": "user", "content": "hi"}],
        extra_headers={"x-intended-use": declaration},
    )
    return raw.headers["x-gateway-exchange"]


def test_a_declaration_is_cited_by_its_id(gateway: Gateway, client: openai.OpenAI) -> None:
    """A use registered on the command line is known to the running gateway by its id."""
    declaration = declare(gateway, *PERMITTED)
    told = gateway.receipt(ask(client, declaration))["predicate"]

    assert declaration == told["declared"]["declaration"]
    assert "sorter" == told["declared"]["use"]["student"]


def test_a_key_can_carry_its_declaration(gateway: Gateway, client: openai.OpenAI) -> None:
    """A request without a use is for the one that its gateway key carries."""
    declaration = declare(gateway, *PERMITTED, project="sorting")
    done = gateway.command(
        *("key", "new", "--principal", "ada", "--project", "sorting"),
        *("--declaration", declaration),
    )
    raw = client.chat.completions.with_raw_response.create(
        model="m",
        messages=[{"role": "user", "content": "hi"}],
        extra_headers={"x-gateway-key": done.stdout.strip()},
    )
    told = gateway.receipt(raw.headers["x-gateway-exchange"])["predicate"]

    assert declaration == told["declared"]["declaration"]
    assert {"principal": "ada", "project": "sorting"} == told["caller"]


def test_another_projects_declaration_is_unknown(
    gateway: Gateway, client: openai.OpenAI, provider: FakeProvider
) -> None:
    """A declaration binds the project that made it; others can't hide behind it."""
    declaration = declare(gateway, *PERMITTED, project="elsewhere")
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, declaration)

    assert "declaration.unknown" == caught.value.code
    assert [] == provider.received


def test_legal_rules_once_and_takes_it_back(
    gateway: Gateway, client: openai.OpenAI, provider: FakeProvider
) -> None:
    """Held, then approved and permitted, then withdrawn and forbidden: each is a statement."""
    written = Written(gateway.data)
    declaration = declare(gateway, *HELD)
    with pytest.raises(openai.PermissionDeniedError) as held:
        ask(client, declaration)
    approved = gateway.command(
        "review", "approve", declaration, "--by", "grace", "--reason", "a narrow pilot"
    )
    assert approved.returncode == 0, approved.stderr
    told = gateway.receipt(ask(client, declaration))["predicate"]
    withdrawn = gateway.command(
        "review", "withdraw", declaration, "--by", "grace", "--reason", "the pilot is over"
    )
    assert withdrawn.returncode == 0, withdrawn.stderr
    with pytest.raises(openai.PermissionDeniedError) as forbidden:
        ask(client, declaration)

    assert "use.held" == held.value.code
    assert "permit" == told["ruling"]["effect"]
    assert isinstance(told["ruling"]["verdict"], int)
    assert "use.forbidden" == forbidden.value.code
    assert 1 == len(written.statements(Receipt)) == len(provider.received)
    assert 2 == len(written.statements(Refusal))
