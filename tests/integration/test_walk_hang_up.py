"""Somebody hangs up: the caller at any moment, or the provider; it is all on record."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from gateway.errors import BodyTooLargeError, CallerError, CallerGoneError
from gateway.exchange.body import StreamedBody
from gateway.exchange.states import Answered, Asked
from gateway.ident import ExchangeId
from gateway.limits import ABANDONED_BYTES_MAX
from gateway.receipt.model import Receipt
from tests.support.house import (
    COMMITMENT_KEY,
    STREAM_END,
    STREAM_HEAD,
    TRAINING,
    Act,
    Guest,
    RawProvider,
    Rooms,
    Step,
    completion,
    events,
    framed,
    rooms_at,
    sized,
    streamed,
    subject_of_body,
)


@pytest.fixture
async def provider() -> AsyncIterator[RawProvider]:
    """Return a provider on a plain socket."""
    async with RawProvider().listening() as listening:
        yield listening


@pytest.fixture
async def rooms(tmp_path: Path, provider: RawProvider) -> AsyncIterator[Rooms]:
    """Return the rooms before that provider."""
    async with rooms_at(tmp_path, provider.url) as opened:
        yield opened


@pytest.fixture
async def draining(tmp_path: Path, provider: RawProvider) -> AsyncIterator[Rooms]:
    """Return rooms that read an answer to its end for a caller who has hung up."""
    async with rooms_at(tmp_path / "draining", provider.url, drain=True) as opened:
        yield opened


async def receipt_of(rooms: Rooms, asked: Asked, guest: Guest) -> tuple[Answered, Receipt]:
    """Send *asked* through; return how it came out and its receipt, which fits."""
    outcome, sealed = await rooms.through(asked, guest)
    receipt = rooms.statements()[sealed.index]
    assert isinstance(outcome, Answered)
    assert isinstance(receipt, Receipt)
    assert (outcome.ended, outcome.error) == (receipt.ended, receipt.error)
    given = guest.got if guest.gone else guest.got + outcome.held
    if receipt.ended == "cut-short-by-caller":
        given = guest.got
    assert hashlib.sha256(given).hexdigest() == subject_of_body(rooms.leaves()[sealed.index])
    assert len(given) == receipt.response_bytes
    rooms.check()
    return outcome, receipt


async def test_a_caller_that_left_before_it_was_asked(
    rooms: Rooms, provider: RawProvider
) -> None:
    """A caller that is gone when its opening is durable has nobody asked on its behalf."""
    guest = Guest()
    guest.hang_up()
    _, receipt = await receipt_of(rooms, rooms.asked(), guest)

    assert "cut-short-by-caller" == receipt.ended
    assert [] == provider.received


async def test_a_caller_that_leaves_before_the_head(
    rooms: Rooms, provider: RawProvider
) -> None:
    """A caller that gives up waiting has its provider cut off, and a receipt."""
    provider.steps = [asyncio.Event()]
    guest = Guest()
    provider.on_request = lambda _: guest.hang_up()
    _, receipt = await receipt_of(rooms, rooms.asked(), guest)
    await provider.hung_up.wait()

    assert ("cut-short-by-caller", None) == (receipt.ended, receipt.provider.status)
    assert guest.status is None


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_a_caller_that_leaves_in_mid_stream(
    after: int, rooms: Rooms, provider: RawProvider
) -> None:
    """A caller that goes between two events has the digest of what it was sent on record."""
    told = events(*"abcdef")
    provider.steps = [STREAM_HEAD, *map(framed, told[:5]), asyncio.Event()]
    # How many chunks the events come in is the system's affair.
    size = len(b"".join(told[:after]))
    guest = Guest(lambda self: self.hang_up() if len(self.got) >= size else None)
    _, receipt = await receipt_of(rooms, rooms.asked(stream=True), guest)
    await provider.hung_up.wait()

    assert "cut-short-by-caller" == receipt.ended
    assert b"".join(told[:4]).startswith(guest.got)
    assert guest.gone


async def test_a_caller_that_leaves_while_nothing_comes(
    rooms: Rooms, provider: RawProvider
) -> None:
    """A caller that goes while its stream stands still is noticed at once."""
    provider.steps = [STREAM_HEAD, *map(framed, events("a", "b")[:2]), asyncio.Event()]
    guest = Guest()
    walking = asyncio.ensure_future(receipt_of(rooms, rooms.asked(stream=True), guest))
    await guest.written.wait()
    guest.hang_up()
    _, receipt = await walking
    await provider.hung_up.wait()

    assert "cut-short-by-caller" == receipt.ended


async def test_a_caller_that_leaves_with_its_whole_answer(
    rooms: Rooms, provider: RawProvider
) -> None:
    """A caller that goes after the last byte changes nothing in its receipt."""
    provider.steps = [sized(completion("good day"))]
    guest = Guest()
    _, receipt = await receipt_of(rooms, rooms.asked(), guest)
    guest.hang_up()

    assert "complete" == receipt.ended
    assert guest.when_gone is None


async def test_a_teaching_answer_that_was_not_taken_is_not_learned_from(
    rooms: Rooms, provider: RawProvider
) -> None:
    """Of an answer that was cut short no text is kept, whoever cut it."""
    provider.steps = [STREAM_HEAD, *map(framed, events("a", "b")[:2]), asyncio.Event()]
    guest = Guest(lambda self: self.hang_up() if self.chunks else None)
    asked = rooms.asked(use=TRAINING, stream=True)
    _, receipt = await receipt_of(rooms, asked, guest)

    assert rooms.content.get(asked.exchange) is None
    assert all(unit.row is None for unit in receipt.outputs)


async def test_a_drained_answer_is_read_to_its_end(
    draining: Rooms, provider: RawProvider
) -> None:
    """Where the settings say drain, the provider's usage still comes onto the receipt."""
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}}\n\n'
    told = [*events("a", "b")[:-1], usage, events()[-1]]
    gone = asyncio.Event()
    begun, rest = map(framed, told[:2]), map(framed, told[2:])
    provider.steps = [STREAM_HEAD, *begun, gone, *rest, STREAM_END]

    def leave(guest: Guest) -> None:
        if guest.chunks:
            guest.hang_up()
            gone.set()

    guest = Guest(leave)
    _, receipt = await receipt_of(draining, draining.asked(stream=True), guest)

    assert ("cut-short-by-caller", told[0]) == (receipt.ended, guest.got)
    assert receipt.usage is not None
    assert 9 == receipt.usage.output_tokens


async def test_a_drained_caller_that_left_before_the_head(
    draining: Rooms, provider: RawProvider
) -> None:
    """A drained exchange asks for a caller that has gone, and gives nobody the answer."""
    provider.steps = [sized(completion("good day"))]
    guest = Guest()
    guest.hang_up()
    _, receipt = await receipt_of(draining, draining.asked(), guest)

    assert ("cut-short-by-caller", 200) == (receipt.ended, receipt.provider.status)
    assert (b"", None) == (guest.got, guest.status)


async def test_draining_has_a_bound(draining: Rooms, provider: RawProvider) -> None:
    """An endless answer is not read for nobody beyond the bound."""
    piece = framed(b": " + b"x" * 1_048_574 + b"\n\n")
    count = ABANDONED_BYTES_MAX // 1_048_576 + 8
    provider.steps = [STREAM_HEAD, *[piece] * count, asyncio.Event()]
    guest = Guest()
    guest.hang_up()
    _, receipt = await receipt_of(draining, draining.asked(stream=True), guest)
    await provider.hung_up.wait()

    assert "cut-short-by-caller" == receipt.ended


CUT: dict[str, tuple[Sequence[Step], bytes]] = {
    "before the head": ([b"HTTP/1.1 200 OK\r\n", Act.CLOSE], b""),
    "at once": ([Act.ABORT], b""),
    "no HTTP": ([b"good day\r\n\r\n", Act.CLOSE], b""),
    "mid body": (
        [sized(completion("good day"))[:-20], Act.CLOSE],
        completion("good day")[:-20],
    ),
    "mid body, reset": ([sized(completion("good day"))[:-20], Act.ABORT], b""),
    "mid stream": ([*streamed("a", "b")[:3], Act.CLOSE], b"".join(events("a", "b")[:2])),
    "mid stream, no end": ([*streamed("a", "b")[:-1], Act.CLOSE], b"".join(events("a", "b"))),
}


@pytest.mark.parametrize(("steps", "came"), CUT.values(), ids=CUT)
async def test_a_provider_that_breaks_off(
    steps: Sequence[Step], came: bytes, rooms: Rooms, provider: RawProvider
) -> None:
    """An answer that its provider broke off says so, and is never taken for a whole one."""
    provider.steps = steps
    guest = Guest()
    asked = rooms.asked(
        stream=b"event-stream" in b"".join(s for s in steps if type(s) is bytes)
    )
    outcome, receipt = await receipt_of(rooms, asked, guest)

    assert ("cut-short-by-provider", "provider.broke_off") == (receipt.ended, receipt.error)
    assert came in {b"", guest.got + outcome.held}


async def test_a_stream_that_ends_without_its_own_end_was_cut_short(
    rooms: Rooms, provider: RawProvider
) -> None:
    """Where HTTP ends well but the format's end never came, the receipt knows."""
    provider.steps = streamed("a", "b", end=False)
    outcome, receipt = await receipt_of(rooms, rooms.asked(stream=True), Guest())

    assert ("cut-short-by-provider", None) == (receipt.ended, receipt.error)
    assert outcome.head_sent


async def test_what_came_of_a_broken_stream_is_counted(
    tmp_path: Path, provider: RawProvider
) -> None:
    """Where the provider's own count never came, tiktoken's is named as such."""

    class Letters:
        def encode_ordinary(self, text: str) -> Sequence[int]:
            return [ord(letter) for letter in text]

    provider.steps = [*streamed("ab", "cde")[:4], Act.CLOSE]
    async with rooms_at(tmp_path, provider.url, encoding=Letters()) as rooms:
        _, receipt = await receipt_of(rooms, rooms.asked(stream=True), Guest())

    assert receipt.usage is not None
    assert (5, "tiktoken") == (receipt.usage.output_tokens, receipt.usage.counted_by)


async def test_a_truncated_gzip_body_is_passed_on_unread(
    rooms: Rooms, provider: RawProvider
) -> None:
    """An encoded body that does not decode to its end is digested and called unreadable."""
    packed = gzip.compress(completion("good day"))[:-12]
    head = sized(packed).replace(b"x-request-id: req-1", b"content-encoding: gzip")
    provider.steps = [head]
    guest = Guest()
    outcome, receipt = await receipt_of(rooms, rooms.asked(), guest)

    assert (packed, False) == (guest.got + outcome.held, receipt.readable)


@pytest.mark.parametrize("error", [CallerGoneError, BodyTooLargeError])
async def test_a_body_that_its_caller_breaks_off(
    error: type[CallerError], rooms: Rooms, provider: RawProvider
) -> None:
    """A caller that goes while it uploads, or sends too much, leaves a receipt."""

    async def upload() -> AsyncIterator[bytes]:
        yield b"x" * 100
        raise error("no more of this body")

    body = StreamedBody(upload(), 1000, ExchangeId("x-1"), COMMITMENT_KEY)
    asked = rooms.asked(path="/v1/files", body=body)
    outcome, sealed = await rooms.through(asked, Guest())
    receipt = rooms.statements()[sealed.index]

    assert isinstance(outcome, Answered)
    assert isinstance(receipt, Receipt)
    assert ("cut-short-by-caller", 100) == (receipt.ended, receipt.request.bytes)
    assert error.code == receipt.error
    assert [] == provider.received
    rooms.check()
