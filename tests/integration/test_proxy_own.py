"""What the gateway itself answers under `/-/`, and who may see it."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.app.installation import open_installation
from gateway.app.running import Gateway
from gateway.intent.model import declaration_id
from gateway.receipt.model import DeclarationFacts, Receipt
from gateway.receipt.statement import write_statement
from gateway.receipt.verify import verify_bundle
from tests.support.caller import Answer, Caller, Headers
from tests.support.house import (
    CHAT,
    PROVIDER_SECRET,
    TRAINING,
    WRITER,
    RawProvider,
    completion,
    eventually,
    gateway_in,
    sized,
)
from tests.support.store import brittle_disk

TARGET = "/open/v1/chat/completions"
BODY = json.dumps(CHAT).encode()


@pytest.fixture
async def provider() -> AsyncIterator[RawProvider]:
    """Return a provider on a plain socket."""
    async with RawProvider().listening() as listening:
        listening.steps = [sized(completion("good day"))]
        yield listening


@pytest.fixture
async def gateway(tmp_path: Path, provider: RawProvider) -> AsyncIterator[Gateway]:
    """Return a gateway through which keys pass."""
    async with gateway_in(tmp_path, provider.url) as running:
        yield running


@pytest.fixture
async def managed(tmp_path: Path, provider: RawProvider) -> AsyncIterator[Gateway]:
    """Return a gateway with keys of its own."""
    more = "  spare:\n    base_url: http://127.0.0.1:1\nkeys: managed\n"
    async with gateway_in(tmp_path / "managed", provider.url, more) as running:
        yield running


async def ask(
    gateway: Gateway,
    target: str = TARGET,
    headers: Headers = (),
    body: bytes = BODY,
    method: str = "POST",
) -> Answer:
    """Ask over a connection of its own."""

    def talk() -> Answer:
        with Caller(gateway.port) as caller:
            return caller.ask(method, target, headers, body)

    return await asyncio.to_thread(talk)


async def get(gateway: Gateway, target: str, *headers: tuple[str, str]) -> Answer:
    """Look at one of the gateway's own pages."""
    return await ask(gateway, target, headers, b"", "GET")


def bearer(secret: str) -> tuple[str, str]:
    """Return the header in which OpenAI's SDK sends its key."""
    return "authorization", f"Bearer {secret}"


@pytest.mark.parametrize("header", ["authorization", "api-key", "x-gateway-key"])
async def test_the_providers_key_goes_up_and_ours_never_does(
    header: str, managed: Gateway, provider: RawProvider
) -> None:
    """Whichever header the gateway key came in, the provider sees its own key alone."""
    secret = managed.installation.access.new("ada", "search")
    shown = (header, f"Bearer {secret}" if header == "authorization" else secret)
    answer = await ask(managed, headers=(shown, ("x-api-key", secret)))

    assert 200 == answer.status
    assert secret.encode() not in provider.received[0]
    assert f"authorization: Bearer {PROVIDER_SECRET}".encode() in provider.received[0]
    assert 1 == provider.received[0].lower().count(b"authorization")


async def test_a_callers_own_key_goes_up_untouched(
    gateway: Gateway, provider: RawProvider
) -> None:
    """Where keys pass through the provider sees what the caller sent, and no gateway key."""
    secret = gateway.installation.access.new("ada", "search")
    await ask(gateway, headers=(bearer("sk-mine"), ("x-gateway-key", secret)))

    assert b"authorization: Bearer sk-mine" in provider.received[0]
    assert secret.encode() not in provider.received[0]


async def test_a_revoked_key_is_refused_at_the_next_request(
    managed: Gateway, provider: RawProvider
) -> None:
    """A running gateway turns a key away as soon as it is revoked; nothing is opened."""
    access = managed.installation.access
    secret = access.new("ada", "search")
    first = await ask(managed, headers=(bearer(secret),))
    access.revoke(access.list()[0].id)
    second = await ask(managed, headers=(bearer(secret),))

    assert (200, 401) == (first.status, second.status)
    assert "credential.unknown" == json.loads(second.body)["error"]["code"]
    # The receipt key's authorisation, the library's activation, the opening, the receipt.
    assert 4 == managed.installation.reader.size()


@pytest.mark.parametrize("headers", [(), (bearer("sk-real"),), (bearer("gw-guess"),)])
async def test_nobody_gets_in_without_a_key(
    headers: Headers, managed: Gateway, provider: RawProvider
) -> None:
    """Without a gateway key nothing is asked, opened or told."""
    answers = [
        await ask(managed, headers=headers),
        await get(managed, "/-/uses", *headers),
        await get(managed, "/-/receipts/x-" + "0" * 26, *headers),
    ]

    assert [401] * 3 == [answer.status for answer in answers]
    assert 0 == provider.dialled
    # The receipt key's authorisation, and the library's activation.
    assert 2 == managed.installation.reader.size()


async def test_a_provider_that_is_not_set_up_is_the_operators_matter(
    managed: Gateway,
) -> None:
    """Without a credential for it a provider is not asked; the caller is told whom to tell."""
    secret = managed.installation.access.new("ada", "search")
    answer = await ask(managed, "/spare/v1/chat/completions", (bearer(secret),))
    error = json.loads(answer.body)["error"]

    assert (500, "setting.bad") == (answer.status, error["code"])
    assert "operator" in error["message"]
    assert "spare.credential" not in error["message"]


async def test_a_receipt_is_seen_by_its_project_and_by_those_who_may_see_all(
    managed: Gateway,
) -> None:
    """To other projects a receipt does not exist; legal, auditors and operators see it."""
    access = managed.installation.access
    mine = access.new("ada", "search")
    seen = {"mine": mine, "mate": access.new("bob", "search"), "other": access.new("eve", "x")}
    seen |= {role: access.new("z", "z", (role,)) for role in ("legal", "auditor", "operator")}
    answer = await ask(managed, headers=(bearer(mine),))
    exchange = answer.header("x-gateway-exchange")
    found = {
        name: (
            (await get(managed, f"/-/receipts/{exchange}", bearer(secret))).status,
            (
                await get(managed, f"/-/receipts/{exchange}/bundle", ("x-api-key", secret))
            ).status,
        )
        for name, secret in seen.items()
    }

    assert found.pop("other") == (404, 404)
    assert {(200, 200)} == set(found.values())


async def test_a_refusal_can_be_looked_up(gateway: Gateway) -> None:
    """That we said no can be seen by its id as a receipt can."""
    use = ("x-intended-use", "purpose=train.sft, student=parser")
    answer = await ask(gateway, "/closed/v1/chat/completions", (use,))
    found = await get(gateway, f"/-/receipts/{answer.header('x-gateway-exchange')}")

    assert (403, 200) == (answer.status, found.status)
    assert json.loads(found.body)["predicateType"].endswith("/refusal/v1")


async def test_a_bundle_verifies_with_the_trust_file_alone(gateway: Gateway) -> None:
    """What an auditor is handed proves the receipt is in the ledger, offline."""
    answer = await ask(gateway)
    exchange = answer.header("x-gateway-exchange")
    bundle = (await get(gateway, f"/-/receipts/{exchange}/bundle")).body
    verified = verify_bundle(bundle, gateway.installation.keyring.trust)

    assert isinstance(verified.statement, Receipt)
    assert (exchange, 3) == (verified.statement.exchange, verified.index)


async def test_a_checkpoint_is_a_signed_note(gateway: Gateway) -> None:
    """The newest checkpoint covers what was answered before it was asked for."""
    await ask(gateway)
    note = await get(gateway, "/-/log/checkpoint")

    assert note.header("content-type") == "text/plain; charset=utf-8"
    assert b"\n4\n" in note.body
    assert "— ".encode() in note.body


async def test_uses_are_those_of_ones_own_project(managed: Gateway) -> None:
    """Declarations that any process registered are listed, to their project and to legal."""
    access = managed.installation.access
    keys = [access.new("a", "search"), access.new("b", "x"), access.new("c", "z", ("legal",))]
    declared = await asyncio.to_thread(declare_beside, managed)
    found = [
        [use["declaration"] for use in json.loads((await get(managed, "/-/uses", key)).body)]
        for key in map(bearer, keys)
    ]

    assert [[declared], [], [declared]] == found


def declare_beside(gateway: Gateway) -> str:
    """Register a use of `search` as another process would; return its id."""
    config = str(gateway.installation.settings.file)
    beside = open_installation(argparse.Namespace(config=config))
    facts = DeclarationFacts(
        declaration=declaration_id("search", TRAINING),
        project="search",
        use=TRAINING,
        owner="ada",
        at="2026-11-22T00:00:00.000Z",
        writer=WRITER,
    )
    beside.sequencer.append_and_wait(write_statement(facts, (), beside.keyring.receipt))
    beside.close()
    return facts.declaration


async def test_health_and_metrics_need_no_key(managed: Gateway) -> None:
    """Whoever watches the gateway sees that it is well, and counts; nothing else."""
    secret = managed.installation.access.new("ada", "search")
    await ask(managed, headers=(bearer(secret),))
    health = await get(managed, "/-/health")
    metrics = (await get(managed, "/-/metrics")).body.decode()

    assert 200 == health.status
    assert {
        "status": "well",
        "workers": 1,
        "exchanges": 0,
        "policies": managed.installation.library.digest,
        "alarm": None,
        "alarms": [],
    } == json.loads(health.body)
    assert (
        'gateway_exchanges_total{ended="complete",operation="chat",provider="open"} 1.0'
        in metrics
    )
    assert "gateway_ledger_leaves 4.0" in metrics
    assert "gateway_policies_kept_old 0.0" in metrics
    assert 'gateway_tokens_total{direction="output",provider="open"} 5.0' in metrics
    assert "ada" not in metrics


async def test_refusals_and_problems_are_counted(gateway: Gateway) -> None:
    """Each no, and each error of ours, is counted under its own name."""
    use = ("x-intended-use", "purpose=train.sft, student=parser")
    await ask(gateway, "/held/v1/chat/completions", (use,))
    await ask(gateway, "/nowhere/v1/x")
    await ask(gateway, body=b"{")
    metrics = (await get(gateway, "/-/metrics")).body.decode()

    assert 'gateway_refusals_total{effect="hold",provider="held"} 1.0' in metrics
    assert 'gateway_problems_total{code="route.unknown"} 1.0' in metrics
    assert 'gateway_problems_total{code="body.malformed"} 1.0' in metrics


async def test_health_is_red_while_the_ledger_is_unwell(
    tmp_path: Path, provider: RawProvider
) -> None:
    """A gateway that can't write says so to whoever watches it, and turns green by itself."""
    with brittle_disk() as disk:
        async with gateway_in(tmp_path, provider.url) as gateway:
            await ask(gateway)
            await asyncio.to_thread(gateway.installation.sequencer.checkpoint_now)
            disk.full = True
            refused = await ask(gateway)
            red = [await get(gateway, "/-/health") for _ in range(3)]
            disk.full = False
            await eventually(lambda: gateway.installation.sequencer.healthy)
            green = await get(gateway, "/-/health")
            answered = await ask(gateway)

    assert 503 == refused.status
    assert [503] * 3 == [one.status for one in red]
    assert "unwell" == json.loads(red[0].body)["status"]
    assert (200, 200) == (green.status, answered.status)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_nothing_can_be_changed_from_outside(method: str, gateway: Gateway) -> None:
    """The gateway's own pages are read, never written."""
    answer = await ask(gateway, "/-/health", method=method)

    assert 404 == answer.status
    assert "application/problem+json" == answer.header("content-type")


async def test_a_head_of_a_page_has_no_body(gateway: Gateway) -> None:
    """HEAD of an own page is its head alone, and the connection stays."""

    def talk() -> list[int]:
        with Caller(gateway.port) as caller:
            head = caller.ask("HEAD", "/-/health")
            return [head.status, caller.ask("GET", "/-/health").status]

    assert [200, 200] == await asyncio.to_thread(talk)
