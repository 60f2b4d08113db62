"""The whole gateway in one process: what a caller has when the ledger or the provider fails."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import apsw
import pytest

from gateway import settings
from gateway.app.activation import activate, reload_policies
from gateway.app.installation import open_installation, open_sourced
from gateway.app.running import Gateway, start
from gateway.cli.main import main
from gateway.errors import MissingPieceError, OperatorError
from gateway.ident import new_exchange_id
from gateway.intent.model import INFERENCE, declaration_id
from gateway.log import build_logger
from gateway.policy.library import Library
from gateway.receipt.model import (
    Abandonment,
    Activation,
    KeyAuthorization,
    KeyRevocation,
    Opening,
    Receipt,
    Refusal,
    Statement,
    Withdrawal,
)
from gateway.receipt.statement import read_leaf, write_statement
from gateway.store.libraries import kept_library
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.merkle import leaf_hash
from tests.support.caller import Answer, Caller, Headers
from tests.support.house import (
    CHAT,
    TRAINING,
    Act,
    RawProvider,
    completion,
    events,
    eventually,
    gateway_in,
    sized,
    streamed,
    write_installation,
)
from tests.support.store import BrittleDisk, an_opening, brittle_disk

TARGET = "/open/v1/chat/completions"
JSON: Headers = (("content-type", "application/json"), ("authorization", "Bearer sk-1"))


@pytest.fixture
async def provider() -> AsyncIterator[RawProvider]:
    """Return a provider on a plain socket."""
    async with RawProvider().listening() as listening:
        listening.steps = [sized(completion("good day"))]
        yield listening


@pytest.fixture
async def gateway(tmp_path: Path, provider: RawProvider) -> AsyncIterator[Gateway]:
    """Return a gateway in this process, before that provider."""
    async with gateway_in(tmp_path, provider.url) as running:
        yield running


@pytest.fixture
def disk() -> Iterator[BrittleDisk]:
    """Return the disk under everything that is opened in the test."""
    with brittle_disk() as disk:
        yield disk


async def ask(
    gateway: Gateway, *, target: str = TARGET, headers: Headers = JSON, stream: bool = False
) -> Answer:
    """Ask over a connection of its own."""
    body = json.dumps(CHAT | {"stream": stream}).encode()

    def talk() -> Answer:
        with Caller(gateway.port) as caller:
            return caller.ask("POST", target, headers, body)

    return await asyncio.to_thread(talk)


def statements(gateway: Gateway) -> list[Statement]:
    """Return what is durable about exchanges: nothing of libraries and keys."""
    with contextlib.closing(SqliteLedger(gateway.installation.data / "ledger.db")) as beside:
        everything = [read_leaf(leaf) for leaf in beside.leaves(0, beside.head().size)]
    aside = Activation | KeyAuthorization | KeyRevocation
    return [one for one in everything if not isinstance(one, aside)]


async def test_an_answer_is_named_by_its_receipt(gateway: Gateway) -> None:
    """The id in the header is that of a receipt which is durable when the answer is whole."""
    answer = await ask(gateway)
    receipt = statements(gateway)[-1]

    assert isinstance(receipt, Receipt)
    assert receipt.exchange == answer.header("x-gateway-exchange")
    assert (200, completion("good day"), True) == (answer.status, answer.body, answer.whole)
    assert ("permit", "open@1") == (
        answer.header("x-gateway-effect"),
        answer.header("x-gateway-policy"),
    )


async def test_a_full_disk_dials_nobody(
    disk: BrittleDisk, gateway: Gateway, provider: RawProvider
) -> None:
    """While no opening can be written callers get a 503 that says when to come back."""
    disk.full = True
    answer = await ask(gateway)
    disk.full = False
    again = await ask(gateway)

    assert (503, 200) == (answer.status, again.status)
    assert "ledger.unwell" == json.loads(answer.body)["error"]["code"]
    assert "1" == answer.header("retry-after")
    assert 1 == len(provider.received)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_disk_that_fills_while_the_provider_answers(
    stream: bool,  # noqa: FBT001 - pytest passes it by name
    disk: BrittleDisk,
    gateway: Gateway,
    provider: RawProvider,
) -> None:
    """Without its receipt an answer is a 503 or a broken stream, and is closed later."""

    def fill(_: bytes) -> None:
        disk.full = True

    provider.on_request = fill
    if stream:
        provider.steps = streamed("good", " day")
    answer = await ask(gateway, stream=stream)
    disk.full = False
    swept = await gateway.walk.sweep()
    opening, closing = statements(gateway)

    assert 1 == swept
    assert isinstance(opening, Opening)
    assert isinstance(closing, Abandonment)
    assert closing.exchange == opening.exchange
    if stream:
        assert (200, False) == (answer.status, answer.whole)
        assert b"".join(events("good", " day")[:2]) == answer.body
    else:
        assert (503, True) == (answer.status, answer.whole)
        assert opening.exchange == answer.header("x-gateway-exchange")


async def test_a_disk_that_cant_sync_ends_the_gateways_service(
    disk: BrittleDisk, gateway: Gateway, provider: RawProvider
) -> None:
    """Where what is durable is unknown nothing more is answered, and health says so."""
    provider.on_request = lambda _: setattr(disk, "sync_fails", True)
    first, second = await ask(gateway), await ask(gateway)
    disk.sync_fails = False
    third = await ask(gateway)
    status = (await asyncio.to_thread(_health, gateway)).status

    assert (503, 503, 503, 503) == (first.status, second.status, third.status, status)
    assert 1 == len(provider.received)
    assert gateway.installation.sequencer.trouble is not None


def _health(gateway: Gateway) -> Answer:
    with Caller(gateway.port) as caller:
        return caller.ask("GET", "/-/health")


@pytest.mark.parametrize("code", ["provider.broke_off", "provider.timeout", "provider.x"])
async def test_a_providers_own_word_is_not_taken_for_ours(
    code: str, gateway: Gateway, provider: RawProvider
) -> None:
    """An error that a provider names as we name ours comes through as it was sent."""
    body = json.dumps({"error": {"type": code, "message": "no"}}).encode()
    provider.steps = [sized(body, status=429)]
    answer = await ask(gateway)

    assert (429, body) == (answer.status, answer.body)


BROKEN = {
    "before the head": [Act.ABORT],
    "mid body": [sized(completion("good day"))[:-9], Act.CLOSE],
}


@pytest.mark.parametrize("steps", BROKEN.values(), ids=BROKEN)
async def test_a_provider_that_breaks_off_is_a_bad_gateway(
    steps: list[bytes | Act], gateway: Gateway, provider: RawProvider
) -> None:
    """As long as nothing has gone out a broken answer is a 502, with the exchange's id."""
    provider.steps = steps
    answer = await ask(gateway)
    receipt = statements(gateway)[-1]

    assert isinstance(receipt, Receipt)
    assert (502, "provider.broke_off") == (answer.status, answer.header("x-gateway-problem"))
    assert receipt.exchange == answer.header("x-gateway-exchange")


async def test_a_provider_that_breaks_a_stream_breaks_it_for_the_caller(
    gateway: Gateway, provider: RawProvider
) -> None:
    """A stream that breaks off has all that came and no clean end."""
    provider.steps = [*streamed("good", " day")[:4], Act.CLOSE]
    answer = await ask(gateway, stream=True)

    assert not answer.whole
    assert b"".join(events("good", " day")[:3]) == answer.body


async def test_the_end_of_a_stream_waits_for_the_disk(
    gateway: Gateway, provider: RawProvider
) -> None:
    """As long as the receipt can't be written, the newest content and the end stay inside."""
    told = events("good", " day")
    held = asyncio.Event()
    provider.steps = [
        *streamed("good", " day")[:3],
        held,
        *streamed("good", " day")[3:],
    ]
    body = json.dumps(CHAT | {"stream": True}).encode()
    with Caller(gateway.port) as caller:
        await asyncio.to_thread(caller.send_request, "POST", TARGET, JSON, body)
        size = len(told[0])
        begun = await asyncio.to_thread(caller.read, until_bytes=size)
        blocker = apsw.Connection(str(gateway.installation.data / "ledger.db"))
        # A checkpoint may just be written there.
        blocker.set_busy_timeout(60_000)
        blocker.execute("BEGIN IMMEDIATE")
        held.set()
        size += len(told[1])
        before = await asyncio.to_thread(_read_on, caller, begun, size)
        blocked = statements(gateway)
        blocker.execute("ROLLBACK")
        blocker.close()
        whole = await asyncio.to_thread(caller.read_on, begun)

    assert b"".join(told[:2]) == before
    assert [Opening] == [type(one) for one in blocked]
    assert (b"".join(told), True) == (whole.body, whole.whole)


def _read_on(caller: Caller, begun: Answer, count: int) -> bytes:
    return caller._read_into(begun, head_only=False, until_bytes=count).body


async def test_a_start_closes_what_a_crash_left_open(
    tmp_path: Path, provider: RawProvider
) -> None:
    """Openings that nothing closed are closed as abandoned before the door opens, once."""
    file = write_installation(tmp_path, provider.url)
    sourced = settings.load(file, environment={})
    installation = open_sourced(sourced)
    exchange = new_exchange_id(installation.clock.now_ms())
    installation.sequencer.append_and_wait(an_opening(exchange))
    installation.close()
    for _ in range(2):
        gateway = await start(sourced, build_logger("error", io.StringIO()))
        opening, closing = statements(gateway)
        await gateway.stop()

        assert isinstance(opening, Opening)
        assert isinstance(closing, Abandonment)
        assert (exchange, "process-ended") == (closing.exchange, closing.why)


async def test_a_forbidden_use_says_why_and_what_would_change_it(
    gateway: Gateway, provider: RawProvider
) -> None:
    """A refusal is an answer in the SDK's own shape: clause, reason, exchange, next step."""
    use = ("x-intended-use", "purpose=train.sft, student=parser")
    answer = await ask(gateway, target="/closed/v1/chat/completions", headers=(*JSON, use))
    error = json.loads(answer.body)["error"]
    refusal = statements(gateway)[-1]

    assert isinstance(refusal, Refusal)
    assert (403, "use.forbidden", "forbid") == (
        answer.status,
        error["code"],
        answer.header("x-gateway-effect"),
    )
    assert ("closed", "training") == (
        error["reasons"][0]["policy"],
        error["reasons"][0]["clause"],
    )
    assert error["next_step"]
    assert error["sentences"][0].startswith(("This use is held", "The terms forbid"))
    assert refusal.exchange == error["exchange"] == answer.header("x-gateway-exchange")
    assert [] == provider.received


async def test_a_caller_that_hangs_up_still_gets_its_receipt(
    gateway: Gateway, provider: RawProvider
) -> None:
    """A connection that is lost mid-stream cuts the provider off and is on record."""
    provider.steps = [*streamed("good", " day")[:3], asyncio.Event()]
    body = json.dumps(CHAT | {"stream": True}).encode()
    with Caller(gateway.port) as caller:
        await asyncio.to_thread(caller.send_request, "POST", TARGET, JSON, body)
        await asyncio.to_thread(caller.read, until_bytes=10)
    await provider.hung_up.wait()
    await eventually(lambda: len(statements(gateway)) == 2)
    receipt = statements(gateway)[-1]

    assert isinstance(receipt, Receipt)
    assert "cut-short-by-caller" == receipt.ended
    await eventually(lambda: gateway.hall.count == 0)


async def test_a_stopping_gateway_sees_exchanges_through(
    tmp_path: Path, provider: RawProvider
) -> None:
    """An exchange that is under way when the gateway stops is answered and sealed."""
    go_on = asyncio.Event()
    provider.steps = [*streamed("good", " day")[:3], go_on, *streamed("good", " day")[3:]]
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(gateway_in(tmp_path, provider.url))
        asking = asyncio.ensure_future(ask(running, stream=True))
        await provider.arrived.wait()
        stopping = asyncio.ensure_future(stack.aclose())
        await asyncio.sleep(0)
        go_on.set()
        answer = await asking
        await stopping

    assert answer.whole
    assert [Opening, Receipt] == [type(one) for one in statements(running)]


async def test_new_policies_are_in_force_at_once(
    gateway: Gateway, provider: RawProvider, tmp_path: Path
) -> None:
    """A library that loads binds the next request; one that does not changes nothing."""
    policy = tmp_path / "policies/open/policy.yaml"
    text = policy.read_text()
    policy.write_text(text.replace("effect: permit", "effect: allow"))
    assert not await reload_policies(
        gateway.installation, gateway.walk.law, gateway.log, by="a test"
    )
    kept = await ask(gateway)
    assert gateway.walk.law.alarm
    policy.write_text(text.replace("effect: permit", "effect: forbid"))
    assert await reload_policies(
        gateway.installation, gateway.walk.law, gateway.log, by="a test"
    )
    adopted = await ask(gateway)

    assert (200, 403) == (kept.status, adopted.status)
    assert 1 == len(provider.received)
    assert not gateway.walk.law.alarm


async def test_a_key_can_carry_a_declaration(gateway: Gateway, provider: RawProvider) -> None:
    """A key's own declaration counts where the request says nothing, and is looked up."""
    access = gateway.installation.access
    secret = access.new("ada", "search", declaration="use-" + "0" * 20)
    unknown = await ask(gateway, headers=(*JSON, ("x-gateway-key", secret)))
    said = await ask(
        gateway,
        headers=(*JSON, ("x-gateway-key", secret), ("x-intended-use", "purpose=evaluate")),
    )

    assert (400, 403) == (unknown.status, said.status)
    assert "declaration.unknown" == json.loads(unknown.body)["error"]["code"]
    assert [] == provider.received


async def test_what_the_settings_forbid_is_forbidden(
    tmp_path: Path, provider: RawProvider
) -> None:
    """`undeclared` and `unknown_operations` reach from the file to the law room."""
    more = "undeclared: forbid\nunknown_operations: forbid\n"
    async with gateway_in(tmp_path, provider.url, more) as gateway:
        silent = await ask(gateway)
        use = ("x-intended-use", "purpose=inference")
        opaque = await ask(gateway, target="/open/v1/unheard", headers=(*JSON, use))
        said = await ask(gateway, headers=(*JSON, use))

    assert (403, 403, 200) == (silent.status, opaque.status, said.status)
    assert "undeclared" == json.loads(silent.body)["error"]["reasons"][0]["clause"]
    assert "unknown-operation" == json.loads(opaque.body)["error"]["reasons"][0]["clause"]


async def test_a_student_brings_its_manifest_or_does_not_start(
    tmp_path: Path, provider: RawProvider
) -> None:
    """A student whose folder has no manifest keeps the door closed, and says what to name."""
    before = set(threading.enumerate())
    more = f"  pupil:\n    base_url: {provider.url}\n    student: ./no-such-model\n"
    file = write_installation(tmp_path, provider.url, more)
    with pytest.raises(MissingPieceError, match="no-such-model"):
        await start(settings.load(file, environment={}), build_logger("error", io.StringIO()))

    left = set(threading.enumerate()) - before
    assert [] == [one.name for one in left if "ledger" in one.name]


async def test_a_second_gateway_is_kept_off_the_folder(
    tmp_path: Path, provider: RawProvider
) -> None:
    """Two gateways never serve one ledger, for each would close the other's exchanges."""
    async with gateway_in(tmp_path, provider.url) as running:
        with pytest.raises(OperatorError, match="another gateway") as refused:
            await start(running.installation.settings, running.log)

        assert "gateway.running" == refused.value.problem
        sourced = running.installation.settings
    after = await start(sourced, build_logger("debug", io.StringIO()))
    await after.stop()


@pytest.mark.parametrize("purpose", ["inference", "evaluate.benchmark"])
async def test_a_receipt_says_how_the_model_was_reached(
    purpose: str, tmp_path: Path, provider: RawProvider
) -> None:
    """Route and agreement of the settings stand in receipts and refusals alike."""
    more = (
        f"  resold:\n    base_url: {provider.url}\n    policy: open\n"
        "    route: aggregator\n    agreement: order-7\n"
    )
    async with gateway_in(tmp_path, provider.url, more) as running:
        headers = (*JSON, ("x-intended-use", f"purpose={purpose}"))
        await ask(running, target="/resold/v1/chat/completions", headers=headers)
        last = statements(running)[-1]

    assert isinstance(last, Receipt | Refusal)
    assert ("aggregator", "order-7") == (last.provider.route, last.provider.agreement)


async def test_a_library_is_in_force_from_its_leaf_on(gateway: Gateway, tmp_path: Path) -> None:
    """Receipts name the digest whose activation stands before them; its text is kept."""
    await ask(gateway)
    policy = tmp_path / "policies/open/policy.yaml"
    policy.write_text(policy.read_text().replace("title: ", "title: Newer, "))
    assert await reload_policies(
        gateway.installation, gateway.walk.law, gateway.log, by="a test"
    )
    assert await reload_policies(
        gateway.installation, gateway.walk.law, gateway.log, by="again"
    )
    await ask(gateway)
    with contextlib.closing(SqliteLedger(gateway.installation.data / "ledger.db")) as beside:
        said = [read_leaf(leaf) for leaf in beside.leaves(0, beside.head().size)]
    kinds = [type(one) for one in said]
    first, second = (one for one in said if isinstance(one, Activation))
    before, after = (one for one in said if isinstance(one, Receipt))

    one_by_one = [Activation, Opening, Receipt, Activation, Opening, Receipt]
    assert [KeyAuthorization, *one_by_one] == kinds
    assert (None, first.library) == (first.previous, second.previous)
    assert (first.library, second.library) == (before.ruling.library, after.ruling.library)
    kept = kept_library(gateway.installation.data, second.library)
    assert second.library == Library.load(kept).digest != first.library


async def test_a_library_whose_leaf_cannot_be_written_is_not_in_force(
    gateway: Gateway, tmp_path: Path
) -> None:
    """Policies that no leaf puts in force bind nobody; the alarm says so."""
    law = gateway.walk.law
    old = law.library.digest
    policy = tmp_path / "policies/open/policy.yaml"
    policy.write_text(policy.read_text().replace("title: ", "title: Newer, "))
    (gateway.installation.data / "libraries").rename(tmp_path / "aside")
    (gateway.installation.data / "libraries").write_text("a file in the way")

    assert not await reload_policies(
        gateway.installation, gateway.walk.law, gateway.log, by="a test"
    )
    assert old == law.library.digest
    assert law.alarm


async def test_a_gateway_that_starts_again_activates_nothing_anew(
    tmp_path: Path, provider: RawProvider
) -> None:
    """The same library is activated once, however often a gateway starts."""
    async with gateway_in(tmp_path, provider.url) as running:
        sourced = running.installation.settings
    again = await start(sourced, running.log)
    said = again.installation.reader.statements(kinds=("activation",))
    activations = [index for index, _ in said]
    await again.stop()

    assert [1] == activations  # after the authorisation of the key that signed it


async def test_other_policies_in_force_elsewhere_raise_the_alarm(
    gateway: Gateway, tmp_path: Path
) -> None:
    """Where a command activates another library the gateway says that it rules by the old."""
    law = gateway.walk.law
    policy = tmp_path / "policies/open/policy.yaml"
    policy.write_text(policy.read_text().replace("title: ", "title: Newer, "))
    with contextlib.closing(
        open_installation(argparse.Namespace(config=str(tmp_path / "gateway.yaml")))
    ) as beside:
        activate(beside, "a command")
    await ask(gateway)
    alarmed = law.alarm
    assert await reload_policies(
        gateway.installation, gateway.walk.law, gateway.log, by="a test"
    )

    assert "another process" in alarmed
    assert "" == law.alarm


async def test_a_leaf_that_cannot_be_read_hides_nothing_after_it(gateway: Gateway) -> None:
    """A withdrawal counts, though another process wrote something odd just before it."""
    house = gateway.installation
    declaration = declaration_id("default", TRAINING)
    with contextlib.closing(SqliteLedger(house.data / "ledger.db")) as beside:
        for leaf in (
            b'{"kind":"of-a-newer-release"}',
            write_statement(
                Withdrawal(
                    by="ada", reason="r", declaration=declaration, at="", writer=house.writer
                ),
                (),
                house.keyring.receipt,
            ),
        ):
            beside.append([leaf], [leaf_hash(leaf)])
    headers = (*JSON, ("x-intended-use", "purpose=train.sft, student=parser"))

    assert 403 == (await ask(gateway, headers=headers)).status


async def test_the_text_of_the_library_in_force_is_kept_again(
    tmp_path: Path, provider: RawProvider
) -> None:
    """Where a backup came back without the libraries, the next start keeps its own."""
    async with gateway_in(tmp_path, provider.url) as running:
        sourced, data = running.installation.settings, running.installation.data
        digest = running.walk.law.library.digest
    for file in (data / "libraries").iterdir():
        file.unlink()
    again = await start(sourced, running.log)
    await again.stop()

    assert digest == Library.load(kept_library(data, digest)).digest


async def test_what_an_undeclared_caller_is_told_to_do_works(
    gateway: Gateway, provider: RawProvider, tmp_path: Path
) -> None:
    """Plain use that is held says how to declare it; declared and approved, it passes."""
    policy = tmp_path / "policies/open/policy.yaml"
    held = policy.read_text().replace("effect: permit", "effect: hold")
    policy.write_text(held)
    assert await reload_policies(
        gateway.installation, gateway.walk.law, gateway.log, by="a test"
    )
    refused = json.loads((await ask(gateway)).body)["error"]
    said = re.search(r"`gateway (use declare .*?)`", refused["next_step"])
    assert said is not None

    def follow() -> str:
        config = ["--config", str(tmp_path / "gateway.yaml")]
        assert 0 == main([*config, *said[1].split()])
        declared = declaration_id("default", INFERENCE)
        why = ["--by", "ada", "--reason", "plain use", "--provider", "open"]
        assert 0 == main([*config, "review", "approve", declared, *why])
        return declared

    declared = await asyncio.to_thread(follow)
    answer = await ask(gateway, headers=(*JSON, ("x-intended-use", declared)))

    assert ("use.held", 200) == (refused["code"], answer.status)
    assert "review approve" not in refused["next_step"]
    assert 1 == len(provider.received)
