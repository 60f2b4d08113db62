"""Laws of amounts, costs, windows and counters, for any of them."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.budget.estimate import estimate
from gateway.budget.model import (
    MEASURES,
    MICRO,
    WINDOWS,
    Change,
    Charge,
    Full,
    Limit,
    Measure,
    Window,
    amount_of,
    fits,
    micros,
    parse_counter,
    parse_limit,
    shown,
    span,
)
from gateway.budget.prices import Amounts, Price, cost, cost_at_most
from gateway.clock import FrozenClock
from gateway.limits import AMOUNT_MAX
from gateway.provider.model import Operation, ProviderCall, Usage
from gateway.store.counters import FileCounters

amounts = st.integers(0, AMOUNT_MAX)
money = st.integers(0, 10**9)
tokens = st.integers(0, 10**8)
prices = st.builds(
    Price,
    provider=st.just("*"),
    model=st.just("*"),
    input=money,
    cached_input=st.none() | money,
    output=money,
    reasoning=st.none() | money,
    characters=money,
    request=money,
    image=money,
    second=money,
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Return counts as an honest provider reports them."""
    asked, answered = draw(tokens), draw(tokens)
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        cached_input_tokens=draw(st.none() | st.integers(0, asked)),
        reasoning_tokens=draw(st.none() | st.integers(0, answered)),
    )


@given(prices, usages(), st.integers(0, 10), st.integers(0, 10**6), st.integers(0, 10**5))
def test_no_cost_is_over_what_was_held(
    price: Price, usage: Usage, images: int, characters: int, seconds: int
) -> None:
    """Whatever kinds the tokens turn out to be, they cost no more than was taken before."""
    known = Amounts(usage=usage, images=images, characters=characters, seconds=seconds)

    assert 0 <= cost(price, known) <= cost_at_most(price, known)


@given(prices, usages(), usages())
def test_costs_add_up_to_within_a_millionth_each(
    price: Price, one: Usage, other: Usage
) -> None:
    """Two costs are that of both together, but for being rounded up once each."""
    both = Usage(
        **{
            name: (getattr(one, name) or 0) + (getattr(other, name) or 0)
            for name in (
                "input_tokens",
                "output_tokens",
                "cached_input_tokens",
                "reasoning_tokens",
            )
        }
    )
    apart = sum(cost(price, Amounts(usage=usage)) for usage in (one, other)) - price.request

    assert 0 <= apart - cost(price, Amounts(usage=both)) <= 1


@given(usages(), st.integers(1, 10**6))
def test_a_price_by_the_million_is_exact(usage: Usage, each: int) -> None:
    """At a price of so many a token, the cost is the product, and no fraction is lost."""
    price = Price(provider="*", model="*", input=each * MICRO, output=each * MICRO)
    counted = (usage.input_tokens or 0) + (usage.output_tokens or 0)

    assert each * counted == cost(price, Amounts(usage=usage))


@given(amounts)
def test_money_is_shown_as_it_is_read(amount: int) -> None:
    """An amount of money that is shown is read as the same amount."""
    assert amount == micros(shown("money", amount))


@given(st.text(max_size=30))
def test_no_text_breaks_what_reads_it(text: str) -> None:
    """Any text is an amount, a limit, a counter's name, or none; nothing is raised."""
    for found in (micros(text), *(amount_of(measure, text) for measure in MEASURES)):
        assert found is None or 0 <= found <= AMOUNT_MAX
    limit = parse_limit(text)
    assert limit is None or limit == parse_limit(str(limit))
    parse_counter(text)
    assert fits("*", text)
    assert fits(text.replace("*", "?"), text) or "*" in text or "?" in text


@given(st.sampled_from(MEASURES), st.sampled_from(WINDOWS), amounts)
def test_limits_are_read_as_they_are_written(
    measure: Measure, window: Window, amount: int
) -> None:
    """Every limit can be written for a key, and is read as itself."""
    limit = Limit(measure, window, amount)

    assert limit == parse_limit(str(limit))


@given(st.sampled_from(WINDOWS), st.integers(0, 4 * 10**12))
def test_every_instant_is_in_one_window(window: Window, now_ms: int) -> None:
    """Windows follow each other without gap or overlap."""
    start, end = span(window, now_ms)

    assert start <= now_ms < end
    assert (start, end) == span(window, start) == span(window, end - 1)
    assert end == span(window, end)[0]


@given(
    st.dictionaries(
        st.sampled_from(["max_tokens", "n", "best_of", "options", "generationConfig"]),
        st.integers() | st.text(max_size=3) | st.none() | st.booleans() | st.just({"n": 2}),
    ),
    st.sampled_from(sorted(Operation)),
    st.integers(0, 10**9),
)
def test_an_estimate_is_a_number_whatever_is_asked(
    body: dict[str, object], operation: Operation, size: int
) -> None:
    """No body makes an estimate negative, endless, or fail."""
    call = ProviderCall(provider="p", operation=operation, body=body)
    found = estimate(call, size, None, None)

    assert 0 <= found.tokens <= 2 * AMOUNT_MAX
    assert min(found.images, found.characters, found.seconds) >= 0


@settings(deadline=None)  # a file is made for each
@given(
    st.lists(
        st.tuples(
            st.lists(
                st.tuples(st.sampled_from("abc"), st.integers(0, 8)),
                min_size=1,
                max_size=3,
                unique_by=lambda one: one[0],
            ),
            st.integers(0, 8),
            st.integers(0, 20_000),
        ),
        max_size=30,
    )
)
def test_counters_are_what_a_plain_sum_says(
    story: list[tuple[list[tuple[str, int]], int, int]],
) -> None:
    """Charges, changes and new windows in any order leave what adding by hand leaves."""
    at_most = 20
    clock = FrozenClock(1_795_000_000_000)
    sums: Counter[tuple[str, int]] = Counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(FileCounters(Path(folder) / "counters", clock)) as counters,
    ):

        async def run() -> None:
            for wanted, settled, later_ms in story:
                start = span("minute", clock.now_ms())[0]
                charges = [
                    Charge(counter=name, window="minute", amount=amount, at_most=at_most)
                    for name, amount in wanted
                ]
                taken = await counters.take(charges)
                room = all(sums[name, start] + amount <= at_most for name, amount in wanted)
                assert isinstance(taken, Full) is not room
                if not isinstance(taken, Full):
                    assert {start} == set(taken)
                    clock.move_ms(later_ms)
                    await counters.change(
                        [
                            Change(counter=name, start=start, amount=settled - amount)
                            for name, amount in wanted
                        ]
                    )
                    for name, _ in wanted:
                        sums[name, start] += settled

        asyncio.run(run())
        start = span("minute", clock.now_ms())[0]
        expected = {name: count for (name, at), count in sums.items() if at == start and count}
        assert expected == {one.counter: one.used for one in counters.counted() if one.used}
