"""Laws of judging a batch: every line by itself, all of them before anything leaves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.batch.judge import Judge, Judged, Mode
from gateway.batch.model import Found, decode_found
from gateway.batch.pieces import Piece, lines_of
from gateway.errors import BatchRefusedError, CallerGoneError, NotFoundError
from gateway.exchange.states import Asked, Principal
from gateway.ident import ExchangeId
from gateway.limits import LINE_KINDS_MAX, LINES_AT_ONCE, LINES_TOLD_MAX, REQUEST_BYTES_AT_ONCE
from gateway.provider.model import Resource
from gateway.provider.openai.batch import OpenAIBatches
from gateway.store.lines import FileLines, Line, LineKey
from gateway.tlog.merkle import leaf_hash, root_of
from tests.support.batches import chat_line, jsonl
from tests.support.house import COMMITMENT_KEY, TRAINING, Rooms, rooms_at


class NotingLines(FileLines):
    """Lines that note how many came at once, and how many bytes of them."""

    sizes: list[tuple[int, int]]

    def add(self, exchange: ExchangeId, key: LineKey, lines: Sequence[Line]) -> None:
        """Note, and keep."""
        self.sizes.append((len(lines), sum(len(line.text or b"") for line in lines)))
        super().add(exchange, key, lines)


async def nothing() -> None:
    """Take nothing in."""


async def nobodys(principal: Principal, provider: str, named: Sequence[Resource]) -> None:
    """Say that whatever is named belongs to somebody else."""
    raise NotFoundError("there is no such thing", hint="ask its owner")


def desk(rooms: Rooms) -> tuple[Judge, NotingLines]:
    """Return a judge, and where it keeps lines."""
    lines = NotingLines(rooms.content)
    lines.sizes = []
    judge = Judge(
        law=rooms.law,
        lines=lines,
        clock=rooms.clock,
        commitment_key=COMMITMENT_KEY,
        refresh=nothing,
        owned=nobodys,
    )
    return judge, lines


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    """Yield *content* in pieces."""
    for at in range(0, len(content), 100_000):
        yield content[at : at + 100_000]


async def judged(
    rooms: Rooms, content: bytes, mode: Mode = "refuse"
) -> tuple[Judged, list[Found], Asked]:
    """Return what came of judging *content*, what is kept of each line, and for what."""
    judge, lines = desk(rooms)
    asked = rooms.asked("open", TRAINING)
    pieces = lines_of(chunks(content), 0)
    told = await judge.judge(asked, rooms.provider("open"), OpenAIBatches(), pieces, mode)
    kept = [found for _, found in lines.found(asked.exchange, -1, 10_000)]
    root = root_of(map(leaf_hash, kept)).hex()
    assert (root, len(kept)) == (told.set.lines.root, told.set.lines.count)
    return told, list(map(decode_found, kept)), asked


async def test_every_line_is_found_something_of(tmp_path: Path) -> None:
    """Of each line stands what it asks, or why it can't be read, and none of its words."""
    content = b"\n".join(
        (
            json.dumps(chat_line(0, "a secret")).encode(),
            b"",
            b"no json",
            b'{"custom_id":"twice","custom_id":"once","method":"POST","url":"/v1/x","body":{}}',
            json.dumps(chat_line(0, "again")).encode(),
            json.dumps(chat_line(5) | {"body": {"model": 7}}).encode(),
            json.dumps(chat_line(6) | {"method": "DELETE", "url": "/v1/files/f-1"}).encode(),
            json.dumps(chat_line(7, "x")).encode(),
        )
    )
    async with rooms_at(tmp_path) as rooms:
        told, found, asked = await judged(rooms, content, "drop")
        _, lines = desk(rooms)
        kept = lines.texts(asked.exchange, range(9))

    assert [0, 2, 3, 4, 5, 6, 7] == [one.number for one in found]
    codes = {one.number: one.code for one in found}
    assert codes[2] == "line.malformed"
    assert codes[3] is not None
    assert codes[4] == "line.repeated"
    assert [0, 7] == [one.number for one in found if one.forwarded and one.operation == "chat"]
    assert "secret" not in repr(found)
    assert b"a secret" in kept[0]
    assert set(kept) <= {one.number for one in found if one.forwarded}
    assert told.set.lines.forwarded == sum(one.forwarded for one in found)
    assert told.told[0].startswith("line 3: ")


@pytest.mark.parametrize("mode", ["refuse", "drop"])
async def test_what_leaves_is_what_is_not_cut(tmp_path: Path, mode: Mode) -> None:
    """Lines that may not leave are cut, byte for byte; or all stay, and no text is kept."""
    lines: list[Any] = [chat_line(number) for number in range(5)]
    content = jsonl(lines[:2]) + b"broken\n" + jsonl(lines[2:])
    async with rooms_at(tmp_path) as rooms:
        told, _, asked = await judged(rooms, content, mode)
        with_texts = desk(rooms)[1].with_texts()

    at, out = 0, b""
    for start, stop in told.cut:
        out, at = out + content[at:start], stop
    assert jsonl(lines) == out + content[at:]
    assert (mode == "drop") == told.set.forwarded
    assert (5 if mode == "drop" else 0) == told.set.lines.forwarded
    assert (mode == "drop") == (asked.exchange in [one[0] for one in with_texts])


async def test_few_are_in_memory_at_once(tmp_path: Path) -> None:
    """Lines are kept in groups, small by count and by bytes."""
    long = "word " * (REQUEST_BYTES_AT_ONCE // 20)
    content = jsonl(chat_line(number, long) for number in range(12))
    content += jsonl(chat_line(number) for number in range(12, 12 + 3 * LINES_AT_ONCE))
    async with rooms_at(tmp_path) as rooms:
        judge, lines = desk(rooms)
        pieces = lines_of(chunks(content), 0)
        asked = rooms.asked("open", TRAINING)
        await judge.judge(asked, rooms.provider("open"), OpenAIBatches(), pieces, "drop")

    assert 12 + 3 * LINES_AT_ONCE == sum(count for count, _ in lines.sizes)
    assert max(count for count, _ in lines.sizes) <= LINES_AT_ONCE
    assert max(size for _, size in lines.sizes) < REQUEST_BYTES_AT_ONCE * 3 // 2


async def test_a_break_leaves_no_texts(tmp_path: Path) -> None:
    """Where the caller goes in the middle, what came is destroyed, and there is no set."""

    async def pieces() -> AsyncIterator[Piece]:
        for number in range(LINES_AT_ONCE + 3):
            yield Piece(number, 0, 0, json.dumps(chat_line(number)).encode())
        raise CallerGoneError("the caller hung up")

    async with rooms_at(tmp_path) as rooms:
        judge, lines = desk(rooms)
        asked = rooms.asked("open", TRAINING)
        with pytest.raises(CallerGoneError):
            await judge.judge(asked, rooms.provider("open"), OpenAIBatches(), pieces(), "drop")
        found = lines.found(asked.exchange, -1, 9)

        assert len(found) > 0
        assert [] == lines.with_texts()
        assert lines.handed(asked.exchange) is None


async def test_many_kinds_are_refused(tmp_path: Path) -> None:
    """A batch of more different things than can be ruled on again is refused as a whole."""
    too_many: Final = LINE_KINDS_MAX + 1

    def lines() -> Iterable[Any]:
        for number in range(too_many):
            line = chat_line(number)
            yield line | {"body": line["body"] | {"model": f"m-{number}"}}

    async with rooms_at(tmp_path) as rooms:
        with pytest.raises(BatchRefusedError, match="different things"):
            await judged(rooms, jsonl(lines()))


async def test_a_line_too_long_to_be_read_stays(tmp_path: Path) -> None:
    """A line that nobody read does not leave, and the caller is told of few of many."""

    async def pieces() -> AsyncIterator[Piece]:
        for number in range(2 * LINES_TOLD_MAX):
            yield Piece(number, number, number + 1, None)

    async with rooms_at(tmp_path) as rooms:
        judge, lines = desk(rooms)
        asked = rooms.asked("open", TRAINING)
        told = await judge.judge(
            asked, rooms.provider("open"), OpenAIBatches(), pieces(), "drop"
        )
        found = [decode_found(one) for _, one in lines.found(asked.exchange, -1, 1_000)]

    assert {"line.too_long"} == {one.code for one in found}
    assert not told.set.forwarded
    assert LINES_TOLD_MAX == len(told.told)
