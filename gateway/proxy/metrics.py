"""What is counted while the door is open, in Prometheus' text format; label sets are closed.

Counting is an addition in a dictionary; names, types and buckets are made when it is scraped.
The counts of several doors add up, name by name, to those of the gateway.
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
from gateway.ledger.counts import PRESENT, Counts
from gateway.ledger.publishing.alarms import ALARMS, PUBLISHED, RAISED
from gateway.ledger.sequencing.frames import Whole

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


_SEPARATOR: Final = "\x1f"
UNDER_WAY: Final = f"{PRESENT}under-way"
ALARM: Final = f"{PRESENT}alarm"


class Metrics:
    """The counts of one door."""

    def __init__(self) -> None:
        # OWNED BY: the event loop.
        self._exchanges: Counter[tuple[str, str, str]] = Counter()
        self._refusals: Counter[tuple[str, str]] = Counter()
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._problems: Counter[str] = Counter()
        self._stops: Counter[tuple[str, str]] = Counter()
        self._limits: Counter[tuple[str, str]] = Counter()
        self._seconds = [0] * (len(_SECONDS) + 1)
        self._seconds_sum = 0.0

    def sealed(self, outcome: Answered | Held | Forbidden, seconds: float) -> None:
        """Count an exchange that ended."""
        if not isinstance(outcome, Answered):
            self._refusals[outcome.asked.call.provider, outcome.ruling.effect] += 1
            return
        call = outcome.permitted.asked.call
        self._exchanges[call.provider, call.operation.value, outcome.ended] += 1
        self._seconds[bisect_left(_SECONDS, seconds)] += 1
        self._seconds_sum += seconds
        if (stop := outcome.stop) is not None:
            self._stops[call.provider, stop] += 1
        self._used(outcome)

    def _used(self, answered: Answered) -> None:
        usage, provider = answered.answer.usage, answered.permitted.asked.call.provider
        if usage is not None:
            self._tokens[provider, "input"] += usage.input_tokens or 0
            self._tokens[provider, "output"] += usage.output_tokens or 0

    def item(self, item: Answered) -> None:
        """Count what an item used: its exchange, and the one that fetched it, used nothing."""
        self._used(item)

    def problem(self, code: str) -> None:
        """Count a request that ended in an error of ours."""
        self._problems[code] += 1

    def limit(self, scope: str, measure: str) -> None:
        """Count a request that was refused because a limit was reached."""
        self._limits[scope, measure] += 1

    def counts(self, under_way: int, *, alarm: bool) -> Counts:
        """Return everything counted so far, by names that others can add up."""
        counts: Counts = {UNDER_WAY: under_way, ALARM: int(alarm)}
        for what, labelled in (
            ("exchanges", self._exchanges),
            ("refusals", self._refusals),
            ("tokens", self._tokens),
            ("stops", self._stops),
            ("limits_reached", self._limits),
        ):
            for labels, count in labelled.items():
                counts[_SEPARATOR.join((what, *labels))] = count
        for code, count in self._problems.items():
            counts[f"problems{_SEPARATOR}{code}"] = count
        for place, count in enumerate(self._seconds):
            counts[f"seconds{_SEPARATOR}{place}"] = count
        counts["seconds-sum"] = self._seconds_sum
        return counts


def metrics_text(whole: Whole, leaves: int) -> bytes:
    """Return what was counted, to be scraped."""
    registry = CollectorRegistry()
    registry.register(_Scrape(whole, leaves))
    return generate_latest(registry)


class _Scrape(Collector):
    def __init__(self, whole: Whole, leaves: int) -> None:
        self._whole = whole
        self._leaves = leaves

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it stands."""
        counts = self._whole.counts
        for what, told, labels in (
            (
                "exchanges",
                "Exchanges sealed, by how they ended.",
                ["provider", "operation", "ended"],
            ),
            ("refusals", "Uses held or forbidden.", ["provider", "effect"]),
            ("tokens", "Tokens as providers reported them.", ["provider", "direction"]),
            ("stops", "Answers by which a provider declined to go on.", ["provider", "stop"]),
            (
                "limits_reached",
                "Requests refused because a limit was reached.",
                ["scope", "measure"],
            ),
            ("problems", "Requests that the gateway itself answered with an error.", ["code"]),
        ):
            family = CounterMetricFamily(f"gateway_{what}", told, labels=labels)
            for name, count in counts.items():
                found, *values = name.split(_SEPARATOR)
                if found == what:
                    family.add_metric(values, count)
            yield family
        bounds = [*map(str, _SECONDS), "+Inf"]
        seconds = [
            float(counts.get(f"seconds{_SEPARATOR}{place}", 0)) for place in range(len(bounds))
        ]
        yield HistogramMetricFamily(
            "gateway_exchange_seconds",
            "From the request's head to its sealed receipt, the provider's time included.",
            buckets=list(zip(bounds, accumulate(seconds), strict=True)),
            sum_value=counts.get("seconds-sum", 0.0),
        )
        for name, told, value in (
            ("exchanges_under_way", "Exchanges in the hall.", counts.get(UNDER_WAY, 0)),
            (
                "policies_kept_old",
                "1 while newer policies on disk could not be put in force.",
                int(bool(counts.get(ALARM))),
            ),
            ("ledger_leaves", "Leaves that have a place.", self._leaves),
            (
                "checkpoint_leaves",
                "Leaves under the newest published checkpoint.",
                counts.get(PUBLISHED, 0),
            ),
            ("workers", "Doors that are open; all counts are theirs.", self._whole.workers),
            (
                "workers_silent",
                "Doors not heard of for a while; their last counts are in.",
                self._whole.silent,
            ),
        ):
            yield GaugeMetricFamily(f"gateway_{name}", told, value)
        alarms = GaugeMetricFamily(
            "gateway_checkpoint_alarms",
            "What is wrong with witnesses, copies and timestamps of checkpoints.",
            labels=["code"],
        )
        for code in ALARMS:
            alarms.add_metric([code], counts.get(f"{RAISED}{code}", 0))
        yield alarms
