"""Laws of results on their way out: nothing goes before its receipt, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.batch.judge import Judge
from gateway.batch.model import Begun, Source
from gateway.batch.pieces import lines_of
from gateway.batch.results import Results
from gateway.exchange.allowance import Allowance
from gateway.exchange.items import Items
from gateway.exchange.states import Answered, Principal
from gateway.ident import ExchangeId, item_id, new_exchange_id
from gateway.provider.model import Resource
from gateway.provider.openai.batch import OpenAIBatches
from gateway.provider.tokens import TokenCounter
from gateway.receipt.model import Receipt
from gateway.store.counters import Counters
from gateway.store.lines import FileLines
from gateway.store.turns import FileTurns
from tests.support.batches import chat_line, jsonl
from tests.support.house import (
    COMMITMENT_KEY,
    TRAINING,
    RawProvider,
    Rooms,
    completion,
    rooms_at,
    sized,
)

LINES: Final = 5


async def nothing() -> None:
    """Take nothing in."""


async def everybodys(principal: Principal, provider: str, named: Sequence[Resource]) -> None:
    """Say that whatever is named is the caller's."""


def unlimited() -> Counters:
    """Open nothing, for nothing is limited."""
    raise AssertionError("something was counted")


async def begun(rooms: Rooms) -> tuple[Source, Receipt]:
    """Hand lines in and begin; return where results come from, and the exchange's receipt."""

    async def content() -> AsyncIterator[bytes]:
        yield jsonl(chat_line(number) for number in range(LINES))

    asked = rooms.asked("open", TRAINING)
    judge = Judge(
        law=rooms.law,
        lines=FileLines(rooms.content),
        clock=rooms.clock,
        commitment_key=COMMITMENT_KEY,
        refresh=nothing,
        owned=everybodys,
    )
    judged = await judge.judge(
        asked, rooms.provider("open"), OpenAIBatches(), lines_of(content(), 0), "refuse"
    )
    await rooms.through(asked)
    (receipt,) = [one for one in rooms.statements() if isinstance(one, Receipt)]
    rulings = tuple(kind.ruling for kind in judged.set.kinds)
    source = Source(
        of=asked.exchange, input=asked.exchange, set=judged.set, begun=Begun(rulings=rulings)
    )
    return source, receipt


def reader(rooms: Rooms, source: Source, receipt: Receipt) -> tuple[Results, list[Answered]]:
    """Return what reads results, and what it sealed."""

    def known(ids: Sequence[ExchangeId]) -> set[ExchangeId]:
        rooms.index.catch_up(rooms.ledger)
        return rooms.index.closed_of(ids)

    provider, sealed = rooms.provider("open"), list[Answered]()
    call = rooms.asked("open").call
    results = Results(
        call=call,
        plain=provider.dialect.answer_reader(call, 200, "application/json"),
        source=source,
        receipt=receipt,
        fetched=new_exchange_id(rooms.clock.now_ms()),
        provider=provider,
        batches=OpenAIBatches(),
        lines=FileLines(rooms.content),
        items=Items(notary=rooms.notary, turns=FileTurns(rooms.folder / "turns"), known=known),
        on_item=sealed.append,
        allowance=Allowance((), None, unlimited, TokenCounter(None)),
    )
    return results, sealed


def answer(number: int) -> bytes:
    """Return a line of results."""
    told: dict[str, Any] = {"status_code": 200, "request_id": f"req-{number}"}
    told["body"] = json.loads(completion(f"The answer to {number}."))
    line = {"custom_id": f"line-{number}", "response": told, "error": None}
    return json.dumps(line).encode() + b"\n"


async def passed(results: Results, content: bytes, size: int) -> list[int]:
    """Pass *content* on in pieces of *size*; return how much might go after each."""
    may_go = []
    for at in range(0, len(content), size):
        results.feed(content[at : at + size])
        may_go.append(await results.settle(ended=False))
    may_go.append(await results.settle(ended=True))
    return may_go


@pytest.mark.parametrize("size", [7, 64, 100_000])
async def test_each_request_has_one_receipt(tmp_path: Path, size: int) -> None:
    """However results are cut, each is sealed once, and what answers nothing is one unit."""
    strange = [answer(77), b"no json\n", answer(2)]
    content = b"".join([*(answer(number) for number in (3, 0, 2)), *strange, answer(4)])
    async with RawProvider().listening() as raw:
        raw.steps = [sized(completion("begun"))]
        async with rooms_at(tmp_path, raw.url) as rooms:
            source, receipt = await begun(rooms)
            results, sealed = reader(rooms, source, receipt)
            may_go = await passed(results, content, size)
            again, twice = reader(rooms, source, receipt)
            rest = await passed(again, content + answer(1)[:-1], size)
            items = [
                one
                for one in rooms.statements()
                if isinstance(one, Receipt) and one.item is not None
            ]

    assert may_go == sorted(may_go)
    assert (len(content), len(content) + len(answer(1)) - 1) == (may_go[-1], rest[-1])
    assert {item_id(source.of, number) for number in (0, 2, 3, 4)} == {
        one.permitted.asked.exchange for one in sealed
    }
    assert [item_id(source.of, 1)] == [one.permitted.asked.exchange for one in twice]
    assert sorted(item_id(source.of, number) for number in range(LINES)) == sorted(
        one.exchange for one in items
    )
    assert all(unit.row is not None for one in items for unit in one.outputs)
    (unit,) = results.finish().units
    assert hashlib.sha256(b"".join(one.rstrip(b"\n") for one in strange)).hexdigest() == (
        unit.sha256
    )


async def test_nothing_goes_before_it_is_settled(tmp_path: Path) -> None:
    """Bytes that were fed alone may not go, whole lines of them or not."""
    async with RawProvider().listening() as raw:
        raw.steps = [sized(completion("begun"))]
        async with rooms_at(tmp_path, raw.url) as rooms:
            results, sealed = reader(rooms, *await begun(rooms))
            content = answer(0) + answer(1)

            assert 0 == results.feed(content[:-20])
            assert 0 == results.feed(content[-20:])
            assert [] == sealed
            assert len(content) == await results.settle(ended=True)
            assert 2 == len(sealed)
