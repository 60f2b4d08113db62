"""Requests of batches wait no longer for their answers than they may, then are destroyed."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import openai
import pytest

from gateway.app.installation import Installation, open_installation
from gateway.app.upkeep import drop_lines
from gateway.clock import day_of, rfc3339
from gateway.ident import ExchangeId, new_exchange_id
from gateway.limits import LINES_KEPT_DAYS
from gateway.store.lines import Line
from tests.support.batches import TRAINING, batching_gateway, chat_line, jsonl, written
from tests.support.proxy import Gateway
from tests.support.stub.server import StubServer

DAY: Final = dt.timedelta(days=1)
USE: Final = {"x-intended-use": TRAINING}


@contextmanager
def opened(gateway: Gateway) -> Iterator[Installation]:
    """Open the installation of a gateway that does not run."""
    config = str(gateway.folder / "gateway.yaml")
    with contextlib.closing(open_installation(argparse.Namespace(config=config))) as house:
        yield house


def handed_in(gateway: Gateway) -> str:
    """Hand in three lines; return the id of their file."""
    with openai.OpenAI(api_key="sk", base_url=gateway.openai(), max_retries=0) as sdk:
        content = jsonl(chat_line(number) for number in range(3))
        file = sdk.files.create(file=("a.jsonl", content), purpose="batch", extra_headers=USE)
    return file.id


def fetched(gateway: Gateway, file: str) -> int:
    """Begin a batch of that file, and fetch its results; return how many there are."""
    with openai.OpenAI(api_key="sk", base_url=gateway.openai(), max_retries=0) as sdk:
        begun = sdk.batches.create(
            input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h"
        )
        sdk.batches.retrieve(begun.id)
        output = sdk.batches.retrieve(begun.id).output_file_id or ""
        return sdk.files.content(output).content.count(b"\n")


def texts(house: Installation) -> list[ExchangeId]:
    """Return the sets of which there are texts."""
    return [exchange for exchange, _, _ in house.lines.with_texts()]


@pytest.mark.usefixtures("one_day")
def test_requests_are_destroyed_once_their_time_is_over(
    stub: tuple[StubServer, str], tmp_path: Path
) -> None:
    """On the last day they wait still; the day after nothing opens them, and items go on."""
    stub[0].begin("purge")
    with batching_gateway(tmp_path, stub[1]) as gateway:
        file = handed_in(gateway)
        gateway.stop()
        with opened(gateway) as house:
            today = day_of(house.clock.now_ms())
            last = today + LINES_KEPT_DAYS * DAY
            (exchange,) = texts(house)
            kept = house.lines.texts(exchange, range(3))
            before = [drop_lines(house, day) for day in (today, last)]
            after = [drop_lines(house, last + DAY) for _ in range(2)]
            gone = house.lines.texts(exchange, range(3))
            found = house.lines.found(exchange, -1, 9)
        gateway.start()
        count = fetched(gateway, file)
        items = written(gateway)
        fsck = gateway.command("ledger", "fsck")

    assert [b"What is the square" in text for text in kept.values()] == [True] * 3
    assert ([0, 0], [1, 0]) == (before, after)
    assert {} == gone
    assert 3 == len(found)
    # What is left of them is enough for receipts, not for rows.
    items.check_items(count=count)
    assert 3 == count
    assert [None] * 3 == [unit.row for one in items.items for unit in one.outputs]
    for item, (_, told) in zip(
        sorted(items.items, key=lambda one: one.item.number if one.item else 0),
        found,
        strict=True,
    ):
        assert item.request.commitment is not None
        assert item.request.commitment.value.encode() in told
    assert 0 == fsck.returncode, fsck.stdout


def test_requests_that_never_left_go_the_day_after(
    stub: tuple[StubServer, str], tmp_path: Path
) -> None:
    """Of a set whose judging a crash broke off nobody can ask for anything: it goes soon."""
    stub[0].begin("purge")
    with batching_gateway(tmp_path, stub[1]) as gateway:
        gateway.stop()
        with opened(gateway) as house:
            now = house.clock.now_ms()
            exchange, today = new_exchange_id(now), day_of(now)
            key = house.lines.begin(exchange, rfc3339(now))
            line = Line(number=0, name="a", found=b"{}", kind=0, text=b"secret")
            house.lines.add(exchange, key, [line])
            dropped = [drop_lines(house, today + days * DAY) for days in (0, 1, 2, 3)]

            assert [0, 0, 1, 0] == dropped
            assert [] == texts(house)
