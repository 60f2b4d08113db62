"""The order of the rooms: nothing is dialled before its opening, nothing ends unsealed."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from gateway.exchange.states import Answered, Forbidden, Held
from gateway.intent.model import IntendedUse
from gateway.receipt.model import Opening, Receipt, Refusal
from gateway.receipt.statement import read_leaf
from tests.support.dataset import a_library, a_policy
from tests.support.house import (
    STREAM_END,
    STREAM_HEAD,
    TRAINING,
    Act,
    Elsewhere,
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
from tests.support.store import LedgerUnderTest

HOLDING = ("held", "training")


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


ANSWERS: dict[str, Sequence[Step]] = {
    "whole": [sized(completion("good day"))],
    "stream": streamed("good", " day"),
    "opaque": [sized(b"\x00\x01", "application/octet-stream")],
    "error": [sized(b'{"error": {"type": "overloaded"}}', status=529)],
    "lost": [Act.ABORT],
}


@pytest.mark.parametrize("steps", ANSWERS.values(), ids=ANSWERS)
async def test_the_opening_is_durable_before_the_provider_is_asked(
    steps: Sequence[Step], rooms: Rooms, provider: RawProvider
) -> None:
    """When a request reaches its provider, its opening can be read from the disk."""
    seen: list[list[str]] = []
    provider.on_request = lambda _: seen.append(rooms.openings())
    provider.steps = steps
    asked = rooms.asked(stream=steps is ANSWERS["stream"])
    await rooms.through(asked)

    assert [[asked.exchange]] == seen


@pytest.mark.parametrize("effect", ["held", "closed"])
async def test_nobody_is_dialled_for_a_use_that_is_not_permitted(
    effect: str, rooms: Rooms, provider: RawProvider
) -> None:
    """A held or forbidden use leaves a refusal, no opening, and no connection."""
    outcome, sealed = await rooms.through(rooms.asked(effect, TRAINING))
    (refusal,) = rooms.statements()

    assert isinstance(outcome, Held if effect == "held" else Forbidden)
    assert isinstance(refusal, Refusal)
    assert (0, refusal.exchange, 0) == (sealed.index, sealed.exchange, provider.dialled)
    assert refusal.opening is None


@pytest.mark.parametrize("steps", ANSWERS.values(), ids=ANSWERS)
async def test_the_receipt_is_durable_before_the_last_bytes_are_free(
    steps: Sequence[Step], rooms: Rooms, provider: RawProvider
) -> None:
    """While the caller is written to there is no receipt; what is held back waits for it."""
    provider.steps = steps
    closed: list[int] = []
    guest = Guest(lambda _: closed.append(len(rooms.closings())))
    asked = rooms.asked(stream=steps is ANSWERS["stream"])
    outcome, sealed = await rooms.through(asked, guest)
    leaf = rooms.leaves()[sealed.index]

    assert isinstance(outcome, Answered)
    assert {0} >= set(closed)
    assert hashlib.sha256(guest.got + outcome.held).hexdigest() == subject_of_body(leaf)
    assert bool(outcome.held) or steps is ANSWERS["lost"]


async def test_a_stream_is_one_event_of_content_behind(
    rooms: Rooms, provider: RawProvider
) -> None:
    """What waits of a stream is its newest event with content and what follows, no more."""
    told = events("one", "two", "three")
    provider.steps = streamed("one", "two", "three")
    guest = Guest()
    outcome, _ = await rooms.through(rooms.asked(stream=True), guest)

    assert isinstance(outcome, Answered)
    assert b"".join(told[:3]) == guest.got
    assert b"".join(told[3:]) == outcome.held


async def test_a_body_that_is_read_waits_whole(rooms: Rooms, provider: RawProvider) -> None:
    """Of an answer in one piece not even the head goes out before the receipt."""
    body = completion("good day")
    provider.steps = [STREAM_HEAD.replace(b"text/event-stream", b"application/json")]
    provider.steps += [framed(body[:10]), framed(body[10:]), STREAM_END]
    guest = Guest()
    outcome, _ = await rooms.through(rooms.asked(), guest)

    assert isinstance(outcome, Answered)
    assert guest.status is None
    assert body == outcome.held


async def test_the_terms_allow_it_and_everything_is_on_the_receipt(
    rooms: Rooms, provider: RawProvider
) -> None:
    """A permitted use leaves an opening and a receipt that agree with each other."""
    provider.steps = [sized(completion("good day"))]
    asked = rooms.asked(use=TRAINING)
    _, sealed = await rooms.through(asked)
    opening, receipt = rooms.statements()

    assert isinstance(opening, Opening)
    assert isinstance(receipt, Receipt)
    assert (0, 1) == (receipt.opening, sealed.index)
    assert opening.exchange == receipt.exchange == asked.exchange
    assert opening.declaration == receipt.declared.declaration == asked.declaration.id
    assert "permit" == receipt.ruling.effect


async def test_a_yes_that_was_taken_back_elsewhere_is_not_acted_on(
    rooms: Rooms, provider: RawProvider
) -> None:
    """A withdrawal at a lower leaf than the opening is honoured: nothing is dialled."""
    declaration = Elsewhere(rooms).declare()
    await rooms.desk.refresh()
    asked = rooms.asked(use=TRAINING)
    Elsewhere(rooms).withdraw(declaration)
    outcome, sealed = await rooms.through(asked)
    refusal = rooms.statements()[sealed.index]

    assert isinstance(outcome, Forbidden)
    assert isinstance(refusal, Refusal)
    assert ("declaration-withdrawn", 2) == (refusal.ruling.reasons[0].clause, refusal.opening)
    assert 0 == provider.dialled
    rooms.check()


@pytest.mark.parametrize("cited", [True, False])
async def test_a_no_elsewhere_ends_an_earlier_yes(
    cited: bool,  # noqa: FBT001 - pytest passes it by name
    rooms: Rooms,
    provider: RawProvider,
) -> None:
    """A verdict of no between ruling and opening forbids what was just permitted."""
    provider.steps = [sized(completion("good day"))]
    legal = Elsewhere(rooms)
    declaration = legal.declare()
    legal.rule(declaration, HOLDING)
    first, _ = await rooms.through(rooms.asked("held", TRAINING))
    asked = rooms.asked("held", TRAINING if cited else None)
    legal.rule(declaration, approved=False)
    second, _ = await rooms.through(asked)

    assert isinstance(first, Answered)
    assert (Forbidden if cited else Answered) is type(second)
    assert (1 if cited else 2) == len(provider.received)
    rooms.check()


async def test_a_held_use_passes_once_legal_says_yes_elsewhere(
    rooms: Rooms, provider: RawProvider
) -> None:
    """An approval by another process lets the very next request pass, and is named by it."""
    provider.steps = [sized(completion("good day"))]
    legal = Elsewhere(rooms)
    declaration = legal.declare()
    before, _ = await rooms.through(rooms.asked("held", TRAINING))
    verdict = legal.rule(declaration, HOLDING)
    after, sealed = await rooms.through(rooms.asked("held", TRAINING))
    receipt = rooms.statements()[sealed.index]

    assert (Held, Answered) == (type(before), type(after))
    assert isinstance(receipt, Receipt)
    assert verdict == receipt.ruling.verdict
    assert "permit" == receipt.ruling.effect


async def test_a_yes_to_something_else_does_not_let_it_pass(
    rooms: Rooms, provider: RawProvider
) -> None:
    """A verdict that names another clause, or another declaration, answers nothing here."""
    legal = Elsewhere(rooms)
    declaration = legal.declare()
    legal.rule(declaration, ("held", "another"), ("open", "training"))
    other = legal.declare(IntendedUse(purpose="train.sft", student="another"))
    legal.rule(other, HOLDING)
    outcome, _ = await rooms.through(rooms.asked("held", TRAINING))

    assert isinstance(outcome, Held)
    assert 0 == provider.dialled


async def test_the_day_a_declaration_ends_is_its_last(
    rooms: Rooms, provider: RawProvider
) -> None:
    """A declaration is good on the day it names and not on the next, in a running gateway."""
    provider.steps = [sized(completion("good day"))]
    today = dt.datetime.fromtimestamp(rooms.clock.now_ms() / 1000, dt.UTC).date()
    Elsewhere(rooms).declare(expires=today.isoformat())
    await rooms.desk.refresh()
    first, _ = await rooms.through(rooms.asked(use=TRAINING))
    rooms.clock.move_ms(86_400_000)
    second, _ = await rooms.through(rooms.asked(use=TRAINING))

    assert (Answered, Forbidden) == (type(first), type(second))


async def test_what_was_written_verifies_as_a_whole(
    rooms: Rooms, provider: RawProvider, tmp_path: Path
) -> None:
    """After answers, refusals and breaks the ledger has no findings."""
    legal = Elsewhere(rooms)
    for steps in ANSWERS.values():
        provider.steps = steps
        await rooms.through(rooms.asked(stream=steps is ANSWERS["stream"]))
        await rooms.through(rooms.asked("closed", TRAINING))
        legal.declare(IntendedUse(purpose="train.sft", student=f"s{len(rooms.leaves())}"))
    rooms.sequencer.checkpoint_now()
    ledger = LedgerUnderTest.__new__(LedgerUnderTest)
    ledger.path, ledger.checkpoint_file = tmp_path / "ledger.db", tmp_path / "checkpoint"

    ledger.check()
    rooms.check()


async def test_what_goes_upstream_is_what_the_caller_sent(
    rooms: Rooms, provider: RawProvider
) -> None:
    """The provider receives the caller's body byte for byte."""
    provider.steps = [sized(completion("good day"))]
    body = json.dumps(rooms.asked().call.body, indent=3).encode() + b"\n\n"
    await rooms.through(rooms.asked(body=body))

    assert provider.received[0].endswith(b"\r\n\r\n" + body)


async def test_every_leaf_reads_back(rooms: Rooms, provider: RawProvider) -> None:
    """Whatever happens, only statements come into the ledger."""
    for steps in ANSWERS.values():
        provider.steps = steps
        await rooms.through(rooms.asked(stream=True))

    assert 2 * len(ANSWERS) == len([read_leaf(leaf) for leaf in rooms.leaves()])


async def test_a_library_that_came_before_an_opening_rules_on_it(
    rooms: Rooms, provider: RawProvider
) -> None:
    """A permit of the old policies dials nobody once new ones are in force before it."""
    asked = rooms.asked(use=TRAINING)
    ruled = rooms.law.rule(asked, rooms.providers.named("open"))
    rooms.law.adopt(a_library(open=a_policy("open", "forbid")))
    outcome = await rooms.walk.open(asked, ruled)

    assert "permit" == ruled.ruling.effect
    assert isinstance(outcome, Forbidden)
    assert outcome.opening is not None
    assert 0 == provider.dialled
