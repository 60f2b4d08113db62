"""What is counted while the door is open, in Prometheus' text format; label sets are closed.

Counting is an addition in a dictionary; names, types and buckets are made when it is scraped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.exchange.states import Answered, Forbidden, Held

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Metrics(Collector):
    """The counts of one door."""

    def __init__(self) -> None:
        # OWNED BY: the event loop.
        self._exchanges: Counter[tuple[str, str, str]] = Counter()
        self._refusals: Counter[tuple[str, str]] = Counter()
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._problems: Counter[str] = Counter()
        self._seconds = [0] * (len(_SECONDS) + 1)
        self._seconds_sum = 0.0
        self._under_way = 0
        self._leaves = 0
        self._alarm = False
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def sealed(self, outcome: Answered | Held | Forbidden, seconds: float) -> None:
        """Count an exchange that ended."""
        if not isinstance(outcome, Answered):
            self._refusals[outcome.asked.call.provider, outcome.ruling.effect] += 1
            return
        call = outcome.permitted.asked.call
        self._exchanges[call.provider, call.operation.value, outcome.ended] += 1
        self._seconds[bisect_left(_SECONDS, seconds)] += 1
        self._seconds_sum += seconds
        usage = outcome.answer.usage
        if usage is not None:
            self._tokens[call.provider, "input"] += usage.input_tokens or 0
            self._tokens[call.provider, "output"] += usage.output_tokens or 0

    def problem(self, code: str) -> None:
        """Count a request that ended in an error of ours."""
        self._problems[code] += 1

    def text(self, under_way: int, leaves: int, *, alarm: bool) -> bytes:
        """Return everything counted so far, to be scraped."""
        self._under_way, self._leaves, self._alarm = under_way, leaves, alarm
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it stands."""
        exchanges = CounterMetricFamily(
            "gateway_exchanges",
            "Exchanges sealed, by how they ended.",
            labels=["provider", "operation", "ended"],
        )
        for key, count in self._exchanges.items():
            exchanges.add_metric(key, count)
        yield exchanges
        refusals = CounterMetricFamily(
            "gateway_refusals", "Uses held or forbidden.", labels=["provider", "effect"]
        )
        for refused, count in self._refusals.items():
            refusals.add_metric(refused, count)
        yield refusals
        tokens = CounterMetricFamily(
            "gateway_tokens",
            "Tokens as providers reported them.",
            labels=["provider", "direction"],
        )
        for counted, count in self._tokens.items():
            tokens.add_metric(counted, count)
        yield tokens
        problems = CounterMetricFamily(
            "gateway_problems",
            "Requests that the gateway itself answered with an error.",
            labels=["code"],
        )
        for code, count in self._problems.items():
            problems.add_metric([code], count)
        yield problems
        bounds = [*map(str, _SECONDS), "+Inf"]
        yield HistogramMetricFamily(
            "gateway_exchange_seconds",
            "From the request's head to its sealed receipt, the provider's time included.",
            buckets=list(zip(bounds, accumulate(map(float, self._seconds)), strict=True)),
            sum_value=self._seconds_sum,
        )
        yield GaugeMetricFamily(
            "gateway_exchanges_under_way", "Exchanges in the hall.", self._under_way
        )
        yield GaugeMetricFamily(
            "gateway_policies_kept_old",
            "1 while newer policies on disk could not be put in force.",
            int(self._alarm),
        )
        yield GaugeMetricFamily(
            "gateway_ledger_leaves", "Leaves that have a place.", self._leaves
        )
