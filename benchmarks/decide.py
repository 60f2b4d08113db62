"""What one ruling costs: a host, the licence of its model and an overlay, for declared uses.

The compiled conditions are set against asking clause by clause in the same run; on a shared
machine only that ratio means much. The bar in microseconds stands in `budget.yaml`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from gateway.intent.model import IntendedUse
from gateway.policy.condition import Measured
from gateway.policy.decide import Facts, decide, facts_of
from gateway.policy.library import Library
from gateway.policy.model import Policy
from gateway.provider.model import Operation, ProviderCall
from gateway.store.policies import builtin_policies, read_policy_files

HERE = Path(__file__).resolve().parent
DAY = dt.date(2026, 11, 22)
LAYERS = ("together", "llama-3.3", "eu-ai-act-art-53")
CALL = ProviderCall(
    provider="together", operation=Operation.CHAT, model="meta-llama/Llama-3.3-70B-Instruct"
)
CAREFUL = IntendedUse(
    purpose="train.sft",
    student="invoice-parser",
    student_kind="extractor",
    imitates_teacher=False,
    competes=False,
    competes_basis="an internal tool",
    competes_assessed_by="grace",
    competes_assessed_on="2026-11-01",
    similar=False,
    audience="internal",
    visibility="internal",
    commercial=False,
    research=False,
    notices=("display", "licence-copy"),
    automation="scripted",
    base_model="Qwen/Qwen3-8B",
    jurisdiction="DE",
)
RIVAL = msgspec.structs.replace(
    CAREFUL, competes=True, student_kind="chat", audience="public", visibility="weights"
)
USES = {
    "permit, all declared": CAREFUL,
    "permit, inference": IntendedUse(purpose="inference"),
    "hold, much undeclared": IntendedUse(purpose="train.sft", student="invoice-parser"),
    "forbid, a rival": RIVAL,
}


def main() -> int:
    """Measure, print, and with `--check` hold the figures against the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=200, help="batches of each use")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 over the budget")
    said = parser.parse_args()
    report = measure(_policies(), said.batches)
    print(json.dumps(report, indent=1) if said.json else _table(report))
    return _over_budget(report) if said.check else 0


def measure(policies: list[Policy], batches: int) -> dict[str, Any]:
    """Return the figures for every use."""
    report: dict[str, Any] = {
        "layers": {policy.id: len(policy.clauses) for policy in policies},
        "batches": batches,
        "uses": {},
    }
    for name, use in USES.items():
        facts = _facts(use)
        decision = decide(facts, policies, DAY)
        spent = _interleaved(
            batches,
            lambda facts=facts: decide(facts, policies, DAY),
            lambda facts=facts: _one_by_one(facts, policies),
            lambda use=use: _facts(use),
        )
        report["uses"][name] = {
            "effect": decision.effect.word,
            "reasons": len(decision.reasons),
            "decide_us": spent[0],
            "one_by_one_us": spent[1],
            "facts_us": spent[2],
        }
    return report


def _policies() -> list[Policy]:
    library = Library.load(read_policy_files(builtin_policies()))
    binding = library.binding(LAYERS, CALL.model, DAY)
    return [policy for policy in binding.policies if policy.id in LAYERS]


def _facts(use: IntendedUse) -> Facts:
    return facts_of(
        use,
        CALL,
        account_tier="paid",
        access_route="host",
        gateway_role="internal",
        headquarters="DE",
        monthly_users=Measured((("2024-11", 30_000), ("2026-10", 40_000))),
        generated_on=DAY,
    )


def _one_by_one(facts: Facts, policies: list[Policy]) -> int:
    """Ask every clause on its own, and do nothing with the answers."""
    return sum(
        clause.condition.truth(facts) is True
        for policy in policies
        for clause in policy.clauses
    )


def _interleaved(batches: int, *whats: Callable[[], object]) -> list[dict[str, float]]:
    """Return the microseconds of each of *whats*, in turns so that all share a slow moment."""
    times: list[list[float]] = [[] for _ in whats]
    for _ in range(batches):
        for what, spent in zip(whats, times, strict=True):
            begun = time.perf_counter()
            for _ in range(50):
                what()
            spent.append((time.perf_counter() - begun) / 50 * 1e6)
    return [{"p50": statistics.median(spent), "min": min(spent)} for spent in times]


def _table(report: dict[str, Any]) -> str:
    layers = ", ".join(f"{name} ({count})" for name, count in report["layers"].items())
    lines = [
        f"one ruling over {layers}; clauses in brackets",
        f"medians of {report['batches']} batches of 50 (the quickest batch), microseconds",
        "",
        f"{'use':24} {'decide':>16} {'clause by clause':>18} {'ratio':>6} {'facts of it':>16}",
    ]
    for name, use in report["uses"].items():
        decide_us, one_us, facts_us = (
            f"{use[part]['p50']:.1f} ({use[part]['min']:.1f})"
            for part in ("decide_us", "one_by_one_us", "facts_us")
        )
        ratio = use["decide_us"]["p50"] / use["one_by_one_us"]["p50"]
        lines.append(f"{name:24} {decide_us:>16} {one_us:>18} {ratio:6.2f} {facts_us:>16}")
    return "\n".join(lines)


def _over_budget(report: dict[str, Any]) -> int:
    """Return 1 and say so if a figure is over its budget."""
    most = yaml.safe_load((HERE / "budget.yaml").read_text())["decide"]["us_p50_max"]
    bad = 0
    for name, use in report["uses"].items():
        if use["decide_us"]["p50"] > most:
            told = f"{use['decide_us']['p50']:.1f} > {most}"
            print(f"over budget: decide: {name}: microseconds {told}", file=sys.stderr)
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())
