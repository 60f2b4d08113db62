"""A provider that stays silent for too long, on a loop whose clock the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.exchange.states import Answered
from gateway.limits import ANSWER_TIMEOUT_S
from gateway.receipt.model import Receipt
from tests.support.house import Guest, RawProvider, Step, events, rooms_at, streamed
from tests.support.standing import on_standing_loop, standing

SILENT: dict[str, tuple[Sequence[Step], str]] = {
    "no head": ((), "provider-failed"),
    "half a head": ((b"HTTP/1.1 200 OK\r\n",), "provider-failed"),
    "mid stream": (streamed("a", "b")[:3], "cut-short-by-provider"),
}


@pytest.mark.parametrize(("steps", "ended"), SILENT.values(), ids=SILENT)
def test_silence_ends_an_exchange(steps: Sequence[Step], ended: str, tmp_path: Path) -> None:
    """After the longest silence the provider is cut off, and the receipt says timeout."""

    async def silence() -> tuple[Answered, Receipt]:
        loop = standing()
        async with RawProvider().listening() as provider:
            provider.steps = [*steps, asyncio.Event()]
            async with rooms_at(tmp_path, provider.url) as rooms:
                guest = Guest()
                walking = asyncio.ensure_future(rooms.through(rooms.asked(stream=True), guest))
                await (guest.written if ended.startswith("cut") else provider.arrived).wait()
                loop.move(ANSWER_TIMEOUT_S - 5)
                await asyncio.sleep(0)
                assert not walking.done()
                loop.move(ANSWER_TIMEOUT_S + 10)
                outcome, sealed = await walking
                await provider.hung_up.wait()
                receipt = rooms.statements()[sealed.index]
                rooms.check()
        assert isinstance(outcome, Answered)
        assert isinstance(receipt, Receipt)
        return outcome, receipt

    outcome, receipt = on_standing_loop(silence())

    assert (ended, "provider.timeout") == (receipt.ended, receipt.error)
    assert outcome.held in {b"", events("a", "b")[1]}
