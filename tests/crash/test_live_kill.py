"""A gateway that is killed in the middle of a session leaves nothing unsaid."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import apsw
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.ident import ExchangeId, item_id
from tests.support.live import live_provider
from tests.support.proxy import new_gateway

pytestmark = pytest.mark.crash

S_MAX = 60
"""How long anything is waited for that comes at once on an idle machine."""


@pytest.mark.parametrize("answers", [0, 2])
async def test_a_killed_session_is_abandoned_and_its_answers_stay(
    tmp_path: Path, answers: int
) -> None:
    """What a caller saw whole has its receipt; the session itself is closed as abandoned."""
    with live_provider() as (provider, url):
        gateway = new_gateway(tmp_path, url)
        await asyncio.to_thread(gateway.start)
        try:
            async with connect(
                f"ws://127.0.0.1:{gateway.port}/openai/v1/realtime?model=m",
                open_timeout=S_MAX,
            ) as talking:
                assert talking.response is not None
                exchange = ExchangeId(talking.response.headers["x-gateway-exchange"])
                for _ in range(answers):
                    await talking.send('{"type": "response.create"}')
                    while "response.done" not in str(await talking.recv()):
                        pass
                await talking.send(
                    json.dumps(
                        {
                            "type": "conversation.item.create",
                            "item": {"type": "message", "content": [{"text": "!stall"}]},
                        }
                    )
                )
                await talking.send('{"type": "response.create"}')
                assert await asyncio.to_thread(provider.stalled.wait, S_MAX)
                await asyncio.to_thread(gateway.kill)
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        await talking.recv()
            assert answers == provider.answers
            await asyncio.to_thread(gateway.start)
            closed = await asyncio.to_thread(gateway.receipt, exchange)
            items = [
                (await asyncio.to_thread(gateway.receipt, item_id(exchange, number)))[
                    "predicate"
                ]
                for number in range(answers)
            ]
            beyond, _, _ = await asyncio.to_thread(
                gateway.get, f"/-/receipts/{item_id(exchange, answers)}"
            )
            clean = await asyncio.to_thread(gateway.command, "ledger", "fsck")
        finally:
            await asyncio.to_thread(gateway.kill)

    assert closed["predicateType"].endswith("abandonment/v1")
    assert "process-ended" == closed["predicate"]["why"]
    assert ["complete"] * answers == [item["ended"] for item in items]
    assert 404 == beyond
    assert 0 == clean.returncode, clean.stdout + clean.stderr


async def test_an_answer_without_a_receipt_never_ends(tmp_path: Path) -> None:
    """Where the ledger takes nothing, the last message stays here, and the session breaks."""
    with live_provider() as (provider, url):
        gateway = new_gateway(tmp_path, url)
        await asyncio.to_thread(gateway.start)
        got: list[str] = []
        try:
            async with connect(
                f"ws://127.0.0.1:{gateway.port}/openai/v1/realtime?model=m",
                open_timeout=S_MAX,
            ) as talking:
                assert talking.response is not None
                exchange = ExchangeId(talking.response.headers["x-gateway-exchange"])
                # Whoever else writes the file for so long keeps the gateway from it.
                ledger = apsw.Connection(str(gateway.data / "ledger.db"))
                # The gateway may be writing, if only its checkpoint.
                ledger.set_busy_timeout(1000 * S_MAX)
                ledger.execute("BEGIN IMMEDIATE")
                await talking.send('{"type": "response.create"}')
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        got.append(str(await asyncio.wait_for(talking.recv(), S_MAX)))
                ledger.execute("ROLLBACK")
                ledger.close()
            closed = await asyncio.to_thread(gateway.receipt, exchange, within_s=S_MAX)
            assert await asyncio.to_thread(provider.sessions[0].ended.wait, S_MAX)
            assert 0 == await asyncio.to_thread(gateway.stop)
            clean = await asyncio.to_thread(gateway.command, "ledger", "fsck")
        finally:
            await asyncio.to_thread(gateway.kill)

    assert 1 == provider.answers
    assert any("response.output_text.delta" in message for message in got)
    assert not any("response.done" in message for message in got)
    assert closed["predicateType"].endswith("abandonment/v1")
    assert "ledger-failed" == closed["predicate"]["why"]
    assert 0 == clean.returncode, clean.stdout + clean.stderr
