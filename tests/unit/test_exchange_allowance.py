"""What is held before a provider is asked, and what stays counted afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.budget.model import Limit, Rule
from gateway.budget.prices import Price, Prices
from gateway.clock import FrozenClock
from gateway.errors import LimitReachedError, PriceMissingError
from gateway.exchange.allowance import Allowance, Reserved
from gateway.exchange.body import StreamedBody
from gateway.exchange.states import Answered, Asked, Forbidden, Permitted, Principal
from gateway.ident import DeclarationId, new_exchange_id
from gateway.intent.model import INFERENCE, Declaration
from gateway.provider.model import Answer, Choice, Operation, ProviderCall, Unit, Usage
from gateway.provider.tokens import TokenCounter
from gateway.receipt.model import Ruling
from gateway.store.counters import FileCounters

M = 1_000_000
NOW_MS = 1_795_000_000_000
MANY = 10**9
PRICES = Prices(
    "EUR",
    [
        Price(provider="p", model="cheap*", input=M, output=2 * M, output_max=100),
        Price(provider="p", model="dear", input=10 * M, output=20 * M, output_max=200),
        Price(provider="p", model="pictures", image=40),
        Price(provider="p", model="ear", second=5),
    ],
)
RULING = Ruling(
    effect="permit",
    reasons=(),
    policies=(),
    obligations=(),
    day="2026-11-18",
    library="0" * 64,  # type: ignore[arg-type]
    agreements=(),
)


class Words:
    """Counts words as tokens."""

    def encode_ordinary(self, text: str) -> list[int]:
        """Return a number a word."""
        return [0] * len(text.split())


@pytest.fixture
def counters(tmp_path: Path) -> Iterator[FileCounters]:
    """Return counters in a file."""
    with contextlib.closing(FileCounters(tmp_path / "counters", FrozenClock(NOW_MS))) as one:
        yield one


def rule(*limits: Limit, names: str = "*") -> Rule:
    """Return limits of projects."""
    return Rule(scope="project", names=names, limits=limits)


ALL = rule(
    Limit("requests", "day", MANY), Limit("tokens", "day", MANY), Limit("money", "day", MANY)
)


def allowance(
    counters: FileCounters, *rules: Rule, prices: Prices | None = PRICES, words: bool = False
) -> Allowance:
    """Return an allowance under *rules*."""
    tokens = TokenCounter(Words() if words else None)
    return Allowance(rules or (ALL,), prices, lambda: counters, tokens)


def asked(
    model: str | None = "cheap", body: bytes | StreamedBody = b"x" * 50, **more: Any
) -> Asked:
    """Return a chat request."""
    known: dict[str, Any] = {
        "provider": "p",
        "operation": Operation.CHAT,
        "model": model,
        "body": {},
    }
    return Asked(
        exchange=new_exchange_id(NOW_MS),
        received_ms=NOW_MS,
        principal=Principal(name="ada", project="search"),
        declaration=Declaration(
            id=DeclarationId("use-00000000000000000000"), project="search", use=INFERENCE
        ),
        declared=False,
        call=ProviderCall(**known | more),
        endpoint="POST http://p/v1",
        body=body,
    )


def answered(
    one: Asked, status: int | None = 200, error: str | None = None, **answer: Any
) -> Answered:
    """Return how *one* was answered."""
    return Answered(
        permitted=Permitted(asked=one, ruling=RULING, headers=(), opening=0),
        answer=Answer(**{"readable": True, "whole": True} | answer),
        status=status,
        request_id=None,
        response_sha256="",
        response_bytes=0,
        ended="complete",
        error=error,
        reason=b"OK",
        headers=(),
        sized=False,
        held=b"",
        head_sent=False,
    )


def used(counters: FileCounters) -> dict[str, int]:
    """Return what is counted of each measure."""
    rows = {one.counter.rpartition(" ")[2]: one.used for one in counters.counted()}
    return {what.partition("/")[0]: count for what, count in rows.items()}


async def test_who_has_no_limit_touches_nothing(counters: FileCounters) -> None:
    """Without rules, and with rules for others, nothing is opened and nothing held."""

    def opened() -> FileCounters:
        raise AssertionError

    for rules in ((), (rule(Limit("requests", "day", 0), names="else"),)):
        free = Allowance(rules, None, opened, TokenCounter(None))

        assert await free.reserve(asked()) is None
        await free.settle(None, answered(asked()))
        await free.settle_answer(None, Answer(readable=True, whole=True))
        await free.give_back(None)
        free.close()


async def test_what_a_request_may_come_to_is_held_and_then_replaced(
    counters: FileCounters,
) -> None:
    """The body's bytes and the longest answer are held; the provider's count replaces them."""
    one = allowance(counters)
    reserved = await one.reserve(asked())

    assert {"requests": 1, "tokens": 150, "money": 250} == used(counters)
    usage = Usage(input_tokens=10, output_tokens=5)
    await one.settle(reserved, answered(asked(), usage=usage, model="cheap-2026"))
    assert {"requests": 1, "tokens": 15, "money": 20} == used(counters)


async def test_the_model_that_answers_is_priced(counters: FileCounters) -> None:
    """A fallback is held for at its price, and counted at that of the model that answered."""
    one = allowance(counters)
    reserved = await one.reserve(asked(fallbacks=("dear",)))
    assert 10 * 50 + 20 * 200 == used(counters)["money"]
    usage = Usage(input_tokens=10, output_tokens=5)
    await one.settle(reserved, answered(asked(), usage=usage, model="dear"))
    assert 200 == used(counters)["money"]
    again = await one.reserve(asked())
    await one.settle(again, answered(asked(), usage=usage, model="nobody knows"))
    assert 220 == used(counters)["money"]


@pytest.mark.parametrize(
    "more",
    [
        {"model": "strange"},
        {"model": None},
        {"fallbacks": ("strange",)},
        {"fallbacks": (None,)},
    ],
    ids=["model", "nameless", "fallback", "any"],
)
async def test_what_has_no_price_is_refused_under_a_limit_in_money(
    more: dict[str, Any], counters: FileCounters
) -> None:
    """The refusal says which entry to add; nothing is held. Without such a limit it passes."""
    with pytest.raises(PriceMissingError) as caught:
        await allowance(counters).reserve(asked(**more))

    assert "{provider: p, model: " in caught.value.hint
    assert "project search has a limit in money" in caught.value.message
    assert {} == used(counters)
    tokens = allowance(counters, rule(Limit("tokens", "day", MANY)), prices=None)
    assert await tokens.reserve(asked(**more)) is not None
    listing = asked(**more | {"operation": Operation.LISTING})
    assert await allowance(counters).reserve(listing) is not None


async def test_a_limit_that_is_reached_says_which_and_when(counters: FileCounters) -> None:
    """The message names limit, what is left and what was asked; the error, when it frees."""
    one = allowance(counters, rule(Limit("tokens", "day", 200)))
    await one.reserve(asked())
    with pytest.raises(LimitReachedError) as caught:
        await one.reserve(asked())

    assert (
        "the limit of 200 tokens a day for project search is reached: 50 are left today (UTC),"
        " and the request may come to 150" == caught.value.message
    )
    assert ("project", "tokens") == (caught.value.scope, caught.value.measure)
    assert caught.value.frees_s is not None
    assert 0 < caught.value.frees_s <= 86_400
    with pytest.raises(LimitReachedError) as alone:
        await one.reserve(asked(body=b"x" * 500))
    assert alone.value.frees_s is None
    assert "shorter" in alone.value.hint


@pytest.mark.parametrize(
    ("outcome", "left"),
    [
        (
            lambda one: Forbidden(asked=one, ruling=RULING),
            {"requests": 0, "tokens": 0, "money": 0},
        ),
        (
            lambda one: answered(one, None, "provider.unreachable"),
            {"requests": 1, "tokens": 0, "money": 0},
        ),
        (
            lambda one: answered(one, 500, "api_error"),
            {"requests": 1, "tokens": 0, "money": 0},
        ),
        (
            lambda one: answered(one, 400, usage=Usage(input_tokens=7, output_tokens=0)),
            {"requests": 1, "tokens": 7, "money": 7},
        ),
        (
            lambda one: answered(one, None, "provider.timeout"),
            {"requests": 1, "tokens": 150, "money": 250},
        ),
        (answered, {"requests": 1, "tokens": 150, "money": 250}),
        (
            lambda one: answered(one, pending=True, usage=Usage(input_tokens=1)),
            {"requests": 1, "tokens": 150, "money": 250},
        ),
        (
            lambda one: answered(one, usage=Usage(output_tokens=5)),
            {"requests": 1, "tokens": 55, "money": 60},
        ),
    ],
    ids=[
        "forbidden",
        "unreachable",
        "error",
        "error-with-usage",
        "timeout",
        "uncounted",
        "pending",
        "half",
    ],
)
async def test_how_it_ended_decides_what_stays(
    outcome: Any, left: dict[str, int], counters: FileCounters
) -> None:
    """What was never asked uses nothing; what nobody counted stays as it was held."""
    one = allowance(counters)
    reserved = await one.reserve(asked())
    await one.settle(reserved, outcome(asked()))

    assert left == used(counters)


async def test_words_are_counted_where_the_provider_did_not(counters: FileCounters) -> None:
    """With a vocabulary at hand both the request and an answer without a count are counted."""
    one = allowance(counters, words=True)
    reserved = await one.reserve(asked(body=b"one two three"))
    assert 103 == used(counters)["tokens"]
    choices = (Choice(index=0, text="four five", reasoning=("six",)),)
    await one.settle(reserved, answered(asked(), choices=choices))
    assert {"requests": 1, "tokens": 6, "money": 9} == used(counters)
    image = Unit(kind="image", index=0, bytes=1, sha256="0" * 64)  # type: ignore[arg-type]
    again = await one.reserve(asked(body=b"one two three"))
    partly = (Choice(index=0, text="four five", others=(image,)),)
    await one.settle(again, answered(asked(), choices=partly))

    assert 6 + 103 == used(counters)["tokens"]


async def test_what_has_no_price_by_token_needs_no_count(counters: FileCounters) -> None:
    """Images are paid as they come; seconds as the provider reports them."""
    one = allowance(counters)
    image = Unit(kind="image", index=0, bytes=1, sha256="0" * 64)  # type: ignore[arg-type]
    drawn = asked("pictures", operation=Operation.IMAGE)
    reserved = await one.reserve(drawn)
    assert 40 == used(counters)["money"]
    await one.settle(reserved, answered(drawn, units=(image, image)))
    assert 80 == used(counters)["money"]
    heard = asked("ear", operation=Operation.TRANSCRIPTION)
    reserved = await one.reserve(heard)
    await one.settle(reserved, answered(heard, usage=Usage(seconds=3)))

    assert 95 == used(counters)["money"]


async def test_a_body_of_unknown_length_may_be_of_any(counters: FileCounters) -> None:
    """What comes in chunks and is not held is over any limit of tokens; its length helps."""

    async def chunks() -> Any:
        yield b""

    def passing(length: int | None) -> Asked:
        body = StreamedBody(chunks(), length, new_exchange_id(NOW_MS), b"k")
        made = asked()
        call = msgspec.structs.replace(made.call, body=None)
        return msgspec.structs.replace(made, body=body, call=call)

    one = allowance(counters, rule(Limit("tokens", "day", MANY)))
    with pytest.raises(LimitReachedError):
        await one.reserve(passing(None))
    assert await one.reserve(passing(10)) is not None
    assert await one.reserve(passing(None), body_bytes=10) is not None
    assert 2 * (10 + 100) == used(counters)["tokens"]


async def test_what_is_held_can_be_kept_and_settled_elsewhere(counters: FileCounters) -> None:
    """A reservation is plain data: another process settles it, or gives it back."""
    here, there = allowance(counters), allowance(counters)
    reserved = [await here.reserve(asked()) for _ in range(3)]
    kept = [
        msgspec.json.decode(msgspec.json.encode(one), type=Reserved)
        for one in reserved
        if one is not None
    ]
    whole = Answer(readable=True, whole=True)
    await there.settle_answer(
        kept[0], msgspec.structs.replace(whole, usage=Usage(input_tokens=1, output_tokens=1))
    )
    await there.settle_answer(kept[1], msgspec.structs.replace(whole, error="expired"))
    await there.give_back(kept[2])

    assert {"requests": 2, "tokens": 2, "money": 3} == used(counters)


async def test_each_name_has_its_own_counters(counters: FileCounters) -> None:
    """A key, its project and a declaration that is cited are counted apart."""
    rules = [
        Rule(scope=scope, names="*", limits=(Limit("requests", "day", 9),))
        for scope in ("key", "project", "declaration")
    ]
    one = allowance(counters, *rules)
    who = Principal(
        name="ada", project="search", key="key-1", limits=(Limit("requests", "day", 3),)
    )
    made = msgspec.structs.replace(asked(), principal=who)
    await one.reserve(made)
    await one.reserve(msgspec.structs.replace(made, declared=True))
    bounds = {bound.scope: bound.limit.amount for bound in one.bounds(made)}

    assert {"key": 3, "project": 9} == bounds
    assert {
        "key key-1 requests/day": 2,
        "project search requests/day": 2,
        "declaration use-00000000000000000000 requests/day": 1,
    } == {found.counter: found.used for found in counters.counted()}
    nameless = msgspec.structs.replace(asked(), principal=Principal(name="ada", project="x"))
    assert ["ada", "x"] == [bound.name for bound in one.bounds(nameless)]


async def test_the_memory_of_limits_is_bounded(counters: FileCounters) -> None:
    """Callers that come and go don't fill the memory."""
    one = allowance(counters)
    for number in range(5000):
        who = Principal(name=f"p{number}", project=f"p{number}")
        assert one.bounds(msgspec.structs.replace(asked(), principal=who))
    assert len(one._bounds) <= 4096
