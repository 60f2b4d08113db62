"""The hall: exchanges under way are counted, and waited for at the end."""

from __future__ import annotations

import asyncio

import pytest

from gateway.exchange.hall import Hall


async def test_an_empty_hall_is_drained_at_once() -> None:
    """Where nobody is, nobody is waited for."""
    assert 0 == await Hall().drain(60)


async def test_the_last_one_out_ends_the_wait() -> None:
    """A stopping gateway goes on as soon as the hall is empty."""
    hall = Hall()
    go = asyncio.Event()

    async def exchange() -> None:
        with hall:
            await go.wait()

    tasks = [asyncio.ensure_future(exchange()) for _ in range(3)]
    draining = asyncio.ensure_future(hall.drain(60))
    await asyncio.sleep(0)
    assert (3, False) == (hall.count, draining.done())
    go.set()

    assert 0 == await draining
    assert 0 == hall.count
    await asyncio.gather(*tasks)


async def test_who_does_not_end_is_counted() -> None:
    """After the limit the hall says how many had to be left."""
    hall = Hall()
    with hall, hall:
        assert 2 == await hall.drain(0.01)


async def test_an_exchange_that_breaks_leaves_the_hall() -> None:
    """A bug in an exchange doesn't keep the gateway from stopping."""
    hall = Hall()
    with pytest.raises(ZeroDivisionError), hall:
        raise ZeroDivisionError

    assert 0 == await hall.drain(60)
