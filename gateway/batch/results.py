"""Results of a batch on their way to who asked: each line becomes a receipt of its own.

Lines are sealed in groups, and a line's last byte leaves only when its receipt is durable. What
was sealed before, in another download or by another process, is not sealed again. A line that
belongs to no request that was handed in here passes as bytes that nobody can read.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.batch.model import Found, Source, decode_found
from gateway.canonical import sha256_hex
from gateway.errors import LedgerUnwellError, MalformedBodyError, ProviderUnreadableError
from gateway.exchange.allowance import Allowance
from gateway.exchange.items import Items, answered_item, asked_for_item, permitted_with
from gateway.exchange.providers import Provider
from gateway.exchange.states import Answered
from gateway.ident import ExchangeId, Sha256
from gateway.limits import (
    ITEMS_SEALED_AT_ONCE,
    LINE_BYTES_MAX,
    LINES_AT_ONCE,
    MIB,
    REQUEST_BYTES_AT_ONCE,
    RESULTS_HELD_BYTES_MAX,
)
from gateway.provider.batch import Batches, ResultLine
from gateway.provider.model import Answer, AnswerReader, ProviderCall, Unit
from gateway.receipt.model import ItemFacts, Receipt, RequestFacts
from gateway.store.lines import Line, Lines

_BYTES_AT_ONCE: Final = 1 * MIB


@dataclass(frozen=True, slots=True)
class _Tied:
    """A result, and the request of the batch that it answers."""

    content: bytes
    result: ResultLine
    line: Line
    found: Found

    @property
    def size(self) -> int:
        """How many bytes the request has."""
        return 0 if self.found.request is None else self.found.request.bytes


class Results:
    """Reads results line by line, and seals each; implements the relay's `ItemsReader`."""

    def __init__(
        self,
        *,
        call: ProviderCall,
        plain: AnswerReader,
        source: Source,
        receipt: Receipt,
        fetched: ExchangeId,
        provider: Provider,
        batches: Batches,
        lines: Lines,
        items: Items,
        on_item: Callable[[Answered], None],
        allowance: Allowance,
    ) -> None:
        self._call_fetched = call
        self._plain = plain
        self._source = source
        self._receipt = receipt
        self._fetched = fetched
        self._provider = provider
        self._batches = batches
        self._lines = lines
        self._items = items
        self._on_item = on_item
        self._allowance = allowance
        self._received_ms = _ms_of(receipt.received)
        self._buffer = bytearray()
        self._at = 0
        """How many bytes have come."""
        self._waiting: deque[tuple[int, bytes]] = deque()
        """Lines that have come, and where each ends."""
        self._waiting_bytes = 0
        self._released = 0
        self._too_long = False
        self._untied = hashlib.sha256()
        self._untied_bytes = 0
        self._answered_bits = bytearray()
        """Which requests have had a result, a bit for each."""
        self.count = 0
        """How many lines belonged to requests of the batch."""

    def feed(self, chunk: bytes) -> int:
        """Take the next bytes; return how many of all may go out."""
        begin = 0
        while (end := chunk.find(b"\n", begin)) >= 0:
            self._buffer += chunk[begin:end]
            self._at += end + 1 - begin
            begin = end + 1
            self._take()
        self._buffer += chunk[begin:]
        self._at += len(chunk) - begin
        if len(self._buffer) > LINE_BYTES_MAX:
            self._too_long = True
        if self._too_long:
            # Nobody can read it any more, so it waits for nothing.
            self._pass(bytes(self._buffer))
            self._buffer.clear()
        return self._released

    def _take(self) -> None:
        """Take the line in that has ended."""
        if self._too_long:
            self._pass(bytes(self._buffer) + b"\n")
            self._too_long = False
        else:
            self._waiting.append((self._at, bytes(self._buffer)))
            self._waiting_bytes += len(self._buffer)
        self._buffer.clear()

    def _pass(self, content: bytes) -> None:
        self._untied.update(content)
        self._untied_bytes += len(content)
        if not self._waiting:
            self._released = self._at

    async def settle(self, *, ended: bool) -> int:
        """Seal the lines that have come; return how many of all bytes so far may go out.

        Raises:
            LedgerUnwellError: they could not be written.
        """
        if ended and self._buffer:
            # The last line may lack its end, or be broken off before its last byte.
            self._take()
        while self._waiting and (
            ended
            or len(self._waiting) >= ITEMS_SEALED_AT_ONCE
            or self._waiting_bytes >= _BYTES_AT_ONCE
        ):
            await self._settle()
        return self._released

    async def _settle(self) -> None:
        group: list[tuple[int, bytes]] = []
        size = 0
        while self._waiting and len(group) < ITEMS_SEALED_AT_ONCE and size < _BYTES_AT_ONCE:
            group.append(self._waiting.popleft())
            size += len(group[-1][1])
        self._waiting_bytes -= size
        told = [(content, self._read(content)) for _, content in group]
        await self._seal(told)
        self._released = group[-1][0]

    async def _seal(self, told: Sequence[tuple[bytes, ResultLine | None]]) -> None:
        """Seal results that belong to requests of the batch; others pass as bytes."""
        asked = await self._asked_for([one for _, one in told if one is not None])
        tied: list[_Tied] = []
        for content, result in told:
            line = None if result is None else asked.get(_key_of(result))
            if result is None or line is None or not self._is_first(line.number):
                if content.strip():
                    self._pass(content)
                continue
            tied.append(_Tied(content, result, line, decode_found(line.found)))
        for some in _portions(tied):
            await self._seal_some(some)

    async def _seal_some(self, tied: Sequence[_Tied]) -> None:
        """Seal results whose requests may be in memory together."""
        numbers = [one.line.number for one in tied]
        texts = await asyncio.to_thread(self._lines.texts, self._source.input, numbers)
        answered: list[Answered] = []
        for at, one in enumerate(tied):
            answered.append(self._answered(one, texts.get(one.line.number)))
            if at % LINES_AT_ONCE == 0:
                await asyncio.sleep(0)
        self.count += len(answered)
        sealed = list(await self._items.seal(answered))
        for outcome in sealed:
            self._on_item(outcome)
        kinds = {one.line.number: one.line.kind or 0 for one in tied}
        await self._settle_limits(sealed, kinds)

    async def _settle_limits(
        self, sealed: Sequence[Answered], kinds: Mapping[int, int]
    ) -> None:
        """Replace what was held for those that are *sealed* now by what they came to."""
        reserved = self._source.begun.reserved
        if reserved is None or not sealed:
            return
        lines = []
        for one in sealed:
            asked = one.permitted.asked
            if asked.item is not None:
                kind = self._source.set.kinds[kinds[asked.item.number]]
                lines.append((asked.call, kind.before, one))
        # Where it can't be counted now, what was held stays.
        with contextlib.suppress(LedgerUnwellError):
            await self._allowance.settle_lines(reserved, lines)

    def _is_first(self, number: int) -> bool:
        """Tell whether this is the first result for a request; a second one answers nothing."""
        byte, bit = number >> 3, 1 << (number & 7)
        if byte >= len(self._answered_bits):
            self._answered_bits.extend(bytes(byte + 1 - len(self._answered_bits)))
        is_first = not self._answered_bits[byte] & bit
        self._answered_bits[byte] |= bit
        return is_first

    def finish(self) -> Answer:
        """Return what is left for the receipt of the exchange that fetched them."""
        units: tuple[Unit, ...] = ()
        if self._untied_bytes:
            units = (
                Unit(
                    kind="other",
                    index=0,
                    bytes=self._untied_bytes,
                    sha256=Sha256(self._untied.hexdigest()),
                ),
            )
        return Answer(readable=False, whole=True, units=units)

    # -- one line -------------------------------------------------------------------------

    def _read(self, content: bytes) -> ResultLine | None:
        return self._batches.read_result(content.strip()) if content.strip() else None

    async def _asked_for(self, results: Sequence[ResultLine]) -> dict[str | int, Line]:
        """Return the requests that *results* answer, by name or place."""
        return await asyncio.to_thread(self._find, results)

    def _find(self, results: Sequence[ResultLine]) -> dict[str | int, Line]:
        names = {one.custom_id for one in results if one.custom_id is not None}
        numbers = {one.number for one in results if one.custom_id is None}
        found: dict[str | int, Line] = {}
        if names:
            found.update(self._lines.named(self._source.input, sorted(names)))
        if numbers:
            wanted = [number for number in numbers if number is not None]
            for line in self._lines.numbered(self._source.input, wanted):
                found[line.number] = line
        kinds = len(self._source.begun.rulings)
        return {
            key: line
            for key, line in found.items()
            if line.kind is not None and line.kind < kinds
        }

    def _answered(self, tied: _Tied, text: bytes | None) -> Answered:
        """Return the outcome of one line; *text* is its request, where that was kept."""
        source, provider = self._source, self._provider
        result, line, found = tied.result, tied.line, tied.found
        call = self._call(line, text)
        item = ItemFacts(
            of=source.of,
            number=line.number,
            custom_id=found.custom_id,
            input=None if source.input == source.of else source.input,
            fetched=None if self._fetched == source.of else self._fetched,
        )
        asked = asked_for_item(self._receipt, item, call, text, self._received_ms)
        if text is None:
            asked = msgspec.structs.replace(
                asked, request=found.request or RequestFacts(bytes=0)
            )
        if result.body is None:
            answer = Answer(readable=True, whole=True, error=result.error)
        else:
            reader = provider.dialect.answer_reader(
                call, result.status or 200, "application/json"
            )
            reader.feed(result.body)
            answer = reader.finish()
        return answered_item(
            permitted_with(self._receipt, asked, source.begun.rulings[line.kind or 0]),
            answer,
            status=result.status,
            sha256=sha256_hex(tied.content),
            size=len(tied.content),
            request_id=result.request_id,
            ended="provider-failed" if result.body is None else "complete",
        )

    def _call(self, line: Line, text: bytes | None) -> ProviderCall:
        kind = self._source.set.kinds[line.kind or 0]
        provider = self._provider
        call = kind.call(provider.id, provider.dialect, self._source.begun.asked_at)
        if text is not None and call.found is not None:
            try:
                read = provider.dialect.read_request(
                    provider.id, call.found, "application/json", text
                )
            except MalformedBodyError:
                return call
            if read.operation == call.operation:
                return read
        return call


class Document(Results):
    """Results that stand in one document, which is held until its end."""

    def feed(self, chunk: bytes) -> int:
        """Take the next bytes; none may go before all have come."""
        self._plain.feed(chunk)
        self._buffer += chunk
        self._at += len(chunk)
        if self._at > RESULTS_HELD_BYTES_MAX:
            raise ProviderUnreadableError("the results of a batch are too large to be held")
        return 0

    async def settle(self, *, ended: bool) -> int:
        """Seal every result that the document holds, once it is here.

        Raises:
            LedgerUnwellError: they could not be written.
        """
        if not ended:
            return 0
        held = self._batches.answers_in(self._call_fetched, bytes(self._buffer)) or []
        self._buffer.clear()
        places = await asyncio.to_thread(self._places)
        for at in range(0, len(held), ITEMS_SEALED_AT_ONCE):
            some = held[at : at + ITEMS_SEALED_AT_ONCE]
            told: list[tuple[bytes, ResultLine | None]] = []
            for place, content in enumerate(some, at):
                result = self._batches.read_result(content)
                if result is not None:
                    number = places[place] if place < len(places) else None
                    result = msgspec.structs.replace(result, custom_id=None, number=number)
                told.append((content, result))
            await self._seal(told)
        return self._at

    def finish(self) -> Answer:
        """Return what the document says beside the results."""
        told = self._plain.finish()
        return msgspec.structs.replace(told, choices=(), units=super().finish().units)

    def _places(self) -> list[int]:
        """Return the numbers of the requests that left, in their order."""
        return self._lines.forwarded(self._source.input)


def _portions(tied: Iterable[_Tied]) -> Iterator[list[_Tied]]:
    """Yield *tied* in order, in portions whose requests may be in memory together."""
    some: list[_Tied] = []
    size = 0
    for one in tied:
        if some and size + one.size > REQUEST_BYTES_AT_ONCE:
            yield some
            some, size = [], 0
        some.append(one)
        size += one.size
    if some:
        yield some


def _key_of(result: ResultLine) -> str | int:
    if result.custom_id is not None:
        return result.custom_id
    return -1 if result.number is None else result.number


def _ms_of(at: str) -> int:
    return int(dt.datetime.fromisoformat(at).timestamp() * 1000)
