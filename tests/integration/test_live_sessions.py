"""Laws of sessions over real sockets: what is said passes, what is answered has a receipt."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.ident import ExchangeId, item_id
from gateway.limits import MESSAGE_BYTES_MAX, MIB
from tests.support.caller import Caller
from tests.support.live import SOUND, LiveProvider, live_provider
from tests.support.policies import HEAD, acme_files, written
from tests.support.proxy import PROVIDER_SECRET, Gateway, running_gateway

GEMINI = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
KEY = {"Authorization": "Bearer sk-of-a-caller"}
S_MAX = 120.0
"""Of whatever is waited for: a bound for what hangs, not for what is slow."""


@pytest.fixture(scope="module")
def provider_at() -> Iterator[tuple[LiveProvider, str]]:
    """Run a provider of sessions."""
    with live_provider() as running:
        yield running


@pytest.fixture(scope="module")
def door(
    provider_at: tuple[LiveProvider, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway before it, with passthrough keys."""
    with running_gateway(tmp_path_factory.mktemp("door"), provider_at[1]) as gateway:
        yield gateway


@pytest.fixture
def provider(provider_at: tuple[LiveProvider, str]) -> LiveProvider:
    """Return the provider, with nothing remembered."""
    provider_at[0].forget()
    return provider_at[0]


def session(gateway: Gateway, path: str, **said: Any) -> connect:
    """Return a session to be opened, as `async with`."""
    headers = said.pop("headers", KEY)
    url = f"ws://127.0.0.1:{gateway.port}{path}"
    return connect(url, additional_headers=headers, max_size=None, **said)


def exchange_of(connection: ClientConnection) -> ExchangeId:
    """Return the session's exchange."""
    assert connection.response is not None
    return ExchangeId(connection.response.headers["x-gateway-exchange"])


async def predicate(gateway: Gateway, exchange: str, key: str = "") -> dict[str, Any]:
    """Return what the ledger says of *exchange*, once it does."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    until = time.monotonic() + S_MAX
    while True:
        status, _, body = await asyncio.to_thread(
            gateway.get, f"/-/receipts/{exchange}", headers
        )
        if status == 200:
            found: dict[str, Any] = json.loads(body)["predicate"]
            return found
        assert time.monotonic() < until, body
        await asyncio.sleep(0.02)


async def say(connection: ClientConnection, **event: Any) -> None:
    """Send an event."""
    await connection.send(json.dumps(event))


async def until(connection: ClientConnection, kind: str) -> list[dict[str, Any]]:
    """Return the events up to the next of that *kind*."""
    events = []
    while True:
        events.append(json.loads(await asyncio.wait_for(connection.recv(), S_MAX)))
        if kind in events[-1] or events[-1].get("type") == kind:
            return events


async def ask(connection: ClientConnection, said: str) -> None:
    """Say something in a realtime session, and ask for an answer."""
    content = [{"type": "input_text", "text": said}]
    item = {"type": "message", "role": "user", "content": content}
    await say(connection, type="conversation.item.create", item=item)
    await say(connection, type="response.create")


def kinds(receipt: dict[str, Any]) -> list[str]:
    """Return the kinds of output units."""
    return [unit["kind"] for unit in receipt["outputs"]]


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_each_answer_has_its_receipt(
    door: Gateway, provider: LiveProvider, compression: str | None
) -> None:
    """A receipt for every answer the provider made, and one for the session."""
    async with session(
        door, "/openai/v1/realtime?model=gpt-realtime", compression=compression
    ) as talking:
        for word in ("one", "two", "three"):
            await ask(talking, word)
            events = await until(talking, "response.done")
            assert f"You said {word}" == "".join(
                event["delta"]
                for event in events
                if event["type"] == "response.output_text.delta"
            )
        exchange = exchange_of(talking)
    items = [await predicate(door, item_id(exchange, number)) for number in range(3)]
    whole = await predicate(door, exchange)

    assert 3 == provider.answers == whole["items"]
    for number, item in enumerate(items):
        assert {"of": exchange, "number": number} == item["item"]
        assert whole["opening"] == item["opening"]
        assert ("session", "complete", True) == (
            item["operation"],
            item["ended"],
            item["readable"],
        )
        assert ["text", "tool-call", "audio", "transcript"] == kinds(item)
        assert [len(SOUND)] == [u["bytes"] for u in item["outputs"] if u["kind"] == "audio"]
        assert {"inputTokens": 11, "outputTokens": 5, "cachedInputTokens": 2} == item["usage"]
        assert "gpt-realtime-2026-01-01" == item["model"]["reported"]
        assert ["completed"] == item["finishReasons"]
    assert ("complete", True, "gpt-realtime") == (
        whole["ended"],
        whole["readable"],
        whole["model"]["requested"],
    )
    assert "outputs" not in whole


async def test_what_may_be_learned_from_is_digested_plainly(
    door: Gateway, provider: LiveProvider
) -> None:
    """Where the declared use teaches, sound is named by the digest of its own bytes."""
    use = 'purpose=evaluate, student="s"'
    headers = {**KEY, "x-intended-use": use}
    async with session(
        door, "/openai/v1/realtime?model=gpt-realtime", headers=headers
    ) as talking:
        await ask(talking, "hello")
        await until(talking, "response.done")
        exchange = exchange_of(talking)
    item = await predicate(door, item_id(exchange, 0))
    (sound,) = [unit for unit in item["outputs"] if unit["kind"] == "audio"]

    assert "evaluate" == item["declared"]["use"]["purpose"]
    if "sha256" in sound:
        assert hashlib.sha256(SOUND).hexdigest() == sound["sha256"]


async def test_bytes_pass_unchanged(door: Gateway, provider: LiveProvider) -> None:
    """What the caller said is what the provider heard, in the same frames."""
    said = [
        '{"type": "session.update",  "session": {"instructions": "\\u00e9 é"}}',
        '{"type":"input_audio_buffer.append","audio":"' + "A" * 400_000 + '"}',
    ]
    async with session(door, "/openai/v1/realtime?model=gpt-realtime") as talking:
        for message in said:
            await talking.send(message)
        # In fragments, with a ping between them.
        await talking.send(iter(['{"type":', '"input_audio', '_buffer.clear"}']))
        assert await asyncio.wait_for(await talking.ping(), S_MAX) is not None
        await until(talking, "session.updated")
    opened = provider.opened()
    # A provider reads in its own time what has come before the end.
    assert await asyncio.to_thread(opened.ended.wait, S_MAX)

    assert [*said, '{"type":"input_audio_buffer.clear"}'] == opened.heard
    assert "/v1/realtime?model=gpt-realtime" == opened.target


async def test_what_was_heard_is_an_answer_too(door: Gateway, provider: LiveProvider) -> None:
    """A transcript of the caller's own speech comes from a model: it has a receipt."""
    async with session(door, "/openai/v1/realtime?model=gpt-realtime") as talking:
        await say(talking, type="input_audio_buffer.commit")
        await until(talking, "response.done")
        exchange = exchange_of(talking)
    heard = await predicate(door, item_id(exchange, 0))
    spoken = await predicate(door, item_id(exchange, 1))

    assert ["transcript"] == kinds(heard)
    assert {"inputTokens": 7, "outputTokens": 3} == heard["usage"]
    assert "audio" in kinds(spoken)
    assert 2 == provider.answers == (await predicate(door, exchange))["items"]


async def test_the_end_of_an_answer_waits_for_its_receipt(
    door: Gateway, provider: LiveProvider
) -> None:
    """Whoever has the last event of an answer can have its receipt at once."""
    async with session(door, "/openai/v1/realtime?model=gpt-realtime") as talking:
        for number in range(5):
            await ask(talking, "word")
            await until(talking, "response.done")
            item = item_id(exchange_of(talking), number)
            status, _, _ = await asyncio.to_thread(door.get, f"/-/receipts/{item}")
            assert 200 == status


@pytest.mark.parametrize(
    ("script", "ended"), [("!break", "provider"), ("!close 1011", "provider")]
)
async def test_an_answer_that_the_provider_breaks_off_has_its_receipt(
    door: Gateway, provider: LiveProvider, script: str, ended: str
) -> None:
    """What came of it is on record, and the caller sees no clean end."""
    async with session(door, "/openai/v1/realtime?model=gpt-realtime") as talking:
        await ask(talking, script)
        with pytest.raises(ConnectionClosed) as caught:
            await until(talking, "response.done")
        exchange = exchange_of(talking)
    item = await predicate(door, item_id(exchange, 0))
    whole = await predicate(door, exchange)

    assert caught.value.rcvd is None or 1011 == caught.value.rcvd.code
    assert (f"cut-short-by-{ended}", 1) == (item["ended"], whole["items"])
    assert f"cut-short-by-{ended}" == whole["ended"]
    assert ["text"] == kinds(item)
    assert 0 == provider.answers


async def test_an_answer_that_the_caller_breaks_off_has_its_receipt(
    door: Gateway, provider: LiveProvider
) -> None:
    """A caller that hangs up cuts its provider off at once, and the part is on record."""
    talking = await session(door, "/openai/v1/realtime?model=gpt-realtime")
    await ask(talking, "!stall")
    assert await asyncio.to_thread(provider.stalled.wait, S_MAX)
    talking.transport.abort()
    ended = await asyncio.to_thread(provider.sessions[0].ended.wait, S_MAX)
    exchange = exchange_of(talking)
    item = await predicate(door, item_id(exchange, 0))

    assert ended, "the provider was not cut off"
    assert "cut-short-by-caller" == item["ended"]
    assert "cut-short-by-caller" == (await predicate(door, exchange))["ended"]


async def test_a_slow_caller_gets_the_last_words(door: Gateway, provider: LiveProvider) -> None:
    """What a provider said before it hung up goes out, though the caller reads it later."""
    async with session(
        door, "/openai/v1/realtime?model=m", compression=None, max_queue=1
    ) as talking:
        await ask(talking, "!burst")
        await asyncio.sleep(1)
        got = []
        with pytest.raises(ConnectionClosed) as caught:  # noqa: PT012  it ends in its own time
            while True:
                got.append(json.loads(await asyncio.wait_for(talking.recv(), S_MAX)))

    assert list(range(8)) == [event["number"] for event in got if event["type"] == "x"]
    assert caught.value.rcvd is not None
    assert 1000 == caught.value.rcvd.code


async def test_a_refused_session_is_answered_as_ever(
    door: Gateway, provider: LiveProvider
) -> None:
    """A provider that does not switch is heard: status, body, and a receipt of it."""
    with pytest.raises(InvalidStatus) as caught:
        await session(door, "/openai/refuse/v1/realtime?model=m")
    response = caught.value.response
    receipt = await predicate(door, response.headers["x-gateway-exchange"])

    assert (401, b'{"error": {"code": "no"}}') == (response.status_code, response.body)
    assert (401, "req_refused") == (
        receipt["provider"]["status"],
        receipt["provider"]["requestId"],
    )


@pytest.mark.parametrize("kind", [str, bytes])
async def test_an_unknown_session_is_opaque(
    door: Gateway, provider: LiveProvider, kind: type
) -> None:
    """What nobody here can read passes, and has a receipt that says so."""
    async with session(door, "/openai/v1/live/sessions") as talking:
        await talking.send("echo" if kind is str else b"\x00echo")
        await asyncio.wait_for(talking.recv(), S_MAX)
        exchange = exchange_of(talking)
    receipt = await predicate(door, exchange)

    assert ("opaque", False, "complete") == (
        receipt["operation"],
        receipt["readable"],
        receipt["ended"],
    )
    assert receipt["request"]["bytes"] > 4 < receipt["responseBytes"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("no JSON", 1007),
        ("[]", 1007),
        (b"\xff\xfe", 1007),
        ("{" * 300 + "}" * 300, 1007),
    ],
)
async def test_what_can_not_be_read_is_not_passed_on(
    door: Gateway, provider: LiveProvider, message: str | bytes, code: int
) -> None:
    """A message that can't be ruled on ends the session; its caller is told why."""
    async with session(door, "/openai/v1/realtime?model=gpt-realtime") as talking:
        await until(talking, "session.created")
        await talking.send(message)
        with pytest.raises(ConnectionClosed) as caught:
            await talking.recv()
        exchange = exchange_of(talking)
    receipt = await predicate(door, exchange)
    rcvd = caught.value.rcvd

    assert rcvd is not None
    assert code == rcvd.code
    assert rcvd.reason.startswith("body.malformed: ")
    assert "body.malformed" == receipt["error"]
    assert [] == provider.sessions[0].heard


async def test_responses_are_read_as_streams_are(door: Gateway, provider: LiveProvider) -> None:
    """Each request over the session has a receipt with what its stream said."""
    async with session(door, "/openai/v1/responses") as talking:
        for word in ("one", "two"):
            await say(
                talking,
                type="response.create",
                model="gpt-5",
                input=word,
                tools=[{"type": "x"}],
            )
            await until(talking, "response.completed")
        exchange = exchange_of(talking)
    items = [await predicate(door, item_id(exchange, number)) for number in range(2)]

    for item in items:
        assert ("gpt-5", "gpt-5-2026-01-01") == (
            item["model"]["requested"],
            item["model"]["reported"],
        )
        assert ["text"] == kinds(item)
        assert len("You said one") == item["outputs"][0]["bytes"]
        assert {"inputTokens": 4, "outputTokens": 3} == {
            key: count for key, count in item["usage"].items() if count
        }
        assert ["tools"] == item["features"]
        assert item["readable"]


async def test_googles_turns_are_read(door: Gateway, provider: LiveProvider) -> None:
    """Messages in binary frames are read, and each turn has its receipt."""
    async with session(door, f"/openai{GEMINI}") as talking:
        setup = {
            "model": "models/gemini-live",
            "tools": [{"functionDeclarations": [{"name": "look"}]}],
            "generationConfig": {"responseModalities": ["AUDIO"]},
        }
        await say(talking, setup=setup)
        await until(talking, "setupComplete")
        turns = [{"role": "user", "parts": [{"text": "hello"}]}]
        await say(talking, clientContent={"turns": turns, "turnComplete": True})
        while True:
            event = json.loads(await asyncio.wait_for(talking.recv(), S_MAX))
            if event.get("serverContent", {}).get("turnComplete"):
                break
        exchange = exchange_of(talking)
    item = await predicate(door, item_id(exchange, 0))

    assert ["text", "reasoning", "tool-call", "audio", "transcript"] == kinds(item)
    assert {"inputTokens": 9, "outputTokens": 4} == item["usage"]
    assert "gemini-live" == item["model"]["requested"]
    assert ["tools", "voice"] == item["features"]
    assert 1 == (await predicate(door, exchange))["items"]


# -- rulings ------------------------------------------------------------------------------

NO_TOOLS = written("when: {purpose: inference}", id="may-use") + written(
    "when: {features: tools}", id="no-tools", effect="forbid"
)
ASK_FIRST = written("when: {model: {starts: secret}}", id="ask-first", effect="hold")


@pytest.fixture(scope="module")
def ruled(
    provider_at: tuple[LiveProvider, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway whose policy forbids tools and holds some models, with managed keys."""
    folder = tmp_path_factory.mktemp("ruled")
    for policy, clauses in (("acme", NO_TOOLS + ASK_FIRST), ("easy", NO_TOOLS)):
        for name, text in acme_files(HEAD + clauses).items():
            file = folder / "policies" / name.replace("acme/", f"{policy}/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("policy: acme", f"policy: {policy}"))
    with running_gateway(
        folder,
        provider_at[1],
        names=("acme", "easy"),
        keys="managed",
        more="own_policies: policies\n",
    ) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def key(ruled: Gateway) -> str:
    """Return a gateway key."""
    done = ruled.command("key", "new", "--principal", "alice", "--project", "p")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


REFUSED = {
    "tools of a session": {"type": "session.update", "session": {"tools": [{"name": "x"}]}},
    "tools of an answer": {"type": "response.create", "response": {"tools": [{"name": "x"}]}},
    "a model": {"type": "session.update", "session": {"model": "secret-1"}},
    "a model that listens": {
        "type": "session.update",
        "session": {"audio": {"input": {"transcription": {"model": "secret-2"}}}},
    },
}


@pytest.mark.parametrize("what", sorted(REFUSED))
async def test_what_changes_is_ruled_on_before_it_passes(
    ruled: Gateway, provider: LiveProvider, key: str, what: str
) -> None:
    """A message that asks for what is not permitted ends the session, and is on record."""
    headers = {"Authorization": f"Bearer {key}"}
    async with session(ruled, "/acme/v1/realtime?model=plain", headers=headers) as talking:
        await ask(talking, "fine")
        await until(talking, "response.done")
        await talking.send(json.dumps(REFUSED[what]))
        with pytest.raises(ConnectionClosed) as caught:
            await talking.recv()
        exchange = exchange_of(talking)
    refusal = await predicate(ruled, item_id(exchange, 1), key)
    whole = await predicate(ruled, exchange, key)
    clause, code = (
        ("ask-first", "use.held") if "model" in what else ("no-tools", "use.forbidden")
    )

    assert caught.value.rcvd is not None
    assert 1008 == caught.value.rcvd.code
    assert f"{code}: acme/{clause} [{exchange}]" == caught.value.rcvd.reason
    assert clause in {reason["clause"] for reason in refusal["ruling"]["reasons"]}
    assert {"of": exchange, "number": 1} == refusal["item"]
    assert (code, 2) == (whole["error"], whole["items"])
    assert 2 == len(provider.sessions[0].heard), "what was refused was passed on"
    assert 1 == provider.answers


async def test_a_session_that_is_not_permitted_is_not_opened(
    ruled: Gateway, provider: LiveProvider, key: str
) -> None:
    """A model that the query names is ruled on before anything is dialled."""
    headers = {"Authorization": f"Bearer {key}"}
    with pytest.raises(InvalidStatus) as caught:
        await session(ruled, "/acme/v1/realtime?model=secret-1", headers=headers)

    assert 403 == caught.value.response.status_code
    assert [] == provider.sessions


async def test_the_first_message_is_ruled_on(
    ruled: Gateway, provider: LiveProvider, key: str
) -> None:
    """Where the path names no model, the first message does, and waits for the ruling."""
    headers = {"Authorization": f"Bearer {key}"}
    setup = {"model": "models/secret-live", "tools": [{"functionDeclarations": []}]}
    async with session(ruled, f"/easy{GEMINI}", headers=headers) as talking:
        await say(talking, setup=setup)
        with pytest.raises(ConnectionClosed) as caught:
            await talking.recv()
        exchange = exchange_of(talking)
    refusal = await predicate(ruled, item_id(exchange, 0), key)

    assert caught.value.rcvd is not None
    assert 1008 == caught.value.rcvd.code
    assert "secret-live" == refusal["model"]["requested"]
    assert [] == provider.opened().heard


async def test_a_model_that_nobody_knows_permits_nothing(
    ruled: Gateway, provider: LiveProvider, key: str
) -> None:
    """Where some model would be held, a session that names none is held from the start."""
    headers = {"Authorization": f"Bearer {key}"}
    with pytest.raises(InvalidStatus) as caught:
        await session(ruled, f"/acme{GEMINI}", headers=headers)

    assert 403 == caught.value.response.status_code
    assert [] == provider.sessions


async def test_a_key_in_the_query_is_swapped(
    provider_at: tuple[LiveProvider, str], provider: LiveProvider, tmp_path: Path
) -> None:
    """Google's callers may show their key in the query: it stays here, all else of it goes."""
    with running_gateway(
        tmp_path, provider_at[1], names=("gemini",), keys="managed"
    ) as gateway:
        done = gateway.command("key", "new", "--principal", "carol", "--project", "p")
        secret = done.stdout.split()[-1]
        path = f"/gemini{GEMINI}?key={secret}&x=%2F"
        async with session(gateway, path, headers={}) as talking:
            await say(talking, setup={"model": "models/m"})
            await until(talking, "setupComplete")
            exchange = exchange_of(talking)
        receipt = await predicate(gateway, exchange, secret)
    (opened,) = provider.sessions

    assert f"{GEMINI}?x=%2F" == opened.target
    assert [PROVIDER_SECRET] == opened.header("x-goog-api-key")
    assert secret not in str(opened.headers)
    assert ("carol", "session") == (receipt["caller"]["principal"], receipt["operation"])
    assert "key=" not in receipt["provider"]["endpoint"]


@pytest.mark.parametrize("place", ["header", "subprotocol"])
async def test_managed_keys_are_swapped(
    ruled: Gateway, provider: LiveProvider, key: str, place: str
) -> None:
    """A gateway key, also one that stands where browsers put it, never reaches a provider."""
    said: dict[str, Any] = {"headers": {"Authorization": f"Bearer {key}"}}
    if place == "subprotocol":
        named = ["realtime", f"openai-insecure-api-key.{key}", "openai-beta.v1"]
        said = {"headers": {}, "subprotocols": named}
    async with session(ruled, "/acme/v1/realtime?model=plain", **said) as talking:
        await ask(talking, "fine")
        await until(talking, "response.done")
        exchange, chosen = exchange_of(talking), talking.subprotocol
    (opened,) = provider.sessions
    receipt = await predicate(ruled, exchange, key)

    assert [f"Bearer {PROVIDER_SECRET}"] == opened.header("authorization")
    assert key not in json.dumps(opened.headers)
    assert "alice" == receipt["caller"]["principal"]
    if place == "subprotocol":
        assert ["realtime, openai-beta.v1"] == opened.header("sec-websocket-protocol")
        assert "realtime" == chosen


async def test_a_key_that_is_unknown_opens_nothing(
    ruled: Gateway, provider: LiveProvider
) -> None:
    """Without a key of the gateway's nobody is dialled."""
    with pytest.raises(InvalidStatus) as caught:
        await session(
            ruled,
            "/acme/v1/realtime?model=plain",
            headers={},
            subprotocols=["realtime", "openai-insecure-api-key.wrong"],
        )

    assert 401 == caught.value.response.status_code
    assert [] == provider.sessions


# -- what leads past, and what nobody can read --------------------------------------------


@pytest.fixture(scope="module")
def strict(
    provider_at: tuple[LiveProvider, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway that forwards only what it can read, and drains."""
    more = "unknown_operations: forbid\non_hang_up: drain\n"
    folder = tmp_path_factory.mktemp("strict")
    with running_gateway(folder, provider_at[1], more=more) as gateway:
        yield gateway


@pytest.mark.parametrize(
    "path", ["/v1/realtime/client_secrets", "/v1/realtime/calls", "/v1beta/auth_tokens"]
)
def test_no_key_is_minted_for_a_way_past(door: Gateway, path: str) -> None:
    """A key for browsers is refused, says why, and the refusal is on record."""
    with Caller(door.port) as caller:
        answer = caller.ask("POST", f"/openai{path}", [("authorization", "Bearer k")], b"{}")
    told = json.loads(answer.body)["error"]
    refusal = door.receipt(answer.header("x-gateway-exchange") or "")["predicate"]

    assert 403 == answer.status
    assert "ephemeral_keys: allow" in told["message"]
    assert ["ephemeral-keys"] == [one["clause"] for one in refusal["ruling"]["reasons"]]


def test_an_operator_may_allow_it(
    provider_at: tuple[LiveProvider, str], tmp_path: Path
) -> None:
    """Where the settings say so, it is forwarded like anything else."""
    more = "ephemeral_keys: allow\n"
    with (
        running_gateway(tmp_path, provider_at[1], more=more) as gateway,
        Caller(gateway.port) as caller,
    ):
        answer = caller.ask(
            "POST", "/openai/v1/realtime/calls", [("authorization", "Bearer k")], b"v=0"
        )

    assert 403 != answer.status


async def test_an_unknown_session_can_be_forbidden(
    strict: Gateway, provider: LiveProvider
) -> None:
    """Where only what is read is forwarded, nobody dials for an unknown session."""
    with pytest.raises(InvalidStatus) as caught:
        await session(strict, "/openai/v1/live/sessions")

    assert 403 == caught.value.response.status_code
    assert [] == provider.sessions


LONG = '{"type":"input_audio_buffer.append","audio":"' + "A" * (MESSAGE_BYTES_MAX) + '"}'


async def test_a_message_that_is_too_long_turns_a_session_opaque(
    door: Gateway, provider: LiveProvider
) -> None:
    """From there on nothing is read and everything passes; answers so far have receipts."""
    async with session(
        door, "/openai/v1/realtime?model=gpt-realtime", compression=None
    ) as talking:
        await ask(talking, "one")
        await until(talking, "response.done")
        await talking.send(LONG)
        await ask(talking, "two")
        await until(talking, "response.done")
        exchange = exchange_of(talking)
    whole = await predicate(door, exchange)

    assert [LONG] == [one for one in provider.sessions[0].heard if len(one) > 1000]
    assert (1, False, "session.unread") == (whole["items"], whole["readable"], whole["error"])
    assert whole["request"]["bytes"] > MESSAGE_BYTES_MAX


async def test_a_message_that_is_too_long_ends_a_session_that_must_be_read(
    strict: Gateway, provider: LiveProvider
) -> None:
    """Where only what is read is forwarded, what is too long to be read is not."""
    async with session(
        strict, "/openai/v1/realtime?model=gpt-realtime", compression=None
    ) as talking:
        # Only its first bytes are needed; who sends on is cut off in the middle.
        with contextlib.suppress(ConnectionClosed):
            await talking.send(LONG)
        with pytest.raises(ConnectionClosed) as caught:
            await until(talking, "never")
    assert caught.value.rcvd is None or 1009 == caught.value.rcvd.code
    opened = provider.opened()
    assert await asyncio.to_thread(opened.ended.wait, S_MAX)

    assert not any(len(one) > 1000 for one in opened.heard)


LEFT_UNREAD_MAX = 512 * MIB
"""Far more than all sockets on the way hold, and those who send to them."""


async def test_a_slow_caller_holds_up_only_its_provider(
    door: Gateway, provider: LiveProvider
) -> None:
    """What a caller does not read waits with those who send it, not in memory."""
    sent = 0
    async with session(
        door, "/openai/v1/live/sessions", compression=None, max_queue=1
    ) as talking:

        async def swamp() -> None:
            nonlocal sent
            while sent < LEFT_UNREAD_MAX:
                await talking.send(b"x" * MIB)
                sent += MIB

        # Its echo is not read, so the provider reads no more, nor does the gateway: what is
        # sent fills every buffer on the way, and no more can be.
        swamping = asyncio.ensure_future(swamp())
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(2)
        swamping.cancel()
        talking.transport.abort()

    assert sent < LEFT_UNREAD_MAX


async def test_a_gateway_that_stops_says_so(
    provider_at: tuple[LiveProvider, str], provider: LiveProvider, tmp_path: Path
) -> None:
    """Sessions are ended in good order, with their receipts, before the process ends."""
    with running_gateway(tmp_path, provider_at[1]) as gateway:
        async with session(gateway, "/openai/v1/realtime?model=gpt-realtime") as talking:
            await ask(talking, "one")
            await until(talking, "response.done")
            stopping = asyncio.ensure_future(asyncio.to_thread(gateway.stop))
            with pytest.raises(ConnectionClosed) as caught:
                await until(talking, "never")
            assert 0 == await stopping
            exchange = exchange_of(talking)
        gateway.start()
        whole = await predicate(gateway, exchange)

    assert caught.value.rcvd is not None
    assert 1001 == caught.value.rcvd.code
    assert ("complete", 1) == (whole["ended"], whole["items"])


async def test_a_revoked_key_ends_its_session(ruled: Gateway, provider: LiveProvider) -> None:
    """A key that was revoked asks for nothing more, also in a session that is open."""
    done = ruled.command("key", "new", "--principal", "bob", "--project", "p")
    secret = done.stdout.split()[-1]
    headers = {"Authorization": f"Bearer {secret}"}
    async with session(ruled, "/acme/v1/realtime?model=plain", headers=headers) as talking:
        await ask(talking, "one")
        await until(talking, "response.done")
        listed = ruled.command("key", "list").stdout.splitlines()
        id_ = next(line for line in listed if " bob " in line).split()[0]
        assert ruled.command("key", "revoke", id_).returncode == 0
        await asyncio.sleep(1.1)
        with pytest.raises(ConnectionClosed) as caught:  # noqa: PT012  either may find out
            await ask(talking, "two")
            await until(talking, "response.done")

    assert caught.value.rcvd is not None
    assert 1008 == caught.value.rcvd.code
    assert caught.value.rcvd.reason.startswith("credential.unknown: ")
    assert 2 == len(provider.sessions[0].heard)


async def test_an_answer_belongs_to_who_asked_for_it(
    ruled: Gateway, provider: LiveProvider, key: str
) -> None:
    """Who goes on from somebody else's response is told that there is none."""
    done = ruled.command("key", "new", "--principal", "eve", "--project", "p")
    other = done.stdout.split()[-1]
    said = {"type": "response.create", "model": "plain", "input": "hi"}
    mine = {"Authorization": f"Bearer {key}"}
    async with session(ruled, "/easy/v1/responses", headers=mine) as talking:
        await say(talking, **said)
        id_ = (await until(talking, "response.completed"))[-1]["response"]["id"]
        await say(talking, **said, previous_response_id=id_)
        await until(talking, "response.completed")
        exchange = exchange_of(talking)
    item = await predicate(ruled, item_id(exchange, 0), key)
    async with session(
        ruled, "/easy/v1/responses", headers={"Authorization": f"Bearer {other}"}
    ) as talking:
        await say(talking, **said, previous_response_id=id_)
        with pytest.raises(ConnectionClosed) as caught:
            await talking.recv()

    assert [{"kind": "response", "id": id_}] == item["made"]
    assert caught.value.rcvd is not None
    assert 1008 == caught.value.rcvd.code
    assert caught.value.rcvd.reason.startswith("resource.unknown: ")
    assert [] == provider.opened(2).heard


@pytest.mark.usefixtures("one_day")
async def test_limits_hold_inside_a_session(ruled: Gateway, provider: LiveProvider) -> None:
    """Each answer counts as a request; one more than a limit allows is not asked for."""
    done = ruled.command(
        *("key", "new", "--principal", "dan", "--project", "p", "--limit", "requests/day=3")
    )
    assert done.returncode == 0, done.stderr
    headers = {"Authorization": f"Bearer {done.stdout.split()[-1]}"}
    async with session(ruled, "/acme/v1/realtime?model=plain", headers=headers) as talking:
        for _ in range(2):
            await say(talking, type="response.create")
            await until(talking, "response.done")
        await say(talking, type="response.create")
        with pytest.raises(ConnectionClosed) as caught:
            await until(talking, "response.done")

    assert caught.value.rcvd is not None
    assert 1008 == caught.value.rcvd.code
    assert caught.value.rcvd.reason.startswith("limit.reached: ")
    assert 2 == provider.answers == len(provider.sessions[0].heard)
