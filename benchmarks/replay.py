"""How quickly a ledger's history is ruled on again, on one core.

First the deciding alone: a stream of questions of which no two are alike, each ruled on under
two libraries that differ in every policy. Then the whole of it, from a ledger on disk to a
report. The bar stands in `budget.yaml`; questions are made before the clock starts.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import yaml

from gateway.policy.condition import Measured, OneOf, Value
from gateway.policy.library import Library
from gateway.policy.model import Clause, Effect
from gateway.policy.replay import Question, Totals, replay
from gateway.policy.vocabulary import FACTS, NONE
from gateway.store.policies import builtin_policies, read_policy_files

HERE = Path(__file__).resolve().parent
DAY = dt.date(2026, 11, 22)
OVERLAYS = ("eu-ai-act-art-53",)
DECLARED = 0.9
"""How often a use declares a fact that is its own to declare; the gateway knows the rest."""


def main() -> int:
    """Measure, print, and with `--check` hold the figures against the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=100_000, help="questions of a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds over the same stream")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 under the budget")
    said = parser.parse_args()
    report = measure(said.questions, said.rounds)
    print(json.dumps(report, indent=1) if said.json else _table(report))
    return _over_budget(report) if said.check else 0


def measure(count: int, rounds: int) -> dict[str, Any]:
    """Return the rates of the deciding itself."""
    before = Library.load(read_policy_files(builtin_policies()))
    after = reworded(before)
    questions = list(stream(before, count))
    # A ledger is a stream: nobody holds all its questions for the collector to walk through.
    gc.collect()
    gc.freeze()
    rates = []
    totals = Totals()
    for _ in range(rounds):
        totals = Totals()
        begun = time.process_time()
        for _ in replay(enumerate(questions), before, after, totals):
            pass
        rates.append(count / (time.process_time() - begun))
    return {
        "questions": count,
        "policies": len(before.policies),
        "per_s": statistics.median(rates),
        "per_s_best": max(rates),
        "totals": totals.as_json(),
    }


def reworded(library: Library) -> Library:
    """Return the library with every policy changed, and a permit in ten turned into a hold."""
    random = Random(2)

    def other(clause: Clause) -> Clause:
        if clause.binding is Effect.PERMIT and random.random() < 0.1:
            return replace(clause, effect=Effect.HOLD, binding=Effect.HOLD)
        return clause

    policies = {
        name: tuple(
            replace(one, title=f"{one.title}, again", clauses=tuple(map(other, one.clauses)))
            for one in versions
        )
        for name, versions in library.policies.items()
    }
    return replace(library, policies=policies)


def stream(library: Library, count: int) -> Iterator[Question]:
    """Yield questions of which no two are alike: two dozen models, all of them every day."""
    random = Random(1)
    named: dict[str, list[str]] = {kind: [] for kind in ("provider", "licence", "overlay")}
    for name, versions in library.policies.items():
        named[versions[0].kind].append(name)
    models = [*library.models, None]
    asked = [(random.choice(named["provider"]), random.choice(models)) for _ in range(24)]
    first = DAY - dt.timedelta(days=200)
    for number in range(count):
        facts = {
            name: _value(name, random, number)
            for name, fact in FACTS.items()
            if fact.origin != "derived"
            and (fact.origin != "declared" or random.random() < DECLARED)
        }
        facts["purpose"] = _value("purpose", random, number)
        facts["student"] = f"student-{number}"
        provider, model = random.choice(asked)
        yield Question(
            facts=facts,
            policies=(provider, *OVERLAYS),
            model=model,
            on=first + dt.timedelta(days=200 * number // count),
        )


def _value(name: str, random: Random, number: int) -> Value:
    fact = FACTS[name]
    match fact.kind:
        case "yes-no":
            return random.random() < 0.5
        case "word" if name == "reasoning-kind" and random.random() < 0.5:
            return OneOf(frozenset({"none", "summary", "visible"}))
        case "word" | "purpose":
            return random.choice(list(fact.words))
        case "words":
            return frozenset(word for word in fact.words if random.random() < 0.3)
        case "country":
            return random.choice(["DE", "US", "FR", "CN", "GB", "JP", "IS"])
        case "date":
            return DAY - dt.timedelta(days=random.randrange(900))
        case "number":
            return Measured((("2024-11", number), ("2026-10", number * random.randrange(9000))))
        case _:
            return random.choice([NONE, f"{name}-{number}", f"meta-llama/{number}"])


def _table(report: dict[str, Any]) -> str:
    totals = ", ".join(f"{count} {name}" for name, count in report["totals"].items())
    return "\n".join(
        [
            f"the deciding itself: {report['questions']} questions, no two alike,"
             f" under two libraries of {report['policies']} policies that differ in each",
            f"  {report['per_s']:,.0f} a second, median ({report['per_s_best']:,.0f} at best)",
            f"  {totals}",
        ]
    )


def _over_budget(report: dict[str, Any]) -> int:
    """Return 1 and say so if a figure is under its budget."""
    least = yaml.safe_load((HERE / "budget.yaml").read_text())["replay"]["exchanges_per_s_min"]
    if report["per_s"] >= least:
        return 0
    print(f"under budget: replay: {report['per_s']:,.0f} < {least:,} a second", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
