"""A request's way through the house: ruled on, opened, forwarded, sealed.

The types are the corridor: only `open` makes a `Permitted`, only the relay an `Answered`, only
the notary a `Sealed`. Nothing is dialled before the opening is durable; nothing that was held
back leaves before the closing statement is.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from gateway.clock import Clock, rfc3339
from gateway.errors import (
    CallerError,
    ExchangeClosedError,
    GatewayError,
    OperatorError,
    ProviderBrokeOffError,
    ProviderError,
)
from gateway.exchange.forward import (
    Departure,
    Forwarder,
    Outgoing,
    ProviderResponse,
    RawHeaders,
)
from gateway.exchange.providers import Provider
from gateway.exchange.recover import recover
from gateway.exchange.relay import Amends, CallerSide, ItemsReader, Relay, unanswered
from gateway.exchange.rule import Law, Ruled
from gateway.exchange.seal import Notary
from gateway.exchange.states import (
    Answered,
    Asked,
    Forbidden,
    Held,
    Permitted,
    Sealed,
)
from gateway.ident import ExchangeId
from gateway.ledger.ports import Sequencing
from gateway.ledger.reading.register import Register
from gateway.provider.encoding import decoder_for
from gateway.receipt.model import Opening
from gateway.receipt.statement import write_opening


class Caller(CallerSide, Departure, Protocol):
    """The caller's side of the door."""

    def headers_for(self, permitted: Permitted, headers: RawHeaders) -> RawHeaders:
        """Return the provider's end-to-end headers with ours added."""
        ...


Ask = Callable[[Permitted, Provider, Outgoing, Caller], Awaitable[Answered]]
"""Asks a provider, and passes on what comes."""

Rule = Callable[[Asked, Provider], Ruled]
"""Rules on what is asked; the law itself, or on more than one thing at once."""


class Errand(Protocol):
    """An exchange that is about many things, each of which is ruled on or sealed by itself."""

    def rule(self, asked: Asked, provider: Provider) -> Ruled:
        """Return the ruling on all that it is about."""
        ...

    async def opened(self, permitted: Permitted) -> None:
        """Do what must be durable before the provider is dialled.

        Raises:
            LedgerUnwellError: it could not be done; nothing is dialled.
        """
        ...

    def reader(self, permitted: Permitted, response: ProviderResponse) -> ItemsReader | None:
        """Return what reads the answer item by item, or `None` where it has none."""
        ...


@dataclass(kw_only=True)
class Walk:
    """The rooms a request goes through; built once, in `app/`."""

    law: Law
    register: Register
    sequencer: Sequencing
    forwarder: Forwarder
    notary: Notary
    clock: Clock
    writer: str
    refresh: Callable[[], Awaitable[None]]
    """Takes in what other processes wrote to the ledger."""
    drain: bool
    """Read a provider's answer to its end for a caller who has hung up."""
    # OWNED BY: through() at the tail, sweep() at the head.
    _orphans: deque[tuple[ExchangeId, int, str]] = field(default_factory=deque)

    async def through(
        self,
        asked: Asked,
        provider: Provider,
        outgoing: Outgoing,
        caller: Caller,
        ask: Ask | None = None,
        rule: Rule | None = None,
    ) -> tuple[Answered | Held | Forbidden, Sealed]:
        """Rule, forward if permitted, and seal whatever happened.

        *ask* asks in another way than with a request and its answer, *rule* rules on more
        than that.

        Raises:
            LedgerUnwellError: an opening or a closing statement could not be written.
            LedgerDamagedError: it may or may not have been.
        """
        rule = rule or self.law.rule
        ruled = rule(asked, provider)
        if ruled.ruling.effect != "permit" and asked.declared:
            # A verdict may have been given in another process just now.
            await self.refresh()
            ruled = rule(asked, provider)
        outcome = await self.open(asked, ruled, rule)
        match outcome:
            case Permitted():
                try:
                    answered = await (ask or self._ask)(outcome, provider, outgoing, caller)
                    return answered, await self.notary.seal(answered)
                except Exception as exc:
                    self._orphan(asked.exchange, outcome.opening, exc)
                    raise
            case Held() | Forbidden():
                try:
                    return outcome, await self.notary.seal(outcome)
                except Exception as exc:
                    if outcome.opening is not None:
                        self._orphan(asked.exchange, outcome.opening, exc)
                    raise
            case _:
                assert_never(outcome)

    async def open(
        self, asked: Asked, ruled: Ruled, rule: Rule | None = None
    ) -> Permitted | Held | Forbidden:
        """Write the opening of a permitted exchange; the other two need none.

        A verdict or withdrawal that another process wrote before our opening counts, and so
        does a library that was put in force before it: then the law is asked again, so nothing
        is dialled under a yes that was already taken back.
        """
        if ruled.ruling.effect != "permit":
            return _refused(asked, ruled, None)
        leaf = write_opening(
            Opening(
                exchange=asked.exchange,
                at=rfc3339(asked.received_ms),
                principal=asked.principal.name,
                project=asked.principal.project,
                provider=asked.call.provider,
                operation=str(asked.call.operation),
                purpose=asked.declaration.use.purpose,
                declaration=asked.declaration.id if asked.declared else None,
                ruling_sha256=ruled.sha256,
                writer=self.writer,
            )
        )
        sequenced = await self.sequencer.append(leaf)
        # What others added before this leaf is in the register by now (`app/`).
        if not self.law.stands(ruled):
            ruled = (rule or self.law.rule)(asked, ruled.provider)
            if ruled.ruling.effect != "permit":
                return _refused(asked, ruled, sequenced.index)
        return Permitted(
            asked=asked, ruling=ruled.ruling, headers=ruled.headers, opening=sequenced.index
        )

    def amending(self, amends: Amends | None, errand: Errand | None = None) -> Ask:
        """Return how to ask for an answer that *amends* changes before it goes on.

        What an *errand* is about is done item by item.
        """
        return functools.partial(self._ask, amends=amends, errand=errand)

    async def _ask(
        self,
        permitted: Permitted,
        provider: Provider,
        outgoing: Outgoing,
        caller: Caller,
        amends: Amends | None = None,
        errand: Errand | None = None,
    ) -> Answered:
        departure = None if self.drain else caller
        if errand is not None:
            await errand.opened(permitted)
        try:
            response = await self.forwarder.forward(
                permitted, provider.origin, outgoing, departure
            )
        except CallerError as exc:
            # It hung up, or its body grew beyond what is passed on.
            return unanswered(permitted, "cut-short-by-caller", exc.problem)
        except ProviderBrokeOffError as exc:
            return unanswered(permitted, "cut-short-by-provider", exc.problem)
        except ProviderError as exc:
            return unanswered(permitted, "provider-failed", exc.problem)
        items = None if errand is None else errand.reader(permitted, response)
        return await self.relayed(permitted, provider, response, caller, amends, items)

    async def relayed(
        self,
        permitted: Permitted,
        provider: Provider,
        response: ProviderResponse,
        caller: Caller,
        amends: Amends | None = None,
        items: ItemsReader | None = None,
    ) -> Answered:
        """Pass *response* on, as far as it may go before it is sealed.

        *amends* changes what may not go on as it came, *items* are sealed one by one.
        """
        call = permitted.asked.call
        kind = response.header(b"content-type") or ""
        encoding = response.header(b"content-encoding")
        relay = Relay(
            permitted,
            items or provider.dialect.answer_reader(call, response.status, kind),
            decoder_for(encoding) if items is None else decoder_for(encoding, None),
            drain=self.drain,
            settle=None if items is None else items.settle,
            hold=(held := amends is not None and amends.holds(response)),
        )
        headers = response.headers if amends is None else amends.headers(response.headers)
        answered = await relay.run(response, caller, caller.headers_for(permitted, headers))
        return answered if amends is None else await amends.finish(answered, held=held)

    def _orphan(self, exchange: ExchangeId, opening: int, broken_by: Exception) -> None:
        """Remember an opening that nothing closes, whatever broke its exchange."""
        why = "ledger-failed" if isinstance(broken_by, OperatorError) else "gateway-failed"
        self._orphans.append((exchange, opening, why))

    async def sweep(self) -> int:
        """Close, as abandoned, exchanges whose receipt could not be written; return how many.

        What was held back of them never left the house. Where a statement may or may not have
        been written the ledger takes no more, and the next start reads the truth.
        """
        count = 0
        while self._orphans:
            exchange, opening, why = self._orphans[0]
            try:
                count += await recover([(exchange, opening)], self.notary.seal, why)
            except ExchangeClosedError:
                # Its receipt was in doubt, and turns out to have been written.
                pass
            except GatewayError:
                break
            self._orphans.popleft()
        return count


def _refused(asked: Asked, ruled: Ruled, opening: int | None) -> Held | Forbidden:
    kind = Held if ruled.ruling.effect == "hold" else Forbidden
    return kind(asked=asked, ruling=ruled.ruling, opening=opening)
