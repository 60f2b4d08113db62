"""How quickly a ledger's history is ruled on again, on one core.

First the deciding alone: a stream of questions of which no two are alike, each ruled on under
two libraries that differ in every policy. Then the whole of it, from a ledger on disk to a
report. The bar stands in `budget.yaml`; questions are made before the clock starts.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import gc
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import yaml

from gateway import settings
from gateway.app.installation import Installation, init, open_installation
from gateway.canonical import digest_of
from gateway.cli.replay import replay as run_replay
from gateway.dataset.calls import Call
from gateway.dataset.ruling import PolicyLaw
from gateway.ident import new_exchange_id
from gateway.intent.model import IntendedUse, declaration_id
from gateway.policy.condition import Measured, OneOf, Value
from gateway.policy.library import Library
from gateway.policy.model import Clause, Effect
from gateway.policy.question import Question
from gateway.policy.replay import Totals, replay
from gateway.policy.vocabulary import FACTS, NONE
from gateway.receipt.model import (
    Caller,
    DeclarationFacts,
    Declared,
    ModelFacts,
    Opening,
    ProviderFacts,
    Receipt,
    RequestFacts,
    Ruling,
    UsageFacts,
    Writer,
)
from gateway.receipt.statement import write_opening, write_statement
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
    parser.add_argument("--receipts", type=int, default=50_000, help="receipts of the ledger")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 under the budget")
    said = parser.parse_args()
    report = measure(said.questions, said.rounds)
    if said.receipts:
        with tempfile.TemporaryDirectory() as folder:
            report["ledger"] = measure_ledger(Path(folder), said.receipts)
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


def measure_ledger(folder: Path, count: int) -> dict[str, Any]:
    """Return what a replay of a ledger on disk takes, from opening it to a signed report."""
    config = folder / "gateway.yaml"
    config.write_text("data: ./gateway-data\n")
    init(settings.load(config, environment={}), "receipts.example/bench")
    args = argparse.Namespace(config=str(config))
    with contextlib.closing(open_installation(args)) as house:
        for batch in _batches(_history(house, count)):
            house.store.append(batch)
    with contextlib.closing(open_installation(args)) as house:
        begun, wall = time.process_time(), time.perf_counter()
        document = run_replay(house, reworded(house.library), DAY, folder / "report")
        spent, wall = time.process_time() - begun, time.perf_counter() - wall
    return {
        "receipts": count,
        "leaves": document["ledger"]["size"],
        "per_s": count / spent,
        "per_s_wall": count / wall,
        "changed": document["changed"],
    }


def _history(house: Installation, count: int) -> Iterator[bytes]:
    """Yield the leaves of *count* answered calls, as a gateway writes them."""
    random = Random(3)
    library, signer, writer = house.library, house.keyring.receipt, house.writer
    law = PolicyLaw(library, house.register)
    uses = [_use(random, number) for number in range(200)]
    for facts in (_declared(use, writer) for use in uses):
        yield write_statement(facts, (), signer)
    providers = [name for name, many in library.policies.items() if many[0].kind == "provider"]
    asked = [(random.choice(providers), random.choice([*library.models])) for _ in range(24)]
    rulings: dict[tuple[IntendedUse, str, str], Ruling] = {}
    for number in range(count):
        use, (provider, model) = random.choice(uses), random.choice(asked)
        at = DAY - dt.timedelta(days=200 - 200 * number // count)
        ruling = rulings.get((use, provider, model))
        if ruling is None:
            call = Call(provider=provider, model=model, operation="chat", policies=(provider,))
            ruling = rulings[use, provider, model] = law.rule(use, call, at)
        exchange = new_exchange_id(number)
        declared = Declared(use=use, declaration=declaration_id("bench", use))
        opening = Opening(
            exchange=exchange,
            at=f"{at}T00:00:00.000Z",
            principal="bench",
            project="bench",
            provider=provider,
            operation="chat",
            purpose=use.purpose,
            declaration=declared.declaration,
            ruling_sha256=library.digest,
            writer=writer.instance,
        )
        yield write_opening(opening)
        receipt = Receipt(
            exchange=exchange,
            caller=Caller(principal="bench", project="bench"),
            declared=declared,
            ruling=msgspec.structs.replace(ruling, day=at.isoformat()),
            provider=ProviderFacts(
                name=provider, endpoint="POST https://x.example", status=200
            ),
            model=ModelFacts(requested=model, reported=model),
            operation="chat",
            streaming=number % 2 == 0,
            readable=True,
            request=RequestFacts(bytes=1000),
            usage=UsageFacts(input_tokens=700, output_tokens=500),
            ended="complete",
            opening=200 + 2 * number,
            received=f"{at}T00:00:00.000Z",
            finished=f"{at}T00:00:01.000Z",
            writer=writer,
        )
        yield write_statement(receipt, (), signer)


def _use(random: Random, number: int) -> IntendedUse:
    return IntendedUse(
        purpose=random.choice(["train.sft", "train.reward", "inference", "evaluate.internal"]),
        student=f"student-{number}",
        student_kind=random.choice(["chat", "extractor", "classifier"]),
        competes=random.choice([True, False, None]),
        audience=random.choice(["internal", "customers"]),
        visibility="internal",
        commercial=random.choice([True, False]),
    )


def _declared(use: IntendedUse, writer: Writer) -> DeclarationFacts:
    return DeclarationFacts(
        declaration=declaration_id("bench", use),
        project="bench",
        use=use,
        owner="ada",
        at="2026-01-01T00:00:00.000Z",
        writer=writer,
    )


def _batches(leaves: Iterator[bytes]) -> Iterator[list[bytes]]:
    while batch := list(itertools.islice(leaves, 500)):
        yield batch


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
    changed = digest_of([library.digest, "reworded"])
    return replace(library, policies=policies, digest=changed)


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
    lines = [
        "CPU seconds of one core; on a shared machine they are not all one's own",
        f"the deciding itself, {report['questions']:,} questions of which no two are alike,",
        f"under two libraries of {report['policies']} policies that differ in each policy:",
        f"  {report['per_s']:,.0f} a second, median ({report['per_s_best']:,.0f} at best)",
        f"  {totals}",
    ]
    if "ledger" in report:
        ledger = report["ledger"]
        size = f"{ledger['receipts']:,} receipts ({ledger['leaves']:,} leaves)"
        rate = f"{ledger['per_s']:,.0f} receipts a second"
        lines += [
            f"a ledger of {size}, from disk to a signed report,",
            "each receipt as of the call and as of today:",
            f"  {rate} ({ledger['per_s_wall']:,.0f} by the clock)",
            f"  changed: {ledger['changed']}",
        ]
    return "\n".join(lines)


def _over_budget(report: dict[str, Any]) -> int:
    """Return 1 and say so if a figure is under its budget."""
    least = yaml.safe_load((HERE / "budget.yaml").read_text())["replay"]["exchanges_per_s_min"]
    if report["per_s"] >= least:
        return 0
    print(f"under budget: replay: {report['per_s']:,.0f} < {least:,} a second", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
