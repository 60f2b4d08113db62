"""Laws of what models cost."""

from __future__ import annotations

from gateway.budget.prices import Amounts, Price, Prices, cost, cost_at_most
from gateway.provider.model import Usage

M = 1_000_000


def used(
    asked: int, answered: int, cached: int | None = None, thought: int | None = None
) -> Amounts:
    """Return amounts of tokens."""
    return Amounts(
        usage=Usage(
            input_tokens=asked,
            output_tokens=answered,
            cached_input_tokens=cached,
            reasoning_tokens=thought,
        )
    )


def test_the_first_price_that_fits_counts() -> None:
    """Prices are looked up in the order in which they are written, by provider and model."""
    mini = Price(provider="openai", model="gpt-4o-mini*", input=1)
    large = Price(provider="*", model="gpt-4o*", input=2)
    nameless = Price(provider="else", model="*", request=3)
    prices = Prices("USD", [mini, large, nameless])

    assert mini == prices.of("openai", "gpt-4o-mini-2026")
    assert large == prices.of("openai", "gpt-4o")
    assert large == prices.of("azure", "gpt-4o-mini")
    assert prices.of("openai", "o9") is None
    assert prices.of("openai", None) is None
    assert prices.of("openai", "gpt-4o" + "x" * 300) is None
    assert nameless == prices.of("else", None) == prices.of("else", "any")
    assert mini == prices.of("openai", "gpt-4o-mini-2026")


def test_the_memory_of_prices_is_bounded() -> None:
    """Names that callers make up don't fill the memory, and are priced all the same."""
    prices = Prices("USD", [Price(provider="*", model="m*", input=1)])

    assert all(prices.of("p", f"m{number}") for number in range(10_000))
    assert len(prices._found) <= 4096


def test_tokens_are_priced_by_the_million_and_rounded_up() -> None:
    """Each kind of token has its price; what has none costs as its kind in general."""
    price = Price(
        provider="*", model="*", input=2 * M, cached_input=M, output=8 * M, reasoning=10 * M
    )

    assert 2 * 60 + 1 * 40 + 8 * 5 + 10 * 15 == cost(price, used(100, 20, 40, 15))
    assert 2 * 100 + 8 * 20 == cost(price, used(100, 20))
    cheap = Price(provider="*", model="*", input=1)
    assert 1 == cost(cheap, used(1, 0))
    assert 0 == cost(cheap, used(0, 0))
    plain = Price(provider="*", model="*", input=3 * M, output=5 * M)
    assert 3 * 100 + 5 * 20 == cost(plain, used(100, 20, 40, 15))


def test_more_cached_than_asked_is_believed() -> None:
    """Counts that contradict each other never make a cost lower than either."""
    price = Price(provider="*", model="*", input=M, cached_input=M, output=M)

    assert 50 + 30 == cost(price, used(10, 20, 50, 30))


def test_what_is_no_token_has_prices_of_its_own() -> None:
    """Requests, images, seconds and characters are priced beside tokens."""
    price = Price(provider="*", model="*", request=5, image=40, second=6, characters=15 * M)
    amounts = Amounts(usage=Usage(), images=2, seconds=10, characters=100)

    assert 5 + 80 + 60 + 1500 == cost(price, amounts)
    assert not price.by_token
    assert Price(provider="*", model="*", reasoning=1).by_token


def test_the_dearest_kind_bounds_the_cost() -> None:
    """Before the answer every token is taken to be of the dearer kind."""
    price = Price(
        provider="*", model="*", input=M, cached_input=2 * M, output=3 * M, reasoning=4 * M
    )

    assert 2 * 10 + 4 * 10 == cost_at_most(price, used(10, 10, 5, 5))
