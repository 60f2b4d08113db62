"""What a model costs: whole numbers of millionths of the currency, rounded up once a cost.

Not here: where the prices are written (`settings.py` reads the file).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import msgspec

from gateway.budget.model import MICRO, fits
from gateway.limits import BOUNDS_REMEMBERED_MAX, MATCHED_CHARS_MAX
from gateway.provider.model import Usage


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What models of a provider cost; all in millionths of the currency."""

    provider: str
    model: str
    """Names of providers and models: `*` stands for any characters."""
    input: int = 0
    """A million tokens of what is asked."""
    cached_input: int | None = None
    """The same, of what the provider had kept; absent: no cheaper."""
    output: int = 0
    """A million tokens of what is answered."""
    reasoning: int | None = None
    """The same, of what was thought; absent: as all output."""
    characters: int = 0
    """A million characters of what is to be spoken."""
    request: int = 0
    """Each request."""
    image: int = 0
    """Each image that is made."""
    second: int = 0
    """Each second of audio."""
    output_max: int | None = None
    """The longest answer, in tokens, where a request does not say."""

    @property
    def by_token(self) -> bool:
        """Tell whether tokens cost anything."""
        return bool(self.input or self.output or self.cached_input or self.reasoning)


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a request came to, or may come to, besides being one."""

    usage: Usage
    images: int = 0
    characters: int = 0
    seconds: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens were read and written."""
        return (self.usage.input_tokens or 0) + (self.usage.output_tokens or 0)


class Prices:
    """Prices in the order in which they are written: the first that fits counts."""

    def __init__(self, currency: str, prices: Sequence[Price]) -> None:
        self.currency = currency
        self._prices = tuple(prices)
        self._found: dict[tuple[str, str], Price | None] = {}

    def of(self, provider: str, model: str | None) -> Price | None:
        """Return what *model* of *provider* costs, or `None` where nothing is said of it.

        A request of which no model is known has an empty name, which only `*` fits.
        """
        named = (provider, model or "")
        if len(named[1]) > MATCHED_CHARS_MAX:
            return None
        if named not in self._found:
            if len(self._found) >= BOUNDS_REMEMBERED_MAX:
                self._found.clear()
            self._found[named] = next(
                (
                    price
                    for price in self._prices
                    if fits(price.provider, provider) and fits(price.model, named[1])
                ),
                None,
            )
        return self._found[named]


def cost(price: Price, amounts: Amounts) -> int:
    """Return what *amounts* cost, in millionths, rounded up."""
    usage = amounts.usage
    asked, answered = usage.input_tokens or 0, usage.output_tokens or 0
    # A provider that reports more cached tokens than tokens is believed in the larger number.
    cached, thought = usage.cached_input_tokens or 0, usage.reasoning_tokens or 0
    cached_price = price.input if price.cached_input is None else price.cached_input
    thought_price = price.output if price.reasoning is None else price.reasoning
    millions = (
        max(0, asked - cached) * price.input
        + cached * cached_price
        + max(0, answered - thought) * price.output
        + thought * thought_price
        + amounts.characters * price.characters
    )
    each = price.request + amounts.images * price.image + amounts.seconds * price.second
    return -(-millions // MICRO) + each


def cost_at_most(price: Price, amounts: Amounts) -> int:
    """Return what *amounts* cost if every token of them is of the dearer kind."""
    usage = amounts.usage
    plain = Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    return cost(_dearest(price), msgspec.structs.replace(amounts, usage=plain))


@functools.lru_cache(maxsize=1024)
def _dearest(price: Price) -> Price:
    return msgspec.structs.replace(
        price,
        input=max(price.input, price.cached_input or 0),
        output=max(price.output, price.reasoning or 0),
        cached_input=None,
        reasoning=None,
    )
