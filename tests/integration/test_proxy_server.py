"""The door as a whole: TLS, hanging up in time, and what is left of a caller afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from gateway.app.running import Gateway
from gateway.proxy.connection import Connection
from gateway.proxy.knock import Knock
from gateway.proxy.reply import Reply
from tests.support.caller import Caller, Headers
from tests.support.certificates import certified
from tests.support.house import (
    CHAT,
    RawProvider,
    Step,
    completion,
    eventually,
    gateway_in,
    sized,
    streamed,
)
from tests.support.standing import on_standing_loop, standing

TARGET = "/open/v1/chat/completions"
JSON: Headers = (("content-type", "application/json"),)
BODY = json.dumps(CHAT).encode()
STREAM = json.dumps(CHAT | {"stream": True}).encode()
RESET = struct.pack("ii", 1, 0)


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


@pytest.mark.parametrize(
    "loop_factory",
    [asyncio.new_event_loop, uvloop.new_event_loop],
    ids=["asyncio", "uvloop"],
)
def test_a_door_with_tls(loop_factory: object, tmp_path: Path) -> None:
    """Over TLS a caller asks, asks again, and reads why it is refused."""
    made = certified(tmp_path / "pki")
    more = f"tls: {{cert: {made.certificate}, key: {made.key}}}\n"
    trust = ssl.create_default_context(cafile=str(made.authority))
    asked = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (
        TARGET.encode(),
        len(BODY),
        BODY,
    )

    async def run() -> tuple[list[bytes], bytes]:
        async with RawProvider().listening() as provider:
            provider.steps = [sized(completion("good day"))]
            async with gateway_in(tmp_path, provider.url, more) as gateway:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", gateway.port, ssl=trust
                )
                got = []
                for _ in range(2):
                    writer.write(asked)
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(len(completion("good day")))
                    got.append(head.partition(b"\r\n")[0])
                writer.write(b"GET /\n\n" + bytes(100_000))
                refused = await reader.readuntil(b"}")
                writer.close()
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    await writer.wait_closed()
                return got, refused

    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]  # either
        got, refused = runner.run(run())

    assert [b"HTTP/1.1 200 OK"] * 2 == got
    assert refused.startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("streaming", [False, True], ids=["before the head", "mid stream"])
def test_who_hangs_up_has_its_provider_cut_off_at_once(
    reset: bool,  # noqa: FBT001 - pytest passes it by name
    streaming: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """The provider sees the connection end with its caller's, while every clock stands."""

    async def hang_up(gateway: Gateway, provider: RawProvider) -> None:
        caller = Caller(gateway.port)
        await asyncio.to_thread(caller.send_request, "POST", TARGET, JSON, STREAM)
        await provider.arrived.wait()
        if streaming:
            await asyncio.to_thread(caller.read, until_bytes=10)
        if reset:
            caller._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        loop = standing()
        caller.hang_up()
        await provider.hung_up.wait()
        loop.go_on()

    async def run() -> None:
        async with RawProvider().listening() as provider:
            begun: list[Step] = [*streamed("good", " day")[:3]] if streaming else []
            provider.steps = [*begun, asyncio.Event()]
            async with gateway_in(tmp_path, provider.url) as gateway:
                await hang_up(gateway, provider)
                await eventually(lambda: gateway.hall.count == 0)

    on_standing_loop(run())


async def test_a_caller_leaves_nothing_behind(gateway: Gateway, provider: RawProvider) -> None:
    """Requests, refusals and aborted streams free all that they took, without a collector."""
    abortive: list[Step] = [*streamed("good", " day")[:3], asyncio.Event()]

    def round_of_three() -> None:
        provider.steps = [sized(completion("good day"))]
        with Caller(gateway.port) as caller:
            assert 200 == caller.ask("POST", TARGET, JSON, BODY).status
            assert 400 == caller.ask("POST", TARGET, JSON, b"{").status
        provider.steps = abortive
        with Caller(gateway.port) as caller:
            caller.send_request("POST", TARGET, JSON, STREAM)
            assert caller.read(until_bytes=10).body

    def held() -> list[object]:
        # Asked for its class, an object of somebody else's may warn that it is old.
        return [one for one in gc.get_objects() if type(one) in {Knock, Reply, Connection}]

    gc.collect()
    gc.disable()
    try:
        before = held()
        for _ in range(5):
            await asyncio.to_thread(round_of_three)
        await eventually(lambda: gateway.hall.count == 0)
        await eventually(lambda: not gateway.door._connections)
        # The last step of an exchange comes after its caller has left.
        await eventually(lambda: len(held()) <= len(before))
    finally:
        gc.enable()
