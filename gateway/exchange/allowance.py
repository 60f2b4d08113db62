"""How much a caller may still use: held back before a provider is dialled, settled after.

Whatever a request may come to at most is counted before anything is asked, so limits hold
however many ask at once, and whatever becomes of this process. Once the answer's own count is
known it replaces what was held; where nothing was counted, what was held stays counted until
its window ends. Who has no limit pays nothing for those of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from gateway.budget.estimate import LinesSum, came_to, estimate, images_of
from gateway.budget.model import (
    Bound,
    Change,
    Charge,
    Full,
    Measure,
    Rule,
    Window,
    bounds_of,
    shown,
)
from gateway.budget.prices import Amounts, Price, Prices, cost, cost_at_most
from gateway.errors import LimitReachedError, PriceMissingError, ProviderUnreachableError
from gateway.exchange.body import StreamedBody
from gateway.exchange.states import Answered, Asked, Forbidden, Held
from gateway.limits import AMOUNT_MAX, BOUNDS_REMEMBERED_MAX, COUNTED_BYTES_MAX
from gateway.provider.model import GENERATES, Answer, ProviderCall, Usage
from gateway.provider.tokens import TokenCounter
from gateway.store.counters import Counters

_ERRORS: Final = 400
_NOTHING: Final = Amounts(usage=Usage(input_tokens=0, output_tokens=0))


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """What one counter holds of a request that is under way."""

    bound: Bound
    start: int
    """When the counter's window began, in milliseconds."""
    amount: int


class Reserved(msgspec.Struct, frozen=True, kw_only=True):
    """What is held of every counter that a request touches; plain data, so it can be kept."""

    holds: tuple[Hold, ...]
    before: Amounts
    """What the request was taken to come to."""
    provider: str
    model: str | None = None
    lines: int = 0
    """How many requests are begun with it, of a batch."""


class Allowance:
    """Holds back and settles; built once, in `app/`.

    What it counts with is opened when it is first needed.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        prices: Prices | None,
        counters: Callable[[], Counters],
        tokens: TokenCounter,
    ) -> None:
        self._rules = tuple(rules)
        self._prices = prices
        self._open = counters
        self._tokens = tokens
        # OWNED BY: the event loop.
        self._counters: Counters | None = None
        self._bounds: dict[tuple[object, ...], tuple[Bound, ...]] = {}

    def close(self) -> None:
        """Let go of what counts, if anything was counted."""
        if self._counters is not None:
            self._counters.close()

    def bounds(self, asked: Asked) -> tuple[Bound, ...]:
        """Return every limit that binds *asked*; a declaration's only where one is cited."""
        principal = asked.principal
        if not self._rules and not principal.limits:
            return ()
        declaration = asked.declaration.id if asked.declared else None
        key = (principal.key or principal.name, principal.project, declaration)
        remembered = (*key, principal.limits)
        bounds = self._bounds.get(remembered)
        if bounds is None:
            if len(self._bounds) >= BOUNDS_REMEMBERED_MAX:
                self._bounds.clear()
            bounds = bounds_of(
                self._rules,
                principal.limits,
                (
                    ("key", key[0]),
                    ("project", key[1]),
                    *([("declaration", declaration)] if declaration is not None else ()),
                ),
            )
            self._bounds[remembered] = bounds
        return bounds

    async def reserve(
        self,
        asked: Asked,
        body_bytes: int | None = None,
        many: Sequence[tuple[ProviderCall, LinesSum]] = (),
    ) -> Reserved | None:
        """Hold back what *asked* may come to; `None` where nothing limits it.

        *body_bytes* is how long its body is where that is not at hand; *many* the requests
        that a batch begins with it, kind by kind.

        Raises:
            LimitReachedError: that would be more than a limit allows; nothing is held.
            PriceMissingError: money is limited and nobody said what it costs.
            LedgerUnwellError: it can't be counted at present; nothing may be asked.
        """
        bounds = self.bounds(asked)
        if not bounds:
            return None
        before, money = self._before(asked, bounds, body_bytes)
        tokens, lines = before.tokens, 0
        for call, lines_sum in many:
            of_kind, cost_of_kind = self._before_many(call, lines_sum, bounds)
            tokens += of_kind.tokens
            money += cost_of_kind
            lines += lines_sum.lines
        amounts: dict[Measure, int] = {"requests": 1 + lines, "tokens": tokens, "money": money}
        charges = [
            Charge(
                counter=bound.counter,
                window=bound.limit.window,
                amount=min(amounts[bound.limit.measure], AMOUNT_MAX),
                at_most=bound.limit.amount,
            )
            for bound in bounds
        ]
        if self._counters is None:
            self._counters = self._open()
        taken = await self._counters.take(charges)
        if isinstance(taken, Full):
            raise _reached(bounds[taken.place], charges[taken.place].amount, taken)
        return Reserved(
            holds=tuple(
                Hold(bound=bound, start=start, amount=charge.amount)
                for bound, charge, start in zip(bounds, charges, taken, strict=True)
            ),
            before=before,
            provider=asked.call.provider,
            model=asked.call.model,
            lines=lines,
        )

    async def settle(
        self, reserved: Reserved | None, outcome: Answered | Held | Forbidden
    ) -> None:
        """Replace what was held by what it came to; of what was never asked, nothing stays.

        Raises:
            LedgerUnwellError: it can't be counted at present; what was held stays counted.
        """
        if reserved is None:
            return
        if not isinstance(outcome, Answered):
            await self.give_back(reserved)
        elif outcome.status is None and outcome.error == ProviderUnreachableError.code:
            await self._replace(reserved, tokens=0, money=0, requests=1)
        elif outcome.status is not None and outcome.status >= _ERRORS:
            tokens, money = self._after(reserved, outcome.answer, erred=True)
            await self._replace(reserved, tokens, money, requests=1)
        elif outcome.status is not None:
            await self._replace(reserved, *self._after(reserved, outcome.answer))

    async def settle_answer(self, reserved: Reserved | None, answer: Answer) -> None:
        """Replace what was held for one of many things by what its *answer* came to.

        Raises:
            LedgerUnwellError: it can't be counted at present; what was held stays counted.
        """
        if reserved is not None:
            erred = answer.error is not None and answer.usage is None and not answer.choices
            await self._replace(reserved, *self._after(reserved, answer, erred=erred))

    async def settle_lines(
        self, reserved: Reserved, lines: Iterable[tuple[ProviderCall, LinesSum, Answered]]
    ) -> None:
        """Replace what was held for some requests of a batch by what they came to.

        Each comes with what its kind was held for; its share of that is taken to be the mean,
        so that once all have come no less is counted than they came to.

        Raises:
            LedgerUnwellError: it can't be counted at present; what was held stays counted.
        """
        tokens = money = 0
        bounds = tuple(hold.bound for hold in reserved.holds)
        for call, of_kind, answered in lines:
            try:
                before, cost_before = self._before_many(call, of_kind, bounds)
            except PriceMissingError:
                # It had a price when the batch began: what was held for it stays.
                continue
            share = Reserved(
                holds=(),
                before=_mean(before, of_kind.lines),
                provider=call.provider,
                model=call.model,
            )
            erred = answered.status is None or answered.status >= _ERRORS
            came, paid = self._after(share, answered.answer, erred=erred)
            if came is not None:
                tokens += came - before.tokens // of_kind.lines
            if paid is not None:
                money += paid - cost_before // of_kind.lines
        change: dict[Measure, int] = {"requests": 0, "tokens": tokens, "money": money}
        await self._change(
            Change(
                counter=hold.bound.counter,
                start=hold.start,
                amount=change[hold.bound.limit.measure],
            )
            for hold in reserved.holds
        )

    async def give_back(self, reserved: Reserved | None) -> None:
        """Take back all that was held: nothing was asked.

        Raises:
            LedgerUnwellError: it can't be counted at present; what was held stays counted.
        """
        if reserved is not None:
            await self._change(
                Change(counter=hold.bound.counter, start=hold.start, amount=-hold.amount)
                for hold in reserved.holds
            )

    # -- what it may come to --------------------------------------------------------------

    def _before(
        self, asked: Asked, bounds: tuple[Bound, ...], body_bytes: int | None
    ) -> tuple[Amounts, int]:
        """Return the most that *asked* is taken to come to, and what that costs.

        Raises:
            PriceMissingError: money is limited and nobody said what it costs.
        """
        measures = {bound.limit.measure for bound in bounds}
        if measures == {"requests"} or asked.call.operation not in GENERATES:
            return _NOTHING, 0
        call, prices = asked.call, self._prices
        # A fallback may answer: then the dearest of them is what is held.
        models = [call.model, *(model for model in call.fallbacks if model != call.model)]
        known = [prices.of(call.provider, model) if prices else None for model in models]
        longest = [price.output_max for price in known if price is not None]
        bounded = [one for one in longest if one is not None]
        size, counted = self._size(asked, body_bytes)
        before = estimate(
            call, size, counted, max(bounded) if len(bounded) == len(known) else None
        )
        if "money" not in measures:
            return before, 0
        costs = []
        for model, price in zip(models, known, strict=True):
            if price is None:
                raise _unpriced(call, model, bounds)
            costs.append(cost_at_most(price, before))
        return before, max(costs)

    def _before_many(
        self, call: ProviderCall, lines: LinesSum, bounds: tuple[Bound, ...]
    ) -> tuple[Amounts, int]:
        """Return what *lines* of one kind may come to, and what that costs.

        Raises:
            PriceMissingError: money is limited and nobody said what it costs.
        """
        known = [
            (model, self._prices.of(call.provider, model) if self._prices else None)
            for model in dict.fromkeys((call.model, *call.fallbacks))
        ]
        longest = [None if price is None else price.output_max for _, price in known]
        bounded = [one for one in longest if one is not None]
        before = lines.amounts(max(bounded) if len(bounded) == len(known) else None)
        if all(bound.limit.measure != "money" for bound in bounds):
            return before, 0
        costs = []
        for model, price in known:
            if price is None:
                raise _unpriced(call, model, bounds)
            costs.append(cost_at_most(price, before) + (lines.lines - 1) * price.request)
        return before, max(costs)

    def _size(self, asked: Asked, body_bytes: int | None) -> tuple[int, int | None]:
        """Return how long the body is, and how many tokens it has, where that can be told."""
        body = asked.body
        if isinstance(body, StreamedBody):
            length = body.length if body_bytes is None else body_bytes
            # Of one that says no length, nothing is known before it has passed.
            return AMOUNT_MAX if length is None else length, None
        size = len(body) if body_bytes is None else body_bytes
        if asked.call.body is None or not 0 < size <= COUNTED_BYTES_MAX:
            return size, None
        return size, self._tokens.count(body.decode("utf-8", "replace"))

    # -- what it came to ------------------------------------------------------------------

    def _after(
        self, reserved: Reserved, answer: Answer, *, erred: bool = False
    ) -> tuple[int | None, int | None]:
        """Return tokens and money that *answer* came to; `None` where what was held stays."""
        if answer.pending:
            return None, None
        price = self._price(reserved, answer)
        amounts = came_to(answer, reserved.before, self._counted(answer))
        if amounts is not None:
            return amounts.tokens, None if price is None else cost(price, amounts)
        if erred:
            return 0, 0
        if price is None or price.by_token or price.second:
            return None, None
        # What has no price by token is known without a count.
        before = msgspec.structs.replace(reserved.before, images=images_of(answer))
        return None, cost(price, before)

    def _price(self, reserved: Reserved, answer: Answer) -> Price | None:
        """Return what the model that answered costs, else the one that was asked for."""
        if self._prices is None:
            return None
        said = self._prices.of(reserved.provider, answer.model) if answer.model else None
        return said or self._prices.of(reserved.provider, reserved.model)

    def _counted(self, answer: Answer) -> int | None:
        """Count the tokens of an answer whose provider did not; of all its words, or none."""
        if answer.usage is not None and answer.usage.output_tokens is not None:
            return None
        counts = []
        for choice in answer.choices:
            if choice.others:
                return None
            for text in (
                choice.text,
                *choice.reasoning,
                *(call.name + call.arguments for call in choice.tool_calls),
                choice.refusal or "",
            ):
                count = self._tokens.count(text)
                if count is None:
                    return None
                counts.append(count)
        return sum(counts) if counts else None

    async def _replace(
        self,
        reserved: Reserved,
        tokens: int | None,
        money: int | None,
        requests: int | None = None,
    ) -> None:
        came: dict[Measure, int | None] = {
            "requests": requests,
            "tokens": tokens,
            "money": money,
        }
        changes = []
        for hold in reserved.holds:
            amount = came[hold.bound.limit.measure]
            if amount is not None and amount != hold.amount:
                change = min(amount, AMOUNT_MAX) - hold.amount
                changes.append(
                    Change(counter=hold.bound.counter, start=hold.start, amount=change)
                )
        await self._change(changes)

    async def _change(self, changes: Iterable[Change]) -> None:
        wanted = [change for change in changes if change.amount]
        if not wanted:
            return
        if self._counters is None:
            self._counters = self._open()
        await self._counters.change(wanted)


def _mean(amounts: Amounts, count: int) -> Amounts:
    usage = amounts.usage
    return Amounts(
        usage=Usage(
            input_tokens=(usage.input_tokens or 0) // count,
            output_tokens=(usage.output_tokens or 0) // count,
        ),
        images=amounts.images // count,
        characters=amounts.characters // count,
        seconds=amounts.seconds // count,
    )


_SPOKEN_OF: Final[dict[Window, str]] = {
    "minute": "this minute",
    "hour": "this hour",
    "day": "today",
    "month": "this month",
}


def _reached(bound: Bound, amount: int, full: Full) -> LimitReachedError:
    limit = bound.limit
    left = shown(limit.measure, max(0, limit.amount - full.used))
    frees_s = -(-full.frees_ms // 1000)
    alone = amount > limit.amount
    hint = f"try again in {frees_s} seconds, or ask the gateway's operator for a higher limit"
    asked = f"the request may come to {shown(limit.measure, amount)}"
    if alone:
        hint = "ask for a shorter answer, or the gateway's operator for a higher limit"
    if limit.measure == "requests":
        asked = "this is one more"
        hint = "ask the gateway's operator for a higher limit" if alone else hint
    return LimitReachedError(
        f"the limit of {bound} is reached: {left} are left {_SPOKEN_OF[limit.window]} (UTC),"
        f" and {asked}",
        hint=hint,
        scope=bound.scope,
        measure=limit.measure,
        frees_s=None if alone else frees_s,
    )


def _unpriced(
    call: ProviderCall, model: str | None, bounds: Sequence[Bound]
) -> PriceMissingError:
    bound = next(bound for bound in bounds if bound.limit.measure == "money")
    named = f"model `{model[:80]}`" if model else "a request that names no model"
    return PriceMissingError(
        f"{bound.scope} {bound.name} has a limit in money, and {named} of {call.provider}"
        " has no price",
        hint=f"the operator adds `- {{provider: {call.provider}, model:"
        f" {_glob(model)}, input: …, output: …}}` to `models` in the file that `prices` names",
    )


def _glob(model: str | None) -> str:
    return f'"{model[:80]}"' if model else '"*"'
