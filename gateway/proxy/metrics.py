"""What is counted while the door is open, in Prometheus' text format; label sets are closed."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.exchange.states import Answered, Forbidden, Held

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """One registry for one door."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._exchanges = Counter(
            "gateway_exchanges",
            "Exchanges sealed, by how they ended.",
            ["provider", "operation", "ended"],
            registry=self._registry,
        )
        self._refusals = Counter(
            "gateway_refusals",
            "Uses held or forbidden.",
            ["provider", "effect"],
            registry=self._registry,
        )
        self._tokens = Counter(
            "gateway_tokens",
            "Tokens as providers reported them.",
            ["provider", "direction"],
            registry=self._registry,
        )
        self._problems = Counter(
            "gateway_problems",
            "Requests that the gateway itself answered with an error.",
            ["code"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "gateway_exchange_seconds",
            "From the request's head to its sealed receipt, the provider's time included.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._under_way = Gauge(
            "gateway_exchanges_under_way", "Exchanges in the hall.", registry=self._registry
        )
        self._leaves = Gauge(
            "gateway_ledger_leaves", "Leaves that have a place.", registry=self._registry
        )
        # OWNED BY: the event loop. Children are looked up once; labels() costs microseconds.
        self._exchange_counts: dict[tuple[str, str, str], Counter] = {}
        self._token_counts: dict[tuple[str, str], Counter] = {}

    def sealed(self, outcome: Answered | Held | Forbidden, seconds: float) -> None:
        """Count an exchange that ended."""
        if not isinstance(outcome, Answered):
            asked = outcome.asked
            self._refusals.labels(asked.call.provider, outcome.ruling.effect).inc()
            return
        call = outcome.permitted.asked.call
        key = (call.provider, str(call.operation), outcome.ended)
        count = self._exchange_counts.get(key)
        if count is None:
            count = self._exchange_counts[key] = self._exchanges.labels(*key)
        count.inc()
        self._seconds.observe(seconds)
        usage = outcome.answer.usage
        if usage is not None:
            self._count_tokens(call.provider, "input", usage.input_tokens)
            self._count_tokens(call.provider, "output", usage.output_tokens)

    def _count_tokens(self, provider: str, direction: str, tokens: int | None) -> None:
        if tokens:
            count = self._token_counts.get((provider, direction))
            if count is None:
                count = self._token_counts[provider, direction] = self._tokens.labels(
                    provider, direction
                )
            count.inc(tokens)

    def problem(self, code: str) -> None:
        """Count a request that ended in an error of ours."""
        self._problems.labels(code).inc()

    def text(self, under_way: int, leaves: int) -> bytes:
        """Return everything counted so far, to be scraped."""
        self._under_way.set(under_way)
        self._leaves.set(leaves)
        return generate_latest(self._registry)
