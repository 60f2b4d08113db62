"""Faults in pairs: whatever append fails, before or after it took effect, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import GatewayError, LedgerDamagedError, LedgerUnwellError
from gateway.exchange.states import Answered
from gateway.receipt.model import Abandonment, Receipt
from tests.support.house import (
    TRAINING,
    Act,
    Guest,
    RawProvider,
    Rooms,
    completion,
    events,
    rooms_at,
    sized,
    streamed,
)
from tests.support.store import When

WHOLE = [sized(completion("good day"))]
STREAM = streamed("good", " day")


@pytest.fixture
async def provider() -> AsyncIterator[RawProvider]:
    """Return a provider on a plain socket."""
    async with RawProvider().listening() as listening:
        listening.steps = WHOLE
        yield listening


@pytest.fixture
async def rooms(tmp_path: Path, provider: RawProvider) -> AsyncIterator[Rooms]:
    """Return the rooms before that provider."""
    async with rooms_at(tmp_path, provider.url) as opened:
        yield opened


def fail_when_asked(provider: RawProvider, rooms: Rooms, when: When) -> None:
    """Let the append after the provider is asked fail: that of the closing statement."""

    def fail(_: bytes) -> None:
        rooms.store.fail_once("append", when)
        provider.on_request = lambda _: None

    provider.on_request = fail


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_opening_that_fails_dials_nobody(
    when: When, rooms: Rooms, provider: RawProvider
) -> None:
    """Without an opening that is known to be durable the provider is not asked."""
    rooms.store.fail_once("append", when)
    with pytest.raises(GatewayError):
        await rooms.through(rooms.asked())
    swept = await rooms.walk.sweep()
    await rooms.restart()

    assert (0, 0) == (provider.dialled, swept)
    assert (0 if when == "before" else 1) == len(rooms.openings()) == rooms.recovered
    rooms.check()


@pytest.mark.parametrize("steps", [WHOLE, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_answer_without_its_receipt_is_never_whole(
    when: When, steps: list[bytes], rooms: Rooms, provider: RawProvider
) -> None:
    """If the receipt fails nothing that waited is handed out, and a restart closes it."""
    provider.steps = steps
    guest = Guest()
    fail_when_asked(provider, rooms, when)
    with pytest.raises((LedgerUnwellError, LedgerDamagedError)):
        await rooms.through(rooms.asked(stream=steps is STREAM), guest)
    given = guest.got
    await rooms.restart()
    closing = rooms.statements()[-1]

    assert (b"".join(events("good", " day")[:2]) if steps is STREAM else b"") == given
    assert (Abandonment if when == "before" else Receipt) is type(closing)
    assert (1 if when == "before" else 0) == rooms.recovered
    rooms.check()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_refusal_that_fails_is_told_as_such(
    when: When, rooms: Rooms, provider: RawProvider
) -> None:
    """A refusal that can't be written is an error, and leaves nothing open."""
    rooms.store.fail_once("append", when)
    with pytest.raises(GatewayError):
        await rooms.through(rooms.asked("closed", TRAINING))
    await rooms.restart()

    assert [] == rooms.openings()
    assert 0 == provider.dialled
    rooms.check()


async def test_what_could_not_be_closed_is_closed_by_the_sweep(
    rooms: Rooms, provider: RawProvider
) -> None:
    """While the process lives a lost receipt becomes an abandonment that says why, once."""
    fail_when_asked(provider, rooms, "before")
    with pytest.raises(LedgerUnwellError):
        await rooms.through(rooms.asked())
    first, again = await rooms.walk.sweep(), await rooms.walk.sweep()
    closing = rooms.statements()[-1]
    await rooms.restart()

    assert (1, 0, 0) == (first, again, rooms.recovered)
    assert isinstance(closing, Abandonment)
    assert "ledger-failed" == closing.why
    rooms.check()


async def test_a_sweep_that_fails_tries_again_later(
    rooms: Rooms, provider: RawProvider
) -> None:
    """What can't be swept now is swept the next time, and nothing is swept twice."""
    for _ in range(2):
        fail_when_asked(provider, rooms, "before")
        with pytest.raises(LedgerUnwellError):
            await rooms.through(rooms.asked())
    rooms.store.fail_once("append", "before")
    swept = [await rooms.walk.sweep() for _ in range(3)]

    assert [0, 2, 0] == swept
    rooms.check()


async def test_a_sweep_over_a_damaged_ledger_ends_quietly(
    rooms: Rooms, provider: RawProvider
) -> None:
    """Where what is durable is unknown a sweep changes nothing; a restart reads the truth."""
    fail_when_asked(provider, rooms, "before")
    with pytest.raises(LedgerUnwellError):
        await rooms.through(rooms.asked())
    rooms.store.fail_once("append", "after")
    with pytest.raises(LedgerDamagedError):
        await rooms.through(rooms.asked())
    swept = await rooms.walk.sweep()
    await rooms.restart()

    assert (0, 2) == (swept, rooms.recovered)
    rooms.check()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_closing_that_fails_during_recovery_is_recovered_by_the_next_start(
    when: When, rooms: Rooms, provider: RawProvider
) -> None:
    """The rescue can fail as any day's work can, and is done by the start after it."""
    rooms.store.fail_once("append", "after")
    with pytest.raises(LedgerDamagedError):
        await rooms.through(rooms.asked())
    await rooms.restart()
    rooms.check()
    fail_when_asked(provider, rooms, "before")
    with pytest.raises(LedgerUnwellError):
        await rooms.through(rooms.asked())
    rooms.store.fail_once("append", when)
    await rooms.walk.sweep()
    await rooms.restart()

    assert (1 if when == "before" else 0) == rooms.recovered
    rooms.check()


async def test_text_that_cant_be_kept_withholds_the_answer(
    rooms: Rooms, provider: RawProvider
) -> None:
    """If the text of a teaching use can't be stored there is no receipt and no answer."""
    await asyncio.to_thread(rooms.content.close)
    with pytest.raises(LedgerUnwellError):
        await rooms.through(rooms.asked(use=TRAINING))
    swept = await rooms.walk.sweep()

    assert 1 == swept
    rooms.check()


async def test_a_bug_of_ours_leaves_no_opening_open(
    rooms: Rooms, provider: RawProvider
) -> None:
    """An exchange that breaks on a bug is closed as abandoned while the process lives."""

    class BrokenGuest(Guest):
        async def pass_on(self, chunk: bytes) -> None:
            raise ZeroDivisionError

    provider.steps = [*STREAM[:-1], asyncio.Event()]
    with pytest.raises(ZeroDivisionError):
        await rooms.through(rooms.asked(stream=True), BrokenGuest())
    await provider.hung_up.wait()
    await rooms.walk.sweep()
    closing = rooms.statements()[-1]

    assert isinstance(closing, Abandonment)
    assert "gateway-failed" == closing.why
    rooms.check()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_many_at_once_each_have_one_end(
    when: When, rooms: Rooms, provider: RawProvider
) -> None:
    """A fault in the middle of many exchanges loses and doubles none of them."""
    count = 0

    def fail_in_the_middle(_: bytes) -> None:
        nonlocal count
        count += 1
        if count == 10:
            rooms.store.fail_once("append", when)

    provider.on_request = fail_in_the_middle
    outcomes = await asyncio.gather(
        *(rooms.through(rooms.asked()) for _ in range(20)), return_exceptions=True
    )
    answered = [one[0] for one in outcomes if isinstance(one, tuple)]
    given = {one.permitted.asked.exchange for one in answered if isinstance(one, Answered)}
    await rooms.walk.sweep()
    await rooms.restart()
    receipts = {one.exchange for one in rooms.statements() if isinstance(one, Receipt)}

    assert given <= receipts
    assert len(given) < 20
    rooms.check()


@pytest.mark.parametrize("act", list(Act))
async def test_a_provider_that_goes_at_once_is_on_record(
    act: Act, rooms: Rooms, provider: RawProvider
) -> None:
    """A provider that closes or resets before its head leaves a receipt without a status."""
    provider.steps = [act]
    outcome, sealed = await rooms.through(rooms.asked())
    receipt = rooms.statements()[sealed.index]

    assert isinstance(outcome, Answered)
    assert isinstance(receipt, Receipt)
    assert "cut-short-by-provider" == receipt.ended
    assert ("provider.broke_off", None) == (receipt.error, receipt.provider.status)
    rooms.check()
