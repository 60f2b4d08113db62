"""The official SDKs' sessions, made once directly and once through the gateway."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from google import genai
from google.genai import types

from tests.support.certificates import Certified, certified
from tests.support.live import SOUND, LiveProvider, live_provider
from tests.support.node import installed_scenes
from tests.support.proxy import START_S_MAX, Gateway, new_gateway, running_gateway
from tests.support.tools import needed


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    """Return an authority that the SDKs are told to trust, and a certificate by it."""
    return certified(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def plain() -> Iterator[tuple[LiveProvider, str]]:
    """Run a provider of sessions without TLS."""
    with live_provider() as running:
        yield running


@pytest.fixture(scope="module")
def secure(house: Certified) -> Iterator[tuple[LiveProvider, str]]:
    """Run a provider of sessions with TLS: some SDKs speak nothing else."""
    with live_provider(house.listening()) as running:
        yield running


@pytest.fixture(scope="module")
def door(
    plain: tuple[LiveProvider, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway before the provider without TLS."""
    with running_gateway(tmp_path_factory.mktemp("door"), plain[1]) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def secure_door(
    secure: tuple[LiveProvider, str],
    house: Certified,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Path]]:
    """Run a gateway that speaks TLS on both sides; yield its base URL and its data folder."""
    folder = tmp_path_factory.mktemp("secure")
    more = (
        f"tls: {{cert: {house.certificate}, key: {house.key}}}\n"
        f"upstream: {{ca_bundle: {house.authority}}}\n"
    )
    # `start` would ask for its health without TLS.
    gateway = new_gateway(folder, secure[1], more=more)
    gateway.spawn()
    try:
        wait_for_tls(gateway.port, house)
        yield f"https://127.0.0.1:{gateway.port}/openai", folder
    finally:
        gateway.kill()


def trusting(house: Certified) -> ssl.SSLContext:
    """Return what trusts the authority of *house*."""
    return ssl.create_default_context(cafile=str(house.authority))


def wait_for_tls(port: int, house: Certified) -> None:
    """Return once a gateway that speaks TLS is healthy."""
    until = time.monotonic() + START_S_MAX
    while time.monotonic() < until:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=60, context=trusting(house)
        )
        try:
            connection.request("GET", "/-/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.02)
        finally:
            connection.close()
    raise AssertionError("nobody speaks TLS")


async def realtime(base_url: str) -> list[dict[str, Any]]:
    """Talk as an application does, and return every event that came."""
    events: list[dict[str, Any]] = []
    async with (
        openai.AsyncOpenAI(base_url=base_url, api_key="sk-caller") as client,
        client.realtime.connect(model="gpt-realtime") as connection,
    ):
        await connection.session.update(
            session={"type": "realtime", "output_modalities": ["audio"]}
        )
        await connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "hello"}],
            }
        )
        await connection.response.create()
        async for event in connection:
            events.append(event.to_dict())
            if event.type == "response.done":
                break
    return events


def without_numbers(events: list[dict[str, Any]]) -> str:
    """Return *events* without the number of the answer, which the provider counts."""
    return "".join(sign for sign in str(events) if not sign.isdigit())


async def test_openais_realtime_sees_no_difference(
    door: Gateway, plain: tuple[LiveProvider, str]
) -> None:
    """Event for event, a session through the gateway is one without it."""
    directly = await realtime(f"{plain[1]}/v1")
    through = await realtime(door.openai())

    assert without_numbers(directly) == without_numbers(through)
    assert "response.output_audio.delta" in {event["type"] for event in through}


async def responses(base_url: str) -> list[str]:
    """Ask twice over one connection, and return the types and texts that came."""
    got = []
    async with (
        openai.AsyncOpenAI(base_url=base_url, api_key="sk-caller") as client,
        client.responses.connect() as connection,
    ):
        for word in ("one", "two"):
            await connection.response.create(model="gpt-5", input=word)
            async for event in connection:
                got.append(f"{event.type} {getattr(event, 'delta', '')}")
                if event.type == "response.completed":
                    got.append(event.response.output_text)
                    break
    return got


async def test_openais_responses_see_no_difference(
    door: Gateway, plain: tuple[LiveProvider, str]
) -> None:
    """Responses over WebSocket, event for event."""
    directly = await responses(f"{plain[1]}/v1")
    through = await responses(door.openai())

    assert directly == through
    assert ["You said one", "You said two"] == [one for one in through if "You said " in one]


async def google(base_url: str, house: Certified) -> list[Any]:
    """Talk in a live session of Google's, and return what each message held."""
    options = types.HttpOptions(
        base_url=base_url, async_client_args={"ssl": trusting(house)}, api_version="v1beta"
    )
    client = genai.Client(api_key="caller", http_options=options)
    config = types.LiveConnectConfig(response_modalities=[types.Modality.AUDIO])
    async with client.aio.live.connect(model="gemini-live", config=config) as session:
        await session.send_client_content(
            turns=types.Content(role="user", parts=[types.Part(text="hello")])
        )
        return [message.model_dump(exclude_none=True) async for message in session.receive()]


async def test_googles_live_sees_no_difference(
    secure_door: tuple[str, Path], secure: tuple[LiveProvider, str], house: Certified
) -> None:
    """Google's SDK speaks TLS alone; message for message it sees the same."""
    directly = await google(secure[1], house)
    through = await google(secure_door[0], house)

    assert directly == through
    assert any(SOUND == found_in(message) for message in through)


def found_in(message: dict[str, Any]) -> bytes | None:
    """Return the sound in a message of Google's, if there is any."""
    turn = message.get("server_content", {}).get("model_turn", {})
    data = [
        part["inline_data"]["data"] for part in turn.get("parts", []) if "inline_data" in part
    ]
    return bytes(data[0]) if data else None


def for_node(
    installed: Path, kind: str, address: str, house: Certified
) -> list[dict[str, Any]]:
    """Return the events of a session of *kind* that an SDK for Node had at *address*."""
    done = subprocess.run(
        [needed("node"), "live.mjs", kind, address, "sk-caller"],
        cwd=installed,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, "NODE_EXTRA_CA_CERTS": str(house.authority)},
    )
    assert 0 == done.returncode, done.stderr[-2000:]
    events: list[dict[str, Any]] = json.loads(done.stdout)
    return events


@pytest.mark.crash
@pytest.mark.parametrize("kind", ["server", "browser", "google"])
def test_nodes_sessions_see_no_difference(
    kind: str,
    secure_door: tuple[str, Path],
    secure: tuple[LiveProvider, str],
    house: Certified,
) -> None:
    """What speaks TLS alone, and what has no headers to put a key in, sees the same."""
    installed = installed_scenes()
    at, _ = secure_door
    direct, through = secure[1], at
    if kind != "google":
        direct, through = f"{direct}/v1", f"{through}/v1"
    directly = for_node(installed, kind, direct, house)
    secure[0].forget()
    seen = for_node(installed, kind, through, house)
    (opened,) = secure[0].sessions

    assert without_numbers(directly) == without_numbers(seen)
    assert "BidiGenerateContent" in opened.target or "model=gpt-realtime" in opened.target
