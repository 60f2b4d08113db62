"""Laws of items: one receipt each, whoever asks and however often."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from gateway.exchange.items import asked_for_item
from gateway.ident import is_exchange_id, item_id, new_exchange_id
from gateway.provider.model import Operation, ProviderCall
from gateway.receipt.model import ItemFacts
from gateway.store.turns import SLOTS, FileTurns, slot_of
from tests.support.evidence import RECEIPT


def test_an_item_has_a_name_of_its_own() -> None:
    """The id of an item is an exchange id, sorts with its exchange, and is nobody else's."""
    of = new_exchange_id(1_790_000_000_000)
    names = {item_id(of, number) for number in range(1_000)}

    assert 1_000 == len(names)
    assert all(is_exchange_id(name) and name[:12] == of[:12] for name in names)
    assert of not in names
    assert item_id(of, 5) == item_id(of, 5)
    assert item_id(new_exchange_id(1_790_000_000_000), 5) != item_id(of, 5)


async def test_a_turn_is_had_by_one(tmp_path: Path) -> None:
    """Whoever has a turn has it alone, and the next has it once that one lets go."""
    turns, others = FileTurns(tmp_path / "turns"), FileTurns(tmp_path / "turns")
    steps: list[str] = []
    held = asyncio.Event()

    async def first() -> None:
        async with turns.turn("a"):
            held.set()
            steps.append("first in")
            await asyncio.sleep(0)
            steps.append("first out")

    async def second() -> None:
        await held.wait()
        async with others.turn("a"):
            steps.append("second in")

    await asyncio.gather(first(), second())

    assert ["first in", "first out", "second in"] == steps
    assert all(0 <= slot_of(str(name)) < SLOTS for name in range(100))


def test_an_item_has_the_tags_of_the_exchange_that_asked_for_it() -> None:
    """What was named as a whole is found by that name piece by piece."""
    batch = msgspec.structs.replace(RECEIPT, tags=("nightly", "batch-7"))
    item = ItemFacts(of=batch.exchange, number=3)
    call = ProviderCall(provider="open", operation=Operation.CHAT)
    asked = asked_for_item(batch, item, call, b"{}", 0)

    assert ("nightly", "batch-7") == asked.tags
    assert batch.caller.principal == asked.principal.name
